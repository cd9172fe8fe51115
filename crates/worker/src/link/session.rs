//! One connection, from registration to its end.
//!
//! A single task owns the socket. Everything that takes time happens elsewhere and comes back as a message: tasks end in
//! the outbox, proofs on blocking threads, samples of the machine in a watch. So pings are answered within milliseconds
//! whatever the worker computes (faults F23, F33).

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use byteleap_daemon::failpoint;
use byteleap_protocol::code::CloseCode;
use byteleap_protocol::frame::{
    FrameError, MinerFrame, ProofAnswer, ProofQuery, Register, Registered, TaskResult, WorkerFrame, WorkerHeartbeat,
};
use byteleap_protocol::id::{ChallengeId, MessageId, Unit};
use byteleap_protocol::lenient;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WebSocketError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::Link;
use super::dial::Socket;
use crate::challenge::prove::prove;
use crate::outbox::PingNumber;

/// How long the miner may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stopping worker waits for the proof request that follows a commitment, so that a restart does not cost a
/// challenge that is as good as done.
const PROOF_GRACE: Duration = Duration::from_millis(2500);

/// How long after a commitment its proof request is still expected (worker-miner spec 3.5: phase 1 takes 15 s at most).
const PROOF_EXPECTED: Duration = Duration::from_secs(15);

/// Proof requests that are answered at the same time; more are refused.
const PROOFS_AT_ONCE: usize = 16;

/// Answers to proof requests that wait to be sent, refusals included.
const PROOF_ANSWERS: usize = 2 * PROOFS_AT_ONCE;

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The miner closed it.
    Closed {
        /// Close code; none if the miner gave none.
        code: Option<u16>,
        /// Its text.
        text: String,
    },
    /// The network or the protocol failed.
    Lost(String),
    /// The miner does not answer, or takes nothing more in.
    Silent,
    /// The miner sent more than a worker takes in one message.
    TooLarge,
    /// The worker stops.
    Stopped,
}

impl End {
    /// Whether the miner may not have noticed the end.
    #[must_use]
    pub fn is_unclean(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Silent)
    }

    /// Whether the miner closed with this code.
    pub(super) fn is_close(&self, code: CloseCode) -> bool {
        matches!(self, Self::Closed { code: Some(closed), .. } if *closed == code.number())
    }

    fn of_error(error: &WebSocketError) -> Self {
        match error {
            WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            other => Self::Lost(other.to_string()),
        }
    }

    /// How this side closes a connection that ends so; `None` where the other side has closed it or is gone.
    fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed { .. } | Self::Lost(_) => None,
            Self::Silent => Some(CloseCode::Internal),
            Self::TooLarge => Some(CloseCode::TooLarge),
            Self::Stopped => Some(CloseCode::Normal),
        }
    }
}

/// What happened, and what an operator can do about it.
impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { code: None, .. } => out.write_str("the miner closed the connection"),
            Self::Closed { code: Some(code), text } => {
                write!(out, "the miner closed the connection with {code} {text:?}{}", advice(*code, text))
            }
            Self::Lost(error) => write!(out, "the connection was lost: {error}"),
            Self::Silent => out.write_str("the miner gives no answer"),
            Self::TooLarge => out.write_str("the miner sent a message above 1 MiB"),
            Self::Stopped => out.write_str("the worker stops"),
        }
    }
}

