//! What is around a payload between miner and validator: the HTTP request and its reply, the session and its packages.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use byteleap_protocol::hotkey::{Keypair, Signer};
use byteleap_protocol::id::SessionId;
use byteleap_protocol::lenient;
use byteleap_protocol::session::{
    ClientHandshake, HandshakeError, OpenError, ReceivedPackage, Session, SessionInitRequest, SessionInitResponse,
    accept,
};
use byteleap_protocol::synapse::{AxonMark, NonceTable, Reply, ReplyError, RequestHead, SynapseKind, read_reply};
use rand_core::{CryptoRng, RngCore};
use serde_json::Value;

/// Nanoseconds since the epoch at the server: the moment at which the recorded requests in the corpus were fresh.
const NOW_NS: u64 = 1_795_323_022_000_000_000;

/// The route that packages are opened on.
const SYNAPSE_TYPE: &str = "TASK_V1";

static MINER: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_seed(&[0x11; 32]));
static VALIDATOR: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_seed(&[0x22; 32]));

/// A request as a validator meets it: lines `name: value`, an empty line, the body. An admitted head is refused the
/// second time, an accepted body names the caller, and every answer fits HTTP and its client.
pub fn synapse_request(bytes: &[u8]) {
    let (head, body) = split_request(bytes);
    let nonces = NonceTable::default();
    let judge = || head.admit(VALIDATOR.hotkey(), NOW_NS, |caller| caller == MINER.hotkey(), &nonces);
    let refusal = match judge() {
        Ok(caller) => {
            assert_eq!(caller, MINER.hotkey());
            judge().unwrap_err()
        }
        Err(refusal) => refusal,
    };
    // Signing is slow, and a refusal's signature does not depend on the input's form.
    if head != RequestHead::default() {
        let mark = AxonMark { signer: &*VALIDATOR, nonce: NOW_NS, uuid: "axon" };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let kind = Some(SynapseKind::ALL[bytes.len() % SynapseKind::ALL.len()]);
        let reply = Reply::refusal(kind, &head, &refusal, &mark, peer, Duration::ZERO);
        check_headers(&reply);
        let read = read_reply(reply.status, Some("application/json"), reply.body.as_bytes());
        assert!(matches!(read, Err(ReplyError::Refused { status, .. }) if status == refusal.status()));
    }
    if let Ok(request) = head.read_body(MINER.hotkey(), body) {
        let named = request.dendrite.as_ref().and_then(|dendrite| dendrite.hotkey.clone());
        assert_eq!(named, Some(MINER.hotkey().to_string()));
        for kind in SynapseKind::ALL {
            let reply = Reply::success(kind, &request, Some("answer"), Duration::from_millis(1));
            check_headers(&reply);
            let read = read_reply(reply.status, Some("application/json"), reply.body.as_bytes());
            assert_eq!(read.as_deref(), Ok("answer"));
        }
    }
}

