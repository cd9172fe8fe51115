//! Builds the validator from its settings and runs its parts until the process stops.
//!
//! The order (validator spec 1.1, with its change): database and schema, what a former run left, the first metagraph,
//! the axon, and only then its address on chain and the loops. So nobody finds a validator that cannot serve yet.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::{Chain, ChainError};
use byteleap_daemon::admin::{Admin, BindError, Gate, Readiness};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_daemon::tasks::{self, Tasks};
use byteleap_protocol::hotkey::{Hotkey, Signer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admin::{self, StatusPage};
use crate::alarm::Alarms;
use crate::alarm::peers::PeerClocks;
use crate::alarm::watch::Watch;
use crate::alarm::webhook::{self, Sender};
use crate::api::Api;
use crate::api::token::TokenFile;
use crate::axon::Axon;
use crate::capture::Capture;
use crate::challenge::schedule::Scheduler;
use crate::challenge::verify::Verifier;
use crate::config::{LiveSettings, Settings};
use crate::desk::Desk;
use crate::feedback::Feedback;
use crate::market::lease;
use crate::market::link::{Link, Timing};
use crate::market::orders::Orders;
use crate::market::remote::Remote;
use crate::market::status::{Board, State};
use crate::market::tokens::{Issuing, Tokens};
use crate::metagraph::{Members, MetagraphCache};
use crate::score::{self, ScoredRound, Scorer};
use crate::store::queue::OWN_CLAIMS;
use crate::store::retention::{Forgotten, Kept};
use crate::store::{Store, StoreError};
use crate::weights::{self, Preparer};

/// How long the process may take from a signal to its end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long the first metagraph may take.
const FIRST_METAGRAPH: Duration = Duration::from_secs(120);
/// Pause between attempts at what the chain refused for now.
const CHAIN_RETRY: Duration = Duration::from_secs(5);
/// Pause between passes of the scheduler, which also sweeps deadlines.
const SCHEDULER_PAUSE: Duration = Duration::from_secs(2);
/// Pause before a part that failed starts again.
pub(crate) const RESTART_PAUSE: Duration = Duration::from_secs(10);
/// Pause between passes over what is too old.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);
/// Pause between looks at our own health.
const HEALTH_PAUSE: Duration = Duration::from_secs(10);
/// A miner or a card that was heard of within this time is online (validator spec 3.3).
const ONLINE_MS: i64 = 30 * 60_000;
/// A metagraph older than this is no ground to decide on.
const STALE_METAGRAPH_MS: i64 = 3 * 60_000;
/// The library version that is published with the axon.
const AXON_VERSION: u32 = byteleap_protocol::synapse::DENDRITE_VERSION;

/// What the validator gets from outside: the world in a daemon, stand-ins in a test.
#[expect(missing_debug_implementations, reason = "a chain and a signer need not be printable")]
pub struct World {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// Signs as the validator's hotkey.
    pub signer: Arc<dyn Signer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Renders the metrics of this process.
    pub metrics: PrometheusHandle,
    /// Lets the marketplace set keys; none: it may not.
    pub remote: Option<Remote>,
}

/// Where the validator can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// By miners.
    pub axon: SocketAddr,
    /// By operators.
    pub admin: SocketAddr,
}