/// The meaning of a close code (worker-miner spec 1.5) where its text does not say it.
fn advice(code: u16, text: &str) -> &'static str {
    let is = |known: CloseCode| known.number() == code;
    if is(CloseCode::GoingAway) && text == CloseCode::GoingAway.text() {
        ": another connection with the same worker_id took over, or heartbeats were missed; if two hosts share an \
         identity (a cloned image), set worker_id on one of them"
    } else if is(CloseCode::InvalidRegistration) {
        ": the miner does not accept this worker's registration; check worker_name, and that both are up to date"
    } else if is(CloseCode::InvalidWorkerId) {
        ": set worker_id to a text that is not blank"
    } else if is(CloseCode::WorkerLimit) {
        ": the miner serves as many workers as it may (worker_management.max_workers of miner_config.yaml)"
    } else if is(CloseCode::NotProved) {
        ": the miner knows this worker_id by another key, or this key by another worker_id: restore worker_key in state_dir, \
         set worker_id, or let the miner's operator revoke the old one (byteleap-miner workers revoke)"
    } else if is(CloseCode::NotEnrolled) {
        ": the miner serves enrolled workers only, or has revoked this one: ask its operator for a join token, or to enrol \
         the key that byteleap-worker status shows"
    } else if is(CloseCode::JoinRefused) {
        ": the join token was used, has expired or is another miner's: ask for a new one and run byteleap-worker join again"
    } else if is(CloseCode::ForeignTask) {
        ": the miner gave that task to another worker, or to this one at another address; an enrolled worker keeps its \
         results wherever it is: ask for a join token"
    } else {
        ""
    }
}

/// Counts how long a challenge took on a hop: from its receipt to its commitment, from there to its proof.
fn observe(hop: &'static str, ms: Option<i64>) {
    if let Some(ms) = ms {
        metrics::histogram!("worker_hop_seconds", "hop" => hop).record(ms as f64 / 1000.0);
    }
}

/// The answer to a proof request.
#[derive(Debug)]
struct Proof {
    /// The challenge, if the request could be read.
    challenge_id: Option<ChallengeId>,
    /// Why it is incomplete.
    failed: Option<String>,
    /// The frame: 8 MB for eight GPUs, so it is not written where pings are answered.
    text: String,
}

impl Proof {
    fn new(challenge_id: Option<ChallengeId>, message_id: MessageId, answer: ProofAnswer) -> Self {
        let failed = answer.error.clone();
        Self { challenge_id, failed, text: WorkerFrame::ProofResponse { message_id, data: answer }.encode() }
    }
}

/// A registered connection.
#[derive(Debug)]
pub struct Session<'link> {
    link: &'link Link,
    socket: Socket,
    key_proved: bool,
    /// Proof requests under way.
    proofs: JoinSet<Proof>,
    /// Commitments sent on this connection and not proved yet, and when.
    unproved: HashMap<ChallengeId, Instant>,
    last_ping: PingNumber,
    /// When the oldest unanswered ping went out, and its number.
    unanswered: Option<(PingNumber, Instant)>,
}

impl<'link> Session<'link> {
    /// Sends the registration and waits for the acknowledgement. A connection that does not get it is closed (F11).
    ///
    /// # Errors
    /// How the connection ended instead.
    pub async fn register(link: &'link Link, socket: Socket, register: Register) -> Result<Self, End> {
        let mut session = Self {
            link,
            socket,
            key_proved: register.identity.is_some(),
            proofs: JoinSet::new(),
            unproved: HashMap::new(),
            last_ping: 0,
            unanswered: None,
        };
        let acknowledged = async {
            session.send(&WorkerFrame::Register(register)).await?;
            loop {
                let message = session.socket.next().await;
                if let Some(MinerFrame::RegistrationAck { .. }) = session.frame_of(message)? {
                    return Ok(());
                }
            }
        };
        let end = match tokio::time::timeout(link.timing.registration_timeout, acknowledged).await {
            Ok(Ok(())) => return Ok(session),
            Ok(Err(end)) => end,
            Err(_) => End::Silent,
        };
        session.end(&end).await;
        Err(end)
    }

    /// Whether the registration proved the worker's key.
    #[must_use]
    pub fn is_key_proved(&self) -> bool {
        self.key_proved
    }

    /// Closes with 1000.
    pub async fn close(mut self) {
        self.end(&End::Stopped).await;
    }

