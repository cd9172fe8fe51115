//! The invitation of a worker: where its miner listens, by which certificate it is known, and a secret that enrols one
//! key, once.
//!
//! `byteleap-miner workers enroll --token` prints a [`JoinToken`], `byteleap-worker join` reads it. Its text is one word
//! that survives chat and shell: [`PREFIX`] and, in base64 for URLs without padding,
//!
//! ```text
//! 1, the version ‖ 0, or 1 ‖ fingerprint, 32 bytes ‖ secret, 32 bytes ‖ URL, UTF-8 ‖ head of SHA-256 over all before, 4 bytes
//! ```
//!
//! The miner keeps of it only [`JoinSecret::digest`].

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// What every token begins with.
pub const PREFIX: &str = "byteleap-join-";

/// Longest URL in a token, in bytes.
pub const MAX_URL_BYTES: usize = 512;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Longest token, in bytes of its text.
const MAX_TEXT_BYTES: usize = 1024;

/// SHA-256 of a certificate (DER). Its text is `sha256:` and 64 lower-case digits; colons between them, capitals and a
/// missing prefix are read too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CertificateFingerprint(pub [u8; 32]);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sha256: and the 64 hexadecimal digits that byteleap-miner status shows")]
pub struct NoFingerprint;

impl CertificateFingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CertificateFingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NoFingerprint)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for CertificateFingerprint {
    type Error = NoFingerprint;

    fn try_from(text: String) -> Result<Self, NoFingerprint> {
        text.parse()
    }
}

impl From<CertificateFingerprint> for String {
    fn from(fingerprint: CertificateFingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Whoever sends it may enrol one key. Never printed; on the wire 64 hexadecimal digits.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JoinSecret([u8; 32]);

/// Why a text is no join secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a join secret must be 64 hexadecimal digits")]
pub struct NoSecret;

impl JoinSecret {
    /// A new one.
    #[must_use]
    pub fn random(random: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = [0; 32];
        random.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// What the miner keeps. Secrets are drawn from 2^256, so one round of SHA-256 hides them.
    #[must_use]
    pub fn digest(&self) -> JoinDigest {
        JoinDigest(Sha256::digest(self.0).into())
    }
}

impl Drop for JoinSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PartialEq for JoinSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinSecret {}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

impl TryFrom<String> for JoinSecret {
    type Error = NoSecret;

    fn try_from(text: String) -> Result<Self, NoSecret> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| NoSecret)?;
        Ok(Self(bytes))
    }
}

impl From<JoinSecret> for String {
    fn from(secret: JoinSecret) -> Self {
        hex::encode(secret.0)
    }
}

/// SHA-256 of a [`JoinSecret`]; compared in constant time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JoinDigest([u8; 32]);

impl PartialEq for JoinDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for JoinDigest {}

impl TryFrom<String> for JoinDigest {
    type Error = NoSecret;

