//! The published vectors, and what the two sides promise each other.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cpu_matrix;
mod dynamic_size;
mod gpu_matrix;
