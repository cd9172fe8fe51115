//! The validator daemon.
