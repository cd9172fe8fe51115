//! The one connection to the marketplace: dialled, opened, served, and after a pause dialled again (validator spec 7.10).
//!
//! Messages go out in a session alone. A report is followed by a ping whose pong proves that it was read
//! ([`byteleap_protocol::meshhub`]): a round counts as told then and not before. Whoever answers has to be who answered the
//! first time; every wait has a deadline; nothing that a message says ends more than that message, but a marketplace that
//! declares the session lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::tasks;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::meshhub::frame::{self, HubError, Received, SealedFrame};
use byteleap_protocol::meshhub::handshake::{Identity, Opening, OpeningError, SessionInitResponse};
use byteleap_protocol::meshhub::order::{Order, TokenResponse};
use byteleap_protocol::meshhub::report::{AckStatus, Heartbeat, Statistics, TokenRequest};
use byteleap_protocol::meshhub::{MessageType, VERSION_PREFIX};
use byteleap_protocol::session::Session;
use futures_util::{SinkExt, StreamExt};
use rand_core::{OsRng, RngCore};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::Bytes;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::dial::{DialError, Socket, dial};
use super::orders::{Orders, ack};
use super::resources::Told;
use super::status::{Board, State};
use super::tokens::Asked;
use super::{HubSettings, scores};
use crate::store::hub::HubFact;
use crate::store::round::RoundKey;
use crate::store::{Store, StoreError};

/// The version that we name.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Pause before the second attempt; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Requests for tokens under way at once.
const MAX_ASKED: usize = 64;

/// How long each wait may take, and how often we look.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From the name to the open WebSocket.
    pub dial: Duration,
    /// From our first frame to the session.
    pub handshake: Duration,
    /// Until a frame is written.
    pub write: Duration,
    /// Until a ping is answered.
    pub answer: Duration,
    /// Between pings.
    pub ping: Duration,
    /// Between looks for rounds that are to be told.
    pub rounds: Duration,
    /// Until a connection that we close is closed.
    pub close: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            write: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            rounds: Duration::from_secs(1),
            close: Duration::from_secs(2),
        }
    }
}

/// What the connection is built from.
#[derive(Debug)]
pub struct Link {
    /// How to reach and treat the marketplace.
    pub settings: HubSettings,
    /// Deadlines and pauses.
    pub timing: Timing,
    /// Who we are.
    pub own: Hotkey,
    /// What is told, and what was told.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What becomes of its messages.
    pub orders: Orders,
    /// What operators see.
    pub board: Board,
}

/// How a connection, or an attempt at one, ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the marketplace does not open a session within {} s", .0.as_secs())]
    NoSession(Duration),
    #[error("the marketplace does not answer as it should: {0}")]
    Handshake(String),
    #[error("the marketplace refuses: {} (code {}){}", .0.message, .0.code, advice(.0))]
    Refused(HubError),
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error(
        "the marketplace is {found}, and was {expected} at first use: if it has a new key, write\n  meshhub.server_hotkey: \
         {found}"
    )]
    WrongServer { expected: Hotkey, found: Hotkey },
    #[error("the marketplace says it is {0} and does not prove it, as it did before: somebody may stand between")]
    Unsigned(Hotkey),
    #[error("the marketplace closed the connection")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the marketplace takes nothing in, or does not answer")]
    Silent,
    #[error("the session's numbers are used up")]
    Exhausted,
    #[error("the database does not answer")]
    Store(#[from] StoreError),
    #[error("the validator stops")]
    Stopped,
}

fn advice(error: &HubError) -> &'static str {
    if error.code == frame::code::BAD_TOKEN { ": check meshhub.access_token" } else { "" }
}

