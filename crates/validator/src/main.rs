//! `byteleap-validator`: parses the command line and runs one command.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use byteleap_chain::wallet::Passwords;
use byteleap_chain::{Chain, Standing, Subtensor, Wallet};
use byteleap_daemon::admin;
use byteleap_daemon::cli::{self, CommonArgs, CommonCommand, Failure};
use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_daemon::config::{Config, example};
use byteleap_daemon::failpoint;
use byteleap_daemon::logging;
use byteleap_daemon::reload::{Hangups, Reload};
use byteleap_daemon::tasks::{self, Signals, Tasks};
use byteleap_daemon::view;
use byteleap_host::service::{Daemon, ServiceCommand};
use byteleap_protocol::hotkey::{Hotkey, Signer};
use byteleap_scoring::Profile;
use byteleap_validator::FAILPOINTS;
use byteleap_validator::alarm::webhook::{Sender, post};
use byteleap_validator::api::token::{Role, Token, TokenFile};
use byteleap_validator::backup;
use byteleap_validator::bench::{self, BenchCommand};
use byteleap_validator::capture::Order;
use byteleap_validator::config::{KEYS, LiveSettings, Settings, advice};
use byteleap_validator::market::remote::{Apply, Remote};
use byteleap_validator::market::{HubSettings, lease};
use byteleap_validator::score::explain::{explain_round, instant};
use byteleap_validator::service::{self, DRAIN_DEADLINE, World, endless};
use byteleap_validator::store::migrate::{StepStatus, nothing_applied};
use byteleap_validator::store::reference::{Heritage, Reach};
use byteleap_validator::store::round::RoundKey;
use byteleap_validator::store::{DatabaseUrl, Place, Store, StoreError};
use byteleap_validator::verifier;
use byteleap_validator::weights::Preparer;
use byteleap_validator::weights::report::{self, WeightsCommand};
use clap::{Args, Parser, Subcommand};
use rand_core::OsRng;
use tokio::net::TcpListener;

/// A day in milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Name of the log file in `logging.log_dir`.
const LOG_FILE: &str = "validator.log";
/// That of a process that only verifies.
const VERIFIER_LOG_FILE: &str = "verifier.log";

/// This program as a systemd service.
const SERVICE: Daemon = Daemon {
    name: "byteleap-validator",
    description: "ByteLeap validator",
    version: env!("CARGO_PKG_VERSION"),
    config_file: "validator_config.yaml",
    memory_max: "8G",
    start_timeout_s: 300,
    is_worker: false,
};

