//! Handshake, keys and packages (`session.json`).

use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::payload::{
    CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt, TaskRequest,
    TaskResponse, TokenRequest,
};
use byteleap_protocol::session::{
    Base64, ClientHandshake, HandshakeError, OpenError, ReceivedPackage, Session, SessionInitRequest,
    SessionInitResponse, accept,
};
use byteleap_protocol::{canonical, id::SessionId, lenient};
use proptest::prelude::*;
use rand_core::{CryptoRng, OsRng, RngCore};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
pub(crate) struct Vectors {
    pub(crate) sessions: Vec<Exchange>,
    must_fail: Vec<Forgery>,
}

#[derive(Deserialize)]
pub(crate) struct Exchange {
    pub(crate) miner_x25519_private_hex: String,
    pub(crate) validator_x25519_private_hex: String,
    pub(crate) client_nonce_hex: String,
    pub(crate) server_nonce_hex: String,
    pub(crate) miner_hotkey: Hotkey,
    pub(crate) validator_hotkey: Hotkey,
    pub(crate) session_id: SessionId,
    pub(crate) session_init_request_json: String,
    pub(crate) session_init_response_json: String,
    pub(crate) messages: Vec<Message>,
}

#[derive(Deserialize)]
pub(crate) struct Message {
    pub(crate) direction: String,
    pub(crate) seq: u64,
    pub(crate) synapse_type: String,
    pub(crate) plaintext_json: String,
    pub(crate) package_json: String,
}

#[derive(Deserialize)]
struct Forgery {
    why: String,
    package_json: String,
}

pub(crate) fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/session.json")).unwrap()
}

/// Gives the recorded bytes in place of random ones.
pub(crate) struct Recorded(Vec<u8>);

impl Recorded {
    pub(crate) fn new(parts: [&str; 2]) -> Self {
        Self(parts.iter().flat_map(|part| hex::decode(part).unwrap()).collect())
    }
}

