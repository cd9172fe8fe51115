//! A running network: the chain in this process, the daemons as its children.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use byteleap_chain::{Chain as _, Hotkey, Subtensor, subtensor::EndpointError};
use byteleap_daemon::clock::{Clock as _, SystemClock};
use byteleap_devchain::{DevChain, Pace, StartError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{
    binaries::{Binaries, BinariesError},
    child::{self, Child, ChildError},
    directory::{Directory, DirectoryError},
    keys::{self, Keys, KeysError, NETUID, VALIDATOR_UID},
    market::{self, Marketplace},
    progress::{Progress, Stage},
    record::{Record, RecordError},
    settings::{self, Ports, World},
    table::Display,
};

/// Most miners and most workers of one network.
pub const MAX_DAEMONS: u16 = 64;
/// How often a wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often a start looks whether a daemon is reachable.
const LOOK_CLOSELY: Duration = Duration::from_millis(50);

/// What network to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds its state.
    pub directory: PathBuf,
    /// Whether to forget what the folder holds.
    pub fresh: bool,
    /// Number of miners, at least 1.
    pub miners: u16,
    /// Number of workers, dealt to the miners in turn.
    pub workers: u16,
    /// Time between two blocks.
    pub block_time: Duration,
    /// How long the start of a daemon waits for the one it dials to be reachable. Daemons find each other without it, but
    /// only after the pauses that they make between attempts.
    pub patience: Duration,
    /// Keys of the validator to set otherwise, each `key=value`.
    pub validator_set: Vec<String>,
}

impl Default for Options {
    /// One miner and two workers, in `.localnet`, a block a second.
    fn default() -> Self {
        Self {
            directory: PathBuf::from(".localnet"),
            fresh: false,
            miners: 1,
            workers: 2,
            block_time: Duration::from_secs(1),
            patience: Duration::from_secs(30),
            validator_set: Vec::new(),
        }
    }
}

/// Why a network does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The folder.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The daemons' executables.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// The wallets.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The development chain.
    #[error("the development chain does not start")]
    Chain(#[from] StartError),
    /// The chain's address.
    #[error("the development chain cannot be reached")]
    Endpoint(#[from] EndpointError),
    /// The marketplace.
    #[error(transparent)]
    Market(#[from] market::ServeError),
    /// A daemon.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The validator's database.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file of the network itself.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No free ports.
    #[error("no free ports on loopback")]
    Ports(#[source] io::Error),
    /// The numbers make no network.
    #[error("{0}")]
    Numbers(String),
    /// No daemon of the network has this name.
    #[error("there is no daemon {0}")]
    Unknown(String),
    /// The weights did not come in time.
    #[error(
        "no weights from a verified challenge within {} s: stage \"{missing}\" did not happen (suspects: {}); {seen}; logs: {logs}",
        timeout.as_secs(),
        missing.suspects()
    )]
    TimedOut {
        /// How long was waited.
        timeout: Duration,
        /// The first stage that did not happen.
        missing: Stage,
        /// What did.
        seen: String,
        /// Where the logs are.
        logs: PathBuf,
    },
}

/// What runs where: written to `network.json` in the folder, for the commands that look at a running network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Process id of the runner.
    pub pid: u32,
    /// When it started (Unix milliseconds).
    pub started_at_ms: i64,
    /// The chain's URL.
    pub chain_url: String,
    /// The subnet.
    pub netuid: u16,
    /// Where validators find the marketplace.
    pub market_url: String,
    /// Where the marketplace takes commands.
    pub market: SocketAddr,
    /// The validator's database.
    pub database: PathBuf,
    /// The daemons: the validator first, then miners, then workers.
    pub daemons: Vec<Daemon>,
}

/// One daemon of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Daemon {
    /// Its name: `validator`, `miner-1`, `worker-2`.
    pub name: String,
    /// Where it serves the network; `None` for a worker.
    pub service: Option<SocketAddr>,
    /// Its admin endpoint.
    pub admin: SocketAddr,
    /// Its hotkey; `None` for a worker.
    pub hotkey: Option<Hotkey>,
    /// For a worker, the name of its miner.
    pub miner: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

/// Weights on the chain, and the verified challenges that they came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Number of the challenges.
    pub challenges_verified: usize,
    /// Their ids.
    pub challenge_ids: Vec<String>,
    /// Miners of the network.
    pub miners: u16,
    /// The weights as the chain holds them, by uid.
    pub weights: Vec<(u16, u16)>,
    /// The block that took them.
    pub block: u64,
    /// Hash of the extrinsic, as `0x…`.
    pub extrinsic: String,
    /// Seconds from the start until they were read back.
    pub seconds: f64,
}

