//! What comes back: the server's replies in the full form, and the client's reading of them
//! (miner-validator spec 1.9 and 1.10).
//!
//! Header names are in lower case, since the reference client matches their prefix by case. A reply does not repeat the
//! request's payload.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    BodyText, DENDRITE_VERSION, Refusal, RequestBody, RequestHead, SynapseKind, Terminal, TerminalPrefix, body_hash,
};
use crate::hotkey::Signer;
use crate::{canonical, lenient};

/// A reply to send, besides what the HTTP server itself adds; the body is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers of miner-validator spec 1.9.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// What a server puts its name under when it refuses.
pub struct AxonMark<'a> {
    /// Signs for the server's hotkey.
    pub signer: &'a dyn Signer,
    /// Nanoseconds since the epoch.
    pub nonce: u64,
    /// The server process.
    pub uuid: &'a str,
}

impl Reply {
    /// The answer of a handler, status 200: `response` is a package, a plain text, or nothing.
    #[must_use]
    pub fn success(kind: SynapseKind, request: &RequestBody, response: Option<&str>, took: Duration) -> Self {
        // The status is ours, whatever the body claimed.
        let axon = Terminal {
            status_code: Some(200),
            status_message: Some("Success".to_owned()),
            process_time: Some(took.as_secs_f64()),
            ..request.axon.clone().unwrap_or_default()
        };
        let body = RequestBody { axon: Some(axon), request: None, ..request.clone() };
        let mut headers = vec![("name", kind.name().to_owned()), ("timeout", canonical::float(body.timeout))];
        for (terminal, prefix) in [(&body.axon, TerminalPrefix::Axon), (&body.dendrite, TerminalPrefix::Dendrite)] {
            headers.extend(terminal.iter().flat_map(|terminal| terminal.headers(prefix)));
        }
        headers.extend(size_headers());
        let body = json_text(&BodyText { kind, body: &body, response });
        Self { status: 200, headers, body }
    }

    /// A refusal, signed by the server. `kind` is none where the route is unknown.
    #[must_use]
    pub fn refusal(
        kind: Option<SynapseKind>,
        head: &RequestHead,
        refusal: &Refusal,
        mark: &AxonMark<'_>,
        peer: SocketAddr,
        took: Duration,
    ) -> Self {
        let message = refusal.to_string();
        let status = refusal.status();
        let mut axon = Terminal {
            status_code: Some(status.into()),
            status_message: Some(message.clone()),
            process_time: Some(took.as_secs_f64()),
            ..Terminal::default()
        };
        let mut dendrite = None;
        if kind.is_some() {
            let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "None".to_owned());
            let signed = format!("{}.{}.{}.{}", mark.nonce, text(&head.hotkey), text(&head.axon_hotkey), mark.uuid);
            axon = Terminal {
                ip: head.axon_ip.clone(),
                port: number(&head.axon_port),
                hotkey: head.axon_hotkey.clone(),
                version: Some(DENDRITE_VERSION.into()),
                nonce: Some(mark.nonce),
                uuid: Some(mark.uuid.to_owned()),
                signature: Some(mark.signer.sign(signed.as_bytes()).to_string()),
                ..axon
            };
            dendrite = Some(Terminal {
                ip: Some(peer.ip().to_string()),
                port: Some(peer.port().into()),
                version: number(&head.version),
                nonce: head.nonce.as_deref().and_then(|nonce| nonce.parse().ok()),
                uuid: head.uuid.clone(),
                hotkey: head.hotkey.clone(),
                signature: head.signature.clone(),
                ..Terminal::default()
            });
        }
        let mut headers = vec![("name", kind.map_or("Synapse", SynapseKind::name).to_owned())];
        headers.extend(head.timeout.clone().map(|timeout| ("timeout", timeout)));
        headers.extend(axon.headers(TerminalPrefix::Axon));
        headers.extend(dendrite.iter().flat_map(|dendrite| dendrite.headers(TerminalPrefix::Dendrite)));
        headers.extend(size_headers());
        Self { status, headers, body: json_text(&json!({ "message": message })) }
    }
}

/// Memory sizes of a Python process, of which only the presence counts, and the constant hash.
fn size_headers() -> [(&'static str, String); 3] {
    [("header_size", "0".to_owned()), ("total_size", "0".to_owned()), ("computed_body_hash", body_hash())]
}

fn json_text(value: &impl serde::Serialize) -> String {
    #[expect(clippy::expect_used, reason = "a reply is a JSON value")]
    serde_json::to_string(value).expect("a reply is a JSON value")
}

/// Why a client has no answer to its request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The server refused, with its HTTP status and text.
    #[error("refused with HTTP status {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's text; empty if it gave none.
        message: String,
    },
    /// The reply is not JSON of the expected shape.
    #[error("failed to parse reply: {0}")]
    Malformed(&'static str),
    /// The reply holds no answer.
    #[error("reply without a response")]
    Empty,
}

/// Takes the field `response` out of a reply; nothing else in it is authenticated, so nothing else is used.
///
/// # Errors
/// Any status but 200, another content type than JSON, a shape that does not fit, or no response.
pub fn read_reply(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<String, ReplyError> {
    let value = std::str::from_utf8(body).ok().and_then(|text| lenient::parse(text).ok());
    if status != 200 {
        let message = value.as_ref().and_then(|value| value.get("message")).and_then(Value::as_str);
        let message = message.unwrap_or_default().chars().take(512).collect();
        return Err(ReplyError::Refused { status, message });
    }
    let media_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
        return Err(ReplyError::Malformed("content type is not application/json"));
    }
    let Some(Value::Object(mut object)) = value else {
        return Err(ReplyError::Malformed("body is not a JSON object"));
    };
    match object.remove("response") {
        Some(Value::String(response)) => Ok(response),
        None | Some(Value::Null) => Err(ReplyError::Empty),
        Some(_) => Err(ReplyError::Malformed("response is not a text")),
    }
}
