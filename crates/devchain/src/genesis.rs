//! Block 0: which subnets exist, by which rules, who is registered on them and who owns what.

mod file;

use std::{collections::HashSet, net::SocketAddr};

use byteleap_protocol::hotkey::Hotkey;
use serde::{Deserialize, Serialize};

use crate::{
    dispatch::{axon, registration},
    epoch,
    state::{State, View},
    storage,
    types::{AccountId32, AlphaBalance, NetUid, TaoBalance},
};

/// Subnets are numbered below this; the chain packs the mechanism's number above it.
const NETUIDS: u16 = 4096;

pub use file::GenesisFileError;

/// What the chain starts with. Keys are sr25519 public keys; a coldkey is an account like any other, hence its type.
#[derive(Clone, Debug, Default)]
pub struct Genesis {
    /// Free balances in rao. Only `burned_register` costs anything; calls are free.
    pub balances_rao: Vec<(Hotkey, u64)>,
    /// Stake below which a neuron gets no validator permit and may set no weights, in rao.
    pub stake_threshold_rao: u64,
    /// The subnets.
    pub subnets: Vec<Subnet>,
}

/// A subnet of block 0.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Its number.
    pub netuid: u16,
    /// The hotkey whose uid takes the burnt share, once it is registered.
    pub owner_hotkey: Hotkey,
    /// The account that owns the subnet.
    pub owner_coldkey: Hotkey,
    /// Its rules.
    pub hyperparameters: Hyperparameters,
    /// Its neurons; the first gets uid 0.
    pub neurons: Vec<Neuron>,
}

/// A neuron of block 0. It may set weights from the first block on.
#[derive(Clone, Debug)]
pub struct Neuron {
    /// The key that signs for it.
    pub hotkey: Hotkey,
    /// The account that owns the hotkey.
    pub coldkey: Hotkey,
    /// Its stake in the subnet's own token, in rao. The 64 neurons of most stake, if they have any, hold a validator
    /// permit, here as at every epoch.
    pub stake_rao: u64,
    /// Where it serves.
    pub axon: Option<SocketAddr>,
}

/// The rules of a subnet that the development chain keeps. The default suits development: weights in the clear, any number
/// of them, every ten blocks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hyperparameters {
    /// Blocks from one epoch to the next; 0 for none.
    pub tempo_blocks: u16,
    /// Blocks for which a fresh neuron is safe from replacement.
    pub immunity_period_blocks: u16,
    /// Neurons that the subnet holds at most.
    pub max_neurons: u16,
    /// Weights that a validator sets at least, where the subnet has so many neurons.
    pub min_allowed_weights: u16,
    /// The largest share that one weight may have, in steps of 1/65,535.
    pub max_weight_limit: u16,
    /// The smallest version key that is accepted; 0 accepts every key.
    pub weights_version: u64,
    /// Blocks between two settings of weights.
    pub weights_rate_limit_blocks: u64,
    /// Blocks between two settings of an axon.
    pub serving_rate_limit_blocks: u64,
    /// Whether weights must be committed under a time lock; in the clear they are refused then.
    pub commit_reveal: bool,
    /// Epochs between a commit and its reveal.
    pub reveal_period_epochs: u64,
    /// The price of a uid, in rao.
    pub burn_rao: u64,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            tempo_blocks: 20,
            immunity_period_blocks: 4096,
            max_neurons: 256,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            weights_version: 0,
            weights_rate_limit_blocks: 10,
            serving_rate_limit_blocks: 10,
            commit_reveal: false,
            reveal_period_epochs: 1,
            burn_rao: 1_000_000,
        }
    }
}

/// Why a genesis makes no chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GenesisError {
    /// The number is beyond what the chain can address.
    #[error("subnet {netuid} is beyond the last possible subnet {}", NETUIDS - 1)]
    NetuidTooLarge {
        /// The subnet.
        netuid: u16,
    },
    /// Two subnets have one number.
    #[error("subnet {0} is described twice")]
    DuplicateSubnet(u16),
    /// The subnet holds fewer neurons than are listed.
    #[error("subnet {netuid} lists more neurons than its limit of {limit}")]
    TooManyNeurons {
        /// The subnet.
        netuid: u16,
        /// Its `max_neurons`.
        limit: u16,
    },
    /// A hotkey is listed twice on one subnet.
    #[error("hotkey {hotkey} is registered twice on subnet {netuid}")]
    DuplicateHotkey {
        /// The subnet.
        netuid: u16,
        /// The hotkey.
        hotkey: Hotkey,
    },
}

