//! Asking a running daemon: one request over loopback, for the commands that show or change its state.

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest time until the whole answer is there.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Why a running daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("nothing answers on {address}: is the daemon running, and is http.listen the same?")]
    Connect {
        /// Where it was sought.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon's answer broke off")]
    Io(#[from] io::Error),
    /// No complete answer in time.
    #[error("the daemon gave no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// Another status than 200.
    #[error("the daemon answered {status}: {body}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// Not HTTP, too large, or not JSON.
    #[error("the answer is none of a daemon's: {0}")]
    Malformed(String),
}

/// Gets `path` from the admin endpoint at `address` as JSON.
///
/// # Errors
///
/// No daemon there, no answer in time, or an answer other than 200 with JSON.
pub async fn get(address: SocketAddr, path: &str) -> Result<Value, ClientError> {
    ask(address, "GET", path, "").await
}

/// Posts `body` to `path` of the admin endpoint at `address`, and yields its answer.
///
/// # Errors
///
/// As [`get`].
pub async fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Value, ClientError> {
    ask(address, "POST", path, &body.to_string()).await
}

/// Deletes `path` at the admin endpoint at `address`, and yields its answer.
///
/// # Errors
///
/// As [`get`].
pub async fn delete(address: SocketAddr, path: &str) -> Result<Value, ClientError> {
    ask(address, "DELETE", path, "").await
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<Value, ClientError> {
    let exchange = exchange(address, method, path, body);
    let answer = tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| ClientError::Deadline)??;
    let malformed = |what: &str| ClientError::Malformed(what.to_owned());
    let answer = String::from_utf8(answer).map_err(|_| malformed("not text"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| malformed("no HTTP header"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| malformed("no status"))?;
    if status != 200 {
        return Err(ClientError::Status { status, body: body.trim().to_owned() });
    }
    serde_json::from_str(body).map_err(|error| malformed(&error.to_string()))
}

/// One request in HTTP/1.0, which ends with the connection and comes in one piece.
async fn exchange(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<Vec<u8>, ClientError> {
    let mut stream = TcpStream::connect(address).await.map_err(|source| ClientError::Connect { address, source })?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut answer).await?;
    if answer.len() as u64 > MAX_ANSWER_BYTES {
        return Err(ClientError::Malformed(format!("larger than {MAX_ANSWER_BYTES} bytes")));
    }
    Ok(answer)
}
