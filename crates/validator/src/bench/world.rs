//! The validator that is measured: the whole service, as a process of its own, over a chain in memory that knows the
//! miners of the bench.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::FixedChain;
use byteleap_daemon::admin;
use byteleap_daemon::cli::{self, Failure};
use byteleap_daemon::clock::SystemClock;
use byteleap_daemon::config::{Config, Sources};
use byteleap_daemon::tasks::{Signals, TaskError, Tasks};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::config::{KEYS, LiveSettings, Settings};
use crate::service::{self, DRAIN_DEADLINE, World};

/// The subnet of the bench.
const NETUID: u16 = 1;
/// Ticks of processor time in a second, on every architecture that we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A validator for `bench heartbeats`, here or, by `--url`, on another machine.
#[derive(Debug, Clone, Args)]
pub struct WorldArgs {
    /// Database, as in `database.url`.
    #[arg(long)]
    database: String,
    /// Miners of the bench that it knows.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    miners: u16,
    /// Address of the axon; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Seconds between two challenges of a worker.
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    challenge_period_s: u32,
}

/// Where it can be reached: the line that it prints when it serves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) axon: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// The keys of a miner of the bench, counted from 1; 0 is the validator.
pub(super) fn keypair(number: u16) -> Keypair {
    let mut seed = [0xbe; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Keypair::from_seed(&seed)
}

/// The hotkey of the validator of the bench.
pub(super) fn validator() -> Hotkey {
    keypair(0).hotkey()
}

/// Serves until a signal comes.
pub(super) fn serve(arguments: &WorldArgs) -> Result<(), Failure> {
    let settings = [
        format!("netuid={NETUID}"),
        "wallet.name=bench".to_owned(),
        "wallet.hotkey=bench".to_owned(),
        format!("axon.host={}", arguments.listen.ip()),
        format!("port={}", arguments.listen.port()),
        "http.listen=127.0.0.1:0".to_owned(),
        format!("database.url={}", arguments.database),
        "metagraph.weight_update_tempo=0".to_owned(),
        "security.rate_limit.max_requests=1000000".to_owned(),
        "validation.challenge_type=cpu_matrix".to_owned(),
        format!("validation.challenge_interval={}", arguments.challenge_period_s),
    ];
    let config = Config::load(KEYS, &Sources { arguments: settings.to_vec(), ..Sources::default() })?;
    let settings = Settings::read(&config)?;
    let hotkeys: Vec<Hotkey> = (0..=arguments.miners).map(|number| keypair(number).hotkey()).collect();
    let metrics = admin::record_metrics()?;
    cli::block_on(async move {
        let (signals, tasks) = (Signals::of_process()?, Tasks::new());
        let world = World {
            chain: Arc::new(FixedChain::of(NETUID, &hotkeys)),
            signer: Arc::new(keypair(0)),
            clock: Arc::new(SystemClock::new()),
            metrics,
            remote: None,
        };
        let addresses = service::start(&settings, &LiveSettings::of(&settings), world, &tasks).await?;
        let served = Served { axon: addresses.axon, admin: addresses.admin };
        writeln!(io::stdout(), "{}", serde_json::to_string(&served)?)?;
        Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
    })
}

/// A validator in a process of its own, on a temporary SQLite file; gone when this is dropped.
#[derive(Debug)]
pub(super) struct OwnValidator {
    pub(super) served: Served,
    child: Child,
    pid: u32,
    _folder: tempfile::TempDir,
}

impl OwnValidator {
    pub(super) async fn start(miners: u16, challenge_period_s: u32) -> Result<Self, TaskError> {
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "validator", "--database"])
            .arg(format!("sqlite:///{}", folder.path().join("validator.db").display()))
            .args(["--miners", &miners.to_string(), "--challenge-period-s", &challenge_period_s.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("the validator has no output")?;
        let line = BufReader::new(output).lines().next_line().await?.ok_or("the validator did not start")?;
        let pid = child.id().ok_or("the validator did not start")?;
        Ok(Self { served: serde_json::from_str(&line)?, child, pid, _folder: folder })
    }

    /// Its resident memory, in MiB.
    pub(super) fn rss_mb(&self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| io::Error::other("the validator has ended"))
    }

    /// The processor time that it has used.
    pub(super) fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name of the program, in parentheses, may hold anything.
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = behind_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
    }

    /// Ends it.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
