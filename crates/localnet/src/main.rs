//! The command line of the local network.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use byteleap_daemon::{
    cli::{self, Failure},
    tasks::Signals,
};
use byteleap_devchain::{DevChain, Genesis, Pace};
use byteleap_localnet::{
    Display, Network, Options,
    binaries::Binaries,
    market::{self, Command as Order, Marketplace, Misbehaviour, TokenPolicy},
    network,
    status::{self, Status},
};
use byteleap_protocol::meshhub::MeshWorker;
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

/// The whole ByteLeap network on one machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Folder that holds the network's state.
    #[arg(long, global = true, value_name = "DIR", default_value = ".localnet")]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run chain, validator, miners and workers until interrupted.
    Up(Up),
    /// Run the development chain alone, until interrupted.
    Chain(Chain),
    /// Play the marketplace for the running network.
    Market {
        #[command(subcommand)]
        command: Market,
    },
    /// Print the running network as JSON.
    Status,
}

#[derive(Args)]
struct Up {
    /// Number of miners.
    #[arg(long, default_value_t = 1, value_parser = number_of_daemons())]
    miners: u16,
    /// Number of workers, dealt to the miners in turn.
    #[arg(long, default_value_t = 2, value_parser = number_of_daemons())]
    workers: u16,
    /// Forget the wallets and identities of earlier runs first. (The chain, and the validator's record of it, begin anew
    /// at every start.)
    #[arg(long)]
    fresh: bool,
    /// Stop once the chain holds weights that came from a verified challenge of this run, and print them as one JSON line.
    #[arg(long)]
    until_weights: bool,
    /// Seconds after which --until-weights gives up.
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    timeout_s: u64,
    /// Milliseconds between two blocks.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    block_time_ms: u64,
    /// Set a key of the validator otherwise, as `--validator-set axon.disabled_routes=TaskSynapse`; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    validator_set: Vec<String>,
}

#[derive(Args)]
struct Chain {
    /// Port on loopback; 0 takes any free one.
    #[arg(long, default_value_t = 9944)]
    port: u16,
    /// Milliseconds between two blocks.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    block_time_ms: u64,
    /// Number of registered miners, where no genesis file says who is registered.
    #[arg(long, default_value_t = 1, value_parser = number_of_daemons())]
    miners: u16,
    /// File that says how the chain begins, instead of wallets made for it (see config/genesis.toml).
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// File that keeps the chain from one start to the next; otherwise it begins anew at each.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Describe numbers as runtimes did before mid-2026, for clients of that time.
    #[arg(long)]
    old_shape: bool,
    /// Serve the controls for failure tests: dev_advance(blocks), dev_advanceEpoch(netuid), dev_setTime(unix_ms),
    /// dev_setHyperparameter(netuid, name, value), dev_setStake(netuid, hotkey, rao), dev_failNext(error),
    /// dev_keepBlocksEmpty(bool), dev_forgetPending(), dev_lagFinality(blocks), dev_stopFinality(bool), dev_replaceHead(),
    /// dev_silence(bool), dev_dropConnections(away_ms).
    #[arg(long)]
    dev_methods: bool,
}

#[derive(Subcommand)]
enum Market {
    /// Lease a worker, or change its lease; 0 ends it.
    Lease {
        /// The worker.
        #[arg(value_name = "HOTKEY:WORKER")]
        worker: MeshWorker,
        /// What the lease is worth.
        #[arg(long, allow_negative_numbers = true)]
        score: f64,
    },
    /// End a worker's lease.
    End {
        /// The worker.
        #[arg(value_name = "HOTKEY:WORKER")]
        worker: MeshWorker,
    },
    /// Forget a worker's lease without a word: nobody repeats it, and it grows old.
    Forget {
        /// The worker.
        #[arg(value_name = "HOTKEY:WORKER")]
        worker: MeshWorker,
    },
    /// Say what is answered to whoever asks for an enrolment token: issue, pending or refuse.
    Tokens {
        /// The answer.
        policy: TokenPolicy,
    },
    /// Set keys of the validator, as `validation.challenge_interval=30`; values are JSON or text.
    Config {
        /// The keys.
        #[arg(value_name = "KEY=VALUE", required = true)]
        keys: Vec<String>,
    },
    /// Publish a task.
    Task {
        /// Its name.
        key: String,
        /// The worker that it is for.
        #[arg(value_name = "HOTKEY:WORKER")]
        worker: MeshWorker,
        /// Milliseconds after which it is too late.
        #[arg(long)]
        ttl_ms: Option<i64>,
    },
    /// Misbehave: wrong-key, unsigned, replay, bad-sequence, wrong-type, infinite-score, negative-score, unknown-worker,
    /// malformed or silence; none ends it.
    Misbehave {
        /// How.
        how: Misbehaviour,
    },
    /// Go away, as if killed.
    Down,
    /// Come back.
    Up,
    /// Print what the marketplace holds and has heard, as JSON.
    Status,
    /// Run a marketplace alone, until interrupted.
    Serve {
        /// Port for validators on loopback; 0 takes any free one.
        #[arg(long, default_value_t = 26551)]
        port: u16,
        /// Port for commands on loopback; 0 takes any free one.
        #[arg(long, default_value_t = 26552)]
        control_port: u16,
    },
}

