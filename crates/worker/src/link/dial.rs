//! Opens the WebSocket, and says what to do when it cannot be opened.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use byteleap_protocol::frame::MAX_MINER_FRAME_BYTES;
use byteleap_protocol::join::CertificateFingerprint;
use byteleap_protocol::worker_key::{Channel, EXPORTER_LABEL, NONCE_HEADER};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::Error as TlsError;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::tls::{self, WrongFingerprint};
use super::url::{MINER_PORT, MinerUrl};

/// The connection's read and write buffers, in bytes. Messages are small; large ones grow the buffer while they last.
const BUFFER_BYTES: usize = 16 * 1024;

/// What the WebSocket runs over: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin> Stream for S {}

/// A WebSocket to the miner.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// An open connection.
#[derive(Debug)]
pub struct Dialled {
    /// The WebSocket.
    pub socket: Socket,
    /// What a proof of this worker's key is tied to; none at a Python miner, which asks for no proof.
    pub channel: Option<Channel>,
}

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
    /// The TLS handshake failed.
    #[error("{url}: {}", tls::advice(source))]
    Tls {
        /// The URL.
        url: Box<MinerUrl>,
        /// What failed.
        source: TlsError,
    },
    /// The miner shows another certificate than the pinned one.
    #[error(
        "{url} shows another certificate than miner_fingerprint names: compare it with what byteleap-miner status shows; if \
         nobody made a new certificate there, somebody stands between"
    )]
    WrongCertificate {
        /// The URL.
        url: Box<MinerUrl>,
        /// Both fingerprints.
        source: WrongFingerprint,
    },
    /// The miner takes no plain connections.
    #[error(
        "{url} serves workers over TLS only: set miner_url to wss:// and miner_fingerprint to what byteleap-miner status shows there, or join with a token of its"
    )]
    TlsRequired {
        /// The URL.
        url: Box<MinerUrl>,
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

/// Opens a WebSocket within the deadline. On a `wss://` URL the miner must show the pinned certificate; without a pin, one
/// that the authorities of this machine vouch for.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    url: &MinerUrl,
    pinned: Option<CertificateFingerprint>,
    deadline: Duration,
) -> Result<Dialled, DialError> {
    let opened = tokio::time::timeout(deadline, open(url, pinned)).await;
    opened.unwrap_or_else(|_| Err(DialError::Silent { url: boxed(url), within: deadline }))
}

async fn open(url: &MinerUrl, pinned: Option<CertificateFingerprint>) -> Result<Dialled, DialError> {
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
    let (stream, exported): (Box<dyn Stream>, _) = if url.is_tls() {
        let (stream, exported) = encrypt(url, pinned, stream).await?;
        (Box::new(stream), Some(exported))
    } else {
        (Box::new(stream), None)
    };
    match client_async_with_config(url.uri(), stream, Some(limits())).await {
        Ok((socket, answer)) => {
            let nonce = answer.headers().get(NONCE_HEADER).and_then(|nonce| nonce.to_str().ok()?.parse().ok());
            Ok(Dialled { socket, channel: nonce.map(|nonce| Channel { nonce, exported }) })
        }
        Err(WebSocketError::Io(source)) => Err(unreachable(source)),
        Err(WebSocketError::Http(answer)) if !url.is_tls() && answer.status() == StatusCode::FORBIDDEN => {
            Err(DialError::TlsRequired { url: boxed(url) })
        }
        Err(error) => Err(DialError::NoMiner { url: boxed(url), source: Box::new(error) }),
    }
}

/// Shakes hands, and exports what only the two ends of this connection know.
async fn encrypt(
    url: &MinerUrl,
    pinned: Option<CertificateFingerprint>,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, [u8; 32]), DialError> {
    let failed = |source| match tls::wrong_fingerprint(&source) {
        Some(source) => DialError::WrongCertificate { url: boxed(url), source },
        None => DialError::Tls { url: boxed(url), source },
    };
    let name =
        ServerName::try_from(url.host().to_owned()).map_err(|error| failed(TlsError::General(error.to_string())))?;
    let connector = blocking_connector(pinned).await.map_err(failed)?;
    let stream = connector.connect(name, stream).await.map_err(|error| match tls_error(&error) {
        Some(error) => failed(error),
        None => DialError::Unreachable { url: boxed(url), source: error },
    })?;
    let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(failed)?;
    Ok((stream, exported))
}

