//! The way from an alarm to a person: a POST of JSON to `alarms.webhook_url`.
//!
//! ```json
//! {"text": "byteleap-validator 5F…: alarm low_disk: …", "source": "byteleap-validator", "hotkey": "5F…", "netuid": 128,
//!  "alarm": "low_disk", "state": "raised", "details": "…", "at_ms": 1790000000000}
//! ```
//!
//! `text` alone is what chat services show (Slack, Mattermost; Discord under its address with `/slack`). `state` is
//! `raised`, `cleared` or `test`. Messages wait in a bounded queue and are sent one after the other, each again with growing
//! pauses while the other side is away. The address holds a secret, so no log and no error shows more than its host.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header};
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_util::sync::CancellationToken;

use super::{Change, Limits};

/// Messages that wait; what comes beyond is logged only.
const MAX_WAITING: usize = 64;
/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Attempts for one message.
const ATTEMPTS: u32 = 6;
/// Pause after the first failed attempt; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Where alarms are sent, and whom we believe to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its address.
    pub url: WebhookUrl,
    /// A file of certificates (PEM) whose signature under the server's counts, besides what this machine trusts.
    pub ca_file: Option<PathBuf>,
}

/// A checked address of a webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    uri: Uri,
    host: String,
    port: u16,
    is_encrypted: bool,
}

/// Why a text is no address of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be https://host/path, or http:// to this machine; without a user's name in it")]
pub struct WebhookUrlError;

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(text: &str) -> Result<Self, WebhookUrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| WebhookUrlError)?;
        let is_encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WebhookUrlError),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(WebhookUrlError)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if host.is_empty() || !(is_encrypted || is_here) {
            return Err(WebhookUrlError);
        }
        let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        Ok(Self { host, port, is_encrypted, uri })
    }
}

/// The host alone: the rest is a secret.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WebhookUrl({self})")
    }
}

/// Why a message was not delivered; each names the host.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Nothing answers there, or the encryption failed.
    #[error("{0} cannot be reached")]
    Connect(String, #[source] std::io::Error),
    /// The configured certificates cannot be read.
    #[error("alarms.webhook_ca_file {} cannot be read as certificates (PEM)", .0.display())]
    Authority(PathBuf, #[source] pem::Error),
    /// The host's name cannot stand in a certificate.
    #[error("{0} is no name that a certificate can hold")]
    Name(String),
    /// The connection broke.
    #[error("{0} broke the connection off")]
    Broken(String, #[source] hyper::Error),
    /// No answer in time.
    #[error("{0} gave no answer within {seconds} s", seconds = DEADLINE.as_secs())]
    Deadline(String),
    /// Another answer than success.
    #[error("{0} answered {1}")]
    Refused(String, StatusCode),
}

impl DeliveryError {
    /// Whether another attempt may succeed: not where the other side says that the message is wrong.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Refused(_, status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Name(_) | Self::Authority(..) => false,
            Self::Connect(..) | Self::Broken(..) | Self::Deadline(_) => true,
        }
    }
}

/// Who speaks in a message.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// The validator.
    pub hotkey: Hotkey,
    /// Its subnet.
    pub netuid: u16,
}

impl Sender {
    /// The message that an operator asks for to see whether messages arrive.
    pub fn test_message(self, now_ms: i64) -> Value {
        self.message("test", "test", "this is a test: alarms will arrive here", now_ms)
    }

    fn message(self, alarm: &str, state: &str, details: &str, at_ms: i64) -> Value {
        let said = match state {
            "cleared" => "is over",
            "raised" => "alarm",
            other => other,
        };
        json!({
            "text": format!("byteleap-validator {}: {alarm} {said}: {details}", self.hotkey),
            "source": "byteleap-validator",
            "hotkey": self.hotkey,
            "netuid": self.netuid,
            "alarm": alarm,
            "state": state,
            "details": details,
            "at_ms": at_ms,
        })
    }
}

/// Where changes are handed over; never waits.
#[derive(Debug, Clone)]
pub struct Courier {
    sender: Sender,
    queue: mpsc::Sender<Value>,
}

/// The queue's other end, which delivers.
#[derive(Debug)]
pub struct Deliveries {
    waiting: mpsc::Receiver<Value>,
    limits: Live<Limits>,
    first_pause: Duration,
}

/// The two ends of a queue of messages to wherever `limits` says when one is sent.
pub fn courier(sender: Sender, limits: Live<Limits>) -> (Courier, Deliveries) {
    let (queue, waiting) = mpsc::channel(MAX_WAITING);
    (Courier { sender, queue }, Deliveries { waiting, limits, first_pause: FIRST_PAUSE })
}

impl Courier {
    /// Hands a change over.
    pub(super) fn send(&self, change: &Change, now_ms: i64) {
        let state = if change.is_raised { "raised" } else { "cleared" };
        let message = self.sender.message(change.alarm.name(), state, &change.text, now_ms);
        if self.queue.try_send(message).is_err() {
            count("lost");
            tracing::warn!(alarm = change.alarm.name(), "too many messages wait for the webhook: this one is not sent");
        }
    }
}

