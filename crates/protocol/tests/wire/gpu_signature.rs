//! The signature under a GPU's commitment (`gpu_matrix.json`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use byteleap_protocol::gpu_signature::{CommitmentKey, NETWORK_PUBLIC_KEY, message};

#[derive(serde::Deserialize)]
struct Vectors {
    signature_sample: Sample,
}

#[derive(serde::Deserialize)]
struct Sample {
    public_key_uncompressed_hex: String,
    message: String,
    sig_val_hex: String,
    sig_val_base64: String,
    must_fail: Vec<AnotherMessage>,
}

#[derive(serde::Deserialize)]
struct AnotherMessage {
    message: String,
}

#[test]
fn the_recorded_signature_holds_in_both_encodings_and_for_its_message_only() {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors/gpu_matrix.json")).unwrap();
    let sample = vectors.signature_sample;
    let parts: Vec<_> = sample.message.split('|').collect();
    let (seed, gpu, root) = (parts[1].parse().unwrap(), parts[2].parse().unwrap(), parts[3].parse().unwrap());
    assert_eq!(message(&seed, &gpu, root), sample.message);

    let key: CommitmentKey = sample.public_key_uncompressed_hex.parse().unwrap();
    assert!(key.verify(&seed, &gpu, root, &sample.sig_val_hex));
    assert!(key.verify(&seed, &gpu, root, &sample.sig_val_base64));
    for other in sample.must_fail {
        assert_ne!(message(&seed, &gpu, root), other.message);
        let root = other.message.rsplit('|').next().unwrap().parse().unwrap();
        if other.message.starts_with("0x1") {
            assert!(!key.verify(&seed, &gpu, root, &sample.sig_val_hex));
        }
    }
    for bad in [String::new(), "00".repeat(64), sample.sig_val_hex[2..].to_owned(), BASE64.encode([0; 64])] {
        assert!(!key.verify(&seed, &gpu, root, &bad), "{bad}");
    }
    let network: CommitmentKey = NETWORK_PUBLIC_KEY.parse().unwrap();
    assert!(!network.verify(&seed, &gpu, root, &sample.sig_val_hex));
}
