//! Opens the WebSocket to the marketplace, and says what to do when it cannot be opened.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use byteleap_protocol::meshhub::MAX_FRAME_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::url::HubUrl;

/// A byte stream, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Stream for S {}

/// An open WebSocket.
pub type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing answers there.
    #[error("{0} cannot be reached: check meshhub.ws_url and that no firewall stands between")]
    Unreachable(HubUrl, #[source] io::Error),
    /// The certificate is not one that this machine trusts for that name, or there is no TLS at all.
    #[error("{0} cannot be spoken to by TLS: check that the name of meshhub.ws_url is the certificate's")]
    Tls(HubUrl, #[source] io::Error),
    /// Something else listens there.
    #[error("{0} is no marketplace: check host, port and path of meshhub.ws_url")]
    NoWebSocket(HubUrl, #[source] Box<WebSocketError>),
    /// No answer in time.
    #[error("{url} gives no answer within {} s", within.as_secs())]
    Silent {
        /// Who was dialled.
        url: HubUrl,
        /// How long was waited.
        within: Duration,
    },
}

/// Connects within `deadline`.
///
/// # Errors
/// As [`DialError`].
pub async fn dial(url: &HubUrl, deadline: Duration) -> Result<Socket, DialError> {
    let opened = tokio::time::timeout(deadline, open(url)).await;
    opened.unwrap_or_else(|_| Err(DialError::Silent { url: url.clone(), within: deadline }))
}

async fn open(url: &HubUrl) -> Result<Socket, DialError> {
    let unreachable = |error| DialError::Unreachable(url.clone(), error);
    let stream = TcpStream::connect((url.host(), url.port())).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let stream: Box<dyn Stream> = if url.is_tls() { Box::new(encrypt(url, stream).await?) } else { Box::new(stream) };
    match client_async_with_config(url.uri(), stream, Some(limits())).await {
        Ok((socket, _)) => Ok(socket),
        Err(WebSocketError::Io(error)) => Err(unreachable(error)),
        Err(error) => Err(DialError::NoWebSocket(url.clone(), Box::new(error))),
    }
}

async fn encrypt(url: &HubUrl, stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
    let failed = |error| DialError::Tls(url.clone(), error);
    let name = ServerName::try_from(url.host().to_owned()).map_err(|error| failed(io::Error::other(error)))?;
    // The system's certificates are files: read off the runtime.
    let config = tokio::task::spawn_blocking(trusted).await.map_err(|error| failed(io::Error::other(error)))?;
    TlsConnector::from(config.map_err(failed)?).connect(name, stream).await.map_err(failed)
}

/// Trust in what this machine trusts.
fn trusted() -> Result<Arc<ClientConfig>, io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES))
}
