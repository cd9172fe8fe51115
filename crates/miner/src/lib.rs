//! The miner daemon.