fn number_of_daemons() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(network::MAX_DAEMONS))
}

fn main() -> ExitCode {
    let Arguments { dir, command } = Arguments::parse();
    cli::exit(cli::block_on(async move {
        match command {
            Command::Up(arguments) => up(dir, &arguments).await,
            Command::Chain(arguments) => chain(&dir, &arguments).await,
            Command::Market { command: Market::Serve { port, control_port } } => {
                serve_market(&dir, port, control_port).await
            }
            Command::Market { command } => play_market(&dir, command).await,
            Command::Status => show_status(&dir).await,
        }
        .map_err(Failure::runtime)
    }))
}

async fn up(directory: PathBuf, arguments: &Up) -> anyhow::Result<()> {
    let mut signals = Signals::of_process()?;
    let binaries = Binaries::beside_this_process()?;
    let options = Options {
        directory,
        fresh: arguments.fresh,
        miners: arguments.miners,
        workers: arguments.workers,
        block_time: Duration::from_millis(arguments.block_time_ms),
        validator_set: arguments.validator_set.clone(),
        ..Options::default()
    };
    // A start that is interrupted ends the daemons that it had started.
    let mut network = tokio::select! {
        started = Network::start(&options, &binaries) => started?,
        signal = signals.next() => anyhow::bail!("{signal} while the network was starting"),
    };
    eprintln!("network in {}, logs in {}", network.directory().display(), network.directory().join("logs").display());
    let ended = tokio::select! {
        result = show(&mut network, arguments) => result,
        signal = signals.next() => {
            eprintln!("{signal}: stopping");
            if arguments.until_weights { Err(anyhow::anyhow!("interrupted before the weights came")) } else { Ok(()) }
        }
    };
    // A second signal kills the daemons instead of waiting for them.
    tokio::select! {
        () = network.stop() => {}
        _ = signals.next() => {}
    }
    ended
}

async fn show(network: &mut Network, arguments: &Up) -> anyhow::Result<()> {
    let mut display = Display::new();
    if !arguments.until_weights {
        return Err(network.watch(&mut display).await.into());
    }
    let outcome = network.until_weights(Duration::from_secs(arguments.timeout_s), &mut display).await?;
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?)
}

async fn chain(directory: &Path, arguments: &Chain) -> anyhow::Result<()> {
    let mut signals = Signals::of_process()?;
    let options = byteleap_devchain::Options {
        listen: Some(([127, 0, 0, 1], arguments.port).into()),
        pace: Pace::Every(Duration::from_millis(arguments.block_time_ms)),
        dev_methods: arguments.dev_methods,
        old_shape: arguments.old_shape,
        file: arguments.state.clone(),
    };
    let (chain, keys) = match &arguments.genesis {
        Some(file) => (DevChain::start(Genesis::read(file)?, options).await?, file.clone()),
        None => (network::chain_alone(directory, arguments.miners, options).await?, directory.join("wallets")),
    };
    eprintln!("development chain on {}, keys in {}", chain.url().unwrap_or_default(), keys.display());
    signals.next().await;
    chain.stop().await;
    Ok(())
}

async fn play_market(directory: &Path, command: Market) -> anyhow::Result<()> {
    let plan = status::running(directory)?.context("no network runs here: start one with `byteleap-localnet up`")?;
    let order = match command {
        Market::Status => {
            let text = serde_json::to_string_pretty(&market::look(plan.market).await?)?;
            return Ok(writeln!(io::stdout(), "{text}")?);
        }
        Market::Lease { worker, score } => Order::Lease { worker, score },
        Market::End { worker } => Order::Lease { worker, score: 0.0 },
        Market::Forget { worker } => Order::Forget { worker },
        Market::Tokens { policy } => Order::Tokens(policy),
        Market::Config { keys } => Order::Config(sections(&keys)?),
        Market::Task { key, worker, ttl_ms } => {
            Order::Task(json!({ "taskKey": key, "workerKey": worker, "taskType": "vm_creation", "ttl": ttl_ms }))
        }
        Market::Misbehave { how } => Order::Misbehave(how),
        Market::Down => Order::Down,
        Market::Up | Market::Serve { .. } => Order::Up,
    };
    Ok(market::tell(plan.market, &order).await?)
}

/// `a.b=1` as `{"a": {"b": 1}}`.
fn sections(keys: &[String]) -> anyhow::Result<Value> {
    let mut payload = json!({});
    for key in keys {
        let (name, text) = key.split_once('=').with_context(|| format!("{key}: write KEY=VALUE"))?;
        let mut place = &mut payload;
        for part in name.split('.') {
            anyhow::ensure!(place.is_object() || place.is_null(), "{name}: a key and a section at once");
            place = &mut place[part];
        }
        *place = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    }
    Ok(payload)
}

async fn serve_market(directory: &Path, port: u16, control_port: u16) -> anyhow::Result<()> {
    let mut signals = Signals::of_process()?;
    let options = market::Options { folder: directory.join("market"), port, control_port };
    let market = Marketplace::start(&options).await?;
    eprintln!("marketplace on {}, commands on http://{}", market.url(), market.control());
    signals.next().await;
    Ok(())
}

async fn show_status(directory: &Path) -> anyhow::Result<()> {
    let status = Status::of(directory).await?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&status)?)?;
    Ok(())
}
