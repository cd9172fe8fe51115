//! The worker side: the port they dial, the table of who is here, and the seat a challenge takes at one of them.
//!
//! [`listen`] accepts and upgrades, over TLS with the certificate of [`tls`]; [`connection`] speaks frames; [`door`] judges
//! who may register, by the book of keys in [`enrolment`]; [`registry`] owns the table; [`dispatch`] places a challenge and
//! waits for the answers.

pub mod connection;
pub mod dispatch;
pub mod door;
pub mod enrolment;
pub(crate) mod listen;
pub mod registry;
mod strangers;
pub mod tls;
mod upgrade;
