//! The worker: a compute host's client of one miner.
//!
//! It dials its miner, registers, reports the host at each heartbeat, computes the challenges that the miner relays, and
//! proves what it computed. It holds no wallet and knows no chain.
//!
//! The modules follow a challenge. [`config`] is the table of keys; [`service`] builds the parts and runs them;
//! [`link`] is the connection to the miner: it brings an assignment to [`challenge::run`], which computes it and puts
//! the commitment into the [`outbox`], from where the link sends it, again after a reconnect if need be; a proof request
//! goes to [`challenge::prove`], which opens rows of what [`challenge::cache`] kept. [`gpu`] holds the engine that computes
//! GPU challenges. [`host`] samples this machine for registrations and heartbeats. [`join`] takes up a miner's invitation,
//! [`doctor`] examines the machine, [`bench`] measures it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod challenge;
pub mod config;
pub mod doctor;
pub mod gpu;
pub mod host;
pub mod join;
pub mod link;
pub mod outbox;
pub mod service;
pub mod status;

/// Where a test may kill the worker: on both sides of what makes a result lasting, and of what tells the miner of it.
/// `docs/architecture.md` says what each crash must leave behind.
pub const FAILPOINTS: &[&str] = &[
    "worker.result.before",
    "worker.result.after",
    "worker.send.before",
    "worker.send.after",
    "worker.proof.before",
    "worker.proof.after",
];
