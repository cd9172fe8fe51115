//! What the Python packages `websockets` and `json` sent as a miner, byte for byte (scripts/record-frames).

use byteleap_protocol::frame::{FrameError, MinerFrame};
use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const RECORDED: &str = include_str!("../vectors/python_miner.json");

fn recorded() -> Vec<u8> {
    let record: Value = serde_json::from_str(RECORDED).unwrap();
    let digits = record["bytes"].as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[tokio::test]
async fn every_frame_that_a_python_miner_sent_is_read() {
    let bytes = recorded();
    let head_end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(bytes.starts_with(b"HTTP/1.1 101"));
    let (ours, _theirs) = tokio::io::duplex(1024);
    let mut socket = WebSocketStream::from_partially_read(ours, bytes[head_end..].to_vec(), Role::Client, None).await;
    let mut frames = Vec::new();
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => frames.push(MinerFrame::decode(text.as_bytes())),
            Message::Pong(payload) => assert_eq!(&payload[..], b"alive"),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let mut frames = frames.into_iter();
    assert!(matches!(frames.next(), Some(Ok(MinerFrame::RegistrationAck { .. }))));
    assert!(matches!(frames.next(), Some(Ok(MinerFrame::HeartbeatAck))));
    let Some(Ok(MinerFrame::TaskAssignment { data })) = frames.next() else { panic!("no task") };
    assert!(data.kind().is_some() && data.timeout.is_some() && data.validator_hotkey.is_some());
    let Some(Ok(MinerFrame::ProofRequest { data, .. })) = frames.next() else { panic!("no proof request") };
    assert_eq!((data.requests[0].rows.as_slice(), data.requests[0].coordinates.len()), (&[0, 5][..], 1));
    let codes: Vec<_> = frames
        .by_ref()
        .take(2)
        .map(|frame| match frame {
            Ok(MinerFrame::VmgwEnrollTokenResponse { data }) => data.code,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [0, 1002]);
    assert!(matches!(frames.next(), Some(Ok(MinerFrame::HeartbeatRequest { .. }))));
    assert!(matches!(frames.next(), Some(Err(FrameError::UnknownType(_)))), "passed over");
    assert!(frames.next().is_none());
}
