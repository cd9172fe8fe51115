//! One worker's connection: registration first, then frames both ways until either side ends it.

use std::time::Duration;

use byteleap_protocol::{
    code::CloseCode,
    frame::{
        FrameError, HeartbeatReport, MAX_MINER_FRAME_BYTES, MinerFrame, Register, Registered, TokenAnswer, WorkerFrame,
    },
    id::WorkerId,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message,
        error::ProtocolError,
        protocol::{CloseFrame, frame::coding::CloseCode as WireCode},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    door::{Door, Peer},
    registry::{Delivery, Generation, Link, Registry},
    strangers::Stranger,
};

/// How long an unregistered connection may stay silent (worker-miner spec 1.3).
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How a connection whose peer is gone without a word is found.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// Pause between pings.
    pub ping_interval: Duration,
    /// How long after the last thing heard of the peer its connection is given up.
    pub silence_timeout: Duration,
}

/// A half-open connection is found 40 s after its peer was last heard of; the reference's 20 s and 30 s (worker-miner spec
/// 1.2) would take 50.
pub const PULSE: Pulse = Pulse { ping_interval: Duration::from_secs(15), silence_timeout: Duration::from_secs(40) };

/// How long the peer may take to accept one frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the peer may take to answer our close frame; at a stop this comes on top of the drain of challenges.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames that wait for one worker.
const OUTGOING_FRAMES: usize = 16;

/// Messages above this size, in bytes, are decoded off the runtime: the proofs of eight GPUs take tens of milliseconds.
const INLINE_DECODE_BYTES: usize = 64 * 1024;

/// What a WebSocket runs over: a TCP or a TLS stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What connections share with the rest of the miner.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The workers table.
    pub registry: Registry,
    /// Judges who may be in it.
    pub door: Door,
    /// Whether enrolment tokens go to workers that are not authenticated.
    pub tokens_to_anyone: bool,
    /// How lost peers are found; [`PULSE`] but in a test.
    pub pulse: Pulse,
    /// Where enrolment token requests go.
    pub tokens: mpsc::Sender<TokenRequest>,
}

/// A worker asks for a VM gateway enrolment token. Dropping `answer` means that none could be had.
#[derive(Debug)]
pub struct TokenRequest {
    /// The worker, as its connection registered it.
    pub worker_id: WorkerId,
    /// Closed when the worker is gone.
    pub answer: oneshot::Sender<TokenAnswer>,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The miner closes it with this code.
    Close(CloseCode),
    /// The worker closed it or the network failed.
    Gone,
}

impl End {
    /// Our close code, or "gone".
    fn label(self) -> String {
        match self {
            Self::Close(code) => code.number().to_string(),
            Self::Gone => "gone".to_owned(),
        }
    }
}

/// Counts a message that changed nothing, by the reason.
fn count_ignored(reason: &'static str) {
    metrics::counter!("worker_messages_ignored_total", "reason" => reason).increment(1);
}

/// Serves one WebSocket until its end. It is a stranger until the worker has registered.
pub(super) async fn serve<S: Stream>(
    mut socket: WebSocketStream<S>,
    peer: Peer,
    desk: Desk,
    stop: CancellationToken,
    stranger: Stranger,
) {
    let first = tokio::select! {
        () = stop.cancelled() => Err(End::Close(CloseCode::Normal)),
        first = tokio::time::timeout(REGISTRATION_TIMEOUT, registration(&mut socket, peer)) => {
            first.unwrap_or(Err(End::Close(CloseCode::Normal)))
        }
    };
    drop(stranger);
    let end = match first {
        Ok(register) => registered(&mut socket, peer, register, &desk, &stop).await,
        Err(end) => {
            tracing::debug!(peer = %peer.address, ?end, "connection ended before registration");
            end
        }
    };
    metrics::counter!("worker_connections_total", "end" => end.label()).increment(1);
    if let End::Close(code) = end {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, close(&mut socket, code)).await;
    }
}