impl RngCore for Recorded {
    fn next_u32(&mut self) -> u32 {
        unreachable!()
    }
    fn next_u64(&mut self) -> u64 {
        unreachable!()
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Recorded {}

/// Repeats a recorded handshake; the miner's side and the validator's.
fn open(exchange: &Exchange) -> (Session, Session) {
    let mut rng = Recorded::new([&exchange.miner_x25519_private_hex, &exchange.client_nonce_hex]);
    let handshake = ClientHandshake::new(&mut rng, 1_760_000_000.25);
    assert_eq!(handshake.request().to_text(), exchange.session_init_request_json);

    let request = SessionInitRequest::parse(&exchange.session_init_request_json).unwrap();
    let mut rng = Recorded::new([&exchange.validator_x25519_private_hex, &exchange.server_nonce_hex]);
    let (miner, validator) = (exchange.miner_hotkey, exchange.validator_hotkey);
    let (response, server) =
        accept(&mut rng, &request, miner, validator, exchange.session_id.clone(), 1_760_021_600.5).unwrap();
    assert_eq!(response.to_text(), exchange.session_init_response_json);

    let response = SessionInitResponse::parse(&exchange.session_init_response_json).unwrap();
    (handshake.finish(&response, miner, validator).unwrap(), server)
}

#[test]
fn recorded_handshakes_and_packages_are_reproduced_byte_for_byte() {
    for exchange in vectors().sessions {
        let (miner, validator) = open(&exchange);
        for message in exchange.messages {
            let Message { direction, seq, synapse_type, plaintext_json, package_json } = message;
            let (sealer, opener) = match direction.as_str() {
                "client_to_server" => (miner.outgoing(), validator.incoming()),
                _ => (validator.outgoing(), miner.incoming()),
            };
            assert_eq!(sealer.seal(seq, &synapse_type, &plaintext_json).to_text(), package_json);
            let package = ReceivedPackage::parse(&package_json).unwrap();
            let (opened_seq, payload) = opener.open(&package, &synapse_type).unwrap();
            assert_eq!(opened_seq, seq);
            assert_eq!(payload.read::<Value>().unwrap(), lenient::parse(&plaintext_json).unwrap());
        }
    }
}

#[test]
fn recorded_payloads_are_read_and_written_unchanged() {
    fn unchanged<T: Serialize + DeserializeOwned>(plaintext: &str) {
        let payload: T = serde_json::from_value(lenient::parse(plaintext).unwrap()).unwrap();
        let mut written: Value = serde_json::from_str(&canonical::sorted(&payload)).unwrap();
        // Every payload may carry its schema version; a recorded one may have left it out.
        let read: Value = serde_json::from_str(plaintext).unwrap();
        if read.get("schema_version").is_none() {
            written.as_object_mut().unwrap().remove("schema_version");
        }
        assert_eq!(written, read);
    }
    let exchange = vectors().sessions.remove(0);
    for message in exchange.messages.iter().filter(|message| message.seq < 10) {
        let plaintext = message.plaintext_json.as_str();
        match (message.synapse_type.as_str(), message.direction.as_str()) {
            ("HEARTBEAT_V1", "client_to_server") => unchanged::<HeartbeatData>(plaintext),
            ("HEARTBEAT_V1", _) => unchanged::<HeartbeatResponse>(plaintext),
            ("TASK_V1", "client_to_server") => unchanged::<TaskRequest>(plaintext),
            ("TASK_V1", _) => unchanged::<TaskResponse>(plaintext),
            ("CHALLENGE_V1", "client_to_server") => unchanged::<CommitmentData>(plaintext),
            ("CHALLENGE_V1", _) => unchanged::<CommitmentResponse>(plaintext),
            ("CHALLENGE_PROOF_V1", "client_to_server") => {
                serde_json::from_value::<ProofData>(lenient::parse(plaintext).unwrap()).unwrap();
            }
            ("CHALLENGE_PROOF_V1", _) => unchanged::<ProofReceipt>(plaintext),
            _ => unchanged::<TokenRequest>(plaintext),
        }
    }
}

#[test]
fn every_forged_package_is_refused_and_moves_no_window() {
    let vectors = vectors();
    let (miner, validator) = open(&vectors.sessions[0]);
    for Forgery { why, package_json } in vectors.must_fail {
        let refusal = ReceivedPackage::parse(&package_json)
            .and_then(|package| validator.open(&package, "TASK_V1"))
            .expect_err(&why);
        assert_eq!(refusal.code(), ErrorCode::SessionUnknown, "{why}");
    }
    // Number 1 and 2 are still free: nothing forged has used them up.
    for _ in 0..2 {
        let package = miner.seal("TASK_V1", &json!({})).unwrap().to_text();
        let opened = validator.open(&ReceivedPackage::parse(&package).unwrap(), "TASK_V1").unwrap();
        assert_eq!(opened.read::<Value>().unwrap(), json!({}));
    }
}

#[test]
fn a_replayed_or_misrouted_package_is_refused() {
    let (miner, validator) = open(&vectors().sessions[0]);
    let package = ReceivedPackage::parse(&miner.seal("TASK_V1", &json!({})).unwrap().to_text()).unwrap();
    assert_eq!(validator.open(&package, "HEARTBEAT_V1"), Err(OpenError::Mismatch("synapse_type")));
    assert_eq!(miner.open(&package, "TASK_V1"), Err(OpenError::Mismatch("sender or recipient")));
    assert!(validator.open(&package, "TASK_V1").is_ok());
    let refusal = validator.open(&package, "TASK_V1").unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::SequenceError);
    assert!(refusal.to_string().starts_with("SEQUENCE_ERROR:4020:Replay detected or sequence out of window"));
}

/// A list as long as it likes, which tells by what it was read.
#[derive(Debug)]
struct ReadBy(&'static str);

impl<'de> Deserialize<'de> for ReadBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(Self(std::any::type_name::<D>()))
    }
}

#[derive(Debug, Deserialize)]
struct Listed {
    list: ReadBy,
}

