//! The sealed session between miner and validator: handshake, keys, packages and their sequence numbers
//! (miner-validator spec 3). The marketplace link reuses it under other key names.
//!
//! The client opens with a [`ClientHandshake`], the server answers by [`accept`]; both then hold a [`Session`], which is
//! two [`Channel`]s, one per direction, with a counter on the way out and a [`ReplayWindow`] on the way in. A received
//! text is parsed to a [`Package`] first, so that the receiver can look its session up, and then opened.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hkdf::Hkdf;
use rand_core::CryptoRngCore;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::code::ErrorCode;
use crate::hotkey::Hotkey;
use crate::id::SessionId;
use crate::payload::ErrorAnswer;
use crate::{Object, canonical, lenient};

/// How long a session lives from its handshake, whatever its use, s.
pub const SESSION_LIFE_SECONDS: u64 = 21_600;

/// Longest payload, bytes, that is read by way of a tree of values where it cannot be read straight into its type.
const MAX_TREE_BYTES: usize = 1024 * 1024;

/// The version text of a package.
const VERSION: &str = "v1";

// Handshake.

/// What a client opens a session with. The key names speak of a miner and a validator on every link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionInitRequest {
    /// The client's ephemeral X25519 key.
    pub miner_eph_pub32: Base64<32>,
    /// Random bytes of the client.
    pub client_nonce16: Base64<16>,
    /// When it was made, s; unchecked.
    #[serde(default, deserialize_with = "lenient::read")]
    pub created_at: f64,
}

/// What a server answers to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionInitResponse {
    /// The server's ephemeral X25519 key.
    pub validator_eph_pub32: Base64<32>,
    /// The new session.
    pub session_id: SessionId,
    /// Random bytes of the server.
    pub server_nonce16: Base64<16>,
    /// When the session ends by the server's clock, s.
    #[serde(deserialize_with = "lenient::read")]
    pub expires_at: f64,
}

/// Bytes that travel as standard, padded, canonical base64; anything else is refused, since the text enters the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Base64<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Display for Base64<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl<const N: usize> TryFrom<String> for Base64<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| format!("expected {N} bytes in base64"))
    }
}

impl<const N: usize> From<Base64<N>> for String {
    fn from(bytes: Base64<N>) -> Self {
        bytes.to_string()
    }
}

/// Why no session came about; all of it is code 4018.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The text does not fit the schema.
    #[error("Invalid session init: {0}")]
    Malformed(&'static str),
    /// The peer's key is of small order, so that the shared secret would be known to all.
    #[error("Error computing shared key.")]
    SmallOrder,
    /// The server refused.
    #[error("handshake refused: {}", .0.error)]
    Refused(ErrorAnswer),
}

impl HandshakeError {
    /// What the server puts in place of its answer.
    #[must_use]
    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer::new(ErrorCode::HandshakeFailed, self.to_string())
    }
}

impl SessionInitRequest {
    /// Reads the text of the field `request`.
    ///
    /// # Errors
    /// Not JSON, or a key or nonce is missing or not canonical base64 of its length.
    pub fn parse(text: &str) -> Result<Self, HandshakeError> {
        lenient::parse(text)
            .and_then(serde_json::from_value)
            .map_err(|_| HandshakeError::Malformed("expected miner_eph_pub32 and client_nonce16 in base64"))
    }

    /// The text of the field `request`.
    #[must_use]
    pub fn to_text(&self) -> String {
        canonical::ascii(self)
    }
}

impl SessionInitResponse {
    /// Reads the text of the field `response`.
    ///
    /// # Errors
    /// The server refused, or the text does not fit.
    pub fn parse(text: &str) -> Result<Self, HandshakeError> {
        const EXPECTED: &str = "expected validator_eph_pub32, session_id, server_nonce16 and expires_at";
        let value = lenient::parse(text).map_err(|_| HandshakeError::Malformed("response is not JSON"))?;
        if value.get("error").is_some() {
            return Err(serde_json::from_value(value)
                .map_or(HandshakeError::Malformed("unreadable refusal"), HandshakeError::Refused));
        }
        serde_json::from_value(value).map_err(|_| HandshakeError::Malformed(EXPECTED))
    }

