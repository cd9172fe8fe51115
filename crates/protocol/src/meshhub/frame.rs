//! What stands around a message (validator spec 7.2): its type, when it was sent, and the sealed package or, for the
//! handshake and for errors, plain data.
//!
//! A received text is [`Received::parse`]d without a key; a [`SealedFrame`] is then opened by its session, which takes the
//! inner type for the outer one or refuses, and each number once.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::MessageType;
use super::handshake::{SessionInit, SessionInitResponse};
use crate::session::{OpenError, ReceivedPackage, SequenceExhausted, Session};
use crate::{Object, canonical, lenient};

/// Longest name of an unknown type that is told.
const MAX_TOLD_CHARS: usize = 64;

/// The keys of a sealed package: ours inside a session, and the marketplace's.
const KEYS: [(&str, &str); 7] = [
    ("ver", "version"),
    ("session_id", "sessionId"),
    ("seq", "sequence"),
    ("ciphertext", "ciphertext"),
    ("sender", "sender"),
    ("recipient", "recipient"),
    ("synapse_type", "messageType"),
];

/// Codes of [`HubError`] that a validator acts on (validator spec 7.3).
pub mod code {
    /// The access token is wrong.
    pub const BAD_TOKEN: i64 = 4001;
    /// Those that mean that the session is lost.
    pub const SESSION_LOST: [i64; 3] = [4002, 4011, 4020];
}

/// A text of the wire, as far as it is understood without a key.
#[derive(Debug, Clone)]
pub enum Received {
    /// A validator opens a session.
    Init(Box<SessionInit>),
    /// The marketplace answers.
    InitResponse(Box<SessionInitResponse>),
    /// The marketplace refuses.
    Error(HubError),
    /// A sealed message.
    Sealed(SealedFrame),
    /// A type that is not known, shortened: to be ignored.
    Unknown(String),
}

/// A sealed message that is yet to be opened.
#[derive(Debug, Clone)]
pub struct SealedFrame {
    /// Its type, bound by the seal.
    pub kind: MessageType,
    /// What an acknowledgement names; it stands outside the seal.
    pub message_id: Option<String>,
    package: ReceivedPackage,
}

/// Why a text is no frame, or a frame is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The text is no JSON object with a type.
    #[error("not a JSON object with a type")]
    Malformed,
    /// A key of a plain message does not fit.
    #[error("{0}: the data does not fit")]
    Data(MessageType),
    /// A message without its seal.
    #[error("{0}: not sealed")]
    Plain(MessageType),
    /// The seal.
    #[error("{kind}: {source}")]
    Seal {
        /// Which message.
        kind: MessageType,
        /// What is wrong.
        source: OpenError,
    },
}

impl FrameError {
    /// A short name of the reason, for counting.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Data(_) => "data",
            Self::Plain(_) => "unsealed",
            Self::Seal { source: OpenError::Sequence, .. } => "replay",
            Self::Seal { source: OpenError::Tag, .. } => "forged",
            Self::Seal { source: OpenError::Mismatch(_), .. } => "mismatch",
            Self::Seal { .. } => "seal",
        }
    }
}

/// The marketplace's refusal (validator spec 7.3), always in the clear: nothing proves who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubError {
    /// Its number; 0 when it names none.
    pub code: i64,
    /// For people.
    pub message: String,
}

impl HubError {
    /// Most characters of a message that are kept.
    pub const MAX_MESSAGE_CHARS: usize = 256;

    /// Reads the code and the text wherever they stand: the deployed shape is not documented.
    fn read(fields: &Object) -> Self {
        let data = fields.get("data").and_then(Value::as_object);
        let find = |names: &[&str]| {
            let places = [data, Some(fields)].into_iter().flatten();
            places
                .flat_map(|place| names.iter().filter_map(|name| place.get(*name)))
                .find(|value| !value.is_null())
                .cloned()
        };
        let code = find(&["code", "errorCode", "error_code"]).and_then(|code| lenient::Lenient::read(code).ok());
        let message = find(&["message", "error", "errorMessage"]);
        let message = message.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
        Self {
            code: code.unwrap_or_default(),
            message: message.chars().filter(|char| !char.is_control()).take(Self::MAX_MESSAGE_CHARS).collect(),
        }
    }

    /// Whether the session is lost by it.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        code::SESSION_LOST.contains(&self.code)
    }
}

impl Received {
    /// Reads a text of the wire.
    ///
    /// # Errors
    /// It is no frame, or a plain one whose data does not fit.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let Ok(Value::Object(mut fields)) = lenient::parse(text) else { return Err(FrameError::Malformed) };
        let name = fields.get("type").and_then(Value::as_str).ok_or(FrameError::Malformed)?;
        let Some(kind) = MessageType::from_name(name) else {
            return Ok(Self::Unknown(name.chars().filter(|char| !char.is_control()).take(MAX_TOLD_CHARS).collect()));
        };
        let mut data = || fields.remove("data").ok_or(FrameError::Data(kind));
        let unfit = |_| FrameError::Data(kind);
        match kind {
            MessageType::SessionInit => Ok(Self::Init(serde_json::from_value(data()?).map_err(unfit)?)),
            MessageType::SessionInitResponse => Ok(Self::InitResponse(serde_json::from_value(data()?).map_err(unfit)?)),
            MessageType::Error => Ok(Self::Error(HubError::read(&fields))),
            _ => SealedFrame::read(kind, fields).map(Self::Sealed),
        }
    }
}

impl SealedFrame {
    fn read(kind: MessageType, mut fields: Object) -> Result<Self, FrameError> {
        let Some(Value::Object(mut sealed)) = fields.remove("encrypted") else { return Err(FrameError::Plain(kind)) };
        let renamed = KEYS.iter().filter_map(|(ours, theirs)| Some(((*ours).to_owned(), sealed.remove(*theirs)?)));
        let package = ReceivedPackage::from_fields(renamed.collect());
        let package = package.map_err(|source| FrameError::Seal { kind, source })?;
        let message_id = fields.get("messageId").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { kind, message_id, package })
    }

    /// Opens it: the inner type must be the outer one, and the number new. A number that was taken is used up, whatever
    /// the message then says.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(&self, session: &Session) -> Result<Value, FrameError> {
        let refused = |source| FrameError::Seal { kind: self.kind, source };
        let plaintext = session.open(&self.package, self.kind.name()).map_err(refused)?;
        plaintext.read().map_err(|_| refused(OpenError::Plaintext))
    }
}

/// The text of a sealed message under the session's next number.
///
/// # Errors
/// There is no next number.
pub fn seal(
    session: &Session,
    kind: MessageType,
    message: &impl Serialize,
    message_id: Option<&str>,
    now_ms: i64,
) -> Result<String, SequenceExhausted> {
    let package = session.seal(kind.name(), message)?;
    let mut frame = json!({
        "type": kind.name(),
        "timestamp": now_ms,
        "encrypted": {
            "version": package.ver,
            "sessionId": package.session_id,
            "sequence": package.seq,
            "ciphertext": package.ciphertext,
            "sender": package.sender,
            "recipient": package.recipient,
            "messageType": package.synapse_type,
        },
    });
    if let Some(message_id) = message_id {
        frame["messageId"] = json!(message_id);
    }
    Ok(canonical::ascii(&frame))
}

/// The text of a plain message: handshake or error.
#[must_use]
pub fn plain(kind: MessageType, data: &impl Serialize, now_ms: i64) -> String {
    canonical::ascii(&json!({ "type": kind.name(), "timestamp": now_ms, "data": data }))
}
