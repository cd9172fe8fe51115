//! The wire between a validator and the marketplace, MeshHub (validator spec, chapter 7): JSON texts over a WebSocket that
//! the validator opens.
//!
//! [`handshake`] opens a session with the cryptography of [`crate::session`], the validator as its client; from then on a
//! [`frame`] seals every message but an error, and binds its type and its number, so that nothing is forged, replayed or
//! taken for something else. [`order`] is what the marketplace says (leases, configuration, tasks, tokens), [`report`] what
//! the validator says (heartbeats, resources, scores, acknowledgements).
//!
//! Nothing on the deployed wire acknowledges a report, yet a report may be lost on a connection that breaks. A WebSocket
//! answers pings in their order among the frames (RFC 6455 5.5.2), so the pong to a ping that followed a report proves that
//! the report was read.

pub mod frame;
pub mod handshake;
pub mod order;
pub mod report;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hotkey::Hotkey;
use crate::id::WorkerId;

/// Largest frame in either direction, bytes.
pub const MAX_FRAME_BYTES: usize = 10 * 1024 * 1024;
/// Most workers in one frame of a report.
pub const MAX_WORKERS_PER_FRAME: usize = 50;
/// What precedes a version on this wire.
pub const VERSION_PREFIX: &str = "release-v";

/// The kinds of messages (validator spec 7.3). The two about tokens are ours: how the deployed marketplace issues tokens is
/// unknown, and it reads over what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageType {
    /// The validator opens a session, in the clear.
    SessionInit,
    /// The marketplace answers, in the clear.
    SessionInitResponse,
    /// The validator lives.
    Heartbeat,
    /// The validator's miners and workers.
    ResourceReport,
    /// What a scoring round gave.
    ScoreReport,
    /// The validator took an order in, or did not.
    Ack,
    /// Which workers are rented.
    LeasePublish,
    /// Keys to set otherwise.
    ConfigUpdate,
    /// Something to be done on a worker.
    TaskPublish,
    /// The validator asks for an enrolment token.
    TokenRequest,
    /// The marketplace answers it.
    TokenResponse,
    /// The marketplace refuses, in the clear.
    Error,
}

impl MessageType {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::SessionInit,
        Self::SessionInitResponse,
        Self::Heartbeat,
        Self::ResourceReport,
        Self::ScoreReport,
        Self::Ack,
        Self::LeasePublish,
        Self::ConfigUpdate,
        Self::TaskPublish,
        Self::TokenRequest,
        Self::TokenResponse,
        Self::Error,
    ];

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionInit => "MESH_SESSION_INIT_V1",
            Self::SessionInitResponse => "MESH_SESSION_INIT_RESPONSE_V1",
            Self::Heartbeat => "MESH_HEARTBEAT_V1",
            Self::ResourceReport => "MESH_RESOURCE_REPORT_V1",
            Self::ScoreReport => "MESH_SCORE_REPORT_V1",
            Self::Ack => "MESH_ACK_V1",
            Self::LeasePublish => "MESH_LEASE_PUBLISH_V1",
            Self::ConfigUpdate => "MESH_CONFIG_UPDATE_V1",
            Self::TaskPublish => "MESH_TASK_PUBLISH_V1",
            Self::TokenRequest => "MESH_VMGW_TOKEN_REQUEST_V1",
            Self::TokenResponse => "MESH_VMGW_TOKEN_RESPONSE_V1",
            Self::Error => "MESH_ERROR_V1",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A worker as the marketplace names it, `HOTKEY:WORKER`: its key `workerKey`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MeshWorker {
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its id with that miner, which may hold colons itself.
    pub worker_id: WorkerId,
}

/// A text that names no worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a worker is named HOTKEY:WORKER")]
pub struct MeshWorkerError;

impl fmt::Display for MeshWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hotkey, self.worker_id)
    }
}

impl FromStr for MeshWorker {
    type Err = MeshWorkerError;

    fn from_str(text: &str) -> Result<Self, MeshWorkerError> {
        let (hotkey, worker_id) = text.split_once(':').ok_or(MeshWorkerError)?;
        let hotkey = hotkey.trim().parse().map_err(|_| MeshWorkerError)?;
        Ok(Self { hotkey, worker_id: worker_id.parse().map_err(|_| MeshWorkerError)? })
    }
}

impl TryFrom<String> for MeshWorker {
    type Error = MeshWorkerError;

    fn try_from(text: String) -> Result<Self, MeshWorkerError> {
        text.parse()
    }
}

impl From<MeshWorker> for String {
    fn from(worker: MeshWorker) -> Self {
        worker.to_string()
    }
}
