//! What miner and validator tell each other inside a session: heartbeats, task polls, commitments, proofs, tokens
//! (miner-validator spec 2.2 to 2.7), and the plain errors outside of it.
//!
//! The order of the file is the order in which a challenge meets them. Times are as the field's name says: `*_ts` in
//! milliseconds, the others in seconds since the epoch by the sender's clock.

use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::challenge::ChallengeItem;
use crate::code::ErrorCode;
use crate::feedback::MinerFeedback;
use crate::half::{self, Half};
use crate::hotkey::Hotkey;
use crate::id::{ChallengeId, RowHash, Unit, WorkerId};
pub use crate::merkle::MerkleProof;
use crate::merkle::NodeHash;
use crate::{Object, lenient};

/// The version of every payload's schema.
pub const SCHEMA_VERSION: u32 = 1;

fn schema_version() -> u32 {
    SCHEMA_VERSION
}

// Heartbeat.

/// What a miner reports of itself and its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatData {
    /// The miner's hotkey as text; a validator goes by the verified caller instead.
    #[serde(deserialize_with = "lenient::read")]
    pub hotkey: String,
    /// When it was made, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timestamp: f64,
    /// The workers that reported since the last one.
    pub workers: WorkerList,
    /// The miner's own host.
    #[serde(default)]
    pub miner_info: Option<SystemInfo>,
    /// [`SCHEMA_VERSION`].
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    pub schema_version: u32,
}

/// The workers of a heartbeat, each read on its own: an entry that cannot be read costs the others nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerList {
    /// Those that can be read.
    pub readable: Vec<WorkerInfo>,
    /// Those that cannot; never sent.
    pub unreadable: Vec<UnreadableWorker>,
}

/// An entry of a heartbeat that describes no worker.
#[derive(Debug, Clone, PartialEq)]
pub struct UnreadableWorker {
    /// As it came.
    pub raw: Value,
    /// What is wrong with it.
    pub error: String,
}

impl From<Vec<WorkerInfo>> for WorkerList {
    fn from(readable: Vec<WorkerInfo>) -> Self {
        Self { readable, unreadable: Vec::new() }
    }
}

impl Deref for WorkerList {
    type Target = [WorkerInfo];

    fn deref(&self) -> &[WorkerInfo] {
        &self.readable
    }
}

impl Serialize for WorkerList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.readable.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WorkerList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        for entry in Vec::<Box<RawValue>>::deserialize(deserializer)? {
            match worker_of(entry.get()) {
                Ok(worker) => list.readable.push(worker),
                Err(unreadable) => list.unreadable.push(unreadable),
            }
        }
        Ok(list)
    }
}

/// Reads one entry straight from its text; one that does not fit, or that names a field twice, by way of a tree of values,
/// where the last wins.
fn worker_of(text: &str) -> Result<WorkerInfo, UnreadableWorker> {
    serde_json::from_str(text).or_else(|error| {
        let raw: Value =
            serde_json::from_str(text).map_err(|_| UnreadableWorker { raw: Value::Null, error: error.to_string() })?;
        WorkerInfo::deserialize(&raw).map_err(|error| UnreadableWorker { raw, error: error.to_string() })
    })
}

/// What a miner says of a worker's occupation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// Registered, no task held.
    #[default]
    Online,
    /// Holds at least one task.
    Busy,
    /// Gone.
    Offline,
}

/// One worker of a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Unique within the miner.
    pub worker_id: WorkerId,
    /// Display name.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_name: Option<String>,
    /// Software version.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_version: Option<String>,
    /// Challenge kinds that it computes, as texts.
    #[serde(default, deserialize_with = "lenient::read")]
    pub capabilities: Vec<String>,
    /// What it does.
    #[serde(default)]
    pub status: WorkerStatus,
    /// Its host.
    #[serde(default)]
    pub system_info: SystemInfo,
    /// When it connected to the miner, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub connected_at: f64,
    /// When the miner last heard of it, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub last_heartbeat: f64,
}

