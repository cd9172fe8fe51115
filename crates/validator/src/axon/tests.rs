//! The axon over a real socket, with a client of real signatures and sessions.

use std::net::SocketAddr;

use byteleap_chain::{Metagraph, Neuron};
use byteleap_daemon::clock::ManualClock;
use byteleap_protocol::challenge::{ChallengeItem, ChallengeKind, TimeoutSeconds};
use byteleap_protocol::hotkey::Keypair;
use byteleap_protocol::id::{ChallengeId, RowHash, WorkerId};
use byteleap_protocol::merkle::NodeHash;
use byteleap_protocol::payload::{
    Commitment, ProofRequest, SCHEMA_VERSION, TokenRecord, TokenRequest, WorkerInfo, read_answer,
};
use byteleap_protocol::session::{ClientHandshake, ReceivedPackage, Session, SessionInitResponse};
use byteleap_protocol::synapse::{AxonAddress, Dendrite, Request as SynapseRequest, read_reply};
use rand_core::OsRng;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;

const NOW_MS: i64 = 1_760_000_000_000;

fn miner() -> Keypair {
    Keypair::from_seed(&[0x11; 32])
}

fn other_miner() -> Keypair {
    Keypair::from_seed(&[0x44; 32])
}

fn validator() -> Keypair {
    Keypair::from_seed(&[0x22; 32])
}

fn stranger() -> Keypair {
    Keypair::from_seed(&[0x33; 32])
}

/// A desk that echoes what it was told, as far as the types allow, and keeps count of what was refused.
#[derive(Default)]
struct Echo {
    refused: Mutex<Vec<(Hotkey, &'static str)>>,
}

impl Desk for Echo {
    async fn heartbeat(&self, _: Hotkey, data: HeartbeatData) -> Result<HeartbeatResponse, ErrorAnswer> {
        assert!(data.hotkey != "panic", "as the test wants");
        Ok(HeartbeatResponse {
            error_code: 0,
            message: String::new(),
            workers_processed: data.workers.len() as u64,
            timestamp: data.timestamp,
            request_id: None,
            schema_version: SCHEMA_VERSION,
            feedback: None,
        })
    }

    async fn tasks(&self, caller: Hotkey, _: TaskRequest) -> Result<TaskResponse, ErrorAnswer> {
        let item = ChallengeItem {
            challenge_id: ChallengeId::new(&caller.to_string()).unwrap(),
            challenge_type: ChallengeKind::CpuMatrix,
            data: Default::default(),
            timeout: TimeoutSeconds::new(60).unwrap(),
            target_worker_id: None,
        };
        Ok(TaskResponse { challenges: vec![item], refused_items: 0, timestamp: 0.0 })
    }

    async fn commit(&self, _: Hotkey, data: CommitmentData) -> Result<CommitmentResponse, ErrorAnswer> {
        let uuid = data.commitments[0].uuid.clone();
        Ok(CommitmentResponse { proof_requests: vec![ProofRequest { uuid, rows: vec![7], coordinates: Vec::new() }] })
    }

    async fn prove(&self, _: Hotkey, _: ProofData) -> Result<ProofReceipt, ErrorAnswer> {
        Err(ErrorAnswer { error: "Challenge not in committed state".to_owned(), error_code: None })
    }

    async fn token(&self, _: Hotkey, request: TokenRequest) -> Result<TokenRecord, ErrorAnswer> {
        Ok(TokenRecord { worker_id: request.worker_id.to_string(), code: 1003, ..TokenRecord::default() })
    }

    async fn refused(&self, caller: Hotkey, code: &'static str, _: String) {
        self.refused.lock().push((caller, code));
    }
}

/// A running axon.
struct World {
    address: SocketAddr,
    clock: Arc<ManualClock>,
    desk: Arc<Echo>,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

fn members() -> Members {
    let neurons = [miner(), other_miner()].into_iter().zip(0..).map(|(key, uid)| Neuron {
        uid,
        hotkey: key.hotkey(),
        coldkey: [0; 32],
        axon: None,
        axon_version: 0,
        alpha_stake: 0,
        total_stake: 0,
        validator_permit: false,
        active: true,
        last_update: 0,
        registered_at: 0,
    });
    let owner_hotkey = validator().hotkey();
    Members::fixed(Metagraph { netuid: 1, block: 1, owner_hotkey, neurons: neurons.collect() })
}

fn axon(clock: &Arc<ManualClock>, max_requests: u32) -> Axon<Echo> {
    let rate_limit = RateLimit { window: Duration::from_secs(30), max_requests };
    Axon::new(Arc::new(validator()), members(), clock.clone(), rate_limit, Echo::default())
}

impl World {
    async fn start() -> Self {
        Self::with_limit(150).await
    }

