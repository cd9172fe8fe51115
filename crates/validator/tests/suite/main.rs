//! The program `byteleap-validator` from outside, and the script that prepares its database.

#![cfg(test)]

mod bench;
mod database;
mod postgres;
mod verifier;
