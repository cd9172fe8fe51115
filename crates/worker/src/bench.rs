//! `byteleap-worker bench`: how fast this machine computes challenges, beside what its processor could do at best.

use std::io::{self, Write};

use byteleap_compute::bench::{self, ComputeFigures};
use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::kernel::Kernel;
use byteleap_daemon::cli::Failure;
use byteleap_protocol::id::{IdError, Iterations, MatrixSize, Seed};
use byteleap_protocol::merkle::NodeHash;
use clap::{Args, Subcommand};
use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchCommand {
    /// Compute a CPU challenge, from its seed to the root of its tree, and print the median over the runs.
    Cpu(CpuArgs),
}

/// The challenge that is computed.
#[derive(Debug, Clone, Args)]
pub struct CpuArgs {
    /// n: rows and columns of the matrices.
    #[arg(long, default_value = "2000", value_parser = size)]
    size: MatrixSize,
    /// k: how many times the second matrix is multiplied in.
    #[arg(long, default_value = "1", value_parser = iterations)]
    iterations: Iterations,
    /// The challenge's seed, hexadecimal.
    #[arg(long, value_name = "HEX", default_value = "000102030405060708090a0b0c0d0e0f")]
    seed: Seed,
    /// How often it is computed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Compute by this kernel: avx512, avx2 or portable; the fastest that the processor has unless told otherwise.
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `bench cpu --json` prints: medians in milliseconds, speeds in 10^9 multiplications a second.
#[derive(Debug, Serialize)]
struct CpuReport<'a> {
    size: MatrixSize,
    iterations: Iterations,
    seed: &'a Seed,
    median_ms: f64,
    generate_ms: f64,
    multiply_ms: f64,
    hash_ms: f64,
    gmac_per_s: f64,
    peak_gmac_per_s: f64,
    merkle_root: NodeHash,
    threads: usize,
    kernel: &'static str,
}

/// Measures and prints.
///
/// # Errors
/// The machine has no room for the matrices, or standard output is closed.
pub fn run(command: &BenchCommand) -> Result<(), Failure> {
    let BenchCommand::Cpu(arguments) = command;
    let challenge = CpuChallenge::new(&arguments.seed, arguments.size, arguments.iterations)?;
    let kernel = arguments.kernel.unwrap_or_else(Kernel::best);
    let figures = bench::compute(kernel, &challenge, arguments.runs)?;
    let report = CpuReport::new(arguments, &figures, kernel);
    if arguments.json {
        return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?);
    }
    Ok(report.print(io::stdout())?)
}

impl<'a> CpuReport<'a> {
    fn new(arguments: &'a CpuArgs, figures: &ComputeFigures, kernel: Kernel) -> Self {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        Self {
            size: arguments.size,
            iterations: arguments.iterations,
            seed: &arguments.seed,
            median_ms: ms(figures.total),
            generate_ms: ms(figures.generate),
            multiply_ms: ms(figures.multiply),
            hash_ms: ms(figures.hash),
            gmac_per_s: figures.gmac_per_s,
            peak_gmac_per_s: figures.peak_gmac_per_s,
            merkle_root: figures.merkle_root,
            threads: figures.threads,
            kernel: kernel.name(),
        }
    }

    fn print(&self, mut out: impl Write) -> io::Result<()> {
        let Self { size, threads, kernel, .. } = self;
        let iterations = self.iterations.get();
        writeln!(out, "size {size}, {iterations} iterations, {threads} threads, kernel {kernel}")?;
        writeln!(out, "from seed to root  {:10.2} ms", self.median_ms)?;
        writeln!(out, "  generate         {:10.2} ms", self.generate_ms)?;
        writeln!(out, "  multiply         {:10.2} ms", self.multiply_ms)?;
        writeln!(out, "  hash             {:10.2} ms", self.hash_ms)?;
        let share = 100.0 * self.gmac_per_s / self.peak_gmac_per_s;
        writeln!(
            out,
            "product            {:10.2} · 10^9 multiplications a second, {share:.0} % of what the instruction can do ({:.2})",
            self.gmac_per_s, self.peak_gmac_per_s
        )?;
        writeln!(out, "root               {}", self.merkle_root)
    }
}

fn size(text: &str) -> Result<MatrixSize, String> {
    parse(text, MatrixSize::for_cpu)
}

fn iterations(text: &str) -> Result<Iterations, String> {
    parse(text, Iterations::new)
}

fn parse<T>(text: &str, make: impl FnOnce(u32) -> Result<T, IdError>) -> Result<T, String> {
    let number = text.parse().map_err(|_| "expected a whole number".to_owned())?;
    make(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: BenchCommand,
    }

    fn arguments(line: &[&str]) -> Result<CpuArgs, clap::Error> {
        Line::try_parse_from(line).map(|Line { command: BenchCommand::Cpu(arguments) }| arguments)
    }

    #[test]
    fn the_report_has_exactly_the_promised_fields() {
        let arguments = arguments(&["bench", "cpu", "--size", "100", "--seed", "0a0b", "--iterations", "3"]).unwrap();
        let figures = ComputeFigures {
            total: Duration::from_micros(1500),
            generate: Duration::from_millis(1),
            multiply: Duration::from_millis(2),
            hash: Duration::from_millis(3),
            gmac_per_s: 4.5,
            peak_gmac_per_s: 9.0,
            merkle_root: "00112233445566ff".parse().unwrap(),
            threads: 2,
        };
        let report = CpuReport::new(&arguments, &figures, Kernel::best());
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            format!(
                "{{\"size\":100,\"iterations\":3,\"seed\":\"0a0b\",\"median_ms\":1.5,\"generate_ms\":1.0,\"multiply_ms\":2.0,\
                 \"hash_ms\":3.0,\"gmac_per_s\":4.5,\"peak_gmac_per_s\":9.0,\"merkle_root\":\"00112233445566ff\",\
                 \"threads\":2,\"kernel\":\"{}\"}}",
                Kernel::best().name()
            )
        );
    }

    #[test]
    fn a_challenge_that_no_worker_accepts_is_no_bench() {
        for wrong in [["--size", "16385"], ["--size", "0"], ["--iterations", "65"], ["--seed", "0x"], ["--runs", "0"]] {
            assert!(arguments(&["bench", "cpu", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn any_kernel_of_this_processor_can_be_measured_and_no_other() {
        for kernel in Kernel::all() {
            assert_eq!(arguments(&["bench", "cpu", "--kernel", kernel.name()]).unwrap().kernel, Some(kernel));
        }
        let refused = arguments(&["bench", "cpu", "--kernel", "mmx"]).unwrap_err().to_string();
        assert!(refused.contains("there is no such kernel"), "{refused}");
    }
}
