//! The HTTP moment of a connection: the request head that every client sends first, and our answer to it.
//!
//! A worker asks for a WebSocket and gets one, whatever the path (worker-miner spec 1.1). Anybody else (a browser, a
//! port scanner, an operator with `curl`) gets a plain HTTP answer that says what this port is and what to do. The
//! decision is a pure function of the head, so that it is tested without sockets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use byteleap_protocol::worker_key::{NONCE_HEADER, Nonce};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Longest request head accepted, in bytes; a worker's is about 300.
pub(crate) const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The status of a plain request where TLS is required.
const TLS_REQUIRED: &str = "403 Forbidden";

/// Length of the random value behind `Sec-WebSocket-Key`, in bytes (RFC 6455, 4.1).
const KEY_BYTES: usize = 16;

/// What to write back, and whether the connection then speaks WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `101 Switching Protocols`: frames follow.
    Switch(String),
    /// A plain answer; the connection is closed after it.
    Refuse(String),
}

/// Why no head arrived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The peer closed or the socket failed before the head was complete.
    #[error("connection ended before the request head was complete")]
    Closed,
    /// The head is longer than [`MAX_HEAD_BYTES`].
    #[error("request head longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
}

/// Reads up to and including the blank line that ends a request head.
///
/// Returns the head and whatever arrived behind it, which already belongs to the WebSocket.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, Vec<u8>), HeadError> {
    let mut received = Vec::with_capacity(1024);
    loop {
        let before = received.len();
        let read = stream.read_buf(&mut received).await.map_err(|_| HeadError::Closed)?;
        if read == 0 {
            return Err(HeadError::Closed);
        }
        // The blank line may straddle two reads.
        let search_from = before.saturating_sub(3);
        if let Some(at) = received[search_from..].windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(search_from + at + 4);
            return Ok((received, rest));
        }
        if received.len() > MAX_HEAD_BYTES {
            return Err(HeadError::TooLong);
        }
    }
}

/// Decides what the sender of `head` is told. A WebSocket comes with the `nonce` that its worker's key is to sign, in a
/// header that a Python worker reads over.
pub(crate) fn answer(head: &[u8], nonce: Nonce) -> Answer {
    let Some(request) = Request::parse(head) else {
        return refuse("400 Bad Request", "", "This is not an HTTP request.");
    };
    if request.method != "GET" {
        return refuse("405 Method Not Allowed", "Allow: GET\r\n", "Only GET with a WebSocket upgrade is served.");
    }
    if !(request.has_token("connection", "upgrade") && request.has_token("upgrade", "websocket")) {
        return refuse(
            "426 Upgrade Required",
            "Upgrade: websocket\r\n",
            "The request asks for no WebSocket upgrade, so it does not come from a worker.",
        );
    }
    if request.header("sec-websocket-version") != Some("13") {
        return refuse(
            "426 Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "The request names no or another WebSocket version than 13.",
        );
    }
    match request.header("sec-websocket-key") {
        Some(key) if STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) => Answer::Switch(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{NONCE_HEADER}: {nonce}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )),
        _ => refuse(
            "400 Bad Request",
            "",
            "The port is reachable and answers; only Sec-WebSocket-Key is wrong: it must be base64 of 16 bytes.",
        ),
    }
}

/// What a plain connection is told where the port serves TLS only.
pub(crate) fn tls_required() -> String {
    let (Answer::Switch(text) | Answer::Refuse(text)) = refuse(
        TLS_REQUIRED,
        "",
        "It does so over TLS only (worker_management.tls.mode, worker_management.auth): dial wss:// instead of ws://.",
    );
    text
}

fn refuse(status: &str, headers: &str, reason: &str) -> Answer {
    let body = format!(
        "ByteLeap miner: this port serves workers over WebSocket.\n{reason}\n\
         Remedy: set miner_url: ws://<this host>:<this port> in config/worker_config.yaml and start byteleap-worker.\n"
    );
    Answer::Refuse(format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ))
}

/// The parts of a request head that matter here.
struct Request<'head> {
    method: &'head str,
    headers: Vec<(&'head str, &'head str)>,
}

