//! One session with a validator, from its first frame on: leases are said at the begin, at each change and every few seconds
//! again; reports are written down before the next frame is read, so that the answer to a ping says that they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_protocol::canonical;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::meshhub::frame::{self, HubError, Received, SealedFrame};
use byteleap_protocol::meshhub::handshake::accept;
use byteleap_protocol::meshhub::order::{LeaseEntry, LeasePublish, TokenResponse};
use byteleap_protocol::meshhub::report::{Report, TokenRequest};
use byteleap_protocol::meshhub::{MAX_FRAME_BYTES, MeshWorker, MessageType};
use byteleap_protocol::session::{ReplayWindow, Session};
use futures_util::{SinkExt, StreamExt};
use rand_core::{OsRng, RngCore};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::server::Shared;
use super::{ACCESS_TOKEN, Command, Misbehaviour, TokenPolicy, book};

/// How long a validator may take to open its session.
const OPENING: Duration = Duration::from_secs(10);
/// Pause between two sayings of all leases.
const REPEAT: Duration = Duration::from_secs(2);
/// How long a token is good.
const TOKEN_LIFE_MS: i64 = 10 * 60_000;

type Socket = WebSocketStream<TcpStream>;

/// Why a session ends: for the log.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the connection ended")]
    Gone,
    #[error("no session within {} s", OPENING.as_secs())]
    Late,
    #[error("the first frame opens no session")]
    NoInit,
    #[error("the access token is wrong")]
    Token,
    #[error("the journal cannot be written: {0}")]
    Journal(#[from] std::io::Error),
    #[error("another key is to be used")]
    Key,
}

/// Serves a validator to its end.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    match tokio::time::timeout(OPENING, open(&shared, stream)).await.unwrap_or(Err(End::Late)) {
        Ok(mut talk) => {
            let end = talk.go_on().await;
            tracing::info!(%peer, validator = %talk.session.peer(), %end, "marketplace session over");
        }
        Err(end) => tracing::info!(%peer, %end, "no marketplace session"),
    }
}

async fn open(shared: &Arc<Shared>, stream: TcpStream) -> Result<Talk, End> {
    let limits =
        WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
    let mut socket = accept_async_with_config(stream, Some(limits)).await.map_err(|_| End::Gone)?;
    let init = match socket.next().await {
        Some(Ok(Message::Text(text))) => match Received::parse(&text) {
            Ok(Received::Init(init)) => init,
            _ => return Err(End::NoInit),
        },
        _ => return Err(End::Gone),
    };
    let clock = SystemClock::new();
    if !init.access_token.is(ACCESS_TOKEN) {
        let error = HubError { code: frame::code::BAD_TOKEN, message: "access token not accepted".to_owned() };
        let text = frame::plain(MessageType::Error, &error, clock.unix_ms());
        socket.send(Message::text(text)).await.map_err(|_| End::Gone)?;
        return Err(End::Token);
    }
    // Before the leases are said, so that no change falls between.
    let commands = shared.commands.subscribe();
    let (mut answer, session) = accept(&mut OsRng, &init, &shared.key()).map_err(|_| End::NoInit)?;
    if *shared.behaviour.borrow() == Misbehaviour::Unsigned {
        answer.server_signature = None;
    }
    let text = frame::plain(MessageType::SessionInitResponse, &answer, clock.unix_ms());
    socket.send(Message::text(text)).await.map_err(|_| End::Gone)?;
    shared.book().heard.sessions += 1;
    Ok(Talk { shared: Arc::clone(shared), socket, session, clock, commands })
}

struct Talk {
    shared: Arc<Shared>,
    socket: Socket,
    session: Session,
    clock: SystemClock,
    commands: tokio::sync::broadcast::Receiver<Command>,
}

