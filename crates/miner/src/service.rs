//! Builds the miner from its settings and runs its parts until the process stops.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use byteleap_chain::{Chain, ChainError};
use byteleap_daemon::{
    admin::{Admin, BindError, Pages, Readiness, Status as StatusPage},
    clock::Clock,
    drain::{self, Drain},
    tasks::Tasks,
};
use byteleap_protocol::hotkey::{Hotkey, Signer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    relay::{flow::Relay, heartbeat::Heartbeat, hops::Record, logbook::Logbook, poll::Poll, token, told::Answers},
    status::Status,
    validators::{Blacklist, Validators},
    workers::{
        connection::{Desk, PULSE},
        door::Door,
        enrolment::{BookFile, BookFileError},
        listen::{self, Port},
        registry::Registry,
        tls::{self, Certificate, CertificateError},
    },
};

/// How long challenges under way may finish after the stop, while workers stay connected.
const FLOW_DRAIN: Duration = Duration::from_secs(10);

/// How long the process may take from a signal to its end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Token requests that wait to be served.
const TOKEN_REQUESTS: usize = 64;

/// What the miner gets from outside: the world in a daemon, stand-ins in a test.
#[expect(missing_debug_implementations, reason = "a chain and a signer need not be printable")]
pub struct World {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// Signs as the miner's hotkey.
    pub signer: Arc<dyn Signer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Renders the metrics of this process.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
}

/// Where the miner can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// By workers.
    pub workers: SocketAddr,
    /// By operators.
    pub admin: SocketAddr,
}

