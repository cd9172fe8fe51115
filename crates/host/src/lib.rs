//! The machine that a daemon runs on: who it is, and what it consists of.
//!
//! [`identity`] gives a worker its lasting name: computed once as the Python worker computes it, then kept in a file.
//! [`monitor`] samples processor, memory, disk and board at each heartbeat into the shapes of [`system_info`], which is
//! what peers read. [`interface`] lists the network interfaces that the identity looks at. [`service`] installs a daemon
//! here under systemd. [`coldkey`] finds keys that must not lie here.
//!
//! All files are read under a root directory that the caller names, `/` outside tests. Calls block, if only for
//! moments: a daemon makes them off its runtime. This crate knows nothing of the network and of challenges.
#![forbid(unsafe_code)]

pub mod coldkey;
pub mod identity;
pub mod interface;
pub mod monitor;
pub mod service;
pub mod system_info;

mod procfs;
