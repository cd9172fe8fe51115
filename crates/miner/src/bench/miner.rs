//! The miner that is measured: the daemon's own parts, with a subnet in memory that holds nobody else.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use byteleap_chain::FixedChain;
use byteleap_daemon::{
    admin,
    cli::Failure,
    clock::SystemClock,
    config::{Config, Sources},
    tasks::{Signals, Tasks},
};
use byteleap_protocol::hotkey::{Keypair, Signer};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    config::{KEYS, Settings},
    service::{self, DRAIN_DEADLINE, World},
};

/// How the measured miner is set up.
#[derive(Debug, Clone, Args)]
pub struct MinerArgs {
    /// Settings over the defaults, as `section.key=value`; repeatable.
    #[arg(long = "with", value_name = "KEY=VALUE")]
    pub(super) with: Vec<String>,
}

/// What it tells at its start, as one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// Where workers dial.
    pub(super) workers: SocketAddr,
}

/// Runs it until its standard input ends, so that it never outlives whoever measures.
pub(super) async fn run(arguments: MinerArgs) -> Result<(), Failure> {
    let config = Config::load(KEYS, &Sources { arguments: arguments.with, ..Sources::default() })?;
    let settings = Settings::read(&config, None)?;
    let signer = Keypair::from_seed(&[7; 32]);
    let world = World {
        chain: Arc::new(FixedChain::of(settings.netuid, &[signer.hotkey()])),
        signer: Arc::new(signer),
        clock: Arc::new(SystemClock::new()),
        metrics: admin::record_metrics()?,
    };
    let tasks = Tasks::new();
    let started = Started { workers: service::start(&settings, world, &tasks).await?.workers };
    writeln!(io::stdout(), "{}", serde_json::to_string(&started)?)?;
    let (raise, signals) = Signals::manual();
    tokio::task::spawn_blocking(move || {
        let _ = io::stdin().read(&mut [0]);
        let _ = raise.blocking_send("the end of standard input");
    });
    Ok(tasks.run(signals, DRAIN_DEADLINE).await?)
}
