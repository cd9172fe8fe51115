//! `byteleap-validator bench`: how many proofs a core of this machine judges, how many heartbeats a validator takes, and
//! how long a round takes ([`round`]).

mod heartbeats;
mod round;
mod world;

use std::io::{self, Write};

use byteleap_compute::bench;
use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::gpu::GpuChallenge;
use byteleap_daemon::cli::Failure;
use byteleap_protocol::id::{Iterations, MatrixSize, Seed};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Judge an honest proof on one core, its rows recomputed and its paths followed, and print the median over the runs.
    Verify(VerifyArgs),
    /// Send signed, sealed heartbeats over HTTP to a validator in a process of its own.
    Heartbeats(heartbeats::HeartbeatsArgs),
    /// Serve a validator that knows the miners of `bench heartbeats`, for its `--url`.
    #[command(hide = true)]
    Validator(world::WorldArgs),
    /// Score a full subnet and print the median time of a round, from reading the facts to the stored scores.
    Round(round::RoundArgs),
}

/// The proof that is judged.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// What the challenge was for.
    #[arg(long, value_enum, default_value_t = Kind::Cpu)]
    kind: Kind,
    /// n: rows and columns of the matrices.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MatrixSize::MAX)))]
    size: u32,
    /// How many rows are opened, evenly spread.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// How often the proof is judged.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A processor's product.
    Cpu,
    /// A GPU's product: the rows and 25 single elements are shown.
    Gpu,
}

/// What `bench verify --json` prints.
#[derive(Debug, Serialize)]
struct VerifyReport {
    median_ms: f64,
    challenges_per_s_per_core: f64,
}

/// Measures and prints.
///
/// # Errors
/// More rows than the matrix has; no room for the matrices of the proof; a validator that does not start or answer; a
/// database that cannot be used; or standard output is closed.
pub fn run(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Verify(arguments) => verify(arguments),
        BenchCommand::Heartbeats(arguments) => heartbeats::run(arguments),
        BenchCommand::Validator(arguments) => world::serve(arguments),
        BenchCommand::Round(arguments) => round::run(arguments),
    }
}

fn verify(VerifyArgs { kind, size, rows, runs, json }: &VerifyArgs) -> Result<(), Failure> {
    if rows > size {
        return Err(Failure::usage(format!("a matrix of {size} rows has no {rows} rows to open")));
    }
    let seed: Seed = "000102030405060708090a0b0c0d0e0f".parse()?;
    let median = match kind {
        Kind::Cpu => {
            let challenge = CpuChallenge::new(&seed, MatrixSize::for_cpu(*size)?, Iterations::ONE)?;
            bench::judge(&challenge, *rows, *runs)?
        }
        Kind::Gpu => {
            let challenge = GpuChallenge { seed, size: MatrixSize::new(*size)?, iterations: Iterations::ONE };
            bench::judge_gpu(&challenge, "GPU-bench".parse()?, *rows, *runs)
        }
    };
    let median = median.as_secs_f64();
    let report = VerifyReport { median_ms: 1000.0 * median, challenges_per_s_per_core: 1.0 / median };
    if *json {
        return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?);
    }
    let VerifyReport { median_ms, challenges_per_s_per_core } = report;
    Ok(writeln!(
        io::stdout(),
        "size {size}, {rows} rows: {median_ms:.2} ms a proof, {challenges_per_s_per_core:.1} proofs a second on one core"
    )?)
}
