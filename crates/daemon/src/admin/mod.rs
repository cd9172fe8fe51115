//! The admin endpoint: how operators, service managers and the project's own commands look into a running daemon.
//!
//! | Route | Answer |
//! |---|---|
//! | `GET /livez` | 200 while the process answers at all |
//! | `GET /readyz` | 200 `{"ready":true}`, or 503 with the reason of each closed gate |
//! | `GET /metrics` | Prometheus text |
//! | `GET /status` | the daemon's own JSON |
//!
//! and whatever routes the daemon adds. It listens on loopback unless `http.listen` says otherwise, and answers only
//! requests whose `Host` is an address or `localhost`: a web page that a browser on this machine happens to show can
//! reach loopback, but only under a name of its own.
//!
//! [`get`] and [`post`] are the other side, for the commands that ask a running daemon.

mod client;
mod listener;
mod readiness;

use std::{future::Future, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{config::Key, notify};

pub use self::{
    client::{ClientError, delete, get, post},
    readiness::{Gate, Readiness},
};

/// Longest time that one request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time that open connections may hold up a stop.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Largest request body, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How often the metrics recorder forgets what is old.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds of the histograms of times: from what stays on a machine to what a challenge may take.
const TIME_BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The key `http.listen`, with the daemon's own default address.
#[must_use]
pub const fn listen_key(default: &'static str) -> Key {
    Key::text("http.listen", "address of the admin endpoint: /livez /readyz /metrics /status (port 0: any free one)")
        .parsed::<SocketAddr>()
        .default(default)
}

/// Makes this process record metrics (the macros of the `metrics` crate) and yields what `/metrics` renders.
///
/// # Errors
///
/// The process records metrics already.
pub fn record_metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), TIME_BUCKETS_SECONDS)?
        .install_recorder()
}

/// The admin endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the admin endpoint cannot listen on {address}: set http.listen to a free address")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The admin endpoint of one process, bound but not serving yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// What a daemon shows on its admin endpoint.
#[derive(Debug)]
pub struct Pages {
    /// Answers `/readyz`.
    pub readiness: Readiness,
    /// Renders `/metrics`; see [`record_metrics`].
    pub metrics: PrometheusHandle,
    /// Answers `/status`.
    pub status: Status,
    /// Routes of the daemon's own.
    pub routes: Router,
}

/// A function that yields the daemon's status as JSON.
#[derive(Clone)]
pub struct Status(Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Value> + Send>> + Send + Sync>);

impl Status {
    /// Wraps the function; it is called once for each request.
    pub fn new<F>(status: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Value> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(status())))
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Status")
    }
}

impl Admin {
    /// Binds the address; port 0 takes any free port, which [`Self::address`] shows.
    ///
    /// # Errors
    ///
    /// The address is in use or not this machine's.
    pub async fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "admin endpoint listens");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "the admin endpoint is open beyond this machine and asks nobody for a password");
        }
        Ok(Self { listener, address })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then gives open requests a moment to finish. Meanwhile the service manager hears when the
    /// daemon is ready, and that it is alive.
    ///
    /// # Errors
    ///
    /// The listener broke.
    pub async fn serve(self, pages: Pages, stop: CancellationToken) -> Result<(), std::io::Error> {
        let (metrics, readiness) = (pages.metrics.clone(), pages.readiness.clone());
        let router = Router::new()
            .route("/livez", routing::get(|| async { "alive\n" }))
            .route("/readyz", routing::get(ready).with_state(pages.readiness))
            .route("/metrics", routing::get(move || std::future::ready(pages.metrics.render())))
            .route("/status", routing::get(status).with_state(pages.status))
            .merge(pages.routes)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(middleware::from_fn(within_deadline))
            .layer(middleware::from_fn(addressed_to_us));
        let listener = listener::Limited::new(self.listener, MAX_CONNECTIONS);
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let closing = async {
            stop.cancelled().await;
            tokio::time::sleep(CLOSE_DEADLINE).await;
        };
        tokio::select! {
            served = serving => served,
            () = closing => Ok(()),
            () = upkeep(metrics) => Ok(()),
            () = notify::announce(readiness) => Ok(()),
        }
    }
}