    /// The text of the field `response`.
    #[must_use]
    pub fn to_text(&self) -> String {
        canonical::ascii(self)
    }
}

/// A client's half of a handshake, waiting for the answer.
pub struct ClientHandshake {
    secret: StaticSecret,
    request: SessionInitRequest,
}

impl ClientHandshake {
    /// Draws an ephemeral key and a nonce; `now` in seconds since the epoch.
    #[must_use]
    pub fn new(rng: &mut impl CryptoRngCore, now: f64) -> Self {
        let (secret, public, nonce) = ephemeral(rng);
        let request = SessionInitRequest { miner_eph_pub32: public, client_nonce16: nonce, created_at: now };
        Self { secret, request }
    }

    /// What to send.
    #[must_use]
    pub fn request(&self) -> &SessionInitRequest {
        &self.request
    }

    /// Takes the server's answer in.
    ///
    /// # Errors
    /// The server's key is of small order.
    pub fn finish(
        self,
        response: &SessionInitResponse,
        client: Hotkey,
        server: Hotkey,
    ) -> Result<Session, HandshakeError> {
        let shared = shared_secret(&self.secret, response.validator_eph_pub32)?;
        let transcript = Transcript { client, server, request: &self.request, response };
        let outgoing = transcript.channel(&shared, Direction::ClientToServer);
        let incoming = transcript.channel(&shared, Direction::ServerToClient);
        Ok(Session::new(outgoing, incoming))
    }
}

impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake").field("request", &self.request).finish_non_exhaustive()
    }
}

/// A server's half of a handshake: the answer to send and the session that it opens.
///
/// # Errors
/// The client's key is of small order.
pub fn accept(
    rng: &mut impl CryptoRngCore,
    request: &SessionInitRequest,
    client: Hotkey,
    server: Hotkey,
    session_id: SessionId,
    expires_at: f64,
) -> Result<(SessionInitResponse, Session), HandshakeError> {
    let (secret, public, nonce) = ephemeral(rng);
    let shared = shared_secret(&secret, request.miner_eph_pub32)?;
    let response = SessionInitResponse { validator_eph_pub32: public, session_id, server_nonce16: nonce, expires_at };
    let transcript = Transcript { client, server, request, response: &response };
    let outgoing = transcript.channel(&shared, Direction::ServerToClient);
    let incoming = transcript.channel(&shared, Direction::ClientToServer);
    let session = Session::new(outgoing, incoming);
    Ok((response, session))
}

fn ephemeral(rng: &mut impl CryptoRngCore) -> (StaticSecret, Base64<32>, Base64<16>) {
    let secret = StaticSecret::random_from_rng(&mut *rng);
    let public = Base64(PublicKey::from(&secret).to_bytes());
    let mut nonce = [0_u8; 16];
    rng.fill_bytes(&mut nonce);
    (secret, public, Base64(nonce))
}

fn shared_secret(own: &StaticSecret, peer: Base64<32>) -> Result<x25519_dalek::SharedSecret, HandshakeError> {
    let shared = own.diffie_hellman(&PublicKey::from(peer.0));
    if shared.was_contributory() { Ok(shared) } else { Err(HandshakeError::SmallOrder) }
}

#[derive(Clone, Copy)]
enum Direction {
    ClientToServer,
    ServerToClient,
}

/// All that both sides know of a handshake but the shared secret.
struct Transcript<'a> {
    client: Hotkey,
    server: Hotkey,
    request: &'a SessionInitRequest,
    response: &'a SessionInitResponse,
}