impl Deliveries {
    /// Delivers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(message) = self.waiting.recv() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = self.deliver(message) => {}
                    }
                }
            }
        }
    }

    /// Delivers one message, in as many attempts as it takes and is worth.
    async fn deliver(&self, message: Value) {
        let mut pause = self.first_pause;
        for attempt in 1..=ATTEMPTS {
            // Without an address nobody wants to hear; a reload may give or change it.
            let Some(webhook) = self.limits.get().webhook.clone() else { return };
            match post(&webhook, &message).await {
                Ok(()) => return count("delivered"),
                Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                    tracing::debug!(error = byteleap_daemon::tasks::chain(&error), attempt, "webhook: sent again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => {
                    count("failed");
                    let error = byteleap_daemon::tasks::chain(&error);
                    tracing::error!(error, attempt, alarm = %message["alarm"], "the webhook did not take an alarm");
                    return;
                }
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("alarm_messages_total", "outcome" => outcome).increment(1);
}

/// Sends one message once.
///
/// # Errors
/// It did not arrive, or was not taken.
pub async fn post(webhook: &Webhook, message: &Value) -> Result<(), DeliveryError> {
    let (status, _) = ask(webhook, None, message.to_string()).await?;
    if status.is_success() { Ok(()) } else { Err(DeliveryError::Refused(webhook.url.to_string(), status)) }
}

/// Posts JSON once, with a bearer token where there is one; gives the status and the body of the answer, which is empty where
/// it is too large.
///
/// # Errors
/// It did not arrive, or was not answered.
pub async fn ask(webhook: &Webhook, bearer: Option<&str>, body: String) -> Result<(StatusCode, Bytes), DeliveryError> {
    let sent = tokio::time::timeout(DEADLINE, exchange(webhook, bearer, body));
    sent.await.map_err(|_| DeliveryError::Deadline(webhook.url.to_string()))?
}

async fn exchange(
    Webhook { url, ca_file }: &Webhook,
    bearer: Option<&str>,
    body: String,
) -> Result<(StatusCode, Bytes), DeliveryError> {
    let unreachable = |error| DeliveryError::Connect(url.to_string(), error);
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(unreachable)?;
    if !url.is_encrypted {
        return send(url, TokioIo::new(stream), bearer, body).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|_| DeliveryError::Name(url.to_string()))?;
    // The system's certificates are files: read off the runtime, and only when something is sent.
    let (trusting, ca_file) = (url.clone(), ca_file.clone());
    let trusted = tokio::task::spawn_blocking(move || trusted(&trusting, ca_file.as_deref()));
    let config = trusted.await.map_err(|error| unreachable(std::io::Error::other(error)))??;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(unreachable)?;
    send(url, TokioIo::new(stream), bearer, body).await
}

/// Trust in what this machine trusts, and in the certificates of `ca_file`.
fn trusted(url: &WebhookUrl, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, DeliveryError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unreadable = |error| DeliveryError::Authority(path.to_owned(), error);
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        if roots.add_parsable_certificates(read.map_err(unreadable)?).0 == 0 {
            return Err(unreadable(pem::Error::NoItemsFound));
        }
    }
    ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|config| Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
        .map_err(|error| DeliveryError::Connect(url.to_string(), std::io::Error::other(error)))
}

async fn send<S>(
    url: &WebhookUrl,
    stream: S,
    bearer: Option<&str>,
    body: String,
) -> Result<(StatusCode, Bytes), DeliveryError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let broken = |error| DeliveryError::Broken(url.to_string(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
    let host = url.uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = url.uri.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    let bearer = bearer.map(|token| (header::AUTHORIZATION, format!("Bearer {token}")));
    let others = [(header::HOST, host), (header::CONTENT_TYPE, "application/json".to_owned())];
    for (name, value) in others.into_iter().chain(bearer) {
        if let Ok(value) = value.parse() {
            request.headers_mut().insert(name, value);
        }
    }
    let answered = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended.map_err(broken)?;
            answered.await
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, extract::State, routing::any};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::super::Alarm;
    use super::*;

    const SENDER: Sender = Sender { hotkey: Hotkey([5; 32]), netuid: 128 };

    type Statuses = Arc<parking_lot::Mutex<std::vec::IntoIter<u16>>>;

    /// A webhook that answers with these statuses in turn, then with 200, and yields the bodies.
    async fn server(statuses: Vec<u16>) -> (String, mpsc::Receiver<Value>) {
        let (bodies, received) = mpsc::channel(16);
        let statuses = Arc::new(parking_lot::Mutex::new(statuses.into_iter()));
        let answer = async |State((bodies, statuses)): State<(mpsc::Sender<Value>, Statuses)>, body: String| {
            bodies.send(serde_json::from_str(&body).unwrap()).await.unwrap();
            StatusCode::from_u16(statuses.lock().next().unwrap_or(200)).unwrap()
        };
        let router = Router::new().route("/hook", any(answer)).with_state((bodies, statuses));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=hunter2", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, received)
    }

    fn webhook(url: &str) -> Webhook {
        Webhook { url: url.parse().unwrap(), ca_file: None }
    }

    /// The same behind TLS, with a certificate of its own that is written to `ca_file`.
    async fn encrypted_server(ca_file: &Path) -> (String, mpsc::Receiver<Vec<u8>>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(ca_file, certificate.pem()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/hook?token=hunter2", listener.local_addr().unwrap().port());
        let (requests, received) = mpsc::channel(4);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not believe us hangs up within the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.unwrap();
                requests.send(request).await.unwrap();
            }
        });
        (url, received)
    }

    #[tokio::test]
    async fn a_message_goes_encrypted_to_whom_the_configured_certificate_vouches_for_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let (url, mut received) = encrypted_server(&ca_file).await;
        let url: WebhookUrl = url.parse().unwrap();
        let message = SENDER.test_message(7);

        let stranger = post(&Webhook { url: url.clone(), ca_file: None }, &message).await.unwrap_err();
        let told = byteleap_daemon::tasks::chain(&stranger);
        assert!(matches!(stranger, DeliveryError::Connect(..)) && told.contains("certificate"), "{told}");

        post(&Webhook { url: url.clone(), ca_file: Some(ca_file.clone()) }, &message).await.unwrap();
        let request = String::from_utf8(received.recv().await.unwrap()).unwrap();
        assert!(request.starts_with("POST /hook?token=hunter2 HTTP/1.1\r\n"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), message);

        std::fs::write(&ca_file, "no certificate").unwrap();
        let unreadable = post(&Webhook { url, ca_file: Some(ca_file) }, &message).await.unwrap_err();
        assert!(matches!(unreadable, DeliveryError::Authority(..)) && !unreadable.is_temporary());
        assert!(!format!("{unreadable:?} {stranger:?}").contains("hunter2"));
    }

    fn limits(url: &str) -> Live<Limits> {
        Live::from(Limits {
            webhook: Some(webhook(url)),
            verification_wait: Duration::ZERO,
            lease_stale_after: Duration::ZERO,
            min_free_disk_bytes: 0,
            max_clock_offset: Duration::ZERO,
        })
    }

    #[tokio::test]
    async fn a_change_arrives_and_is_sent_again_while_the_other_side_is_away() {
        let (url, mut received) = server(vec![503, 429]).await;
        let (courier, mut deliveries) = courier(SENDER, limits(&url));
        deliveries.first_pause = Duration::ZERO;
        let stop = CancellationToken::new();
        let running = tokio::spawn(deliveries.run(stop.clone()));
        let change = Change { alarm: Alarm::LowDisk, is_raised: true, text: "400 MB left".to_owned() };
        courier.send(&change, 7);
        for _ in 0..3 {
            let message = received.recv().await.unwrap();
            assert_eq!((&message["alarm"], &message["state"]), (&json!("low_disk"), &json!("raised")));
            assert!(message["text"].as_str().unwrap().contains("400 MB left"));
        }
        courier.send(&Change { is_raised: false, ..change }, 8);
        assert_eq!(received.recv().await.unwrap()["state"], "cleared");
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_no_error_shows_the_secret() {
        let (url, mut received) = server(vec![404]).await;
        let plain = webhook(&url);
        let error = post(&plain, &SENDER.test_message(0)).await.unwrap_err();
        assert!(!error.is_temporary());
        let url = plain.url;
        assert_eq!(received.recv().await.unwrap()["state"], "test");
        assert!(!format!("{error} {error:?} {url} {url:?}").contains("hunter2"));
        // Nobody speaks TLS there.
        let encrypted = webhook(&format!("https://{}:{}/hook?token=hunter2", url.host, url.port));
        let error = post(&encrypted, &SENDER.test_message(0)).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Connect(..)) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn the_queue_is_bounded() {
        let (courier, _deliveries) = courier(SENDER, limits("http://localhost/hook"));
        let change = Change { alarm: Alarm::LowDisk, is_raised: true, text: String::new() };
        for _ in 0..2 * MAX_WAITING {
            courier.send(&change, 0);
        }
        assert_eq!(courier.queue.capacity(), 0);
    }

    #[test]
    fn an_address_is_encrypted_or_of_this_machine() {
        let parse = |text: &str| text.parse::<WebhookUrl>();
        assert_eq!(parse("https://hooks.example/a/b?c").unwrap().to_string(), "hooks.example:443");
        assert_eq!(parse("http://[::1]:8080/").unwrap().to_string(), "::1:8080");
        for wrong in [
            "hooks.example",
            "http://hooks.example/a",
            "https://user:password@hooks.example/",
            "ftp://a/",
            "https:///a",
        ] {
            assert_eq!(parse(wrong), Err(WebhookUrlError), "{wrong}");
        }
    }
}
