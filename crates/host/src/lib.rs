//! The machine that a daemon runs on: who it is, and what it consists of.
//!
//! [`identity`] gives a worker its lasting name: computed once as the Python worker computes it, then kept in a file.
//! [`monitor`] samples processor, memory, disk and board at each heartbeat into the shapes of [`system_info`], which is
//! what peers read. [`interface`] lists the network interfaces that the identity looks at. [`service`] installs a daemon
//! here under systemd. [`coldkey`] finds keys that must not lie here.
//!
//! [`pci`] and [`gpu`] know the cards, [`vfio`] hands them to virtual machines, and [`gpu_command`] makes commands of it;
//! [`doctor`] tells whether the machine meets every requirement, and what to do if not; [`debug`] and [`bundle`] tell support. They ask
//! [`surroundings`], [`kernel`], [`distribution`] and [`packages`] what the machine runs in and what is installed.
//!
//! All files are reached through [`host_fs`], under a root directory that the caller names, `/` outside tests. Calls block,
//! if only for moments: a daemon makes them off its runtime. This crate knows nothing of the network and of challenges.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod coldkey;
pub mod debug;
pub mod distribution;
pub mod doctor;
pub mod gpu;
pub mod gpu_command;
pub mod host_fs;
pub mod identity;
pub mod interface;
pub mod kernel;
pub mod monitor;
pub mod packages;
pub mod pci;
pub mod program;
pub mod service;
pub mod surroundings;
pub mod system_info;
pub mod vfio;

mod procfs;
