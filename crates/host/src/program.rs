//! Programs of the system that a command runs: those that make initial RAM disks, boot menus, users and services.

use std::fmt;
use std::io;
use std::process::Command;

/// Runs programs, or only lets it look so.
pub trait Programs: fmt::Debug {
    /// Runs a program with its arguments, its output shown, and waits for its end.
    ///
    /// # Errors
    /// It cannot be started, or ended badly.
    fn run(&self, command: &[String]) -> io::Result<()>;
}

/// Runs them on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl Programs for ThisMachine {
    fn run(&self, command: &[String]) -> io::Result<()> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let status = Command::new(program).args(arguments).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} ended with {status}"))) }
    }
}

/// Runs none: the files of another machine, or of one that is off, are being changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotHere;

impl Programs for NotHere {
    fn run(&self, _command: &[String]) -> io::Result<()> {
        Ok(())
    }
}

/// A command from its words.
#[must_use]
pub fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