/// The ByteLeap validator: challenges workers, scores miners and sets weights on the subnet.
#[derive(Debug, Parser)]
#[command(name = "byteleap-validator", version)]
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
    /// Bring the database's tables up to date, or show whether they are.
    #[command(subcommand)]
    Migrate(MigrateCommand),
    /// Look at the weights, or set them.
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Judge proofs beside a running validator, as one of any number of such processes on more machines. They share the
    /// queue in the validator's PostgreSQL database.
    Verifier,
    /// Copy the database into a new file while the validator runs, or check such a copy.
    Backup {
        /// The new file.
        #[arg(required_unless_present = "check")]
        file: Option<PathBuf>,
        /// Read the whole of this copy instead, and say what it holds.
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        check: Option<PathBuf>,
    },
    /// Write a share of the running validator's requests into a file for a while.
    #[command(subcommand)]
    Capture(CaptureCommand),
    /// Send a message to the webhook of alarms.
    #[command(subcommand)]
    Alarm(AlarmCommand),
    /// Say who may use the HTTP API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Tell how the last round scored a miner, and why a number is zero.
    Explain {
        /// The miner's hotkey (SS58).
        hotkey: Hotkey,
        /// An older round than the last.
        #[arg(long)]
        round: Option<i64>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
struct CheckFlags {
    /// Print what the chain says: its head, the subnet's rules and epoch, and the hotkey's standing.
    #[arg(long)]
    chain: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum CaptureCommand {
    /// Turn it on; it turns itself off.
    Start {
        /// For how long, at most an hour.
        #[arg(long)]
        seconds: u64,
        /// Share of the requests, as 0.1.
        #[arg(long)]
        share: f64,
    },
    /// Turn it off now.
    Stop,
}

#[derive(Debug, Clone, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, once: only its digest is kept.
    Create {
        /// Who will hold it, for people.
        name: String,
        /// What it is for: read sees everything, operator may act too, marketplace sees who takes part and sets leases.
        #[arg(long)]
        role: Role,
        /// Days until it ends; 0 for never.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(0..=3650))]
        days: u32,
    },
    /// List the tokens, without what is secret of them.
    List,
    /// Take a token back. The running validator refuses it from its next request on.
    Revoke {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
enum AlarmCommand {
    /// Send a test message once, and say whether it was taken.
    Test,
}

#[derive(Debug, Clone, Subcommand)]
enum MigrateCommand {
    /// Run the steps that have not run yet.
    Up,
    /// Say which database it is and whether steps have to run; exit 1 if so, or if it cannot be reached.
    Check,
    /// List the steps and when they ran.
    Status,
    /// Take over presence, leases and challenges from the database of the Python validator, which is only read.
    ImportReference {
        /// Its address: sqlite:////absolute.db or postgresql://user:password@host/name.
        #[arg(long, value_name = "URL")]
        from: DatabaseUrl,
    },
}

fn main() -> ExitCode {
    cli::exit(execute(Arguments::parse()))
}

fn execute(arguments: Arguments) -> Result<(), Failure> {
    let command = arguments.command.unwrap_or(Command::Common(CommonCommand::Run));
    let configured = || -> Result<(Config, Settings), Failure> {
        let config = arguments.common.load(KEYS)?;
        let settings = Settings::read(&config)?;
        Ok((config, settings))
    };
    match command {
        Command::Common(CommonCommand::Config { example: true }) => cli::print_example(KEYS),
        Command::Common(CommonCommand::Config { example: false }) => cli::print_effective(&configured()?.0),
        Command::Common(CommonCommand::Check(flags)) => {
            let (config, settings) = configured()?;
            let wallet = wallet(&settings);
            cli::block_on(check(settings, wallet, advice(&config), flags))
        }
        Command::Common(CommonCommand::Run) => {
            let (config, settings) = configured()?;
            run(&arguments.common, &config, settings)
        }
        Command::Service(command) => service_command(&command),
        Command::Migrate(command) => cli::block_on(migrate(configured()?.1, command)),
        Command::Weights(command) => cli::block_on(weights(configured()?.1, command)),
        Command::Verifier => {
            let (config, settings) = configured()?;
            run_verifier(&arguments.common, &config, settings)
        }
        Command::Backup { check: Some(copy), .. } => cli::block_on(check_copy(copy)),
        Command::Backup { file, .. } => cli::block_on(copy_database(configured()?.1, file.unwrap_or_default())),
        Command::Capture(command) => cli::block_on(capture(configured()?.1, command)),
        Command::Alarm(AlarmCommand::Test) => cli::block_on(test_alarm(configured()?.1)),
        Command::Token(command) => token(&configured()?.1, command),
        Command::Bench(command) => bench::run(&command),
        Command::Explain { hotkey, round, json } => {
            cli::block_on(show_explanation(configured()?.1, hotkey, round.map(RoundKey), json))
        }
    }
}

fn token(settings: &Settings, command: TokenCommand) -> Result<(), Failure> {
    let (file, now_ms, mut out) = (TokenFile::at(&settings.api_tokens), SystemClock::new().unix_ms(), io::stdout());
    match command {
        TokenCommand::Create { name, role, days } => {
            let token = Token::random(&mut OsRng);
            let expires_at_ms = (days > 0).then(|| now_ms + i64::from(days) * DAY_MS);
            file.create(&name, role, expires_at_ms, &token, now_ms)?;
            Ok(writeln!(out, "{}", token.reveal())?)
        }
        TokenCommand::List => {
            let grants = file.grants()?;
            let rows = grants.iter().map(|grant| {
                let end = match grant.expires_at_ms {
                    None => "never".to_owned(),
                    Some(_) if grant.is_expired(now_ms) => "has ended".to_owned(),
                    Some(at_ms) => instant(at_ms),
                };
                [grant.name.clone(), grant.role.to_string(), instant(grant.created_at_ms), end]
            });
            Ok(write!(out, "{}", view::table(["NAME", "ROLE", "MADE", "ENDS"], rows.collect()))?)
        }
        TokenCommand::Revoke { name } => {
            file.revoke(&name)?;
            Ok(writeln!(out, "revoked {name}")?)
        }
    }
}

fn service_command(command: &ServiceCommand) -> Result<(), Failure> {
    SERVICE.execute(command, &example(KEYS)).map_err(|error| Failure::with_code(error.code(), error))
}

fn run(arguments: &CommonArgs, config: &Config, settings: Settings) -> Result<(), Failure> {
    let log = logging::start(&logging::Options::in_directory(config, arguments.log_format, LOG_FILE))?;
    failpoint::arm(FAILPOINTS)?;
    let metrics = admin::record_metrics()?;
    for advice in advice(config) {
        tracing::warn!("{advice}");
    }
    let profile = settings.scoring.profile();
    tracing::info!(
        profile = %profile.name,
        lease_weight = profile.lease_weight,
        challenge_weight = profile.challenge_weight,
        "scoring by this profile; choose another by scoring.profile"
    );
    if let Some(refusal) = settings.market.as_ref().and_then(HubSettings::refusal) {
        return Err(Failure::usage(refusal));
    }
    let wallet = wallet(&settings)?;
    tracing::info!("{wallet}");
    cli::block_on(async move {
        let (signals, hangups) = (Signals::of_process()?, Hangups::of_process()?);
        let chain = chain(&settings)?;
        let tasks = Tasks::new();
        let live = LiveSettings::of(&settings);
        let set = live.clone();
        let apply: Apply = Arc::new(move |config| {
            set.set(Settings::read(config)?);
            Ok(())
        });
        let remote = Remote::new(KEYS, arguments.sources(), config.clone(), settings.remote_config, apply);
        let world = World {
            chain,
            signer: Arc::new(wallet.keypair),
            clock: Arc::new(SystemClock::new()),
            metrics,
            remote: Some(remote.clone()),
        };
        service::start(&settings, &live, world, &tasks).await?;
        let (reload, level) = (Reload::new(KEYS, arguments.sources(), config.clone()), log.level());
        let apply = move |config: &Config| {
            remote.reload(config)?;
            level.set(&config.get::<String>(logging::LOG_LEVEL.name));
            Ok(())
        };
        tasks.service("reload", |stop| endless(reload.run(hangups, apply, stop)));
        Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
    })
}

fn run_verifier(arguments: &CommonArgs, config: &Config, settings: Settings) -> Result<(), Failure> {
    let log = logging::start(&logging::Options::in_directory(config, arguments.log_format, VERIFIER_LOG_FILE))?;
    failpoint::arm(FAILPOINTS)?;
    let metrics = admin::record_metrics()?;
    cli::block_on(async move {
        let (signals, hangups) = (Signals::of_process()?, Hangups::of_process()?);
        let tasks = Tasks::new();
        let live = LiveSettings::of(&settings);
        match verifier::start(&settings, &live, Arc::new(SystemClock::new()), metrics, &tasks).await {
            Err(error @ verifier::StartError::File(_)) => return Err(Failure::usage(error.to_string())),
            started => started?,
        };
        let (reload, level) = (Reload::new(KEYS, arguments.sources(), config.clone()), log.level());
        let apply = move |config: &Config| {
            level.set(&config.get::<String>(logging::LOG_LEVEL.name));
            Ok(())
        };
        tasks.service("reload", |stop| endless(reload.run(hangups, apply, stop)));
        Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
    })
}

/// Looks for everything that would keep the validator from its work, and prints all of it.
async fn check(
    settings: Settings,
    wallet: Result<Wallet, Failure>,
    advice: Vec<String>,
    flags: CheckFlags,
) -> Result<(), Failure> {
    let (mut out, mut problems) = (io::stdout(), Vec::new());
    if let Err(error) = check_database(&settings).await {
        problems.push(error);
    }
    problems.extend(settings.market.as_ref().and_then(HubSettings::refusal));
    let wallet = wallet.map_err(|failure| problems.push(failure.to_string())).ok();
    match chain(&settings) {
        Err(failure) => problems.push(failure.to_string()),
        Ok(chain) => problems.extend(check_chain(&settings, chain.as_ref(), wallet, flags).await.err()),
    }
    for (what, address, keys) in
        [("the axon", settings.axon, "axon.host and port"), ("the admin endpoint", settings.admin, "http.listen")]
    {
        problems.extend(check_port(what, address, keys).await.err());
    }
    for advice in advice {
        writeln!(out, "note: {advice}")?;
    }
    if problems.is_empty() {
        return Ok(writeln!(out, "all well")?);
    }
    let count = problems.len();
    Err(Failure::runtime(format!("{count} problem(s):\n  {}", problems.join("\n  "))))
}

async fn check_database(settings: &Settings) -> Result<(), String> {
    let url = &settings.database;
    let steps = migrate_status(url).await.map_err(|error| format!("{url}: {}", tasks::chain(&error)))?;
    if let Some(folder) = url.file().and_then(Path::parent).filter(|folder| !folder.is_dir()) {
        return Err(format!("{url}: there is no folder {}", folder.display()));
    }
    let waiting = steps.iter().filter(|step| step.is_pending()).count();
    if waiting > 0 && waiting < steps.len() {
        return Err(format!("{waiting} schema step(s) have to run; a start runs them, or `migrate up`"));
    }
    Ok(())
}

/// The steps of a database, which is neither made nor changed by this.
async fn migrate_status(url: &DatabaseUrl) -> Result<Vec<StepStatus>, StoreError> {
    let Some(store) = Store::open_existing(url).await? else { return Ok(nothing_applied()) };
    let steps = store.migrate_status().await?;
    store.close().await;
    Ok(steps)
}

/// Prints the wallet and its standing, and says what keeps it from setting weights.
async fn check_chain(
    settings: &Settings,
    chain: &dyn Chain,
    wallet: Option<Wallet>,
    flags: CheckFlags,
) -> Result<(), String> {
    let Some(wallet) = wallet else {
        return chain.metagraph(settings.netuid).await.map(drop).map_err(|error| tasks::chain(&error));
    };
    let told = |text: String| write!(io::stdout(), "{text}").map_err(|error| error.to_string());
    told(format!("wallet    {wallet}\n"))?;
    let standing = Standing::read(chain, settings.netuid, wallet.keypair.hotkey()).await;
    let standing = standing.map_err(|error| tasks::chain(&error))?;
    told(if flags.chain { standing.to_string() } else { format!("standing  {}\n", standing.registration()) })?;
    match &standing.neuron {
        None => Err(standing.registration()),
        Some(neuron) if !neuron.validator_permit => Err(format!(
            "hotkey {} (uid {}) has no validator permit: its weights would be refused, it needs more stake",
            standing.hotkey, neuron.uid
        )),
        Some(_) => Ok(()),
    }
}

async fn check_port(what: &str, address: SocketAddr, keys: &str) -> Result<(), String> {
    let bound = TcpListener::bind(address).await.map(drop);
    bound.map_err(|error| {
        format!("{what} cannot listen on {address} (does a validator run already?): {error}; see {keys}")
    })
}

async fn migrate(settings: Settings, command: MigrateCommand) -> Result<(), Failure> {
    let url = &settings.database;
    let mut out = io::stdout();
    match command {
        MigrateCommand::Up => {
            let store = Store::open(url).await?;
            let applied = store.migrate_up(SystemClock::new().unix_ms()).await?;
            store.close().await;
            for step in &applied {
                writeln!(out, "applied {step}")?;
            }
            if applied.is_empty() {
                writeln!(out, "nothing to do")?;
            }
        }
        MigrateCommand::Check => {
            let Place { host, database, role } = url.place();
            let role = role.as_deref().unwrap_or("none: it is a file");
            writeln!(out, "host      {host}\ndatabase  {database}\nrole      {role}")?;
            let steps = migrate_status(url).await?;
            let pending: Vec<_> = steps.iter().filter(|step| step.is_pending()).map(ToString::to_string).collect();
            writeln!(out, "pending   {} of {} steps", pending.len(), steps.len())?;
            if !pending.is_empty() {
                let names = pending.join(", ");
                return Err(Failure::runtime(format!("{names} must run: `migrate up` or the next start does it")));
            }
        }
        MigrateCommand::ImportReference { from } => {
            let now_ms = SystemClock::new().unix_ms();
            let reach = Reach {
                heartbeats_since_ms: now_ms - settings.kept.availability_ms,
                challenges_since_ms: now_ms - settings.kept.ranking_ms,
            };
            let heritage = Heritage::read(&from, reach).await?;
            let store = Store::open(url).await?;
            store.migrate_up(now_ms).await?;
            let imported = store.import(&heritage).await?;
            store.close().await;
            writeln!(out, "{imported}")?;
        }
        MigrateCommand::Status => {
            for step in migrate_status(url).await? {
                let state =
                    step.applied_at_ms.map_or("waits".to_owned(), |at_ms| format!("applied {}", instant(at_ms)));
                writeln!(out, "{step} {state}")?;
            }
        }
    }
    Ok(())
}

async fn copy_database(settings: Settings, file: PathBuf) -> Result<(), Failure> {
    backup::backup(&settings.database, &file).await?;
    let contents = backup::check(&file).await?;
    Ok(writeln!(io::stdout(), "{}\n{contents}", file.display())?)
}

async fn check_copy(copy: PathBuf) -> Result<(), Failure> {
    let contents = backup::check(&copy).await?;
    Ok(writeln!(io::stdout(), "{contents}")?)
}

async fn capture(settings: Settings, command: CaptureCommand) -> Result<(), Failure> {
    let answer = match command {
        CaptureCommand::Start { seconds, share } => {
            admin::post(settings.admin, "/capture", &serde_json::json!(Order { seconds, share })).await?
        }
        CaptureCommand::Stop => admin::delete(settings.admin, "/capture").await?,
    };
    match answer["path"].as_str() {
        Some(path) => Ok(writeln!(io::stdout(), "{path}")?),
        None => Ok(writeln!(io::stdout(), "nothing is captured")?),
    }
}

async fn test_alarm(settings: Settings) -> Result<(), Failure> {
    let Some(webhook) = &settings.alarms.webhook else {
        return Err(Failure::usage("alarms.webhook_url is not set: there is nowhere to send a message to"));
    };
    let sender = Sender { hotkey: own_hotkey(&settings, None).await?, netuid: settings.netuid };
    post(webhook, &sender.test_message(SystemClock::new().unix_ms())).await?;
    Ok(writeln!(io::stdout(), "{} took the test message", webhook.url)?)
}

/// The store of a command that needs what a running validator has written.
async fn written_store(settings: &Settings) -> Result<Store, Failure> {
    Store::open_existing(&settings.database).await?.ok_or_else(|| {
        Failure::runtime(format!(
            "there is no database {} yet: the validator makes it when it starts",
            settings.database
        ))
    })
}

/// Only `submit` needs the wallet: what is shown is in the database and on the chain.
async fn weights(settings: Settings, command: WeightsCommand) -> Result<(), Failure> {
    let store = written_store(&settings).await?;
    let preparer = |own: Hotkey| -> Result<Preparer, Failure> {
        Ok(Preparer {
            store: store.clone(),
            chain: chain(&settings)?,
            own,
            clock: Arc::new(SystemClock::new()),
            netuid: settings.netuid,
            settings: settings.weights.clone(),
        })
    };
    let text = match command {
        WeightsCommand::Show { json } => report::show(&store, json).await?,
        WeightsCommand::Preview { hotkey, json } => {
            report::preview(&preparer(own_hotkey(&settings, hotkey).await?)?, json).await?
        }
        WeightsCommand::Diff { hotkey, json } => {
            report::diff(&preparer(own_hotkey(&settings, hotkey).await?)?, json).await?
        }
        WeightsCommand::Replay { round, profile, json } => {
            let profile = profile.map_or_else(|| settings.scoring.profile().clone(), Profile::named);
            report::replayed(&store, round, &profile, json).await?
        }
        WeightsCommand::Submit { json } => {
            let signer = Arc::new(wallet(&settings)?.keypair);
            report::submit(&preparer(signer.hotkey())?.signed_by(signer), json).await?
        }
    };
    store.close().await;
    Ok(write!(io::stdout(), "{text}")?)
}

/// Our hotkey: as given, else as the running validator tells; only without either the wallet is opened.
async fn own_hotkey(settings: &Settings, given: Option<Hotkey>) -> Result<Hotkey, Failure> {
    if let Some(hotkey) = given {
        return Ok(hotkey);
    }
    let status = admin::get(settings.admin, "/status").await.unwrap_or_default();
    match status["hotkey"].as_str().and_then(|hotkey| hotkey.parse().ok()) {
        Some(hotkey) => Ok(hotkey),
        None => Ok(wallet(settings)?.keypair.hotkey()),
    }
}

async fn show_explanation(
    settings: Settings,
    hotkey: Hotkey,
    round: Option<RoundKey>,
    json: bool,
) -> Result<(), Failure> {
    let store = written_store(&settings).await?;
    let found = match round {
        Some(key) => store.round(key).await?.ok_or_else(|| format!("there is no round {}", key.0)),
        None => {
            store.latest_round().await?.ok_or("no scoring round yet: the validator makes one when it starts".to_owned())
        }
    };
    let explanation = explain_round(&store, hotkey, found.map_err(Failure::runtime)?).await?;
    let leases = lease::told(&store, hotkey, settings.lease_ages, SystemClock::new().unix_ms()).await?;
    store.close().await;
    let mut out = io::stdout();
    if json {
        let mut explanation = serde_json::to_value(&explanation)?;
        explanation["leases_now"] = serde_json::json!(leases);
        Ok(writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?)
    } else {
        write!(out, "{explanation}")?;
        leases.iter().try_for_each(|lease| writeln!(out, "{lease}"))?;
        Ok(())
    }
}

fn chain(settings: &Settings) -> Result<Arc<dyn Chain>, Failure> {
    Ok(Arc::new(Subtensor::new(&settings.networks, settings.allow_insecure)?.with_beacon(settings.beacon)))
}

fn wallet(settings: &Settings) -> Result<Wallet, Failure> {
    let wallet = &settings.wallet;
    let passwords = Passwords::of_process(wallet.password_file.clone());
    Ok(Wallet::load(&wallet.path, &wallet.name, &wallet.hotkey, &passwords)?)
}
