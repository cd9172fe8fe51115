//! Epochs: when a subnet's is due, and what it recomputes (chain spec 5.1). Emission is left out; nothing that runs on
//! this chain reads it.

use crate::{
    dispatch::commit,
    state::{State, View},
    storage,
    types::{NetUid, NetUidStorageIndex, RuntimeEvent},
};

/// Subnets whose epoch runs in one block at most; the others wait for the next.
const EPOCHS_PER_BLOCK: usize = 2;
/// An epoch runs after so many blocks without one, whatever the schedule says.
const LONGEST_STEP_BLOCKS: u64 = 50_400;
/// Neurons of a subnet that hold a validator permit at most.
pub(crate) const VALIDATORS: usize = 64;
/// Thousandths of a tempo without new weights after which a neuron is no longer active.
const ACTIVITY_CUTOFF_MILLITEMPOS: u64 = 13_889;

/// Opens the commits that are due in the block being built; what came of it. Goes before [`run_due`].
pub(crate) fn reveal_due(state: &mut State) -> Vec<RuntimeEvent> {
    let mut events = Vec::new();
    for netuid in netuids(state.latest()) {
        let view = state.latest();
        let epoch = view.get(&storage::SubnetEpochIndex, netuid) + u64::from(is_due(view, netuid));
        events.extend(commit::reveal_due(state, netuid, epoch));
    }
    events
}

/// Runs the epochs that are due in the block being built and counts the block for all other subnets.
pub(crate) fn run_due(state: &mut State) {
    let mut run = 0;
    for netuid in netuids(state.latest()) {
        if run < EPOCHS_PER_BLOCK && is_due(state.latest(), netuid) {
            run += 1;
            run_epoch(state, netuid);
        } else {
            state.mutate(&storage::BlocksSinceLastStep, netuid, |blocks| *blocks += 1);
        }
    }
}

/// Gives the validator permits: to the hotkeys of most stake, if they have any and it reaches the threshold.
pub(crate) fn give_permits(state: &mut State, netuid: NetUid) {
    let view = state.latest();
    let threshold = view.get(&storage::StakeThreshold, ());
    let neurons = view.get(&storage::SubnetworkN, netuid);
    let mut by_stake: Vec<(u64, u16)> = (0..neurons)
        .map(|uid| (view.get(&storage::TotalHotkeyAlpha, (view.get(&storage::Keys, (netuid, uid)), netuid)).0, uid))
        .filter(|(stake, _)| *stake > 0 && *stake >= threshold)
        .collect();
    by_stake.sort_by_key(|(stake, uid)| (std::cmp::Reverse(*stake), *uid));

    let mut permits = vec![false; usize::from(neurons)];
    for (_, uid) in by_stake.into_iter().take(VALIDATORS) {
        permits[usize::from(uid)] = true;
    }
    state.put(&storage::ValidatorPermit, netuid, permits);
}

/// Blocks without new weights after which a neuron of the subnet is no longer active.
pub(crate) fn activity_cutoff(view: View<'_>, netuid: NetUid) -> u64 {
    ACTIVITY_CUTOFF_MILLITEMPOS * u64::from(view.get(&storage::Tempo, netuid)) / 1000
}

/// The subnets, by number.
fn netuids(view: View<'_>) -> Vec<NetUid> {
    let zero = storage::NetworksAdded.key(&NetUid(0));
    let prefix = &zero[..zero.len() - 2];
    let mut netuids: Vec<NetUid> = view
        .keys(prefix, &[])
        .filter_map(|key| key[prefix.len()..].try_into().ok().map(u16::from_le_bytes).map(NetUid))
        .filter(|netuid| view.get(&storage::NetworksAdded, *netuid))
        .collect();
    netuids.sort_unstable();
    netuids
}

fn is_due(view: View<'_>, netuid: NetUid) -> bool {
    let now = u64::from(view.block());
    let tempo = u64::from(view.get(&storage::Tempo, netuid));
    let pending_at = view.get(&storage::PendingEpochAt, netuid);
    let last = view.get(&storage::LastEpochBlock, netuid);
    let since_step = view.get(&storage::BlocksSinceLastStep, netuid);
    tempo > 0 && ((pending_at > 0 && now >= pending_at) || since_step > LONGEST_STEP_BLOCKS || now - last >= tempo)
}

fn run_epoch(state: &mut State, netuid: NetUid) {
    let view = state.latest();
    let now = u64::from(view.block());
    let cutoff = activity_cutoff(view, netuid);
    let last_update = view.get(&storage::LastUpdate, NetUidStorageIndex::from(netuid));
    let active: Vec<bool> = last_update.iter().map(|block| now - block <= cutoff).collect();

    state.put(&storage::Active, netuid, active);
    give_permits(state, netuid);
    state.put(&storage::LastEpochBlock, netuid, now);
    state.put(&storage::PendingEpochAt, netuid, 0);
    state.put(&storage::BlocksSinceLastStep, netuid, 0);
    state.mutate(&storage::SubnetEpochIndex, netuid, |index| *index += 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETUID: NetUid = NetUid(300);

    fn subnet_of_tempo(tempo: u16) -> State {
        let mut state = State::new(b"");
        state.put(&storage::NetworksAdded, NETUID, true);
        state.put(&storage::Tempo, NETUID, tempo);
        state
    }

    fn epochs_in(state: &mut State, blocks: std::ops::RangeInclusive<u32>) -> Vec<u32> {
        blocks
            .filter(|_| {
                let before = state.latest().get(&storage::SubnetEpochIndex, NETUID);
                state.begin_block();
                run_due(state);
                state.latest().get(&storage::SubnetEpochIndex, NETUID) > before
            })
            .collect()
    }

    #[test]
    fn an_epoch_runs_every_tempo_blocks_and_the_counter_starts_anew() {
        let mut state = subnet_of_tempo(3);
        assert_eq!(epochs_in(&mut state, 1..=7), [3, 6]);
        assert_eq!(state.latest().get(&storage::LastEpochBlock, NETUID), 6);
        assert_eq!(state.latest().get(&storage::BlocksSinceLastStep, NETUID), 1);
    }

    #[test]
    fn an_epoch_asked_for_comes_early_and_shifts_the_schedule() {
        let mut state = subnet_of_tempo(5);
        state.put(&storage::PendingEpochAt, NETUID, 2);
        assert_eq!(epochs_in(&mut state, 1..=8), [2, 7]);
    }

    #[test]
    fn tempo_zero_never_runs() {
        assert!(epochs_in(&mut subnet_of_tempo(0), 1..=20).is_empty());
    }

    #[test]
    fn two_epochs_a_block_and_the_third_subnet_waits_for_the_next() {
        let mut state = State::new(b"");
        for netuid in [1, 2, 3] {
            state.put(&storage::NetworksAdded, NetUid(netuid), true);
            state.put(&storage::Tempo, NetUid(netuid), 1);
        }
        state.begin_block();
        run_due(&mut state);
        let index = |state: &State, netuid| state.latest().get(&storage::SubnetEpochIndex, NetUid(netuid));
        assert_eq!([1, 2, 3].map(|netuid| index(&state, netuid)), [1, 1, 0]);
    }
}
