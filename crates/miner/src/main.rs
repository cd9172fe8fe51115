//! `byteleap-miner`: parses the command line and runs one command.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use byteleap_chain::{Chain, Standing, Subtensor, Wallet, wallet::Passwords};
use byteleap_daemon::{
    admin,
    cli::{self, CommonArgs, CommonCommand, Failure},
    clock::{Clock, SystemClock},
    config::{Config, example},
    drain::{self, DrainArgs},
    failpoint, logging,
    reload::{Hangups, Reload},
    tasks::{self, Signals, Tasks},
    view::{self, ViewArgs},
};
use byteleap_host::service::{Daemon, ServiceCommand};
use byteleap_miner::{
    FAILPOINTS,
    bench::{self, BenchCommand},
    config::{KEYS, Settings},
    enroll,
    service::{self, DRAIN_DEADLINE, World},
    status::Status,
    workers::tls::{self, Certificate},
};
use byteleap_protocol::{hotkey::Signer, id::WorkerId, worker_key::WorkerKey};
use clap::{ArgGroup, Args, Parser, Subcommand};
use serde_json::Value;
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
    Common(CommonCommand<CheckFlags>),
    #[command(flatten)]
    Service(ServiceCommand),
    /// Show the workers of the running miner.
    #[command(subcommand)]
    Workers(WorkersCommand),
    /// Show the state of the running miner.
    Status(ViewArgs),
    /// Take no new challenges, finish those under way, and say when it is safe to stop the miner.
    Drain(DrainArgs),
    /// Measure how many workers this machine's miner carries.
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
struct CheckFlags {
    /// Print what the chain says: its head, the subnet's rules and epoch, and the hotkey's standing.
    #[arg(long)]
    chain: bool,
}

#[derive(Debug, Subcommand)]
enum WorkersCommand {
    /// List the workers that are connected.
    List {
        /// List the enrolled keys and their workers instead, connected or not.
        #[arg(long, conflicts_with_all = ["json", "watch"])]
        enrolled: bool,
        #[command(flatten)]
        view: ViewArgs,
    },
    /// Enrol a worker: by its key, or by a one-time token for `byteleap-worker join`.
    #[command(group(ArgGroup::new("what").required(true).args(["key", "token"])))]
    Enroll {
        /// The worker's public key, as `byteleap-worker status` shows it.
        key: Option<WorkerKey>,
        /// The worker that the key is for; otherwise the first that registers with it.
        #[arg(long, requires = "key")]
        worker_id: Option<WorkerId>,
        /// Print a join token, which enrols one worker.
        #[arg(long)]
        token: bool,
        /// How long the token can be used, as 90s, 30m, 1h or 7d.
        #[arg(long, default_value = "1h", value_parser = enroll::parse_life)]
        expires: Duration,
        /// Where workers reach this miner, as wss://miner.example:7799; default: where it listens.
        #[arg(long, requires = "token")]
        url: Option<String>,
    },
    /// Take a worker's key back; its connection is closed.
    Revoke {
        /// Its worker_id or its key.
        who: String,
    },
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
        Command::Common(CommonCommand::Check(flags)) => {
            let settings = configured()?.1;
            let wallet = wallet(&settings);
            cli::block_on(check(settings, wallet, flags))
        }
        Command::Common(CommonCommand::Run) => {
            let (config, settings) = configured()?;
            run(&arguments.common, &config, settings)
        }
        Command::Service(command) => {
            SERVICE.execute(&command, &example(KEYS)).map_err(|error| Failure::with_code(error.code(), error))
        }
        Command::Workers(command) => cli::block_on(workers(configured()?.1, command)),
        Command::Status(view) => cli::block_on(show(configured()?.1.admin, view, |json| json, Status::page)),
        Command::Drain(arguments) => cli::block_on(drain::run(configured()?.1.admin, arguments)),
        Command::Bench(command) => cli::block_on(bench::run(command)),
    }
}

