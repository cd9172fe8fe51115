//! A validator that opens real sessions and answers by script.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use byteleap_protocol::{
    challenge::ChallengeItem,
    feedback::MinerFeedback,
    hotkey::{Hotkey, Keypair, Signer},
    id::{SessionId, Unit},
    payload::{
        CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt, ProofRequest,
        SCHEMA_VERSION, TaskResponse, TokenRecord,
    },
    session::{self, ClientHandshake, ReceivedPackage, Session, SessionInitRequest},
};
use futures_util::stream;
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
};

use super::{PATIENCE, miner_key};

/// What a validator saw.
#[derive(Debug)]
pub(crate) enum Event {
    Handshake,
    Heartbeat(Box<HeartbeatData>),
    Commitment(CommitmentData),
    Proof(ProofData),
}

/// What to answer instead of the truth, once.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// An error outside the session, before the request is processed.
    Plain(&'static str, i64),
    /// An error outside the session, after the request was processed.
    PlainAfter(&'static str, i64),
    /// An error inside the session.
    Sealed(&'static str),
    /// A package that opens in no session.
    Garbage,
    /// A sound answer, sealed by another session of the same validator.
    Foreign,
    /// An HTTP answer with this status, content type and body.
    Http(u16, &'static str, &'static [u8]),
    /// A body that ends before it is complete.
    Truncated,
    /// A body that never ends.
    Endless,
    /// A body of so many bytes.
    Oversized(usize),
}

/// A validator on a port of its own.
pub(crate) struct StubValidator {
    key: Keypair,
    address: SocketAddr,
    shared: Arc<Shared>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
}

struct Shared {
    own: Hotkey,
    sessions: Mutex<HashMap<SessionId, Arc<Session>>>,
    batch: Mutex<Vec<ChallengeItem>>,
    scripts: watch::Sender<HashMap<&'static str, VecDeque<Script>>>,
    tokens: Mutex<VecDeque<TokenRecord>>,
    feedback: Mutex<Option<MinerFeedback>>,
    hangs: watch::Sender<bool>,
    /// Whether every request is cut off, and how many were.
    cuts: watch::Sender<(bool, usize)>,
    /// TCP connections that were accepted.
    connections: AtomicUsize,
    events: mpsc::UnboundedSender<Event>,
}

impl StubValidator {
    /// Starts a validator with the key of this seed.
    pub(crate) async fn start(seed: u8) -> Self {
        let (validator, recover) = Self::start_down(seed);
        recover();
        validator
    }

    /// A validator whose port refuses connections until the function is called.
    pub(crate) fn start_down(seed: u8) -> (Self, impl FnOnce()) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        Self::on(socket, seed)
    }

    /// A validator on IPv6; none on a host without.
    pub(crate) async fn start_v6(seed: u8) -> Option<Self> {
        let socket = TcpSocket::new_v6().ok()?;
        socket.bind("[::1]:0".parse().expect("an address")).ok()?;
        let (validator, recover) = Self::on(socket, seed);
        recover();
        Some(validator)
    }

    fn on(socket: TcpSocket, seed: u8) -> (Self, impl FnOnce()) {
        let key = Keypair::from_seed(&[seed; 32]);
        let (sender, events) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            own: key.hotkey(),
            sessions: Mutex::default(),
            batch: Mutex::default(),
            scripts: watch::Sender::default(),
            tokens: Mutex::default(),
            feedback: Mutex::default(),
            hangs: watch::Sender::new(false),
            cuts: watch::Sender::new((false, 0)),
            connections: AtomicUsize::new(0),
            events: sender,
        });
        let address = socket.local_addr().expect("an address");
        let router = Router::new()
            .route("/{name}", post(serve))
            .layer(DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let counted = Arc::clone(&shared);
        let recover = move || {
            let listener = socket.listen(64).expect("a listener").tap_io(move |_| {
                counted.connections.fetch_add(1, Ordering::SeqCst);
            });
            tokio::spawn(async move { axum::serve(listener, router).await });
        };
        (Self { key, address, shared, events: tokio::sync::Mutex::new(events) }, recover)
    }

    pub(crate) fn hotkey(&self) -> Hotkey {
        self.key.hotkey()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells this of the workers in every answer to a heartbeat from now on.
    pub(crate) fn tell(&self, feedback: &Value) {
        let feedback = serde_json::from_value(feedback.clone()).expect("feedback");
        *self.shared.feedback.lock().expect("a lock") = Some(feedback);
    }

    /// Hands these out at the next poll.
    pub(crate) fn hand_out(&self, items: impl IntoIterator<Item = ChallengeItem>) {
        self.shared.batch.lock().expect("a lock").extend(items);
    }

    /// Lets every request wait, or those that wait go on.
    pub(crate) fn hang(&self, hangs: bool) {
        self.shared.hangs.send_replace(hangs);
    }

    /// Cuts every request off, as a host that dies does, or serves again.
    pub(crate) fn cut(&self, cuts: bool) {
        self.shared.cuts.send_replace((cuts, 0));
    }

    /// Waits until so many requests were cut off.
    pub(crate) async fn has_cut(&self, requests: usize) {
        let mut cuts = self.shared.cuts.subscribe();
        let cut = tokio::time::timeout(PATIENCE, cuts.wait_for(|(_, cut)| *cut >= requests)).await;
        cut.expect("requests in time").expect("a validator");
    }

    /// How many TCP connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many challenges nobody has fetched yet.
    pub(crate) fn unfetched(&self) -> usize {
        self.shared.batch.lock().expect("a lock").len()
    }

    /// Answers the next requests of this class by script.
    pub(crate) fn script(&self, class: &'static str, scripts: impl IntoIterator<Item = Script>) {
        self.shared.scripts.send_modify(|all| all.entry(class).or_default().extend(scripts));
    }

    /// Waits until every request of this class that is to be answered by script has come.
    pub(crate) async fn has_failed(&self, class: &'static str) {
        let mut scripts = self.shared.scripts.subscribe();
        let done = scripts.wait_for(|all| all.get(class).is_none_or(VecDeque::is_empty));
        tokio::time::timeout(PATIENCE, done).await.expect("requests in time").expect("a validator");
    }

    /// Answers the next token requests with these.
    pub(crate) fn give_tokens(&self, records: impl IntoIterator<Item = TokenRecord>) {
        self.shared.tokens.lock().expect("a lock").extend(records);
    }

    /// How many of the token answers nobody has asked for yet.
    pub(crate) fn unasked_tokens(&self) -> usize {
        self.shared.tokens.lock().expect("a lock").len()
    }

    /// The next event that `wanted` picks out; others are passed over.
    pub(crate) async fn next<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let mut events = self.events.lock().await;
        loop {
            let event =
                tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event in time").expect("a validator");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    pub(crate) async fn next_commitment(&self) -> CommitmentData {
        self.next(|event| if let Event::Commitment(data) = event { Some(data) } else { None }).await
    }

    pub(crate) async fn next_proof(&self) -> ProofData {
        self.next(|event| if let Event::Proof(data) = event { Some(data) } else { None }).await
    }

    pub(crate) async fn next_heartbeat(&self) -> HeartbeatData {
        self.next(|event| if let Event::Heartbeat(data) = event { Some(*data) } else { None }).await
    }

    /// All events that came and were not looked at yet.
    pub(crate) async fn seen(&self) -> Vec<Event> {
        let mut events = self.events.lock().await;
        std::iter::from_fn(|| events.try_recv().ok()).collect()
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    Path(class): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let _ = shared.hangs.subscribe().wait_for(|hangs| !hangs).await;
    check_caller(&shared, &headers, &body);
    if shared.cuts.borrow().0 {
        shared.cuts.send_modify(|(_, cut)| *cut += 1);
        return cut_off(b"");
    }
    let request = body["request"].as_str().expect("a request text");
    if class == "SessionInitSynapse" {
        return told(&open(&shared, request));
    }
    let mut script = None;
    shared.scripts.send_modify(|all| script = all.get_mut(class.as_str()).and_then(VecDeque::pop_front));
    match script {
        Some(Script::Http(status, content_type, body)) => {
            let status = StatusCode::from_u16(status).expect("a status");
            (status, [(CONTENT_TYPE, content_type)], body).into_response()
        }
        Some(Script::Truncated) => cut_off(br#"{"response": "{\"ver\": "#),
        Some(Script::Endless) => {
            let spaces = std::iter::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 16])));
            ([(CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(spaces))).into_response()
        }
        Some(Script::Oversized(bytes)) => ([(CONTENT_TYPE, "application/json")], vec![b' '; bytes]).into_response(),
        script => told(&answer(&shared, &class, request, script)),
    }
}