impl Transcript<'_> {
    /// Derives the key of one direction: HKDF-SHA256 (RFC 5869) with salt and info of miner-validator spec 3.2.
    fn channel(&self, shared: &x25519_dalek::SharedSecret, direction: Direction) -> Channel {
        let (label, sender, recipient) = match direction {
            Direction::ClientToServer => ("session_key_client_to_server", self.client, self.server),
            Direction::ServerToClient => ("session_key_server_to_client", self.server, self.client),
        };
        let salt = [self.request.client_nonce16.0, self.response.server_nonce16.0].concat();
        let info = [
            label.as_bytes(),
            self.client.to_string().as_bytes(),
            self.server.to_string().as_bytes(),
            self.request.miner_eph_pub32.to_string().as_bytes(),
            self.response.validator_eph_pub32.to_string().as_bytes(),
            &salt,
            b"HKDF-SHA256_AES-256-GCM_X25519",
        ]
        .join(&b'|');
        let mut key = Zeroizing::new([0_u8; 32]);
        #[expect(clippy::expect_used, reason = "HKDF-SHA256 gives up to 8160 bytes")]
        Hkdf::<Sha256>::new(Some(&salt), shared.as_bytes()).expand(&info, &mut key[..]).expect("32 bytes");
        Channel { session_id: self.response.session_id.clone(), sender, recipient, key }
    }
}

// Packages.

/// A sealed message with what travels in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Always `v1`.
    pub ver: &'static str,
    /// The session.
    pub session_id: SessionId,
    /// Sequence number of the sender.
    pub seq: u64,
    /// AES-256-GCM ciphertext and tag in base64.
    pub ciphertext: String,
    /// Who sealed it.
    pub sender: Hotkey,
    /// Who opens it.
    pub recipient: Hotkey,
    /// Protocol type of the synapse, the same in both directions.
    pub synapse_type: String,
}

impl Package {
    /// The text of the field `request` or `response`.
    #[must_use]
    pub fn to_text(&self) -> String {
        canonical::ascii(self)
    }
}

/// A received package, read as far as is needed to find its session.
#[derive(Debug, Clone)]
pub struct ReceivedPackage {
    session_id: SessionId,
    fields: Object,
}

impl ReceivedPackage {
    /// Reads the text of the field `request` or `response`.
    ///
    /// # Errors
    /// Not a JSON object, or one without a session.
    pub fn parse(text: &str) -> Result<Self, OpenError> {
        let Ok(Value::Object(fields)) = lenient::parse(text) else { return Err(OpenError::Malformed) };
        Self::from_fields(fields)
    }

    /// Takes the keys of a package that came inside another message.
    pub(crate) fn from_fields(fields: Object) -> Result<Self, OpenError> {
        let id = fields.get("session_id").ok_or(OpenError::MissingField("session_id"))?;
        let session_id = id.as_str().and_then(|id| SessionId::new(id).ok()).ok_or(OpenError::Mismatch("session_id"))?;
        Ok(Self { session_id, fields })
    }

    /// The session that it claims to belong to.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    fn text(&self, key: &'static str) -> Result<&str, OpenError> {
        self.fields.get(key).ok_or(OpenError::MissingField(key))?.as_str().ok_or(OpenError::Mismatch(key))
    }
}

/// The payload of a genuine package: one JSON text, which its receiver reads into the type that it awaits.
///
/// It is not read into values first: of a proof of eight GPUs they would take many times its 8 MB.
#[derive(Clone, PartialEq, Eq)]
pub struct Plaintext(String);

impl Plaintext {
    /// Looks whether it is JSON, without keeping anything of it.
    fn check(bytes: Vec<u8>) -> Result<Self, OpenError> {
        let text = String::from_utf8(bytes).map_err(|_| OpenError::Plaintext)?;
        match lenient::from_str::<IgnoredAny>(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(OpenError::Plaintext),
        }
    }

    /// Whether it is an object, as every payload is.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.trim_ascii_start().starts_with('{')
    }

    /// Reads it straight from the text. A short one that names a field twice is read by way of a tree, where the last wins.
    ///
    /// # Errors
    /// It does not fit the type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match lenient::from_str(&self.0) {
            Err(_) if self.0.len() <= MAX_TREE_BYTES => serde_json::from_value(lenient::parse(&self.0)?),
            read => read,
        }
    }
}

impl fmt::Debug for Plaintext {
    /// Its length alone: it may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.0.len())
    }
}

