//! Entry point of `byteleap-worker`: parses the command line and hands over.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use byteleap_daemon::cli::{self, CommonArgs, CommonCommand, Failure};
use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_daemon::config::{Config, example};
use byteleap_daemon::drain::{self, DrainArgs};
use byteleap_daemon::failpoint;
use byteleap_daemon::logging;
use byteleap_daemon::reload::{Hangups, Reload};
use byteleap_daemon::tasks::{Signals, Tasks};
use byteleap_daemon::view::{self, ViewArgs};
use byteleap_host::gpu_command::GpuCommand;
use byteleap_host::service::{Daemon, ServiceCommand};
use byteleap_worker::FAILPOINTS;
use byteleap_worker::bench::{self, BenchCommand};
use byteleap_worker::config::{KEYS, Settings};
use byteleap_worker::doctor::{self, DoctorArgs};
use byteleap_worker::join;
use byteleap_worker::service;
use byteleap_worker::status::Status;
use clap::{Parser, Subcommand};

/// This program as a systemd service.
const SERVICE: Daemon = Daemon {
    name: "byteleap-worker",
    description: "ByteLeap compute worker",
    version: env!("CARGO_PKG_VERSION"),
    config_file: "worker_config.yaml",
    memory_max: "4G",
    start_timeout_s: 90,
    is_worker: true,
};

/// ByteLeap worker: computes challenges for a miner.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Common(CommonCommand),
    #[command(flatten)]
    Service(ServiceCommand),
    #[command(flatten)]
    Gpu(GpuCommand),
    /// Examine this machine: each requirement with what was found, a verdict, and what to do.
    Doctor(DoctorArgs),
    /// Show what the running worker does, and why no work comes.
    Status(ViewArgs),
    /// Take no new challenges, finish those under way, and say when it is safe to stop the worker.
    Drain(DrainArgs),
    /// Take up a miner's invitation: write where it is into the configuration file, and enrol this worker's key at the next
    /// start.
    Join {
        /// What `byteleap-miner workers enroll --token` printed.
        token: String,
    },
    /// Measure this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::exit(match arguments.command.unwrap_or(Command::Common(CommonCommand::Run)) {
        Command::Common(CommonCommand::Run) => run(&arguments.common),
        Command::Common(CommonCommand::Check(_)) => check(&arguments.common),
        Command::Common(CommonCommand::Config { example: true }) => cli::print_example(KEYS),
        Command::Common(CommonCommand::Config { example: false }) => config(&arguments.common),
        Command::Service(command) => {
            SERVICE.execute(&command, &example(KEYS)).map_err(|error| Failure::with_code(error.code(), error))
        }
        Command::Gpu(command) => command.execute().map_err(Failure::runtime),
        Command::Doctor(how) => examine(&arguments.common, how),
        Command::Status(view) => status(&arguments.common, view),
        Command::Drain(how) => drain(&arguments.common, how),
        Command::Join { token } => join_miner(&arguments.common, &token),
        Command::Bench(command) => bench::run(&command),
    })
}

fn run(common: &CommonArgs) -> Result<(), Failure> {
    let config = common.load(KEYS)?;
    let settings = settings(&config);
    let log = logging::start(&logging::Options::in_file(&config, common.log_format))?;
    failpoint::arm(FAILPOINTS)?;
    cli::block_on(async {
        let (tasks, hangups) = (Tasks::new(), Hangups::of_process()?);
        let (reload, level) = (Reload::new(KEYS, common.sources(), config.clone()), log.level());
        let apply = move |config: &Config| {
            level.set(&config.get::<String>(logging::LEVEL.name));
            Ok(())
        };
        tasks.service("reload", |stop| async {
            reload.run(hangups, apply, stop).await;
            Ok::<(), Infallible>(())
        });
        service::run(settings, Path::new("/"), tasks, Signals::of_process()?).await
    })
}

fn config(common: &CommonArgs) -> Result<(), Failure> {
    cli::print_effective(&common.load(KEYS)?)
}

fn check(common: &CommonArgs) -> Result<(), Failure> {
    let settings = settings(&common.load(KEYS)?);
    cli::block_on(async {
        let problems = service::check(&settings).await;
        if !problems.is_empty() {
            return Err(Failure::runtime(problems.join("\n")));
        }
        Ok(writeln!(io::stdout(), "ok: the configuration is valid and a miner answers at {}", settings.miner_url)?)
    })
}

fn examine(common: &CommonArgs, arguments: DoctorArgs) -> Result<(), Failure> {
    cli::block_on(doctor::run(settings(&common.load(KEYS)?), arguments))
}

fn status(common: &CommonArgs, arguments: ViewArgs) -> Result<(), Failure> {
    let settings = settings(&common.load(KEYS)?);
    let page = |status| Ok(serde_json::from_value::<Status>(status)?.page(SystemClock::new().unix_ms()));
    cli::block_on(view::show(settings.http_listen, arguments, |json| json, page))
}

fn drain(common: &CommonArgs, arguments: DrainArgs) -> Result<(), Failure> {
    let settings = settings(&common.load(KEYS)?);
    cli::block_on(drain::run(settings.http_listen, arguments))
}

fn join_miner(common: &CommonArgs, token: &str) -> Result<(), Failure> {
    let state_dir = settings(&common.load(KEYS)?).state_dir;
    let url = join::join(token, common.config.as_deref(), &state_dir)?;
    Ok(writeln!(
        io::stdout(),
        "this worker joins {url} at its next start: (re)start byteleap-worker before the token expires"
    )?)
}

fn settings(config: &Config) -> Settings {
    Settings::read(config, std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
}
