//! The messages between a worker and its VM gateway (vm-and-gpu-host spec 1.5 and 1.9).
//!
//! First the worker enrols over HTTPS: [`EnrolmentRequest`] up, [`EnrolmentAnswer`] down. With the certificate it got it
//! opens a WebSocket, on which each frame is `{"type":T,"data":{...}}`: [`WorkerMessage`] goes up, [`GatewayMessage`] comes
//! down. Both read tolerantly and write strictly; a message that cannot be used is a [`GatewayError`], after which a
//! session goes on.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand_core::RngCore;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::id::WorkerId;
use crate::lenient::Lenient as _;
use crate::{Object, canonical, lenient};

mod enrolment;
mod operation;

pub use enrolment::{EnrolmentAnswer, EnrolmentRequest, MAX_ENROLMENT_ANSWER_BYTES};
pub use operation::{
    OperationOutcome, OperationReply, OperationResult, OperationType, UnsupportedOperation, VmOperation,
};

/// Largest message that a worker takes from its gateway, bytes (vm-and-gpu-host spec 1.8).
pub const MAX_GATEWAY_MESSAGE_BYTES: usize = 10 * 1024 * 1024;

/// Largest message that a worker sends, bytes (vm-and-gpu-host spec 1.8).
pub const MAX_WORKER_MESSAGE_BYTES: usize = 1024 * 1024;

// The session, from the worker.

/// A message from worker to gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// First message of a session, `HELLO_V1`; answered by [`GatewayMessage::Ready`].
    Hello(Hello),
    /// Periodic report, `HEARTBEAT_V1`.
    Heartbeat(Heartbeat),
    /// The answer to [`GatewayMessage::StatsRequest`], `STATS_RESPONSE_V1`.
    StatsResponse(StatsResponse),
    /// Asks for the next certificate, `CERT_RENEW_REQUEST_V1`; one outstanding.
    CertRenewRequest(CertRenewRequest),
    /// The one answer to a [`GatewayMessage::VmOperation`]; its type is the operation's own.
    OperationReply(OperationReply),
}

/// Who opens the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Its identity, as in its certificate.
    pub worker_id: WorkerId,
    /// Software version.
    #[serde(deserialize_with = "lenient::read")]
    pub worker_version: String,
    /// Challenge kinds that it computes, as texts.
    #[serde(default, deserialize_with = "lenient::read")]
    pub capabilities: Vec<String>,
    /// When the worker started, Unix seconds.
    #[serde(rename = "startTime", deserialize_with = "lenient::read")]
    pub start_time_s: i64,
    /// Echoed by [`Ready`].
    pub nonce: Nonce,
}

/// 16 random bytes, on the wire in Base64, that tie [`Ready`] to its [`Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A fresh one from `rng`.
    #[must_use]
    pub fn random(rng: &mut impl RngCore) -> Self {
        let mut bytes = [0_u8; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl TryFrom<String> for Nonce {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("nonce must be 16 bytes in Base64")
    }
}

/// A worker's periodic report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How long the session has lasted, ms, in whole seconds.
    #[serde(rename = "uptime", deserialize_with = "lenient::read")]
    pub uptime_ms: u64,
    /// Its load.
    pub metrics: Load,
    /// Its host, as a heartbeat to a miner reports it.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub metadata: Object,
}

/// How busy a worker is. The reference always reports zeros (vm-and-gpu-host spec 1.9).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Percent, 0 to 100.
    #[serde(rename = "cpu_usage", default, deserialize_with = "lenient::read")]
    pub cpu_usage_percent: f64,
    /// Percent, 0 to 100.
    #[serde(rename = "memory_usage", default, deserialize_with = "lenient::read")]
    pub memory_usage_percent: f64,
    /// Virtual machines that run.
    #[serde(default, deserialize_with = "lenient::read")]
    pub active_vms: u32,
}

/// A worker's load, asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsResponse {
    /// Copied from the request.
    #[serde(deserialize_with = "lenient::read")]
    pub message_id: String,
    /// ISO 8601 with `+00:00`.
    #[serde(deserialize_with = "lenient::read")]
    pub responded_at: String,
    /// Its load.
    pub metrics: StatsMetrics,
}