impl Link {
    /// Keeps the connection until `stop`. Requests for tokens come by `asked`.
    pub async fn run(self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let (end, was_ready) = self.attempt(&mut asked, &stop).await;
            if stop.is_cancelled() {
                self.board.moved(State::Disconnected, Some(End::Stopped.to_string()), self.clock.unix_ms());
                return;
            }
            if let Err(error) = self.count_waiting().await {
                tracing::debug!(%error, "the database does not tell which rounds wait for the marketplace");
            }
            failures = if was_ready { 0 } else { failures + 1 };
            let pause = self.pause(failures);
            let reason = tasks::chain(&end);
            self.board.moved(State::Disconnected, Some(reason.clone()), self.clock.unix_ms());
            metrics::counter!("marketplace_connections_total", "outcome" => if was_ready { "ended" } else { "failed" })
                .increment(1);
            match end {
                End::WrongServer { .. } | End::Unsigned(_) | End::Opening(_) | End::Refused(_) => {
                    tracing::error!(reason, pause_ms = pause.as_millis(), "no session with the marketplace");
                }
                _ => tracing::warn!(reason, pause_ms = pause.as_millis(), "no connection to the marketplace"),
            }
            let over = tokio::time::sleep(pause);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = &mut over => break,
                    // Dropped at once, so that the miner goes on to another validator.
                    Some(_) = asked.recv() => {}
                }
            }
        }
    }

    /// Twice as long for each failure in a row, up to half as much added at random, at most the longest.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let pause = doubled.min(self.settings.longest_pause);
        let share = f64::from(OsRng.next_u32()) / f64::from(u32::MAX);
        (pause + pause.mul_f64(0.5 * share)).min(self.settings.longest_pause)
    }

    /// One connection from its first byte to its last; whether there was a session.
    async fn attempt(&self, asked: &mut mpsc::Receiver<Asked>, stop: &CancellationToken) -> (End, bool) {
        let opened = tokio::select! {
            () = stop.cancelled() => return (End::Stopped, false),
            opened = self.open() => opened,
        };
        let (socket, session) = match opened {
            Ok(opened) => opened,
            Err(end) => return (end, false),
        };
        let server = session.peer();
        self.board.note(|status| status.server = Some(server));
        self.board.moved(State::Ready, None, self.clock.unix_ms());
        metrics::counter!("marketplace_connections_total", "outcome" => "opened").increment(1);
        tracing::info!(url = %self.settings.url, %server, session = %session.id(), "session with the marketplace");
        let mut talk = Talk {
            link: self,
            socket,
            session,
            told: Told::default(),
            last_ping: 0,
            unanswered: VecDeque::new(),
            asked: HashMap::new(),
        };
        let end = talk.serve(asked, stop).await;
        // A peer that is gone does not hold us up.
        let _ = tokio::time::timeout(self.timing.close, talk.socket.close(None)).await;
        (end, true)
    }

    async fn open(&self) -> Result<(Socket, Session), End> {
        self.board.moved(State::Handshaking, None, self.clock.unix_ms());
        let mut socket = dial(&self.settings.url, self.timing.dial).await?;
        let opening = tokio::time::timeout(self.timing.handshake, self.shake_hands(&mut socket)).await;
        let session = opening.map_err(|_| End::NoSession(self.timing.handshake))??;
        Ok((socket, session))
    }

    async fn shake_hands(&self, socket: &mut Socket) -> Result<Session, End> {
        let identity = Identity {
            hotkey: self.own,
            token: self.settings.token.clone(),
            version: VERSION.to_owned(),
            capabilities: self.settings.capabilities.clone(),
        };
        let opening = Opening::new(&mut OsRng, &identity);
        let init = frame::plain(MessageType::SessionInit, opening.init(), self.clock.unix_ms());
        socket.send(Message::text(init)).await.map_err(lost)?;
        let answer = loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => match Received::parse(&text) {
                    Ok(Received::InitResponse(answer)) => break answer,
                    Ok(Received::Error(error)) => return Err(End::Refused(error)),
                    Ok(_) => return Err(End::Handshake("another message than an answer".to_owned())),
                    Err(error) => return Err(End::Handshake(error.to_string())),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) | None => return Err(End::Closed),
                Some(Err(error)) => return Err(lost(error)),
            }
        };
        self.recognise(&answer).await?;
        let session = opening.finish(&answer)?;
        self.remember(&answer).await?;
        Ok(session)
    }

    /// Whether who answers is who answered the first time, and proves it if it did then.
    async fn recognise(&self, answer: &SessionInitResponse) -> Result<(), End> {
        let found = answer.server_hotkey;
        let remembered = self.store.hub_fact(HubFact::ServerHotkey).await?.and_then(|hotkey| hotkey.parse().ok());
        let expected: Option<Hotkey> = self.settings.server.or(remembered);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(End::WrongServer { expected, found });
        }
        let signs = self.store.hub_fact(HubFact::ServerSigns).await?;
        let has_to_sign = signs.is_some_and(|hotkey| hotkey == found.to_string());
        if has_to_sign && answer.server_signature.is_none() {
            return Err(End::Unsigned(found));
        }
        Ok(())
    }

    /// Shows how many rounds the marketplace has not read; the newest that it has.
    async fn count_waiting(&self) -> Result<Option<RoundKey>, StoreError> {
        let read = self.read_round().await?;
        if let Some(read) = read {
            let waiting = self.store.rounds_after(read).await?;
            self.board.note(|status| status.rounds_waiting = waiting);
            metrics::gauge!("marketplace_rounds_waiting").set(waiting as f64);
        }
        Ok(read)
    }

    /// The newest round that the marketplace has read; at first use, the one before our newest. None while there is none.
    async fn read_round(&self) -> Result<Option<RoundKey>, StoreError> {
        let read = self.store.hub_fact(HubFact::ReportedRound).await?;
        if let Some(key) = read.and_then(|key| key.parse().ok()) {
            return Ok(Some(RoundKey(key)));
        }
        let Some(newest) = self.store.latest_round().await? else { return Ok(None) };
        let before = RoundKey(newest.key.0 - 1);
        // Written down, so that the newest of now is told even if newer ones come before it was read.
        self.round_was_read(before).await?;
        Ok(Some(before))
    }

    async fn round_was_read(&self, round: RoundKey) -> Result<(), StoreError> {
        self.store.set_hub_fact(HubFact::ReportedRound, &round.0.to_string(), self.clock.unix_ms()).await
    }

    /// Pins a marketplace at its first use.
    async fn remember(&self, answer: &SessionInitResponse) -> Result<(), StoreError> {
        let (hotkey, now_ms) = (answer.server_hotkey.to_string(), self.clock.unix_ms());
        let mut facts = vec![HubFact::ServerHotkey];
        facts.extend(answer.server_signature.map(|_| HubFact::ServerSigns));
        for fact in facts {
            if self.store.hub_fact(fact).await?.as_deref() != Some(&hotkey) {
                tracing::info!(server = %hotkey, ?fact, "the marketplace is remembered by this");
                self.store.set_hub_fact(fact, &hotkey, now_ms).await?;
            }
        }
        Ok(())
    }
}

