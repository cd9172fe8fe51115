//! Requests, verdicts and replies (`synapse_http.json`).

use std::net::SocketAddr;
use std::time::Duration;

use byteleap_protocol::hotkey::{Hotkey, Keypair, Signature, Signer};
use byteleap_protocol::synapse::{
    AxonAddress, AxonMark, Dendrite, NonceTable, Refusal, Reply, ReplyError, RequestHead, SynapseKind, body_hash,
    read_reply,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECOND: u64 = 1_000_000_000;

#[derive(serde::Deserialize)]
struct Vectors {
    signatures: Vec<SignatureCase>,
    exchanges: Vec<Exchange>,
    server_verdicts: Vec<Verdict>,
}

#[derive(serde::Deserialize)]
struct SignatureCase {
    message: String,
    signature: Signature,
    ss58: Hotkey,
    valid: bool,
    #[serde(default)]
    note: String,
}

#[derive(serde::Deserialize, Clone)]
struct Exchange {
    name: String,
    request: Http,
    response: Http,
    computed_body_hash: String,
    dendrite_signing_message: String,
    dendrite_ss58: Hotkey,
    dendrite_signature: Signature,
    axon_signature: Option<Signature>,
    axon_signing_message: Option<String>,
    client_view: ClientView,
}

#[derive(serde::Deserialize, Clone)]
struct Http {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

#[derive(serde::Deserialize, Clone)]
struct ClientView {
    status_code: u16,
    status_message: String,
    response_field: Option<String>,
}

#[derive(serde::Deserialize)]
struct Verdict {
    mutation: String,
    status: u16,
    message_starts_with: Option<String>,
    secure_status: Option<u16>,
    better_status: Option<u16>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/synapse_http.json")).unwrap()
}

fn miner() -> Keypair {
    Keypair::from_seed(&[0x11; 32])
}

fn validator() -> Keypair {
    Keypair::from_seed(&[0x22; 32])
}

impl Http {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn head(&self) -> RequestHead {
        RequestHead::read(|name| self.header(name))
    }

    fn kind(&self) -> SynapseKind {
        let path = self.line.split(' ').nth(1).unwrap();
        SynapseKind::from_name(path.trim_start_matches('/')).unwrap()
    }

    fn nonce(&self) -> u64 {
        self.header("bt_header_dendrite_nonce").unwrap().parse().unwrap()
    }

    fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// The caller and the refusal that a request gets of a server with these nonces behind it, at `now_ns`.
fn judge(request: &Http, now_ns: u64, nonces: &NonceTable) -> Result<Hotkey, Refusal> {
    let head = request.head();
    let caller = head.admit(validator().hotkey(), now_ns, |caller| caller == miner().hotkey(), nonces)?;
    head.read_body(caller, request.body.as_bytes())?;
    Ok(caller)
}

#[test]
fn recorded_signatures_hold_or_not_as_recorded() {
    for case in vectors().signatures {
        // The reference takes the wrapped form too; no client of this protocol makes it, and ours refuses it.
        let is_valid = case.valid && !case.note.contains("<Bytes>");
        assert_eq!(case.ss58.verify(case.message.as_bytes(), &case.signature), is_valid, "{}", case.note);
    }
    for exchange in vectors().exchanges {
        assert_eq!(exchange.computed_body_hash, body_hash());
        let message = exchange.dendrite_signing_message.as_bytes();
        assert!(exchange.dendrite_ss58.verify(message, &exchange.dendrite_signature));
        if let (Some(message), Some(signature)) = (exchange.axon_signing_message, exchange.axon_signature) {
            assert!(validator().hotkey().verify(message.as_bytes(), &signature));
        }
    }
}

#[test]
fn our_requests_equal_the_recorded_ones() {
    for Exchange { name, request: recorded, .. } in vectors().exchanges {
        let kind = recorded.kind();
        let recorded_body: Value = serde_json::from_str(&recorded.body).unwrap();
        if recorded.header("bt_header_dendrite_hotkey") != Some(&miner().hotkey().to_string()) {
            continue;
        }
        let uuid = recorded.header("bt_header_dendrite_uuid").unwrap().to_owned();
        let dendrite = Dendrite::new(miner(), uuid, "203.0.113.7".to_owned());
        let axon = AxonAddress {
            hotkey: validator().hotkey(),
            ip: "127.0.0.1".to_owned(),
            port: recorded.header("bt_header_axon_port").unwrap().parse().unwrap(),
        };
        let timeout = Duration::from_secs_f64(recorded.header("timeout").unwrap().parse().unwrap());
        let payload = recorded_body["request"].as_str().unwrap().to_owned();
        let ours = dendrite.request(kind, &axon, timeout, recorded.nonce(), payload);

        let differs = ["header_size", "total_size", "bt_header_dendrite_signature"];
        let ours_headers: Vec<_> = ours
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .filter(|(name, _)| !differs.contains(&name.as_str()))
            .collect();
        let recorded_headers: Vec<_> = recorded
            .headers
            .iter()
            .filter(|(name, _)| name.contains('_') || name == "name" || name == "timeout")
            .filter(|(name, _)| !differs.contains(&name.as_str()))
            .cloned()
            .collect();
        assert_eq!(ours_headers, recorded_headers, "{name}");

        // The signature is randomised and the size a Python one; all else is equal byte for byte.
        let size = recorded_body["total_size"].to_string();
        let signature = recorded.header("bt_header_dendrite_signature").unwrap();
        let our_signature = ours.headers.iter().find(|(name, _)| name.ends_with("signature")).unwrap().1.clone();
        let body = ours
            .body
            .replace(&our_signature, signature)
            .replace(r#""total_size": 0"#, &format!(r#""total_size": {size}"#));
        assert_eq!(body, recorded.body, "{name}");
    }
}

#[test]
fn recorded_exchanges_get_the_recorded_verdict() {
    for Exchange { name, request, response, .. } in vectors().exchanges {
        if name.contains("without route") {
            continue; // ours has the route
        }
        // Recorded a moment after its nonce, the stale one a minute.
        let now_ns = request.nonce() + if name.contains("stale") { 60 * SECOND } else { SECOND / 10 };
        let verdict = judge(&request, now_ns, &NonceTable::default());
        assert_eq!(verdict.as_ref().err().map_or(200, Refusal::status), response.status(), "{name}");
        if let Err(refusal) = verdict {
            let message = response.header("bt_header_axon_status_message").unwrap();
            assert_eq!(refusal.to_string().split(" was ").next(), message.split(" was ").next(), "{name}");
        }
    }
}

/// A request of the miner to the validator, signed at `nonce`, to be mutated.
fn signed(nonce: u64, uuid: &str, signer: &Keypair, axon: Hotkey) -> Http {
    let dendrite = Dendrite::new(signer.clone(), uuid.to_owned(), "203.0.113.7".to_owned());
    let axon = AxonAddress { hotkey: axon, ip: "127.0.0.1".to_owned(), port: 9091 };
    let request = dendrite.request(SynapseKind::Task, &axon, Duration::from_secs(10), nonce, "{}".to_owned());
    Http {
        line: format!("POST /{} HTTP/1.1", request.path),
        headers: request.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body: request.body,
    }
}

impl Http {
    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    fn with(self, name: &str, value: &str) -> Self {
        let mut changed = self.without(name);
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }

    fn with_body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    fn with_body_field(mut self, path: &str, value: Value) -> Self {
        let mut body: Value = serde_json::from_str(&self.body).unwrap();
        *body.pointer_mut(path).unwrap() = value;
        self.body = body.to_string();
        self
    }
}

/// The mutated requests of a verdict, each to be judged at [`NOW`]; none where the HTTP server decides.
const NOW: u64 = 1_795_323_022 * SECOND;

fn mutate(mutation: &str) -> Vec<Http> {
    let own = validator().hotkey();
    let fresh = || signed(NOW, "u", &miner(), own);
    let aged = |seconds: u64| signed(NOW - seconds * SECOND, "u", &miner(), own);
    match mutation {
        "unchanged, first use of this uuid" => vec![fresh()],
        "new uuid, nonce timeout+3 s old" => vec![aged(13)],
        "new uuid, nonce timeout+5 s old" => vec![aged(15)],
        "new uuid, nonce far in the future" => vec![signed(NOW + 60 * SECOND, "u", &miner(), own)],
        "nonce header absent" => vec![fresh().without("bt_header_dendrite_nonce")],
        "dendrite version header below 7002000 or absent, ancient nonce" => vec![
            aged(100_000).without("bt_header_dendrite_version"),
            aged(100_000).with("bt_header_dendrite_version", "7001000"),
        ],
        "signature header absent or empty" => {
            vec![fresh().without("bt_header_dendrite_signature"), fresh().with("bt_header_dendrite_signature", "")]
        }
        "signature wrong" => {
            vec![fresh().with("bt_header_dendrite_signature", &miner().sign(b"another").to_string())]
        }
        "signature without 0x" => {
            let request = fresh();
            let signature = request.header("bt_header_dendrite_signature").unwrap()[2..].to_owned();
            vec![request.with("bt_header_dendrite_signature", &signature)]
        }
        "hotkey header absent" => vec![fresh().without("bt_header_dendrite_hotkey")],
        "hotkey not in the metagraph" => vec![signed(NOW, "u", &Keypair::from_seed(&[0x33; 32]), own)],
        "timeout header absent" => vec![fresh().without("timeout")],
        "timeout, header_size, total_size or nonce header not a number" => {
            ["timeout", "header_size", "total_size", "bt_header_dendrite_nonce"]
                .iter()
                .flat_map(|name| [fresh().with(name, "None"), fresh().with(name, "x")])
                .collect()
        }
        "header_size, total_size and name headers absent" => {
            vec![fresh().without("header_size").without("total_size").without("name")]
        }
        "axon ip/port/hotkey headers absent or different" => {
            let names = ["bt_header_axon_ip", "bt_header_axon_port", "bt_header_axon_hotkey"];
            vec![
                names.iter().fold(fresh(), |request, name| request.without(name)),
                names.iter().fold(fresh(), |request, name| request.with(name, "1")),
            ]
        }
        "signed for another axon hotkey" => vec![signed(NOW, "u", &miner(), miner().hotkey())],
        "computed_body_hash header wrong but signed, or absent" => {
            vec![fresh().without("computed_body_hash"), fresh().with("computed_body_hash", &"0".repeat(64))]
        }
        "body not JSON" => vec![fresh().with_body("{")],
        "body empty or a JSON array" => vec![fresh().with_body(""), fresh().with_body("[]")],
        "body field of wrong type" => {
            vec![fresh().with_body_field("/request", json!(5)), fresh().with_body_field("/dendrite", json!("x"))]
        }
        "unknown body field" => {
            let request = fresh();
            let body = request.body.replacen('{', r#"{"extra": [1], "#, 1);
            vec![request.with_body(&body)]
        }
        "body dendrite.hotkey differs from the signed header hotkey" => vec![
            fresh().with_body_field("/dendrite/hotkey", json!(validator().hotkey())),
            fresh().with_body_field("/dendrite", Value::Null),
        ],
        "body axon.status_code = 403" => vec![fresh().with_body_field("/axon/status_code", json!(403))],
        _ => Vec::new(),
    }
}

#[test]
fn every_mutated_request_gets_the_wanted_verdict() {
    let mut judged = 0;
    for Verdict { mutation, status, message_starts_with, secure_status, better_status } in vectors().server_verdicts {
        for request in mutate(&mutation) {
            let verdict = judge(&request, NOW, &NonceTable::default());
            let wanted = secure_status.or(better_status).unwrap_or(status);
            assert_eq!(verdict.as_ref().err().map_or(200, Refusal::status), wanted, "{mutation}: {verdict:?}");
            if let (Err(refusal), true, Some(start)) = (verdict, wanted == status, &message_starts_with) {
                assert!(refusal.to_string().starts_with(start), "{mutation}: {refusal}");
            }
            judged += 1;
        }
    }
    // The other verdicts (routes, methods, content types, a failing handler) are the HTTP server's.
    assert_eq!(judged, 37);
}

#[test]
fn a_nonce_counts_once_and_only_upwards_for_each_client() {
    let own = validator().hotkey();
    let nonces = NonceTable::default();
    assert!(judge(&signed(NOW, "u", &miner(), own), NOW, &nonces).is_ok());
    for nonce in [NOW, NOW - 1] {
        let refusal = judge(&signed(nonce, "u", &miner(), own), NOW, &nonces).unwrap_err();
        assert_eq!(refusal.to_string(), "Not Verified with error: Nonce is too old, a newer one was last processed");
    }
    assert!(judge(&signed(NOW + 1, "u", &miner(), own), NOW, &nonces).is_ok());
    assert!(judge(&signed(NOW, "another client", &miner(), own), NOW, &nonces).is_ok());
    // Pruning forgets nothing that could still be repeated.
    let later = NOW + 14 * SECOND;
    nonces.prune(later);
    assert_eq!(judge(&signed(NOW + 1, "u", &miner(), own), NOW + 13 * SECOND, &nonces).unwrap_err().status(), 401);
}

#[test]
fn a_forged_request_uses_no_nonce_up() {
    let own = validator().hotkey();
    let nonces = NonceTable::default();
    let forged =
        signed(NOW + 1, "u", &miner(), own).with("bt_header_dendrite_signature", &miner().sign(b"x").to_string());
    assert!(judge(&forged, NOW, &nonces).is_err());
    assert!(judge(&signed(NOW, "u", &miner(), own), NOW, &nonces).is_ok());
}

#[test]
fn a_huge_timeout_does_not_make_an_old_request_fresh() {
    let request = signed(NOW - 200 * SECOND, "u", &miner(), validator().hotkey()).with("timeout", "1e300");
    assert_eq!(judge(&request, NOW, &NonceTable::default()).unwrap_err().status(), 401);
}

#[test]
fn a_success_reply_has_the_recorded_form_without_the_request() {
    for exchange in vectors().exchanges.into_iter().filter(|exchange| exchange.response.status() == 200) {
        let Exchange { name, request, response, .. } = exchange;
        let head = request.head();
        let body = head.read_body(miner().hotkey(), request.body.as_bytes()).unwrap();
        let recorded: Value = serde_json::from_str(&response.body).unwrap();
        let took = Duration::from_secs_f64(recorded["axon"]["process_time"].as_f64().unwrap());
        let reply = Reply::success(request.kind(), &body, recorded["response"].as_str(), took);

        // Order, spelling and values; sizes are Python's, and a duration has whole nanoseconds.
        let differs = |name: &str| name.ends_with("_size") || name.ends_with("process_time");
        let ours: Vec<_> = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let theirs: Vec<_> =
            response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).skip(4).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.0, theirs.0, "{name}");
            assert!(differs(ours.0) || ours.1 == theirs.1, "{name}: {ours:?} {theirs:?}");
        }
        let mut expected = recorded;
        expected["request"] = Value::Null;
        expected["total_size"] = json!(0);
        let mut ours: Value = serde_json::from_str(&reply.body).unwrap();
        ours["axon"]["process_time"] = expected["axon"]["process_time"].clone();
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn a_reply_to_an_unread_request_leaves_out_what_it_does_not_know() {
    let reply = Reply::success(SynapseKind::Task, &Default::default(), Some("x"), Duration::ZERO);
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((body.get("dendrite"), &body["axon"]["status_code"]), (None, &json!(200)));
    assert_eq!(read_reply(200, Some("application/json"), reply.body.as_bytes()), Ok("x".to_owned()));
}

#[test]
fn a_refusal_has_the_recorded_headers_and_is_signed() {
    for exchange in vectors().exchanges.into_iter().filter(|exchange| exchange.axon_signature.is_some()) {
        let Exchange { name, request, response, .. } = exchange;
        let peer: SocketAddr = "127.0.0.1:38498".parse().unwrap();
        let nonce = response.header("bt_header_axon_nonce").unwrap().parse().unwrap();
        let uuid = response.header("bt_header_axon_uuid").unwrap();
        let mark = AxonMark { signer: &validator(), nonce, uuid };
        let reply =
            Reply::refusal(Some(request.kind()), &request.head(), &Refusal::Stranger, &mark, peer, Duration::ZERO);
        let names = |headers: &[(String, String)]| headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let ours: Vec<_> = reply.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let mut recorded = names(&response.headers);
        recorded.retain(|name| !["date", "server", "content-length", "content-type"].contains(&name.as_str()));
        assert_eq!(names(&ours), recorded, "{name}");

        let ours = Http { line: String::new(), headers: ours, body: reply.body };
        let message = format!(
            "{nonce}.{}.{}.{uuid}",
            request.header("bt_header_dendrite_hotkey").unwrap(),
            request.header("bt_header_axon_hotkey").unwrap()
        );
        let signature = ours.header("bt_header_axon_signature").unwrap().parse().unwrap();
        assert!(validator().hotkey().verify(message.as_bytes(), &signature));
        assert_eq!(ours.body, r#"{"message":"Forbidden. Key is blacklisted: hotkey_not_in_metagraph."}"#);
    }
}

#[test]
fn a_client_takes_of_a_reply_what_the_reference_takes() {
    for Exchange { name, response, client_view, .. } in vectors().exchanges {
        let taken = read_reply(response.status(), response.header("content-type"), response.body.as_bytes());
        let expected = client_view
            .response_field
            .ok_or(ReplyError::Refused { status: client_view.status_code, message: client_view.status_message });
        assert_eq!(taken, expected, "{name}");
    }
}

#[test]
fn a_reply_that_is_no_json_object_is_no_answer() {
    let json = Some("application/json; charset=utf-8");
    assert_eq!(read_reply(200, json, br#"{"response":"x"}"#), Ok("x".to_owned()));
    assert_eq!(read_reply(200, json, b"{}"), Err(ReplyError::Empty));
    assert!(matches!(read_reply(200, Some("text/plain"), br#"{"response":"x"}"#), Err(ReplyError::Malformed(_))));
    assert!(matches!(read_reply(200, json, b"[]"), Err(ReplyError::Malformed(_))));
    assert!(matches!(read_reply(200, json, br#"{"response":5}"#), Err(ReplyError::Malformed(_))));
    assert!(matches!(read_reply(502, None, b"<html>"), Err(ReplyError::Refused { status: 502, .. })));
}

proptest! {
    #[test]
    fn any_headers_and_body_are_judged_without_a_panic(
        values in prop::collection::vec(prop::option::of("[ -~]{0,40}"), 12),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let names = [
            "timeout", "bt_header_dendrite_nonce", "bt_header_dendrite_uuid", "bt_header_dendrite_signature",
            "computed_body_hash", "header_size", "total_size", "bt_header_axon_ip", "bt_header_axon_port",
            "bt_header_axon_hotkey", "bt_header_dendrite_version", "bt_header_dendrite_hotkey",
        ];
        let find = |name: &str| names.iter().position(|known| *known == name).and_then(|at| values[at].as_deref());
        let head = RequestHead::read(find);
        prop_assert!(head.admit(validator().hotkey(), NOW, |_| true, &NonceTable::default()).is_err());
        let _ = head.read_body(miner().hotkey(), &body);
        let _ = read_reply(200, Some("application/json"), &body);
    }
}
