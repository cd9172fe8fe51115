//! Taking a uid on a subnet: at genesis, or against the burn price while the chain runs.

use super::ensure;
use crate::{
    state::{State, View},
    storage,
    types::{
        AccountId32, AlphaBalance, NetUid, NetUidStorageIndex, TaoBalance,
        pallet_subtensor::pallet::{Error, Event},
    },
};

/// Registers `hotkey` for the signing coldkey, which pays the burn price. A full subnet gives up its neuron of least
/// stake that is out of immunity, the oldest first.
pub(super) fn burned_register(
    state: &mut State,
    coldkey: AccountId32,
    netuid: NetUid,
    hotkey: AccountId32,
) -> Result<Event, Error> {
    let view = state.latest();
    ensure(view.get(&storage::NetworksAdded, netuid), Error::SubnetNotExists)?;
    ensure(view.find(&storage::Uids, (netuid, hotkey)).is_none(), Error::HotKeyAlreadyRegisteredInSubNet)?;
    let owner = view.find(&storage::Owner, hotkey);
    ensure(owner.is_none_or(|owner| owner == coldkey), Error::NonAssociatedColdKey)?;
    let price = view.get(&storage::Burn, netuid).0;
    let account = view.get(&storage::Account, coldkey);
    let rest = account.data.free.0.checked_sub(price).ok_or(Error::NotEnoughBalanceToStake)?;
    let uid = free_uid(view, netuid).ok_or(Error::NoNeuronIdAvailable)?;

    state.mutate(&storage::Account, coldkey, |account| account.data.free = TaoBalance(rest));
    register(state, netuid, uid, hotkey, coldkey, AlphaBalance(0));
    Ok(Event::NeuronRegistered(netuid, uid, hotkey))
}

/// Gives `uid` to a hotkey, in place of whoever held it.
pub(crate) fn register(
    state: &mut State,
    netuid: NetUid,
    uid: u16,
    hotkey: AccountId32,
    coldkey: AccountId32,
    stake: AlphaBalance,
) {
    let index = NetUidStorageIndex::from(netuid);
    let view = state.latest();
    let now = u64::from(view.block());
    let neurons = view.get(&storage::SubnetworkN, netuid);
    if uid < neurons {
        let previous = view.get(&storage::Keys, (netuid, uid));
        state.remove(&storage::Uids, (netuid, previous));
        state.remove(&storage::IsNetworkMember, (previous, netuid));
        state.remove(&storage::Axons, (netuid, previous));
        state.remove(&storage::Weights, (index, uid));
    } else {
        state.put(&storage::SubnetworkN, netuid, uid + 1);
    }
    state.put(&storage::Uids, (netuid, hotkey), uid);
    state.put(&storage::Keys, (netuid, uid), hotkey);
    state.put(&storage::Owner, hotkey, coldkey);
    state.put(&storage::IsNetworkMember, (hotkey, netuid), true);
    state.put(&storage::BlockAtRegistration, (netuid, uid), now);
    state.put(&storage::TotalHotkeyAlpha, (hotkey, netuid), stake);
    // A fresh neuron counts as active, and waits one rate limit before its first weights.
    state.mutate(&storage::Active, netuid, |column| set_row(column, uid, true));
    state.mutate(&storage::ValidatorPermit, netuid, |column| set_row(column, uid, false));
    state.mutate(&storage::LastUpdate, index, |column| set_row(column, uid, now));
}

/// The next unused uid, or on a full subnet the one whose neuron must go; `None` if all are immune.
fn free_uid(view: View<'_>, netuid: NetUid) -> Option<u16> {
    let neurons = view.get(&storage::SubnetworkN, netuid);
    if neurons < view.get(&storage::MaxAllowedUids, netuid) {
        return Some(neurons);
    }
    let now = u64::from(view.block());
    let immunity = u64::from(view.get(&storage::ImmunityPeriod, netuid));
    (0..neurons)
        .map(|uid| {
            let registered_at = view.get(&storage::BlockAtRegistration, (netuid, uid));
            let stake = view.get(&storage::TotalHotkeyAlpha, (view.get(&storage::Keys, (netuid, uid)), netuid));
            (stake, registered_at, uid)
        })
        .filter(|(_, registered_at, _)| now - registered_at >= immunity)
        .min()
        .map(|(_, _, uid)| uid)
}

/// Writes a neuron's row of a column, which a new neuron lengthens by one.
fn set_row<T>(column: &mut Vec<T>, uid: u16, value: T) {
    match column.get_mut(usize::from(uid)) {
        Some(row) => *row = value,
        None => column.push(value),
    }
}
