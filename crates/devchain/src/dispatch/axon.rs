//! Publishing where a neuron serves (chain spec 4.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ensure;
use crate::{
    state::{State, View},
    storage,
    types::{
        AccountId32, NetUid,
        pallet_subtensor::pallet::{AxonInfo, Error, Event},
    },
};

/// What axons state as their protocol.
const PROTOCOL: u8 = 4;

/// The record of an axon that serves `address` since `block`.
pub(crate) fn at(address: SocketAddr, version: u32, block: u64) -> AxonInfo {
    let (ip, ip_type) = match address.ip() {
        IpAddr::V4(ip) => (u32::from(ip).into(), 4),
        IpAddr::V6(ip) => (ip.into(), 6),
    };
    let port = address.port();
    AxonInfo { block, version, ip, port, ip_type, protocol: PROTOCOL, placeholder1: 0, placeholder2: 0 }
}

/// Checks and stores the address of `hotkey`.
pub(super) fn serve(state: &mut State, hotkey: AccountId32, netuid: NetUid, axon: AxonInfo) -> Result<Event, Error> {
    check(state.latest(), hotkey, netuid, axon.block, axon.ip_type, axon.ip, axon.port)?;
    state.put(&storage::Axons, (netuid, hotkey), axon);
    Ok(Event::AxonServed(netuid, hotkey))
}

/// The chain's checks in the chain's order, for an axon that would be stored at block `now`.
pub(super) fn check(
    view: View<'_>,
    hotkey: AccountId32,
    netuid: NetUid,
    now: u64,
    ip_type: u8,
    ip: u128,
    port: u16,
) -> Result<(), Error> {
    ensure(view.find(&storage::Uids, (netuid, hotkey)).is_some(), Error::HotKeyNotRegisteredInNetwork)?;
    ensure(ip_type == 4 || ip_type == 6, Error::InvalidIpType)?;
    ensure(is_servable(ip_type, ip), Error::InvalidIpAddress)?;

    let served_at = view.find(&storage::Axons, (netuid, hotkey)).map_or(0, |axon| axon.block);
    let rate_limit = view.get(&storage::ServingRateLimit, netuid);
    ensure(served_at == 0 || now - served_at >= rate_limit, Error::ServingRateLimitExceeded)?;
    ensure(port != 0, Error::InvalidPort)
}

/// Addresses that the chain takes: not zero, not loopback, not all ones, and no more bits than the type has.
fn is_servable(ip_type: u8, ip: u128) -> bool {
    if ip_type == 4 {
        ip != 0 && ip < u128::from(u32::MAX) && ip != u128::from(u32::from(Ipv4Addr::LOCALHOST))
    } else {
        ip != 0 && ip != u128::MAX && ip != u128::from(Ipv6Addr::LOCALHOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_can_dial_are_not_served() {
        let v4 = |text: &str| is_servable(4, u128::from(u32::from(text.parse::<Ipv4Addr>().unwrap())));
        assert!(v4("192.0.2.1"));
        assert!(v4("127.0.0.2"), "the chain knows one loopback address only");
        assert!(!v4("127.0.0.1") && !v4("0.0.0.0") && !v4("255.255.255.255"));
        assert!(!is_servable(4, 1 << 40));

        let v6 = |text: &str| is_servable(6, u128::from(text.parse::<Ipv6Addr>().unwrap()));
        assert!(v6("2001:db8::1"));
        assert!(!v6("::1") && !v6("::") && !is_servable(6, u128::MAX));
    }
}
