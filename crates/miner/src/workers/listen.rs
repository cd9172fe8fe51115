//! The port that workers dial: accepts connections, plain and TLS on the same port, answers the HTTP upgrade, and hands
//! WebSockets on.

use std::{net::SocketAddr, time::Duration};

use byteleap_protocol::{
    frame::MAX_WORKER_FRAME_BYTES,
    worker_key::{Channel, EXPORTER_LABEL, Nonce},
};
use rand_core::OsRng;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{self, Desk, Stream},
    door::Peer,
    strangers::Strangers,
    upgrade::{self, Answer},
};

/// Read buffer of one connection, plain or TLS, in bytes. It is allocated at once, so the library's 128 KiB would cost a hundred
/// idle workers 13 MB.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// First byte of a TLS connection, a handshake record (RFC 8446, 5.1). No HTTP method begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long the TLS handshake and the HTTP head may take, and our answer to it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What the port speaks.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    /// Present where TLS is served.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Whether plain connections are served too.
    pub(crate) is_plain_served: bool,
}

/// Serves workers until `stop`, then waits until every connection is closed.
pub(crate) async fn serve(port: Port, desk: Desk, stop: CancellationToken) {
    let Port { listener, tls, is_plain_served } = port;
    let strangers = Strangers::new();
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            Some(place) = strangers.place() => place,
        };
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; check the limit of open files");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(stranger) = strangers.admit(address.ip(), place) else {
            count_refused(address, "too many connections of its address have not registered");
            continue;
        };
        let (desk, stop, tls) = (desk.clone(), stop.clone(), tls.clone());
        connections.spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, open(stream, tls, is_plain_served)).await {
                Ok(Ok(Opened::Plain(socket, channel))) => {
                    connection::serve(*socket, Peer { address, channel }, desk, stop, stranger).await;
                }
                Ok(Ok(Opened::Tls(socket, channel))) => {
                    connection::serve(*socket, Peer { address, channel }, desk, stop, stranger).await;
                }
                Ok(Err(reason)) => count_refused(address, &reason),
                Err(_) => count_refused(address, "handshake timed out"),
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn count_refused(address: SocketAddr, reason: &str) {
    metrics::counter!("worker_upgrades_refused_total").increment(1);
    tracing::debug!(peer = %address, reason, "no worker connection");
}

/// A WebSocket, and what ties a proof to it.
enum Opened {
    Plain(Box<WebSocketStream<TcpStream>>, Channel),
    Tls(Box<WebSocketStream<TlsStream<TcpStream>>>, Channel),
}

/// Tells TLS from plain HTTP by the first byte, and opens a WebSocket over either.
async fn open(mut stream: TcpStream, tls: Option<TlsAcceptor>, is_plain_served: bool) -> Result<Opened, String> {
    // Frames are small and answered one by one; waiting to fill a segment would only add delay.
    let _ = stream.set_nodelay(true);
    let mut first = [0];
    stream.peek(&mut first).await.map_err(|error| error.to_string())?;
    let nonce = Nonce::random(&mut OsRng);
    match tls {
        Some(tls) if first == [TLS_HANDSHAKE] => {
            let stream = tls.accept(stream).await.map_err(|error| error.to_string())?;
            let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None);
            let exported = exported.map_err(|error| error.to_string())?;
            let socket = upgrade(stream, nonce).await?;
            Ok(Opened::Tls(Box::new(socket), Channel { nonce, exported: Some(exported) }))
        }
        _ if is_plain_served => {
            let socket = upgrade(stream, nonce).await?;
            Ok(Opened::Plain(Box::new(socket), Channel { nonce, exported: None }))
        }
        _ => {
            upgrade::read_head(&mut stream).await.map_err(|error| error.to_string())?;
            stream.write_all(upgrade::tls_required().as_bytes()).await.map_err(|error| error.to_string())?;
            let _ = stream.shutdown().await;
            Err("plain, where TLS is required".to_owned())
        }
    }
}

