//! The development chain: a subtensor node without consensus, peers or Wasm, for development and tests.
//!
//! It keeps blocks and state in memory, and in a file where it is given one (`store`), dispatches the few calls that a subnet's daemons send, keeps the chain's rules
//! with the chain's own error names, and speaks Substrate's JSON-RPC on loopback, so that the client that talks to the
//! real chain talks to this one and cannot tell. It is not the real chain's economy: nothing is emitted, calls are free,
//! every block is final at once unless a test wants it otherwise. Daemons never link it; they meet it behind a URL.
//!
//! The modules follow an extrinsic: [`genesis`] makes the first state; `rpc` receives the extrinsic, `extrinsic` reads and
//! verifies it, `pool` lets it wait, `node` puts it into a block, `dispatch` applies its call to `state`, `epoch` runs
//! between, `block` seals. `control` lets tests move it on and let it fail. `runtime_api` answers reads. Below all lie `types`, `storage` and `runtime`, from which
//! `metadata` is built, so that what clients are told cannot differ from what the chain does.

#![forbid(unsafe_code)]

mod block;
mod chain;
mod control;
mod devchain;
mod dispatch;
mod epoch;
mod extrinsic;
pub mod genesis;
mod metadata;
mod node;
mod pool;
mod rpc;
mod runtime;
mod runtime_api;
mod state;
mod storage;
mod store;
mod types;

pub use control::ControlError;
pub use devchain::{DevChain, Options, Pace, StartError};
pub use genesis::Genesis;
pub use store::StoreError;
