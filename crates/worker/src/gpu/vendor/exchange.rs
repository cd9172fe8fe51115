//! One command, one connection: connect, ask, read the answer, each within the deadline (worker-miner spec 5.2).

use std::io;
use std::path::Path;
use std::time::Duration;

use byteleap_protocol::gpu_server::{AnswerError, Command, LENGTH_BYTES, answer_length, read_answer};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody listens there, or the connection broke.
    #[error("no connection to the compute server: {0}")]
    Io(#[from] io::Error),
    /// The socket belongs to a stranger, who could answer anything.
    #[error(
        "the socket is served by user {0}, who is neither this one nor root: set gpu.socket_path to a folder of your own"
    )]
    Stranger(u32),
    /// The answer is none.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// It takes too long.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// Asks the server behind `socket` and reads its answer.
///
/// # Errors
/// [`ExchangeError`].
pub async fn ask<T: DeserializeOwned + Send + 'static>(
    socket: &Path,
    command: &Command,
    timeout: Duration,
) -> Result<T, ExchangeError> {
    let answer = tokio::time::timeout(timeout, exchange(socket, command)).await;
    let answer = answer.map_err(|_| ExchangeError::Silent(timeout))??;
    Ok(read_answer(&answer)?)
}

async fn exchange(socket: &Path, command: &Command) -> Result<Vec<u8>, ExchangeError> {
    let mut stream = UnixStream::connect(socket).await?;
    let (server, own) = (stream.peer_cred()?.uid(), nix::unistd::geteuid().as_raw());
    if server != own && server != 0 {
        return Err(ExchangeError::Stranger(server));
    }
    stream.write_all(&command.to_bytes()).await?;
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let length = answer_length(length)?;
    // The room grows with what arrives, so that an announced length alone takes no memory.
    let mut answer = Vec::new();
    stream.take(length as u64).read_to_end(&mut answer).await?;
    if answer.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(answer)
}
