//! How a worker gets its certificate: one `POST`, before there is a session (vm-and-gpu-host spec 1.5).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{GatewayError, fit, object};
use crate::id::WorkerId;
use crate::{Object, canonical, lenient};

/// Largest answer to an enrolment, bytes (vm-and-gpu-host spec 1.5).
pub const MAX_ENROLMENT_ANSWER_BYTES: usize = 256 * 1024;

/// A worker asks for a certificate: the body of the `POST` to the enrolment address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentRequest {
    /// Its identity, also the common name in the request for a certificate.
    pub worker_id: WorkerId,
    /// Display name; written as null when there is none.
    #[serde(default, deserialize_with = "lenient::read")]
    pub worker_name: Option<String>,
    /// Software version.
    #[serde(deserialize_with = "lenient::read")]
    pub worker_version: String,
    /// Challenge kinds that it computes, as texts; nothing announces that it runs virtual machines.
    #[serde(default, deserialize_with = "lenient::read")]
    pub capabilities: Vec<String>,
    /// PKCS#10, PEM.
    pub csr_pem: String,
    /// Its host, as a heartbeat reports it.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub metadata: Object,
}

/// The gateway's answer: what the worker stores and connects with.
///
/// All of it is text that nothing has checked yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrolmentAnswer {
    /// The worker's certificate, PEM.
    pub device_cert_pem: String,
    /// Authorities of the gateway, PEM.
    pub ca_bundle: String,
    /// When the certificate ends, ISO 8601, UTC.
    #[serde(deserialize_with = "lenient::read")]
    pub expires_at: String,
    /// Where the session is opened.
    #[serde(deserialize_with = "lenient::read")]
    pub ws_url: String,
    /// The certificate's serial number, hexadecimal.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub cert_serial: Option<String>,
}

macro_rules! json_body {
    ($($body:ident),*) => {$(
        impl $body {
            /// Reads a body.
            ///
            /// # Errors
            /// See [`GatewayError`].
            pub fn decode(body: &[u8]) -> Result<Self, GatewayError> {
                fit(stringify!($body), Value::Object(object(body)?))
            }

            /// The body as text.
            #[must_use]
            pub fn encode(&self) -> String {
                canonical::ascii(self)
            }
        }
    )*};
}
json_body!(EnrolmentRequest, EnrolmentAnswer);