/// A host: typed at the top level, free below, unknown keys kept (worker-miner spec 6.1).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SystemInfo {
    /// Logical processors.
    #[serde(default, deserialize_with = "lenient::read")]
    pub cpu_count: i64,
    /// Percent.
    #[serde(default, deserialize_with = "lenient::read")]
    pub cpu_usage: f64,
    /// MiB.
    #[serde(default, deserialize_with = "lenient::read")]
    pub memory_total: i64,
    /// MiB.
    #[serde(default, deserialize_with = "lenient::read")]
    pub memory_available: i64,
    /// Percent.
    #[serde(default, deserialize_with = "lenient::read")]
    pub memory_usage: f64,
    /// GiB of `/`.
    #[serde(default, deserialize_with = "lenient::read")]
    pub disk_total: i64,
    /// GiB of `/`.
    #[serde(default, deserialize_with = "lenient::read")]
    pub disk_free: i64,
    /// GPUs as the driver or the PCI bus shows them; presence is counted by `uuid` here.
    #[serde(default, deserialize_with = "lenient::read")]
    pub gpu_info: Vec<Object>,
    /// GPUs as the compute server shows them; the inventory is built from `uuid` here.
    #[serde(default, deserialize_with = "lenient::read")]
    pub gpu_plugin: Vec<Object>,
    /// Address as seen from outside.
    #[serde(default, deserialize_with = "lenient::read")]
    pub public_ip: Option<String>,
    /// Processor details.
    #[serde(default, deserialize_with = "lenient::read")]
    pub cpu_info: Option<Object>,
    /// Memory details.
    #[serde(default, deserialize_with = "lenient::read")]
    pub memory_info: Option<Object>,
    /// Kernel and machine.
    #[serde(default, deserialize_with = "lenient::read")]
    pub system_info: Option<Object>,
    /// Board details.
    #[serde(default, deserialize_with = "lenient::read")]
    pub motherboard_info: Option<Object>,
    /// Disks and file systems.
    #[serde(default, deserialize_with = "lenient::read")]
    pub storage_info: Option<Object>,
    /// Seconds since boot.
    #[serde(default, deserialize_with = "lenient::read")]
    pub uptime_seconds: Option<f64>,
    /// The miner's software version; only in `miner_info`.
    #[serde(default, deserialize_with = "lenient::read")]
    pub miner_version: Option<String>,
    /// Whatever else the peer sent.
    #[serde(flatten)]
    pub other: Object,
}

impl SystemInfo {
    /// Reads a worker's free `system_info` by the typed check of worker-miner spec 6.
    ///
    /// # Errors
    /// A known field is of a wrong type.
    pub fn parse(system_info: &Object) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(system_info.clone()))
    }
}

/// A validator's answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatResponse {
    /// 0, or 1004.
    #[serde(deserialize_with = "lenient::read")]
    pub error_code: i64,
    /// For people.
    #[serde(default, deserialize_with = "lenient::read")]
    pub message: String,
    /// How many workers were taken in.
    #[serde(default, deserialize_with = "lenient::read")]
    pub workers_processed: u64,
    /// When it was made, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timestamp: f64,
    /// Always null.
    #[serde(default, deserialize_with = "lenient::read")]
    pub request_id: Option<String>,
    /// [`SCHEMA_VERSION`].
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    pub schema_version: u32,
    /// What the validator tells of the miner's workers: ours, read over by a Python miner (miner-validator spec 2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<MinerFeedback>,
}

// Task poll.

/// What a poll asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestType {
    /// Challenges; there is nothing else.
    Challenge,
}

/// A miner's poll for challenges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The miner's hotkey as text; a validator goes by the verified caller instead.
    #[serde(deserialize_with = "lenient::read")]
    pub hotkey: String,
    /// What is asked for.
    pub request_type: RequestType,
    /// When it was made, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timestamp: f64,
    /// [`SCHEMA_VERSION`].
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    pub schema_version: u32,
}

impl TaskRequest {
    /// A poll of `hotkey`, made at `timestamp` seconds.
    #[must_use]
    pub fn new(hotkey: Hotkey, timestamp: f64) -> Self {
        Self {
            hotkey: hotkey.to_string(),
            request_type: RequestType::Challenge,
            timestamp,
            schema_version: SCHEMA_VERSION,
        }
    }
}

/// A validator's answer to a poll: the challenges to hand out.
///
/// An item that does not fit is left out and counted, so that the rest of the batch is not lost.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "TaskResponseText")]
pub struct TaskResponse {
    /// The batch; empty is `no_task` on the wire.
    pub challenges: Vec<ChallengeItem>,
    /// How many items of the batch did not fit.
    pub refused_items: usize,
    /// When it was made, s.
    pub timestamp: f64,
}

