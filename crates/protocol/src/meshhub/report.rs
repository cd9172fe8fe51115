//! What a validator says inside a session: that it lives, whom it serves, what they were worth, and what became of orders
//! (validator spec 7.4, 7.5, 7.7, 7.9, 7.11).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MeshWorker, MessageType};
use crate::hotkey::Hotkey;
use crate::{Object, lenient};

/// Version of a score report's form.
pub const SCORE_REPORT_VERSION: &str = "1.0";
/// The number that a score report names as the most workers of a miner that count.
pub const WORKER_CAP: u32 = 100;

/// One message of a validator.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It lives.
    Heartbeat(Heartbeat),
    /// Whom it serves.
    Resources(ResourceReport),
    /// What they were worth.
    Scores(ScoreReport),
    /// What became of an order.
    Ack(Ack),
    /// It asks for a token.
    TokenRequest(TokenRequest),
}

/// A message that does not fit its type, or a type that no validator sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}: the message does not fit")]
pub struct ReportError(pub MessageType);

impl Report {
    /// Reads an opened message.
    ///
    /// # Errors
    /// It does not fit, or comes from the wrong side.
    pub fn read(kind: MessageType, message: Value) -> Result<Self, ReportError> {
        let read = match kind {
            MessageType::Heartbeat => serde_json::from_value(message).map(Self::Heartbeat),
            MessageType::ResourceReport => serde_json::from_value(message).map(Self::Resources),
            MessageType::ScoreReport => serde_json::from_value(message).map(Self::Scores),
            MessageType::Ack => serde_json::from_value(message).map(Self::Ack),
            MessageType::TokenRequest => serde_json::from_value(message).map(Self::TokenRequest),
            _ => return Err(ReportError(kind)),
        };
        read.map_err(|_| ReportError(kind))
    }
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// `release-v` and a version.
    #[serde(default, deserialize_with = "lenient::read")]
    pub version: String,
    /// What it is doing.
    pub statistics: Statistics,
}

/// What a validator is doing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    /// Since its start, ms.
    pub uptime: u64,
    /// Workers that are online.
    pub active_workers: u64,
    /// Miners that are online.
    pub active_miners: u64,
    /// Tasks received since its start.
    pub total_tasks: u64,
    /// Completed of them; 1 when there was none.
    #[serde(deserialize_with = "lenient::read")]
    pub success_rate: f64,
    /// Proofs that wait for their verdict.
    pub pending_verifications: u64,
}

/// Whom a validator serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// Everybody, or what changed.
    pub mode: ReportMode,
    /// Of what changed, since when: ISO 8601, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// At most [`super::MAX_WORKERS_PER_FRAME`] workers with their miners.
    pub miners: Vec<MinerReport>,
}

/// How much a report holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportMode {
    /// Everybody.
    Full,
    /// What changed.
    Delta,
}

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Presence {
    /// It is.
    Active,
    /// It is not.
    Offline,
}

impl Presence {
    /// Of whoever is online.
    #[must_use]
    pub fn of(is_online: bool) -> Self {
        if is_online { Self::Active } else { Self::Offline }
    }
}

/// A miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinerReport {
    /// Who.
    pub hotkey: Hotkey,
    /// Whether it is there.
    pub status: Presence,
    /// Its version.
    #[serde(default, deserialize_with = "lenient::read")]
    pub version: Option<String>,
    /// Its workers in this frame.
    pub workers: Vec<WorkerReport>,
}

/// A worker. The machine's parts are relayed as its miner told them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerReport {
    /// Its full name.
    pub worker_key: MeshWorker,
    /// Its id alone.
    pub worker_id: crate::id::WorkerId,
    /// A name for people.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_name: Option<String>,
    /// Whether it is there.
    pub status: Presence,
    /// Version of its software.
    #[serde(default, deserialize_with = "lenient::read")]
    pub version: Option<String>,
    /// What it can compute.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// What its lease is worth to this validator.
    #[serde(default, deserialize_with = "lenient::read")]
    pub lease_score: f64,
    /// Its latest heartbeat: ISO 8601, UTC.
    #[serde(default, deserialize_with = "lenient::read")]
    pub last_seen_at: String,
    /// How busy it is.
    #[serde(default)]
    pub stats: Usage,
    /// Since the machine started, s.
    #[serde(default, deserialize_with = "lenient::read")]
    pub uptime_seconds: Option<i64>,
    /// `{"public_ip": "…"}`.
    #[serde(default)]
    pub network: Object,
    /// Kernel and machine.
    #[serde(default, rename = "os_info")]
    pub os_info: Object,
    /// The machine; left out of a delta while it stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
}

