//! What the marketplace says inside a session: leases, configuration, tasks, tokens (validator spec 7.6 to 7.8, 7.11).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::{MeshWorker, MessageType};
use crate::{Object, lenient};

/// Most entries of one message that are read; the rest is counted as refused.
pub const MAX_LEASES: usize = 100_000;

/// One message of the marketplace.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Which workers are rented.
    Leases(LeasePublish),
    /// Keys to set otherwise.
    Config(ConfigUpdate),
    /// Something to be done.
    Task(TaskPublish),
    /// A token, or why there is none.
    Token(TokenResponse),
}

/// A message that does not fit its type, or a type that no marketplace sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}: the message does not fit")]
pub struct OrderError(pub MessageType);

impl Order {
    /// Reads an opened message.
    ///
    /// # Errors
    /// It does not fit, or comes from the wrong side.
    pub fn read(kind: MessageType, message: Value) -> Result<Self, OrderError> {
        let read = match kind {
            MessageType::LeasePublish => serde_json::from_value(message).map(Self::Leases),
            MessageType::ConfigUpdate => serde_json::from_value(message).map(Self::Config),
            MessageType::TaskPublish => serde_json::from_value(message).map(Self::Task),
            MessageType::TokenResponse => serde_json::from_value(message).map(Self::Token),
            _ => return Err(OrderError(kind)),
        };
        read.map_err(|_| OrderError(kind))
    }
}

/// Which workers are rented, and for how much: a patch, so that a worker that is not named keeps its lease.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeasePublish {
    /// What could be read, in order.
    pub leases: Vec<LeaseEntry>,
    /// What could not, and why.
    pub refused: Vec<RefusedLease>,
}

/// The lease of one worker as it was said: any number at all, infinities and NaN among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseEntry {
    /// The worker.
    pub worker_key: MeshWorker,
    /// What the lease is worth; 0 ends it.
    #[serde(serialize_with = "any_number")]
    pub score: f64,
}

/// A number that is not finite goes as a text, as it does from Python peers that say so.
fn any_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.serialize_str(&number.to_string()) }
}

/// An entry that names no worker or no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedLease {
    /// Its `workerKey` is no `HOTKEY:WORKER`.
    #[error("workerKey is not HOTKEY:WORKER")]
    Worker,
    /// Its `score` is no number.
    #[error("score is not a number")]
    Score,
    /// The message has more than [`MAX_LEASES`] entries.
    #[error("too many leases in one message")]
    TooMany,
}

impl RefusedLease {
    /// A short name of the reason, for counting.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Worker => "worker_key",
            Self::Score => "score_no_number",
            Self::TooMany => "too_many",
        }
    }
}

impl LeaseEntry {
    fn read(entry: &Value) -> Result<Self, RefusedLease> {
        let key = entry.get("workerKey").and_then(Value::as_str);
        let worker_key = key.and_then(|key| key.parse().ok()).ok_or(RefusedLease::Worker)?;
        let score = match entry.get("score") {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        Ok(Self { worker_key, score: score.ok_or(RefusedLease::Score)? })
    }
}

impl<'de> Deserialize<'de> for LeasePublish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Text {
            worker_scores: Vec<Value>,
        }
        let entries = Text::deserialize(deserializer)?.worker_scores;
        let mut publish = Self::default();
        for entry in entries.iter().take(MAX_LEASES) {
            match LeaseEntry::read(entry) {
                Ok(lease) => publish.leases.push(lease),
                Err(refused) => publish.refused.push(refused),
            }
        }
        publish.refused.extend(entries.iter().skip(MAX_LEASES).map(|_| RefusedLease::TooMany));
        Ok(publish)
    }
}

impl Serialize for LeasePublish {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({ "workerScores": self.leases }).serialize(serializer)
    }
}

/// Keys of the validator to set otherwise, as sections of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigUpdate {
    /// `{"validation": {"challenge_interval": 300}}`.
    pub payload: Object,
}

impl ConfigUpdate {
    /// Deepest nesting that is followed.
    const MAX_DEPTH: usize = 8;

    /// The leaves with their dotted names, as the validator's table of keys has them. What lies too deep is a leaf.
    #[must_use]
    pub fn leaves(&self) -> Vec<(String, Value)> {
        fn walk(prefix: &str, object: &Object, depth: usize, leaves: &mut Vec<(String, Value)>) {
            for (name, value) in object {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                match value {
                    Value::Object(section) if depth < ConfigUpdate::MAX_DEPTH => {
                        walk(&name, section, depth + 1, leaves)
                    }
                    leaf => leaves.push((name, leaf.clone())),
                }
            }
        }
        let mut leaves = Vec::new();
        walk("", &self.payload, 1, &mut leaves);
        leaves
    }
}

/// Something to be done on a worker. Nothing forwards it yet: no protocol exists for that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskPublish {
    /// Its name; a task without one is not answered.
    #[serde(default, deserialize_with = "lenient::read")]
    pub task_key: Option<String>,
    /// The worker, as text: it may be one that this validator does not know.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_key: Option<String>,
    /// What is to be done.
    #[serde(default = "vm_creation", deserialize_with = "lenient::read")]
    pub task_type: String,
    /// How.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub payload: Object,
    /// The higher, the sooner.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub priority: i64,
    /// Milliseconds after which it is too late.
    #[serde(default, deserialize_with = "lenient::read")]
    pub ttl: Option<i64>,
}

fn vm_creation() -> String {
    "vm_creation".to_owned()
}

/// The answer to a [`super::report::TokenRequest`]: a token, or when to ask again, or why not.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenResponse {
    /// Which request.
    #[serde(deserialize_with = "lenient::read")]
    pub request_id: String,
    /// The token.
    #[serde(deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// ISO 8601, UTC.
    #[serde(deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Where to enrol.
    #[serde(deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub enrollment_url: Option<String>,
    /// Without a token: pending, ask again after so many seconds.
    #[serde(deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub try_again_in_sec: Option<i64>,
    /// Why not.
    #[serde(deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
}

impl std::fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenResponse")
            .field("request_id", &self.request_id)
            .field("has_token", &self.token.is_some())
            .field("expires_at", &self.expires_at)
            .field("error_message", &self.error_message)
            .finish_non_exhaustive()
    }
}
