//! Tests that need more than one crate: the scripts that a newcomer starts with, and the whole network on this machine.

mod setup_script;
