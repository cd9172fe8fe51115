//! Which validators the miner works for: a pure filter over the metagraph (miner-validator spec 4.1).

use std::{collections::BTreeMap, net::SocketAddr};

use byteleap_chain::{Metagraph, Neuron};
use byteleap_protocol::hotkey::Hotkey;

/// Smallest units of one TAO.
const RAO_PER_TAO: u64 = 1_000_000_000;

/// A validator and where it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axon {
    /// Who it is; sessions and signatures are bound to it.
    pub hotkey: Hotkey,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Validators that are used whatever their permit and stake. The value, where there is one, is the address to use
/// instead of the one on chain.
pub type Whitelist = BTreeMap<Hotkey, Option<SocketAddr>>;

/// The rule by which validators are chosen.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `metagraph.validator_whitelist`.
    pub whitelist: Whitelist,
    /// `metagraph.validator_min_stake_tao`; equal passes.
    pub min_stake_tao: u64,
}

/// The validators to use, in the order of their uids. `own` is this miner's hotkey, which is never its own validator;
/// `blacklisted` tells of addresses that failed too often.
#[must_use]
pub fn select(
    metagraph: &Metagraph,
    policy: &Policy,
    own: &Hotkey,
    blacklisted: impl Fn(&SocketAddr) -> bool,
) -> Vec<Axon> {
    metagraph
        .neurons
        .iter()
        .filter(|neuron| neuron.hotkey != *own)
        .filter_map(|neuron| Some(Axon { hotkey: neuron.hotkey, address: policy.address(neuron)? }))
        .filter(|axon| !axon.address.ip().is_unspecified() && axon.address.port() != 0 && !blacklisted(&axon.address))
        .collect()
}

impl Policy {
    /// Where to reach this neuron, if it counts as a validator and serves anywhere.
    fn address(&self, neuron: &Neuron) -> Option<SocketAddr> {
        match self.whitelist.get(&neuron.hotkey) {
            Some(Some(address)) => Some(*address),
            Some(None) => neuron.axon,
            None if neuron.validator_permit && self.stake_suffices(neuron) => neuron.axon,
            None => None,
        }
    }

    fn stake_suffices(&self, neuron: &Neuron) -> bool {
        neuron.total_stake >= self.min_stake_tao.saturating_mul(RAO_PER_TAO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neuron(uid: u16, stake_tao: u64, permit: bool, axon: Option<&str>) -> Neuron {
        Neuron {
            uid,
            hotkey: Hotkey([uid as u8; 32]),
            coldkey: [0; 32],
            axon: axon.map(|address| address.parse().expect("an address")),
            axon_version: 0,
            alpha_stake: 0,
            total_stake: stake_tao * RAO_PER_TAO,
            validator_permit: permit,
            active: true,
            last_update: 0,
            registered_at: 0,
        }
    }

    fn chosen(neurons: Vec<Neuron>, whitelist: &[(u8, Option<&str>)]) -> Vec<(u8, String)> {
        let metagraph = Metagraph { netuid: 128, block: 1, owner_hotkey: Hotkey([9; 32]), neurons };
        let whitelist = whitelist
            .iter()
            .map(|(key, address)| (Hotkey([*key; 32]), address.map(|text| text.parse().expect("an address"))))
            .collect();
        let policy = Policy { whitelist, min_stake_tao: 10_000 };
        select(&metagraph, &policy, &Hotkey([77; 32]), |address| address.port() == 6666)
            .into_iter()
            .map(|axon| (axon.hotkey.0[0], axon.address.to_string()))
            .collect()
    }

    #[test]
    fn permit_and_stake_make_a_validator_and_equal_stake_passes() {
        let neurons = vec![
            neuron(1, 10_000, true, Some("1.1.1.1:9091")),
            neuron(2, 9_999, true, Some("2.2.2.2:9091")),
            neuron(3, 10_000, false, Some("3.3.3.3:9091")),
        ];
        assert_eq!(chosen(neurons, &[]), [(1, "1.1.1.1:9091".to_owned())]);
    }

    #[test]
    fn a_whitelisted_validator_needs_neither_and_its_value_overrides_the_address() {
        let neurons = vec![neuron(1, 0, false, Some("1.1.1.1:9091")), neuron(2, 0, false, None)];
        assert_eq!(
            chosen(neurons, &[(1, None), (2, Some("10.0.0.2:9000")), (5, Some("10.0.0.5:9000"))]),
            [(1, "1.1.1.1:9091".to_owned()), (2, "10.0.0.2:9000".to_owned())]
        );
    }

    #[test]
    fn nobody_is_dialled_at_a_void_or_blacklisted_address() {
        let neurons = vec![
            neuron(1, 20_000, true, None),
            neuron(2, 20_000, true, Some("2.2.2.2:6666")),
            neuron(3, 0, false, None),
            neuron(4, 0, false, None),
        ];
        assert_eq!(chosen(neurons, &[(3, Some("0.0.0.0:9091")), (4, Some("4.4.4.4:6666"))]), []);
    }

    #[test]
    fn the_miner_is_never_its_own_validator() {
        let neurons = vec![neuron(77, 20_000, true, Some("7.7.7.7:9091"))];
        assert_eq!(chosen(neurons, &[(77, None)]), []);
    }

    #[test]
    fn a_validator_on_ipv6_is_used() {
        let neurons = vec![neuron(1, 20_000, true, Some("[2001:db8::1]:9091"))];
        assert_eq!(chosen(neurons, &[]), [(1, "[2001:db8::1]:9091".to_owned())]);
    }
}
