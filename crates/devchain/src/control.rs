//! The controls for failure tests, as the handle and the `dev_*` methods share them: they move the chain on, change what
//! only its owner or its economy could, or let the next thing go wrong.

use byteleap_protocol::hotkey::Hotkey;
use parity_scale_codec::Decode;
use parking_lot::RwLock;
use serde_json::Value;

use crate::{
    devchain::{DevChain, now_ms},
    genesis::Hyperparameters,
    node::Node,
    storage,
    types::{AccountId32, AlphaBalance, NetUid, pallet_subtensor::pallet::Error},
};

/// Blocks within which an epoch must come to be waited for.
const LONGEST_EPOCH_BLOCKS: u32 = 100_000;

/// Why a control has no effect.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The subnet does not exist.
    #[error("there is no subnet {0}")]
    NoSubnet(u16),
    /// The subnet has no epochs.
    #[error("subnet {0} runs no epoch: its tempo is 0")]
    NoEpoch(u16),
    /// No rule has this name, or none this value.
    #[error("no hyperparameter {name} with this value: {source}")]
    Hyperparameter {
        /// The name that was given.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The pallet has no such error.
    #[error("pallet SubtensorModule of the development chain has no error {0}")]
    NoError(String),
}

impl DevChain {
    /// Makes so many blocks at once, each one block time later than the last by the chain's clock; the new head's number.
    pub fn advance(&self, blocks: u32) -> u32 {
        advance(&self.node, blocks)
    }

    /// Makes blocks until a subnet's next epoch has run; the new head's number.
    ///
    /// # Errors
    /// The subnet does not exist or runs no epochs.
    pub fn advance_epoch(&self, netuid: u16) -> Result<u32, ControlError> {
        advance_epoch(&self.node, netuid)
    }

    /// Sets the chain's clock, Unix milliseconds; it goes on from there.
    pub fn set_time(&self, unix_ms: u64) {
        set_time(&self.node, unix_ms);
    }

    /// Changes a rule of a subnet, by its name in the genesis file, from the next block on.
    ///
    /// # Errors
    /// There is no such subnet or rule, or the value does not fit.
    pub fn set_hyperparameter(&self, netuid: u16, name: &str, value: Value) -> Result<(), ControlError> {
        set_hyperparameter(&self.node, netuid, name, value)
    }

    /// Gives a hotkey another stake on a subnet from the next block on; permits follow with the next epoch.
    pub fn set_stake(&self, netuid: u16, hotkey: Hotkey, rao: u64) {
        set_stake(&self.node, netuid, hotkey, rao);
    }

    /// Lets the next extrinsic that a block takes fail with the pallet's error of this name.
    ///
    /// # Errors
    /// The pallet has no such error.
    pub fn fail_next(&self, name: &str) -> Result<(), ControlError> {
        fail_next(&self.node, name)
    }

    /// Leaves extrinsics waiting while blocks go on, or takes them again.
    pub fn keep_blocks_empty(&self, empty: bool) {
        self.node.write().keep_blocks_empty(empty);
    }

    /// Forgets the extrinsics that wait, as a node does that is restarted.
    pub fn forget_pending(&self) {
        self.node.write().forget_pending();
    }

    /// From now on a block becomes final when so many others lie above it.
    pub fn lag_finality(&self, blocks: u32) {
        self.node.write().lag_finality(blocks);
    }

    /// Lets no further block become final, or all that are due.
    pub fn stop_finality(&self, stands: bool) {
        self.node.write().stop_finality(stands);
    }

    /// Puts another block of the same content in the head's place.
    pub fn replace_head(&self) {
        self.node.write().replace_head();
    }

    /// Takes requests without answering them, or answers again.
    pub fn silence(&self, silent: bool) {
        self.node.write().silence(silent);
    }
}

pub(crate) fn advance(node: &RwLock<Node>, blocks: u32) -> u32 {
    let mut node = node.write();
    for _ in 0..blocks {
        produce_ahead(&mut node);
    }
    node.latest().block()
}

/// Makes the next block, one block time after the last.
fn produce_ahead(node: &mut Node) {
    let slot_ms = i64::try_from(node.slot().as_millis()).unwrap_or(i64::MAX);
    let ahead_ms = node.clock_ahead_ms().saturating_add(slot_ms);
    node.set_clock_ahead(ahead_ms);
    node.produce_block(now_ms());
}

pub(crate) fn advance_epoch(node: &RwLock<Node>, netuid: u16) -> Result<u32, ControlError> {
    let mut node = node.write();
    let subnet = NetUid(netuid);
    if !node.latest().get(&storage::NetworksAdded, subnet) {
        return Err(ControlError::NoSubnet(netuid));
    }
    let epochs = |node: &Node| node.latest().get(&storage::SubnetEpochIndex, subnet);
    let before = epochs(&node);
    for _ in 0..LONGEST_EPOCH_BLOCKS {
        if node.latest().get(&storage::Tempo, subnet) == 0 {
            break;
        }
        produce_ahead(&mut node);
        if epochs(&node) > before {
            return Ok(node.latest().block());
        }
    }
    Err(ControlError::NoEpoch(netuid))
}

pub(crate) fn set_time(node: &RwLock<Node>, unix_ms: u64) {
    let ahead_ms = i128::from(unix_ms) - i128::from(now_ms());
    node.write().set_clock_ahead(i64::try_from(ahead_ms).unwrap_or(i64::MAX));
}

pub(crate) fn set_hyperparameter(
    node: &RwLock<Node>,
    netuid: u16,
    name: &str,
    value: Value,
) -> Result<(), ControlError> {
    let mut node = node.write();
    if !node.latest().get(&storage::NetworksAdded, NetUid(netuid)) {
        return Err(ControlError::NoSubnet(netuid));
    }
    let refused = |source| ControlError::Hyperparameter { name: name.to_owned(), source };
    let one: serde_json::Map<String, Value> = [(name.to_owned(), value)].into_iter().collect();
    // Alone it must be a rule; those beside it are read when the block begins, so that two changes do not undo each other.
    serde_json::from_value::<Hyperparameters>(Value::Object(one.clone())).map_err(refused)?;
    node.change_next(move |state| {
        let rules = Hyperparameters::read(state.latest(), NetUid(netuid));
        let Ok(Value::Object(mut all)) = serde_json::to_value(rules) else { return };
        all.extend(one);
        if let Ok(changed) = serde_json::from_value::<Hyperparameters>(Value::Object(all)) {
            changed.write(state, NetUid(netuid));
        }
    });
    Ok(())
}

pub(crate) fn set_stake(node: &RwLock<Node>, netuid: u16, hotkey: Hotkey, rao: u64) {
    node.write().change_next(move |state| {
        state.put(&storage::TotalHotkeyAlpha, (AccountId32(hotkey.0), NetUid(netuid)), AlphaBalance(rao));
    });
}

pub(crate) fn fail_next(node: &RwLock<Node>, name: &str) -> Result<(), ControlError> {
    let errors = (0..=u8::MAX).filter_map(|index| Error::decode(&mut &[index][..]).ok());
    let error = errors.into_iter().find(|error| format!("{error:?}") == name);
    node.write().fail_next(error.ok_or_else(|| ControlError::NoError(name.to_owned()))?);
    Ok(())
}
