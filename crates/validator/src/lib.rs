//! The validator: asks workers to compute, judges what they answer, and tells the chain what each miner is worth.
//!
//! It is not the arithmetic (`byteleap-compute`), not the formulas (`byteleap-scoring`) and not the wire format
//! (`byteleap-protocol`): it is who is asked when, what is remembered, and what follows.
//!
//! The modules follow a miner's requests: [`config`] says how all of it behaves, [`metagraph`] who may speak, [`axon`]
//! hears them over signed and sealed HTTP, [`desk`] is where each arrives, typed, and is served or gets a [`refusal`], [`intake`] takes heartbeats in and [`feedback`] tells
//! the miner how its workers stand,
//! [`challenge`] takes a challenge from its first row to its verdict, [`score`] makes rounds of verdicts, leases and
//! presence, [`weights`] tells the chain, [`market`] hears from the marketplace what is rented and tells it what was worth what, and [`store`] remembers everything in SQLite or PostgreSQL. [`service`] builds
//! all of them and runs them; [`verifier`] is the part of it that judges proofs on more machines; [`admin`] shows them
//! to operators, [`alarm`] calls for one, [`backup`] copies the database, [`capture`] shows requests for a while, and [`bench`] measures the machine.
#![forbid(unsafe_code)]

pub mod admin;
pub mod alarm;
pub mod api;
pub mod axon;
pub mod backup;
pub mod bench;
pub mod capture;
pub mod challenge;
pub mod config;
mod counted;
pub mod desk;
pub mod feedback;
pub mod intake;
pub mod market;
pub mod metagraph;
pub mod refusal;
pub mod score;
pub mod service;
pub mod store;
pub mod verifier;
pub mod weights;

/// Where a test may kill the validator: on both sides of each write that moves a challenge, a round or a submission.
/// `docs/architecture.md` says what each crash must leave behind.
pub const FAILPOINTS: &[&str] = &[
    "validator.schedule.before",
    "validator.schedule.after",
    "validator.deliver.before",
    "validator.deliver.after",
    "validator.commit.before",
    "validator.commit.after",
    "validator.prove.before",
    "validator.prove.after",
    "validator.verify.before",
    "validator.verify.after",
    "validator.round.before",
    "validator.round.after",
    "validator.submission.before",
    "validator.submission.after",
    "validator.fate.before",
    "validator.fate.after",
];
