//! The signature under a GPU's commitment: proof that a GPU server holding the network's key made it
//! (worker-miner spec 5.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use crate::id::{GpuUuid, Seed};
use crate::merkle::NodeHash;
use crate::payload::SignatureVersion;

/// The public network's key, an uncompressed P-256 point in hexadecimal.
pub const NETWORK_PUBLIC_KEY: &str = "045db4dcfa2559220159eba6bb8b7f16e4c4962bb9d862a7df8a1ce4138c01e14533213760877d4eaba3f84a7e1e1b29cb0f3320ff90f01dc206c22cffc0b09afb";

/// The key that a validator holds GPU commitments against; an own network has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitmentKey(VerifyingKey);

impl std::fmt::Display for CommitmentKey {
    /// The uncompressed point in hexadecimal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0.to_encoded_point(false)))
    }
}

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

/// The field of a GPU's description (`gpu_plugin`) in which an engine with a key of its own names the public half, so that a
/// validator that accepts such keys knows it.
pub const HOST_KEY_FIELD: &str = "host_key";

/// A private key that GPU commitments are signed with, on own networks.
pub struct CommitmentSigner(SigningKey);

impl CommitmentSigner {
    /// A fresh key.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRngCore) -> Self {
        Self(SigningKey::random(rng))
    }

    /// Reads a key's 64 hexadecimal digits, outer white space aside.
    ///
    /// # Errors
    /// They are no P-256 key.
    pub fn from_hex(digits: &str) -> Result<Self, CommitmentSignerError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        hex::decode_to_slice(digits.trim(), bytes.as_mut_slice()).map_err(|_| CommitmentSignerError)?;
        SigningKey::from_slice(bytes.as_slice()).map(Self).map_err(|_| CommitmentSignerError)
    }

    /// The key's 64 hexadecimal digits, wiped after use.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(<[u8; 32]>::from(self.0.to_bytes()));
        Zeroizing::new(hex::encode(bytes.as_slice()))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> CommitmentKey {
        CommitmentKey(*self.0.verifying_key())
    }

    /// The signature under a commitment, in hexadecimal.
    #[must_use]
    pub fn sign(&self, seed: &Seed, gpu: &GpuUuid, merkle_root: NodeHash) -> String {
        let signature: Signature = self.0.sign(message(seed, gpu, merkle_root).as_bytes());
        hex::encode(signature.to_bytes())
    }
}

impl std::fmt::Debug for CommitmentSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommitmentSigner({})", self.public_key())
    }
}

/// A text that is no P-256 private key in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 private key: expected 64 hexadecimal digits")]
pub struct CommitmentSignerError;

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;

    #[test]
    fn what_a_key_signs_its_public_half_accepts_and_no_other() {
        let (signer, other) = (CommitmentSigner::random(&mut OsRng), CommitmentSigner::random(&mut OsRng));
        let (seed, gpu) = ("0011".parse().unwrap(), "GPU-1".parse().unwrap());
        let root = "00112233445566ff".parse().unwrap();
        let signature = signer.sign(&seed, &gpu, root);
        assert!(signer.public_key().verify(&seed, &gpu, root, &signature));
        assert!(!other.public_key().verify(&seed, &gpu, root, &signature));
        assert!(!signer.public_key().verify(&seed, &"GPU-2".parse().unwrap(), root, &signature));
    }

    #[test]
    fn a_key_survives_its_text_and_is_never_shown() {
        let signer = CommitmentSigner::random(&mut OsRng);
        let text = signer.to_hex();
        assert_eq!(CommitmentSigner::from_hex(&format!("{}\n", *text)).unwrap().public_key(), signer.public_key());
        assert!(!format!("{signer:?}").contains(text.as_str()));
        for wrong in ["", "00", &"00".repeat(32), &"ff".repeat(32), &"zz".repeat(32)] {
            assert!(CommitmentSigner::from_hex(wrong).is_err());
        }
        assert_eq!(signer.public_key().to_string().parse::<CommitmentKey>().unwrap(), signer.public_key());
    }
}