/// Why a package was not opened; the text is what the peer is told (miner-validator spec 3.6).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a JSON object.
    #[error("Malformed encrypted package: not a JSON object")]
    Malformed,
    /// A key is absent.
    #[error("Missing field in encrypted package: '{0}'")]
    MissingField(&'static str),
    /// No live session of that name.
    #[error("Session not found or expired: {0}")]
    UnknownSession(SessionId),
    /// A field is of a wrong type, or not what this session and route expect.
    #[error("Decryption failed: Decryption failed: unexpected {0}")]
    Mismatch(&'static str),
    /// The ciphertext is no base64, too short, or its tag does not hold.
    #[error("Decryption failed: Decryption failed: authentication failed")]
    Tag,
    /// The plaintext is no JSON.
    #[error("Decryption failed: payload is not JSON")]
    Plaintext,
    /// Seen before, too old or too far ahead.
    #[error("SEQUENCE_ERROR:4020:Replay detected or sequence out of window")]
    Sequence,
}

impl OpenError {
    /// The code of miner-validator spec 3.6.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownSession(_) => ErrorCode::SessionExpired,
            Self::Sequence => ErrorCode::SequenceError,
            _ => ErrorCode::SessionUnknown,
        }
    }

    /// What the peer is told in place of a package.
    #[must_use]
    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer::new(self.code(), self.to_string())
    }
}

/// The 2^64 numbers of a session are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence numbers of the session are used up: open a new one")]
pub struct SequenceExhausted;

/// One direction of a session: its key and its two ends. Knows nothing of the order of messages.
pub struct Channel {
    session_id: SessionId,
    sender: Hotkey,
    recipient: Hotkey,
    key: Zeroizing<[u8; 32]>,
}

impl Channel {
    /// Seals `plaintext` as message `seq`. A number must never be used twice; [`Session::seal`] counts.
    #[must_use]
    pub fn seal(&self, seq: u64, synapse_type: &str, plaintext: &str) -> Package {
        let aad = self.aad(seq, synapse_type);
        let payload = Payload { msg: plaintext.as_bytes(), aad: aad.as_bytes() };
        #[expect(clippy::expect_used, reason = "AES-GCM refuses only texts beyond 64 GiB")]
        let ciphertext = self.cipher().encrypt(&Nonce::from(self.iv(seq)), payload).expect("below 64 GiB");
        Package {
            ver: VERSION,
            session_id: self.session_id.clone(),
            seq,
            ciphertext: BASE64.encode(ciphertext),
            sender: self.sender,
            recipient: self.recipient,
            synapse_type: synapse_type.to_owned(),
        }
    }

    /// Opens a package of this direction, in the order of checks of miner-validator spec 3.3 up to the payload's JSON;
    /// gives its sequence number, which is yet to be judged, and its payload.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(&self, package: &ReceivedPackage, synapse_type: &str) -> Result<(u64, Plaintext), OpenError> {
        if package.session_id != self.session_id {
            return Err(OpenError::Mismatch("session_id"));
        }
        let version = package.text("ver")?;
        let seq = package.fields.get("seq").ok_or(OpenError::MissingField("seq"))?;
        let ciphertext = package.text("ciphertext")?;
        let (sender, recipient) = (package.text("sender")?, package.text("recipient")?);
        let claimed_type = package.text("synapse_type")?;
        if version != VERSION {
            return Err(OpenError::Mismatch("ver"));
        }
        let seq = seq.as_u64().ok_or(OpenError::Mismatch("seq"))?;
        if sender != self.sender.to_string() || recipient != self.recipient.to_string() {
            return Err(OpenError::Mismatch("sender or recipient"));
        }
        if claimed_type != synapse_type {
            return Err(OpenError::Mismatch("synapse_type"));
        }
        let ciphertext = BASE64.decode(ciphertext).map_err(|_| OpenError::Tag)?;
        let aad = self.aad(seq, synapse_type);
        let payload = Payload { msg: &ciphertext, aad: aad.as_bytes() };
        let plaintext = self.cipher().decrypt(&Nonce::from(self.iv(seq)), payload).map_err(|_| OpenError::Tag)?;
        Ok((seq, Plaintext::check(plaintext)?))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.key).into())
    }

    fn iv(&self, seq: u64) -> [u8; 12] {
        let mut iv = [0_u8; 12];
        iv[..4].copy_from_slice(&Sha256::digest(self.session_id.as_str())[..4]);
        iv[4..].copy_from_slice(&seq.to_be_bytes());
        iv
    }

    fn aad(&self, seq: u64, synapse_type: &str) -> String {
        let Self { session_id, sender, recipient, .. } = self;
        format!("leap-comm|{sender}|{recipient}|{synapse_type}|session_{session_id}|seq_{seq}")
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("session_id", &self.session_id)
            .field("sender", &self.sender)
            .field("recipient", &self.recipient)
            .finish_non_exhaustive()
    }
}

