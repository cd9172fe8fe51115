//! How a worker is invited and proves its key: join tokens, fingerprints and the proofs of registrations.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::join::{CertificateFingerprint, JoinToken, PREFIX};
use byteleap_protocol::worker_key::{Channel, KeyProof, KeySignature, Nonce, WorkerKey};
use byteleap_protocol::{canonical, lenient};
use sha2::{Digest, Sha256};

/// A join token, as text and as what stands behind its checksum: what is read is written again as the same token.
pub fn join_token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        token(text);
        if let Ok(fingerprint) = text.parse::<CertificateFingerprint>() {
            assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }
    let mut content = bytes.to_vec();
    content.extend(&Sha256::digest(bytes)[..4]);
    token(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(content)));
}

fn token(text: &str) {
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim());
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}

/// The proof in a registration: read and written as the same, and nobody without the key makes one that holds.
pub fn key_proof(bytes: &[u8]) {
    let channel = Channel { nonce: Nonce([0x11; 32]), exported: Some([0x22; 32]) };
    let worker_id = WorkerId::new("w1").unwrap();
    if let Some((public_key, rest)) = bytes.split_first_chunk()
        && let Some((signature, _)) = rest.split_first_chunk()
    {
        let proof =
            KeyProof { public_key: WorkerKey(*public_key), signature: KeySignature(*signature), join_secret: None };
        assert!(!proof.holds(&channel, &worker_id), "forged: {proof:?}");
    }
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok()) else { return };
    if let Ok(proof) = serde_json::from_value::<KeyProof>(value) {
        let written = canonical::sorted(&proof);
        assert_eq!(serde_json::from_str::<KeyProof>(&written).unwrap(), proof);
        assert!(!proof.holds(&channel, &worker_id), "forged: {written}");
    }
}