fn run(arguments: &CommonArgs, config: &Config, settings: Settings) -> Result<(), Failure> {
    let log = logging::start(&logging::Options::in_directory(config, arguments.log_format, LOG_FILE))?;
    failpoint::arm(FAILPOINTS)?;
    let metrics = admin::record_metrics()?;
    let wallet = wallet(&settings)?;
    tracing::info!("{wallet}");
    cli::block_on(async move {
        let (signals, hangups) = (Signals::of_process()?, Hangups::of_process()?);
        let chain = chain(&settings)?;
        let tasks = Tasks::new();
        let world = World { chain, signer: Arc::new(wallet.keypair), clock: Arc::new(SystemClock::new()), metrics };
        service::start(&settings, world, &tasks).await?;
        let (reload, level) = (Reload::new(KEYS, arguments.sources(), config.clone()), log.level());
        let apply = move |config: &Config| {
            level.set(&config.get::<String>(logging::LOG_LEVEL.name));
            Ok(())
        };
        tasks.service("reload", |stop| service::endless(reload.run(hangups, apply, stop)));
        Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
    })
}

/// Looks for everything that would keep the miner from its work, and prints all of it.
async fn check(settings: Settings, wallet: Result<Wallet, Failure>, flags: CheckFlags) -> Result<(), Failure> {
    let mut problems = Vec::new();
    let wallet = wallet.map_err(|failure| problems.push(failure.to_string())).ok();
    match (chain(&settings), &wallet) {
        (Err(failure), _) => problems.push(failure.to_string()),
        (Ok(chain), Some(wallet)) => {
            writeln!(io::stdout(), "wallet    {wallet}")?;
            match Standing::read(&*chain, settings.netuid, wallet.keypair.hotkey()).await {
                Err(error) => problems.push(tasks::chain(&error)),
                Ok(standing) => {
                    let shown = if flags.chain {
                        standing.to_string()
                    } else {
                        format!("standing  {}\n", standing.registration())
                    };
                    write!(io::stdout(), "{shown}")?;
                    problems.extend(standing.neuron.is_none().then(|| standing.registration()));
                }
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
    if settings.tls_mode != tls::Mode::Off {
        match Certificate::look(&settings.certificate) {
            Ok(Some(certificate)) => writeln!(io::stdout(), "tls       {}", certificate.fingerprint)?,
            Ok(None) => writeln!(io::stdout(), "tls       a certificate is made at the first start")?,
            Err(error) => problems.push(tasks::chain(&error)),
        }
    }
    if problems.is_empty() {
        return Ok(writeln!(io::stdout(), "all well")?);
    }
    let count = problems.len();
    Err(Failure::runtime(format!("{count} problem(s):\n  {}", problems.join("\n  "))))
}

fn chain(settings: &Settings) -> Result<Arc<dyn Chain>, Failure> {
    Ok(Arc::new(Subtensor::new(&settings.networks, settings.allow_insecure)?))
}

fn wallet(settings: &Settings) -> Result<Wallet, Failure> {
    let wallet = &settings.wallet;
    let passwords = Passwords::of_process(wallet.password_file.clone());
    Ok(Wallet::load(&wallet.path, &wallet.name, &wallet.hotkey, &passwords)?)
}

/// Lists workers, or changes the book of enrolled ones.
async fn workers(settings: Settings, command: WorkersCommand) -> Result<(), Failure> {
    if let WorkersCommand::List { enrolled: false, view } = command {
        let workers = |mut status: Value| status["workers"].take();
        return show(settings.admin, view, workers, Status::workers_page).await;
    }
    if !enroll::find_miner(&settings).await? && !matches!(command, WorkersCommand::List { .. }) {
        writeln!(io::stderr(), "no miner answers at {}: this holds from its next start", settings.admin)?;
    }
    let now_ms = SystemClock::new().unix_ms();
    let text = match command {
        WorkersCommand::List { .. } => enroll::enrolled(&settings)?,
        WorkersCommand::Enroll { key: Some(key), worker_id, .. } => {
            enroll::enroll(&settings, key, worker_id.as_ref(), now_ms)?;
            format!("enrolled {key}\n")
        }
        WorkersCommand::Enroll { key: None, expires, url, .. } => {
            format!("{}\n", enroll::invite(&settings, url, expires, now_ms)?)
        }
        WorkersCommand::Revoke { who } => enroll::revoke(&settings, &who)?,
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Asks the running miner for its status and prints a view of it.
async fn show(
    address: SocketAddr,
    arguments: ViewArgs,
    json: fn(Value) -> Value,
    page: fn(&Status, i64) -> String,
) -> Result<(), Failure> {
    let page = |status| Ok(page(&serde_json::from_value(status)?, SystemClock::new().unix_ms()));
    view::show(address, arguments, json, page).await
}
