//! The subnet's neurons at one block, as every daemon looks them up: by hotkey and by uid.

use std::net::SocketAddr;

use crate::{Block, Hotkey};

/// One registered hotkey. Amounts are rao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// Its number on the subnet; reused at once when another hotkey takes its place.
    pub uid: u16,
    /// The key that signs for it.
    pub hotkey: Hotkey,
    /// Public key of the account that owns the hotkey.
    pub coldkey: [u8; 32],
    /// Where it serves; `None` for port 0 or address 0, so that nobody dials an endpoint that was never set.
    pub axon: Option<SocketAddr>,
    /// Library version that it published with its axon.
    pub axon_version: u32,
    /// Stake in the subnet's own token.
    pub alpha_stake: u64,
    /// Stake as the chain weighs it for thresholds and permits.
    pub total_stake: u64,
    /// Whether it may set weights on others.
    pub validator_permit: bool,
    /// Whether it set weights within the activity cutoff.
    pub active: bool,
    /// Block of its last weights or commit; the block of registration before the first.
    pub last_update: Block,
    /// Block of its registration.
    pub registered_at: Block,
}

/// All neurons of a subnet at one block, in uid order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metagraph {
    /// The subnet.
    pub netuid: u16,
    /// The block that everything here was read at.
    pub block: Block,
    /// Hotkey of the subnet's owner.
    pub owner_hotkey: Hotkey,
    /// The neurons, `neurons[uid].uid == uid`.
    pub neurons: Vec<Neuron>,
}

impl Metagraph {
    /// The neuron that `hotkey` holds.
    #[must_use]
    pub fn by_hotkey(&self, hotkey: &Hotkey) -> Option<&Neuron> {
        self.neurons.iter().find(|neuron| neuron.hotkey == *hotkey)
    }

    /// The neuron of the subnet's owner, where weight is burned; `None` when the owner is not registered.
    #[must_use]
    pub fn owner_uid(&self) -> Option<u16> {
        self.by_hotkey(&self.owner_hotkey).map(|neuron| neuron.uid)
    }
}
