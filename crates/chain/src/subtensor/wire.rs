//! The shapes of the chain, in one place (chain spec 2.3): names of its items, only the fields that are used, plain Rust
//! numbers for its newtypes. Fields and arguments are matched by name against the node's metadata at run time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use scale_decode::DecodeAsType;
use scale_encode::EncodeAsType;
use subxt::dynamic;
use subxt::storage::DynamicAddress;
use subxt::transactions::DynamicPayload;
use subxt::utils::AccountId32;

use super::At;
use crate::Weights;

/// The pallet of everything about subnets.
const PALLET: &str = "SubtensorModule";

/// What the chain writes for "TCP" in an axon.
const AXON_PROTOCOL: u8 = 4;

/// The one mechanism of the subnet.
const FIRST_MECHANISM: u8 = 0;

/// A storage value of the whole chain.
pub(super) fn global<V: DecodeAsType>(entry: &str) -> DynamicAddress<(), V> {
    dynamic::storage(PALLET, entry)
}

/// A storage map by subnet.
pub(super) fn by_subnet<V: DecodeAsType>(entry: &str) -> DynamicAddress<(u16,), V> {
    dynamic::storage(PALLET, entry)
}

/// A storage map by subnet and uid.
pub(super) fn by_uid<V: DecodeAsType>(entry: &str) -> DynamicAddress<(u16, u16), V> {
    dynamic::storage(PALLET, entry)
}

/// A storage map by subnet and hotkey.
pub(super) fn by_hotkey<V: DecodeAsType>(entry: &str) -> DynamicAddress<(u16, AccountId32), V> {
    dynamic::storage(PALLET, entry)
}

/// A call of the subnet pallet.
pub(super) fn call<C>(name: &str, arguments: C) -> DynamicPayload<C> {
    dynamic::tx(PALLET, name, arguments)
}

/// Whether the runtime has a call of the subnet pallet.
pub(super) fn has_call(at: &At, name: &str) -> bool {
    at.metadata_ref().pallet_by_name(PALLET).is_some_and(|pallet| pallet.call_variant_by_name(name).is_some())
}

/// The answer of `get_metagraph`: columns by uid.
#[derive(DecodeAsType)]
pub(super) struct Metagraph {
    pub(super) block: u64,
    pub(super) owner_hotkey: AccountId32,
    pub(super) hotkeys: Vec<AccountId32>,
    pub(super) coldkeys: Vec<AccountId32>,
    pub(super) axons: Vec<Axon>,
    pub(super) active: Vec<bool>,
    pub(super) validator_permit: Vec<bool>,
    pub(super) last_update: Vec<u64>,
    pub(super) consensus: Vec<u16>,
    pub(super) block_at_registration: Vec<u64>,
    pub(super) alpha_stake: Vec<u64>,
    pub(super) total_stake: Vec<u64>,
}

/// An axon as published: where a neuron serves, since when, with which library version.
#[derive(Clone, Copy, DecodeAsType)]
pub(super) struct Axon {
    pub(super) block: u64,
    pub(super) version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
}

impl Axon {
    /// The address, unless it was never set or is none.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let ip = match self.ip_type {
            4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(self.ip).ok()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.ip)),
            _ => return None,
        };
        (self.port != 0 && self.ip != 0).then(|| SocketAddr::new(ip, self.port))
    }

    /// Whether the chain holds exactly this already.
    pub(super) fn is(&self, address: SocketAddr, version: u32) -> bool {
        self.version == version
            && self.address().is_some_and(|own| (own.ip(), own.port()) == (address.ip(), address.port()))
    }
}

/// Arguments of `serve_axon`.
#[derive(EncodeAsType)]
pub(super) struct ServeAxon {
    netuid: u16,
    version: u32,
    ip: u128,
    port: u16,
    ip_type: u8,
    protocol: u8,
    placeholder1: u8,
    placeholder2: u8,
}

impl ServeAxon {
    pub(super) fn new(netuid: u16, address: SocketAddr, version: u32) -> Self {
        let (ip, ip_type) = match address.ip() {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 4),
            IpAddr::V6(ip) => (u128::from(ip), 6),
        };
        Self {
            netuid,
            version,
            ip,
            port: address.port(),
            ip_type,
            protocol: AXON_PROTOCOL,
            placeholder1: 0,
            placeholder2: 0,
        }
    }
}

/// Arguments of the call that current tools send.
#[derive(EncodeAsType)]
pub(super) struct SetMechanismWeights {
    netuid: u16,
    mecid: u8,
    dests: Vec<u16>,
    weights: Vec<u16>,
    version_key: u64,
}

impl SetMechanismWeights {
    pub(super) const NAME: &str = "set_mechanism_weights";

    pub(super) fn new(netuid: u16, weights: &Weights) -> Self {
        Self {
            netuid,
            mecid: FIRST_MECHANISM,
            dests: weights.uids().to_vec(),
            weights: weights.values().to_vec(),
            version_key: weights.version_key(),
        }
    }
}

/// Arguments of the call that commits to sealed weights.
#[derive(EncodeAsType)]
pub(super) struct CommitTimelocked {
    netuid: u16,
    mecid: u8,
    commit: Vec<u8>,
    reveal_round: u64,
    commit_reveal_version: u16,
}

impl CommitTimelocked {
    pub(super) const NAME: &str = "commit_timelocked_mechanism_weights";

    pub(super) fn new(netuid: u16, commit: Vec<u8>, reveal_round: u64, commit_reveal_version: u16) -> Self {
        Self { netuid, mecid: FIRST_MECHANISM, commit, reveal_round, commit_reveal_version }
    }
}

/// Arguments of the older call, for runtimes without mechanisms.
#[derive(EncodeAsType)]
pub(super) struct SetWeights {
    netuid: u16,
    dests: Vec<u16>,
    weights: Vec<u16>,
    version_key: u64,
}

impl SetWeights {
    pub(super) const NAME: &str = "set_weights";

    pub(super) fn new(netuid: u16, weights: &Weights) -> Self {
        Self {
            netuid,
            dests: weights.uids().to_vec(),
            weights: weights.values().to_vec(),
            version_key: weights.version_key(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axon(ip: u128, port: u16, ip_type: u8) -> Axon {
        Axon { block: 1, version: 9_010_000, ip, port, ip_type }
    }

    #[test]
    fn an_axon_that_was_never_set_has_no_address() {
        for unset in [axon(0, 0, 0), axon(0, 8091, 4), axon(0x0102_0304, 0, 4), axon(1 << 32, 8091, 4)] {
            assert_eq!(unset.address(), None);
        }
    }

    #[test]
    fn an_address_survives_the_chain() {
        for text in ["1.2.3.4:8091", "[2001:db8::1]:8091"] {
            let address: SocketAddr = text.parse().unwrap();
            let call = ServeAxon::new(128, address, 9_010_000);
            let stored = axon(call.ip, call.port, call.ip_type);
            assert_eq!(stored.address(), Some(address));
            assert!(stored.is(address, 9_010_000));
            assert!(!stored.is(address, 9_010_001));
        }
    }
}