    fn try_from(text: String) -> Result<Self, NoSecret> {
        JoinSecret::try_from(text).map(|same_form| Self(same_form.0))
    }
}

impl From<JoinDigest> for String {
    fn from(digest: JoinDigest) -> Self {
        hex::encode(digest.0)
    }
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the miner listens, as a worker dials it.
    pub url: String,
    /// The certificate by which the miner is known; none where authorities vouch for its name.
    pub fingerprint: Option<CertificateFingerprint>,
    /// Enrols the worker's key.
    pub secret: JoinSecret,
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// Something else.
    #[error("this is no join token: it begins with {PREFIX} and is printed by byteleap-miner workers enroll --token")]
    NotAToken,
    /// Cut off or misspelt.
    #[error("the join token was not copied whole: copy the one word that byteleap-miner printed")]
    Damaged,
    /// Of a later release.
    #[error("the join token is of version {0}, this program reads version {VERSION}: update byteleap-worker")]
    Version(u8),
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION, u8::from(self.fingerprint.is_some())];
        bytes.extend(self.fingerprint.iter().flat_map(|fingerprint| fingerprint.0));
        bytes.extend(self.secret.0);
        bytes.extend(self.url.as_bytes());
        bytes.extend(checksum(&bytes));
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes))?;
        bytes.zeroize();
        Ok(())
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError::NotAToken)?;
        if text.len() > MAX_TEXT_BYTES {
            return Err(JoinTokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinTokenError::Damaged)?;
        let (content, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(JoinTokenError::Damaged)?;
        if *found != checksum(content) {
            return Err(JoinTokenError::Damaged);
        }
        let (head, rest) = content.split_first_chunk::<2>().ok_or(JoinTokenError::Damaged)?;
        let (fingerprint, rest) = match *head {
            [VERSION, 0] => (None, rest),
            [VERSION, 1] => {
                let (fingerprint, rest) = rest.split_first_chunk().ok_or(JoinTokenError::Damaged)?;
                (Some(CertificateFingerprint(*fingerprint)), rest)
            }
            [VERSION, _] => return Err(JoinTokenError::Damaged),
            [version, _] => return Err(JoinTokenError::Version(version)),
        };
        let (secret, url) = rest.split_first_chunk().ok_or(JoinTokenError::Damaged)?;
        let url = str::from_utf8(url).map_err(|_| JoinTokenError::Damaged)?;
        if url.len() > MAX_URL_BYTES {
            return Err(JoinTokenError::Damaged);
        }
        Ok(Self { url: url.to_owned(), fingerprint, secret: JoinSecret(*secret) })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::digest(bytes);
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(fingerprint: Option<u8>) -> JoinToken {
        JoinToken {
            url: "wss://203.0.113.7:7799".to_owned(),
            fingerprint: fingerprint.map(|byte| CertificateFingerprint([byte; 32])),
            secret: JoinSecret([7; 32]),
        }
    }

    #[test]
    fn a_token_reads_back_with_and_without_a_fingerprint() {
        for token in [token(None), token(Some(3))] {
            let text = token.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{text}");
            assert_eq!(format!(" {text}\n").parse(), Ok(token));
        }
    }

    #[test]
    fn a_damaged_token_is_told_from_something_else_and_from_a_later_version() {
        let text = token(Some(3)).to_string();
        assert_eq!("hello".parse::<JoinToken>(), Err(JoinTokenError::NotAToken));
        assert_eq!(text[..text.len() - 1].parse::<JoinToken>(), Err(JoinTokenError::Damaged));
        let mut later = vec![2, 0];
        later.extend(checksum(&later));
        let later = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(later));
        assert_eq!(later.parse::<JoinToken>(), Err(JoinTokenError::Version(2)));
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_writes_it() {
        let fingerprint = CertificateFingerprint([0xab; 32]);
        let colons = ["AB"; 32].join(":");
        for text in [fingerprint.to_string(), colons.clone(), format!("SHA256:{colons}"), "ab".repeat(32)] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
        assert!("sha256:ab".parse::<CertificateFingerprint>().is_err());
    }

    #[test]
    fn a_secret_is_never_printed_and_known_by_its_digest_alone() {
        let secret = JoinSecret([0xcd; 32]);
        assert!(!format!("{:?}", token(None)).contains("07"));
        assert!(!format!("{secret:?}").contains("cd"));
        assert_eq!(secret.digest(), JoinSecret([0xcd; 32]).digest());
        assert_ne!(secret.digest(), JoinSecret([0xce; 32]).digest());
    }

    proptest! {
        #[test]
        fn one_wrong_character_never_yields_another_token(at in 0_usize..100, letter in "[A-Za-z0-9_-]") {
            let text = token(Some(3)).to_string();
            let at = PREFIX.len() + at % (text.len() - PREFIX.len());
            let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
            if changed != text {
                prop_assert_eq!(changed.parse::<JoinToken>(), Err(JoinTokenError::Damaged));
            }
        }
    }
}
