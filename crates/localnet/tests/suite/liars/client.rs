//! A miner that can say anything: requests signed by its hotkey, sealed in its sessions, and whatever it does to them.

use byteleap_chain::Hotkey;
use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_protocol::{
    Object,
    challenge::{ChallengeItem, ChallengeKind},
    hotkey::{Keypair, Signer},
    id::{ChallengeId, WorkerId},
    merkle::NodeHash,
    payload::{
        Commitment, CommitmentData, CommitmentResponse, ErrorAnswer, ProofData, ProofResponse, SCHEMA_VERSION,
        TaskRequest, TaskResponse, read_answer,
    },
    session::{ClientHandshake, ReceivedPackage, Session, SessionInitResponse},
    synapse::{AxonAddress, Dendrite, NonceSource, ReplyError, Request, SynapseKind, read_reply},
};
use rand_core::OsRng;
use serde::Serialize;
use serde_json::{Value, json};

/// What the wire answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Refused by its headers or body: HTTP status and message.
    Http(u16, String),
    /// Refused as a package: code and text, in the clear.
    Plain(i64, String),
    /// Refused by what stands behind the session: the sealed text.
    Refused(String),
    /// Served.
    Served(Value),
}

impl Answer {
    /// The refusal of the HTTP layer, without a number's or a hotkey's particulars.
    pub(super) fn http(&self) -> (u16, &str) {
        match self {
            Self::Http(status, message) => (*status, message),
            other => panic!("not refused over HTTP: {other:?}"),
        }
    }

    /// The code of a refused package.
    pub(super) fn code(&self) -> i64 {
        match self {
            Self::Plain(code, _) => *code,
            other => panic!("not refused as a package: {other:?}"),
        }
    }

    /// The sealed refusal.
    pub(super) fn refusal(&self) -> &str {
        match self {
            Self::Refused(text) => text,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// What was served.
    pub(super) fn served(self) -> Value {
        match self {
            Self::Served(value) => value,
            other => panic!("not served: {other:?}"),
        }
    }
}

/// A miner with one open session.
pub(super) struct Miner {
    pub(super) hotkey: Hotkey,
    pub(super) session: Session,
    wire: Wire,
}

/// How its requests leave.
struct Wire {
    dendrite: Dendrite<Keypair>,
    nonces: NonceSource,
    axon: AxonAddress,
    http: reqwest::Client,
}

impl Miner {
    /// Opens a session with the validator at this port of loopback.
    pub(super) async fn connect(keypair: Keypair, validator: Hotkey, port: u16) -> Self {
        let hotkey = keypair.hotkey();
        let wire = Wire {
            dendrite: Dendrite::new(keypair, format!("liar-{hotkey}"), "127.0.0.1".to_owned()),
            nonces: NonceSource::default(),
            axon: AxonAddress { hotkey: validator, ip: "127.0.0.1".to_owned(), port },
            http: reqwest::Client::new(),
        };
        let handshake = ClientHandshake::new(&mut OsRng, 0.0);
        let reply = wire.send(wire.request(SynapseKind::SessionInit, handshake.request().to_text())).await.unwrap();
        let response = SessionInitResponse::parse(&reply).unwrap();
        let session = handshake.finish(&response, hotkey, validator).unwrap();
        Self { hotkey, session, wire }
    }

    /// A signed request, to be sent or to be tampered with.
    pub(super) fn request(&self, kind: SynapseKind, payload: String) -> Request {
        self.wire.request(kind, payload)
    }

    /// Seals a payload for the session.
    pub(super) fn seal(&self, kind: SynapseKind, payload: &impl Serialize) -> String {
        self.session.seal(kind.protocol_type(), payload).unwrap().to_text()
    }

    /// Sends a request as it is, and opens what comes back.
    pub(super) async fn send(&self, kind: SynapseKind, request: Request) -> Answer {
        let text = match self.wire.send(request).await {
            Ok(text) => text,
            Err(ReplyError::Refused { status, message }) => return Answer::Http(status, message),
            Err(error) => panic!("{error}"),
        };
        if let Ok(ErrorAnswer { error, error_code }) = serde_json::from_str(&text) {
            return Answer::Plain(error_code.unwrap_or_default(), error);
        }
        let answer = self.session.open(&ReceivedPackage::parse(&text).unwrap(), kind.protocol_type()).unwrap();
        let answer: Value = answer.read().unwrap();
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Answer::Refused(error.to_owned()),
            None => Answer::Served(answer),
        }
    }

    /// Signs and sends a package that was sealed before.
    pub(super) async fn deliver(&self, kind: SynapseKind, package: String) -> Answer {
        self.send(kind, self.request(kind, package)).await
    }

    /// Seals, signs and sends.
    pub(super) async fn call(&self, kind: SynapseKind, payload: &impl Serialize) -> Answer {
        self.deliver(kind, self.seal(kind, payload)).await
    }

    /// Reports workers in the name of `named`, which an honest miner is itself; each worker is a JSON object.
    pub(super) async fn report(&self, named: Hotkey, workers: &[Value]) -> Value {
        self.call(SynapseKind::Heartbeat, &json!({ "hotkey": named, "workers": workers })).await.served()
    }

    /// Fetches whatever waits for its workers.
    pub(super) async fn fetch(&self) -> Vec<ChallengeItem> {
        let answer = self.call(SynapseKind::Task, &TaskRequest::new(self.hotkey, 0.0)).await.served();
        read_answer::<TaskResponse>(answer).unwrap().challenges
    }

    /// Commits to a result.
    pub(super) async fn commit(&self, challenge: &ChallengeId, worker: &str, root: NodeHash) -> Answer {
        let commitment = CommitmentData {
            challenge_id: challenge.clone(),
            worker_id: WorkerId::new(worker).unwrap(),
            commitments: vec![Commitment::cpu(root)],
            debug_info: Object::new(),
            schema_version: SCHEMA_VERSION,
        };
        self.call(SynapseKind::Challenge, &commitment).await
    }

    /// Sends a proof.
    pub(super) async fn prove(&self, challenge: &ChallengeId, proof: ProofResponse) -> Answer {
        let proof = ProofData {
            challenge_id: challenge.clone(),
            proofs: vec![proof],
            debug_info: Object::new(),
            schema_version: SCHEMA_VERSION,
        };
        self.call(SynapseKind::ChallengeProof, &proof).await
    }
}

impl Wire {
    fn request(&self, kind: SynapseKind, payload: String) -> Request {
        let now_ns = u64::try_from(SystemClock::new().unix_ms()).unwrap() * 1_000_000;
        self.dendrite.request(kind, &self.axon, kind.timeout(), self.nonces.next(now_ns), payload)
    }

    /// Sends a request and gives the text of the field `response`.
    async fn send(&self, request: Request) -> Result<String, ReplyError> {
        let url = format!("http://127.0.0.1:{}/{}", self.axon.port, request.path);
        let mut call = self.http.post(url).header("content-type", "application/json").body(request.body);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        let reply = call.send().await.unwrap();
        let status = reply.status().as_u16();
        let content_type = reply.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
        read_reply(status, content_type.as_deref(), &reply.bytes().await.unwrap())
    }
}

/// The rows that a commitment's answer asks for.
pub(super) fn rows_asked(answer: Answer) -> Vec<u32> {
    read_answer::<CommitmentResponse>(answer.served()).unwrap().proof_requests.remove(0).rows
}

/// A worker as a heartbeat lists it.
pub(super) fn worker(worker_id: &str) -> Value {
    json!({ "worker_id": worker_id, "capabilities": [ChallengeKind::CpuMatrix.as_str()] })
}
