//! The program `byteleap-validator` from outside, and the script that prepares its database.

#![cfg(test)]

mod bench;
mod database;
mod database_script;
mod postgres;
mod verifier;
mod weights;
