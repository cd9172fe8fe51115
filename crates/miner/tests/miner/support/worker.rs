//! A worker that does what a test tells it.

use std::{net::SocketAddr, sync::Arc};

use byteleap_protocol::{
    code::CloseCode,
    frame::{
        ChallengeResult, MinerFrame, ProofAnswer, ProofQuery, TaskAssignment, TaskOutcome, TaskTimestamps, WorkerFrame,
    },
    id::{ChallengeId, MessageId, Unit},
    join::CertificateFingerprint,
    payload::{Commitment, ProofResponse},
    worker_key::{Channel, EXPORTER_LABEL, NONCE_HEADER},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime},
        version::TLS13,
    },
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::PATIENCE;

/// What a test's WebSocket runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A worker's connection.
pub(crate) struct Worker {
    socket: WebSocketStream<Box<dyn Stream>>,
    /// What a proof on it is tied to.
    pub(crate) channel: Channel,
    /// What the miner showed; none on a plain connection.
    pub(crate) certificate: Option<CertificateFingerprint>,
}

fn decode(text: &str) -> MinerFrame {
    MinerFrame::decode(text.as_bytes()).expect("a frame")
}

fn frame(message: Message) -> MinerFrame {
    match message {
        Message::Text(text) => decode(&text),
        other => panic!("expected a frame, got {other:?}"),
    }
}

impl Worker {
    /// Connects without registering.
    pub(crate) async fn dial(miner: SocketAddr) -> Self {
        let stream = TcpStream::connect(miner).await.expect("a connection");
        Self::upgrade(Box::new(stream), miner, None, None).await
    }

    /// Connects over TLS, taking whatever certificate is shown, without registering.
    pub(crate) async fn dial_tls(miner: SocketAddr) -> Self {
        let stream = TcpStream::connect(miner).await.expect("a connection");
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        let name = ServerName::try_from(miner.ip().to_string()).expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a TLS handshake");
        let connection = stream.get_ref().1;
        let exported = connection.export_keying_material([0; 32], EXPORTER_LABEL, None).expect("keying material");
        let certificate = CertificateFingerprint::of(&connection.peer_certificates().expect("a certificate")[0]);
        Self::upgrade(Box::new(stream), miner, Some(exported), Some(certificate)).await
    }

    async fn upgrade(
        stream: Box<dyn Stream>,
        miner: SocketAddr,
        exported: Option<[u8; 32]>,
        certificate: Option<CertificateFingerprint>,
    ) -> Self {
        let (socket, answer) = client_async(format!("ws://{miner}/ws"), stream).await.expect("an upgrade");
        let nonce = answer.headers()[NONCE_HEADER].to_str().expect("text").parse().expect("a nonce");
        Self { socket, channel: Channel { nonce, exported }, certificate }
    }

    /// What a plain upgrade is answered where it is refused.
    pub(crate) async fn refused(miner: SocketAddr) -> String {
        let mut stream = TcpStream::connect(miner).await.expect("a connection");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: miner\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    /// Upgrades, sends a registration whose frame says that it is compressed, and gives the code of the miner's close.
    pub(crate) async fn send_rsv1(miner: SocketAddr) -> u16 {
        let mut stream = TcpStream::connect(miner).await.expect("a connection");
        let head = "GET / HTTP/1.1\r\nHost: miner\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        // FIN, RSV1, text; masked with zeros; two bytes.
        stream.write_all(&[0b1100_0001, 0x82, 0, 0, 0, 0, b'{', b'}']).await.expect("sent");
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        let head_end = received.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let frame = &received[head_end..];
        assert_eq!(frame[0], 0x88, "a close frame");
        u16::from_be_bytes([frame[2], frame[3]])
    }

    /// Connects, registers, and waits for the acknowledgement.
    pub(crate) async fn register(miner: SocketAddr, worker_id: &str) -> Self {
        let mut worker = Self::dial(miner).await;
        worker.say(&register(worker_id)).await;
        assert!(matches!(worker.hear().await, MinerFrame::RegistrationAck { .. }));
        worker
    }

    /// The same from another of the loopback addresses.
    pub(crate) async fn register_from(from: [u8; 4], miner: SocketAddr, worker_id: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a loopback address");
        let miner = SocketAddr::from(([127, 0, 0, 1], miner.port()));
        let stream = socket.connect(miner).await.expect("a connection");
        let mut worker = Self::upgrade(Box::new(stream), miner, None, None).await;
        worker.say(&register(worker_id)).await;
        assert!(matches!(worker.hear().await, MinerFrame::RegistrationAck { .. }));
        worker
    }

    /// Sends a text as it is.
    pub(crate) async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("sent");
    }

    /// Sends a text as a binary message.
    pub(crate) async fn say_binary(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.expect("sent");
    }

