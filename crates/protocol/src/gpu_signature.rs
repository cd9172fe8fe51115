//! The signature under a GPU's commitment: proof that a GPU server holding the network's key made it
//! (worker-miner spec 5.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};

use crate::id::{GpuUuid, Seed};
use crate::merkle::NodeHash;
use crate::payload::SignatureVersion;

/// The public network's key, an uncompressed P-256 point in hexadecimal.
pub const NETWORK_PUBLIC_KEY: &str = "045db4dcfa2559220159eba6bb8b7f16e4c4962bb9d862a7df8a1ce4138c01e14533213760877d4eaba3f84a7e1e1b29cb0f3320ff90f01dc206c22cffc0b09afb";

/// The key that a validator holds GPU commitments against; an own network has its own.
#[derive(Debug, Clone)]
pub struct CommitmentKey(VerifyingKey);

/// A text that is no P-256 point in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 public key: expected a point in hexadecimal (SEC1)")]
pub struct CommitmentKeyError;

impl std::str::FromStr for CommitmentKey {
    type Err = CommitmentKeyError;

    fn from_str(text: &str) -> Result<Self, CommitmentKeyError> {
        let point = hex::decode(text).map_err(|_| CommitmentKeyError)?;
        VerifyingKey::from_sec1_bytes(&point).map(Self).map_err(|_| CommitmentKeyError)
    }
}

/// What is signed: `0x<version>|<seed>|<gpu uuid>|<merkle root>`.
#[must_use]
pub fn message(seed: &Seed, gpu: &GpuUuid, merkle_root: NodeHash) -> String {
    let version = u8::from(SignatureVersion::P256);
    format!("0x{version:x}|{seed}|{gpu}|{merkle_root}")
}

impl CommitmentKey {
    /// True if `sig_val` is this key's signature over the commitment: 64 bytes r and s, read as hexadecimal first and
    /// as base64 then; zero and any other length are refused.
    #[must_use]
    pub fn verify(&self, seed: &Seed, gpu: &GpuUuid, merkle_root: NodeHash, sig_val: &str) -> bool {
        let Some(bytes) = hex::decode(sig_val).ok().or_else(|| BASE64.decode(sig_val).ok()) else { return false };
        // Refuses another length than 64 and a zero r or s.
        let Ok(signature) = Signature::from_slice(&bytes) else { return false };
        self.0.verify(message(seed, gpu, merkle_root).as_bytes(), &signature).is_ok()
    }
}