fn lost(error: WebSocketError) -> End {
    match error {
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => End::Closed,
        other => End::Lost(other.to_string()),
    }
}

/// A ping that is not answered yet, and what its answer proves.
#[derive(Debug)]
struct Unanswered {
    number: u64,
    sent: Instant,
    /// The round whose report precedes it.
    round: Option<RoundKey>,
}

/// A session under way.
struct Talk<'a> {
    link: &'a Link,
    socket: Socket,
    session: Session,
    told: Told,
    last_ping: u64,
    unanswered: VecDeque<Unanswered>,
    /// Requests for tokens, by their id.
    asked: HashMap<String, oneshot::Sender<TokenResponse>>,
}

impl Talk<'_> {
    async fn serve(&mut self, asked: &mut mpsc::Receiver<Asked>, stop: &CancellationToken) -> End {
        let mut heartbeat = every(self.link.settings.heartbeat);
        let mut resources = every(self.link.settings.resources);
        let mut rounds = every(self.link.timing.rounds);
        let mut ping = every(self.link.timing.ping);
        loop {
            let oldest = self.unanswered.front().map(|ping| ping.sent + self.link.timing.answer);
            let silent = async {
                match oldest {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            // In this order, so that a session begins with a sign of life, everybody, and a round; none of what ticks
            // starves what comes in.
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => Err(End::Stopped),
                () = silent => Err(End::Silent),
                _ = heartbeat.tick() => self.tell_life().await,
                _ = resources.tick() => self.tell_resources().await,
                _ = rounds.tick() => self.tell_round().await,
                _ = ping.tick() => self.ping(None).await,
                message = self.socket.next() => self.take(message).await,
                Some(request) = asked.recv() => self.ask(request).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    // Out.

    async fn send(&mut self, kind: MessageType, message: &impl Serialize) -> Result<(), End> {
        let text = frame::seal(&self.session, kind, message, None, self.link.clock.unix_ms());
        let text = text.map_err(|_| End::Exhausted)?;
        self.write(Message::text(text)).await?;
        metrics::counter!("marketplace_messages_total", "direction" => "out", "type" => kind.name()).increment(1);
        Ok(())
    }

    async fn write(&mut self, message: Message) -> Result<(), End> {
        let written = tokio::time::timeout(self.link.timing.write, self.socket.send(message)).await;
        written.map_err(|_| End::Silent)?.map_err(lost)
    }

    async fn ping(&mut self, round: Option<RoundKey>) -> Result<(), End> {
        self.last_ping += 1;
        let number = self.last_ping;
        self.unanswered.push_back(Unanswered { number, sent: Instant::now(), round });
        self.write(Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))).await
    }

    async fn tell_life(&mut self) -> Result<(), End> {
        let (store, now_ms) = (&self.link.store, self.link.clock.unix_ms());
        let workers = store.workers().await?;
        let miners = store.miners().await?;
        let heard = |at_ms: Option<i64>| {
            at_ms.is_some_and(|at_ms| at_ms >= now_ms - crate::store::heartbeat::MINER_DEADLINE_MS)
        };
        let tasks = self.link.board.get().tasks;
        let statistics = Statistics {
            uptime: u64::try_from(self.link.clock.monotonic().as_millis()).unwrap_or(u64::MAX),
            active_workers: workers.iter().filter(|worker| worker.deadline_at_ms >= now_ms).count() as u64,
            active_miners: miners.iter().filter(|miner| heard(miner.last_heartbeat_at_ms)).count() as u64,
            total_tasks: tasks,
            // Nothing carries tasks out yet.
            success_rate: if tasks == 0 { 1.0 } else { 0.0 },
            pending_verifications: u64::try_from(store.verification_queue(now_ms).await?.waiting).unwrap_or(0),
        };
        let version = format!("{VERSION_PREFIX}{VERSION}");
        self.send(MessageType::Heartbeat, &Heartbeat { version, statistics }).await
    }

    async fn tell_resources(&mut self) -> Result<(), End> {
        let reports = self.told.next_report(&self.link.store, self.link.clock.unix_ms()).await?;
        for report in &reports {
            self.send(MessageType::ResourceReport, report).await?;
        }
        if reports.is_empty() { Ok(()) } else { self.ping(None).await }
    }

    /// Tells the oldest round that the marketplace has not read, one at a time.
    async fn tell_round(&mut self) -> Result<(), End> {
        if self.unanswered.iter().any(|ping| ping.round.is_some()) {
            return Ok(());
        }
        let store = &self.link.store;
        let Some(mut read) = self.link.count_waiting().await? else { return Ok(()) };
        while let Some(row) = store.round_after(read).await? {
            read = row.key;
            let Ok(round) = store.whole_round(&row).await? else {
                tracing::warn!(round = read.0, "a round was forgotten before the marketplace had read it");
                metrics::counter!("marketplace_rounds_forgotten_total").increment(1);
                self.link.round_was_read(read).await?;
                continue;
            };
            for report in scores::frames(&round) {
                self.send(MessageType::ScoreReport, &report).await?;
            }
            return self.ping(Some(read)).await;
        }
        Ok(())
    }

    async fn ask(&mut self, request: Asked) -> Result<(), End> {
        self.asked.retain(|_, answer| !answer.is_closed());
        // Whoever is dropped here is told that there is no answer.
        if self.asked.len() >= MAX_ASKED {
            return Ok(());
        }
        let request_id = Uuid::new_v4().to_string();
        self.asked.insert(request_id.clone(), request.answer);
        self.send(MessageType::TokenRequest, &TokenRequest { request_id, worker_key: request.worker }).await
    }

    // In.

    async fn take(&mut self, message: Option<Result<Message, WebSocketError>>) -> Result<(), End> {
        match message {
            None | Some(Ok(Message::Close(_))) => Err(End::Closed),
            Some(Err(error)) => Err(lost(error)),
            Some(Ok(Message::Text(text))) => self.take_text(&text).await,
            Some(Ok(Message::Pong(number))) => self.take_pong(&number).await,
            Some(Ok(Message::Binary(_))) => {
                self.link.orders.refuse("frame", "binary", "a binary frame").await;
                Ok(())
            }
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Ok(()),
        }
    }

    async fn take_pong(&mut self, number: &[u8]) -> Result<(), End> {
        // A pong that answers no ping of ours proves nothing.
        let Ok(number) = <[u8; 8]>::try_from(number).map(u64::from_be_bytes) else { return Ok(()) };
        self.heard();
        let mut was_round = false;
        while let Some(ping) = self.unanswered.pop_front_if(|ping| ping.number <= number) {
            if let Some(round) = ping.round {
                self.link.round_was_read(round).await?;
                was_round = true;
            }
        }
        if was_round { self.tell_round().await } else { Ok(()) }
    }

    async fn take_text(&mut self, text: &str) -> Result<(), End> {
        let orders = &self.link.orders;
        match Received::parse(text) {
            Ok(Received::Sealed(frame)) => self.take_frame(&frame).await,
            Ok(Received::Error(error)) if error.ends_session() || error.code == frame::code::BAD_TOKEN => {
                Err(End::Refused(error))
            }
            Ok(Received::Error(error)) => {
                tracing::warn!(code = error.code, message = error.message, "the marketplace tells of an error");
                Ok(())
            }
            Ok(Received::Unknown(name)) => {
                tracing::debug!(name, "a message of a type that is not known");
                metrics::counter!("marketplace_unknown_total").increment(1);
                Ok(())
            }
            Ok(Received::Init(_) | Received::InitResponse(_)) => {
                orders.refuse("frame", "unexpected", "a handshake inside a session").await;
                Ok(())
            }
            Err(error) => {
                orders.refuse("frame", error.reason(), &error.to_string()).await;
                Ok(())
            }
        }
    }

    async fn take_frame(&mut self, frame: &SealedFrame) -> Result<(), End> {
        let (kind, orders) = (frame.kind, &self.link.orders);
        let message = match frame.open(&self.session) {
            Ok(message) => message,
            Err(error) => {
                orders.refuse(kind.name(), error.reason(), &error.to_string()).await;
                return Ok(());
            }
        };
        self.heard();
        metrics::counter!("marketplace_messages_total", "direction" => "in", "type" => kind.name()).increment(1);
        let verdict = match Order::read(kind, message) {
            Ok(Order::Leases(publish)) => {
                orders.leases(&publish).await?;
                None
            }
            Ok(Order::Config(update)) => Some(orders.config(&update).await),
            Ok(Order::Task(task)) => orders.task(&task).await,
            Ok(Order::Token(response)) => {
                if let Some(answer) = self.asked.remove(&response.request_id) {
                    // Nobody waits any more: the miner has gone on.
                    let _ = answer.send(response);
                }
                None
            }
            Err(error) => {
                orders.refuse(kind.name(), "schema", &error.to_string()).await;
                let is_answered = matches!(kind, MessageType::ConfigUpdate | MessageType::TaskPublish);
                is_answered.then(|| (AckStatus::Failed, byteleap_protocol::Object::new()))
            }
        };
        match (verdict, &frame.message_id) {
            (Some(verdict), Some(message_id)) => {
                self.send(MessageType::Ack, &ack(kind, message_id.clone(), verdict)).await
            }
            _ => Ok(()),
        }
    }

    /// Something came that was taken.
    fn heard(&self) {
        let now_ms = self.link.clock.unix_ms();
        self.link.board.note(|status| status.last_frame_at_ms = Some(now_ms));
        metrics::gauge!("marketplace_last_frame_at_seconds").set(now_ms as f64 / 1000.0);
    }
}

/// Ticks at once, and then after each pause.
fn every(pause: Duration) -> Interval {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