    /// Serves the connection until it ends; after `stop`, until no task is held, all results are sent, and what was
    /// committed to is proved or [`PROOF_GRACE`] over.
    pub async fn serve(mut self, stop: &CancellationToken) -> End {
        let end = match self.serve_until_end(stop).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        };
        self.end(&end).await;
        end
    }

    async fn serve_until_end(&mut self, stop: &CancellationToken) -> Result<(), End> {
        let link = self.link;
        let mut heartbeats = tokio::time::interval(link.timing.heartbeat_interval);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ping_interval = link.timing.ping_interval;
        let mut pings = tokio::time::interval_at(Instant::now() + ping_interval, ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wound_down = std::pin::pin!(async {
            stop.cancelled().await;
            link.runner.idle().await;
        });
        let mut leave_at = None;
        // Before the first heartbeat: it tells the miner which tasks are still held, and a result is more than that.
        self.send_results().await?;
        while leave_at.is_none() || self.expects_proof_request() {
            let pong_due = self.unanswered.map(|(_, since)| since + link.timing.ping_timeout);
            tokio::select! {
                message = self.socket.next() => self.take(message).await?,
                _ = heartbeats.tick() => self.send_heartbeat().await?,
                // The miner learns at once that nothing is offered any more, or again.
                () = link.runner.drain().changed() => self.send_heartbeat().await?,
                () = link.outbox.added() => self.send_results().await?,
                Some(Ok(proof)) = self.proofs.join_next() => self.send_proof(proof).await?,
                _ = pings.tick() => self.ping().await?,
                () = at(pong_due) => return Err(End::Silent),
                () = &mut wound_down, if leave_at.is_none() => {
                    self.send_results().await?;
                    leave_at = Some(Instant::now() + PROOF_GRACE);
                }
                () = at(leave_at) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether a commitment was sent a short while ago whose rows were not asked for yet.
    fn expects_proof_request(&self) -> bool {
        !self.proofs.is_empty() || self.unproved.values().any(|sent| sent.elapsed() < PROOF_EXPECTED)
    }

    /// Handles one message of the miner.
    async fn take(&mut self, message: Option<Result<Message, WebSocketError>>) -> Result<(), End> {
        match self.frame_of(message)? {
            Some(MinerFrame::TaskAssignment { data }) => self.link.runner.assign(data),
            Some(MinerFrame::ProofRequest { message_id, data }) => self.prove(message_id, data),
            Some(MinerFrame::HeartbeatRequest { message_id }) => {
                let worker_id = self.link.identity.worker_id.clone();
                let timestamp = self.timestamp_s();
                self.send(&WorkerFrame::HeartbeatResponse { worker_id, timestamp, message_id }).await?;
            }
            Some(MinerFrame::Feedback { data }) => self.link.told.keep(data),
            Some(
                MinerFrame::RegistrationAck { .. }
                | MinerFrame::HeartbeatAck
                | MinerFrame::VmgwEnrollTokenResponse { .. },
            )
            | None => {}
        }
        Ok(())
    }

    /// The frame of a message, if it has one that can be used. Pongs and faulty messages end here.
    fn frame_of(&mut self, message: Option<Result<Message, WebSocketError>>) -> Result<Option<MinerFrame>, End> {
        let payload: Bytes = match message {
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Pong(payload))) => {
                self.pong(&payload);
                return Ok(None);
            }
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => return Ok(None),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.as_ref().map(|frame| frame.code.into());
                let text = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                return Err(End::Closed { code, text });
            }
            Some(Err(error)) => return Err(End::of_error(&error)),
            None => return Err(End::Lost("the stream ended".to_owned())),
        };
        match MinerFrame::decode(&payload) {
            Ok(frame) => Ok(Some(frame)),
            Err(FrameError::Invalid { kind: "registration_ack", .. }) => {
                // Its type alone acknowledges (worker-miner spec 2.4).
                Ok(Some(MinerFrame::RegistrationAck { data: Registered::default() }))
            }
            Err(error) => {
                self.take_unusable(&payload, &error);
                Ok(None)
            }
        }
    }

    /// Passes over a message that cannot be used; but whoever waits for an answer to it gets one, if it can be named.
    fn take_unusable(&mut self, payload: &[u8], error: &FrameError) {
        match error {
            FrameError::UnknownType(_) => tracing::debug!(%error, "message of the miner passed over"),
            _ => tracing::warn!(%error, "message of the miner cannot be used"),
        }
        let FrameError::Invalid { kind, .. } = error else { return };
        let Some(names) = names_in(payload) else { return };
        match (*kind, names) {
            ("task_assignment", Names { task_id: Some(task_id), .. }) => {
                self.link.runner.refuse_unreadable(task_id, &error.to_string());
            }
            ("proof_request", Names { message_id: Some(message_id), .. }) => {
                self.refuse_proof(message_id, error.to_string());
            }
            _ => {}
        }
    }

    /// Opens rows, and lets GPUs show their numbers, on a blocking thread.
    fn prove(&mut self, message_id: MessageId, query: ProofQuery) {
        let (cache, gpus, clock) = (self.link.cache.clone(), self.link.gpus.clone(), self.link.clock.clone());
        let received_ts = clock.unix_ms();
        let challenge_id = query.challenge_id.clone();
        tracing::info!(%challenge_id, "proof requested");
        if self.proofs.len() >= PROOFS_AT_ONCE {
            return self.refuse_proof(message_id, format!("{PROOFS_AT_ONCE} proof requests are being answered"));
        }
        self.proofs.spawn_blocking(move || {
            let answer = prove(&cache, &gpus, &query, clock.monotonic(), received_ts, || clock.unix_ms());
            if let Some(reason) = &answer.error {
                tracing::warn!(%challenge_id, reason, "proof incomplete");
            }
            for request in query.requests {
                if let Unit::Gpu(gpu) = request.uuid {
                    gpus.release_later(gpu);
                }
            }
            metrics::counter!("worker_proofs_total", "success" => answer.success.to_string()).increment(1);
            Proof::new(Some(challenge_id), message_id, answer)
        });
    }

    /// Answers a proof request with the reason why nothing is opened; a miner that floods gets no answer.
    fn refuse_proof(&mut self, message_id: MessageId, reason: String) {
        if self.proofs.len() < PROOF_ANSWERS {
            let answer = ProofAnswer::failed(reason);
            self.proofs.spawn(async { Proof::new(None, message_id, answer) });
        }
    }

    async fn send_proof(&mut self, proof: Proof) -> Result<(), End> {
        failpoint::reach("worker.proof.before");
        self.write(Message::text(proof.text)).await?;
        failpoint::reach("worker.proof.after");
        if let Some(challenge_id) = proof.challenge_id {
            let now_ms = self.link.clock.unix_ms();
            self.link.runner.record().note(&challenge_id, |known| {
                let asked_ms = known.sent_at_ms.map(|sent_at_ms| (now_ms - sent_at_ms).max(0));
                observe("prove", asked_ms);
                known.proved_at_ms = Some(now_ms);
                known.proof_failed = proof.failed;
            });
            self.unproved.remove(&challenge_id);
        }
        Ok(())
    }

    async fn send_heartbeat(&mut self) -> Result<(), End> {
        let held = self.link.runner.held_count();
        let gpus = &self.link.gpus;
        let data = WorkerHeartbeat {
            status: Some(if held == 0 { "online" } else { "busy" }.to_owned()),
            active_tasks: Some(held as i64),
            system_info: gpus.put_into(self.link.system_info.borrow().clone()),
            gpu_info: Some(gpus.summary()),
            capabilities: Some(self.link.capabilities()),
        };
        self.send(&WorkerFrame::Heartbeat { data }).await
    }

    /// Sends what the outbox holds, and a ping behind it whose pong proves that it arrived.
    async fn send_results(&mut self) -> Result<(), End> {
        let results = self.link.outbox.take_unsent(self.link.clock.monotonic(), self.last_ping + 1);
        if results.is_empty() {
            return Ok(());
        }
        for finished in results {
            let (task_id, is_success) = (finished.task_id.clone(), finished.outcome.success);
            let result = TaskResult {
                worker_id: self.link.identity.worker_id.to_string(),
                task_id: finished.task_id,
                timestamp: self.timestamp_s(),
                data: finished.outcome,
            };
            failpoint::reach("worker.send.before");
            self.send(&WorkerFrame::TaskResult(result)).await?;
            failpoint::reach("worker.send.after");
            tracing::info!(challenge_id = %task_id, is_success, "result sent");
            let now_ms = self.link.clock.unix_ms();
            self.link.runner.record().note(&task_id, |known| {
                observe("commit", Some((now_ms - known.received_at_ms).max(0)));
                known.sent_at_ms = Some(now_ms);
            });
            if is_success {
                self.unproved.retain(|_, sent| sent.elapsed() < PROOF_EXPECTED);
                self.unproved.insert(task_id, Instant::now());
            }
        }
        self.ping().await
    }

    async fn ping(&mut self) -> Result<(), End> {
        self.last_ping += 1;
        self.unanswered.get_or_insert((self.last_ping, Instant::now()));
        self.write(Message::Ping(Bytes::copy_from_slice(&self.last_ping.to_be_bytes()))).await
    }

    /// A pong answers its ping and all earlier ones; a later one has its full time from now. Pongs that nobody asked for
    /// say nothing.
    fn pong(&mut self, payload: &[u8]) {
        let Ok(number) = payload.try_into().map(PingNumber::from_be_bytes) else { return };
        if number > self.last_ping {
            return;
        }
        self.link.outbox.received(number);
        if self.unanswered.is_some_and(|(oldest, _)| oldest <= number) {
            self.unanswered = (number < self.last_ping).then(|| (number + 1, Instant::now()));
        }
    }

    async fn send(&mut self, frame: &WorkerFrame) -> Result<(), End> {
        self.write(Message::text(frame.encode())).await
    }

    async fn write(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(self.link.timing.peer_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::of_error(&error)),
            Err(_) => Err(End::Silent),
        }
    }

    /// Completes the closing handshake, as far as the miner takes part in it.
    async fn end(&mut self, end: &End) {
        let closing = async {
            if let Some(code) = end.close_code() {
                let frame = CloseFrame { code: code.number().into(), reason: close_text(code).into() };
                if self.socket.close(Some(frame)).await.is_err() {
                    return;
                }
            }
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        // A miner that takes no part is left alone: dropping the socket ends the connection.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    fn timestamp_s(&self) -> f64 {
        self.link.clock.unix_ms() as f64 / 1000.0
    }
}

