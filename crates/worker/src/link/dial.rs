//! Opens the WebSocket, and says what to do when it cannot be opened.

use std::io;
use std::time::Duration;

use byteleap_protocol::frame::MAX_MINER_FRAME_BYTES;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::url::{MINER_PORT, MinerUrl};

/// The connection's read and write buffers, in bytes. Messages are small; large ones grow the buffer while they last.
const BUFFER_BYTES: usize = 16 * 1024;

/// An open WebSocket to the miner.
pub type Socket = WebSocketStream<TcpStream>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host's name means nothing.
    #[error("the host of {url} is unknown: check miner_url")]
    Unknown {
        /// The URL.
        url: Box<MinerUrl>,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing listens, or nothing can be reached.
    #[error(
        "{url} cannot be reached: check that byteleap-miner runs there, that miner_url names the port of its \
         worker_management.port ({MINER_PORT} unless changed), and that no firewall stands between{}",
        missing_port(url)
    )]
    Unreachable {
        /// The URL.
        url: Box<MinerUrl>,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than a miner answers.
    #[error("{url} is not a miner's worker port: check host and port of miner_url{}", missing_port(url))]
    NoMiner {
        /// The URL.
        url: Box<MinerUrl>,
        /// What was answered instead.
        source: Box<WebSocketError>,
    },
    /// No answer in time.
    #[error("{url} gives no answer within {} s: check that no firewall drops the packets{}", within.as_secs(), missing_port(url))]
    Silent {
        /// The URL.
        url: Box<MinerUrl>,
        /// How long was waited.
        within: Duration,
    },
}

fn boxed(url: &MinerUrl) -> Box<MinerUrl> {
    Box::new(url.clone())
}

fn missing_port(url: &MinerUrl) -> String {
    if url.names_port() {
        return String::new();
    }
    format!(" (miner_url names no port, so {} was dialled)", url.port())
}

/// Opens a WebSocket within the deadline.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(url: &MinerUrl, deadline: Duration) -> Result<Socket, DialError> {
    let opened = tokio::time::timeout(deadline, open(url)).await;
    opened.unwrap_or_else(|_| Err(DialError::Silent { url: boxed(url), within: deadline }))
}

async fn open(url: &MinerUrl) -> Result<Socket, DialError> {
    let address = (url.host(), url.port());
    let mut addresses =
        tokio::net::lookup_host(address).await.map_err(|source| DialError::Unknown { url: boxed(url), source })?;
    let unreachable = |source| DialError::Unreachable { url: boxed(url), source };
    let mut stream = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    while stream.is_err()
        && let Some(address) = addresses.next()
    {
        stream = TcpStream::connect(address).await;
    }
    let stream = stream.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    match client_async_with_config(url.uri(), stream, Some(limits())).await {
        Ok((socket, _)) => Ok(socket),
        Err(WebSocketError::Io(source)) => Err(unreachable(source)),
        Err(error) => Err(DialError::NoMiner { url: boxed(url), source: Box::new(error) }),
    }
}

/// Small buffers, and the bound of incoming messages (worker-miner spec 1.2).
fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_MINER_FRAME_BYTES))
        .max_frame_size(Some(MAX_MINER_FRAME_BYTES))
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::tasks::chain;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn listener() -> (TcpListener, MinerUrl) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        (listener, url)
    }

    #[tokio::test]
    async fn a_closed_port_is_answered_with_where_the_miner_names_it() {
        let (listener, url) = listener().await;
        drop(listener);
        let told = chain(&dial(&url, DEADLINE).await.unwrap_err());
        assert!(told.contains("worker_management.port") && told.contains("refused"), "{told}");
    }

    #[tokio::test]
    async fn another_server_is_told_from_a_miner() {
        let (listener, url) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            stream
        });
        let told = chain(&dial(&url, DEADLINE).await.unwrap_err());
        assert!(told.contains("not a miner's worker port") && told.contains("404"), "{told}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_ends_with_the_deadline() {
        let (_listener, url) = listener().await;
        let told = chain(&dial(&url, Duration::from_millis(20)).await.unwrap_err());
        assert!(told.contains("gives no answer"), "{told}");
    }

    #[test]
    fn a_url_without_a_port_is_mentioned() {
        let url: MinerUrl = "ws://miner.example/".parse().unwrap();
        let error = DialError::Silent { url: Box::new(url), within: DEADLINE };
        assert!(error.to_string().ends_with("(miner_url names no port, so 80 was dialled)"), "{error}");
    }
}