/// A running network. [`Self::stop`] ends it in order; dropping it kills the daemons.
#[derive(Debug)]
pub struct Network {
    plan: Plan,
    miners: u16,
    started: Instant,
    client: Subtensor,
    record: Record,
    // Dropped in this order: daemons, chain, then the lock of the folder.
    children: Vec<Child>,
    market: Marketplace,
    chain: DevChain,
    directory: Directory,
}

impl Network {
    /// Starts chain and daemons. Call it from the task that owns the network: where the system allows, the daemons end
    /// with the thread that started them.
    ///
    /// # Errors
    ///
    /// [`NetworkError`]: whatever is missing or in the way, with the remedy. What had been started is ended.
    pub async fn start(options: &Options, binaries: &Binaries) -> Result<Self, NetworkError> {
        let started = Instant::now();
        for (what, number) in [("miners", options.miners), ("workers", options.workers)] {
            if number == 0 || number > MAX_DAEMONS {
                return Err(NetworkError::Numbers(format!("{number} {what}: allowed are 1 to {MAX_DAEMONS}")));
            }
        }
        let directory = Directory::open(&options.directory, options.fresh)?;
        let keys = Keys::in_wallets(&directory.wallets(), options.miners)?;
        let chain = start_chain(&keys, SocketAddr::from(([127, 0, 0, 1], 0)), options.block_time).await?;
        let chain_url = chain.url().unwrap_or_default();
        let client = Subtensor::new(&[&chain_url], true)?;
        let folder = directory.anew_of_daemon("market")?;
        let market = Marketplace::start(&market::Options { folder, port: 0, control_port: 0 }).await?;

        let mut setup = Setup { directory: &directory, binaries, options, children: Vec::new(), daemons: Vec::new() };
        let ports =
            settings::free_ports(usize::from(1 + options.miners + options.workers)).map_err(NetworkError::Ports)?;
        let world = World {
            chain_url: chain_url.clone(),
            market_url: market.url(),
            wallets: directory.wallets(),
            workers: options.workers,
        };
        let started_at_ms = SystemClock::new().unix_ms();
        setup.start_all(&world, &keys, &ports).await?;
        let Setup { children, daemons, .. } = setup;

        let database = settings::database(&directory.of_daemon("validator")?);
        let plan = Plan {
            pid: std::process::id(),
            started_at_ms,
            chain_url,
            netuid: NETUID,
            market_url: market.url(),
            market: market.control(),
            database,
            daemons,
        };
        let record = Record::at(&plan.database);
        write(&directory.path().join("network.json"), &serde_json::json!(plan).to_string())?;
        Ok(Self { plan, miners: options.miners, started, client, record, children, market, chain, directory })
    }

    /// What runs where.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The folder of the network.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Since when it has been running.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Process ids of the daemons.
    #[must_use]
    pub fn daemon_ids(&self) -> Vec<(&str, u32)> {
        self.children.iter().filter_map(|child| Some((child.name(), child.id()?))).collect()
    }

    /// An error, with the end of its log, where a daemon has ended.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Child`].
    pub fn check(&mut self) -> Result<(), NetworkError> {
        Ok(self.children.iter_mut().try_for_each(Child::check)?)
    }

    /// How far a challenge has come.
    ///
    /// # Errors
    ///
    /// The validator's database cannot be read.
    pub async fn progress(&self) -> Result<Progress, NetworkError> {
        self.progress_since(self.plan.started_at_ms).await
    }

    /// How far a challenge has come that was written since `since_ms` (Unix milliseconds).
    ///
    /// # Errors
    ///
    /// The validator's database cannot be read.
    pub async fn progress_since(&self, since_ms: i64) -> Result<Progress, NetworkError> {
        Ok(progress(&self.client, &self.record, since_ms).await?)
    }

    /// How a daemon ended, if it has.
    ///
    /// # Errors
    ///
    /// There is no such daemon.
    pub fn end_of(&mut self, name: &str) -> Result<Option<ExitStatus>, NetworkError> {
        Ok(self.child(name)?.end())
    }

    /// Kills a daemon outright, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// There is no such daemon.
    pub async fn kill(&mut self, name: &str) -> Result<(), NetworkError> {
        self.child(name)?.kill().await;
        Ok(())
    }