impl Genesis {
    /// Refuses what no sequence of calls could have led to.
    pub(crate) fn check(&self) -> Result<(), GenesisError> {
        let mut netuids = HashSet::new();
        for &Subnet { netuid, ref neurons, hyperparameters: Hyperparameters { max_neurons: limit, .. }, .. } in
            &self.subnets
        {
            if netuid >= NETUIDS {
                return Err(GenesisError::NetuidTooLarge { netuid });
            }
            if !netuids.insert(netuid) {
                return Err(GenesisError::DuplicateSubnet(netuid));
            }
            if neurons.len() > usize::from(limit) {
                return Err(GenesisError::TooManyNeurons { netuid, limit });
            }
            let mut hotkeys = HashSet::new();
            if let Some(twice) = neurons.iter().find(|neuron| !hotkeys.insert(neuron.hotkey)) {
                return Err(GenesisError::DuplicateHotkey { netuid, hotkey: twice.hotkey });
            }
        }
        Ok(())
    }

    /// Writes everything into the state of block 0.
    pub(crate) fn write(&self, state: &mut State) {
        state.put(&storage::StakeThreshold, (), self.stake_threshold_rao);
        state.put(&storage::TotalNetworks, (), self.subnets.len() as u16);
        for (account, balance_rao) in &self.balances_rao {
            state.mutate(&storage::Account, account_id(account), |account| {
                account.providers = 1;
                account.data.free = TaoBalance(*balance_rao);
            });
        }
        for subnet in &self.subnets {
            subnet.write(state);
        }
    }
}

impl Subnet {
    fn write(&self, state: &mut State) {
        let netuid = NetUid(self.netuid);
        state.put(&storage::NetworksAdded, netuid, true);
        state.put(&storage::SubnetOwner, netuid, account_id(&self.owner_coldkey));
        state.put(&storage::SubnetOwnerHotkey, netuid, account_id(&self.owner_hotkey));
        self.hyperparameters.write(state, netuid);
        // Clients tell the present epoch schedule from the old one by this entry.
        state.put(&storage::LastEpochBlock, netuid, 0);
        for (uid, neuron) in (0..).zip(&self.neurons) {
            let (hotkey, coldkey) = (account_id(&neuron.hotkey), account_id(&neuron.coldkey));
            registration::register(state, netuid, uid, hotkey, coldkey, AlphaBalance(neuron.stake_rao));
            if let Some(address) = neuron.axon {
                state.put(&storage::Axons, (netuid, hotkey), axon::at(address, 0, 0));
            }
        }
        epoch::give_permits(state, netuid);
    }
}

impl Hyperparameters {
    /// The rules of a subnet as they are.
    pub(crate) fn read(view: View<'_>, netuid: NetUid) -> Self {
        Self {
            tempo_blocks: view.get(&storage::Tempo, netuid),
            immunity_period_blocks: view.get(&storage::ImmunityPeriod, netuid),
            max_neurons: view.get(&storage::MaxAllowedUids, netuid),
            min_allowed_weights: view.get(&storage::MinAllowedWeights, netuid),
            max_weight_limit: view.get(&storage::MaxWeightsLimit, netuid),
            weights_version: view.get(&storage::WeightsVersionKey, netuid),
            weights_rate_limit_blocks: view.get(&storage::WeightsSetRateLimit, netuid),
            serving_rate_limit_blocks: view.get(&storage::ServingRateLimit, netuid),
            commit_reveal: view.get(&storage::CommitRevealWeightsEnabled, netuid),
            reveal_period_epochs: view.get(&storage::RevealPeriodEpochs, netuid),
            burn_rao: view.get(&storage::Burn, netuid).0,
        }
    }

    /// Writes the rules of a subnet.
    pub(crate) fn write(&self, state: &mut State, netuid: NetUid) {
        state.put(&storage::Tempo, netuid, self.tempo_blocks);
        state.put(&storage::ImmunityPeriod, netuid, self.immunity_period_blocks);
        state.put(&storage::MaxAllowedUids, netuid, self.max_neurons);
        state.put(&storage::MinAllowedWeights, netuid, self.min_allowed_weights);
        state.put(&storage::MaxWeightsLimit, netuid, self.max_weight_limit);
        state.put(&storage::WeightsVersionKey, netuid, self.weights_version);
        state.put(&storage::WeightsSetRateLimit, netuid, self.weights_rate_limit_blocks);
        state.put(&storage::ServingRateLimit, netuid, self.serving_rate_limit_blocks);
        state.put(&storage::CommitRevealWeightsEnabled, netuid, self.commit_reveal);
        state.put(&storage::RevealPeriodEpochs, netuid, self.reveal_period_epochs);
        state.put(&storage::Burn, netuid, TaoBalance(self.burn_rao));
    }
}

fn account_id(key: &Hotkey) -> AccountId32 {
    AccountId32(key.0)
}