/// Keeps the recorder's memory bounded, for ever.
async fn upkeep(metrics: PrometheusHandle) {
    let mut due = tokio::time::interval(METRICS_UPKEEP);
    loop {
        due.tick().await;
        metrics.run_upkeep();
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let closed = readiness.closed();
    if closed.is_empty() {
        Json(json!({ "ready": true })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reasons": closed }))).into_response()
    }
}

async fn status(State(Status(status)): State<Status>) -> Json<Value> {
    Json(status().await)
}

async fn within_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the answer took too long\n").into_response(),
    }
}

/// Refuses a request that was sent to a name: what a web page sends when its own name is made to mean this machine.
async fn addressed_to_us(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let foreign_page = request.headers().contains_key(header::ORIGIN) && !request.method().is_safe();
    if is_address(host) && !foreign_page {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "ask by address or as localhost, not from a web page\n").into_response()
    }
}

fn is_address(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<Result<(), std::io::Error>>,
    }

    async fn running() -> Running {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, readiness, stop) = (admin.address(), Readiness::new(), CancellationToken::new());
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("challenges_total").increment(3));
        let pages = Pages {
            readiness: readiness.clone(),
            metrics: recorder.handle(),
            status: Status::new(|| async { json!({ "workers": 2 }) }),
            routes: Router::new()
                .route("/leases", routing::post(|body: String| async move { body }))
                .route("/hang", routing::get(std::future::pending::<()>)),
        };
        let serving = tokio::spawn(admin.serve(pages, stop.clone()));
        Running { address, readiness, stop, serving }
    }

    #[tokio::test]
    async fn the_four_pages_answer_on_the_bound_port() {
        let running = running().await;
        let url = |path: &str| format!("http://{}{path}", running.address);
        assert_ne!(running.address.port(), 0);
        assert_eq!(reqwest::get(url("/livez")).await.unwrap().status(), 200);
        let metrics = reqwest::get(url("/metrics")).await.unwrap().text().await.unwrap();
        assert!(metrics.contains("challenges_total 3"), "{metrics}");
        assert_eq!(get(running.address, "/status").await.unwrap(), json!({ "workers": 2 }));
    }

    #[tokio::test]
    async fn readiness_is_503_with_reasons_until_every_gate_opens() {
        let running = running().await;
        let chain = running.readiness.gate("chain", "not connected yet");
        let store = running.readiness.gate("store", "migrating");
        chain.open();
        let response = reqwest::get(format!("http://{}/readyz", running.address)).await.unwrap();
        assert_eq!(response.status(), 503);
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(body, json!({ "ready": false, "reasons": { "store": "migrating" } }));
        store.open();
        assert_eq!(get(running.address, "/readyz").await.unwrap(), json!({ "ready": true }));
        chain.close("connection lost");
        let error = get(running.address, "/readyz").await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Status { status: 503, body } if body.contains("connection lost")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_web_page_reaches_nothing() {
        let running = running().await;
        let client = reqwest::Client::new();
        let url = |path: &str| format!("http://{}{path}", running.address);
        let rebound = client.get(url("/status")).header("host", "evil.example").send().await.unwrap();
        assert_eq!(rebound.status(), 403);
        let posted =
            client.post(url("/leases")).header("origin", "http://evil.example").body("{}").send().await.unwrap();
        assert_eq!(posted.status(), 403);
        let own = client.post(url("/leases")).body("{}").send().await.unwrap();
        assert_eq!(own.status(), 200);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused() {
        let running = running().await;
        let url = format!("http://{}/leases", running.address);
        let response = reqwest::Client::new().post(url).body("x".repeat(MAX_BODY_BYTES + 1)).send().await.unwrap();
        assert_eq!(response.status(), 413);
    }

    #[tokio::test]
    async fn a_stop_ends_the_server_even_while_a_request_hangs() {
        let running = running().await;
        let mut hanging = tokio::net::TcpStream::connect(running.address).await.unwrap();
        let request = b"GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut hanging, request).await.unwrap();
        running.stop.cancel();
        running.serving.await.unwrap().unwrap();
        assert!(matches!(get(running.address, "/status").await, Err(ClientError::Connect { .. })));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_the_key() {
        let first = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Admin::bind(first.address()).await.unwrap_err();
        assert!(error.to_string().contains("http.listen"), "{error}");
    }

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for host in ["127.0.0.1", "127.0.0.1:9092", "[::1]:80", "[::1]", "localhost:1", "10.0.0.3:9092"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9092", "localhost.evil.example", "127.0.0.1.evil.example:80"] {
            assert!(!is_address(host), "{host}");
        }
    }
}
