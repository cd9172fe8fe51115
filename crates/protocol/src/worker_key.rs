//! The key of a worker, and how a registration proves it.
//!
//! A worker makes an Ed25519 key at its first start and keeps it. A miner of ours puts a fresh [`Nonce`] into the answer
//! to each WebSocket upgrade ([`NONCE_HEADER`]), where a Python worker reads it over; a worker of ours signs it in its
//! registration. What is signed also names the `worker_id` and, on a TLS link, the keying material that only the two
//! ends of this very connection can export (RFC 5705, RFC 8446 7.5). So a proof is good once: it is neither replayed,
//! since the nonce is new, nor, on TLS, passed on to another miner, since the connection is another. On a plain link
//! somebody on the path can pass a proof on while it is fresh; that is what `wss://` is for.
//!
//! ```text
//! "ByteLeap worker registration 1\n" ‖ nonce, 32 bytes ‖ 0, or 1 ‖ exported keying material, 32 bytes ‖ worker_id, UTF-8
//! ```

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::WorkerId;
use crate::join::JoinSecret;

/// The header of the upgrade's answer that carries the [`Nonce`].
pub const NONCE_HEADER: &str = "ByteLeap-Nonce";

/// The label under which both ends of a TLS link export the keying material of a proof; there is no context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-ByteLeap-worker-registration";

/// What every signed registration begins with.
const DOMAIN: &[u8] = b"ByteLeap worker registration 1\n";

/// Why a text is no key, nonce or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} must be {1} hexadecimal digits")]
pub struct NotHex(&'static str, usize);

/// Bytes whose text, on the wire and in logs, is lower-case hexadecimal.
macro_rules! hex_type {
    ($(#[$doc:meta])* $name:ident, $label:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotHex;

            fn from_str(text: &str) -> Result<Self, NotHex> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| NotHex($label, 2 * $bytes))?;
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotHex;

            fn try_from(text: String) -> Result<Self, NotHex> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

hex_type! {
    /// A worker's public key. Any 32 bytes are accepted; bytes that are no key verify nothing.
    WorkerKey, "a worker's key", 32
}

hex_type! {
    /// A worker's signature of its registration.
    KeySignature, "a worker's signature", 64
}

hex_type! {
    /// What a miner draws for each connection and a worker signs on it.
    Nonce, "a nonce", 32
}

impl Nonce {
    /// A fresh one.
    #[must_use]
    pub fn random(random: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = [0; 32];
        random.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

/// What ties a proof to one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    /// The miner's nonce for this connection.
    pub nonce: Nonce,
    /// The keying material exported under [`EXPORTER_LABEL`]; none on a plain link.
    pub exported: Option<[u8; 32]>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("nonce", &self.nonce).field("is_tls", &self.exported.is_some()).finish()
    }
}

impl Channel {
    fn message(&self, worker_id: &WorkerId) -> Vec<u8> {
        let exported = self.exported.as_ref();
        let marked: &[u8] = if exported.is_some() { &[1] } else { &[0] };
        [DOMAIN, &self.nonce.0, marked, exported.map_or(&[][..], |bytes| bytes), worker_id.as_str().as_bytes()].concat()
    }
}

/// A worker's private key. Wiped when dropped, never printed.
pub struct WorkerSecret(SigningKey);

impl fmt::Debug for WorkerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerSecret of {}", self.public())
    }
}

impl WorkerSecret {
    /// A new key.
    #[must_use]
    pub fn random(random: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        random.fill_bytes(&mut *seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// The key of a kept text, 64 hexadecimal digits.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_text(text: &str) -> Result<Self, NotHex> {
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *seed).map_err(|_| NotHex("a worker's private key", 64))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The text to keep.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.as_bytes()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> WorkerKey {
        WorkerKey(self.0.verifying_key().to_bytes())
    }

    /// Proves on this connection that the worker of this name holds the key.
    #[must_use]
    pub fn prove(&self, channel: &Channel, worker_id: &WorkerId) -> KeyProof {
        let signature = KeySignature(self.0.sign(&channel.message(worker_id)).to_bytes());
        KeyProof { public_key: self.public(), signature, join_secret: None }
    }
}

/// The key `identity` of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyProof {
    /// The worker's key.
    pub public_key: WorkerKey,
    /// Its signature of this registration.
    pub signature: KeySignature,
    /// The secret of the join token that shall enrol the key; sent over TLS only, until the key is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_secret: Option<JoinSecret>,
}

impl KeyProof {
    /// Whether the worker of this name proved its key on this connection.
    #[must_use]
    pub fn holds(&self, channel: &Channel, worker_id: &WorkerId) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.public_key.0) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        // Strict: no key of small order, for which one signature would hold for many messages.
        key.verify_strict(&channel.message(worker_id), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(id: &str) -> WorkerId {
        WorkerId::new(id).unwrap()
    }

    fn channel(nonce: u8, exported: Option<u8>) -> Channel {
        Channel { nonce: Nonce([nonce; 32]), exported: exported.map(|byte| [byte; 32]) }
    }

    fn secret() -> WorkerSecret {
        WorkerSecret::from_text(&"07".repeat(32)).unwrap()
    }

    #[test]
    fn a_proof_holds_on_its_own_connection_and_for_its_own_worker_alone() {
        let here = channel(1, Some(2));
        let proof = secret().prove(&here, &worker("w1"));
        assert!(proof.holds(&here, &worker("w1")));
        assert!(!proof.holds(&here, &worker("w2")), "another worker_id");
        assert!(!proof.holds(&channel(9, Some(2)), &worker("w1")), "an earlier connection's nonce");
        assert!(!proof.holds(&channel(1, Some(9)), &worker("w1")), "passed on over another TLS connection");
        assert!(!proof.holds(&channel(1, None), &worker("w1")), "TLS ended somewhere between");
    }

    #[test]
    fn a_forged_signature_or_key_proves_nothing() {
        let here = channel(1, None);
        let proof = secret().prove(&here, &worker("w1"));
        let mut forged = proof.clone();
        forged.signature.0[0] ^= 1;
        assert!(!forged.holds(&here, &worker("w1")));
        let other = WorkerSecret::from_text(&"08".repeat(32)).unwrap().public();
        assert!(!KeyProof { public_key: other, ..proof.clone() }.holds(&here, &worker("w1")));
        // The neutral element, under which the signature of zeros would hold for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let forged = KeyProof { public_key: WorkerKey(neutral), signature: KeySignature(signature), join_secret: None };
        assert!(!forged.holds(&here, &worker("w1")));
    }

    #[test]
    fn the_key_is_that_of_rfc_8032() {
        let secret =
            WorkerSecret::from_text("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        assert_eq!(secret.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn a_kept_key_reads_back_and_is_never_printed() {
        let text = secret().to_text();
        assert_eq!(WorkerSecret::from_text(&format!("{}\n", *text)).unwrap().public(), secret().public());
        assert!(WorkerSecret::from_text("07").is_err());
        assert!(!format!("{:?}", secret()).contains(text.as_str()));
        assert!(!format!("{:?}", channel(1, Some(0xab))).contains("ab"), "keying material");
    }
}
