//! The messages between worker and miner: one JSON object per WebSocket message (worker-miner spec 2).
//!
//! [`WorkerFrame`] goes up, [`MinerFrame`] comes down. Both read tolerantly and write strictly; a message that cannot be
//! used is a [`FrameError`], after which a registered connection goes on.

use std::sync::Arc;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::challenge::{ChallengeKind, TimeoutSeconds};
use crate::code::{CloseCode, ErrorCode};
use crate::feedback::Relayed;
use crate::hotkey::Hotkey;
use crate::id::{ChallengeId, MessageId, WorkerId};
use crate::payload::{Commitment, ProofRequest, ProofResponse};
use crate::worker_key::KeyProof;
use crate::{Object, canonical, lenient};

/// Largest message that a miner takes from a worker, bytes after decompression (worker-miner spec 1.2).
pub const MAX_WORKER_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// Largest message that a Python worker takes from its miner, bytes (worker-miner spec 1.2).
pub const MAX_MINER_FRAME_BYTES: usize = 1024 * 1024;

/// Most bytes of a worker's name or version (worker-miner spec 1.4).
const MAX_LABEL_BYTES: usize = 128;

/// A message from worker to miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkerFrame {
    /// First message on every connection; answered by [`MinerFrame::RegistrationAck`].
    Register(Register),
    /// Periodic report; answered by [`MinerFrame::HeartbeatAck`].
    Heartbeat {
        /// The report.
        data: WorkerHeartbeat,
    },
    /// A task has ended.
    TaskResult(TaskResult),
    /// The answer to [`MinerFrame::ProofRequest`].
    ProofResponse {
        /// Copied from the request.
        message_id: MessageId,
        /// The openings.
        data: ProofAnswer,
    },
    /// The VM gateway client needs a token.
    VmgwEnrollTokenRequest {
        /// For whom.
        data: crate::payload::TokenRequest,
    },
    /// The answer to [`MinerFrame::HeartbeatRequest`].
    HeartbeatResponse {
        /// The sender.
        worker_id: WorkerId,
        /// Send time, s.
        #[serde(deserialize_with = "lenient::read")]
        timestamp: f64,
        /// Copied from the request.
        #[serde(default)]
        message_id: Option<MessageId>,
    },
}

/// A message from miner to worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MinerFrame {
    /// The worker is registered.
    RegistrationAck {
        /// Always [`Registered`]; a worker looks at the type only.
        #[serde(default)]
        data: Registered,
    },
    /// The heartbeat was taken in.
    HeartbeatAck,
    /// A challenge to compute.
    TaskAssignment {
        /// The task.
        data: TaskAssignment,
    },
    /// Rows and values to open; answered by [`WorkerFrame::ProofResponse`].
    ProofRequest {
        /// Correlates the answer.
        message_id: MessageId,
        /// What to open.
        data: ProofQuery,
    },
    /// The answer to [`WorkerFrame::VmgwEnrollTokenRequest`].
    VmgwEnrollTokenResponse {
        /// The token, or why there is none.
        data: TokenAnswer,
    },
    /// Asks for a [`WorkerFrame::HeartbeatResponse`]; never sent by the reference.
    HeartbeatRequest {
        /// Correlates the answer.
        #[serde(default)]
        message_id: Option<MessageId>,
    },
    /// What validators tell of this worker: ours, never answered, sent only to a worker that has proved a key.
    Feedback {
        /// That.
        #[serde(default)]
        data: Relayed,
    },
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Its identity within the miner; [`Self::identity`] proves it.
    pub worker_id: WorkerId,
    /// Display name; the miner puts the identity in its place when empty.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_name: Option<String>,
    /// Software version.
    #[serde(deserialize_with = "lenient::read")]
    pub worker_version: String,
    /// Challenge kinds that it computes, as texts.
    #[serde(default, deserialize_with = "lenient::read")]
    pub capabilities: Vec<String>,
    /// Its host, unchecked.
    #[serde(default, deserialize_with = "lenient::read")]
    pub system_info: Object,
    /// The worker's key and the proof that it holds it: ours, read over by a Python miner (worker-miner spec 11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<KeyProof>,
}

/// The acknowledgement's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Always `registered`.
    #[serde(default, deserialize_with = "lenient::read")]
    pub status: String,
}

