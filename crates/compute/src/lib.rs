//! The arithmetic of challenges, both sides: what a worker computes and what a validator recomputes.
//!
//! A challenge names a seed, a size n and a number of iterations k. The modules follow it:
//! [`size`] draws n on the validator, [`challenge`] refuses what nobody should compute, [`mt19937`] turns the seed into
//! one stream of numbers, [`matrix`] lays the stream out as A and B, [`product`] multiplies A·B^k band by band in the inner
//! loops of [`kernel`], [`row_hash`] turns each row into a leaf, [`cpu`] is the worker's way through all of these, and [`verify`] is the
//! validator's: it recomputes only the rows that were opened, by plain row × matrix sums that share no arithmetic with
//! [`product`], and judges the proof. [`gpu`] is the same for products of GPUs, which an [`engine`] computes. [`bench`] measures
//! all of it.
//!
//! This crate knows no network, no storage and no runtime: every function is plain, blocks its caller until it is done,
//! and uses the rayon pool that it is called in. Memory is bounded and stated where it is taken.
#![deny(unsafe_code)]

pub mod bench;
pub mod challenge;
pub mod cpu;
pub mod engine;
pub mod gpu;
#[expect(unsafe_code, reason = "vector instructions: called once the machine was seen to have them")]
pub mod kernel;
pub mod matrix;
pub mod mt19937;
pub mod product;
pub mod row_hash;
pub mod size;
pub mod verify;
