//! `byteleap-miner bench`: how many workers one miner carries, how fast it answers them, and what each costs.
//!
//! The miner that is measured is a process of its own, as it would be in service, so that its memory and its processor
//! time are its own and neither process meets the limit of open files with both ends of every connection. [`miner`] is
//! that process, [`process`] watches it from outside, [`connections`] plays the workers
//! (over [`tls`] if asked to), [`latency`] counts their waiting.

mod connections;
mod latency;
mod miner;
mod process;
mod tls;

use byteleap_daemon::cli::Failure;
use clap::Subcommand;

pub use self::{connections::ConnectionsArgs, miner::MinerArgs};

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Connect many workers to one miner, let them report, and print how long the miner took to answer.
    Connections(ConnectionsArgs),
    /// The miner that is measured; ends with its standard input.
    #[command(hide = true)]
    Miner(MinerArgs),
}

/// Measures and prints.
///
/// # Errors
/// The miner to measure could not be started or reached, or standard output is closed.
pub async fn run(command: BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Connections(arguments) => connections::run(arguments).await,
        BenchCommand::Miner(arguments) => miner::run(arguments).await,
    }
}
