//! What the chain demands of weights, and the check that foretells its answer before anything is sent (chain spec 5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{Block, ChainError, Hotkey, Metagraph, Weights};

/// A subnet's hyperparameters that bind a validator or a miner. Read from the chain, never hard-coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Blocks per epoch.
    pub tempo: u16,
    /// Blocks after registration during which a neuron is not replaced.
    pub immunity_period: u16,
    /// Fewest weights that a vector may hold, where the subnet has as many neurons.
    pub min_allowed_weights: u16,
    /// Largest share of one weight, of 65,535.
    pub max_weight_limit: u16,
    /// Version keys below this are refused; 0 accepts all.
    pub weights_version: u64,
    /// Blocks between two settings of weights.
    pub weights_rate_limit: u64,
    /// Blocks between two changes of an axon.
    pub serving_rate_limit: u64,
    /// Stake below which weights are refused, in rao.
    pub stake_threshold: u64,
    /// Whether weights must be committed under a time lock.
    pub commit_reveal: bool,
    /// Epochs between a commit and its reveal.
    pub reveal_period: u64,
    /// Neurons that the subnet can hold.
    pub max_uids: u16,
    /// Blocks before an epoch in which the owner may change none of these; the whole chain has one.
    pub admin_freeze_window: u16,
}

/// Where a subnet stands in its epoch schedule (chain spec 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Count of epochs so far.
    pub index: u64,
    /// Block of the last epoch.
    pub last_block: Block,
    /// Block at which the owner asked for an epoch out of turn.
    pub pending_at: Option<Block>,
    /// Blocks since the last epoch ran.
    pub since_step: u64,
}

/// Foretells whether the chain would accept `weights` from `hotkey`, in the chain's own order of checks (5.2) and with its
/// own names, so that a doomed extrinsic is never sent. `metagraph` and `rules` are of the same block.
pub fn check_weights(
    weights: &Weights,
    hotkey: &Hotkey,
    metagraph: &Metagraph,
    rules: &Rules,
) -> Result<(), ChainError> {
    let neurons = metagraph.neurons.len();
    if weights.uids().len() > neurons {
        return Err(ChainError::refused("UidsLengthExceedUidsInSubNet"));
    }
    let own = metagraph.by_hotkey(hotkey).ok_or(ChainError::NotRegistered(metagraph.netuid))?;
    let is_owner = *hotkey == metagraph.owner_hotkey;
    let only_self = weights.uids() == [own.uid];

    if own.total_stake < rules.stake_threshold && !is_owner {
        return Err(ChainError::refused("NotEnoughStakeToSetWeights"));
    }
    if rules.weights_version > 0 && weights.version_key() < rules.weights_version {
        return Err(ChainError::refused("IncorrectWeightVersionKey"));
    }
    check_rate(own.last_update, rules.weights_rate_limit, metagraph.block)?;
    if !own.validator_permit && !is_owner && !only_self {
        return Err(ChainError::refused("NeuronNoValidatorPermit"));
    }
    if weights.uids().iter().any(|uid| usize::from(*uid) >= neurons) {
        return Err(ChainError::refused("UidVecContainInvalidOne"));
    }
    if weights.uids().len() < neurons.min(usize::from(rules.min_allowed_weights)) && !only_self {
        return Err(ChainError::refused("WeightVecLengthIsLow"));
    }
    if weights.largest_share_exceeds(rules.max_weight_limit) && !only_self {
        return Err(ChainError::refused("MaxWeightExceeded"));
    }
    Ok(())
}

/// The chain lets a call through once `limit` blocks have passed since `last`; one block more is waited for, because the
/// chain counts at the block of inclusion and this side at a finalised one (5.2). `last` 0 means never.
pub fn check_rate(last: Block, limit: u64, now: Block) -> Result<(), ChainError> {
    let due = last.saturating_add(limit).saturating_add(1);
    if last == 0 || limit == 0 || now >= due { Ok(()) } else { Err(ChainError::TooSoon(due - now)) }
}

