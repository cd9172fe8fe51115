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
pub(crate) fn check_weights(
    weights: &Weights,
    hotkey: &Hotkey,
    metagraph: &Metagraph,
    rules: &Rules,
) -> Result<(), ChainError> {
    if rules.commit_reveal {
        return Err(ChainError::Unsupported(format!(
            "subnet {} demands timelocked weights (commit-reveal), which this version cannot send yet",
            metagraph.netuid
        )));
    }
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
pub(crate) fn check_rate(last: Block, limit: u64, now: Block) -> Result<(), ChainError> {
    let due = last.saturating_add(limit).saturating_add(1);
    if last == 0 || limit == 0 || now >= due { Ok(()) } else { Err(ChainError::TooSoon(due - now)) }
}

/// Foretells whether the chain would accept `address` for an axon (chain spec 4.3).
pub(crate) fn check_axon(address: SocketAddr) -> Result<(), ChainError> {
    let accepted = match address.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.to_bits() == u128::MAX),
    };
    if !accepted {
        return Err(ChainError::refused("InvalidIpAddress"));
    }
    if address.port() == 0 { Err(ChainError::refused("InvalidPort")) } else { Ok(()) }
}
