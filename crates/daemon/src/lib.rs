//! What every long-running process of ByteLeap needs once: its configuration, command line, log, tasks and admin
//! endpoint. The three daemons differ in what they do, never in how they are started, watched and stopped.
//!
//! This crate knows nothing of what a process does: no challenge, no chain, no message appears here.
//!
//! The modules follow the life of a process: [`cli`] parses the command line, [`config`] reads the table of keys,
//! [`logging`] opens the log, [`tasks`] runs named tasks until a signal drains them, [`admin`] answers `/livez`,
//! `/readyz`, `/metrics` and `/status` meanwhile, and both tell systemd (`notify`). SIGHUP lets [`reload`] read the
//! configuration again, whose [`live`] values change under the parts that use them. [`drain`] takes a daemon
//! out of work without losing any, [`view`] prints what it says of itself. [`clock`] is the time they all share,
//! a parameter so that tests hold it. What must outlive the process goes into a [`journal`] or a [`file`](mod@file), and
//! [`failpoint`] lets tests see that it does.

#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drain;
pub mod failpoint;
pub mod file;
pub mod journal;
pub mod live;
pub mod logging;
mod notify;
pub mod reload;
pub mod tasks;
pub mod view;
