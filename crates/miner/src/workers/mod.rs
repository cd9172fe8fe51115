//! The worker side: the port they dial, the table of who is here, and the seat a challenge takes at one of them.
//!
//! [`listen`] accepts and upgrades, [`connection`] speaks frames, [`registry`] owns the table, [`dispatch`] places a
//! challenge and waits for the answers.

pub mod connection;
pub mod dispatch;
pub(crate) mod listen;
pub mod registry;
mod upgrade;