#[derive(Serialize, Deserialize)]
struct TaskResponseText {
    task_type: TaskType,
    #[serde(default)]
    task_data: Option<TaskBatch>,
    #[serde(default, deserialize_with = "lenient::read")]
    timestamp: f64,
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    schema_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TaskType {
    ComputeChallengeBatch,
    NoTask,
}

#[derive(Serialize, Deserialize)]
struct TaskBatch {
    #[serde(default, deserialize_with = "lenient::read")]
    challenges: Vec<Value>,
}

impl From<TaskResponseText> for TaskResponse {
    fn from(text: TaskResponseText) -> Self {
        let items = match text.task_type {
            TaskType::NoTask => Vec::new(),
            TaskType::ComputeChallengeBatch => text.task_data.map_or_else(Vec::new, |batch| batch.challenges),
        };
        let count = items.len();
        let challenges: Vec<_> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
        Self { refused_items: count - challenges.len(), challenges, timestamp: text.timestamp }
    }
}

impl Serialize for TaskResponse {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = self.challenges.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>();
        let challenges = items.map_err(serde::ser::Error::custom)?;
        let is_empty = challenges.is_empty();
        TaskResponseText {
            task_type: if is_empty { TaskType::NoTask } else { TaskType::ComputeChallengeBatch },
            task_data: (!is_empty).then_some(TaskBatch { challenges }),
            timestamp: self.timestamp,
            schema_version: SCHEMA_VERSION,
        }
        .serialize(serializer)
    }
}

// Phase 1: the commitment.

/// What a worker commits to, one root per unit, before it knows what will be opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitmentData {
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// The worker that computed it.
    pub worker_id: WorkerId,
    /// One per unit.
    pub commitments: Vec<Commitment>,
    /// Timestamps of the parties, for people.
    #[serde(default, deserialize_with = "lenient::read")]
    pub debug_info: Object,
    /// [`SCHEMA_VERSION`].
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    pub schema_version: u32,
}

/// How a commitment is signed; on the wire the number `sig_ver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(into = "u8")]
pub enum SignatureVersion {
    /// 0, not at all: the processor.
    #[default]
    Unsigned,
    /// 1, ECDSA on P-256 by the GPU server.
    P256,
}

impl From<SignatureVersion> for u8 {
    fn from(version: SignatureVersion) -> Self {
        match version {
            SignatureVersion::Unsigned => 0,
            SignatureVersion::P256 => 1,
        }
    }
}

impl<'de> Deserialize<'de> for SignatureVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match lenient::read(deserializer)? {
            0_u8 => Ok(Self::Unsigned),
            1 => Ok(Self::P256),
            _ => Err(serde::de::Error::custom("sig_ver must be 0 or 1")),
        }
    }
}

/// The commitment of one unit (worker-miner spec 5.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment {
    /// The unit.
    pub uuid: Unit,
    /// Root of the tree over its row hashes.
    pub merkle_root: NodeHash,
    /// How it is signed.
    #[serde(default)]
    pub sig_ver: SignatureVersion,
    /// The signature: 64 bytes as hexadecimal or base64; empty for the processor.
    #[serde(default, deserialize_with = "lenient::read")]
    pub sig_val: Option<String>,
}

impl Commitment {
    /// The processor's commitment to `merkle_root`.
    #[must_use]
    pub fn cpu(merkle_root: NodeHash) -> Self {
        Self { uuid: Unit::Cpu, merkle_root, sig_ver: SignatureVersion::Unsigned, sig_val: Some(String::new()) }
    }
}

/// What the validator wants opened of one unit, drawn only after the commitment; also relayed to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ProofRequestText")]
pub struct ProofRequest {
    /// The unit.
    pub uuid: Unit,
    /// Rows to open, ascending.
    pub rows: Vec<u32>,
    /// Elements to show, as row and column.
    pub coordinates: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct ProofRequestText {
    uuid: Unit,
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    rows: Vec<u32>,
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    coordinates: Vec<(u32, u32)>,
}

/// A proof request that asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proof request needs rows or coordinates")]
pub struct EmptyProofRequest;

impl TryFrom<ProofRequestText> for ProofRequest {
    type Error = EmptyProofRequest;

    fn try_from(text: ProofRequestText) -> Result<Self, EmptyProofRequest> {
        if text.rows.is_empty() && text.coordinates.is_empty() {
            return Err(EmptyProofRequest);
        }
        Ok(Self { uuid: text.uuid, rows: text.rows, coordinates: text.coordinates })
    }
}

/// A validator's answer to a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitmentResponse {
    /// What to open, one entry per unit; with none the challenge ends here.
    pub proof_requests: Vec<ProofRequest>,
}

// Phase 2: the proof.

