//! The axon: the HTTP server where miners' synapses arrive (miner-validator spec 1, 3 and 8).
//!
//! A request passes, in this order: the route, membership and signature of the headers, the rate limit, the body, the
//! session (`exchange`), and then the [`Desk`], whose answer goes back sealed. Each refusal ends the way; nothing of the
//! database or of a library's errors reaches a peer.
//!
//! The axon owns the tables of sessions, nonces and rates, all bounded; it knows nothing of challenges.

mod exchange;
mod limit;
mod listener;
mod sessions;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::routing::{MethodRouter, get};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::canonical;
use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::hotkey::{Hotkey, Signer};
use byteleap_protocol::payload::{
    CommitmentData, CommitmentResponse, ErrorAnswer, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt,
    TaskRequest, TaskResponse, TokenRecord, TokenRequest,
};
use byteleap_protocol::synapse::{
    AxonMark, NonceSource, NonceTable, Refusal, Reply, RequestBody, RequestHead, SynapseKind,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarm::peers::PeerClocks;
use crate::capture::Capture;
use crate::config::RateLimit;
use crate::metagraph::Members;
use limit::{RequestLimit, SlidingWindow};
use listener::{BoundedListener, Peer};
use sessions::SessionTable;

/// Requests with a wrong signature that one address may send within [`REFUSED_WINDOW`] before it has to wait.
const MAX_REFUSED: usize = 100;

const REFUSED_WINDOW: Duration = Duration::from_secs(30);

/// Memory for bodies that are being received and worked on, MiB.
const BODY_MEMORY_MIB: u32 = 512;

const MIB: usize = 1024 * 1024;

/// How often what is over is forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How long work under way may take when the axon stops.
const DRAIN: Duration = Duration::from_secs(10);

/// What stands behind the axon: answers typed requests of a verified caller.
///
/// A refusal goes to the caller, sealed, as it is.
pub trait Desk: Send + Sync + 'static {
    /// A miner reports itself and its workers.
    fn heartbeat(
        &self,
        caller: Hotkey,
        data: HeartbeatData,
    ) -> impl Future<Output = Result<HeartbeatResponse, ErrorAnswer>> + Send;

    /// A miner asks for challenges.
    fn tasks(
        &self,
        caller: Hotkey,
        request: TaskRequest,
    ) -> impl Future<Output = Result<TaskResponse, ErrorAnswer>> + Send;

    /// A worker of the caller commits to its result.
    fn commit(
        &self,
        caller: Hotkey,
        data: CommitmentData,
    ) -> impl Future<Output = Result<CommitmentResponse, ErrorAnswer>> + Send;

    /// A worker of the caller opens what was asked.
    fn prove(&self, caller: Hotkey, data: ProofData) -> impl Future<Output = Result<ProofReceipt, ErrorAnswer>> + Send;

    /// A miner asks for an enrolment token of one of its workers.
    fn token(
        &self,
        caller: Hotkey,
        request: TokenRequest,
    ) -> impl Future<Output = Result<TokenRecord, ErrorAnswer>> + Send;

    /// A request of the caller, whose signature held, was refused on its way here.
    fn refused(&self, caller: Hotkey, code: &'static str, note: String) -> impl Future<Output = ()> + Send;
}

impl Desk for crate::desk::Desk {
    async fn heartbeat(&self, caller: Hotkey, data: HeartbeatData) -> Result<HeartbeatResponse, ErrorAnswer> {
        Ok(Self::heartbeat(self, caller, data).await)
    }

    async fn tasks(&self, caller: Hotkey, request: TaskRequest) -> Result<TaskResponse, ErrorAnswer> {
        Ok(Self::tasks(self, caller, request).await?)
    }

    async fn commit(&self, caller: Hotkey, data: CommitmentData) -> Result<CommitmentResponse, ErrorAnswer> {
        Ok(Self::commit(self, caller, data).await?)
    }

    async fn prove(&self, caller: Hotkey, data: ProofData) -> Result<ProofReceipt, ErrorAnswer> {
        Ok(Self::prove(self, caller, data).await?)
    }

    async fn token(&self, caller: Hotkey, request: TokenRequest) -> Result<TokenRecord, ErrorAnswer> {
        Ok(Self::token(self, caller, request).await?)
    }

    async fn refused(&self, caller: Hotkey, code: &'static str, note: String) {
        Self::refused(self, caller, code, &note).await;
    }
}

/// The server, before and while it serves.
pub struct Axon<D> {
    signer: Arc<dyn Signer>,
    members: Members,
    clock: Arc<dyn Clock>,
    desk: Arc<D>,
    disabled: Vec<SynapseKind>,
    /// This process, in the signatures of its refusals.
    uuid: String,
    own_nonces: NonceSource,
    nonces: NonceTable,
    sessions: Mutex<SessionTable>,
    rate_limit: Live<RateLimit>,
    requests: Mutex<RequestLimit>,
    peers: PeerClocks,
    capture: Option<Capture>,
    refused: Mutex<SlidingWindow<IpAddr>>,
    body_memory: Semaphore,
    /// What the desk has in hand.
    work: TaskTracker,
}

/// A task of ours panicked or was cut off; the log has the panic.
type Failed = JoinError;

impl<D: Desk> Axon<D> {
    /// An axon that signs by `signer`, admits `members` and hands their requests to `desk`.
    pub fn new(
        signer: Arc<dyn Signer>,
        members: Members,
        clock: Arc<dyn Clock>,
        rate_limit: impl Into<Live<RateLimit>>,
        desk: D,
    ) -> Self {
        Self {
            signer,
            members,
            clock,
            desk: Arc::new(desk),
            disabled: Vec::new(),
            uuid: uuid::Uuid::new_v4().to_string(),
            own_nonces: NonceSource::default(),
            nonces: NonceTable::default(),
            sessions: Mutex::new(SessionTable::new()),
            rate_limit: rate_limit.into(),
            requests: Mutex::new(RequestLimit::new()),
            peers: PeerClocks::default(),
            capture: None,
            refused: Mutex::new(SlidingWindow::new(REFUSED_WINDOW)),
            body_memory: Semaphore::new(BODY_MEMORY_MIB as usize),
            work: TaskTracker::new(),
        }
    }

    /// Answers these synapses as if their routes did not exist: fault injection for tests.
    #[must_use]
    pub fn without(mut self, disabled: Vec<SynapseKind>) -> Self {
        self.disabled = disabled;
        self
    }

    /// Tells these what its callers' clocks show.
    #[must_use]
    pub fn comparing(mut self, peers: PeerClocks) -> Self {
        self.peers = peers;
        self
    }

    /// Lets an operator look at requests by this switch.
    #[must_use]
    pub fn captured_by(mut self, capture: Capture) -> Self {
        self.capture = Some(capture);
        self
    }

    /// Serves until `stop`, then lets the work under way end.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let axon = Arc::new(self);
        let methods: MethodRouter<Arc<Self>> = get(receive::<D>).post(receive::<D>);
        let router = Router::new().route("/{name}", methods).fallback(not_found).with_state(Arc::clone(&axon));
        let service = router.into_make_service_with_connect_info::<Peer>();
        let server =
            axum::serve(BoundedListener::new(listener), service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let served = tokio::select! {
            served = server => served,
            () = axon.prune_forever() => Ok(()),
            () = drained(&stop) => Ok(()),
        };
        axon.work.close();
        if tokio::time::timeout(DRAIN, axon.work.wait()).await.is_err() {
            tracing::warn!(requests = axon.work.len(), "axon stopped before all requests were worked on");
        }
        served
    }

    async fn prune_forever(&self) {
        loop {
            tokio::time::sleep(PRUNE_INTERVAL).await;
            let now = self.clock.monotonic();
            self.nonces.prune(self.now_ns());
            let sessions = {
                let mut sessions = self.sessions.lock();
                sessions.prune(now);
                sessions.len()
            };
            metrics::gauge!("axon_sessions").set(sessions as f64);
            self.requests.lock().prune(&self.rate_limit.get(), now);
            self.refused.lock().prune(now);
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.unix_ms()).unwrap_or_default().saturating_mul(1_000_000)
    }
}

/// Ends some time after `stop`: connections that linger then are cut.
async fn drained(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

/// Runs what computes rather than waits where it holds nobody up.
async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await
}

async fn not_found() -> Response<Body> {
    json_response(StatusCode::NOT_FOUND, HeaderMap::new(), r#"{"detail":"Not Found"}"#.to_owned())
}

/// One HTTP request, from its route to its reply.
async fn receive<D: Desk>(
    State(axon): State<Arc<Axon<D>>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let started = axon.clock.monotonic();
    let (parts, body) = request.into_parts();
    let head = RequestHead::read(|name| parts.headers.get(name)?.to_str().ok());
    let kind = SynapseKind::from_name(&name).filter(|kind| !axon.disabled.contains(kind));
    let outcome = match kind {
        Some(kind) => axon.answer(kind, &head, &parts.headers, body, peer.ip()).await,
        None => Err(Refusal::UnknownSynapse(name.chars().take(64).collect())),
    };
    let took = axon.clock.monotonic().saturating_sub(started);
    let reply = match outcome {
        Ok((kind, request, response)) => Reply::success(kind, &request, Some(&response), took),
        Err(refusal) => {
            tracing::debug!(%peer, synapse = kind.map(SynapseKind::name), %refusal, "request refused");
            let nonce = axon.own_nonces.next(axon.now_ns());
            let mark = AxonMark { signer: &*axon.signer, nonce, uuid: &axon.uuid };
            // Nobody signs for a caller that is being held off.
            let kind = kind.filter(|_| refusal != Refusal::TooManyRefused);
            Reply::refusal(kind, &head, &refusal, &mark, peer, took)
        }
    };
    let synapse = kind.map_or("unknown", SynapseKind::name);
    metrics::histogram!("axon_request_seconds", "synapse" => synapse).record(took.as_secs_f64());
    metrics::counter!("axon_requests_total", "synapse" => synapse, "status" => reply.status.to_string()).increment(1);
    respond(reply)
}

impl<D: Desk> Axon<D> {
    /// The answer to a request of a known route: what to echo of it, and the text of its field `response`.
    async fn answer(
        self: &Arc<Self>,
        kind: SynapseKind,
        head: &RequestHead,
        headers: &HeaderMap,
        body: Body,
        address: IpAddr,
    ) -> Result<(SynapseKind, RequestBody, String), Refusal> {
        let caller = self.admit(head, address).await?;
        check_content_type(headers)?;
        if kind != SynapseKind::SessionInit && !self.is_within_limit(caller) {
            tracing::info!(peer = %caller, synapse = kind.name(), "rate limited");
            let refusal = ErrorAnswer::new(ErrorCode::NetworkError, "rate_limited");
            return Ok((kind, RequestBody::default(), canonical::ascii(&refusal)));
        }
        // Held until the answer is made: the payload lives as long.
        let received = self.receive_body(kind, headers, body).await;
        if let Err(refusal @ Refusal::TooLarge) = &received {
            self.desk.refused(caller, "body_too_large", format!("{}: {refusal}", kind.name())).await;
        }
        let (body, _memory) = received?;
        let head = head.clone();
        let read = on_blocking_thread(move || head.read_body(caller, &body)).await.map_err(internal)?;
        if let Err(refusal @ Refusal::NotVerified(_)) = &read {
            self.desk.refused(caller, "other_caller", refusal.to_string()).await;
        }
        let mut request = read?;
        let payload = request.request.take().unwrap_or_default();
        let response = match kind {
            SynapseKind::SessionInit => exchange::open_session(self, caller, payload).await,
            _ => exchange::answer(self, kind, caller, payload).await,
        };
        Ok((kind, request, response.map_err(internal)?))
    }

    fn is_within_limit(&self, caller: Hotkey) -> bool {
        self.requests.lock().allow(&self.rate_limit.get(), caller, self.clock.monotonic())
    }

    /// Who the caller is, by the headers alone.
    async fn admit(self: &Arc<Self>, head: &RequestHead, address: IpAddr) -> Result<Hotkey, Refusal> {
        if self.refused.lock().count(&address, self.clock.monotonic()) >= MAX_REFUSED {
            return Err(Refusal::TooManyRefused);
        }
        let (axon, head, sent_at_ms) = (Arc::clone(self), head.clone(), head.sent_at_ms());
        let admit = move || {
            let is_member = |hotkey| axon.members.contains(&hotkey);
            head.admit(axon.signer.hotkey(), axon.now_ns(), is_member, &axon.nonces)
        };
        let admitted = on_blocking_thread(admit).await.map_err(internal)?;
        if let (Ok(caller), Some(sent_at_ms)) = (&admitted, sent_at_ms) {
            self.peers.saw(*caller, sent_at_ms, self.clock.unix_ms());
        }
        if let Err(Refusal::NotVerified(_)) = admitted {
            self.refused.lock().record(address, self.clock.monotonic());
        }
        admitted
    }

    /// Receives the body, within the route's limit and time, and within the memory for all of them.
    async fn receive_body(
        &self,
        kind: SynapseKind,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, tokio::sync::SemaphorePermit<'_>), Refusal> {
        let limit = kind.max_body_bytes();
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or(limit);
        if length > limit {
            return Err(Refusal::TooLarge);
        }
        let mib = u32::try_from(length.div_ceil(MIB).max(1)).unwrap_or(BODY_MEMORY_MIB);
        let receive = async {
            let memory = self.body_memory.acquire_many(mib).await.map_err(|_| Refusal::Busy)?;
            let body = axum::body::to_bytes(body, limit).await.map_err(|error| unreadable(&error))?;
            Ok((body, memory))
        };
        tokio::time::timeout(kind.timeout(), receive).await.unwrap_or(Err(Refusal::Busy))
    }
}

/// A body that is longer than it may be, or that broke off.
fn unreadable(error: &axum::Error) -> Refusal {
    let is_too_large = std::error::Error::source(error).is_some_and(|cause| cause.to_string().contains("length limit"));
    if is_too_large { Refusal::TooLarge } else { Refusal::Malformed("body broke off") }
}

/// JSON, or not said.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media_type = content_type.to_str().ok().and_then(|text| text.split(';').next()).unwrap_or_default();
    if media_type.trim().eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Refusal::UnsupportedMediaType) }
}

/// Our own failure, under a name that the log shares with the caller.
fn internal(error: Failed) -> Refusal {
    let id = uuid::Uuid::new_v4().to_string();
    tracing::error!(%error, id, "request failed: report this with the log around it");
    Refusal::Internal(id)
}

fn respond(reply: Reply) -> Response<Body> {
    let mut headers = HeaderMap::new();
    for (name, value) in reply.headers {
        // Only printable texts are echoed, so every one is a header value.
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    json_response(status, headers, reply.body)
}

fn json_response(status: StatusCode, mut headers: HeaderMap, body: String) -> Response<Body> {
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
