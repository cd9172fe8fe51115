//! Scores against the recorded vectors of the reference, what the documents say, and what the rules promise.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod documents;
mod explanation;
mod properties;
mod vectors;
mod zeros;