/// Reading this machine's authorities takes milliseconds, and may take long on a slow disk.
async fn blocking_connector(pinned: Option<CertificateFingerprint>) -> Result<TlsConnector, TlsError> {
    let made = tokio::task::spawn_blocking(move || tls::connector(pinned)).await;
    made.unwrap_or_else(|panic| Err(TlsError::General(panic.to_string())))
}

/// What the TLS library said, where it did.
fn tls_error(error: &io::Error) -> Option<TlsError> {
    error.get_ref()?.downcast_ref::<TlsError>().cloned()
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
    use std::sync::Arc;

    use byteleap_daemon::tasks::chain;
    use rcgen::{CertificateParams, CertifiedKey, KeyPair};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio_rustls::rustls::version::TLS13;
    use tokio_rustls::rustls::{CertificateError, ServerConfig};

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
        let told = chain(&dial(&url, None, DEADLINE).await.unwrap_err());
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
        let told = chain(&dial(&url, None, DEADLINE).await.unwrap_err());
        assert!(told.contains("not a miner's worker port") && told.contains("404"), "{told}");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_ends_with_the_deadline() {
        let (_listener, url) = listener().await;
        let told = chain(&dial(&url, None, Duration::from_millis(20)).await.unwrap_err());
        assert!(told.contains("gives no answer"), "{told}");
    }

    #[test]
    fn a_url_without_a_port_is_mentioned() {
        let url: MinerUrl = "ws://miner.example/".parse().unwrap();
        let error = DialError::Silent { url: Box::new(url), within: DEADLINE };
        assert!(error.to_string().ends_with("(miner_url names no port, so 80 was dialled)"), "{error}");
    }

    /// A server that shakes hands with this certificate, and then says nothing; its URL under `host`.
    async fn tls_server(certificate: &CertifiedKey<KeyPair>, host: &str) -> MinerUrl {
        let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::new(config.clone()));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                });
            }
        });
        format!("wss://{host}:{port}").parse().unwrap()
    }

    fn certificate(until_year: i32) -> CertifiedKey<KeyPair> {
        let signing_key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        CertifiedKey { cert: parameters.self_signed(&signing_key).unwrap(), signing_key }
    }

    #[tokio::test]
    async fn exactly_the_pinned_certificate_is_taken_whatever_its_name_and_dates() {
        // Long expired, and for another name than the one that is dialled.
        let mine = certificate(2001);
        let url = tls_server(&mine, "127.0.0.1").await;
        let pin = CertificateFingerprint::of(mine.cert.der());
        let error = dial(&url, Some(pin), DEADLINE).await.unwrap_err();
        assert!(matches!(error, DialError::NoMiner { .. }), "TLS holds, and the answer is read: {error:?}");

        let other = CertificateFingerprint::of(certificate(2001).cert.der());
        let told = chain(&dial(&url, Some(other), DEADLINE).await.unwrap_err());
        assert!(told.contains("another certificate than miner_fingerprint names"), "{told}");
        assert!(told.contains(&pin.to_string()) && told.contains(&other.to_string()), "both are named: {told}");
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_is_refused_with_what_to_do() {
        let url = tls_server(&certificate(4000), "localhost").await;
        let told = chain(&dial(&url, None, DEADLINE).await.unwrap_err());
        assert!(told.contains("set miner_fingerprint"), "{told}");
    }

    #[test]
    fn an_expired_certificate_and_another_name_are_told_apart() {
        let advice = |error| tls::advice(&TlsError::InvalidCertificate(error));
        assert!(advice(CertificateError::Expired).contains("has expired"));
        assert!(advice(CertificateError::NotValidYet).contains("the clocks of both"));
        assert!(advice(CertificateError::NotValidForName).contains("another name"));
    }

    #[tokio::test]
    async fn a_port_without_tls_and_one_with_tls_only_are_told_apart() {
        let (listener, url) = listener().await;
        let wss = url.to_string().replace("ws://", "wss://").parse().unwrap();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        let told = chain(&dial(&wss, None, DEADLINE).await.unwrap_err());
        assert!(told.contains("does not speak TLS"), "{told}");
        let told = chain(&dial(&url, None, DEADLINE).await.unwrap_err());
        assert!(told.contains("over TLS only"), "{told}");
        server.await.unwrap();
    }
}
