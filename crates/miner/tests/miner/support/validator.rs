//! A validator that opens real sessions and answers by script.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::HeaderMap,
    routing::post,
};
use byteleap_protocol::{
    challenge::ChallengeItem,
    hotkey::{Hotkey, Keypair, Signer},
    id::{SessionId, Unit},
    payload::{
        CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt, ProofRequest,
        SCHEMA_VERSION, TaskResponse, TokenRecord,
    },
    session::{self, ReceivedPackage, Session, SessionInitRequest},
};
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
    /// Bytes that open in no session.
    Garbage,
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
    scripts: Mutex<HashMap<&'static str, VecDeque<Script>>>,
    tokens: Mutex<VecDeque<TokenRecord>>,
    hangs: watch::Sender<bool>,
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
        let key = Keypair::from_seed(&[seed; 32]);
        let (sender, events) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            own: key.hotkey(),
            sessions: Mutex::default(),
            batch: Mutex::default(),
            scripts: Mutex::default(),
            tokens: Mutex::default(),
            hangs: watch::Sender::new(false),
            events: sender,
        });
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = socket.local_addr().expect("an address");
        let router = Router::new()
            .route("/{name}", post(serve))
            .layer(DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&shared));
        let recover = move || {
            let listener = socket.listen(64).expect("a listener");
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

    /// Hands these out at the next poll.
    pub(crate) fn hand_out(&self, items: impl IntoIterator<Item = ChallengeItem>) {
        self.shared.batch.lock().expect("a lock").extend(items);
    }

    /// Lets every request wait, or those that wait go on.
    pub(crate) fn hang(&self, hangs: bool) {
        self.shared.hangs.send_replace(hangs);
    }

    /// How many challenges nobody has fetched yet.
    pub(crate) fn unfetched(&self) -> usize {
        self.shared.batch.lock().expect("a lock").len()
    }

    /// Answers the next requests of this class by script.
    pub(crate) fn script(&self, class: &'static str, scripts: impl IntoIterator<Item = Script>) {
        self.shared.scripts.lock().expect("a lock").entry(class).or_default().extend(scripts);
    }

    /// Answers the next token requests with these.
    pub(crate) fn give_tokens(&self, records: impl IntoIterator<Item = TokenRecord>) {
        self.shared.tokens.lock().expect("a lock").extend(records);
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
) -> Json<Value> {
    let _ = shared.hangs.subscribe().wait_for(|hangs| !hangs).await;
    check_caller(&shared, &headers, &body);
    let request = body["request"].as_str().expect("a request text");
    let response =
        if class == "SessionInitSynapse" { open(&shared, request) } else { answer(&shared, &class, request) };
    Json(json!({ "response": response }))
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

fn answer(shared: &Shared, class: &str, request: &str) -> String {
    let script = shared.scripts.lock().expect("a lock").get_mut(class).and_then(VecDeque::pop_front);
    let plain = |text: &str, code: i64| json!({"error": text, "error_code": code}).to_string();
    if let Some(Script::Plain(text, code)) = &script {
        return plain(text, *code);
    }
    let package = ReceivedPackage::parse(request).expect("a package");
    let session = shared.sessions.lock().expect("a lock").get(package.session_id()).cloned();
    let Some(session) = session else { return plain("Session not found or expired", 4012) };
    let protocol_type = protocol_type(class);
    let payload = session.open(&package, protocol_type).expect("a payload");
    let truth = process(shared, class, payload);
    match script {
        Some(Script::PlainAfter(text, code)) => plain(text, code),
        Some(Script::Garbage) => json!({"ver": "v1", "session_id": session.id(), "seq": 9}).to_string(),
        Some(Script::Sealed(text)) => {
            session.seal(protocol_type, &json!({"error": text, "error_code": 1})).expect("a number").to_text()
        }
        Some(Script::Plain(..)) | None => session.seal(protocol_type, &truth).expect("a number").to_text(),
    }
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