/// The text of a close that this side begins: an orderly one has none.
fn close_text(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal => "",
        other => other.text(),
    }
}

/// What an unusable message names.
struct Names {
    task_id: Option<ChallengeId>,
    message_id: Option<MessageId>,
}

/// The names in a message that is at least an object.
fn names_in(payload: &[u8]) -> Option<Names> {
    let Value::Object(message) = lenient::parse(std::str::from_utf8(payload).ok()?).ok()? else { return None };
    let task_id = message.get("data").and_then(|data| data.get("task_id")?.as_str());
    Some(Names {
        task_id: task_id.and_then(|text| ChallengeId::new(text).ok()),
        message_id: message.get("message_id").and_then(|text| MessageId::new(text.as_str()?).ok()),
    })
}

/// Waits until a moment; for ever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loss_that_the_miner_may_not_have_noticed_is_unclean() {
        assert!(End::Lost("reset".to_owned()).is_unclean());
        assert!(End::Silent.is_unclean());
        assert!(!End::TooLarge.is_unclean());
        assert!(!End::Closed { code: Some(1001), text: String::new() }.is_unclean());
    }

    #[test]
    fn a_replaced_worker_is_told_about_shared_identities() {
        let end = End::Closed { code: Some(1001), text: "Connection replaced".to_owned() };
        assert!(end.to_string().contains("set worker_id"), "{end}");
        let shutdown = End::Closed { code: Some(1001), text: String::new() };
        assert!(!shutdown.to_string().contains("worker_id"), "{shutdown}");
    }
}
