//! Who may come in: the verdict over a request's headers, then over its body (miner-validator spec 1.7, 1.8 and 8).
//!
//! Stricter than the reference where it is unsafe: the signature is mandatory, the body must name the signed caller,
//! freshness is tested in both directions and whatever the version, and the timeout that widens it is clamped.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{RequestBody, SynapseKind, body_hash, dendrite_message};
use crate::hotkey::{Hotkey, Signature};
use crate::lenient;

/// How far two honest clocks may differ.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(4);

/// The longest timeout that a request may claim in order to be called fresh.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest UUID text of a client.
const MAX_UUID_CHARS: usize = 64;

/// Why a request gets no answer of the validator; the text is what the caller is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header or the body is not what it should be.
    #[error("Bad request: {0}")]
    Malformed(&'static str),
    /// Not signed by the caller it names, not fresh, or seen before.
    #[error("Not Verified with error: {0}")]
    NotVerified(String),
    /// The headers name no caller.
    #[error("Forbidden. Key is blacklisted: missing_hotkey.")]
    MissingHotkey,
    /// The caller is not registered.
    #[error("Forbidden. Key is blacklisted: hotkey_not_in_metagraph.")]
    Stranger,
    /// No such synapse.
    #[error("Synapse name '{0}' not found. Available synapses {list}", list = available())]
    UnknownSynapse(String),
    /// The body is larger than the route takes.
    #[error("Request body is too large")]
    TooLarge,
    /// The body is of another type than JSON.
    #[error("Unsupported content type: expected application/json")]
    UnsupportedMediaType,
    /// The body is not JSON or does not fit.
    #[error("Unprocessable body: {0}")]
    Unprocessable(&'static str),
    /// Too many requests of the caller's address that were not what they claimed.
    #[error("Too many refused requests from this address")]
    TooManyRefused,
    /// More is under way than the validator has memory for.
    #[error("Service is busy: try again later")]
    Busy,
    /// The validator failed; the text names the log entry.
    #[error("Internal Server Error #{0}")]
    Internal(String),
}

fn available() -> String {
    let names: Vec<_> = SynapseKind::ALL.iter().map(|kind| format!("'{}'", kind.name())).collect();
    format!("[{}]", names.join(", "))
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::NotVerified(_) => 401,
            Self::MissingHotkey | Self::Stranger => 403,
            Self::UnknownSynapse(_) => 404,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Unprocessable(_) => 422,
            Self::TooManyRefused => 429,
            Self::Internal(_) => 500,
            Self::Busy => 503,
        }
    }

    fn not_verified(reason: impl Into<String>) -> Self {
        Self::NotVerified(reason.into())
    }
}

/// The headers of a request that matter, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHead {
    pub(super) timeout: Option<String>,
    pub(super) axon_ip: Option<String>,
    pub(super) axon_port: Option<String>,
    pub(super) axon_hotkey: Option<String>,
    pub(super) version: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) hotkey: Option<String>,
    pub(super) signature: Option<String>,
    header_size: Option<String>,
    total_size: Option<String>,
    body_hash: Option<String>,
}