/// A [`Load`] and the time of the session.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StatsMetrics {
    /// How long the session has lasted, ms.
    #[serde(rename = "uptime", deserialize_with = "lenient::read")]
    pub uptime_ms: u64,
    /// How busy the worker is.
    #[serde(flatten)]
    pub load: Load,
}

/// A worker asks for the certificate that follows the one in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertRenewRequest {
    /// Its identity.
    pub worker_id: WorkerId,
    /// Serial number of the certificate in use, hexadecimal.
    #[serde(deserialize_with = "lenient::read")]
    pub current_cert_serial: String,
    /// PKCS#10 of a new key, PEM.
    pub csr_pem: String,
}

impl WorkerMessage {
    /// Reads one message.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn decode(message: &[u8]) -> Result<Self, GatewayError> {
        let (kind, data) = open(message)?;
        match kind.as_str() {
            "HELLO_V1" => fit(&kind, data).map(Self::Hello),
            "HEARTBEAT_V1" => fit(&kind, data).map(Self::Heartbeat),
            "STATS_RESPONSE_V1" => fit(&kind, data).map(Self::StatsResponse),
            "CERT_RENEW_REQUEST_V1" => fit(&kind, data).map(Self::CertRenewRequest),
            reply => {
                let operation = OperationType::of_response(reply).ok_or_else(|| unknown(reply))?;
                let outcome = fit(reply, data)?;
                Ok(Self::OperationReply(OperationReply { operation, outcome }))
            }
        }
    }

    /// The message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Hello(data) => envelope("HELLO_V1", data),
            Self::Heartbeat(data) => envelope("HEARTBEAT_V1", data),
            Self::StatsResponse(data) => envelope("STATS_RESPONSE_V1", data),
            Self::CertRenewRequest(data) => envelope("CERT_RENEW_REQUEST_V1", data),
            Self::OperationReply(reply) => envelope(&reply.operation.response_type(), &reply.outcome),
        }
    }
}

// The session, from the gateway.

/// A message from gateway to worker.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewayMessage {
    /// The answer to [`WorkerMessage::Hello`], `READY_V1`; anything else as first message ends the connection.
    Ready(Ready),
    /// Asks for a [`WorkerMessage::StatsResponse`], `STATS_REQUEST_V1`.
    StatsRequest(StatsRequest),
    /// A word to the operator, `ANNOUNCEMENT_V1`.
    Announcement(Announcement),
    /// The answer to [`WorkerMessage::CertRenewRequest`], `CERT_RENEW_RESPONSE_V1`.
    CertRenewResponse(CertRenewal),
    /// Something to be done to a virtual machine, `VM_OPERATION_V1`; answered by one [`WorkerMessage::OperationReply`].
    VmOperation(VmOperation),
}

/// Whether the session is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "WireReady", try_from = "WireReady")]
pub enum Ready {
    /// It is.
    Accepted {
        /// What the gateway says the [`Hello`] held; another nonce means another session.
        nonce_echo: Nonce,
        /// The gateway's name for it.
        session_id: Option<String>,
        /// How often it wants a heartbeat, ms, as announced; see [`heartbeat_interval`].
        heartbeat_interval_ms: Option<i64>,
    },
    /// It is not.
    Refused {
        /// Why not.
        error: String,
    },
}

