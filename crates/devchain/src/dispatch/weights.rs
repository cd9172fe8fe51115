//! Setting weights, in the clear or revealed (chain spec 5.2).

use std::collections::BTreeSet;

use super::ensure;
use crate::{
    state::{State, View},
    storage,
    types::{
        AccountId32, MechId, NetUid, NetUidStorageIndex,
        pallet_subtensor::pallet::{Error, Event},
    },
};

/// A weight vector as it is sent.
pub(crate) struct Vector {
    pub(crate) uids: Vec<u16>,
    pub(crate) values: Vec<u16>,
    pub(crate) version_key: u64,
}

/// Checks and stores the weights that `hotkey` sent in the clear.
pub(super) fn set(
    state: &mut State,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    vector: &Vector,
) -> Result<Event, Error> {
    let view = state.latest();
    // Commit-reveal is on where nobody turned it off, hence also on a subnet that does not exist.
    ensure(!view.get(&storage::CommitRevealWeightsEnabled, netuid), Error::CommitRevealEnabled)?;
    let now = u64::from(view.block());
    let uid = check(view, hotkey, netuid, mechanism, vector, Some(Error::SettingWeightsTooFast))?;
    let index = store(state, netuid, uid, vector);
    state.mutate(&storage::LastUpdate, index, |blocks| blocks[usize::from(uid)] = now);
    Ok(Event::WeightsSet(index, uid))
}

/// Checks and stores the weights that `hotkey` committed to in time: the same rules, but no rate limit, and the last update
/// stays that of the commit.
pub(crate) fn reveal(
    state: &mut State,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    vector: &Vector,
) -> Result<Event, Error> {
    let uid = check(state.latest(), hotkey, netuid, mechanism, vector, None)?;
    Ok(Event::TimelockedWeightsRevealed(store(state, netuid, uid, vector), hotkey))
}

/// Stores weights, scaled so that the largest is 65,535.
fn store(state: &mut State, netuid: NetUid, uid: u16, vector: &Vector) -> NetUidStorageIndex {
    // The only mechanism is the first, whose index is the netuid.
    let index = NetUidStorageIndex::from(netuid);
    let weights: Vec<(u16, u16)> = vector.uids.iter().copied().zip(scale_to_top(&vector.values)).collect();
    state.put(&storage::Weights, (index, uid), weights);
    index
}

/// Refuses with `error` what `uid` sends before the rate limit has passed.
pub(super) fn check_rate(view: View<'_>, netuid: NetUid, uid: u16, error: Error) -> Result<(), Error> {
    let last_update = view.get(&storage::LastUpdate, NetUidStorageIndex::from(netuid))[usize::from(uid)];
    let elapsed = u64::from(view.block()) - last_update;
    ensure(last_update == 0 || elapsed >= view.get(&storage::WeightsSetRateLimit, netuid), error)
}

/// Refuses a sender without the stake that weights take.
pub(super) fn check_stake(view: View<'_>, netuid: NetUid, hotkey: AccountId32) -> Result<(), Error> {
    let stake = view.get(&storage::TotalHotkeyAlpha, (hotkey, netuid)).0;
    let is_owner = view.get(&storage::SubnetOwnerHotkey, netuid) == hotkey;
    ensure(is_owner || stake >= view.get(&storage::StakeThreshold, ()), Error::NotEnoughStakeToSetWeights)
}

/// The chain's checks in the chain's order; the sender's uid when all hold. `too_fast` is the rate limit's error, if it counts.
fn check(
    view: View<'_>,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    Vector { uids, values, version_key }: &Vector,
    too_fast: Option<Error>,
) -> Result<u16, Error> {
    ensure(uids.len() == values.len(), Error::WeightVecNotEqualSize)?;
    ensure(view.get(&storage::NetworksAdded, netuid), Error::MechanismDoesNotExist)?;
    ensure(mechanism < view.get(&storage::MechanismCountCurrent, netuid), Error::MechanismDoesNotExist)?;
    let neurons = view.get(&storage::SubnetworkN, netuid);
    ensure(uids.len() <= usize::from(neurons), Error::UidsLengthExceedUidsInSubNet)?;

    let uid = view.find(&storage::Uids, (netuid, hotkey)).ok_or(Error::HotKeyNotRegisteredInSubNet)?;
    let is_owner = view.get(&storage::SubnetOwnerHotkey, netuid) == hotkey;
    let only_self = *uids == [uid];
    check_stake(view, netuid, hotkey)?;

    let required_key = view.get(&storage::WeightsVersionKey, netuid);
    ensure(required_key == 0 || *version_key >= required_key, Error::IncorrectWeightVersionKey)?;

    too_fast.map_or(Ok(()), |error| check_rate(view, netuid, uid, error))?;

    let permit = view.get(&storage::ValidatorPermit, netuid)[usize::from(uid)];
    ensure(only_self || is_owner || permit, Error::NeuronNoValidatorPermit)?;

    let distinct: BTreeSet<u16> = uids.iter().copied().collect();
    ensure(distinct.len() == uids.len(), Error::DuplicateUids)?;
    ensure(distinct.iter().all(|uid| *uid < neurons), Error::UidVecContainInvalidOne)?;

    let fewest = view.get(&storage::MinAllowedWeights, netuid).min(neurons);
    ensure(only_self || uids.len() >= usize::from(fewest), Error::WeightVecLengthIsLow)?;

    let limit = view.get(&storage::MaxWeightsLimit, netuid);
    ensure(only_self || largest_share(values) <= limit, Error::MaxWeightExceeded)?;
    Ok(uid)
}

/// The largest value's share of the sum, in steps of 1/65,535, rounded down.
fn largest_share(values: &[u16]) -> u16 {
    let sum: u64 = values.iter().copied().map(u64::from).sum();
    let largest = values.iter().copied().max().map_or(0, u64::from);
    (largest * u64::from(u16::MAX)).checked_div(sum).map_or(0, |share| share as u16)
}

/// The values times whatever makes the largest 65,535; all zeros stay zeros.
fn scale_to_top(values: &[u16]) -> Vec<u16> {
    let top = values.iter().copied().max().map_or(0, u64::from);
    values
        .iter()
        .map(|value| (u64::from(*value) * u64::from(u16::MAX)).checked_div(top).map_or(0, |scaled| scaled as u16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_a_no_op_once_the_top_value_is_65535() {
        assert_eq!(scale_to_top(&[21845, 65535, 0]), [21845, 65535, 0]);
        assert_eq!(scale_to_top(&[1, 2]), [32767, 65535]);
        assert_eq!(scale_to_top(&[0, 0]), [0, 0]);
    }

    #[test]
    fn the_largest_share_is_of_the_sum() {
        assert_eq!(largest_share(&[1, 1]), 32767);
        assert_eq!(largest_share(&[9]), u16::MAX);
        assert_eq!(largest_share(&[]), 0);
    }
}