/// Why the validator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database cannot be used.
    #[error("the database cannot be used; check database.url")]
    Database(#[from] StoreError),
    /// The chain gives no metagraph.
    #[error("the chain gave no metagraph within {} s; check subtensor.network and netuid", FIRST_METAGRAPH.as_secs())]
    Chain(#[source] ChainError),
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
    /// The axon's port is taken.
    #[error("miners cannot be served on {address}; check axon.host and port")]
    Axon {
        /// Where it should listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The admin port is taken.
    #[error(transparent)]
    Admin(#[from] BindError),
}

/// Opens the database and brings its tables up to date.
///
/// # Errors
/// It cannot be reached, or belongs to another version.
pub async fn open_store(settings: &Settings, clock: &dyn Clock) -> Result<Store, StoreError> {
    let store = Store::open(&settings.database).await?.with_gpu_ownership(settings.gpu_ownership);
    for step in store.migrate_up(clock.unix_ms()).await? {
        tracing::info!(step, "schema step applied");
    }
    Ok(store)
}

/// Starts every part on `tasks`; the caller then runs them.
///
/// # Errors
/// What would keep the validator from its work: see [`StartError`].
pub async fn start(
    settings: &Settings,
    live: &LiveSettings,
    world: World,
    tasks: &Tasks,
) -> Result<Addresses, StartError> {
    let World { chain, signer, clock, metrics, remote } = world;
    let (own, netuid) = (signer.hotkey(), settings.netuid);
    let store = open_store(settings, clock.as_ref()).await?;
    let voided = store.void_interrupted(clock.unix_ms()).await?;
    let released = store.release_own_claims().await?;
    tracing::info!(database = %settings.database, voided, released, "database open");

    let cache = MetagraphCache::new(Arc::clone(&chain), netuid, Arc::clone(&clock));
    let members = cache.members();
    first_metagraph(&cache).await.map_err(StartError::Chain)?;
    let uid = members.uid(&own).ok_or(StartError::NotRegistered { hotkey: own, netuid })?;
    let sync_interval = settings.sync_interval;
    tasks.service("metagraph", |stop| endless(cache.run(sync_interval, stop)));

    let (listener, axon) = bind(settings.axon).await?;
    let admin = Admin::bind(settings.admin).await?;
    let addresses = Addresses { axon, admin: admin.address() };
    let capture = Capture::new(&settings.log_dir, Arc::clone(&clock));
    let state = if settings.market.is_some() { State::Disconnected } else { State::Off };
    let shared = Shared {
        settings,
        live,
        store,
        chain,
        signer,
        members,
        peers: PeerClocks::default(),
        capture,
        newest_round: Live::from(None),
        marketplace: Board::new(state, clock.unix_ms()),
        remote,
        clock,
        tasks,
    };
    let tokens = shared.trade();
    shared.challenge(listener, axon.port(), tokens);
    shared.score();
    shared.forget();
    shared.back_up();
    let alarms = shared.alarms(own);
    let readiness = shared.readiness();
    let api = Api {
        store: shared.store.clone(),
        members: shared.members.clone(),
        clock: Arc::clone(&shared.clock),
        alarms: alarms.clone(),
        alarm_limits: live.alarms.clone(),
        challenge_rules: live.challenge.clone(),
        weights: shared.preparer(),
        lease_source: settings.lease_source,
        own,
        tokens: TokenFile::at(&settings.api_tokens),
    };
    let page = StatusPage {
        store: shared.store,
        members: shared.members,
        clock: shared.clock,
        alarms,
        marketplace: shared.marketplace,
        lease_source: settings.lease_source,
        remote: shared.remote,
        capture: shared.capture,
        own,
        uid,
        netuid,
    };
    let pages = admin::pages(page, &api, readiness, metrics, addresses.admin);
    tasks.service("admin", |stop| admin.serve(pages, stop));
    tracing::info!(hotkey = %own, uid, netuid, %axon, admin = %addresses.admin, "validator started");
    Ok(addresses)
}

/// What the parts are built from.
struct Shared<'a> {
    settings: &'a Settings,
    live: &'a LiveSettings,
    store: Store,
    chain: Arc<dyn Chain>,
    signer: Arc<dyn Signer>,
    clock: Arc<dyn Clock>,
    members: Members,
    peers: PeerClocks,
    capture: Capture,
    /// Left by scoring for whoever tells of it.
    newest_round: Live<Option<ScoredRound>>,
    marketplace: Board,
    remote: Option<Remote>,
    tasks: &'a Tasks,
}

impl Shared<'_> {
    /// The marketplace, and the ages of what it has leased; gives whoever issues enrolment tokens.
    fn trade(&self) -> Tokens {
        let Self { settings, live, store, signer, clock, marketplace, remote, tasks, .. } = self;
        let (watched, ages, now) = (store.clone(), live.lease_ages.clone(), Arc::clone(clock));
        tasks.service("leases", |stop| endless(lease::watch(watched, ages, now, stop)));
        let (by_hub, asked) = Tokens::by_hub();
        let tokens = match &settings.tokens {
            Issuing::Off => Tokens::off(),
            Issuing::Hub => by_hub,
            Issuing::Http { url, bearer } => Tokens::by_http(url.clone(), bearer.clone()),
        };
        let Some(hub) = settings.market.clone() else { return tokens };
        let orders = Orders {
            store: store.clone(),
            clock: Arc::clone(clock),
            leases: hub.leases,
            remote: remote.clone(),
            board: marketplace.clone(),
            unheard: Arc::default(),
        };
        let link = Link {
            settings: hub,
            timing: Timing::default(),
            own: signer.hotkey(),
            store: store.clone(),
            clock: Arc::clone(clock),
            orders,
            board: marketplace.clone(),
        };
        tasks.service("marketplace", |stop| endless(link.run(asked, stop)));
        tokens
    }

    /// Challenges, from the first row to the verdict, and the axon where they are answered.
    fn challenge(&self, listener: TcpListener, port: u16, tokens: Tokens) {
        let Self { settings, live, store, chain, signer, clock, members, peers, capture, newest_round, tasks, .. } =
            self;
        let (rules, proof_arrived) = (live.challenge.clone(), Arc::new(Notify::new()));
        let (limits, newest_round) = (live.alarms.clone(), newest_round.clone());
        let feedback = Feedback::new(store.clone(), Arc::clone(clock), rules.clone(), limits, newest_round);
        let desk = Desk::new(store.clone(), rules.clone(), Arc::clone(clock), Arc::clone(&proof_arrived));
        let desk = desk.telling(feedback).issuing(tokens);
        let axon = Axon::new(Arc::clone(signer), members.clone(), Arc::clone(clock), live.rate_limit.clone(), desk)
            .comparing(peers.clone())
            .captured_by(capture.clone())
            .without(settings.disabled_routes.clone());
        tasks.service("axon", |stop| axon.serve(listener, stop));
        let (chain, signer) = (Arc::clone(chain), Arc::clone(signer));
        let (netuid, external_ip) = (settings.netuid, settings.external_ip);
        tasks.job("axon address", |stop| endless(publish_axon(chain, netuid, external_ip, port, signer, stop)));
        let scheduler = Scheduler::new(store.clone(), rules, members.clone(), Arc::clone(clock));
        tasks.service("scheduler", |stop| endless(schedule(scheduler, stop)));
        let name = format!("{OWN_CLAIMS}{}", Uuid::new_v4());
        let verifier = Verifier::new(
            store.clone(),
            Arc::clone(clock),
            proof_arrived,
            name,
            live.verification.clone(),
            live.challenge.clone(),
        );
        tasks.restarting("verifier", RESTART_PAUSE, move |stop| verifier.clone().run(stop));
    }

    /// Rounds of scores, and the weights that follow from them.
    fn score(&self) {
        let Self { settings, live, store, chain, signer, clock, tasks, .. } = self;
        let scorer = Scorer {
            store: store.clone(),
            chain: Arc::clone(chain),
            netuid: settings.netuid,
            clock: Arc::clone(clock),
            rules: live.scoring.clone(),
        };
        let submitter = self.preparer().signed_by(Arc::clone(signer));
        let (interval, newest_round) = (settings.scoring_interval, self.newest_round.clone());
        tasks.service("scoring", |stop| endless(score::run(scorer, interval, newest_round, stop)));
        tasks.service("weights", |stop| endless(weights::run(submitter, stop)));
    }

    /// Makes the vectors of weights.
    fn preparer(&self) -> Preparer {
        Preparer {
            store: self.store.clone(),
            chain: Arc::clone(&self.chain),
            own: self.signer.hotkey(),
            clock: Arc::clone(&self.clock),
            netuid: self.settings.netuid,
            settings: self.settings.weights.clone(),
        }
    }

    /// Tables that stop growing.
    fn forget(&self) {
        let (store, kept, clock) = (self.store.clone(), self.live.kept.clone(), Arc::clone(&self.clock));
        self.tasks.service("retention", |stop| endless(forget(store, kept, clock, stop)));
    }

    /// Copies of the database.
    fn back_up(&self) {
        if let Some(schedule) = self.settings.backup.clone() {
            let (url, clock) = (self.settings.database.clone(), Arc::clone(&self.clock));
            self.tasks.service("backup", |stop| endless(schedule.run(url, clock, stop)));
        }
    }

    /// What a person must hear of.
    fn alarms(&self, own: Hotkey) -> Alarms {
        let Self { settings, live, store, clock, members, peers, marketplace, tasks, .. } = self;
        let sender = Sender { hotkey: own, netuid: settings.netuid };
        let (courier, deliveries) = webhook::courier(sender, live.alarms.clone());
        let alarms = Alarms::default();
        let database = settings.database.file().and_then(Path::parent).map(Path::to_owned);
        let watch = Watch {
            store: store.clone(),
            members: members.clone(),
            clock: Arc::clone(clock),
            own,
            tempo_blocks: settings.weights.tempo_blocks.filter(|_| !settings.weights.dry_run),
            started_at_ms: clock.unix_ms(),
            max_round_age: settings.weights.max_round_age,
            started_at_block: members.snapshot().map_or(0, |snapshot| snapshot.metagraph.block),
            folders: database.into_iter().chain([settings.log_dir.clone()]).collect(),
            peers: peers.clone(),
            marketplace: marketplace.clone(),
            limits: live.alarms.clone(),
            alarms: alarms.clone(),
            courier,
        };
        tasks.service("alarms", |stop| endless(watch.run(stop)));
        tasks.service("alarm messages", |stop| endless(deliveries.run(stop)));
        alarms
    }

    /// What `/readyz` tells.
    fn readiness(&self) -> Readiness {
        let readiness = Readiness::new();
        let health = Health {
            database: readiness.gate("database", "not looked at yet"),
            metagraph: readiness.gate("metagraph", "not looked at yet"),
            store: self.store.clone(),
            members: self.members.clone(),
            clock: Arc::clone(&self.clock),
        };
        self.tasks.service("health", |stop| endless(health.run(stop)));
        readiness
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bound.await.map_err(|source| StartError::Axon { address, source })
}

/// Reads the chain until it answers or the time is over.
async fn first_metagraph(cache: &MetagraphCache) -> Result<(), ChainError> {
    let deadline = tokio::time::Instant::now() + FIRST_METAGRAPH;
    loop {
        let error = match tokio::time::timeout_at(deadline, cache.refresh()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => return Err(ChainError::Unreachable("no answer".to_owned())),
        };
        tracing::warn!(%error, "no metagraph yet");
        if !error.is_temporary() || tokio::time::Instant::now() + CHAIN_RETRY >= deadline {
            return Err(error);
        }
        tokio::time::sleep(CHAIN_RETRY).await;
    }
}

/// Makes challenges and ends overdue ones until `stop`. A database that fails now is asked again at the next pass.
async fn schedule(scheduler: Scheduler, stop: CancellationToken) {
    loop {
        let pass = async {
            scheduler.sweep().await?;
            scheduler.pass().await
        };
        if let Err(error) = pass.await {
            tracing::error!(%error, "no challenges made: check the database");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SCHEDULER_PAUSE) => {}
        }
    }
}

/// Forgets what was kept long enough, now and every hour until `stop`.
async fn forget(store: Store, kept: Live<Kept>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    loop {
        match store.forget(*kept.get(), clock.unix_ms()).await {
            Ok(forgotten) => {
                for Forgotten { table, rows } in forgotten.into_iter().filter(|forgotten| forgotten.rows > 0) {
                    tracing::info!(table, rows, "old rows forgotten");
                    metrics::counter!("retention_rows_total", "table" => table).increment(rows);
                }
            }
            Err(error) => tracing::warn!(%error, "old rows not forgotten: tried again in an hour"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETENTION_PAUSE) => {}
        }
    }
}

/// Publishes where the axon is, until the chain has it. An address that nobody else can dial is not published.
async fn publish_axon(
    chain: Arc<dyn Chain>,
    netuid: u16,
    external_ip: Option<IpAddr>,
    port: u16,
    signer: Arc<dyn Signer>,
    stop: CancellationToken,
) {
    let Some(ip) = external_ip.filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) else {
        tracing::info!("no axon address published: miners need this validator on their whitelist (external_ip)");
        return;
    };
    let address = SocketAddr::new(ip, port);
    loop {
        match chain.serve_axon(netuid, address, AXON_VERSION, signer.as_ref()).await {
            Ok(receipt) => {
                tracing::info!(%address, block = receipt.map(|receipt| receipt.block), "axon address is on chain");
                return;
            }
            Err(error) => tracing::warn!(%address, error = tasks::chain(&error), "axon address not published yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}

/// What `/readyz` tells: whether the database answers and the metagraph is fresh.
struct Health {
    store: Store,
    members: Members,
    clock: Arc<dyn Clock>,
    database: Gate,
    metagraph: Gate,
}

impl Health {
    async fn run(self, stop: CancellationToken) {
        loop {
            let asked = self.clock.monotonic();
            match self.store.ping().await {
                Ok(()) => self.database.open(),
                Err(_) => self.database.close("the database does not answer"),
            }
            let answered_in = self.clock.monotonic().saturating_sub(asked);
            metrics::histogram!("database_ping_seconds").record(answered_in.as_secs_f64());
            if let Ok(bytes) = self.store.size_bytes().await {
                metrics::gauge!("database_size_bytes").set(bytes as f64);
            }
            if let Ok(Some(round)) = self.store.latest_round().await {
                let age_ms = self.clock.unix_ms() - round.at_ms;
                metrics::gauge!("scoring_round_age_seconds").set(age_ms as f64 / 1000.0);
            }
            if let Err(error) = self.count_network().await {
                tracing::debug!(%error, "metrics: the database does not tell");
            }
            let age_ms = self.members.snapshot().map(|snapshot| self.clock.unix_ms() - snapshot.at_ms);
            metrics::gauge!("metagraph_age_seconds").set(age_ms.unwrap_or(i64::MAX) as f64 / 1000.0);
            match age_ms {
                Some(age_ms) if age_ms < STALE_METAGRAPH_MS => self.metagraph.open(),
                _ => self.metagraph.close("the metagraph is older than 3 minutes"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(HEALTH_PAUSE) => {}
            }
        }
    }

    /// Gauges of what takes part.
    async fn count_network(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let workers = self.store.workers().await?;
        let online = workers.iter().filter(|worker| worker.deadline_at_ms >= now_ms).count();
        let lately_ms = now_ms - ONLINE_MS;
        metrics::gauge!("miners_known").set(self.store.miners_since(0).await? as f64);
        metrics::gauge!("miners_online").set(self.store.miners_since(lately_ms).await? as f64);
        metrics::gauge!("workers_known").set(workers.len() as f64);
        metrics::gauge!("workers_online").set(online as f64);
        metrics::gauge!("gpus_known").set(self.store.gpus_since(0).await? as f64);
        metrics::gauge!("gpus_online").set(self.store.gpus_since(lately_ms).await? as f64);
        for (status, count) in self.store.challenge_counts().await? {
            metrics::gauge!("challenges", "status" => status.as_str()).set(count as f64);
        }
        Ok(())
    }
}

/// A part that cannot fail.
///
/// # Errors
/// None.
pub async fn endless(part: impl Future<Output = ()>) -> Result<(), Infallible> {
    part.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use byteleap_chain::FixedChain;
    use byteleap_daemon::admin::get;
    use byteleap_daemon::clock::SystemClock;
    use byteleap_daemon::config::{Config, Sources};
    use byteleap_daemon::tasks::Signals;
    use byteleap_protocol::hotkey::Keypair;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::json;

    use super::*;
    use crate::config::KEYS;

    const NETUID: u16 = 128;

    fn settings(folder: &std::path::Path) -> Settings {
        let arguments = [
            "netuid=128".to_owned(),
            "wallet.name=validator".to_owned(),
            "wallet.hotkey=default".to_owned(),
            "axon.host=127.0.0.1".to_owned(),
            "port=0".to_owned(),
            "http.listen=127.0.0.1:0".to_owned(),
            format!("database.url=sqlite:///{}", folder.join("validator.db").display()),
        ];
        let sources = Sources { arguments: arguments.to_vec(), ..Sources::default() };
        Settings::read(&Config::load(KEYS, &sources).unwrap()).unwrap()
    }

    fn world(chain: FixedChain, signer: Keypair) -> World {
        World {
            chain: Arc::new(chain),
            signer: Arc::new(signer),
            clock: Arc::new(SystemClock::new()),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            remote: None,
        }
    }

    async fn started(folder: &Path, world: World, tasks: &Tasks) -> Result<Addresses, StartError> {
        let settings = settings(folder);
        start(&settings, &LiveSettings::of(&settings), world, tasks).await
    }

    #[tokio::test]
    async fn it_starts_shows_itself_takes_leases_and_drains() {
        let (folder, signer, tasks) = (tempfile::tempdir().unwrap(), Keypair::from_seed(&[5; 32]), Tasks::new());
        let chain = FixedChain::of(NETUID, &[signer.hotkey()]);
        let addresses = started(folder.path(), world(chain, signer.clone()), &tasks).await.unwrap();

        let lease = json!({ "hotkey": Hotkey([7; 32]), "worker_id": "w", "score": -2.5 });
        let leases = format!("http://{}/leases", addresses.admin);
        let post = async |body: String| {
            let request = reqwest::Client::new().post(&leases).header("content-type", "application/json").body(body);
            request.send().await.unwrap().status().as_u16()
        };
        assert_eq!(post(lease.to_string()).await, 200);
        for refused in
            [r#"{"hotkey":"5x","worker_id":"w","score":1}"#.to_owned(), lease.to_string().replace("-2.5", "NaN")]
        {
            assert!((400..500).contains(&post(refused).await));
        }
        let status = get(addresses.admin, "/status").await.unwrap();
        assert_eq!((&status["uid"], &status["metagraph"]["neurons"]), (&json!(0), &json!(1)));

        let (raise, signals) = Signals::manual();
        raise.send("SIGTERM").await.unwrap();
        tasks.run(signals, DRAIN_DEADLINE).await.unwrap();
        let store = Store::open(&settings(folder.path()).database).await.unwrap();
        assert_eq!(store.leases().await.unwrap()[0].score, 0.0, "a negative score counts as none");
    }

    #[tokio::test]
    async fn an_unregistered_hotkey_is_told_what_to_do() {
        let (folder, signer) = (tempfile::tempdir().unwrap(), Keypair::from_seed(&[5; 32]));
        let chain = FixedChain::of(NETUID, &[Hotkey([1; 32])]);
        let error = started(folder.path(), world(chain, signer), &Tasks::new()).await.unwrap_err();
        assert!(error.to_string().contains("btcli subnet register --netuid 128"), "{error}");
    }

    #[tokio::test]
    async fn an_address_that_nobody_can_dial_is_not_published() {
        let signer = Arc::new(Keypair::from_seed(&[5; 32]));
        let chain = Arc::new(FixedChain::of(NETUID, &[signer.hotkey()]));
        for (ip, published) in [(None, None), (Some("127.0.0.1"), None), (Some("192.0.2.1"), Some("192.0.2.1:9091"))] {
            let ip = ip.map(|ip| ip.parse().unwrap());
            publish_axon(chain.clone(), NETUID, ip, 9091, signer.clone(), CancellationToken::new()).await;
            let metagraph = chain.metagraph(NETUID).await.unwrap();
            assert_eq!(metagraph.neurons[0].axon, published.map(|address: &str| address.parse().unwrap()));
        }
    }
}
