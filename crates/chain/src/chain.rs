//! The one door to the chain: the trait that daemons hold as `Arc<dyn Chain>`, what it answers and how it fails
//! (chain spec, chapter 9).

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Epoch, Hotkey, Metagraph, Rules, Signer, WeightMatrix, Weights};

/// A block number.
pub type Block = u64;

/// A finalised block and the pace of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the finalised block.
    pub block: Block,
    /// Hash of its header.
    pub hash: [u8; 32],
    /// Version of the runtime at this block.
    pub spec: u32,
    /// Time between two blocks; timeouts are written in multiples of it.
    pub slot: Duration,
}

/// Proof that an extrinsic was dispatched with success in a finalised block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The finalised block that holds it.
    pub block: Block,
    /// Hash of the extrinsic.
    pub hash: [u8; 32],
    /// Beacon round that reveals timelocked weights; `None` for anything sent in the clear.
    pub reveal_round: Option<u64>,
}

/// Why the chain did not answer or did not obey.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No endpoint answers; the text says which and why. Worth a retry.
    #[error("chain unreachable: {0}")]
    Unreachable(String),
    /// The runtime refuses the call by its own name for the reason, at dispatch or as foreseen by the preflight.
    #[error("the chain refuses: {pallet}.{name}")]
    Refused {
        /// Pallet whose error it is, as `SubtensorModule`.
        pallet: String,
        /// The error's name in the runtime's metadata.
        name: String,
    },
    /// The transaction pool turned the extrinsic away; it is in no block.
    #[error("the transaction pool refuses: {0}")]
    Pool(String),
    /// The signer holds no uid on this subnet.
    #[error("hotkey is not registered on subnet {0}: register it with the official command line")]
    NotRegistered(u16),
    /// A rate limit still runs; retry after this many blocks.
    #[error("too soon: {0} blocks to wait")]
    TooSoon(u64),
    /// The runtime lacks an item, shapes it in a way that this client cannot read, or asks for what it cannot do yet.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The extrinsic was sent and no block took it while it was valid: nothing can come of it any more. Worth a retry.
    #[error("extrinsic with nonce {nonce} was taken into no block before its era ended")]
    Expired {
        /// Nonce that the extrinsic carries.
        nonce: u64,
    },
    /// The extrinsic was sent and its fate not seen. Look at the chain before sending again.
    #[error(
        "extrinsic with nonce {nonce} was sent but its fate was not seen: compare the chain's state before resending"
    )]
    Unknown {
        /// Nonce that the extrinsic carries.
        nonce: u64,
    },
}

impl ChainError {
    /// A refusal by the subnet pallet under its own error `name` (chain spec 5.2).
    pub(crate) fn refused(name: &str) -> Self {
        Self::Refused { pallet: "SubtensorModule".to_owned(), name: name.to_owned() }
    }

    /// Whether the same call may succeed later with nothing changed but time: the endpoint is down, or a rate limit runs.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TooSoon(_) | Self::Expired { .. } => true,
            Self::Refused { name, .. } => name.ends_with("TooFast"),
            Self::Pool(_) | Self::NotRegistered(_) | Self::Unsupported(_) | Self::Unknown { .. } => false,
        }
    }
}

/// What a daemon asks of the chain. Every composite answer comes from one finalised block.
#[async_trait]
pub trait Chain: Send + Sync {
    /// The finalised head.
    async fn head(&self) -> Result<Head, ChainError>;

    /// Waits until a finalised block above `after` exists and returns the newest. Dropping the future loses nothing.
    async fn next_block(&self, after: Block) -> Result<Head, ChainError>;

    /// The neurons of a subnet; a subnet that does not exist is [`ChainError::Refused`] as `SubnetNotExists`.
    async fn metagraph(&self, netuid: u16) -> Result<Metagraph, ChainError>;

    /// What the validators of a subnet say of everybody: for comparison.
    async fn weight_matrix(&self, netuid: u16) -> Result<WeightMatrix, ChainError>;

    /// What the chain demands of weights and axons on a subnet.
    async fn rules(&self, netuid: u16) -> Result<Rules, ChainError>;

    /// Where a subnet stands in its epoch schedule.
    async fn epoch(&self, netuid: u16) -> Result<Epoch, ChainError>;

    /// The uid of a hotkey on a subnet; `None` when it is not registered there.
    async fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, ChainError>;

    /// Publishes the address where `by` serves. `None` when the chain already holds exactly this and nothing was sent;
    /// [`ChainError::TooSoon`] while the serving rate limit runs.
    async fn serve_axon(
        &self,
        netuid: u16,
        address: SocketAddr,
        version: u32,
        by: &dyn Signer,
    ) -> Result<Option<Receipt>, ChainError>;

    /// Checks the chain's own rules (5.2), submits the weights and waits until they are finalised.
    async fn set_weights(&self, netuid: u16, weights: &Weights, by: &dyn Signer) -> Result<Receipt, ChainError>;
}