/// A worker's openings, one entry per unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofData {
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// One per requested unit.
    pub proofs: Vec<ProofResponse>,
    /// Timestamps of the parties, for people.
    #[serde(default, deserialize_with = "lenient::read")]
    pub debug_info: Object,
    /// [`SCHEMA_VERSION`].
    #[serde(default = "schema_version", deserialize_with = "lenient::read")]
    pub schema_version: u32,
}

/// The openings of one unit; also what a worker answers to its miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofResponse {
    /// The unit.
    pub uuid: Unit,
    /// Hashes of the requested rows, in request order.
    pub row_hashes: Vec<RowHash>,
    /// Openings of the requested rows, in request order.
    pub merkle_proofs: Vec<MerkleProof>,
    /// GPU: one value per requested coordinate, then every requested row in full. Empty for the processor.
    #[serde(default, deserialize_with = "half::read_list")]
    pub coordinate_values: Vec<Half>,
}

/// A validator's answer to a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofReceipt {
    /// Always `queued`.
    #[serde(deserialize_with = "lenient::read")]
    pub challenge_status: String,
    /// For people.
    #[serde(default, deserialize_with = "lenient::read")]
    pub message: String,
    /// The challenge.
    pub challenge_id: ChallengeId,
}

/// The timestamps of a challenge's way, milliseconds (worker-miner spec 3.7). Stored, never used for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChallengeTimestamps {
    /// The miner parsed the challenge.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub miner_task_received_ts: Option<i64>,
    /// The worker took the task.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_task_received_ts: Option<i64>,
    /// The worker finished computing.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_task_completed_ts: Option<i64>,
    /// The commitment exchange ended.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub miner_task_response_ts: Option<i64>,
    /// The worker got the proof request.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_proof_request_received_ts: Option<i64>,
    /// The worker finished the proof.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_proof_completed_ts: Option<i64>,
    /// The miner received the proof.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_proof_response_ts: Option<i64>,
}

impl ChallengeTimestamps {
    /// The object that goes into `debug_info`.
    #[must_use]
    pub fn to_debug_info(&self) -> Object {
        let mut debug_info = Object::new();
        debug_info.insert("timestamps".to_owned(), serde_json::json!(self));
        debug_info
    }
}

// Token of the VM gateway.

/// A miner's request for an enrolment token of one of its workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// The worker.
    pub worker_id: WorkerId,
}

/// A validator's answer to it: a token, or when to ask again, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The worker, as text.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_id: String,
    /// 0, or 1000 (no such worker), 1003 (no issuer).
    #[serde(default, deserialize_with = "lenient::read")]
    pub code: i64,
    /// Code 0 without a token: pending, ask again after so many seconds.
    #[serde(default, deserialize_with = "lenient::read")]
    pub try_again_in_sec: Option<i64>,
    /// The token.
    #[serde(default, deserialize_with = "lenient::read")]
    pub token: Option<String>,
    /// ISO 8601, UTC.
    #[serde(default, deserialize_with = "lenient::read")]
    pub expires_at: Option<String>,
    /// Where to enrol.
    #[serde(default, deserialize_with = "lenient::read")]
    pub enrollment_url: Option<String>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error_message: Option<String>,
}

// Refusals.

/// An error, either plain in place of a package or inside one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// For people, and for nobody else.
    #[serde(deserialize_with = "lenient::read")]
    pub error: String,
    /// The code of miner-validator spec 6; absent in some encrypted errors.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i64>,
}

impl ErrorAnswer {
    /// An error with its code.
    #[must_use]
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self { error: error.into(), error_code: Some(code.number()) }
    }

    /// The code, if the table knows it.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        self.error_code.and_then(ErrorCode::from_number)
    }
}

/// Why a decrypted answer is not the awaited one.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The peer refused; its text and code.
    #[error("refused by the peer: {}", .0.error)]
    Refused(ErrorAnswer),
    /// The answer does not fit its schema.
    #[error("answer does not fit: {0}")]
    Schema(#[from] serde_json::Error),
}

/// Reads a decrypted answer, where a peer may have put `{"error": …}` in place of it (miner-validator spec 4.4).
///
/// # Errors
/// A refusal, or a schema that does not fit.
pub fn read_answer<T: DeserializeOwned>(answer: Value) -> Result<T, AnswerError> {
    if answer.get("error").is_some() {
        return Err(AnswerError::Refused(serde_json::from_value(answer)?));
    }
    Ok(serde_json::from_value(answer)?)
}