/// Waits for the first message, which must be a valid `register`.
async fn registration<S: Stream>(socket: &mut WebSocketStream<S>, peer: Peer) -> Result<Register, End> {
    loop {
        let Some(data) = payload(socket.next().await)? else { continue };
        return match decode(data).await {
            Ok(WorkerFrame::Register(register)) => Ok(register),
            Ok(_) => Err(End::Close(CloseCode::InvalidRegistration)),
            Err(error) => {
                tracing::warn!(peer = %peer.address, %error, "registration refused");
                Err(End::Close(error.close_code()))
            }
        };
    }
}

/// From acknowledgement to the end of the connection.
async fn registered<S: Stream>(
    socket: &mut WebSocketStream<S>,
    peer: Peer,
    register: Register,
    desk: &Desk,
    stop: &CancellationToken,
) -> End {
    let worker_id = register.worker_id.clone();
    let standing = match desk.door.admit(&register, &peer).await {
        Ok(standing) => standing,
        Err(unwelcome) => {
            tracing::warn!(%worker_id, peer = %peer.address, reason = %unwelcome, "worker turned away");
            return End::Close(unwelcome.code);
        }
    };
    let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
    let (goodbye, asked_to_close) = oneshot::channel();
    let link = Link { outgoing, goodbye, address: peer.address.ip(), is_tls: peer.is_tls(), standing };
    let generation = match desk.registry.register(register, link) {
        Ok(generation) => generation,
        Err(full) => {
            tracing::warn!(%worker_id, peer = %peer.address, reason = %full, "worker refused");
            return End::Close(CloseCode::WorkerLimit);
        }
    };
    tracing::info!(%worker_id, peer = %peer.address, is_tls = peer.is_tls(), ?standing, "worker registered");
    let mut session = Session { socket, desk, worker_id: &worker_id, generation, token: None };
    let end = session.run(frames, asked_to_close, stop).await;
    desk.registry.leave(&worker_id, generation);
    tracing::info!(%worker_id, peer = %peer.address, ?end, "worker left");
    end
}

/// A registered worker's connection.
struct Session<'a, S> {
    socket: &'a mut WebSocketStream<S>,
    desk: &'a Desk,
    worker_id: &'a WorkerId,
    generation: Generation,
    /// The one token request under way.
    token: Option<oneshot::Receiver<TokenAnswer>>,
}