fn told(response: &str) -> Response {
    Json(json!({ "response": response })).into_response()
}

/// A reply of which this is sent and no more, before the connection ends.
fn cut_off(sent: &'static [u8]) -> Response {
    let pieces = [Ok(Bytes::from_static(sent)), Err(io::Error::other("cut off"))];
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(pieces))).into_response()
}

/// Every request is signed by the miner, for this validator, and says the same in headers and body.
fn check_caller(shared: &Shared, headers: &HeaderMap, body: &Value) {
    let header = |name: &str| headers.get(name).unwrap_or_else(|| panic!("header {name}")).to_str().expect("text");
    let (nonce, uuid) = (header("bt_header_dendrite_nonce"), header("bt_header_dendrite_uuid"));
    let (miner, hash) = (miner_key().hotkey(), header("computed_body_hash"));
    let message = format!("{nonce}.{miner}.{}.{uuid}.{hash}", shared.own);
    let signature = header("bt_header_dendrite_signature").parse().expect("a signature");
    assert!(miner.verify(message.as_bytes(), &signature), "the signature holds");
    assert_eq!(body["dendrite"]["hotkey"], json!(miner));
    assert_eq!(body["dendrite"]["ip"], json!("0.0.0.0"), "nobody has looked up the miner's own address");
}