impl Default for Registered {
    fn default() -> Self {
        Self { status: "registered".to_owned() }
    }
}

/// A worker's periodic report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WorkerHeartbeat {
    /// `busy` or `online`; the miner keeps its own status.
    #[serde(default, deserialize_with = "lenient::read")]
    pub status: Option<String>,
    /// How many tasks it holds.
    #[serde(default, deserialize_with = "lenient::read")]
    pub active_tasks: Option<i64>,
    /// Its host; replaces what is stored.
    #[serde(deserialize_with = "lenient::read")]
    pub system_info: Object,
    /// Summary of its GPUs.
    #[serde(default, deserialize_with = "lenient::read")]
    pub gpu_info: Option<Object>,
    /// Challenge kinds that it computes. Absent leaves what is stored; always sent.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

/// A heartbeat as far as a miner looks into it: the host data stay text, since they are passed on a minute later, and ten
/// thousand trees of them would cost four times their size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeartbeatReport {
    /// How many tasks the worker holds, where it says so.
    pub active_tasks: Option<i64>,
    /// Challenge kinds that it computes; absent leaves what is stored.
    pub capabilities: Option<Vec<String>>,
    /// Its host; replaces what is stored.
    pub system_info: HostData,
}

/// A host's data, as the text of one JSON object; a cheap handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostData(Arc<str>);

impl Default for HostData {
    fn default() -> Self {
        Self("{}".into())
    }
}

impl From<&Object> for HostData {
    fn from(object: &Object) -> Self {
        Self(serde_json::to_string(object).unwrap_or_else(|_| "{}".to_owned()).into())
    }
}

impl HostData {
    /// The data, read.
    ///
    /// # Errors
    /// The object is nested too deeply.
    pub fn read(&self) -> Result<Object, serde_json::Error> {
        serde_json::from_str(&self.0)
    }
}

impl From<WorkerHeartbeat> for HeartbeatReport {
    fn from(heartbeat: WorkerHeartbeat) -> Self {
        Self {
            active_tasks: heartbeat.active_tasks,
            capabilities: heartbeat.capabilities,
            system_info: HostData::from(&heartbeat.system_info),
        }
    }
}

impl HeartbeatReport {
    /// Reads a heartbeat in the form that workers send, without building a tree of it. None for every other message, and
    /// for a heartbeat that needs tolerance: [`WorkerFrame::decode`] is for these, and reads the same out of this one, unless
    /// it refuses it for what is not looked at here.
    #[must_use]
    pub fn glance(message: &[u8]) -> Option<Self> {
        const BEGINNINGS: [&[u8]; 2] = [br#"{"type": "heartbeat""#, br#"{"type":"heartbeat""#];
        if !BEGINNINGS.iter().any(|beginning| message.starts_with(beginning)) {
            return None;
        }
        let PlainHeartbeat { data, .. } = serde_json::from_slice(message).ok()?;
        let is_object = |raw: &RawValue| raw.get().starts_with('{');
        if !is_object(data.system_info) || data.gpu_info.is_some_and(|raw| !is_object(raw)) {
            return None;
        }
        Some(Self {
            active_tasks: data.active_tasks,
            capabilities: data.capabilities,
            system_info: HostData(data.system_info.get().into()),
        })
    }
}

/// A heartbeat in which nothing needs conversion.
#[derive(Deserialize)]
struct PlainHeartbeat<'message> {
    #[serde(rename = "type")]
    _kind: &'message str,
    #[serde(borrow)]
    data: PlainReport<'message>,
}

#[derive(Deserialize)]
struct PlainReport<'message> {
    #[serde(default, rename = "status")]
    _status: Option<&'message str>,
    #[serde(default)]
    active_tasks: Option<i64>,
    #[serde(borrow)]
    system_info: &'message RawValue,
    #[serde(borrow, default)]
    gpu_info: Option<&'message RawValue>,
    #[serde(default)]
    capabilities: Option<Vec<String>>,
}

/// A proof that is read straight from its text: a GPU's has a hundred thousand numbers, of which a tree of JSON values would
/// be many times the size.
#[derive(Deserialize)]
struct PlainProof {
    #[serde(rename = "type", deserialize_with = "proof_type")]
    _kind: (),
    message_id: MessageId,
    data: ProofAnswer,
}