    /// Starts a daemon that has ended again, as it was, with these environment variables besides.
    ///
    /// # Errors
    ///
    /// There is no such daemon, or it cannot be started.
    pub fn start_again(&mut self, name: &str, environment: &[(&str, &str)]) -> Result<(), NetworkError> {
        Ok(self.child(name)?.start_again(environment)?)
    }

    fn child(&mut self, name: &str) -> Result<&mut Child, NetworkError> {
        let unknown = || NetworkError::Unknown(name.to_owned());
        self.children.iter_mut().find(|child| child.name() == name).ok_or_else(unknown)
    }

    /// Shows how far a challenge has come, until a daemon ends or the validator's database cannot be read.
    pub async fn watch(&mut self, display: &mut Display) -> NetworkError {
        loop {
            let look = async {
                self.check()?;
                self.progress().await
            };
            match look.await {
                Ok(progress) => display.show(self, &progress).await,
                Err(error) => return error,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the chain holds weights that came from a verified challenge of this run.
    ///
    /// # Errors
    ///
    /// A daemon ended, or `timeout` passed since the start: the error names the first stage that did not happen.
    pub async fn until_weights(&mut self, timeout: Duration, display: &mut Display) -> Result<Outcome, NetworkError> {
        loop {
            self.check()?;
            let progress = self.progress().await?;
            display.show(self, &progress).await;
            if let Some(outcome) = self.outcome(&progress) {
                return Ok(outcome);
            }
            if let Some(missing) = progress.missing()
                && self.started.elapsed() >= timeout
            {
                return Err(NetworkError::TimedOut {
                    timeout,
                    missing,
                    seen: seen(&progress),
                    logs: self.directory.logs(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends the daemons, each kind after those that depend on it, so that a challenge under way is still proved: workers,
    /// miners, validator, and at last the chain.
    pub async fn stop(mut self) {
        let kinds = [usize::from(1 + self.miners), 1, 0];
        for first in kinds {
            let ending = self.children.split_off(first);
            ending.iter().for_each(Child::terminate);
            for child in ending {
                child.ended().await;
            }
        }
        drop(self.market);
        self.chain.stop().await;
    }

    fn outcome(&self, progress: &Progress) -> Option<Outcome> {
        let (submission, challenges) = progress.earned()?;
        Some(Outcome {
            challenges_verified: challenges.len(),
            challenge_ids: challenges.into_iter().map(str::to_owned).collect(),
            miners: self.miners,
            weights: progress.weights.clone(),
            block: submission.block,
            extrinsic: submission.extrinsic.clone(),
            seconds: (self.started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        })
    }
}

/// Starts the development chain of a folder's network without any daemon.
///
/// # Errors
///
/// The wallets cannot be made, or the port is taken.
pub async fn chain_alone(
    directory: &Path,
    miners: u16,
    options: byteleap_devchain::Options,
) -> Result<DevChain, NetworkError> {
    let keys = Keys::in_wallets(&directory.join("wallets"), miners)?;
    Ok(DevChain::start(keys.genesis(), options).await?)
}

/// Starts a development chain whose genesis knows these keys.
async fn start_chain(keys: &Keys, listen: SocketAddr, block_time: Duration) -> Result<DevChain, StartError> {
    let options = byteleap_devchain::Options {
        listen: Some(listen),
        pace: Pace::Every(block_time),
        ..byteleap_devchain::Options::default()
    };
    DevChain::start(keys.genesis(), options).await
}

/// What chain and record show now. A chain that does not answer at this moment shows nothing.
pub(crate) async fn progress(client: &Subtensor, record: &Record, since_ms: i64) -> Result<Progress, RecordError> {
    // The record comes first: weights that it knows of are on the chain by now.
    let facts = record.since(since_ms).await?;
    let block = client.head().await.map(|head| head.block).unwrap_or_default();
    let mut weights = client.weights(NETUID, VALIDATOR_UID).await.unwrap_or_default();
    weights.sort_unstable();
    Ok(Progress { block, weights, facts })
}

fn seen(progress: &Progress) -> String {
    let facts = &progress.facts;
    format!(
        "workers heard {}, challenges created {}, fetched {}, committed {}, proved {}, verified {}, failed {}, void {}",
        facts.workers_heard,
        facts.created,
        facts.sent,
        facts.committed,
        facts.proved,
        facts.verified.len(),
        facts.failed,
        facts.voided
    )
}

/// The daemons as they are being started.
struct Setup<'a> {
    directory: &'a Directory,
    binaries: &'a Binaries,
    options: &'a Options,
    children: Vec<Child>,
    daemons: Vec<Daemon>,
}

impl Setup<'_> {
    async fn start_all(&mut self, world: &World, keys: &Keys, ports: &[Ports]) -> Result<(), NetworkError> {
        let mut ports = ports.iter().copied();
        let mut next_ports = || ports.next().ok_or_else(|| NetworkError::Numbers("too few ports".to_owned()));

        let own = next_ports()?;
        // The chain lives in memory and begins anew at every start: a record of a former one would be of another world.
        let folder = self.directory.anew_of_daemon("validator")?;
        self.start(
            "validator",
            &self.binaries.validator(),
            &world.validator(&folder, own),
            &self.options.validator_set,
        )?;
        self.note("validator", own, Some(keys.validator), None);
        let axon = own.service;
        self.reachable(axon).await?;

        let mut miners = Vec::new();
        for (number, hotkey) in (1..).zip(&keys.miners) {
            let (name, own) = (keys::miner_name(number), next_ports()?);
            let folder = self.directory.of_daemon(&name)?;
            self.start(&name, &self.binaries.miner(), &world.miner(&name, &folder, own, (&keys.validator, axon)), &[])?;
            self.note(&name, own, Some(*hotkey), None);
            miners.push((name, own.service));
        }
        for (_, address) in &miners {
            self.reachable(*address).await?;
        }
        for (number, (miner, address)) in (1..=self.options.workers).zip(miners.iter().cycle()) {
            let (name, own) = (keys::worker_name(number), next_ports()?);
            let folder = self.directory.of_daemon(&name)?;
            let config = self.configure(&name, &settings::worker(&name, &folder, own, *address))?;
            self.join(&config, miner, *address).await?;
            self.launch(&name, &self.binaries.worker(), &config, &[])?;
            self.note(&name, own, None, Some(miner.clone()));
        }
        Ok(())
    }

    /// Waits until somebody listens at `address`, no longer than patience lasts.
    async fn reachable(&mut self, address: SocketAddr) -> Result<(), NetworkError> {
        let patience_ends = Instant::now() + self.options.patience;
        while Instant::now() < patience_ends && TcpStream::connect(address).await.is_err() {
            self.children.iter_mut().try_for_each(Child::check)?;
            tokio::time::sleep(LOOK_CLOSELY).await;
        }
        Ok(())
    }

    /// Writes the configuration and starts the daemon with it.
    fn start(&mut self, name: &str, binary: &Path, config: &Value, assignments: &[String]) -> Result<(), NetworkError> {
        let path = self.configure(name, config)?;
        self.launch(name, binary, &path, assignments)
    }

    /// Lets a worker take up an invitation of its miner, as an operator would: from then on it speaks wss:// and is known
    /// by its key.
    async fn join(&self, worker: &Path, miner: &str, address: SocketAddr) -> Result<(), NetworkError> {
        let (url, config) = (format!("wss://{address}"), self.directory.of_daemon(miner)?.join("config.yaml"));
        let invitation = ["--token", "--url", &url];
        let token = child::run(&self.binaries.miner(), "workers enroll", &invitation, &config).await?;
        child::run(&self.binaries.worker(), "join", &[&token], worker).await?;
        Ok(())
    }

    /// Writes a daemon's configuration.
    fn configure(&self, name: &str, config: &Value) -> Result<PathBuf, NetworkError> {
        let path = self.directory.of_daemon(name)?.join("config.yaml");
        // A JSON text is YAML; block style is for whoever opens the file.
        let text = serde_yaml::to_string(config).unwrap_or_else(|_| config.to_string());
        write(&path, &text)?;
        Ok(path)
    }

    fn launch(&mut self, name: &str, binary: &Path, config: &Path, assignments: &[String]) -> Result<(), NetworkError> {
        self.children.push(Child::start(name, binary, config, assignments, self.log(name))?);
        Ok(())
    }

    fn note(&mut self, name: &str, ports: Ports, hotkey: Option<Hotkey>, miner: Option<String>) {
        let service = hotkey.map(|_| ports.service);
        let log = self.log(name);
        self.daemons.push(Daemon { name: name.to_owned(), service, admin: ports.admin, hotkey, miner, log });
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.logs().join(format!("{name}.log"))
    }
}

fn write(path: &Path, text: &str) -> Result<(), NetworkError> {
    std::fs::write(path, text).map_err(|source| NetworkError::Write { path: path.to_owned(), source })
}
