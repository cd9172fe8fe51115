//! The miner: the process that holds a hotkey on the subnet and stands between validators and workers.
//!
//! It relays; it computes nothing and judges nothing. Workers dial it over WebSocket ([`workers`]); it dials validators
//! over signed, sealed HTTP ([`validators`]); and [`relay`] carries challenges, reports and tokens between the two. A
//! challenge meets the modules in this order: [`relay`] fetches it from a validator, [`workers`] places it, the answer
//! goes back through [`relay`] to the same validator, twice: commitment, then proof.
//!
//! [`config`] is what an operator can set, [`service`] builds the parts and runs them, [`status`] shows them, [`bench`]
//! measures them; [`enroll`] is how an operator says which workers are his. After a restart workers register again and
//! sessions are made anew; only the challenges under way are on disk, and go on.
#![forbid(unsafe_code)]

pub mod bench;
pub mod config;
pub mod enroll;
mod relay;
pub mod service;
pub mod status;
mod time;
pub mod validators;
pub mod workers;

/// Where a test may kill the miner: on both sides of each write into its logbook and of each call that carries a challenge
/// on. `docs/architecture.md` says what each crash must leave behind.
pub const FAILPOINTS: &[&str] = &[
    "miner.task.before",
    "miner.task.after",
    "miner.commitment.before",
    "miner.commitment.after",
    "miner.rows.after",
    "miner.proof.before",
    "miner.proof.after",
];
