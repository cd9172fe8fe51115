//! The validator: asks workers to compute, judges what they answer, and tells the chain what each miner is worth.
//!
//! It is not the arithmetic (`byteleap-compute`), not the formulas (`byteleap-scoring`) and not the wire format
//! (`byteleap-protocol`): it is who is asked when, what is remembered, and what follows.
#![forbid(unsafe_code)]

pub mod challenge;
pub mod store;