impl RequestHead {
    /// Picks the headers out by name; `get` is the HTTP server's lookup, which ignores case.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |name: &str| get(name).map(str::to_owned);
        Self {
            timeout: text("timeout"),
            axon_ip: text("bt_header_axon_ip"),
            axon_port: text("bt_header_axon_port"),
            axon_hotkey: text("bt_header_axon_hotkey"),
            version: text("bt_header_dendrite_version"),
            nonce: text("bt_header_dendrite_nonce"),
            uuid: text("bt_header_dendrite_uuid"),
            hotkey: text("bt_header_dendrite_hotkey"),
            signature: text("bt_header_dendrite_signature"),
            header_size: text("header_size"),
            total_size: text("total_size"),
            body_hash: text("computed_body_hash"),
        }
    }

    /// When its sender says that it was made, in milliseconds since the epoch: its nonce. To be believed of an admitted
    /// request only.
    #[must_use]
    pub fn sent_at_ms(&self) -> Option<i64> {
        let nonce_ns: u64 = self.nonce.as_deref()?.parse().ok()?;
        i64::try_from(nonce_ns / 1_000_000).ok()
    }

    /// Decides on the headers alone who the caller is; cheap tests first, so that a stranger costs no signature check.
    ///
    /// `now_ns` in nanoseconds since the epoch. A nonce is taken into `nonces` only with a valid signature.
    ///
    /// # Errors
    /// The first test that fails.
    pub fn admit(
        &self,
        own: Hotkey,
        now_ns: u64,
        is_member: impl FnOnce(Hotkey) -> bool,
        nonces: &NonceTable,
    ) -> Result<Hotkey, Refusal> {
        let timeout = self.check_numbers()?;
        let caller = self.hotkey.as_deref().ok_or(Refusal::MissingHotkey)?;
        // Compared as text with the metagraph, so any other form of a known key is a stranger too.
        let caller = caller.parse().map_err(|_| Refusal::Stranger)?;
        if !is_member(caller) {
            return Err(Refusal::Stranger);
        }
        let nonce_text = self.nonce.as_deref().ok_or_else(|| Refusal::not_verified("Missing Nonce"))?;
        let nonce: u64 = nonce_text.parse().map_err(|_| Refusal::Malformed("nonce is not a number"))?;
        check_freshness(nonce, now_ns, timeout)?;
        let uuid = self.uuid.as_deref().unwrap_or_default();
        if uuid.is_empty() || uuid.len() > MAX_UUID_CHARS {
            return Err(Refusal::Malformed("dendrite uuid is missing or too long"));
        }
        let body_hash = body_hash();
        if self.body_hash.as_deref() != Some(&body_hash) {
            return Err(Refusal::Malformed("computed_body_hash does not match"));
        }
        let message = dendrite_message(nonce_text, &caller.to_string(), &own.to_string(), uuid, &body_hash);
        self.check_signature(caller, &message)?;
        nonces.accept(caller, uuid, nonce, now_ns)?;
        Ok(caller)
    }

    /// Numbers must be numbers where present; gives the timeout, clamped.
    fn check_numbers(&self) -> Result<Duration, Refusal> {
        for size in [&self.header_size, &self.total_size].into_iter().flatten() {
            size.parse::<i64>().map_err(|_| Refusal::Malformed("header_size or total_size is not a number"))?;
        }
        let Some(timeout) = &self.timeout else { return Ok(Duration::ZERO) };
        let seconds: f64 = timeout.parse().map_err(|_| Refusal::Malformed("timeout is not a number"))?;
        // Not a number compares as less, too large as more.
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(MAX_TIMEOUT).min(MAX_TIMEOUT))
    }

    fn check_signature(&self, caller: Hotkey, message: &str) -> Result<(), Refusal> {
        let text = self.signature.as_deref().unwrap_or_default();
        if text.is_empty() {
            return Err(Refusal::not_verified("Missing signature"));
        }
        let signature: Signature = text.parse().map_err(|error| Refusal::not_verified(format!("{error}")))?;
        if caller.verify(message.as_bytes(), &signature) {
            Ok(())
        } else {
            Err(Refusal::not_verified(format!("Signature mismatch with {message} and {signature}")))
        }
    }

    /// Reads the body of an admitted request.
    ///
    /// # Errors
    /// Not JSON, empty, of a wrong shape, or it names another caller than the signed one.
    pub fn read_body(&self, caller: Hotkey, body: &[u8]) -> Result<RequestBody, Refusal> {
        if body.is_empty() {
            return Err(Refusal::Malformed("body is empty"));
        }
        let text = std::str::from_utf8(body).map_err(|_| Refusal::Unprocessable("not UTF-8"))?;
        let value = lenient::parse(text).map_err(|_| Refusal::Unprocessable("not JSON"))?;
        let Value::Object(_) = value else { return Err(Refusal::Malformed("body is not an object")) };
        let body: RequestBody =
            serde_json::from_value(value).map_err(|_| Refusal::Unprocessable("a field is of a wrong type"))?;
        let named = body.dendrite.as_ref().and_then(|dendrite| dendrite.hotkey.as_deref());
        if named != Some(caller.to_string().as_str()) {
            return Err(Refusal::not_verified("body names another caller than the signed header"));
        }
        Ok(body)
    }
}

fn check_freshness(nonce: u64, now_ns: u64, timeout: Duration) -> Result<(), Refusal> {
    let acceptable = MAX_CLOCK_SKEW + timeout;
    let age = Duration::from_nanos(now_ns.saturating_sub(nonce));
    if age >= acceptable {
        let (acceptable, age) = (acceptable.as_secs_f64(), age.as_secs_f64());
        return Err(Refusal::not_verified(format!(
            "Nonce is too old: acceptable delta is {acceptable:.2} seconds but request was {age:.2} seconds old"
        )));
    }
    if Duration::from_nanos(nonce.saturating_sub(now_ns)) > MAX_CLOCK_SKEW {
        return Err(Refusal::not_verified("Nonce is from the future: check the clock"));
    }
    Ok(())
}

/// The last nonce of every client, so that a captured request is good for nothing.
///
/// Bounded: a caller may use so many UUIDs at a time, and entries that are older than any fresh nonce are dropped.
#[derive(Debug, Default)]
pub struct NonceTable {
    last: Mutex<HashMap<Hotkey, HashMap<String, u64>>>,
}

impl NonceTable {
    /// Most clients of one hotkey within the window. A reference miner makes one per request, and the rate limit lets
    /// some 1900 requests through in that time.
    pub const MAX_CLIENTS_PER_HOTKEY: usize = 2048;

    /// Takes a genuine nonce in.
    fn accept(&self, caller: Hotkey, uuid: &str, nonce: u64, now_ns: u64) -> Result<(), Refusal> {
        let mut last = self.lock();
        let clients = last.entry(caller).or_default();
        if let Some(latest) = clients.get_mut(uuid) {
            if nonce <= *latest {
                return Err(Refusal::not_verified("Nonce is too old, a newer one was last processed"));
            }
            *latest = nonce;
            return Ok(());
        }
        if clients.len() >= Self::MAX_CLIENTS_PER_HOTKEY {
            drop_stale(clients, now_ns);
        }
        if clients.len() >= Self::MAX_CLIENTS_PER_HOTKEY {
            return Err(Refusal::not_verified("Too many clients of this hotkey at a time"));
        }
        clients.insert(uuid.to_owned(), nonce);
        Ok(())
    }

    /// Drops every entry that no fresh nonce can repeat; to be called now and then.
    pub fn prune(&self, now_ns: u64) {
        self.lock().retain(|_, clients| {
            drop_stale(clients, now_ns);
            !clients.is_empty()
        });
    }

    /// A panic elsewhere cannot leave the table half written.
    fn lock(&self) -> MutexGuard<'_, HashMap<Hotkey, HashMap<String, u64>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_stale(clients: &mut HashMap<String, u64>, now_ns: u64) {
    let window = u64::try_from((MAX_CLOCK_SKEW + MAX_TIMEOUT).as_nanos()).unwrap_or(u64::MAX);
    clients.retain(|_, nonce| nonce.saturating_add(window) > now_ns);
}
