//! The miner over real sockets: workers that speak WebSocket, validators that open real sessions, and the miner between
//! them, built by [`byteleap_miner::service`] as in the daemon.
#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

mod command;
mod hardship;
mod identity;
mod outages;
mod port;
mod registration;
mod reports;
mod rounds;
mod sessions;