/// Answers the HTTP head; gives a WebSocket if it asked for one properly.
async fn upgrade<S: Stream>(mut stream: S, nonce: Nonce) -> Result<WebSocketStream<S>, String> {
    let (head, rest) = upgrade::read_head(&mut stream).await.map_err(|error| error.to_string())?;
    let answer = upgrade::answer(&head, nonce);
    let (Answer::Switch(text) | Answer::Refuse(text)) = &answer;
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    if let Answer::Refuse(text) = answer {
        let _ = stream.shutdown().await;
        return Err(text.lines().next().unwrap_or_default().to_owned());
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_WORKER_FRAME_BYTES))
        .max_frame_size(Some(MAX_WORKER_FRAME_BYTES));
    Ok(WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await)
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::frame::WorkerFrame;
    use futures_util::StreamExt;
    use serde_json::Value;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// What the Python packages `websockets` and `json` sent as a worker, byte for byte (scripts/record-frames).
    const RECORDED: &str = include_str!("../../tests/vectors/python_worker.json");

    /// The text behind `key` in a record, which spells bytes in hexadecimal.
    fn recorded() -> Vec<u8> {
        let record: Value = serde_json::from_str(RECORDED).expect("JSON");
        let digits = record["bytes"].as_str().expect("bytes").as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
        digits.chunks(2).map(byte).collect()
    }

    #[tokio::test]
    async fn every_frame_that_a_python_worker_sent_is_read() {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&recorded()).await.expect("room");
        let mut socket = upgrade(ours, Nonce([1; 32])).await.expect("an upgrade");
        let mut frames = Vec::new();
        let mut pings = 0;
        loop {
            match socket.next().await.expect("a close first").expect("a sound stream") {
                Message::Text(text) => frames.push(WorkerFrame::decode(text.as_bytes()).expect("a frame")),
                Message::Binary(data) => frames.push(WorkerFrame::decode(&data).expect("a frame")),
                Message::Ping(_) => pings += 1,
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.expect("a code").code), 1000);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pings, 1);
        let mut frames = frames.into_iter();
        let Some(WorkerFrame::Register(register)) = frames.next() else { panic!("no registration") };
        assert_eq!(register.worker_name.as_deref(), Some("Ger\u{e4}t-7 \u{1f680}"), "surrogate pairs");
        assert_eq!(register.identity, None);
        assert!(
            matches!(frames.next(), Some(WorkerFrame::Heartbeat { data }) if data.active_tasks == Some(1)),
            "binary"
        );
        let outcomes: Vec<_> = frames
            .by_ref()
            .take(3)
            .map(|frame| match frame {
                WorkerFrame::TaskResult(result) => result.data.challenge_result().map(|result| result.matrix_size),
                other => panic!("{other:?}"),
            })
            .collect();
        let failed = |reason: &str| Err(format!("worker failed with code 1006: {reason}"));
        assert_eq!(outcomes, [Ok(8), failed("out of memory"), failed("boom")], "fragmented, Infinity, F3");
        let proofs: Vec<_> = frames
            .by_ref()
            .take(2)
            .map(|frame| match frame {
                WorkerFrame::ProofResponse { data, .. } => {
                    (data.success, data.proofs.len(), data.phase2_timestamp("worker_proof_completed_ts"))
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(proofs, [(true, 1, Some(1_760_000_004_012)), (false, 0, None)]);
        assert!(matches!(frames.next(), Some(WorkerFrame::VmgwEnrollTokenRequest { .. })));
        assert!(matches!(frames.next(), Some(WorkerFrame::HeartbeatResponse { .. })));
        assert_eq!(frames.next(), None);
    }

    #[tokio::test]
    async fn a_connection_costs_a_small_read_buffer_and_takes_no_message_above_16_mib() {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&recorded()).await.expect("room");
        // Plain and TLS connections are opened by the same function.
        let socket = upgrade(ours, Nonce([1; 32])).await.expect("an upgrade");
        let config = socket.get_config();
        assert!(config.read_buffer_size <= 8 * 1024 && config.write_buffer_size == 0);
        assert_eq!(config.max_message_size, Some(16 * 1024 * 1024));
    }
}