fn open(shared: &Shared, request: &str) -> String {
    let request = SessionInitRequest::parse(request).expect("a session request");
    let session_id = SessionId::random(&mut OsRng);
    let (response, session) =
        session::accept(&mut OsRng, &request, miner_key().hotkey(), shared.own, session_id.clone(), 4e9)
            .expect("a session");
    shared.sessions.lock().expect("a lock").insert(session_id, Arc::new(session));
    shared.events.send(Event::Handshake).expect("a listener");
    response.to_text()
}

fn answer(shared: &Shared, class: &str, request: &str, script: Option<Script>) -> String {
    let plain = |text: &str, code: i64| json!({"error": text, "error_code": code}).to_string();
    if let Some(Script::Plain(text, code)) = &script {
        return plain(text, *code);
    }
    let package = ReceivedPackage::parse(request).expect("a package");
    let session = shared.sessions.lock().expect("a lock").get(package.session_id()).cloned();
    let Some(session) = session else { return plain("Session not found or expired", 4012) };
    let protocol_type = protocol_type(class);
    let payload = session.open(&package, protocol_type).expect("a payload").read().expect("a value");
    let truth = process(shared, class, payload);
    match script {
        Some(Script::PlainAfter(text, code)) => plain(text, code),
        Some(Script::Garbage) => json!({"ver": "v1", "session_id": session.id(), "seq": 9}).to_string(),
        Some(Script::Sealed(text)) => {
            session.seal(protocol_type, &json!({"error": text, "error_code": 1})).expect("a number").to_text()
        }
        Some(Script::Foreign) => another_session(shared).seal(protocol_type, &truth).expect("a number").to_text(),
        _ => session.seal(protocol_type, &truth).expect("a number").to_text(),
    }
}

/// A session that the validator has with the same miner besides the one in use.
fn another_session(shared: &Shared) -> Session {
    let request = ClientHandshake::new(&mut OsRng, 0.0).request().to_text();
    let request = SessionInitRequest::parse(&request).expect("a session request");
    let session_id = SessionId::random(&mut OsRng);
    let accepted = session::accept(&mut OsRng, &request, miner_key().hotkey(), shared.own, session_id, 4e9);
    accepted.expect("a session").1
}

fn protocol_type(class: &str) -> &'static str {
    match class {
        "TaskSynapse" => "TASK_V1",
        "HeartbeatSynapse" => "HEARTBEAT_V1",
        "ChallengeSynapse" => "CHALLENGE_V1",
        "ChallengeProofSynapse" => "CHALLENGE_PROOF_V1",
        "GetVmgwEnrollTokenSynapse" => "GET_VMGW_ENROLL_TOKEN_V1",
        other => panic!("unknown class {other}"),
    }
}

fn process(shared: &Shared, class: &str, payload: Value) -> Value {
    match class {
        "TaskSynapse" => {
            let challenges = std::mem::take(&mut *shared.batch.lock().expect("a lock"));
            json!(TaskResponse { challenges, refused_items: 0, timestamp: 0.0 })
        }
        "HeartbeatSynapse" => {
            let data: HeartbeatData = serde_json::from_value(payload).expect("a heartbeat");
            let workers_processed = data.workers.len() as u64;
            shared.events.send(Event::Heartbeat(Box::new(data))).expect("a listener");
            json!(HeartbeatResponse {
                error_code: 0,
                message: String::new(),
                workers_processed,
                timestamp: 0.0,
                request_id: None,
                schema_version: SCHEMA_VERSION,
                feedback: shared.feedback.lock().expect("a lock").clone(),
            })
        }
        "ChallengeSynapse" => {
            let data: CommitmentData = serde_json::from_value(payload).expect("a commitment");
            shared.events.send(Event::Commitment(data)).expect("a listener");
            let request = ProofRequest { uuid: Unit::Cpu, rows: vec![0, 3], coordinates: vec![] };
            json!(CommitmentResponse { proof_requests: vec![request] })
        }
        "ChallengeProofSynapse" => {
            let data: ProofData = serde_json::from_value(payload).expect("a proof");
            let challenge_id = data.challenge_id.clone();
            shared.events.send(Event::Proof(data)).expect("a listener");
            json!(ProofReceipt { challenge_status: "queued".to_owned(), message: String::new(), challenge_id })
        }
        _ => json!(shared.tokens.lock().expect("a lock").pop_front().unwrap_or_default()),
    }
}
