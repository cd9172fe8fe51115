//! A synapse: one signed HTTP request from miner ("dendrite") to validator ("axon") and its reply
//! (miner-validator spec 1 and 2.1), as texts and header pairs; who sends them is not this crate's business.
//!
//! On the way out, a [`Dendrite`] makes a [`Request`]. On the way in, the server reads a [`RequestHead`] from the
//! headers, [`RequestHead::admit`]s the caller, and only then reads the [`RequestBody`]; every end is a [`Reply`], and
//! [`read_reply`] is what the client makes of it.
//!
//! The signature covers no byte of the body, so a body that names another caller than the signed header is refused, and
//! whatever matters travels sealed in a session.

use std::time::Duration;

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha3::{Digest, Sha3_256};

use crate::hotkey::{Hotkey, Signer};
use crate::{canonical, lenient};

mod admission;
mod reply;

pub use admission::{MAX_CLOCK_SKEW, MAX_TIMEOUT, NonceTable, Refusal, RequestHead};
pub use reply::{AxonMark, Reply, ReplyError, read_reply};

/// The client library's version that every request names: `major * 10^6 + minor * 10^3 + patch`. An older one would
/// switch the reference server's freshness test off.
pub const DENDRITE_VERSION: u32 = 9_010_000;

/// The six synapses (miner-validator spec 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SynapseKind {
    /// Opens a session; the only one whose payload is plain.
    SessionInit,
    /// Reports workers.
    Heartbeat,
    /// Polls for challenges.
    Task,
    /// Commits to a result.
    Challenge,
    /// Proves it.
    ChallengeProof,
    /// Asks for an enrolment token of the VM gateway.
    GetVmgwEnrollToken,
}

impl SynapseKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SessionInit,
        Self::Heartbeat,
        Self::Task,
        Self::Challenge,
        Self::ChallengeProof,
        Self::GetVmgwEnrollToken,
    ];

    /// The class name, which is the only segment of the URL's path.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionInit => "SessionInitSynapse",
            Self::Heartbeat => "HeartbeatSynapse",
            Self::Task => "TaskSynapse",
            Self::Challenge => "ChallengeSynapse",
            Self::ChallengeProof => "ChallengeProofSynapse",
            Self::GetVmgwEnrollToken => "GetVmgwEnrollTokenSynapse",
        }
    }

    /// The synapse of a class name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The protocol type that seals its packages, the same in both directions.
    #[must_use]
    pub fn protocol_type(self) -> &'static str {
        match self {
            Self::SessionInit => "SESSION_INIT_V1",
            Self::Heartbeat => "HEARTBEAT_V1",
            Self::Task => "TASK_V1",
            Self::Challenge => "CHALLENGE_V1",
            Self::ChallengeProof => "CHALLENGE_PROOF_V1",
            Self::GetVmgwEnrollToken => "GET_VMGW_ENROLL_TOKEN_V1",
        }
    }

    /// How long a client waits in all: connect, send, wait and read.
    #[must_use]
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::SessionInit | Self::Heartbeat => 30,
            Self::Task | Self::GetVmgwEnrollToken => 10,
            Self::Challenge => 15,
            Self::ChallengeProof => 40,
        })
    }

    /// Largest request body that a server takes, bytes (miner-validator spec 8).
    #[must_use]
    pub fn max_body_bytes(self) -> usize {
        match self {
            Self::ChallengeProof => 64 * 1024 * 1024,
            _ => 8 * 1024 * 1024,
        }
    }

    /// Whether a request may be sent again when it is not known to have been processed.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Challenge | Self::ChallengeProof)
    }
}

/// The body hash (miner-validator spec 1.4): SHA3-256 over the hex hashes of the hashed fields' texts. No synapse has a
/// hashed field, so it is the same for all of them.
#[must_use]
pub fn body_hash() -> String {
    const HASHED_FIELDS: [&str; 0] = [];
    let digests: String = HASHED_FIELDS.iter().map(|text| hex::encode(Sha3_256::digest(text))).collect();
    hex::encode(Sha3_256::digest(digests))
}

/// What a client signs.
fn dendrite_message(nonce: &str, dendrite: &str, axon: &str, uuid: &str, body_hash: &str) -> String {
    [nonce, dendrite, axon, uuid, body_hash].join(".")
}