impl PlainProof {
    /// None for every other message, and for a proof that is malformed or names a field twice: there, a tree has the last word.
    fn glance(message: &[u8]) -> Option<Self> {
        lenient::from_str(std::str::from_utf8(message).ok()?).ok()
    }
}

/// Ends the reading of every message but a proof at its type, which comes first.
fn proof_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "proof_response" => Ok(()),
        _ => Err(D::Error::custom("no proof")),
    }
}

/// A challenge for this worker.
///
/// All but the identity is optional here, since a worker must be able to refuse an unusable task by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskAssignment {
    /// The challenge.
    pub task_id: ChallengeId,
    /// Its kind as text, possibly an unknown one; empty if missing.
    #[serde(default, deserialize_with = "lenient::read")]
    pub task_type: String,
    /// The same as `task_id`.
    #[serde(default)]
    pub challenge_id: Option<ChallengeId>,
    /// Its definition; see [`crate::challenge::ChallengeData::parse`].
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub data: Object,
    /// How long the worker has; absent means its own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<TimeoutSeconds>,
    /// The validator that will ask for openings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validator_hotkey: Option<Hotkey>,
}

impl TaskAssignment {
    /// The kind, if it is a known one.
    #[must_use]
    pub fn kind(&self) -> Option<ChallengeKind> {
        ChallengeKind::from_text(&self.task_type)
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The sender as it names itself; the connection's identity is what counts.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_id: String,
    /// From the assignment.
    pub task_id: ChallengeId,
    /// Send time, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timestamp: f64,
    /// The outcome.
    pub data: TaskOutcome,
}

/// The outcome of a task.
///
/// A reference worker reports its internal errors without `success` and `error_code`; that reads as a failure
/// (worker-miner spec 2.8, fault F3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// Whether there is a result.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// 0, or 1006.
    #[serde(default = "challenge_processing_failed", deserialize_with = "lenient::read")]
    pub error_code: i64,
    /// The result; see [`ChallengeResult`]. Empty after a failure.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub result: Object,
    /// Why not (GPU path).
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why not (CPU path).
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// When the worker took and finished it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<TaskTimestamps>,
}

fn challenge_processing_failed() -> i64 {
    ErrorCode::ChallengeProcessingFailed.number()
}

impl TaskOutcome {
    /// A task that has a result.
    #[must_use]
    pub fn completed(result: &ChallengeResult, timestamps: TaskTimestamps) -> Self {
        let result = match serde_json::to_value(result) {
            Ok(Value::Object(result)) => result,
            _ => Object::new(),
        };
        Self {
            success: true,
            error_code: ErrorCode::Success.number(),
            result,
            error: None,
            error_message: None,
            timestamps: Some(timestamps),
        }
    }

    /// A task that was refused or failed, and why.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self {
            success: false,
            error_code: challenge_processing_failed(),
            result: Object::new(),
            error: Some(error.into()),
            error_message: None,
            timestamps: None,
        }
    }

    /// The result of a task that succeeded, or why there is none.
    ///
    /// # Errors
    /// The worker's reason, or what is wrong with its result.
    pub fn challenge_result(&self) -> Result<ChallengeResult, String> {
        if !self.success || self.error_code != ErrorCode::Success.number() {
            let reason = self.error.as_deref().or(self.error_message.as_deref()).unwrap_or("no reason given");
            return Err(format!("worker failed with code {}: {reason}", self.error_code));
        }
        let result: ChallengeResult = serde_json::from_value(Value::Object(self.result.clone()))
            .map_err(|error| format!("malformed result: {error}"))?;
        if result.commitments.is_empty() {
            return Err("result without a commitment".to_owned());
        }
        Ok(result)
    }
}

/// When a worker took and finished a task, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TaskTimestamps {
    /// Taken.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_task_received_ts: i64,
    /// Finished.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_task_completed_ts: i64,
}

/// What a completed challenge yields (worker-miner spec 4.7 and 5.9).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChallengeResult {
    /// Time of the product, ms; informational.
    #[serde(default, deserialize_with = "lenient::read")]
    pub computation_time_ms: f64,
    /// Side of the matrices; informational.
    #[serde(default, deserialize_with = "lenient::read")]
    pub matrix_size: u32,
    /// One per unit.
    pub commitments: Vec<Commitment>,
}

/// What the miner wants opened, on behalf of a validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofQuery {
    /// That validator.
    pub validator_hotkey: Hotkey,
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// One per unit.
    pub requests: Vec<ProofRequest>,
}

