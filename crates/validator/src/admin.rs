//! What operators see and may do on the admin endpoint, besides what every daemon has there.
//!
//! `GET /status` tells what the validator holds. `POST /leases` sets the lease of one worker, for a marketplace on the
//! same machine: it exists only while the endpoint listens on loopback, and takes
//! `{"hotkey": "5…", "worker_id": "…", "score": 1.0}`; a score that is not finite is refused, a negative one counts as 0.
//! The HTTP API ([`crate::api`]) is served beside them. On loopback alone there is also `POST /capture` with `{"seconds": 60, "share": 0.1}`, and `DELETE /capture`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use byteleap_daemon::admin::{Pages, Readiness, Status};
use byteleap_daemon::clock::Clock;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::alarm::Alarms;
use crate::api::{self, Api};
use crate::capture::{Capture, CaptureError, Order};
use crate::market::LeaseSource;
use crate::market::remote::Remote;
use crate::market::status::Board;
use crate::metagraph::Members;
use crate::store::lease::LeaseScore;
use crate::store::{Store, StoreError};

/// Verified challenges that `/status` names.
const NAMED_CHALLENGES: i64 = 100;
/// The source of leases that came in here.
const SOURCE: &str = "admin";

/// What the status is made of.
#[derive(Debug, Clone)]
pub struct StatusPage {
    /// The facts.
    pub store: Store,
    /// The latest metagraph.
    pub members: Members,
    /// What is wrong.
    pub alarms: Alarms,
    /// The marketplace's connection.
    pub marketplace: Board,
    /// Whose leases count.
    pub lease_source: LeaseSource,
    /// What the marketplace has set otherwise.
    pub remote: Option<Remote>,
    /// The switch of the capture.
    pub capture: Capture,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Our hotkey.
    pub own: Hotkey,
    /// Our uid at the start.
    pub uid: u16,
    /// The subnet.
    pub netuid: u16,
}

/// The pages of the endpoint that listens on `listen`.
pub fn pages(
    page: StatusPage,
    api: &Api,
    readiness: Readiness,
    metrics: PrometheusHandle,
    listen: SocketAddr,
) -> Pages {
    let actions = page.clone();
    let status = Status::new(move || {
        let page = page.clone();
        async move { page.collect().await.unwrap_or_else(|error| json!({ "error": error.to_string() })) }
    });
    let routes = if listen.ip().is_loopback() {
        Router::new()
            .route("/leases", post(set_lease))
            .route("/capture", post(start_capture).delete(stop_capture))
            .with_state(actions)
    } else {
        Router::new()
    };
    Pages { readiness, metrics, status, routes: routes.merge(api::router(api)) }
}

impl StatusPage {
    async fn collect(&self) -> Result<Value, StoreError> {
        let now_ms = self.clock.unix_ms();
        let metagraph = self.members.snapshot().map(|snapshot| {
            json!({
                "block": snapshot.metagraph.block,
                "neurons": snapshot.metagraph.neurons.len(),
                "age_ms": now_ms - snapshot.at_ms,
            })
        });
        let leases = self.store.lease_ages().await?;
        let workers = self.store.workers().await?;
        let workers_online = workers.iter().filter(|worker| worker.deadline_at_ms >= now_ms).count();
        let challenges: serde_json::Map<String, Value> = self
            .store
            .challenge_counts()
            .await?
            .into_iter()
            .map(|(status, count)| (status.to_string(), count.into()))
            .collect();
        let last_round = self.store.latest_round().await?.map(|round| {
            json!({
                "round": round.key.0,
                "age_ms": now_ms - round.at_ms,
                "block": round.block,
                "outcome": round.outcome,
                "miners": round.miners,
                "workers": round.workers,
            })
        });
        let last_submission = self.store.last_submissions(1).await?.pop().map(|submission| {
            json!({
                "round": submission.round.0,
                "age_ms": now_ms - submission.at_ms,
                "block": submission.confirmed_block,
                "weights": submission.pairs(),
                "status": submission.status.to_string(),
                "reason": submission.reason,
                "extrinsic": submission.extrinsic,
            })
        });
        Ok(json!({
            "hotkey": self.own,
            "uid": self.uid,
            "netuid": self.netuid,
            "alarms": self.alarms.raised(),
            "marketplace": self.marketplace.get(),
            "leases": { "active": leases.active, "oldest_age_ms": leases.oldest_at_ms.map(|at_ms| now_ms - at_ms) },
            "set_by_marketplace": self.remote.as_ref().map(Remote::set_keys).unwrap_or_default(),
            "capture": self.capture.status(),
            "metagraph": metagraph,
            "miners": self.store.miners().await?.len(),
            "workers": workers.len(),
            "workers_online": workers_online,
            "challenges": challenges,
            "verified_challenge_ids": self.store.last_verified(NAMED_CHALLENGES).await?,
            "last_round": last_round,
            "last_submission": last_submission,
        }))
    }
}

/// The body of `POST /leases`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    hotkey: Hotkey,
    worker_id: WorkerId,
    score: f64,
}

async fn set_lease(State(page): State<StatusPage>, Json(lease): Json<Lease>) -> Response {
    if !page.lease_source.takes_api() {
        return (StatusCode::CONFLICT, "leases.source is meshhub: leases come from the marketplace alone\n")
            .into_response();
    }
    let Some(score) = LeaseScore::new(lease.score) else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "score must be a finite number\n").into_response();
    };
    let set = page.store.set_lease(lease.hotkey, &lease.worker_id, score, SOURCE, page.clock.unix_ms()).await;
    match set {
        Ok(changed) => {
            tracing::info!(
                peer = %lease.hotkey,
                worker_id = %lease.worker_id,
                score = score.get(),
                changed,
                "lease set"
            );
            Json(json!({ "changed": changed })).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "lease not stored: check the database");
            (StatusCode::INTERNAL_SERVER_ERROR, "not stored\n").into_response()
        }
    }
}

async fn start_capture(State(page): State<StatusPage>, Json(order): Json<Order>) -> Response {
    // Making a file is a moment's work on a thread that may wait.
    match tokio::task::spawn_blocking(move || page.capture.start(order)).await {
        Ok(Ok(path)) => Json(json!({ "path": path })).into_response(),
        Ok(Err(error @ CaptureError::Order)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response()
        }
        Ok(Err(error @ CaptureError::Running(_))) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
        Ok(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{}\n", byteleap_daemon::tasks::chain(&error))).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn stop_capture(State(page): State<StatusPage>) -> Json<Value> {
    Json(page.capture.stop().map_or(Value::Null, |(path, captured)| json!({ "path": path, "captured": captured })))
}
