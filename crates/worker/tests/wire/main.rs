//! The worker over a real WebSocket: against a miner that each test scripts, and as the process that an operator starts.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod gpu_server;
mod miner;

mod challenge_round;
mod connection;
mod gpu;
mod process;
mod recorded;