/// One end of a synapse as the body describes it. The order of fields is that of the wire.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Terminal {
    /// HTTP status of the exchange.
    #[serde(deserialize_with = "lenient::read")]
    pub status_code: Option<i64>,
    /// Its text.
    #[serde(deserialize_with = "lenient::read")]
    pub status_message: Option<String>,
    /// Time that the server took, s.
    #[serde(deserialize_with = "lenient::read")]
    pub process_time: Option<f64>,
    /// Address.
    #[serde(deserialize_with = "lenient::read")]
    pub ip: Option<String>,
    /// Port.
    #[serde(deserialize_with = "lenient::read")]
    pub port: Option<i64>,
    /// Library version.
    #[serde(deserialize_with = "lenient::read")]
    pub version: Option<i64>,
    /// Nanoseconds since the epoch.
    #[serde(deserialize_with = "lenient::read")]
    pub nonce: Option<u64>,
    /// The process, as it names itself.
    #[serde(deserialize_with = "lenient::read")]
    pub uuid: Option<String>,
    /// Its hotkey as text.
    #[serde(deserialize_with = "lenient::read")]
    pub hotkey: Option<String>,
    /// Its signature as text.
    #[serde(deserialize_with = "lenient::read")]
    pub signature: Option<String>,
}

impl Terminal {
    /// The fields that are not null, as headers with this prefix.
    fn headers(&self, prefix: TerminalPrefix) -> Vec<(&'static str, String)> {
        let texts = [
            self.status_code.map(|code| code.to_string()),
            self.status_message.clone(),
            self.process_time.map(canonical::float),
            self.ip.clone(),
            self.port.map(|port| port.to_string()),
            self.version.map(|version| version.to_string()),
            self.nonce.map(|nonce| nonce.to_string()),
            self.uuid.clone(),
            self.hotkey.clone(),
            self.signature.clone(),
        ];
        let names = prefix.header_names().into_iter();
        names
            .zip(texts)
            .filter_map(|(name, text)| text.filter(|text| fits_header(text)).map(|text| (name, text)))
            .collect()
    }
}

/// Whether a text may stand in a header line: printable ASCII, far below the line limit of clients.
fn fits_header(text: &str) -> bool {
    text.len() <= 1024 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[derive(Clone, Copy)]
enum TerminalPrefix {
    Axon,
    Dendrite,
}

impl TerminalPrefix {
    /// In the order of [`Terminal`]'s fields.
    fn header_names(self) -> [&'static str; 10] {
        match self {
            Self::Axon => [
                "bt_header_axon_status_code",
                "bt_header_axon_status_message",
                "bt_header_axon_process_time",
                "bt_header_axon_ip",
                "bt_header_axon_port",
                "bt_header_axon_version",
                "bt_header_axon_nonce",
                "bt_header_axon_uuid",
                "bt_header_axon_hotkey",
                "bt_header_axon_signature",
            ],
            Self::Dendrite => [
                "bt_header_dendrite_status_code",
                "bt_header_dendrite_status_message",
                "bt_header_dendrite_process_time",
                "bt_header_dendrite_ip",
                "bt_header_dendrite_port",
                "bt_header_dendrite_version",
                "bt_header_dendrite_nonce",
                "bt_header_dendrite_uuid",
                "bt_header_dendrite_hotkey",
                "bt_header_dendrite_signature",
            ],
        }
    }
}

/// The server of a request: who it is and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxonAddress {
    /// The validator.
    pub hotkey: Hotkey,
    /// Its address as text, without brackets.
    pub ip: String,
    /// Its port.
    pub port: u16,
}

/// The client's side: signs requests. One per process, with one long-lived UUID.
pub struct Dendrite<S> {
    signer: S,
    uuid: String,
    /// The own address as this side believes it; for logs of the server only.
    ip: String,
}

/// A request to send: `POST /<path>` with these headers and this body, `Content-Type: application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path without slash.
    pub path: &'static str,
    /// Headers of miner-validator spec 1.2, in its order.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

impl<S: Signer> Dendrite<S> {
    /// A client that signs by `signer` and names itself `uuid` (any text that is unique to the process).
    #[must_use]
    pub fn new(signer: S, uuid: String, ip: String) -> Self {
        Self { signer, uuid, ip }
    }