/// Foretells whether the chain would accept `address` for an axon (chain spec 4.3).
pub fn check_axon(address: SocketAddr) -> Result<(), ChainError> {
    let accepted = match address.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.to_bits() == u128::MAX),
    };
    if !accepted {
        return Err(ChainError::refused("InvalidIpAddress"));
    }
    if address.port() == 0 { Err(ChainError::refused("InvalidPort")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Neuron;

    const VALIDATOR: Hotkey = Hotkey([1; 32]);

    /// Four neurons; the validator is uid 1 and uid 0 owns the subnet. Each test breaks one rule.
    fn subnet() -> (Metagraph, Rules) {
        let neuron = |uid: u16| Neuron {
            uid,
            hotkey: Hotkey([uid as u8; 32]),
            coldkey: [9; 32],
            axon: None,
            axon_version: 0,
            alpha_stake: 0,
            total_stake: 100,
            validator_permit: true,
            active: true,
            last_update: 50,
            registered_at: 50,
        };
        let neurons = (0..4).map(neuron).collect();
        let metagraph = Metagraph { netuid: 128, block: 1000, owner_hotkey: Hotkey([0; 32]), neurons };
        let rules = Rules {
            tempo: 360,
            immunity_period: 0,
            min_allowed_weights: 2,
            max_weight_limit: u16::MAX,
            weights_version: 7,
            weights_rate_limit: 100,
            serving_rate_limit: 50,
            stake_threshold: 100,
            commit_reveal: false,
            reveal_period: 1,
            max_uids: 4,
            admin_freeze_window: 10,
        };
        (metagraph, rules)
    }

    fn weights(uids: &[u16], version_key: u64) -> Weights {
        let pairs: Vec<_> = uids.iter().map(|uid| (*uid, 1.0)).collect();
        Weights::emit(&pairs, version_key).unwrap().unwrap()
    }

    /// The answer to a vector over uids 2 and 3 after `change` was made to the subnet.
    fn answer(change: impl FnOnce(&mut Metagraph, &mut Rules)) -> Result<(), ChainError> {
        let (mut metagraph, mut rules) = subnet();
        change(&mut metagraph, &mut rules);
        check_weights(&weights(&[2, 3], 7), &VALIDATOR, &metagraph, &rules)
    }

    #[test]
    fn weights_that_keep_every_rule_pass() {
        assert_eq!(answer(|_, _| {}), Ok(()));
        assert_eq!(answer(|_, rules| rules.weights_version = 0), Ok(()));
    }

    #[test]
    fn each_broken_rule_has_the_name_that_the_chain_gives_it() {
        let refused = |name| Err(ChainError::refused(name));
        assert_eq!(answer(|subnet, _| subnet.neurons.truncate(1)), refused("UidsLengthExceedUidsInSubNet"));
        assert_eq!(answer(|subnet, _| subnet.neurons[1].hotkey.0[0] = 77), Err(ChainError::NotRegistered(128)));
        assert_eq!(answer(|subnet, _| subnet.neurons[1].total_stake = 99), refused("NotEnoughStakeToSetWeights"));
        assert_eq!(answer(|_, rules| rules.weights_version = 8), refused("IncorrectWeightVersionKey"));
        assert_eq!(answer(|subnet, _| subnet.neurons[1].last_update = 990), Err(ChainError::TooSoon(91)));
        assert_eq!(answer(|subnet, _| subnet.neurons[1].validator_permit = false), refused("NeuronNoValidatorPermit"));
        assert_eq!(answer(|subnet, _| subnet.neurons.truncate(3)), refused("UidVecContainInvalidOne"));
        assert_eq!(answer(|_, rules| rules.min_allowed_weights = 3), refused("WeightVecLengthIsLow"));
        assert_eq!(answer(|_, rules| rules.max_weight_limit = 32_000), refused("MaxWeightExceeded"));
        assert_eq!(answer(|_, rules| rules.commit_reveal = true), Ok(()), "a commit keeps the same rules");
    }

    #[test]
    fn no_more_weights_are_demanded_than_there_are_neurons() {
        let (metagraph, mut rules) = subnet();
        rules.min_allowed_weights = 1024;
        assert_eq!(check_weights(&weights(&[0, 1, 2, 3], 7), &VALIDATOR, &metagraph, &rules), Ok(()));
    }

    #[test]
    fn the_owner_needs_neither_stake_nor_permit() {
        let owner = |subnet: &mut Metagraph, _: &mut Rules| {
            subnet.owner_hotkey = VALIDATOR;
            subnet.neurons[1].total_stake = 0;
            subnet.neurons[1].validator_permit = false;
        };
        assert_eq!(answer(owner), Ok(()));
    }

    #[test]
    fn a_lone_self_weight_needs_no_permit_and_no_company() {
        let (mut metagraph, rules) = subnet();
        metagraph.neurons[1].validator_permit = false;
        assert_eq!(check_weights(&weights(&[1], 7), &VALIDATOR, &metagraph, &rules), Ok(()));
    }

    #[test]
    fn a_rate_limit_ends_one_block_after_the_chain_would_end_it() {
        assert_eq!(check_rate(0, 100, 5), Ok(()), "never set");
        assert_eq!(check_rate(50, 0, 50), Ok(()), "no limit");
        assert_eq!(check_rate(50, 100, 150), Err(ChainError::TooSoon(1)));
        assert_eq!(check_rate(50, 100, 151), Ok(()));
        assert_eq!(check_rate(50, u64::MAX, 51), Err(ChainError::TooSoon(u64::MAX - 51)));
    }

    #[test]
    fn axons_that_the_chain_refuses_are_not_sent() {
        for address in ["0.0.0.0:1", "127.0.0.1:8091", "255.255.255.255:1", "[::]:1", "[::1]:8091"] {
            assert_eq!(check_axon(address.parse().unwrap()), Err(ChainError::refused("InvalidIpAddress")), "{address}");
        }
        assert_eq!(check_axon("10.0.0.1:0".parse().unwrap()), Err(ChainError::refused("InvalidPort")));
        assert_eq!(check_axon("127.0.0.2:8091".parse().unwrap()), Ok(()));
        assert_eq!(check_axon("[2001:db8::1]:8091".parse().unwrap()), Ok(()));
    }
}
