//! The development chain as clients meet it: over its RPC, with hand-made extrinsics and with the real client, and as the
//! `Chain` that daemons hold.

#![expect(clippy::expect_used, reason = "a test whose world does not start has failed")]

mod extrinsics;
mod world;