/// The headers that HTTP would have let through to us, and the body.
fn split_request(bytes: &[u8]) -> (RequestHead, &[u8]) {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let lines: Vec<(&str, &str)> = head
        .split(|byte| *byte == b'\n')
        .filter(|line| line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')))
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let find = |name: &str| lines.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
    (RequestHead::read(find), body)
}

fn check_headers(reply: &Reply) {
    for (name, value) in &reply.headers {
        assert!(value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{name}: {value:?}");
    }
    assert!(serde_json::from_str::<Value>(&reply.body).is_ok(), "{}", reply.body);
}

/// A reply as a miner meets it, taken for a good one and for a refusal.
pub fn synapse_reply(bytes: &[u8]) {
    let object = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok());
    match read_reply(200, Some("application/json; charset=utf-8"), bytes) {
        Ok(response) => assert_eq!(object.unwrap()["response"], response),
        Err(error) => assert!(!matches!(error, ReplyError::Refused { .. })),
    }
    let refused = read_reply(503, None, bytes);
    assert!(matches!(refused, Err(ReplyError::Refused { status: 503, message }) if message.chars().count() <= 512));
    let other_type = std::str::from_utf8(bytes).ok();
    let _ = read_reply(200, other_type, bytes);
}

/// The two texts of a handshake. A server's answer to any request that it accepts is one that its client accepts, and
/// nobody computes a shared secret with a key of small order.
pub fn session_init(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(request) = SessionInitRequest::parse(text) {
        assert_eq!(SessionInitRequest::parse(&request.to_text()).as_ref(), Ok(&request));
        match accept(&mut Counter(7), &request, MINER.hotkey(), VALIDATOR.hotkey(), session_id(), 0.0) {
            Ok((response, _)) => assert_eq!(SessionInitResponse::parse(&response.to_text()), Ok(response)),
            Err(error) => assert_eq!(error, HandshakeError::SmallOrder),
        }
    }
    match SessionInitResponse::parse(text) {
        Ok(response) => {
            assert_eq!(SessionInitResponse::parse(&response.to_text()).as_ref(), Ok(&response));
            let client = ClientHandshake::new(&mut Counter(1), 0.0);
            if let Err(error) = client.finish(&response, MINER.hotkey(), VALIDATOR.hotkey()) {
                assert_eq!(error, HandshakeError::SmallOrder);
            }
        }
        Err(error) => {
            let _ = error.answer();
        }
    }
}

/// A package under a fixed key, taken first as the whole package, then as the plaintext of an honest one. What opens was
/// sealed by the peer, and reads as the plaintext alone would.
pub fn sealed_package(bytes: &[u8]) {
    static SESSION: LazyLock<(Session, Session)> = LazyLock::new(fixed_session);
    let (miner, validator) = &*SESSION;
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ReceivedPackage::parse(text) {
        Ok(package) => match validator.incoming().open(&package, SYNAPSE_TYPE) {
            // Whoever has the key seals the same package again, up to the spelling of its JSON.
            Ok((seq, payload)) => {
                let sealed = lenient::parse(text).unwrap();
                let plaintext = payload.read::<Value>().unwrap_or_default().to_string();
                let again = miner.outgoing().seal(seq, SYNAPSE_TYPE, &plaintext);
                assert_eq!(sealed["seq"], again.seq);
                assert_eq!(sealed["sender"], again.sender.to_string());
            }
            Err(error) => assert!(error.answer().error_code.is_some()),
        },
        Err(error) => assert!(error.answer().error_code.is_some()),
    }

    let package = miner.outgoing().seal(7, SYNAPSE_TYPE, text).to_text();
    let package = ReceivedPackage::parse(&package).unwrap();
    let opened = validator.incoming().open(&package, SYNAPSE_TYPE);
    match lenient::parse(text) {
        Ok(payload) => {
            let (seq, opened) = opened.unwrap();
            assert_eq!((seq, opened.is_object()), (7, payload.is_object()));
            assert_eq!(opened.read::<Value>().unwrap(), payload);
        }
        // JSON by its grammar, but nested too deeply or with a number that is too large, is refused when it is read.
        Err(_) => match opened {
            Ok((_, opened)) => assert!(opened.read::<Value>().is_err()),
            Err(error) => assert_eq!(error, OpenError::Plaintext),
        },
    }
    assert_eq!(validator.incoming().open(&package, "COMMITMENT_V1"), Err(OpenError::Mismatch("synapse_type")));
    assert!(miner.incoming().open(&package, SYNAPSE_TYPE).is_err(), "opened in the wrong direction");
}

/// The session of both sides, the same in every process, so that packages in the corpus stay sealed for it.
pub(crate) fn fixed_session() -> (Session, Session) {
    let (client, server) = (MINER.hotkey(), VALIDATOR.hotkey());
    let handshake = ClientHandshake::new(&mut Counter(1), 0.0);
    let (response, validator) =
        accept(&mut Counter(2), handshake.request(), client, server, session_id(), 21_600.0).unwrap();
    (handshake.finish(&response, client, server).unwrap(), validator)
}

fn session_id() -> SessionId {
    SessionId::new("6f1e2d3c-4b5a-4968-8776-655443322110").unwrap()
}

/// Counts in place of drawing: a key of the corpus alone, which guards nothing.
struct Counter(u8);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Counter {}
