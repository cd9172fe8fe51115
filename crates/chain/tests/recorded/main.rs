//! The crate against recorded truth: files and numbers that the official tools wrote.

#![cfg(test)]

mod schedule;
mod wallet;
mod weights;