/// A worker's openings, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofAnswer {
    /// Whether at least one unit could be opened.
    #[serde(deserialize_with = "lenient::read")]
    pub success: bool,
    /// The units that could.
    #[serde(default)]
    pub proofs: Vec<ProofResponse>,
    /// Timestamps; a reference miner needs an object here (fault F51), so it is always sent.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub debug: Object,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ProofAnswer {
    /// Openings, asked for and finished at these milliseconds.
    #[must_use]
    pub fn opened(proofs: Vec<ProofResponse>, received_ts: i64, completed_ts: i64) -> Self {
        let mut debug = Object::new();
        debug.insert(
            "phase2_timestamps".to_owned(),
            serde_json::json!({
                "worker_proof_request_received_ts": received_ts,
                "worker_proof_completed_ts": completed_ts,
            }),
        );
        Self { success: true, proofs, debug, error: None }
    }

    /// No openings, and why.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self { success: false, proofs: Vec::new(), debug: Object::new(), error: Some(error.into()) }
    }

    /// One of the worker's two timestamps of phase 2, ms.
    #[must_use]
    pub fn phase2_timestamp(&self, name: &str) -> Option<i64> {
        self.debug.get("phase2_timestamps")?.get(name)?.as_i64()
    }
}

/// An enrolment token for a worker, or why there is none (worker-miner spec 2.11).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// 0, or 1001 (already asked for), 1002 (another worker), 1003 (not to be had).
    #[serde(deserialize_with = "lenient::read")]
    pub code: i64,
    /// The token.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// ISO 8601, UTC.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Where to enrol.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub enrollment_url: Option<String>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a message cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not JSON, or not UTF-8.
    #[error("message is not JSON")]
    NotJson,
    /// JSON, but no object.
    #[error("message is not an object")]
    NotAnObject,
    /// The type is missing or none of this direction.
    #[error("message of unknown type {0:?}")]
    UnknownType(String),
    /// A registration whose `worker_id` is blank.
    #[error("worker_id is blank")]
    BlankWorkerId,
    /// A registration whose `worker_version` is blank.
    #[error("worker_version is blank")]
    BlankWorkerVersion,
    /// A known type whose content does not fit.
    #[error("invalid {kind}: {reason}")]
    Invalid {
        /// The message's type.
        kind: &'static str,
        /// What does not fit.
        reason: String,
    },
}

impl FrameError {
    /// How a connection ends whose *first* message is this one (worker-miner spec 1.5).
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::NotJson => CloseCode::Normal,
            Self::BlankWorkerId => CloseCode::InvalidWorkerId,
            Self::BlankWorkerVersion => CloseCode::MissingVersion,
            Self::NotAnObject | Self::UnknownType(_) | Self::Invalid { .. } => CloseCode::InvalidRegistration,
        }
    }
}

impl WorkerFrame {
    const TYPES: [&'static str; 6] =
        ["register", "heartbeat", "task_result", "proof_response", "vmgw_enroll_token_request", "heartbeat_response"];

    /// Reads one message, text or binary.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(message: &[u8]) -> Result<Self, FrameError> {
        if let Some(PlainProof { message_id, data, .. }) = PlainProof::glance(message) {
            return Ok(Self::ProofResponse { message_id, data });
        }
        let (kind, object) = open(message, &Self::TYPES)?;
        if kind == "register" {
            let is_blank =
                |key: &str| object.get(key).and_then(Value::as_str).is_some_and(|text| text.trim().is_empty());
            if is_blank("worker_id") {
                return Err(FrameError::BlankWorkerId);
            }
            if is_blank("worker_version") {
                return Err(FrameError::BlankWorkerVersion);
            }
        }
        let frame = fit(kind, object)?;
        if let Self::Register(register) = &frame {
            register.check_labels()?;
        }
        Ok(frame)
    }

    /// The message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        canonical::ascii(self)
    }
}

impl Register {
    fn check_labels(&self) -> Result<(), FrameError> {
        let name = self.worker_name.as_deref().unwrap_or_default();
        if name.len() > MAX_LABEL_BYTES || self.worker_version.len() > MAX_LABEL_BYTES {
            let reason = format!("worker_name and worker_version must have at most {MAX_LABEL_BYTES} bytes");
            return Err(FrameError::Invalid { kind: "register", reason });
        }
        Ok(())
    }
}