    /// Sends the head of a text frame of so many bytes, and nothing of its content.
    pub(crate) async fn declare_frame_of(&mut self, bytes: u64) {
        let head = [&[0x81, 0xff][..], &bytes.to_be_bytes(), &[0; 4]].concat();
        self.socket.get_mut().write_all(&head).await.expect("sent");
    }

    async fn receive(&mut self) -> Message {
        loop {
            let received = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match received.expect("an open connection").expect("a sound connection") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next message, but for what validators say, which comes when it likes.
    async fn receive_else(&mut self) -> Message {
        loop {
            match self.receive().await {
                Message::Text(text) if matches!(decode(&text), MinerFrame::Feedback { .. }) => {}
                message => return message,
            }
        }
    }

    /// The next frame of the miner, but for what validators say.
    pub(crate) async fn hear(&mut self) -> MinerFrame {
        frame(self.receive_else().await)
    }

    /// The next frame of the miner, whatever it is.
    pub(crate) async fn hear_any(&mut self) -> MinerFrame {
        frame(self.receive().await)
    }

    /// The next frame, which must be a task.
    pub(crate) async fn hear_task(&mut self) -> TaskAssignment {
        match self.hear().await {
            MinerFrame::TaskAssignment { data } => data,
            other => panic!("expected a task, got {other:?}"),
        }
    }

    /// The next frame, which must be a proof request.
    pub(crate) async fn hear_query(&mut self) -> (MessageId, ProofQuery) {
        match self.hear().await {
            MinerFrame::ProofRequest { message_id, data } => (message_id, data),
            other => panic!("expected a proof request, got {other:?}"),
        }
    }

    /// The miner's close frame: code and text.
    pub(crate) async fn hear_close(&mut self) -> (u16, String) {
        match self.receive_else().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("expected a close, got {other:?}"),
        }
    }

    /// How a registration was answered: none by an acknowledgement, else the close code.
    pub(crate) async fn hear_verdict(&mut self) -> Option<u16> {
        match self.receive_else().await {
            Message::Text(text) => {
                let frame = decode(&text);
                assert!(matches!(frame, MinerFrame::RegistrationAck { .. }), "{frame:?}");
                None
            }
            Message::Close(Some(frame)) => Some(frame.code.into()),
            other => panic!("expected a verdict, got {other:?}"),
        }
    }

    /// Asserts that the miner closes with this code.
    pub(crate) async fn expect_close(&mut self, code: CloseCode) {
        assert_eq!(self.hear_close().await.0, code.number());
    }

    /// Reports a result: a commitment whose root is made of `digit`.
    pub(crate) async fn complete(&mut self, task: &ChallengeId, digit: char) {
        let result = ChallengeResult { computation_time_ms: 1.5, matrix_size: 8, commitments: vec![commitment(digit)] };
        let stamps = TaskTimestamps { worker_task_received_ts: 1000, worker_task_completed_ts: 2000 };
        self.report(task, TaskOutcome::completed(&result, stamps)).await;
    }

    /// Reports an outcome.
    pub(crate) async fn report(&mut self, task: &ChallengeId, outcome: TaskOutcome) {
        let text = json!({"type": "task_result", "worker_id": "w", "task_id": task, "timestamp": 1.5, "data": outcome});
        self.say(&text.to_string()).await;
    }

    /// Answers a proof request with an empty proof of the CPU.
    pub(crate) async fn prove(&mut self, message_id: MessageId) {
        let proof =
            ProofResponse { uuid: Unit::Cpu, row_hashes: vec![], merkle_proofs: vec![], coordinate_values: vec![] };
        let data = ProofAnswer::opened(vec![proof], 3000, 4000);
        self.say(&WorkerFrame::ProofResponse { message_id, data }.encode()).await;
    }

    /// Takes part in one whole round.
    pub(crate) async fn do_round(&mut self) {
        let task = self.hear_task().await;
        self.complete(&task.task_id, '1').await;
        let (message_id, _) = self.hear_query().await;
        self.prove(message_id).await;
    }

    /// Closes, unless the miner did so first, and waits until the miner has closed too.
    pub(crate) async fn leave(mut self) {
        let _ = self.socket.close(None).await;
        while self.socket.next().await.is_some() {}
    }
}

/// A valid registration.
pub(crate) fn register(worker_id: &str) -> String {
    json!({"type": "register", "worker_id": worker_id, "worker_version": "0.0.5", "capabilities": ["cpu_matrix"]})
        .to_string()
}

/// A commitment of the CPU whose root is 64 times `digit`.
pub(crate) fn commitment(digit: char) -> Commitment {
    Commitment::cpu(digit.to_string().repeat(64).parse().expect("a root"))
}

/// Takes any certificate: which one it was is the test's to compare.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
