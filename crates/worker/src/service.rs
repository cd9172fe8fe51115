//! Builds the worker's parts and runs them until the process ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use byteleap_compute::engine::GpuEngine;
use byteleap_compute::engine::software::SoftwareEngine;
use byteleap_daemon::admin::{Admin, Pages, Readiness, Status, record_metrics};
use byteleap_daemon::cli::Failure;
use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_daemon::drain;
use byteleap_daemon::tasks::{self, Signals, Tasks};
use byteleap_host::{coldkey, identity};
use byteleap_protocol::Object;
use byteleap_protocol::feedback::Relayed;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::join::CertificateFingerprint;
use byteleap_protocol::worker_key::{WorkerKey, WorkerSecret};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::challenge::cache::ResultCache;
use crate::challenge::run::{Limits, Runner};
use crate::config::{GpuEngineSettings, Settings};
use crate::gpu::vendor::{self, VendorServer};
use crate::gpu::{self, Gpus, Watcher};
use crate::host;
use crate::link::told::LastRelayed;
use crate::link::{Identity, Link, LinkState, Timing, dial, key};
use crate::outbox::Outbox;
use crate::status;

/// How long a stop may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long `check` waits for the miner.
const CHECK_DEADLINE: Duration = Duration::from_secs(10);

/// Why the worker has no identity.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error(transparent)]
    Unkept(#[from] identity::Error),
    #[error("the identity in {} is unusable ({reason}): remove the file, or set the key worker_id", path.display())]
    Unusable { path: PathBuf, reason: String },
}

/// Runs the worker on the machine under `root`, beside what `tasks` holds already, until a signal or a failure.
///
/// # Errors
/// It could not start, a part failed, or the stop took too long.
pub async fn run(settings: Settings, root: &Path, tasks: Tasks, signals: Signals) -> Result<(), Failure> {
    warn_of_what_is_missing(&settings);
    refuse_coldkeys(root).await.map_err(Failure::runtime)?;
    let worker_id = worker_id(&settings, root).await?;
    let secret = Arc::new(worker_secret(&settings).await?);
    let public_key = secret.public();
    tracing::info!(%worker_id, %public_key, version = env!("CARGO_PKG_VERSION"), "worker starts");
    let admin = Admin::bind(settings.http_listen).await?;
    let metrics = record_metrics()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let readiness = Readiness::new();
    let (system_info, sampler) = host::sampler(root, settings.heartbeat_interval).await;
    let (cache, outbox) = (results(&settings, &*clock).await, Arc::new(Outbox::default()));
    let limits = Limits {
        max_concurrent_tasks: settings.max_concurrent_tasks,
        default_task_timeout: settings.default_task_timeout,
    };
    let (gpus, gpu_parts) = gpus(&settings, &clock).await?;
    let runner = Runner::new(limits, clock.clone(), cache.clone(), gpus.clone(), outbox.clone());
    let (state, link_state) = watch::channel(LinkState::Away { reason: "not connected yet".to_owned() });
    let told = LastRelayed::default();
    let link = Link {
        identity: Identity {
            worker_id: worker_id.clone(),
            worker_name: settings.worker_name.clone(),
            secret,
            state_dir: settings.state_dir.clone(),
        },
        url: settings.miner_url.clone(),
        pinned: settings.miner_fingerprint,
        timing: Timing::new(
            settings.reconnect_interval,
            settings.heartbeat_interval,
            settings.ping_interval,
            settings.ping_timeout,
        ),
        runner: runner.clone(),
        cache,
        gpus: gpus.clone(),
        outbox: outbox.clone(),
        system_info,
        clock: clock.clone(),
        told: told.clone(),
        state,
        gate: readiness.gate("miner", "not connected yet"),
    };
    let shown = Shown {
        worker_id,
        public_key,
        worker_name: settings.worker_name.clone(),
        miner_url: settings.miner_url.to_string(),
        miner_fingerprint: settings.miner_fingerprint,
        link: link_state,
        system_info: link.system_info.clone(),
        runner: runner.clone(),
        gpus,
        outbox,
        told,
    };
    let status = Status::new(move || std::future::ready(json!(shown.status())));
    let watched = runner.clone();
    let routes = drain::routes(runner.drain(), move || watched.under_way());
    let pages = Pages { readiness, metrics, status, routes };

    tasks.service("admin", |stop| admin.serve(pages, stop));
    tasks.service("host", |stop| sampler.run(stop));
    tasks.service("challenges", |stop| runner.run(stop));
    tasks.service("link", |stop| link.run(stop));
    if let Some(watcher) = gpu_parts.watcher {
        tasks.service("gpus", |stop| watcher.run(stop));
    }
    let ended = tasks.run(signals, DRAIN_DEADLINE).await;
    if let Some(server) = gpu_parts.server {
        server.stop().await;
    }
    Ok(ended?)
}

/// What belongs to the GPUs and runs beside them.
#[derive(Default)]
struct GpuParts {
    watcher: Option<Watcher>,
    /// Ended with the worker, if the worker started it.
    server: Option<Arc<VendorServer>>,
}

