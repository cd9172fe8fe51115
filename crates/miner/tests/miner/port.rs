//! What the workers' port answers to those who are no workers.

use std::net::SocketAddr;

use tokio::process::Command;

use crate::support::TestMiner;

/// Runs the documents' command; gives the status line and the body.
async fn curl(miner: SocketAddr, headers: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    // A connection that is upgraded stays open; two seconds are enough to see the answer.
    command.args(["-s", "-i", "-N", "--max-time", "2"]);
    for header in headers {
        command.args(["-H", header]);
    }
    let output = command.arg(format!("http://{miner}/ws")).output().await.expect("curl is installed");
    let text = String::from_utf8(output.stdout).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().expect("a status line").to_owned(), body.to_owned())
}

const UPGRADE: [&str; 3] = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];

#[tokio::test]
async fn the_documents_curl_test_says_what_the_port_is_and_what_to_do() {
    let miner = TestMiner::start(&[]).await;
    let (status, body) = curl(miner.workers, &[&UPGRADE[..], &["Sec-WebSocket-Key: test"]].concat()).await;
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(body.contains("ByteLeap") && body.contains("Sec-WebSocket-Key") && body.contains("miner_url"), "{body}");
}

#[tokio::test]
async fn a_valid_key_is_switched_to_websocket() {
    let miner = TestMiner::start(&[]).await;
    let (status, _) =
        curl(miner.workers, &[&UPGRADE[..], &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]].concat()).await;
    assert_eq!(status, "HTTP/1.1 101 Switching Protocols");
}

#[tokio::test]
async fn a_request_without_upgrade_is_told_to_upgrade() {
    let miner = TestMiner::start(&[]).await;
    let (status, body) = curl(miner.workers, &[]).await;
    assert_eq!(status, "HTTP/1.1 426 Upgrade Required");
    assert!(body.contains("ByteLeap"), "{body}");
}
