//! The miner: the process that holds a hotkey on the subnet and stands between validators and workers.
//!
//! It relays; it computes nothing and judges nothing. Workers dial it over WebSocket ([`workers`]); it dials validators
//! over signed, sealed HTTP ([`validators`]); and [`relay`] carries challenges, reports and tokens between the two. A
//! challenge meets the modules in this order: [`relay`] fetches it from a validator, [`workers`] places it, the answer
//! goes back through [`relay`] to the same validator, twice: commitment, then proof.
//!
//! [`config`] is what an operator can set, [`service`] builds the parts and runs them, [`status`] shows them. State lives
//! in memory only: after a restart workers register again and sessions are made anew.
#![forbid(unsafe_code)]

pub mod config;
mod relay;
pub mod service;
pub mod status;
mod time;
pub mod validators;
pub mod workers;
