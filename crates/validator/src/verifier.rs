//! `byteleap-validator verifier`: a process that only judges proofs, so that more machines carry the load.
//!
//! It holds no state and speaks to no miner: it claims proofs from the queue in the validator's database, judges them, and
//! writes the verdicts (see [`crate::challenge::verify`]). Any number may run; each may be killed at any time. Several
//! processes share a database only where a server keeps it, so a SQLite file is refused. The tables are the validator's:
//! this process makes none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use byteleap_daemon::admin::{Admin, BindError, Gate, Pages, Readiness, Status};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::tasks::Tasks;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::challenge::verify::Verifier;
use crate::config::{LiveSettings, Settings};
use crate::service::{RESTART_PAUSE, endless};
use crate::store::{DatabaseUrl, Engine, Store, StoreError};

/// Longest pause between looks at an empty queue: nobody tells this process that a proof has arrived.
const LONGEST_IDLE: Duration = Duration::from_millis(500);
/// Pause between looks at our own health.
const HEALTH_PAUSE: Duration = Duration::from_secs(10);

/// Why a verifier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database is a file.
    #[error(
        "{0} is a file, which serves one validator on one machine; PostgreSQL carries the queue of proofs beyond it: set \
         database.url to postgresql://user:password@host/name here and at the validator (scripts/setup_database.sh makes \
         that database)"
    )]
    File(DatabaseUrl),
    /// The database cannot be used.
    #[error("the database cannot be used; check database.url")]
    Database(#[from] StoreError),
    /// The tables are not there or not those of this version.
    #[error(
        "{0} schema step(s) have not run in this database: start the validator of this version first, it runs them"
    )]
    Schema(usize),
    /// The admin port is taken.
    #[error(transparent)]
    Admin(#[from] BindError),
}

/// Starts the verifier on `tasks` and returns its admin address; the caller then runs them.
///
/// # Errors
/// What would keep it from its work: see [`StartError`].
pub async fn start(
    settings: &Settings,
    live: &LiveSettings,
    clock: Arc<dyn Clock>,
    metrics: PrometheusHandle,
    tasks: &Tasks,
) -> Result<SocketAddr, StartError> {
    let url = &settings.database;
    if url.engine() == Engine::Sqlite {
        return Err(StartError::File(url.clone()));
    }
    let store = Store::open(url).await?;
    let pending = store.migrate_status().await?.iter().filter(|step| step.is_pending()).count();
    if pending > 0 {
        return Err(StartError::Schema(pending));
    }
    let name = format!("verifier-{}", Uuid::new_v4());
    let verifier = Verifier::new(
        store.clone(),
        Arc::clone(&clock),
        Arc::new(Notify::new()),
        name.clone(),
        live.verification.clone(),
        live.challenge.clone(),
    )
    .idle_at_most(LONGEST_IDLE);
    tasks.restarting("verifier", RESTART_PAUSE, move |stop| verifier.clone().run(stop));

    let admin = Admin::bind(settings.admin).await?;
    let address = admin.address();
    let readiness = Readiness::new();
    let database = readiness.gate("database", "not looked at yet");
    let health = watch(store.clone(), database, tasks.stop_token());
    tasks.service("health", |_| endless(health));
    let status = Status::new({
        let (store, name) = (store, name.clone());
        move || status(store.clone(), name.clone(), Arc::clone(&clock))
    });
    let pages = Pages { readiness, metrics, status, routes: Router::new() };
    tasks.service("admin", |stop| admin.serve(pages, stop));
    tracing::info!(name, database = %url, threads = settings.verification.concurrency, admin = %address, "verifier started");
    Ok(address)
}

/// Keeps `/readyz` true to whether the database answers.
async fn watch(store: Store, database: Gate, stop: CancellationToken) {
    loop {
        match store.ping().await {
            Ok(()) => database.open(),
            Err(_) => database.close("the database does not answer"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HEALTH_PAUSE) => {}
        }
    }
}

async fn status(store: Store, name: String, clock: Arc<dyn Clock>) -> Value {
    let now_ms = clock.unix_ms();
    match store.verification_queue(now_ms).await {
        Ok(queue) => json!({
            "name": name,
            "waiting": queue.waiting,
            "claimed": queue.claimed,
            "oldest_age_ms": queue.oldest_at_ms.map(|at_ms| now_ms - at_ms),
        }),
        Err(error) => json!({ "name": name, "error": error.to_string() }),
    }
}