impl MinerFrame {
    const TYPES: [&'static str; 7] = [
        "registration_ack",
        "heartbeat_ack",
        "task_assignment",
        "proof_request",
        "vmgw_enroll_token_response",
        "heartbeat_request",
        "feedback",
    ];

    /// Reads one message, text or binary.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(message: &[u8]) -> Result<Self, FrameError> {
        let (kind, object) = open(message, &Self::TYPES)?;
        fit(kind, object)
    }

    /// The message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        canonical::ascii(self)
    }
}

/// Reads the envelope: the known type and the whole object.
fn open(message: &[u8], types: &[&'static str]) -> Result<(&'static str, Object), FrameError> {
    let text = std::str::from_utf8(message).map_err(|_| FrameError::NotJson)?;
    let Value::Object(object) = lenient::parse(text).map_err(|_| FrameError::NotJson)? else {
        return Err(FrameError::NotAnObject);
    };
    let named = object.get("type").and_then(Value::as_str).unwrap_or_default();
    match types.iter().find(|known| **known == named) {
        Some(kind) => Ok((kind, object)),
        None => Err(FrameError::UnknownType(named.chars().take(64).collect())),
    }
}

fn fit<T: DeserializeOwned>(kind: &'static str, object: Object) -> Result<T, FrameError> {
    serde_json::from_value(Value::Object(object))
        .map_err(|error| FrameError::Invalid { kind, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_worker(text: &str) -> Result<WorkerFrame, FrameError> {
        WorkerFrame::decode(text.as_bytes())
    }

    /// As by a tree alone.
    fn from_tree(text: &str) -> Result<WorkerFrame, String> {
        let (kind, object) = open(text.as_bytes(), &WorkerFrame::TYPES).map_err(|error| error.to_string())?;
        fit(kind, object).map_err(|error| error.to_string())
    }

    #[test]
    fn a_proof_reads_the_same_with_and_without_a_tree() {
        let unit =
            r#"{"uuid":"GPU-1","row_hashes":[],"merkle_proofs":[],"coordinate_values":[1,"2.5",NaN,-Infinity,null]}"#;
        let sound =
            format!(r#"{{"type":"proof_response","message_id":"m","data":{{"success":"yes","proofs":[{unit}]}}}}"#);
        assert!(PlainProof::glance(sound.as_bytes()).is_some());
        let type_last =
            r#"{"message_id":"m","data":{"success":true,"debug":null},"type":"proof_response","more":[{}]}"#;
        assert!(PlainProof::glance(type_last.as_bytes()).is_some());
        let twice = sound.replace(r#""message_id":"m""#, r#""message_id":"l","message_id":"m""#);
        assert!(PlainProof::glance(twice.as_bytes()).is_none());
        for text in [&sound, type_last, &twice, &sound.replace("null]", "true]"), &sound.replace("yes", "perhaps")] {
            assert_eq!(from_worker(text).map_err(|error| error.to_string()), from_tree(text), "{text}");
        }
        for other in [r#"{"proof_response":null}"#, r#"["proof_response"]"#, r#""heartbeat""#, "1"] {
            let text = sound.replace(r#""type":"proof_response""#, &format!(r#""type":{other}"#));
            assert!(PlainProof::glance(text.as_bytes()).is_none() && from_worker(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_message_decides_the_close_code() {
        let close = |text: &str| from_worker(text).unwrap_err().close_code().number();
        assert_eq!(close("hello"), 1000);
        assert_eq!(close("[]"), 4000);
        assert_eq!(close(r#"{"type":"hello"}"#), 4000);
        assert_eq!(close(r#"{"type":"register","worker_version":"1"}"#), 4000);
        assert_eq!(close(r#"{"type":"register","worker_id":" ","worker_version":"1"}"#), 4001);
        assert_eq!(close(r#"{"type":"register","worker_id":"w","worker_version":""}"#), 4002);
        assert_eq!(close(r#"{"type":"register","worker_id":"w","worker_version":"1","capabilities":null}"#), 4000);
    }

    #[test]
    fn an_internal_error_of_a_reference_worker_reads_as_a_failure() {
        let frame = from_worker(
            r#"{"type":"task_result","worker_id":"w","task_id":"t","timestamp":1.5,"data":{"error":"boom"}}"#,
        );
        let WorkerFrame::TaskResult(result) = frame.unwrap() else { panic!("not a task result") };
        assert_eq!(result.data.challenge_result().unwrap_err(), "worker failed with code 1006: boom");
    }

    #[test]
    fn an_infinite_time_does_not_cost_the_message() {
        let frame = from_worker(
            r#"{"type":"task_result","worker_id":"w","task_id":"t","timestamp":"1.5","data":{"success":false,"error_code":"1006","execution_time":Infinity}}"#,
        );
        assert!(matches!(frame, Ok(WorkerFrame::TaskResult(_))));
    }

    #[test]
    fn a_heartbeat_without_capabilities_is_told_from_an_empty_list() {
        let capabilities = |text: &str| match from_worker(text).unwrap() {
            WorkerFrame::Heartbeat { data } => data.capabilities,
            other => panic!("{other:?}"),
        };
        assert_eq!(capabilities(r#"{"type":"heartbeat","data":{"system_info":{}}}"#), None);
        assert_eq!(
            capabilities(r#"{"type":"heartbeat","data":{"system_info":{},"capabilities":[]}}"#),
            Some(Vec::new())
        );
    }

    #[test]
    fn a_glance_reads_what_the_decoder_reads_or_leaves_it_to_it() {
        let plain = r#"{"type": "heartbeat", "data": {"status": "online", "active_tasks": 2, "system_info": {"cpu_count": 8, "a": [1.5, {"b": null}]}, "gpu_info": {}, "capabilities": ["cpu_matrix"]}}"#;
        let glanced = HeartbeatReport::glance(plain.as_bytes()).unwrap();
        let WorkerFrame::Heartbeat { data } = from_worker(plain).unwrap() else { panic!("not a heartbeat") };
        assert_eq!(glanced.system_info.read().unwrap(), data.system_info);
        assert_eq!((glanced.active_tasks, glanced.capabilities), (data.active_tasks, data.capabilities));
        for other in [
            r#"{"type":"heartbeat","data":{"system_info":{"load":Infinity}}}"#,
            r#"{"type":"heartbeat","data":{"system_info":{},"active_tasks":"2"}}"#,
            r#"{"type":"heartbeat","data":{"system_info":[]}}"#,
            r#"{"type":"heartbeat","data":{"system_info":{},"gpu_info":[]}}"#,
            r#"{"type":"heartbeat","data":{"system_info":{},"system_info":{}}}"#,
            r#"{"type":"heartbeat","data":{"system_info":{}},"type":"task_result"}"#,
            r#"{"type":"heartbeat","data":{"system_info":{}}"#,
            r#"{"type":"register","worker_id":"w","worker_version":"1"}"#,
        ] {
            assert_eq!(HeartbeatReport::glance(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_proof_answer_reads_with_or_without_debug() {
        for debug in ["", r#","debug":null"#, r#","debug":{}"#] {
            let text = format!(r#"{{"type":"proof_response","message_id":"m","data":{{"success":true{debug}}}}}"#);
            let WorkerFrame::ProofResponse { data, .. } = from_worker(&text).unwrap() else { panic!("{text}") };
            assert!(data.debug.is_empty());
            assert_eq!(data.phase2_timestamp("worker_proof_completed_ts"), None);
        }
    }

    #[test]
    fn an_assignment_of_an_unknown_kind_can_still_be_refused_by_name() {
        let text = r#"{"type":"task_assignment","data":{"task_id":"t","task_type":"quantum","data":{}}}"#;
        let MinerFrame::TaskAssignment { data } = MinerFrame::decode(text.as_bytes()).unwrap() else { panic!() };
        assert_eq!((data.task_id.as_str(), data.kind()), ("t", None));
    }

    #[test]
    fn messages_are_written_in_ascii() {
        let frame = WorkerFrame::TaskResult(TaskResult {
            worker_id: "w".to_owned(),
            task_id: ChallengeId::new("t").unwrap(),
            timestamp: 2.0,
            data: TaskOutcome::failed("é"),
        });
        assert_eq!(
            frame.encode(),
            r#"{"type": "task_result", "worker_id": "w", "task_id": "t", "timestamp": 2.0, "data": {"success": false, "error_code": 1006, "result": {}, "error": "\u00e9"}}"#
        );
    }
}
