//! The chain as the daemons see it: who takes part, by which rules, and the weights that pay them.
//!
//! Daemons depend on [`Chain`] alone. What flows through it, in the order a validator meets it: [`Head`] (a finalised
//! block) → [`Metagraph`] (the subnet's neurons) and [`Rules`] (what the chain demands of weights) → [`Weights`]
//! (emitted from scores; sealed by [`timelock`] until the block that [`schedule`] foretells, where the subnet demands it) →
//! [`Receipt`] (the finalised extrinsic). [`Wallet`] holds the keys that sign.
//!
//! Two implementations live here: [`Subtensor`], the real client over JSON-RPC, and [`FixedChain`], one subnet in memory
//! for unit tests and benches. This crate knows nothing of validators, miners or scores, never opens a coldkey, and
//! keeps no clock of its own but the deadlines of its calls.

#![forbid(unsafe_code)]

mod chain;
mod fixed;
mod matrix;
mod metagraph;
mod rules;
pub mod schedule;
mod standing;
pub mod subtensor;
pub mod timelock;
pub mod wallet;
mod weights;

pub use byteleap_protocol::hotkey::{Hotkey, Keypair, Signature, Signer};

pub use chain::{Block, Chain, ChainError, Head, Receipt};
pub use fixed::FixedChain;
pub use matrix::{WeightMatrix, consensus};
pub use metagraph::{Metagraph, Neuron};
pub use rules::{Epoch, Rules, check_axon, check_rate, check_weights};
pub use standing::Standing;
pub use subtensor::{Patience, Subtensor};
pub use wallet::Wallet;
pub use weights::{Limits, Weights, WeightsError, cap_largest_share};
