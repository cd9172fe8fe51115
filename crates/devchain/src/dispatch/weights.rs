//! Setting weights in the clear (chain spec 5.2).

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

/// Checks and stores the weights of `hotkey`, scaled so that the largest is 65,535.
pub(super) fn set(
    state: &mut State,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
) -> Result<Event, Error> {
    let view = state.latest();
    let uid = check(view, hotkey, netuid, mechanism, &uids, &values, version_key)?;
    let now = u64::from(view.block());

    // The only mechanism is the first, whose index is the netuid.
    let index = NetUidStorageIndex::from(netuid);
    let weights: Vec<(u16, u16)> = uids.into_iter().zip(scale_to_top(&values)).collect();
    state.put(&storage::Weights, (index, uid), weights);
    state.mutate(&storage::LastUpdate, index, |blocks| blocks[usize::from(uid)] = now);
    Ok(Event::WeightsSet(index, uid))
}

/// The chain's checks in the chain's order; the sender's uid when all hold.
fn check(
    view: View<'_>,
    hotkey: AccountId32,
    netuid: NetUid,
    mechanism: MechId,
    uids: &[u16],
    values: &[u16],
    version_key: u64,
) -> Result<u16, Error> {
    // Commit-reveal is on where nobody turned it off, hence also on a subnet that does not exist.
    ensure(!view.get(&storage::CommitRevealWeightsEnabled, netuid), Error::CommitRevealEnabled)?;

    ensure(uids.len() == values.len(), Error::WeightVecNotEqualSize)?;
    ensure(view.get(&storage::NetworksAdded, netuid), Error::MechanismDoesNotExist)?;
    ensure(mechanism < view.get(&storage::MechanismCountCurrent, netuid), Error::MechanismDoesNotExist)?;
    let neurons = view.get(&storage::SubnetworkN, netuid);
    ensure(uids.len() <= usize::from(neurons), Error::UidsLengthExceedUidsInSubNet)?;

    let uid = view.find(&storage::Uids, (netuid, hotkey)).ok_or(Error::HotKeyNotRegisteredInSubNet)?;
    let is_owner = view.get(&storage::SubnetOwnerHotkey, netuid) == hotkey;
    let only_self = uids == [uid];

    let stake = view.get(&storage::TotalHotkeyAlpha, (hotkey, netuid)).0;
    ensure(is_owner || stake >= view.get(&storage::StakeThreshold, ()), Error::NotEnoughStakeToSetWeights)?;

    let required_key = view.get(&storage::WeightsVersionKey, netuid);
    ensure(required_key == 0 || version_key >= required_key, Error::IncorrectWeightVersionKey)?;

    let last_update = view.get(&storage::LastUpdate, NetUidStorageIndex::from(netuid))[usize::from(uid)];
    let elapsed = u64::from(view.block()) - last_update;
    let rate_limit = view.get(&storage::WeightsSetRateLimit, netuid);
    ensure(last_update == 0 || elapsed >= rate_limit, Error::SettingWeightsTooFast)?;

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