impl<S: Stream> Session<'_, S> {
    /// Serves the connection until it ends, and says how.
    async fn run(
        &mut self,
        mut frames: mpsc::Receiver<MinerFrame>,
        mut asked_to_close: oneshot::Receiver<CloseCode>,
        stop: &CancellationToken,
    ) -> End {
        let pulse = self.desk.pulse;
        let mut pings = tokio::time::interval_at(Instant::now() + pulse.ping_interval, pulse.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Both outlive an iteration: making them anew for each message of ten thousand workers would show.
        let mut stopped = std::pin::pin!(stop.cancelled());
        let mut silence = std::pin::pin!(tokio::time::sleep(pulse.silence_timeout));
        let mut step = self.send(&MinerFrame::RegistrationAck { data: Registered::default() }).await;
        loop {
            if let Err(end) = step {
                return end;
            }
            step = tokio::select! {
                message = self.socket.next() => {
                    silence.as_mut().reset(Instant::now() + pulse.silence_timeout);
                    self.take(message).await
                }
                Some(frame) = frames.recv() => self.send(&frame).await,
                answer = outcome(&mut self.token) => self.answer_token(answer).await,
                code = &mut asked_to_close => Err(End::Close(code.unwrap_or(CloseCode::GoingAway))),
                () = &mut stopped => Err(End::Close(CloseCode::Normal)),
                _ = pings.tick() => write(self.socket, Message::Ping(Bytes::new())).await,
                () = &mut silence => Err(End::Close(CloseCode::Internal)),
            };
        }
    }

    /// Handles one message of the worker.
    async fn take(&mut self, message: Option<Result<Message, Error>>) -> Result<(), End> {
        let Some(data) = payload(message)? else { return Ok(()) };
        if data.len() <= INLINE_DECODE_BYTES
            && let Some(report) = HeartbeatReport::glance(&data)
        {
            return self.heartbeat(report).await;
        }
        let frame = match decode(data).await {
            Ok(frame) => frame,
            Err(error) => {
                count_ignored("unreadable");
                tracing::warn!(worker_id = %self.worker_id, %error, "message of a worker ignored");
                return Ok(());
            }
        };
        let registry = &self.desk.registry;
        match frame {
            WorkerFrame::Heartbeat { data } => self.heartbeat(data.into()).await?,
            WorkerFrame::TaskResult(result) => {
                let challenge_id = result.task_id.clone();
                match registry.deliver_result(self.worker_id, self.generation, result) {
                    Delivery::Accepted => {}
                    Delivery::Unasked => {
                        count_ignored("unasked_result");
                        tracing::warn!(worker_id = %self.worker_id, %challenge_id, "result of a task that the worker does not hold");
                    }
                    Delivery::Foreign => {
                        count_ignored("foreign_result");
                        tracing::warn!(worker_id = %self.worker_id, %challenge_id, "result of another worker's task: closed");
                        return Err(End::Close(CloseCode::ForeignTask));
                    }
                }
            }
            WorkerFrame::ProofResponse { message_id, data } => {
                match registry.deliver_proof(self.worker_id, self.generation, &message_id, data) {
                    Delivery::Accepted => {}
                    Delivery::Unasked => {
                        count_ignored("unasked_proof");
                        tracing::warn!(worker_id = %self.worker_id, %message_id, "proof that the worker was not asked for");
                    }
                    Delivery::Foreign => {
                        count_ignored("foreign_proof");
                        tracing::warn!(worker_id = %self.worker_id, %message_id, "proof that another worker was asked for: closed");
                        return Err(End::Close(CloseCode::ForeignTask));
                    }
                }
            }
            WorkerFrame::VmgwEnrollTokenRequest { data } => self.ask_for_token(&data.worker_id).await?,
            WorkerFrame::Register(_) | WorkerFrame::HeartbeatResponse { .. } => {
                count_ignored("unexpected");
                tracing::debug!(worker_id = %self.worker_id, "unexpected message of a worker ignored");
            }
        }
        Ok(())
    }

    async fn heartbeat(&mut self, report: HeartbeatReport) -> Result<(), End> {
        if self.desk.registry.heartbeat(self.worker_id, self.generation, report) {
            self.send(&MinerFrame::HeartbeatAck).await?;
        }
        Ok(())
    }

    /// Passes a token request on, or answers at once why not (worker-miner spec 2.11).
    async fn ask_for_token(&mut self, named: &WorkerId) -> Result<(), End> {
        let refusal = if named != self.worker_id {
            (1002, "worker_id mismatch")
        } else if self.token.is_some() {
            (1001, "token request already in progress")
        } else if !self.desk.tokens_to_anyone && !self.desk.registry.is_authenticated(self.worker_id, self.generation) {
            tracing::warn!(worker_id = %self.worker_id, "no enrolment token for a worker that is not authenticated");
            UNAUTHENTICATED
        } else {
            let (answer, awaited) = oneshot::channel();
            let request = TokenRequest { worker_id: self.worker_id.clone(), answer };
            if self.desk.tokens.try_send(request).is_ok() {
                self.token = Some(awaited);
                return Ok(());
            }
            NO_TOKEN
        };
        self.send_token(refused(refusal)).await
    }

    async fn answer_token(&mut self, answer: Option<TokenAnswer>) -> Result<(), End> {
        self.token = None;
        self.send_token(answer.unwrap_or_else(|| refused(NO_TOKEN))).await
    }

    async fn send_token(&mut self, data: TokenAnswer) -> Result<(), End> {
        self.send(&MinerFrame::VmgwEnrollTokenResponse { data }).await
    }

    async fn send(&mut self, frame: &MinerFrame) -> Result<(), End> {
        let text = frame.encode();
        if text.len() >= MAX_MINER_FRAME_BYTES {
            // A Python worker would close the connection over it; whoever waits for an answer gets none.
            tracing::error!(worker_id = %self.worker_id, bytes = text.len(), "message too large for a worker: not sent");
            return Ok(());
        }
        write(self.socket, Message::text(text)).await
    }
}

/// The answer when the token service cannot be reached.
const NO_TOKEN: (i64, &str) = (1003, "communication service unavailable");

/// The answer over a link that nobody has proved to be the worker's alone.
const UNAUTHENTICATED: (i64, &str) = (
    1003,
    "this link is not authenticated: join this worker to its miner (byteleap-miner workers enroll --token), or set \
     worker_management.vm_tokens: any there",
);