/// How often a worker reports: what was announced, within 10 s and 300 s, or 30 s (vm-and-gpu-host spec 1.9).
#[must_use]
pub fn heartbeat_interval(announced_ms: Option<i64>) -> Duration {
    let clamped = announced_ms.unwrap_or(30_000).clamp(10_000, 300_000);
    Duration::from_millis(clamped.unsigned_abs())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireReady {
    #[serde(deserialize_with = "lenient::read")]
    accepted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce_echo: Option<Nonce>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    session_id: Option<String>,
    #[serde(default, deserialize_with = "number_or_nothing", skip_serializing_if = "Option::is_none")]
    heartbeat_interval: Option<i64>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An interval that is no number counts as not announced.
fn number_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Value::deserialize(deserializer).map(|value| i64::read(value).ok())
}

impl From<Ready> for WireReady {
    fn from(ready: Ready) -> Self {
        match ready {
            Ready::Accepted { nonce_echo, session_id, heartbeat_interval_ms } => Self {
                accepted: true,
                nonce_echo: Some(nonce_echo),
                session_id,
                heartbeat_interval: heartbeat_interval_ms,
                error: None,
            },
            Ready::Refused { error } => Self {
                accepted: false,
                nonce_echo: None,
                session_id: None,
                heartbeat_interval: None,
                error: Some(error),
            },
        }
    }
}

impl TryFrom<WireReady> for Ready {
    type Error = &'static str;

    fn try_from(wire: WireReady) -> Result<Self, Self::Error> {
        if !wire.accepted {
            return Ok(Self::Refused { error: reason(wire.error) });
        }
        Ok(Self::Accepted {
            nonce_echo: wire.nonce_echo.ok_or("accepted without a nonceEcho")?,
            session_id: wire.session_id,
            heartbeat_interval_ms: wire.heartbeat_interval,
        })
    }
}

/// The gateway asks for the worker's load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatsRequest {
    /// Correlates the answer.
    #[serde(deserialize_with = "lenient::read")]
    pub message_id: String,
}

/// A word to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The word.
    #[serde(default, deserialize_with = "lenient::read")]
    pub message: String,
}

/// The next certificate, or why there is none. Authorities and address stay as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "WireRenewal", try_from = "WireRenewal")]
pub enum CertRenewal {
    /// The certificate.
    Issued {
        /// PEM.
        device_cert_pem: String,
        /// When it ends, ISO 8601, UTC.
        expires_at: String,
    },
    /// There is none.
    Refused {
        /// Why not.
        error: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRenewal {
    #[serde(deserialize_with = "lenient::read")]
    success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_cert_pem: Option<String>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<CertRenewal> for WireRenewal {
    fn from(renewal: CertRenewal) -> Self {
        match renewal {
            CertRenewal::Issued { device_cert_pem, expires_at } => Self {
                success: true,
                device_cert_pem: Some(device_cert_pem),
                expires_at: Some(expires_at),
                error: None,
            },
            CertRenewal::Refused { error } => {
                Self { success: false, device_cert_pem: None, expires_at: None, error: Some(error) }
            }
        }
    }
}

impl TryFrom<WireRenewal> for CertRenewal {
    type Error = &'static str;

    fn try_from(wire: WireRenewal) -> Result<Self, Self::Error> {
        if !wire.success {
            return Ok(Self::Refused { error: reason(wire.error) });
        }
        Ok(Self::Issued {
            device_cert_pem: wire.device_cert_pem.ok_or("a success without a deviceCertPem")?,
            expires_at: wire.expires_at.ok_or("a success without an expiresAt")?,
        })
    }
}

impl GatewayMessage {
    /// Reads one message.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub fn decode(message: &[u8]) -> Result<Self, GatewayError> {
        let (kind, data) = open(message)?;
        match kind.as_str() {
            "READY_V1" => fit(&kind, data).map(Self::Ready),
            "STATS_REQUEST_V1" => fit(&kind, data).map(Self::StatsRequest),
            "ANNOUNCEMENT_V1" => fit(&kind, data).map(Self::Announcement),
            "CERT_RENEW_RESPONSE_V1" => fit(&kind, data).map(Self::CertRenewResponse),
            "VM_OPERATION_V1" => fit(&kind, data).map(Self::VmOperation),
            other => Err(unknown(other)),
        }
    }

    /// The message as text.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Ready(data) => envelope("READY_V1", data),
            Self::StatsRequest(data) => envelope("STATS_REQUEST_V1", data),
            Self::Announcement(data) => envelope("ANNOUNCEMENT_V1", data),
            Self::CertRenewResponse(data) => envelope("CERT_RENEW_RESPONSE_V1", data),
            Self::VmOperation(data) => envelope("VM_OPERATION_V1", data),
        }
    }
}

