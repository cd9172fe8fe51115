//! Committing to sealed weights, and opening what is due (chain spec, chapter 6). The chain's beacon is its own: a key in the
//! open, whose signature of any round can be made when it is needed. What is sealed for the public beacon is stored, and
//! lost with its epoch.

use std::sync::LazyLock;

use byteleap_chain::timelock::{self, Beacon, BeaconSecret, Commitment, LARGEST_COMMIT_BYTES};
use parity_scale_codec::Decode;
use sp_crypto_hashing::blake2_256;

use super::{
    ensure,
    weights::{self, Vector},
};
use crate::{
    extrinsic::Refusal,
    state::{State, View},
    storage::{self, Commit},
    types::{
        AccountId32, BoundedVec, H256, MechId, NetUid, NetUidStorageIndex, RuntimeEvent,
        pallet_subtensor::pallet::{Error, Event},
    },
};

/// Commits of one hotkey that may wait for their reveal in one epoch.
const UNREVEALED_COMMITS: usize = 10;

/// The number under which the pool refuses a commit for a round that is out.
const BAD_REVEAL_ROUND: u8 = 15;

static SECRET: LazyLock<BeaconSecret> = LazyLock::new(|| BeaconSecret::from_seed(b"byteleap development beacon"));

static BEACON: LazyLock<Beacon> = LazyLock::new(|| SECRET.beacon());

/// The beacon that opens commits on this chain.
pub(crate) fn beacon() -> Beacon {
    *BEACON
}

/// Stores the rounds that the beacon has signed at `now_ms`.
pub(crate) fn store_pulses(state: &mut State, now_ms: u64) {
    state.put(&storage::LastStoredRound, (), beacon().newest_round(now_ms));
}

/// The pool's check: a round that is out would reveal the weights at once.
pub(super) fn validate(view: View<'_>, reveal_round: u64) -> Result<(), Refusal> {
    let is_ahead = reveal_round >= view.get(&storage::LastStoredRound, ());
    if is_ahead { Ok(()) } else { Err(Refusal::Custom(BAD_REVEAL_ROUND)) }
}

/// Checks and stores sealed weights of `hotkey`.
pub(super) fn commit(
    state: &mut State,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    BoundedVec(sealed): BoundedVec,
    reveal_round: u64,
    version: u16,
) -> Result<Event, Error> {
    let view = state.latest();
    ensure(view.get(&storage::CommitRevealWeightsEnabled, netuid), Error::CommitRevealDisabled)?;
    ensure(version == view.get(&storage::CommitRevealWeightsVersion, ()), Error::IncorrectCommitRevealVersion)?;
    ensure(view.get(&storage::NetworksAdded, netuid), Error::MechanismDoesNotExist)?;
    ensure(mechanism < view.get(&storage::MechanismCountCurrent, netuid), Error::MechanismDoesNotExist)?;
    let uid = view.find(&storage::Uids, (netuid, hotkey)).ok_or(Error::HotKeyNotRegisteredInSubNet)?;
    weights::check_stake(view, netuid, hotkey)?;
    weights::check_rate(view, netuid, uid, Error::CommittingWeightsTooFast)?;

    let (index, now) = (NetUidStorageIndex::from(netuid), u64::from(view.block()));
    let epoch = view.get(&storage::SubnetEpochIndex, netuid);
    let waiting = view.get(&storage::TimelockedWeightCommits, (index, epoch));
    let own = waiting.iter().filter(|(sender, ..)| *sender == hotkey).count();
    ensure(own < UNREVEALED_COMMITS, Error::TooManyUnrevealedCommits)?;

    let hash = H256(blake2_256(&sealed));
    let commit: Commit = (hotkey, now, BoundedVec(sealed), reveal_round);
    state.mutate(&storage::TimelockedWeightCommits, (index, epoch), |commits| commits.push(commit));
    state.mutate(&storage::LastUpdate, index, |blocks| blocks[usize::from(uid)] = now);
    Ok(Event::TimelockedWeightsCommitted(hotkey, index, hash, reveal_round))
}

/// The longest commit that the call takes.
pub(super) fn is_bounded(BoundedVec(sealed): &BoundedVec) -> bool {
    sealed.len() <= LARGEST_COMMIT_BYTES
}

/// Opens the commits of a subnet that are due in its epoch `epoch`, and forgets those that an epoch has passed by. A commit
/// whose round is not out yet waits for the rest of the epoch.
pub(crate) fn reveal_due(state: &mut State, netuid: NetUid, epoch: u64) -> Vec<RuntimeEvent> {
    let view = state.latest();
    let index = NetUidStorageIndex::from(netuid);
    let Some(due) = epoch.checked_sub(view.get(&storage::RevealPeriodEpochs, netuid)) else { return Vec::new() };
    let newest_round = view.get(&storage::LastStoredRound, ());
    if let Some(past) = due.checked_sub(1)
        && let lost = view.get(&storage::TimelockedWeightCommits, (index, past))
        && !lost.is_empty()
    {
        tracing::warn!(
            subnet = netuid.0,
            epoch = past,
            commits = lost.len(),
            "commits were lost: their rounds came too late"
        );
        state.remove(&storage::TimelockedWeightCommits, (index, past));
    }
    let commits = state.latest().get(&storage::TimelockedWeightCommits, (index, due));
    let (ready, waiting): (Vec<Commit>, Vec<Commit>) =
        commits.into_iter().partition(|(.., reveal_round)| *reveal_round <= newest_round);
    if ready.is_empty() {
        return Vec::new();
    }
    state.put(&storage::TimelockedWeightCommits, (index, due), waiting);
    let events = ready.into_iter().filter_map(|commit| match reveal(state, netuid, &commit) {
        Ok(event) => Some(RuntimeEvent::SubtensorModule(event)),
        Err(why) => {
            tracing::warn!(subnet = netuid.0, block = commit.1, round = commit.3, why, "a commit was not revealed");
            None
        }
    });
    events.collect()
}

/// Opens one commit and applies its weights; why not, otherwise.
fn reveal(state: &mut State, netuid: NetUid, (sender, _, sealed, round): &Commit) -> Result<Event, String> {
    let text = timelock::open(&sealed.0, &SECRET.sign(*round)).map_err(|error| error.to_string())?;
    let payload = Commitment::decode(&mut &text[..]).map_err(|error| error.to_string())?;
    if payload.hotkey != sender.0 {
        return Err("it holds the weights of another hotkey".to_owned());
    }
    let Commitment { uids, values, version_key, .. } = payload;
    weights::reveal(state, *sender, netuid, MechId(0), &Vector { uids, values, version_key })
        .map_err(|error| format!("{error:?}"))
}