fn refused((code, error): (i64, &str)) -> TokenAnswer {
    TokenAnswer { code, error: Some(error.to_owned()), ..TokenAnswer::default() }
}

/// The answer of a pending request; never resolves where none is pending.
async fn outcome<T>(pending: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match pending {
        Some(receiver) => receiver.await.ok(),
        None => std::future::pending().await,
    }
}

/// The content of a received message; none for what the library answers by itself.
fn payload(message: Option<Result<Message, Error>>) -> Result<Option<Bytes>, End> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text.into())),
        Some(Ok(Message::Binary(data))) => Ok(Some(data)),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(Error::Capacity(_))) => Err(End::Close(CloseCode::TooLarge)),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Err(End::Gone),
        Some(Err(Error::Protocol(_))) => Err(End::Close(CloseCode::Protocol)),
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
    }
}

async fn decode(data: Bytes) -> Result<WorkerFrame, FrameError> {
    if data.len() <= INLINE_DECODE_BYTES {
        return WorkerFrame::decode(&data);
    }
    // The blocking task fails only by a panic or at shutdown; either way there is no message.
    tokio::task::spawn_blocking(move || WorkerFrame::decode(&data)).await.unwrap_or(Err(FrameError::NotJson))
}

async fn write<S: Stream>(socket: &mut WebSocketStream<S>, message: Message) -> Result<(), End> {
    match tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(CloseCode::Internal)),
    }
}

/// Says goodbye and waits for the peer to say it too, so that it reads the code before the socket closes.
async fn close<S: Stream>(socket: &mut WebSocketStream<S>, code: CloseCode) {
    let frame = CloseFrame { code: WireCode::from(code.number()), reason: code.text().into() };
    if socket.close(Some(frame)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use byteleap_daemon::clock::SystemClock;
    use byteleap_protocol::worker_key::{Channel, Nonce};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::workers::strangers::Strangers;
    use crate::workers::{door::Policy, enrolment::BookFile};

    #[test]
    fn a_half_open_connection_is_found_within_45_s_and_a_live_one_has_time_for_a_pong() {
        assert!(PULSE.silence_timeout <= Duration::from_secs(45));
        assert!(PULSE.silence_timeout - PULSE.ping_interval >= Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_without_a_word_leaves_the_table_and_one_that_answers_pings_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock::new());
        let registry = Registry::new(2, clock.clone());
        let door = Door::open(Policy::Open, BookFile::in_directory(folder.path()), clock).expect("a door");
        let pulse = Pulse { ping_interval: Duration::from_millis(20), silence_timeout: Duration::from_millis(500) };
        let (tokens, _requests) = mpsc::channel(1);
        let desk = Desk { registry: registry.clone(), door, tokens_to_anyone: false, pulse, tokens };
        let mut ends = Vec::new();
        for worker_id in ["alive", "gone"] {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let channel = Channel { nonce: Nonce([1; 32]), exported: None };
            let peer = Peer { address: ([127, 0, 0, 1], 1).into(), channel };
            let strangers = Strangers::new();
            let place = strangers.place().await.expect("a place");
            let stranger = strangers.admit(peer.address.ip(), place).expect("room");
            let desk = desk.clone();
            tokio::spawn(async move {
                let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
                serve(socket, peer, desk, CancellationToken::new(), stranger).await;
            });
            let mut socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            let register = format!(r#"{{"type":"register","worker_id":"{worker_id}","worker_version":"1"}}"#);
            socket.send(Message::text(register)).await.expect("sent");
            socket.next().await.expect("an acknowledgement").expect("a frame");
            ends.push(socket);
        }
        let _gone = ends.pop();
        let mut alive = ends.pop().expect("the other");
        // Reading answers the pings.
        let reading = tokio::spawn(async move { while let Some(Ok(_)) = alive.next().await {} });
        let names = || registry.snapshot().into_iter().map(|worker| worker.worker_id.to_string()).collect::<Vec<_>>();
        let mut changes = registry.changes();
        while names() != ["alive"] {
            tokio::time::timeout(Duration::from_secs(20), changes.changed())
                .await
                .expect("in time")
                .expect("a registry");
        }
        assert!(!reading.is_finished());
    }
}
