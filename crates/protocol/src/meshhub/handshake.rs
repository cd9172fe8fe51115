//! How a session with the marketplace begins (validator spec 7.1): the key agreement of the miners' sessions under other
//! key names, the validator as the client.
//!
//! The deployed marketplace only states its hotkey. Ours signs the agreement as well ([`SessionInitResponse::server_signature`]),
//! so that a validator which saw a signature once knows the server from then on, whoever sits on the path.

use rand_core::CryptoRngCore;
use serde::{Deserialize, Serialize};

use super::VERSION_PREFIX;
use crate::hotkey::{Hotkey, Signature, Signer};
use crate::id::SessionId;
use crate::lenient;
use crate::session::{self, Base64, ClientHandshake, HandshakeError, Session};

/// What the marketplace signs begins with this.
const DOMAIN: &str = "ByteLeap MeshHub session 1";

/// What a validator opens a session with.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionInit {
    /// Who opens it.
    pub validator_hotkey: Hotkey,
    /// The secret by which the marketplace knows it.
    pub access_token: AccessToken,
    /// `release-v` and a version.
    #[serde(default, deserialize_with = "lenient::read")]
    pub client_version: String,
    /// What it can do.
    #[serde(default, deserialize_with = "lenient::read")]
    pub capabilities: Vec<String>,
    /// Its ephemeral X25519 key.
    pub client_public_key: Base64<32>,
    /// Random bytes.
    pub client_nonce: Base64<16>,
}

impl std::fmt::Debug for SessionInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionInit")
            .field("validator_hotkey", &self.validator_hotkey)
            .field("client_version", &self.client_version)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// A validator's login. Neither printed nor logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessToken(String);

impl AccessToken {
    /// The token of this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether it is this text, in a time that does not tell where they differ.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        use sha2::{Digest, Sha256};
        // Digests hide both lengths and the place of the first difference.
        Sha256::digest(&self.0) == Sha256::digest(text)
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessToken")
    }
}

/// What the marketplace answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionInitResponse {
    /// The new session.
    pub session_id: SessionId,
    /// The marketplace's ephemeral X25519 key; the name speaks of a validator on every link.
    pub validator_ephemeral_public_key: Base64<32>,
    /// Random bytes.
    pub server_nonce: Base64<16>,
    /// Who the marketplace says it is.
    pub server_hotkey: Hotkey,
    /// Proof of it, which the deployed marketplace does not give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_signature: Option<Signature>,
}

/// Who a validator is to the marketplace.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its login.
    pub token: AccessToken,
    /// The bare version of its software.
    pub version: String,
    /// What it can do.
    pub capabilities: Vec<String>,
}

/// Why the marketplace's answer opens no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Its key is of small order.
    #[error("the marketplace's key agrees on no secret")]
    Agreement(#[from] HandshakeError),
    /// Its signature does not hold.
    #[error("the marketplace does not hold the key of {0}, which it says it is")]
    Forged(Hotkey),
}

/// A session under way to be opened by a validator.
#[derive(Debug)]
pub struct Opening {
    handshake: ClientHandshake,
    init: SessionInit,
}

impl Opening {
    /// Draws key and nonce.
    #[must_use]
    pub fn new(rng: &mut impl CryptoRngCore, identity: &Identity) -> Self {
        let handshake = ClientHandshake::new(rng, 0.0);
        let init = SessionInit {
            validator_hotkey: identity.hotkey,
            access_token: identity.token.clone(),
            client_version: format!("{VERSION_PREFIX}{}", identity.version),
            capabilities: identity.capabilities.clone(),
            client_public_key: handshake.request().miner_eph_pub32,
            client_nonce: handshake.request().client_nonce16,
        };
        Self { handshake, init }
    }

    /// What to send.
    #[must_use]
    pub fn init(&self) -> &SessionInit {
        &self.init
    }

    /// Takes the answer in.
    ///
    /// # Errors
    /// The keys agree on nothing, or a signature is there that does not hold.
    pub fn finish(self, answer: &SessionInitResponse) -> Result<Session, OpeningError> {
        let server = answer.server_hotkey;
        if let Some(signature) = &answer.server_signature
            && !server.verify(signed(&self.init, answer).as_bytes(), signature)
        {
            return Err(OpeningError::Forged(server));
        }
        let response = session::SessionInitResponse {
            validator_eph_pub32: answer.validator_ephemeral_public_key,
            session_id: answer.session_id.clone(),
            server_nonce16: answer.server_nonce,
            expires_at: 0.0,
        };
        Ok(self.handshake.finish(&response, self.init.validator_hotkey, server)?)
    }
}

/// The marketplace's half: its signed answer, and the session that it opens. Whether the token is right is for the caller.
///
/// # Errors
/// The validator's key is of small order.
pub fn accept(
    rng: &mut impl CryptoRngCore,
    init: &SessionInit,
    server: &impl Signer,
) -> Result<(SessionInitResponse, Session), HandshakeError> {
    let request = session::SessionInitRequest {
        miner_eph_pub32: init.client_public_key,
        client_nonce16: init.client_nonce,
        created_at: 0.0,
    };
    let session_id = SessionId::random(rng);
    let (response, session) = session::accept(rng, &request, init.validator_hotkey, server.hotkey(), session_id, 0.0)?;
    let mut answer = SessionInitResponse {
        session_id: response.session_id,
        validator_ephemeral_public_key: response.validator_eph_pub32,
        server_nonce: response.server_nonce16,
        server_hotkey: server.hotkey(),
        server_signature: None,
    };
    answer.server_signature = Some(server.sign(signed(init, &answer).as_bytes()));
    Ok((answer, session))
}

/// What the marketplace signs: both ends, both keys, both nonces and the session.
fn signed(init: &SessionInit, answer: &SessionInitResponse) -> String {
    [
        DOMAIN.to_owned(),
        answer.session_id.to_string(),
        init.validator_hotkey.to_string(),
        answer.server_hotkey.to_string(),
        init.client_public_key.to_string(),
        answer.validator_ephemeral_public_key.to_string(),
        init.client_nonce.to_string(),
        answer.server_nonce.to_string(),
    ]
    .join("|")
}
