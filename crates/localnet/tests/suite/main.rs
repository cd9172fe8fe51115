//! Tests that need more than one crate: the scripts that a newcomer starts with, and the whole network on this machine.

#![cfg(test)]

mod broken_configuration;
mod crash;
mod deployed_configs;
mod documents;
mod liars;
mod market;
mod network;
mod operations;
mod services;
mod setup_script;