// Envelope and errors.

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Not JSON, or not UTF-8.
    #[error("message is not JSON")]
    NotJson,
    /// JSON, but no object.
    #[error("message is not an object")]
    NotAnObject,
    /// The type is missing or none of this direction.
    #[error("message of unknown type {0:?}")]
    UnknownType(String),
    /// A known type whose content does not fit.
    #[error("invalid {kind}: {reason}")]
    Invalid {
        /// The message's type.
        kind: String,
        /// What does not fit.
        reason: String,
    },
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a T,
}

fn envelope(kind: &str, data: &impl Serialize) -> String {
    canonical::ascii(&Envelope { kind, data })
}

/// Reads the envelope: the type and the content, which a message without `data` has empty.
fn open(message: &[u8]) -> Result<(String, Value), GatewayError> {
    let mut object = object(message)?;
    let data = object.remove("data").unwrap_or_else(|| Value::Object(Object::new()));
    match object.remove("type") {
        Some(Value::String(kind)) => Ok((kind, data)),
        _ => Err(unknown("")),
    }
}

fn object(message: &[u8]) -> Result<Object, GatewayError> {
    let text = std::str::from_utf8(message).map_err(|_| GatewayError::NotJson)?;
    match lenient::parse(text).map_err(|_| GatewayError::NotJson)? {
        Value::Object(object) => Ok(object),
        _ => Err(GatewayError::NotAnObject),
    }
}

fn fit<T: DeserializeOwned>(kind: &str, data: Value) -> Result<T, GatewayError> {
    serde_json::from_value(data)
        .map_err(|error| GatewayError::Invalid { kind: kind.to_owned(), reason: error.to_string() })
}

fn unknown(kind: &str) -> GatewayError {
    GatewayError::UnknownType(kind.chars().take(64).collect())
}

fn reason(error: Option<String>) -> String {
    error.unwrap_or_else(|| "no reason given".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_gateway(text: &str) -> Result<GatewayMessage, GatewayError> {
        GatewayMessage::decode(text.as_bytes())
    }

    #[test]
    fn a_heartbeat_interval_is_clamped_and_anything_but_a_number_means_thirty_seconds() {
        let interval = |announced: &str| {
            let text = format!(
                r#"{{"type":"READY_V1","data":{{"accepted":true,"nonceEcho":"3q2+7wAAAAAAAAAAAAAAAA=="{announced}}}}}"#
            );
            match from_gateway(&text).unwrap() {
                GatewayMessage::Ready(Ready::Accepted { heartbeat_interval_ms, .. }) => {
                    heartbeat_interval(heartbeat_interval_ms).as_secs()
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(interval(""), 30);
        assert_eq!(interval(r#","heartbeatInterval":"soon""#), 30);
        assert_eq!(interval(r#","heartbeatInterval":null"#), 30);
        assert_eq!(interval(r#","heartbeatInterval":45000"#), 45);
        assert_eq!(interval(r#","heartbeatInterval":1"#), 10);
        assert_eq!(interval(r#","heartbeatInterval":-5"#), 10);
        assert_eq!(interval(r#","heartbeatInterval":86400000"#), 300);
    }

    #[test]
    fn an_acceptance_without_an_echo_and_a_renewal_without_a_certificate_are_invalid() {
        for text in [
            r#"{"type":"READY_V1","data":{"accepted":true}}"#,
            r#"{"type":"READY_V1","data":{"accepted":true,"nonceEcho":"AAAA"}}"#,
            r#"{"type":"CERT_RENEW_RESPONSE_V1","data":{"success":true,"expiresAt":"2026-12-01T08:00:00Z"}}"#,
            r#"{"type":"STATS_REQUEST_V1","data":{}}"#,
        ] {
            assert!(matches!(from_gateway(text), Err(GatewayError::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn messages_keep_the_kinds_of_numbers_that_the_wire_shows() {
        let heartbeat = WorkerMessage::Heartbeat(Heartbeat {
            uptime_ms: 120_000,
            metrics: Load { cpu_usage_percent: 12.0, memory_usage_percent: 40.1, active_vms: 1 },
            metadata: Object::new(),
        });
        assert_eq!(
            heartbeat.encode(),
            r#"{"type": "HEARTBEAT_V1", "data": {"uptime": 120000, "metrics": {"cpu_usage": 12.0, "memory_usage": 40.1, "active_vms": 1}, "metadata": {}}}"#
        );
    }
}
