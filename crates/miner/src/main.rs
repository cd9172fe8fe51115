//! `byteleap-miner`: parses the command line and runs one command.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use byteleap_chain::{Chain, Subtensor, Wallet};
use byteleap_daemon::{
    admin,
    cli::{self, CommonArgs, CommonCommand, Failure},
    clock::{Clock, SystemClock},
    config::{Config, example},
    failpoint, logging,
    tasks::{self, Signals, Tasks},
};
use byteleap_host::service::{Daemon, ServiceCommand};
use byteleap_miner::{
    FAILPOINTS,
    config::{KEYS, Settings},
    service::{self, DRAIN_DEADLINE, World},
    status::Status,
};
use byteleap_protocol::hotkey::Signer;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;

/// Name of the log file in `logging.log_dir`.
const LOG_FILE: &str = "miner.log";

/// This program as a systemd service.
const SERVICE: Daemon = Daemon {
    name: "byteleap-miner",
    description: "ByteLeap miner",
    version: env!("CARGO_PKG_VERSION"),
    config_file: "miner_config.yaml",
    memory_max: "2G",
    start_timeout_s: 120,
    is_worker: false,
};

/// The ByteLeap miner: relays challenges between the subnet's validators and your workers.
#[derive(Debug, Parser)]
#[command(name = "byteleap-miner", version)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Common(CommonCommand),
    #[command(flatten)]
    Service(ServiceCommand),
    /// Show the workers of the running miner.
    #[command(subcommand)]
    Workers(WorkersCommand),
    /// Show the state of the running miner.
    Status,
}

#[derive(Debug, Subcommand)]
enum WorkersCommand {
    /// List the workers that are connected.
    List,
}

fn main() -> ExitCode {
    cli::exit(execute(Arguments::parse()))
}

fn execute(arguments: Arguments) -> Result<(), Failure> {
    let configured = || -> Result<(Config, Settings), Failure> {
        let config = arguments.common.load(KEYS)?;
        let settings = Settings::read(&config, std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))?;
        Ok((config, settings))
    };
    match arguments.command.unwrap_or(Command::Common(CommonCommand::Run)) {
        Command::Common(CommonCommand::Config { example: true }) => cli::print_example(KEYS),
        Command::Common(CommonCommand::Config { example: false }) => cli::print_effective(&configured()?.0),
        Command::Common(CommonCommand::Check) => cli::block_on(check(configured()?.1)),
        Command::Common(CommonCommand::Run) => {
            let (config, settings) = configured()?;
            run(&arguments.common, &config, settings)
        }
        Command::Service(command) => {
            SERVICE.execute(&command, &example(KEYS)).map_err(|error| Failure::with_code(error.code(), error))
        }
        Command::Workers(WorkersCommand::List) => show(configured()?.1.admin, Status::workers_table),
        Command::Status => show(configured()?.1.admin, Status::page),
    }
}

fn run(arguments: &CommonArgs, config: &Config, settings: Settings) -> Result<(), Failure> {
    let _log = logging::start(&logging::Options::in_directory(config, arguments.log_format, LOG_FILE))?;
    failpoint::arm(FAILPOINTS)?;
    let metrics = admin::record_metrics()?;
    cli::block_on(async move {
        let signals = Signals::of_process()?;
        let (chain, signer) = (chain(&settings)?, wallet(&settings)?);
        let tasks = Tasks::new();
        let world = World { chain, signer: Arc::new(signer.keypair), clock: Arc::new(SystemClock::new()), metrics };
        service::start(&settings, world, &tasks).await?;
        Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
    })
}

/// Looks for everything that would keep the miner from its work, and prints all of it.
async fn check(settings: Settings) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let wallet = wallet(&settings).map_err(|failure| problems.push(failure.to_string())).ok();
    match (chain(&settings), &wallet) {
        (Err(failure), _) => problems.push(failure.to_string()),
        (Ok(chain), Some(wallet)) => {
            if let Err(error) = service::registered_uid(&*chain, settings.netuid, wallet.keypair.hotkey()).await {
                problems.push(tasks::chain(&error));
            }
        }
        (Ok(chain), None) => {
            if let Err(error) = chain.head().await {
                problems.push(tasks::chain(&error));
            }
        }
    }
    let (host, port) = &settings.listen;
    if let Err(error) = TcpListener::bind((host.as_str(), *port)).await {
        problems.push(format!("workers cannot be served on {host}:{port} (does a miner run already?): {error}"));
    }
    if problems.is_empty() {
        return Ok(writeln!(io::stdout(), "all well")?);
    }
    let count = problems.len();
    Err(Failure::runtime(format!("{count} problem(s):\n  {}", problems.join("\n  "))))
}

fn chain(settings: &Settings) -> Result<Arc<dyn Chain>, Failure> {
    Ok(Arc::new(Subtensor::new(&[&settings.network], settings.allow_insecure)?))
}

fn wallet(settings: &Settings) -> Result<Wallet, Failure> {
    let wallet = &settings.wallet;
    Ok(Wallet::load(&wallet.path, &wallet.name, &wallet.hotkey)?)
}

/// Asks the running miner for its status and prints a view of it.
fn show(address: SocketAddr, view: fn(&Status, i64) -> String) -> Result<(), Failure> {
    cli::block_on(async move {
        let status: Status = serde_json::from_value(admin::get(address, "/status").await?)?;
        Ok(io::stdout().write_all(view(&status, SystemClock::new().unix_ms()).as_bytes())?)
    })
}
