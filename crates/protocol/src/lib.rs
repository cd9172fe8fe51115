//! Every message on every wire of ByteLeap, version 1, as types that cannot hold a wrong value.
//!
//! This crate is pure: it turns bytes into types and types into bytes, signs, seals and proves. It knows no socket,
//! file, clock or thread; the time and the randomness come in as parameters.
//!
//! The modules follow a challenge on its way. [`id`] and [`hotkey`] name the parties; [`challenge`] says what is to be
//! computed; [`frame`] carries it between miner and worker over a WebSocket, [`worker_key`] proves which worker speaks
//! there and [`join`] invites one; [`merkle`] commits to the result and opens rows of it, [`half`] holds a GPU's numbers
//! that [`gpu_server`] computed and [`gpu_signature`] vouches for; [`payload`] holds what miner and validator tell each other,
//! [`feedback`] what a validator tells of its verdicts and scores;
//! [`session`] seals these payloads and [`synapse`] carries the sealed package over signed HTTP. [`gateway`] is the wire
//! beside it, on which a worker lets virtual machines, and [`meshhub`] the one on which a validator hears from the marketplace
//! which workers are rented. [`code`] lists what can go wrong, in numbers. [`lenient`] and
//! [`canonical`] are the two ends of every text: tolerant in what is read, exact in what is written.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod challenge;
pub mod code;
pub mod feedback;
pub mod frame;
pub mod gateway;
pub mod gpu_server;
pub mod gpu_signature;
pub mod half;
pub mod hotkey;
pub mod id;
pub mod join;
pub mod lenient;
pub mod merkle;
pub mod meshhub;
pub mod payload;
pub mod session;
pub mod synapse;
pub mod worker_key;

/// A free JSON object: relayed or stored as it came, its keys never relied upon.
pub type Object = serde_json::Map<String, serde_json::Value>;