#[test]
fn a_payload_is_read_from_its_text_and_a_field_that_is_named_twice_is_forgiven_in_a_short_one_only() {
    let (miner, validator) = open(&vectors().sessions[0]);
    let mut seq = 0;
    let mut opened = |plaintext: &str| {
        seq += 1;
        let package = miner.outgoing().seal(seq, "TASK_V1", plaintext).to_text();
        validator.open(&ReceivedPackage::parse(&package).unwrap(), "TASK_V1")
    };
    let by_tree = std::any::type_name::<Value>();
    let numbers = "1,".repeat(600_000);
    for numbers in ["", "NaN,", &numbers] {
        let plaintext = format!(r#"{{"list":[{numbers}1]}}"#);
        let listed: Listed = opened(&plaintext).unwrap().read().unwrap();
        assert!(listed.list.0.contains("serde_json::de::Deserializer"), "{listed:?}");
    }
    let twice = |numbers: &str| format!(r#"{{"list":[{numbers}1],"list":[]}}"#);
    assert_eq!(opened(&twice("")).unwrap().read::<Listed>().unwrap().list.0, by_tree);
    assert!(opened(&twice(&numbers)).unwrap().read::<Listed>().is_err());
    assert!(opened(" {}").unwrap().is_object() && !opened("[{}]").unwrap().is_object());
    for no_json in ["", "{", "{}{}", "{\"a\":Infinit}"] {
        assert_eq!(opened(no_json), Err(OpenError::Plaintext));
    }
}

#[test]
fn a_key_of_small_order_opens_no_session() {
    let mut small_order = [0_u8; 32];
    for first in [0, 1] {
        small_order[0] = first;
        let key = Base64(small_order);
        let (miner, validator) = (Hotkey([1; 32]), Hotkey([2; 32]));
        let request = SessionInitRequest { miner_eph_pub32: key, client_nonce16: Base64([3; 16]), created_at: 0.0 };
        let id = SessionId::random(&mut OsRng);
        let refusal = accept(&mut OsRng, &request, miner, validator, id.clone(), 0.0).unwrap_err();
        assert_eq!(refusal, HandshakeError::SmallOrder);
        assert_eq!(refusal.answer().error_code, Some(4018));

        let response = SessionInitResponse {
            validator_eph_pub32: key,
            session_id: id,
            server_nonce16: Base64([4; 16]),
            expires_at: 0.0,
        };
        let handshake = ClientHandshake::new(&mut OsRng, 0.0);
        assert_eq!(handshake.finish(&response, miner, validator).unwrap_err(), HandshakeError::SmallOrder);
    }
}

#[test]
fn base64_that_is_not_canonical_is_refused() {
    let parse = |key: &str| {
        SessionInitRequest::parse(&format!(
            r#"{{"miner_eph_pub32":"{key}","client_nonce16":"AAECAwQFBgcICQoLDA0ODw=="}}"#
        ))
    };
    assert!(parse("pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=").is_ok());
    for bad in [
        "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk",
        "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogl=",
        "pOCSkrZRwni5dyxWn1-puxPZBrRqtoyd-dwrRAn4ogk=",
        "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4og==",
        "",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_refused_handshake_tells_why() {
    let refusal = SessionInitResponse::parse(r#"{"error":"rate limited","error_code":4018}"#).unwrap_err();
    assert_eq!(refusal.to_string(), "handshake refused: rate limited");
    assert!(SessionInitResponse::parse("rate limited").is_err());
}

#[test]
fn debug_of_a_session_shows_no_key() {
    let exchange = &vectors().sessions[0];
    let (miner, _) = open(exchange);
    let shown = format!("{miner:?}");
    assert!(shown.contains("6f1e2d3c-4b5a-4968-8776-655443322110"));
    assert!(!shown.contains("key"));
}

proptest! {
    #[test]
    fn any_text_is_opened_or_refused_without_a_panic(text in ".{0,200}") {
        let (_, validator) = open(&vectors().sessions[0]);
        if let Ok(package) = ReceivedPackage::parse(&text) {
            prop_assert!(validator.open(&package, "TASK_V1").is_err());
        }
        let _ = SessionInitRequest::parse(&text);
        let _ = SessionInitResponse::parse(&text);
    }

    #[test]
    fn any_payload_survives_its_session(key in ".{0,20}", text in ".{0,50}", number in any::<i64>(), float in any::<f64>()) {
        prop_assume!(float.is_finite());
        let (miner, validator) = open(&vectors().sessions[0]);
        let payload = json!({ key: [text, number, float] });
        let package = validator.seal("TASK_V1", &payload).unwrap().to_text();
        let package = ReceivedPackage::parse(&package).unwrap();
        prop_assert_eq!(miner.open(&package, "TASK_V1").unwrap().read::<Value>().unwrap(), payload);
    }
}