    /// The client's hotkey.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        self.signer.hotkey()
    }

    /// Makes and signs a request.
    ///
    /// `nonce`, nanoseconds since the epoch, must be greater than that of every request before.
    #[must_use]
    pub fn request(
        &self,
        kind: SynapseKind,
        axon: &AxonAddress,
        timeout: Duration,
        nonce: u64,
        payload: String,
    ) -> Request {
        let hotkey = self.signer.hotkey().to_string();
        let body_hash = body_hash();
        let message = dendrite_message(&nonce.to_string(), &hotkey, &axon.hotkey.to_string(), &self.uuid, &body_hash);
        let dendrite = Terminal {
            ip: Some(self.ip.clone()),
            version: Some(DENDRITE_VERSION.into()),
            nonce: Some(nonce),
            uuid: Some(self.uuid.clone()),
            hotkey: Some(hotkey),
            signature: Some(self.signer.sign(message.as_bytes()).to_string()),
            ..Terminal::default()
        };
        let axon = Terminal {
            ip: Some(axon.ip.clone()),
            port: Some(axon.port.into()),
            hotkey: Some(axon.hotkey.to_string()),
            ..Terminal::default()
        };
        let mut headers = vec![("name", kind.name().to_owned()), ("timeout", canonical::float(timeout.as_secs_f64()))];
        headers.extend(axon.headers(TerminalPrefix::Axon));
        headers.extend(dendrite.headers(TerminalPrefix::Dendrite));
        // Memory sizes of a Python process: only their being numbers counts.
        headers.extend([("header_size", "0".to_owned()), ("total_size", "0".to_owned())]);
        headers.push(("computed_body_hash", body_hash));
        let body = RequestBody {
            timeout: timeout.as_secs_f64(),
            dendrite: Some(dendrite),
            axon: Some(axon),
            request: Some(payload),
        };
        let body = canonical::ascii(&BodyText { kind, body: &body, response: None });
        Request { path: kind.name(), headers, body }
    }
}

/// Hands out strictly increasing nonces from a clock that may stand still or step back.
#[derive(Debug, Default)]
pub struct NonceSource(std::sync::atomic::AtomicU64);

impl NonceSource {
    /// The next nonce at `now_ns` nanoseconds since the epoch.
    pub fn next(&self, now_ns: u64) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let step = |last: u64| Some(now_ns.max(last.saturating_add(1)));
        let last = self.0.fetch_update(Relaxed, Relaxed, step).unwrap_or_else(|last| last);
        now_ns.max(last.saturating_add(1))
    }
}

/// What a server reads of a request's body.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct RequestBody {
    /// The client's patience, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timeout: f64,
    /// The client; must name the caller of the signed headers.
    #[serde(default)]
    pub dendrite: Option<Terminal>,
    /// The server.
    #[serde(default)]
    pub axon: Option<Terminal>,
    /// The payload: a plain text or a package.
    #[serde(default, deserialize_with = "lenient::read")]
    pub request: Option<String>,
}

/// A body on the wire: the library's fields first, then those of the class, in the order of its declaration.
struct BodyText<'a> {
    kind: SynapseKind,
    body: &'a RequestBody,
    response: Option<&'a str>,
}

impl Serialize for BodyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.kind.name())?;
        map.serialize_entry("timeout", &self.body.timeout)?;
        map.serialize_entry("total_size", &0)?;
        map.serialize_entry("header_size", &0)?;
        // Absent reads as an empty terminal; a reference client trips over null.
        for (key, terminal) in [("dendrite", &self.body.dendrite), ("axon", &self.body.axon)] {
            if let Some(terminal) = terminal {
                map.serialize_entry(key, terminal)?;
            }
        }
        map.serialize_entry("computed_body_hash", "")?;
        map.serialize_entry("request", &self.body.request)?;
        map.serialize_entry("response", &self.response)?;
        if self.kind != SynapseKind::SessionInit {
            map.serialize_entry("protocol_version", &1)?;
        }
        // Declared by the class and never filled: what they are named after travels sealed.
        let unfilled: &[(&str, Value)] = match self.kind {
            SynapseKind::Challenge => &[("proof_requests", Value::Null)],
            SynapseKind::GetVmgwEnrollToken => &[
                ("worker_id", json!("")),
                ("code", json!(0)),
                ("try_again_in_sec", Value::Null),
                ("token", Value::Null),
                ("expires_at", Value::Null),
                ("enrollment_url", Value::Null),
                ("error_message", Value::Null),
            ],
            _ => &[],
        };
        for (key, value) in unfilled {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