/// The GPUs of the configured engine.
async fn gpus(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<(Gpus, GpuParts), Failure> {
    let (engine, server): (Arc<dyn GpuEngine>, _) = match &settings.gpu {
        None => return Ok((Gpus::none(), GpuParts::default())),
        Some(GpuEngineSettings::Software { gpus }) => {
            let (state_dir, gpus) = (settings.state_dir.clone(), *gpus);
            let signer = tokio::task::spawn_blocking(move || gpu::key::load_or_create(&state_dir)).await??;
            (Arc::new(SoftwareEngine::new(signer, gpus)), None)
        }
        Some(GpuEngineSettings::Vendor(place)) => {
            let server = VendorServer::new(place.clone(), vendor::Timing::default(), Handle::current());
            let server = Arc::new(server);
            (server.clone(), Some(server))
        }
    };
    let (gpus, watcher) = Gpus::of(engine, clock.clone());
    Ok((gpus, GpuParts { watcher: Some(watcher), server }))
}

/// Checks what surrounds the worker: its identity, and that a miner answers. All problems, for people.
pub async fn check(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(refuse_coldkeys(Path::new("/")).await.err());
    if settings.worker_id.is_none()
        && let Err(error) = identity::check(&settings.state_dir)
    {
        problems.push(tasks::chain(&error));
    }
    if let Err(error) = dial::dial(&settings.miner_url, settings.miner_fingerprint, CHECK_DEADLINE).await {
        problems.push(tasks::chain(&error));
    }
    problems
}

/// A worker runs other people's work as root: no coldkey may lie where it could be taken.
pub(crate) async fn refuse_coldkeys(root: &Path) -> Result<(), String> {
    let root = root.to_owned();
    let found =
        tokio::task::spawn_blocking(move || coldkey::readable(&root)).await.map_err(|error| error.to_string())?;
    let Some(first) = found.first() else { return Ok(()) };
    Err(format!(
        "{} coldkey(s) lie on this machine, as {}: move them off it, a worker needs none and never starts beside one",
        found.len(),
        first.display()
    ))
}

/// What a former file asks for and this version does not do.
fn warn_of_what_is_missing(settings: &Settings) {
    if settings.vmgw_enable {
        tracing::warn!("vmgw.enable is set, but virtual machines are not available in this version");
    }
}

/// The results that a former process left, and the place of new ones. Without a folder for them a crash costs the
/// challenges in flight, and nothing else.
async fn results(settings: &Settings, clock: &dyn Clock) -> ResultCache {
    let (state_dir, now) = (settings.state_dir.clone(), clock.monotonic());
    match tokio::task::spawn_blocking(move || ResultCache::open(&state_dir, now)).await {
        Ok(Ok(cache)) => return cache,
        Ok(Err(error)) => tracing::warn!(error = tasks::chain(&error), "results do not survive a crash"),
        Err(panic) => tracing::error!(error = %panic, "results do not survive a crash"),
    }
    ResultCache::default()
}

/// The key that proves this worker, made at the first start.
async fn worker_secret(settings: &Settings) -> Result<WorkerSecret, Failure> {
    let state_dir = settings.state_dir.clone();
    match tokio::task::spawn_blocking(move || key::load_or_create(&state_dir)).await {
        Ok(secret) => Ok(secret?),
        Err(panic) => Err(Failure::runtime(panic)),
    }
}

/// The configured identity, else the kept one, made at the first start.
async fn worker_id(settings: &Settings, root: &Path) -> Result<WorkerId, IdentityError> {
    if let Some(worker_id) = &settings.worker_id {
        return Ok(worker_id.clone());
    }
    let (state_dir, root) = (settings.state_dir.clone(), root.to_owned());
    let path = state_dir.join(identity::FILE_NAME);
    let unusable = |reason: String| IdentityError::Unusable { path, reason };
    let text = match tokio::task::spawn_blocking(move || identity::load_or_create(&state_dir, &root)).await {
        Ok(text) => text?,
        Err(panic) => return Err(unusable(panic.to_string())),
    };
    WorkerId::new(&text).map_err(|error| unusable(error.to_string()))
}

/// What `/status` is made of.
struct Shown {
    worker_id: WorkerId,
    public_key: WorkerKey,
    worker_name: Option<String>,
    miner_url: String,
    miner_fingerprint: Option<CertificateFingerprint>,
    link: watch::Receiver<LinkState>,
    system_info: watch::Receiver<Object>,
    runner: Runner,
    gpus: Gpus,
    outbox: Arc<Outbox>,
    told: LastRelayed,
}

impl Shown {
    fn status(&self) -> status::Status {
        let connection = status::Connection::from(&*self.link.borrow());
        let (draining, tasks) = (self.runner.drain().is_on(), self.runner.held_tasks());
        let last_challenge = self.runner.record().last();
        let Relayed { idle_because: miner_says, validators } = self.told.get();
        let sample = self.system_info.borrow();
        let number = |name: &str| sample.get(name).and_then(Value::as_u64).unwrap_or_default();
        status::Status {
            worker_id: self.worker_id.clone(),
            public_key: self.public_key,
            worker_name: self.worker_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            miner_url: self.miner_url.clone(),
            miner_fingerprint: self.miner_fingerprint,
            idle_because: status::idle_because(&connection, draining, &tasks, miner_says, last_challenge.as_ref()),
            validators,
            connection,
            draining,
            host: status::Host { cpus: number("cpu_count"), memory_mib: number("memory_total") },
            gpu: self.gpus.status(),
            capabilities: self.gpus.capabilities(),
            tasks,
            unsent_results: self.outbox.len(),
            last_challenge,
        }
    }
}