/// Why the miner cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hotkey does not take part in the subnet.
    #[error(
        "hotkey {hotkey} is not registered on subnet {netuid}: register it (btcli subnet register --netuid {netuid}), \
         or name a registered one by wallet.name and wallet.hotkey"
    )]
    NotRegistered {
        /// The hotkey.
        hotkey: Hotkey,
        /// The subnet.
        netuid: u16,
    },
    /// The chain gives no answer.
    #[error("the chain cannot be asked; check subtensor.network")]
    Chain(#[from] ChainError),
    /// The workers' port is taken.
    #[error("workers cannot be served on {host}:{port}; check worker_management.host and worker_management.port")]
    Listen {
        /// `worker_management.host`.
        host: String,
        /// `worker_management.port`.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The admin port is taken.
    #[error(transparent)]
    Admin(#[from] BindError),
    /// The workers' port has no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Nobody could tell an enrolled worker from a stranger.
    #[error(transparent)]
    Enrolment(#[from] BookFileError),
    /// No HTTP client can be made.
    #[error("the HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// The uid of a hotkey that takes part in the subnet.
///
/// # Errors
/// It does not, or the chain gives no answer.
async fn registered_uid(chain: &dyn Chain, netuid: u16, hotkey: Hotkey) -> Result<u16, StartError> {
    chain.uid(netuid, &hotkey).await?.ok_or(StartError::NotRegistered { hotkey, netuid })
}

/// Starts every part on `tasks`; the caller then runs them.
///
/// # Errors
/// What would keep the miner from its work: see [`StartError`].
pub async fn start(settings: &Settings, world: World, tasks: &Tasks) -> Result<Addresses, StartError> {
    let World { chain, signer, clock, metrics } = world;
    let own = signer.hotkey();
    let uid = registered_uid(&*chain, settings.netuid, own).await?;
    let certificate = match settings.tls_mode {
        tls::Mode::Off => None,
        tls::Mode::On | tls::Mode::Required => Some(Certificate::open(&settings.certificate)?),
    };
    let fingerprint = certificate.as_ref().map(|certificate| certificate.fingerprint);
    let (listener, workers) = bind(&settings.listen).await?;
    let admin = Admin::bind(settings.admin).await?;

    let registry = Registry::new(settings.max_workers, Arc::clone(&clock));
    let door_clock = Arc::clone(&clock);
    let blacklist = Blacklist::new(settings.blacklist_threshold, settings.blacklist_ttl);
    let validators =
        Validators::new(chain, settings.netuid, settings.policy.clone(), blacklist, signer, Arc::clone(&clock))?;
    validators.refresh().await?;

    let (tokens, token_requests) = mpsc::channel(TOKEN_REQUESTS);
    let (drain, record, answers) = (Drain::default(), Record::default(), Answers::default());
    let relay = Relay {
        logbook: Logbook::open(&settings.state_dir, own).await,
        record: record.clone(),
        clock: Arc::clone(&clock),
    };
    let poll = Poll::new(validators.clone(), registry.clone(), relay, settings.task_poll_interval, drain.clone());
    poll.resume().await;
    let heartbeat = Heartbeat::new(validators.clone(), registry.clone(), clock, own, answers.clone(), drain.clone());
    let workers_stop = CancellationToken::new();

    let door = Door::open(settings.auth, BookFile::in_directory(&settings.state_dir), door_clock)?;
    let desk = Desk {
        registry: registry.clone(),
        door: door.clone(),
        tokens_to_anyone: settings.tokens_to_anyone,
        pulse: PULSE,
        tokens,
    };
    let tls = certificate.map(|certificate| certificate.acceptor());
    let port = Port { listener, tls, is_plain_served: settings.tls_mode != tls::Mode::Required };
    tasks.service("workers", |_| endless(listen::serve(port, desk, workers_stop.clone())));
    tasks.service("enrolment", |stop| endless(door.watch(registry.clone(), stop)));
    let (timeout, pause) = (settings.silence_timeout, settings.silence_check_interval);
    let guarded = registry.clone();
    tasks.service("silence", |stop| endless(async move { guarded.guard_against_silence(timeout, pause, stop).await }));
    tasks.service("validators", |stop| endless(validators.clone().keep_fresh(settings.sync_interval, stop)));
    tasks.service("heartbeat", |stop| endless(heartbeat.run(settings.heartbeat_interval, stop)));
    tasks.service("tokens", |stop| endless(token::run(validators.clone(), token_requests, stop)));
    let watched = poll.clone();
    let routes = drain::routes(&drain, move || watched.under_way());
    // Workers stay connected until the challenges under way have ended; the guard sees to it on every path.
    let workers_stop = workers_stop.drop_guard();
    tasks.service("challenges", |stop| {
        endless(async move {
            let _workers_stop = workers_stop;
            let overtime = async {
                stop.cancelled().await;
                tokio::time::sleep(FLOW_DRAIN).await;
            };
            tokio::select! {
                () = poll.run(&stop) => {}
                () = overtime => tracing::warn!("challenges under way are abandoned"),
            }
        })
    });
    let addresses = Addresses { workers, admin: admin.address() };
    let state_dir = settings.state_dir.clone();
    let status = StatusPage::new(move || {
        let draining = drain.is_on();
        let collected =
            Status::collect(own, uid, workers, fingerprint, &registry, &validators, &record, &answers, draining);
        let status = Status { state_dir: Some(state_dir.clone()), ..collected };
        async move { serde_json::json!(status) }
    });
    let pages = Pages { readiness: Readiness::new(), metrics, status, routes };
    tasks.service("admin", |stop| admin.serve(pages, stop));
    tracing::info!(hotkey = %own, uid, netuid = settings.netuid, listen = %workers, "miner started");
    if let Some(fingerprint) = fingerprint {
        tracing::info!(%fingerprint, "workers may dial wss://, with this miner_fingerprint where the certificate is self-signed");
    }
    Ok(addresses)
}

async fn bind((host, port): &(String, u16)) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind((host.as_str(), *port)).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| StartError::Listen { host: host.clone(), port: *port, source })
}

/// A part that cannot fail.
///
/// # Errors
/// None.
pub async fn endless(part: impl Future<Output = ()>) -> Result<(), Infallible> {
    part.await;
    Ok(())
}