/// One side of a session. Several messages may be under way at once, so all methods take it shared.
#[derive(Debug)]
pub struct Session {
    outgoing: Channel,
    incoming: Channel,
    /// Last sequence number sent; the first on the wire is 1.
    sent: AtomicU64,
    window: Mutex<ReplayWindow>,
}

impl Session {
    fn new(outgoing: Channel, incoming: Channel) -> Self {
        Self { outgoing, incoming, sent: AtomicU64::new(0), window: Mutex::new(ReplayWindow::default()) }
    }

    /// The session's name.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.outgoing.session_id
    }

    /// The other side.
    #[must_use]
    pub fn peer(&self) -> Hotkey {
        self.outgoing.recipient
    }

    /// The direction from this side to the other.
    #[must_use]
    pub fn outgoing(&self) -> &Channel {
        &self.outgoing
    }

    /// The direction from the other side to this one.
    #[must_use]
    pub fn incoming(&self) -> &Channel {
        &self.incoming
    }

    /// Seals `payload` under the next sequence number.
    ///
    /// # Errors
    /// There is no next number.
    pub fn seal(&self, synapse_type: &str, payload: &impl Serialize) -> Result<Package, SequenceExhausted> {
        let next = |sent: u64| sent.checked_add(1);
        let sent = self.sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_err(|_| SequenceExhausted)?;
        Ok(self.outgoing.seal(sent + 1, synapse_type, &canonical::sorted(payload)))
    }

    /// Opens a package of the other side and, since it is genuine, takes its sequence number in.
    ///
    /// A payload that then does not fit its schema has used its number up.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn open(&self, package: &ReceivedPackage, synapse_type: &str) -> Result<Plaintext, OpenError> {
        let (seq, payload) = self.incoming.open(package, synapse_type)?;
        // A panic elsewhere cannot leave the window half written.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.accept(seq) { Ok(payload) } else { Err(OpenError::Sequence) }
    }
}

/// The receiver's memory of sequence numbers: a bitmap by value over the last [`Self::SIZE`] below the highest.
///
/// A number that was accepted once is never accepted again, whatever the order of arrival (miner-validator spec 3.4).
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit `seq % SIZE` for each number of the window that was seen.
    seen: [u64; (Self::SIZE / 64) as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { highest: 0, seen: [0; (Self::SIZE / 64) as usize] }
    }
}

impl ReplayWindow {
    /// How many numbers back from the highest may still arrive.
    pub const SIZE: u64 = 1024;
    /// How far ahead of the highest a number may jump.
    pub const MAX_JUMP: u64 = 2 * Self::SIZE;

    /// The highest number accepted so far; 0 at first.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// True if `seq` is new, not too old and not too far ahead; it is then taken in.
    pub fn accept(&mut self, seq: u64) -> bool {
        let oldest = self.highest.saturating_sub(Self::SIZE - 1);
        if seq < oldest || seq > self.highest.saturating_add(Self::MAX_JUMP) {
            return false;
        }
        if seq > self.highest {
            // The numbers between enter the window unseen; their bits may hold numbers that now leave it.
            let entering = (seq - self.highest).min(Self::SIZE);
            for entered in 0..entering {
                self.set_seen(seq - entered, false);
            }
            self.highest = seq;
        } else if self.is_seen(seq) {
            return false;
        }
        self.set_seen(seq, true);
        true
    }

    fn place(seq: u64) -> (usize, u64) {
        let bit = seq % Self::SIZE;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn is_seen(&self, seq: u64) -> bool {
        let (word, bit) = Self::place(seq);
        self.seen[word] & bit != 0
    }

    fn set_seen(&mut self, seq: u64, is_seen: bool) {
        let (word, bit) = Self::place(seq);
        if is_seen { self.seen[word] |= bit } else { self.seen[word] &= !bit }
    }
}
