//! The machine's GPUs on every kind of host: what is shown, what binding changes, and that all of it can be undone.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bind;
mod kernel;
mod machine;
mod shown;