    async fn with_limit(max_requests: u32) -> Self {
        let clock = Arc::new(ManualClock::new(NOW_MS));
        Self::serving(axon(&clock, max_requests), clock).await
    }

    async fn serving(axon: Axon<Echo>, clock: Arc<ManualClock>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let desk = Arc::clone(&axon.desk);
        let server = tokio::spawn(axon.serve(listener, stop.clone()));
        Self { address, clock, desk, stop, server }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.server.await.unwrap().unwrap();
    }

    fn client(&self, keypair: Keypair) -> Client {
        let hotkey = keypair.hotkey();
        Client {
            dendrite: Dendrite::new(keypair, uuid::Uuid::new_v4().to_string(), "203.0.113.7".to_owned()),
            hotkey,
            axon: AxonAddress { hotkey: validator().hotkey(), ip: "127.0.0.1".to_owned(), port: self.address.port() },
            nonces: NonceSource::default(),
            clock: self.clock.clone(),
            http: reqwest::Client::new(),
        }
    }
}

/// A miner's side.
struct Client {
    dendrite: Dendrite<Keypair>,
    hotkey: Hotkey,
    axon: AxonAddress,
    nonces: NonceSource,
    clock: Arc<ManualClock>,
    http: reqwest::Client,
}

/// A reply with what a test looks at.
#[derive(Debug)]
struct Received {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Received {
    /// The text of the field `response`, or the HTTP refusal.
    fn response(&self) -> String {
        let content_type = self.headers.get("content-type").and_then(|value| value.to_str().ok());
        read_reply(self.status, content_type, &self.body).unwrap()
    }

    /// The code of a plain error.
    fn code(&self) -> i64 {
        let error: ErrorAnswer = serde_json::from_str(&self.response()).unwrap();
        error.error_code.unwrap()
    }

    fn message(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["message"].as_str().unwrap().to_owned()
    }
}

impl Client {
    fn request(&self, kind: SynapseKind, payload: &str) -> SynapseRequest {
        let now_ns = u64::try_from(self.clock.unix_ms()).unwrap() * 1_000_000;
        let nonce = self.nonces.next(now_ns);
        self.dendrite.request(kind, &self.axon, kind.timeout(), nonce, payload.to_owned())
    }

    async fn send(&self, request: SynapseRequest) -> Received {
        let url = format!("http://127.0.0.1:{}/{}", self.axon.port, request.path);
        let mut call = self.http.post(url).header("content-type", "application/json").body(request.body);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        let reply = call.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Received { status, headers, body: reply.bytes().await.unwrap().to_vec() }
    }

    async fn post(&self, kind: SynapseKind, payload: &str) -> Received {
        self.send(self.request(kind, payload)).await
    }

    async fn try_handshake(&self) -> Result<Session, Received> {
        let handshake = ClientHandshake::new(&mut OsRng, 0.0);
        let reply = self.post(SynapseKind::SessionInit, &handshake.request().to_text()).await;
        if reply.status != 200 {
            return Err(reply);
        }
        match SessionInitResponse::parse(&reply.response()) {
            Ok(response) => Ok(handshake.finish(&response, self.hotkey, self.axon.hotkey).unwrap()),
            Err(_) => Err(reply),
        }
    }

    async fn handshake(&self) -> Session {
        self.try_handshake().await.unwrap()
    }

