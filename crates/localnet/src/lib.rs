//! The whole network on one machine: the development chain in this process, and the real daemons as its children with
//! configurations made for them. It is how a newcomer sees ByteLeap work, and how the project proves that it does.
//!
//! Nothing of a daemon is linked in: what happens inside is learnt from where an operator learns it, the admin
//! endpoints, the validator's database and the chain.
//!
//! The modules follow a start: [`directory`] holds the state, [`binaries`] finds the daemons, `keys` makes wallets and
//! the genesis from them, `settings` writes each daemon's configuration, `child` starts, watches and ends a process.
//! [`network`] puts these together. While it runs, [`record`] reads what the validator has written down, [`progress`]
//! tells from it how far round a challenge has come, and `table` shows it. [`market`] is the marketplace.

#![forbid(unsafe_code)]

pub mod binaries;
mod child;
pub mod directory;
mod keys;
pub mod market;
pub mod network;
pub mod progress;
pub mod record;
mod settings;
pub mod status;
mod table;

pub use network::{Network, NetworkError, Options};
pub use table::Display;
