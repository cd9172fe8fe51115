//! The development chain as clients meet it: over its RPC with `subxt` and with extrinsics made by hand, and as the
//! `Chain` that daemons hold, once through the real client and once in process.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod conformance;
mod connection;
mod daemons;
mod dispatch;
mod handmade;
mod pool;
mod reads;
mod requests;
mod restart;
mod sdk;
mod world;