impl<'head> Request<'head> {
    fn parse(head: &'head [u8]) -> Option<Self> {
        let text = str::from_utf8(head).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, _target, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") || words.next().is_some() {
            return None;
        }
        let headers = lines
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())))
            .collect::<Option<_>>()?;
        Some(Self { method, headers })
    }

    /// The first value of the header `name`, which is given in lower case.
    fn header(&self, name: &str) -> Option<&'head str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Whether a comma-separated header holds `token`, in any case.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn answer(head: &[u8]) -> Answer {
        super::answer(head, Nonce([0xab; 32]))
    }

    fn head(lines: &[&str]) -> Vec<u8> {
        format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
    }

    fn status(answer: &Answer) -> &str {
        let (Answer::Switch(text) | Answer::Refuse(text)) = answer;
        text.split(' ').nth(1).expect("a status")
    }

    const UPGRADE: [&str; 4] =
        ["GET /ws HTTP/1.1", "connection: keep-alive, Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Version: 13"];

    fn upgrade_with(key: &str) -> Answer {
        let key = format!("Sec-WebSocket-Key: {key}");
        answer(&head(&[&UPGRADE[..], &[key.as_str()]].concat()))
    }

    #[test]
    fn a_valid_key_is_answered_with_101_and_the_accept_value_of_rfc_6455() {
        let answer = upgrade_with("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(status(&answer), "101");
        assert!(matches!(&answer, Answer::Switch(text) if text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        let nonce = format!("\r\nByteLeap-Nonce: {}\r\n", "ab".repeat(32));
        assert!(matches!(&answer, Answer::Switch(text) if text.contains(&nonce)));
    }

    #[test]
    fn no_compression_and_no_subprotocol_is_ever_granted() {
        let offer = [
            &UPGRADE[..],
            &[
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
                "Sec-WebSocket-Protocol: chat",
            ],
        ]
        .concat();
        let Answer::Switch(text) = answer(&head(&offer)) else { panic!("refused") };
        assert!(!text.contains("Extensions") && !text.contains("Protocol:"));
    }

    #[test]
    fn a_bad_or_missing_key_is_answered_with_400() {
        assert_eq!(status(&upgrade_with("test")), "400");
        assert_eq!(status(&upgrade_with("dGVzdA==")), "400");
        assert_eq!(status(&answer(&head(&UPGRADE))), "400");
    }

    #[test]
    fn a_request_without_upgrade_is_answered_with_426() {
        assert_eq!(status(&answer(&head(&["GET / HTTP/1.1", "Host: miner"]))), "426");
    }

    #[test]
    fn another_websocket_version_is_answered_with_426_and_ours() {
        let Answer::Refuse(text) =
            answer(&head(&["GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 8"]))
        else {
            panic!("accepted")
        };
        assert!(text.starts_with("HTTP/1.1 426") && text.contains("Sec-WebSocket-Version: 13"));
    }

    #[test]
    fn other_methods_and_garbage_are_refused_politely() {
        assert_eq!(status(&answer(&head(&["POST /ws HTTP/1.1", "Host: miner"]))), "405");
        assert_eq!(status(&answer(b"\x16\x03\x01\x02\x00\r\n\r\n")), "400");
        assert_eq!(status(&answer(&head(&["SSH-2.0-OpenSSH_9.6"]))), "400");
    }

    #[test]
    fn every_refusal_names_byteleap_and_the_remedy() {
        for bad in [&b"nonsense\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n"] {
            let Answer::Refuse(text) = answer(bad) else { panic!("accepted") };
            assert!(text.contains("ByteLeap") && text.contains("miner_url"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_sends_is_answered_in_http(head in any::<Vec<u8>>()) {
            let Answer::Refuse(text) = answer(&head) else { panic!("noise is no key") };
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            prop_assert!(head.starts_with("HTTP/1.1 4"));
            let length = format!("Content-Length: {}", body.len());
            prop_assert!(head.lines().any(|line| line == length));
        }

        #[test]
        fn exactly_keys_of_sixteen_bytes_are_switched(key in vec(any::<u8>(), 0..40)) {
            let switched = matches!(upgrade_with(&STANDARD.encode(&key)), Answer::Switch(_));
            prop_assert_eq!(switched, key.len() == KEY_BYTES);
        }
    }

    #[tokio::test]
    async fn the_head_is_split_from_the_frames_behind_it() {
        let mut stream = &b"GET / HTTP/1.1\r\nA: b\r\n\r\n\x81\x00"[..];
        let (head, rest) = read_head(&mut stream).await.expect("a head");
        assert_eq!(head, b"GET / HTTP/1.1\r\nA: b\r\n\r\n");
        assert_eq!(rest, b"\x81\x00");
    }

    #[tokio::test]
    async fn an_endless_or_unfinished_head_is_refused() {
        let endless = vec![b'a'; MAX_HEAD_BYTES * 4];
        assert!(matches!(read_head(&mut &endless[..]).await, Err(HeadError::TooLong)));
        assert!(matches!(read_head(&mut &b"GET /"[..]).await, Err(HeadError::Closed)));
    }
}