/// How busy a worker is, percent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Its processor.
    #[serde(deserialize_with = "lenient::read")]
    pub avg_cpu_usage: Option<f64>,
    /// Its memory.
    #[serde(deserialize_with = "lenient::read")]
    pub avg_memory_usage: Option<f64>,
    /// Its storage, which nobody measures.
    #[serde(deserialize_with = "lenient::read")]
    pub avg_storage_usage: Option<f64>,
}

/// What a machine is made of, as its miner told it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// The processor.
    pub cpu: Value,
    /// The memory.
    pub memory: Value,
    /// Disks and file systems.
    pub storage: Value,
    /// The cards of the inventory.
    pub gpus: Vec<Value>,
    /// The board.
    pub mb_info: Value,
}

/// What a scoring round gave: the first frame of a round has the miners and the totals, the others have workers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoreReport {
    /// What each miner got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miner_scores: Option<Vec<MinerShare>>,
    /// The round as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_stats: Option<GlobalStats>,
    /// What each worker did, at most [`super::MAX_WORKERS_PER_FRAME`] of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_scores: Option<Vec<WorkerShare>>,
    /// Always null.
    #[serde(default)]
    pub effective_at: Option<String>,
    /// The instant of the round's facts: ISO 8601 with Z.
    #[serde(default, deserialize_with = "lenient::read")]
    pub timestamp: String,
    /// [`SCORE_REPORT_VERSION`].
    #[serde(default, deserialize_with = "lenient::read")]
    pub version: String,
}

/// What a miner got.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MinerShare {
    /// Who.
    pub hotkey: Hotkey,
    /// Its weight, 6 decimals.
    #[serde(deserialize_with = "lenient::read")]
    pub weight: f64,
}

/// A round as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GlobalStats {
    /// Workers that were measured.
    pub total_workers: u64,
    /// Mean of the miners' weights.
    #[serde(deserialize_with = "lenient::read")]
    pub average_score: f64,
    /// Mean of their normalised challenge scores.
    #[serde(deserialize_with = "lenient::read")]
    pub average_challenge_norm: f64,
    /// Begin of the ranking window: ISO 8601 with Z.
    pub window_start: String,
    /// Its end.
    pub window_end: String,
    /// The share of possible challenges that is full participation.
    #[serde(deserialize_with = "lenient::read")]
    pub participation_threshold: f64,
    /// [`WORKER_CAP`].
    pub worker_cap: u32,
}

/// What a worker did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerShare {
    /// Which.
    pub worker_key: MeshWorker,
    /// When it was computed: ISO 8601 with Z.
    #[serde(default, deserialize_with = "lenient::read")]
    pub calculated_at: String,
    /// Its performance over the round's largest, 6 decimals.
    #[serde(default, deserialize_with = "lenient::read")]
    pub score: f64,
    /// The same.
    #[serde(default, deserialize_with = "lenient::read")]
    pub perf_score: f64,
    /// What its lease is worth.
    #[serde(default, deserialize_with = "lenient::read")]
    pub lease_score: f64,
    /// How the performance came about.
    #[serde(default)]
    pub factors: Factors,
}

/// How a performance came about.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Factors {
    /// Share of the time that it was there.
    #[serde(deserialize_with = "lenient::read")]
    pub availability: f64,
    /// Successes that are full participation.
    #[serde(deserialize_with = "lenient::read")]
    pub participation_baseline: f64,
    /// Its successes.
    pub participation_count: u32,
    /// Its mean time, ms.
    #[serde(deserialize_with = "lenient::read")]
    pub avg_exec_ms: Option<f64>,
    /// Units that it computed on, in the mean.
    #[serde(deserialize_with = "lenient::read")]
    pub avg_exec_gpus: Option<f64>,
    /// Its performance as such.
    #[serde(deserialize_with = "lenient::read")]
    pub raw_perf_score: f64,
}

/// What became of an order that carried a message id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The order's.
    #[serde(deserialize_with = "lenient::read")]
    pub message_id: String,
    /// The order's type, as text.
    #[serde(deserialize_with = "lenient::read")]
    pub message_type: String,
    /// What became of it.
    pub status: AckStatus,
    /// Why, and whatever else is to be said.
    #[serde(default)]
    pub metadata: Object,
}

/// What became of an order. A deployed validator says `accepted` also of a task that it could not store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckStatus {
    /// It stands.
    Accepted,
    /// It was here before.
    Duplicate,
    /// It does not stand.
    Failed,
}

/// A validator asks, for one of its miners, for an enrolment token of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// Names the request in its answer.
    #[serde(deserialize_with = "lenient::read")]
    pub request_id: String,
    /// The worker.
    pub worker_key: MeshWorker,
}