impl Talk {
    async fn go_on(&mut self) -> End {
        let mut repeat = tokio::time::interval(REPEAT);
        let mut behaviour = self.shared.behaviour.subscribe();
        loop {
            let is_silent = *behaviour.borrow_and_update() == Misbehaviour::Silence;
            let done = tokio::select! {
                Ok(()) = behaviour.changed() => Ok(()),
                command = self.commands.recv() => match command {
                    Ok(command) => self.carry_out(command).await,
                    Err(_) => Ok(()),
                },
                message = self.socket.next(), if !is_silent => match message {
                    Some(Ok(message)) => self.take(message).await,
                    _ => Err(End::Gone),
                },
                _ = repeat.tick(), if !is_silent => self.say_leases().await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    // Out.

    async fn say(&mut self, kind: MessageType, message: &impl Serialize) -> Result<(), End> {
        let id = format!("{:016x}", OsRng.next_u64());
        let text = frame::seal(&self.session, kind, message, Some(&id), self.clock.unix_ms()).map_err(|_| End::Gone)?;
        self.write(text).await
    }

    async fn write(&mut self, text: String) -> Result<(), End> {
        self.socket.send(Message::text(text)).await.map_err(|_| End::Gone)
    }

    fn leases(&self) -> LeasePublish {
        let book = self.shared.book();
        let entry = |(worker, score): (&MeshWorker, &f64)| LeaseEntry { worker_key: worker.clone(), score: *score };
        LeasePublish { leases: book.leases.iter().map(entry).collect(), refused: Vec::new() }
    }

    async fn say_leases(&mut self) -> Result<(), End> {
        let leases = self.leases();
        self.say(MessageType::LeasePublish, &leases).await
    }

    async fn carry_out(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Lease { .. } => self.say_leases().await,
            Command::Config(payload) => self.say(MessageType::ConfigUpdate, &json!({ "payload": payload })).await,
            Command::Task(task) => self.say(MessageType::TaskPublish, &task).await,
            Command::Misbehave(behaviour) => self.misbehave(behaviour).await,
            Command::Forget { .. } | Command::Tokens(_) | Command::Down | Command::Up => Ok(()),
        }
    }

    async fn misbehave(&mut self, behaviour: Misbehaviour) -> Result<(), End> {
        let kind = MessageType::LeasePublish;
        let leases = self.leases();
        let all = |score: f64| LeasePublish {
            leases: leases.leases.iter().map(|lease| LeaseEntry { score, ..lease.clone() }).collect(),
            refused: Vec::new(),
        };
        match behaviour {
            Misbehaviour::None | Misbehaviour::Silence => Ok(()),
            Misbehaviour::WrongKey | Misbehaviour::Unsigned => Err(End::Key),
            Misbehaviour::Replay => {
                let text = frame::seal(&self.session, kind, &leases, None, self.clock.unix_ms());
                let text = text.map_err(|_| End::Gone)?;
                self.write(text.clone()).await?;
                self.write(text).await
            }
            Misbehaviour::BadSequence => {
                let far = u64::MAX - ReplayWindow::SIZE;
                let package = self.session.outgoing().seal(far, kind.name(), &canonical::sorted(&leases));
                let frame = json!({ "type": kind.name(), "timestamp": self.clock.unix_ms(), "encrypted": {
                    "version": package.ver,
                    "sessionId": package.session_id,
                    "sequence": package.seq,
                    "ciphertext": package.ciphertext,
                    "sender": package.sender,
                    "recipient": package.recipient,
                    "messageType": package.synapse_type,
                }});
                self.write(frame.to_string()).await
            }
            Misbehaviour::WrongType => {
                let text = frame::seal(&self.session, kind, &leases, None, self.clock.unix_ms());
                let text = text.map_err(|_| End::Gone)?;
                self.write(text.replacen(kind.name(), MessageType::TaskPublish.name(), 1)).await
            }
            Misbehaviour::InfiniteScore => self.say(kind, &all(f64::INFINITY)).await,
            Misbehaviour::NegativeScore => self.say(kind, &all(-1.0)).await,
            Misbehaviour::UnknownWorker => {
                let worker_id = "nobody".parse().map_err(|_| End::Gone)?;
                let worker_key = MeshWorker { hotkey: Hotkey([0xee; 32]), worker_id };
                let leases = vec![LeaseEntry { worker_key, score: 1.0 }];
                self.say(kind, &LeasePublish { leases, refused: Vec::new() }).await
            }
            Misbehaviour::Malformed => self.write("{\"type\":".to_owned()).await,
        }
    }

    // In.

    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => match Received::parse(&text) {
                Ok(Received::Sealed(frame)) => self.take_frame(&frame).await,
                _ => self.refuse(),
            },
            Message::Close(_) => Err(End::Gone),
            Message::Binary(_) => self.refuse(),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn refuse(&self) -> Result<(), End> {
        self.shared.book().heard.refused += 1;
        Ok(())
    }

    async fn take_frame(&mut self, frame: &SealedFrame) -> Result<(), End> {
        let Ok(message) = frame.open(&self.session) else { return self.refuse() };
        let Ok(report) = Report::read(frame.kind, message) else { return self.refuse() };
        match report {
            Report::Heartbeat(_) => self.shared.book().heard.heartbeats += 1,
            Report::Resources(report) => self.shared.book().heard.note_resources(&report),
            Report::Scores(report) => {
                let journal = self.shared.book().journal();
                book::write_down(&journal, &report).await?;
                self.shared.book().heard.note_scores(&report);
            }
            Report::Ack(ack) => self.shared.book().heard.note_ack(ack),
            Report::TokenRequest(request) => {
                let answer = self.token(request);
                self.say(MessageType::TokenResponse, &answer).await?;
            }
        }
        Ok(())
    }

    fn token(&self, request: TokenRequest) -> TokenResponse {
        let mut book = self.shared.book();
        let answer = TokenResponse { request_id: request.request_id, ..TokenResponse::default() };
        match book.tokens {
            TokenPolicy::Issue => {
                book.heard.tokens += 1;
                TokenResponse {
                    token: Some(format!("localnet-token-{:016x}", OsRng.next_u64())),
                    expires_at: Some(instant(self.clock.unix_ms() + TOKEN_LIFE_MS)),
                    enrollment_url: Some("https://127.0.0.1:26560/enroll".to_owned()),
                    ..answer
                }
            }
            TokenPolicy::Pending => TokenResponse { try_again_in_sec: Some(2), ..answer },
            TokenPolicy::Refuse => TokenResponse { error_message: Some("no token".to_owned()), ..answer },
        }
    }
}

/// ISO 8601 with Z, to the second.
fn instant(unix_ms: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_ms / 1000);
    at.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}