    /// Seals, sends, opens: the decrypted answer.
    async fn call(&self, session: &Session, kind: SynapseKind, payload: &impl Serialize) -> Value {
        let package = session.seal(kind.protocol_type(), payload).unwrap().to_text();
        let reply = self.post(kind, &package).await;
        assert_eq!(reply.status, 200);
        session.open(&ReceivedPackage::parse(&reply.response()).unwrap(), kind.protocol_type()).unwrap().read().unwrap()
    }
}

fn heartbeat(hotkey: &str) -> HeartbeatData {
    HeartbeatData {
        hotkey: hotkey.to_owned(),
        timestamp: 1.5,
        workers: vec![serde_json::from_value::<WorkerInfo>(json!({"worker_id": "w"})).unwrap()].into(),
        miner_info: None,
        schema_version: SCHEMA_VERSION,
    }
}

#[tokio::test]
async fn a_miner_goes_all_the_way_round_in_one_session() {
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;

    let beat = client.call(&session, SynapseKind::Heartbeat, &heartbeat("x")).await;
    assert_eq!(read_answer::<HeartbeatResponse>(beat).unwrap().workers_processed, 1);

    let batch = client.call(&session, SynapseKind::Task, &TaskRequest::new(miner().hotkey(), 0.0)).await;
    let batch: TaskResponse = read_answer(batch).unwrap();
    // The caller is the verified one.
    let challenge_id = batch.challenges[0].challenge_id.clone();
    assert_eq!(challenge_id.as_str(), miner().hotkey().to_string());

    let commitments = vec![Commitment::cpu(NodeHash::Row(RowHash([1; 8])))];
    let worker_id = WorkerId::new("w").unwrap();
    let commitment = CommitmentData {
        challenge_id: challenge_id.clone(),
        worker_id: worker_id.clone(),
        commitments,
        debug_info: Default::default(),
        schema_version: SCHEMA_VERSION,
    };
    let asked = client.call(&session, SynapseKind::Challenge, &commitment).await;
    assert_eq!(read_answer::<CommitmentResponse>(asked).unwrap().proof_requests[0].rows, [7]);

    // A refusal of the desk travels sealed.
    let proof =
        ProofData { challenge_id, proofs: Vec::new(), debug_info: Default::default(), schema_version: SCHEMA_VERSION };
    let refused = client.call(&session, SynapseKind::ChallengeProof, &proof).await;
    assert_eq!(refused, json!({"error": "Challenge not in committed state"}));

    let token = client.call(&session, SynapseKind::GetVmgwEnrollToken, &TokenRequest { worker_id }).await;
    assert_eq!(read_answer::<TokenRecord>(token).unwrap().code, 1003);
    world.stop().await;
}

#[tokio::test]
async fn a_reply_has_the_full_form_in_lower_case_without_the_request() {
    let world = World::start().await;
    let reply = world.client(miner()).post(SynapseKind::SessionInit, "{}").await;
    assert_eq!((reply.status, reply.code()), (200, 4018));
    assert_eq!(reply.headers["bt_header_axon_status_code"], "200");
    assert_eq!(reply.headers["bt_header_axon_status_message"], "Success");
    assert_eq!(reply.headers["bt_header_dendrite_hotkey"], miner().hotkey().to_string());
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["request"], Value::Null);
    assert_eq!(body["axon"]["status_code"], 200);
    world.stop().await;
}

/// A request changed on its way.
fn tampered(mut request: SynapseRequest, header: &'static str, value: Option<&str>) -> SynapseRequest {
    request.headers.retain(|(name, _)| *name != header);
    request.headers.extend(value.map(|value| (header, value.to_owned())));
    request
}

#[tokio::test]
async fn who_does_not_prove_to_be_a_member_is_refused_with_a_signed_reply() {
    let world = World::start().await;
    let client = world.client(miner());
    let request = || client.request(SynapseKind::Heartbeat, "{}");

    let unsigned = client.send(tampered(request(), "bt_header_dendrite_signature", None)).await;
    assert_eq!((unsigned.status, unsigned.message().as_str()), (401, "Not Verified with error: Missing signature"));

    let forged = other_miner().sign(b"anything").to_string();
    let forged = client.send(tampered(request(), "bt_header_dendrite_signature", Some(&forged))).await;
    assert_eq!(forged.status, 401);

    let mut impersonating = request();
    let (own, other) = (miner().hotkey().to_string(), other_miner().hotkey().to_string());
    impersonating.body = impersonating.body.replace(&own, &other);
    assert_eq!(client.send(impersonating).await.status, 401);

    let nameless = client.send(tampered(request(), "bt_header_dendrite_hotkey", None)).await;
    assert_eq!(nameless.status, 403);

    let unknown = world.client(stranger()).post(SynapseKind::Heartbeat, "{}").await;
    assert_eq!(unknown.message(), "Forbidden. Key is blacklisted: hotkey_not_in_metagraph.");
    assert_eq!(unknown.status, 403);
    let header = |name: &str| unknown.headers[name].to_str().unwrap();
    let signed = format!(
        "{}.{}.{}.{}",
        header("bt_header_axon_nonce"),
        stranger().hotkey(),
        validator().hotkey(),
        header("bt_header_axon_uuid")
    );
    let signature = header("bt_header_axon_signature").parse().unwrap();
    assert!(validator().hotkey().verify(signed.as_bytes(), &signature));
    world.stop().await;
}

#[tokio::test]
async fn an_address_that_keeps_forging_is_held_off_until_its_window_is_over() {
    let world = World::start().await;
    let client = world.client(miner());
    let forge = || tampered(client.request(SynapseKind::Task, "x"), "bt_header_dendrite_signature", None);
    for _ in 0..MAX_REFUSED {
        assert_eq!(client.send(forge()).await.status, 401);
    }
    assert_eq!(client.post(SynapseKind::Task, "x").await.status, 429);
    world.clock.advance(REFUSED_WINDOW);
    assert_eq!(client.post(SynapseKind::Task, "x").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_request_is_good_once_and_for_a_short_time() {
    let world = World::start().await;
    let client = world.client(miner());
    let (first, second) = (client.request(SynapseKind::Task, "x"), client.request(SynapseKind::Task, "x"));
    assert_eq!(client.send(second.clone()).await.status, 200);
    for captured in [second, first] {
        let repeated = client.send(captured).await;
        assert_eq!(repeated.message(), "Not Verified with error: Nonce is too old, a newer one was last processed");
    }
    let late = client.request(SynapseKind::Task, "x");
    world.clock.advance(Duration::from_secs(15));
    assert!(client.send(late).await.message().starts_with("Not Verified with error: Nonce is too old: acceptable"));
    world.stop().await;
}

#[tokio::test]
async fn a_package_opens_once_and_only_for_the_owner_of_its_session() {
    let world = World::start().await;
    let (client, thief) = (world.client(miner()), world.client(other_miner()));
    let session = client.handshake().await;
    let seal = || session.seal("TASK_V1", &TaskRequest::new(miner().hotkey(), 0.0)).unwrap().to_text();

    let package = seal();
    assert_eq!(thief.post(SynapseKind::Task, &package).await.code(), 4012);
    assert_eq!(client.post(SynapseKind::Heartbeat, &package).await.code(), 4011);
    // Neither has used it up.
    assert!(ReceivedPackage::parse(&client.post(SynapseKind::Task, &package).await.response()).is_ok());
    assert_eq!(client.post(SynapseKind::Task, &package).await.code(), 4020);

    // The order of arrival is free within the window.
    let (third, fourth) = (seal(), seal());
    for package in [fourth, third] {
        assert!(ReceivedPackage::parse(&client.post(SynapseKind::Task, &package).await.response()).is_ok());
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_package_or_does_not_fit_gets_its_plain_code() {
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;
    assert_eq!(client.post(SynapseKind::Task, "").await.code(), 4015);
    assert_eq!(client.post(SynapseKind::Task, "not json").await.code(), 4011);
    let seal = |payload: Value| session.seal("TASK_V1", &payload).unwrap().to_text();
    let misfit = client.post(SynapseKind::Task, &seal(json!({"hotkey": "secret", "request_type": 7}))).await;
    assert_eq!(misfit.code(), 4015);
    assert!(!misfit.response().contains("secret"));
    assert_eq!(client.post(SynapseKind::Task, &seal(json!([]))).await.code(), 4011);

    world.clock.advance(Duration::from_secs(21_600));
    let expired = client.post(SynapseKind::Task, &seal(json!({}))).await;
    assert_eq!(expired.code(), 4012);
    world.stop().await;
}

#[tokio::test]
async fn a_gpus_proof_is_read_without_a_tree_of_values() {
    const NUMBERS: usize = 25 + 3 * 34_406;
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;
    let numbers = "-6.1035156e-05,".repeat(NUMBERS - 1);
    let unit = format!(r#"{{"uuid":"GPU-1","row_hashes":[],"merkle_proofs":[],"coordinate_values":[{numbers}1]}}"#);
    let proof = format!(r#"{{"challenge_id":"c","proofs":[{unit}]}}"#);
    let post = |seq, plaintext: &str| {
        let kind = SynapseKind::ChallengeProof;
        let package = session.outgoing().seal(seq, kind.protocol_type(), plaintext).to_text();
        let client = &client;
        async move { client.post(kind, &package).await }
    };
    // What the desk answers to it, sealed.
    let reply = post(1, &proof).await;
    assert!(ReceivedPackage::parse(&reply.response()).is_ok());
    // A tree, where the last of two equal names counts, would have read this too.
    let twice = proof.replacen(r#""challenge_id""#, r#""challenge_id":"b","challenge_id""#, 1);
    assert_eq!(post(2, &twice).await.code(), 4015);
    let short = r#"{"challenge_id":"b","challenge_id":"c","proofs":[]}"#;
    assert!(ReceivedPackage::parse(&post(3, short).await.response()).is_ok());
    world.stop().await;
}

/// The reply to a request whose head announces so many bytes, of which none is sent.
async fn announce(world: &World, request: &SynapseRequest, body_bytes: usize) -> String {
    let mut text = format!("POST /{} HTTP/1.1\r\nhost: localhost\r\n", request.path);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {body_bytes}\r\n\r\n"));
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn a_body_that_announces_to_be_too_large_is_refused_unread() {
    let world = World::start().await;
    let client = world.client(miner());
    let request = client.request(SynapseKind::Task, "x");
    let reply = announce(&world, &request, SynapseKind::Task.max_body_bytes() + 1).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert!(reply.contains("connection: close") && reply.contains("bt_header_axon_signature: 0x"));
    world.stop().await;
}

#[tokio::test]
async fn a_heartbeat_of_ten_megabytes_is_refused_and_counted_and_the_next_one_is_heard() {
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;
    let reply = announce(&world, &client.request(SynapseKind::Heartbeat, "x"), 10_000_000).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    let beat = client.call(&session, SynapseKind::Heartbeat, &heartbeat("x")).await;
    assert_eq!(read_answer::<HeartbeatResponse>(beat).unwrap().workers_processed, 1);
    assert_eq!(*world.desk.refused.lock(), [(miner().hotkey(), "body_too_large")]);
    world.stop().await;
}

#[tokio::test]
async fn a_payload_with_numbers_that_are_not_finite_is_refused_and_counted_and_the_next_one_is_heard() {
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;
    let at = |timestamp: &str| format!(r#"{{"hotkey": "x", "workers": [], "timestamp": {timestamp}}}"#);
    let bad = ["NaN", "Infinity", "-Infinity", "1e999"].map(at);
    for (text, seq) in bad.iter().zip(1..) {
        let package = session.outgoing().seal(seq, SynapseKind::Heartbeat.protocol_type(), text).to_text();
        let refused = client.post(SynapseKind::Heartbeat, &package).await;
        assert_eq!(refused.code(), 4015, "{text}: {}", refused.response());
    }
    let package = session.outgoing().seal(9, SynapseKind::Heartbeat.protocol_type(), &at("-1.5")).to_text();
    assert!(ReceivedPackage::parse(&client.post(SynapseKind::Heartbeat, &package).await.response()).is_ok());
    let codes: Vec<_> = world.desk.refused.lock().iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, ["unfit_payload"; 4]);
    world.stop().await;
}

#[tokio::test]
async fn an_unknown_hotkey_is_refused_and_counted_in_nobodys_name() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let world = World::start().await;
    let unknown = world.client(stranger()).post(SynapseKind::Heartbeat, "{}").await;
    assert_eq!(unknown.status, 403);
    let counted = r#"axon_requests_total{synapse="HeartbeatSynapse",status="403"} 1"#;
    let page = recorder.handle().render();
    assert!(page.contains(counted), "{page}");
    assert!(world.desk.refused.lock().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_hides_its_length_is_cut_at_the_limit() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let axon = axon(&clock, 150);
    let too_large = vec![b' '; SynapseKind::Task.max_body_bytes() + 1];
    for (kind, fits) in [(SynapseKind::Task, false), (SynapseKind::ChallengeProof, true)] {
        let received = axon.receive_body(kind, &HeaderMap::new(), Body::from(too_large.clone())).await;
        assert_eq!(received.map(|(body, _)| body.len()).ok(), fits.then_some(too_large.len()));
    }
    let refusal = axon.receive_body(SynapseKind::Task, &HeaderMap::new(), Body::from(too_large)).await.map(|_| ());
    assert_eq!(refusal, Err(Refusal::TooLarge));
}

#[tokio::test]
async fn bodies_and_routes_that_do_not_fit_get_their_status() {
    let world = World::start().await;
    let client = world.client(miner());
    let with_body = |body: &str| {
        let mut request = client.request(SynapseKind::Task, "x");
        body.clone_into(&mut request.body);
        request
    };
    assert_eq!(client.send(with_body("{")).await.status, 422);
    assert_eq!(client.send(with_body("")).await.status, 400);
    assert_eq!(client.send(with_body("[]")).await.status, 400);

    let mut unknown = client.request(SynapseKind::Task, "x");
    unknown.path = "Synapse";
    let unknown = client.send(unknown).await;
    assert!(
        unknown.message().starts_with("Synapse name 'Synapse' not found. Available synapses ['SessionInitSynapse'")
    );
    assert_eq!((unknown.status, unknown.headers["name"].to_str().unwrap()), (404, "Synapse"));

    let url = format!("http://{}/TaskSynapse", world.address);
    assert_eq!(client.http.put(&url).send().await.unwrap().status().as_u16(), 405);
    assert_eq!(client.http.post(format!("{url}/more")).send().await.unwrap().status().as_u16(), 404);
    world.stop().await;
}

#[tokio::test]
async fn a_failing_desk_costs_one_request_and_shows_nothing() {
    let world = World::start().await;
    let client = world.client(miner());
    let session = client.handshake().await;
    let package = session.seal("HEARTBEAT_V1", &heartbeat("panic")).unwrap().to_text();
    let failed = client.post(SynapseKind::Heartbeat, &package).await;
    assert_eq!(failed.status, 500);
    assert!(failed.message().starts_with("Internal Server Error #"));
    assert!(!failed.message().contains("test"));
    let beat = client.call(&session, SynapseKind::Heartbeat, &heartbeat("x")).await;
    assert!(read_answer::<HeartbeatResponse>(beat).is_ok());
    world.stop().await;
}

#[tokio::test]
async fn handshakes_and_requests_have_their_rates() {
    let world = World::with_limit(2).await;
    let client = world.client(miner());
    let session = client.handshake().await;
    for _ in 0..4 {
        client.handshake().await;
    }
    assert_eq!(client.try_handshake().await.unwrap_err().code(), 4018);

    // Two are allowed, and three more for the one challenge that the first brought.
    let other = world.client(other_miner());
    let own_session = other.handshake().await;
    other.call(&own_session, SynapseKind::Task, &TaskRequest::new(other_miner().hotkey(), 0.0)).await;
    for _ in 0..4 {
        other.call(&own_session, SynapseKind::Heartbeat, &heartbeat("x")).await;
    }
    let refused = other.post(SynapseKind::Heartbeat, "x").await;
    assert_eq!(refused.response(), r#"{"error": "rate_limited", "error_code": 1003}"#);

    // The first session made room for later ones; the rate of one caller is not that of another.
    let package = session.seal("TASK_V1", &json!({})).unwrap().to_text();
    assert_eq!(client.post(SynapseKind::Task, &package).await.code(), 4012);
    world.stop().await;
}

#[tokio::test]
async fn a_disabled_route_is_answered_as_if_it_did_not_exist() {
    let clock = Arc::new(ManualClock::new(NOW_MS));
    let world = World::serving(axon(&clock, 150).without(vec![SynapseKind::Challenge]), clock).await;
    assert_eq!(world.client(miner()).post(SynapseKind::Challenge, "x").await.status, 404);
    assert_eq!(world.client(miner()).post(SynapseKind::Task, "x").await.status, 200);
    world.stop().await;
}
