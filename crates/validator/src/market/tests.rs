//! The connection against a marketplace of the test's own, over real sockets: each test plays one side of the wire.

use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::FixedChain;
use byteleap_daemon::clock::{Clock, SystemClock};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use byteleap_protocol::meshhub::frame::{self, HubError, Received};
use byteleap_protocol::meshhub::handshake::{AccessToken, accept};
use byteleap_protocol::meshhub::order::{ConfigUpdate, LeaseEntry, LeasePublish, TaskPublish, TokenResponse};
use byteleap_protocol::meshhub::report::{AckStatus, Report, ReportMode, ScoreReport};
use byteleap_protocol::meshhub::{MeshWorker, MessageType};
use byteleap_protocol::session::Session;
use byteleap_scoring::Rules;
use futures_util::{SinkExt, StreamExt};
use rand_core::OsRng;
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};
use tokio_util::sync::CancellationToken;

use super::link::{Link, Timing};
use super::orders::Orders;
use super::status::{Board, State};
use super::tokens::{Asked, Tokens};
use super::{HubSettings, LeaseRules};
use crate::score::Scorer;
use crate::store::Store;
use crate::store::heartbeat::Heartbeat;
use crate::store::hub::HubFact;
use crate::store::testing::{beat, on_both_engines, store};

const MINER: Hotkey = Hotkey([7; 32]);
const TOKEN: &str = "login";

fn hub_key() -> Keypair {
    Keypair::from_seed(&[9; 32])
}

/// A validator's connection under test.
struct Bench {
    store: Store,
    board: Board,
    tokens: Tokens,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The marketplace's listener and a validator that dials it.
async fn bench() -> (TcpListener, Bench) {
    let store = store().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = dialling(&store, &listener, Timing::default());
    (listener, bench)
}

fn dialling(store: &Store, listener: &TcpListener, timing: Timing) -> Bench {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let board = Board::new(State::Disconnected, clock.unix_ms());
    let leases = LeaseRules { taken: true, snapshot: false, max_score: None };
    let settings = HubSettings {
        url: format!("ws://{}/ws", listener.local_addr().unwrap()).parse().unwrap(),
        allow_insecure: false,
        token: AccessToken::new(TOKEN.to_owned()),
        capabilities: vec!["challenge_validation".to_owned()],
        server: None,
        longest_pause: Duration::from_millis(1),
        heartbeat: Duration::from_secs(60),
        resources: Duration::from_secs(60),
        leases,
    };
    let orders = Orders {
        store: store.clone(),
        clock: Arc::clone(&clock),
        leases,
        remote: None,
        board: board.clone(),
        unheard: Arc::default(),
    };
    let own = Keypair::from_seed(&[5; 32]).hotkey();
    let link = Link { settings, timing, own, store: store.clone(), clock, orders, board: board.clone() };
    let (tokens, asked): (Tokens, mpsc::Receiver<Asked>) = Tokens::by_hub();
    let stop = CancellationToken::new();
    let running = tokio::spawn(link.run(asked, stop.clone()));
    Bench { store: store.clone(), board, tokens, stop, running }
}

/// The marketplace's end of a session.
struct Hub {
    socket: WebSocketStream<TcpStream>,
    session: Session,
}

/// A WebSocket of the validator, and its first frame.
async fn dialled(listener: &TcpListener) -> (WebSocketStream<TcpStream>, frame::Received) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = accept_async(stream).await.unwrap();
    let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("no first frame") };
    (socket, Received::parse(&text).unwrap())
}

async fn session_as(listener: &TcpListener, key: &Keypair, signs: bool) -> Hub {
    let (mut socket, Received::Init(init)) = dialled(listener).await else { panic!("another first frame") };
    assert!(init.access_token.is(TOKEN));
    let (mut answer, session) = accept(&mut OsRng, &init, key).unwrap();
    if !signs {
        answer.server_signature = None;
    }
    socket.send(Message::text(frame::plain(MessageType::SessionInitResponse, &answer, 0))).await.unwrap();
    Hub { socket, session }
}

async fn session(listener: &TcpListener) -> Hub {
    session_as(listener, &hub_key(), true).await
}

impl Hub {
    fn sealed(&self, kind: MessageType, message: &impl Serialize) -> String {
        frame::seal(&self.session, kind, message, Some("m1"), 0).unwrap()
    }

    async fn say(&mut self, kind: MessageType, message: &impl Serialize) {
        let text = self.sealed(kind, message);
        self.write(&text).await;
    }

    async fn write(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.unwrap();
    }

    /// The validator's next message. Pings are answered by the way, once what preceded them was read.
    async fn hear(&mut self) -> Report {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let Ok(Received::Sealed(frame)) = Received::parse(&text) else { panic!("{text}") };
                    return Report::read(frame.kind, frame.open(&self.session).unwrap()).unwrap();
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The first of the next messages that is wanted.
    async fn hear_first<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.hear().await) {
                return found;
            }
        }
    }

    async fn hear_round(&mut self) -> ScoreReport {
        self.hear_first(|report| match report {
            Report::Scores(scores) if scores.miner_scores.is_some() => Some(scores),
            _ => None,
        })
        .await
    }
}

/// Waits until something holds that other tasks bring about.
async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    while !holds().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn with_a_round(store: &Store) -> i64 {
    let now_ms = SystemClock::new().unix_ms();
    let heartbeat =
        Heartbeat { hotkey: MINER, version: None, public_ip: None, workers: vec![beat("w")], at_ms: now_ms };
    store.record_heartbeat(&heartbeat).await.unwrap();
    let scorer = Scorer {
        store: store.clone(),
        chain: Arc::new(FixedChain::of(128, &[MINER])),
        netuid: 128,
        clock: Arc::new(SystemClock::new()),
        rules: Rules::default().into(),
    };
    scorer.score_once().await.unwrap().0.0
}

fn lease(worker_id: &str, score: f64) -> LeasePublish {
    let worker_key = MeshWorker { hotkey: MINER, worker_id: worker_id.parse().unwrap() };
    LeasePublish { leases: vec![LeaseEntry { worker_key, score }], refused: Vec::new() }
}

async fn scores(store: &Store) -> Vec<f64> {
    store.leases().await.unwrap().into_iter().map(|lease| lease.score).collect()
}

async fn a_session_begins_with_everybody_and_a_round_is_told_until_it_is_read() {
    let (listener, bench) = bench().await;
    let first = with_a_round(&bench.store).await;
    // The marketplace dies with the reports unread.
    let hub = session(&listener).await;
    let begun = || async { bench.store.hub_fact(HubFact::ReportedRound).await.unwrap().is_some() };
    until(begun).await;
    drop(hub);
    let second = with_a_round(&bench.store).await;
    let mut hub = session(&listener).await;
    let full = hub
        .hear_first(|report| match report {
            Report::Resources(resources) => Some(resources),
            _ => None,
        })
        .await;
    assert_eq!((full.mode, full.miners[0].hotkey), (ReportMode::Full, MINER));
    hub.hear_round().await;
    // Reading on answers the ping behind the first round, which then counts as read.
    let told = hub.hear_round().await;
    assert_eq!(told.miner_scores.unwrap()[0].hotkey, MINER);
    until(|| async { bench.store.hub_fact(HubFact::ReportedRound).await.unwrap() == Some(first.to_string()) }).await;
    drop(hub);

    // The second round was written to a marketplace that died before it answered: it is told again, the first is not.
    let mut hub = session(&listener).await;
    hub.hear_round().await;
    let reading = async {
        loop {
            let report = hub.hear().await;
            assert!(!matches!(report, Report::Scores(ScoreReport { miner_scores: Some(_), .. })), "told twice");
        }
    };
    let read =
        until(|| async { bench.store.hub_fact(HubFact::ReportedRound).await.unwrap() == Some(second.to_string()) });
    tokio::select! {
        () = reading => {}
        () = read => {}
    }
}

async fn leases_are_stored_and_what_is_no_message_is_refused_while_the_session_goes_on() {
    let (listener, bench) = bench().await;
    let mut hub = session(&listener).await;
    hub.say(MessageType::LeasePublish, &lease("w", 0.5)).await;
    until(|| async { scores(&bench.store).await == [0.5] }).await;

    let replayed = hub.sealed(MessageType::LeasePublish, &lease("w", 0.6));
    let mislabelled = hub.sealed(MessageType::LeasePublish, &lease("w", 9.0));
    let mislabelled = mislabelled.replacen("MESH_LEASE_PUBLISH_V1", "MESH_CONFIG_UPDATE_V1", 1);
    hub.write(&replayed).await;
    hub.write(&replayed).await;
    hub.write("{").await;
    hub.write(&json!({ "type": "MESH_LEASE_PUBLISH_V1", "data": { "workerScores": [] } }).to_string()).await;
    hub.write(&mislabelled).await;
    hub.write(&json!({ "type": "MESH_SOMETHING_V9" }).to_string()).await;
    hub.say(MessageType::LeasePublish, &json!({ "workerScores": 7 })).await;
    hub.say(MessageType::LeasePublish, &lease("w", f64::INFINITY)).await;
    // The session went on: this one is taken.
    hub.say(MessageType::LeasePublish, &lease("w", 0.7)).await;
    until(|| async { scores(&bench.store).await == [0.7] }).await;
    let mut reasons: Vec<String> =
        bench.store.last_hub_events(100).await.unwrap().into_iter().map(|event| event.2).collect();
    reasons.retain(|reason| reason != "unknown_worker");
    reasons.reverse();
    assert_eq!(reasons, ["replay", "malformed", "unsealed", "mismatch", "schema", "not_finite"]);
    assert_eq!((bench.board.get().refused, bench.board.get().state), (6, State::Ready));
}

async fn who_answers_is_who_answered_the_first_time_and_proves_it() {
    let (listener, bench) = bench().await;
    drop(session(&listener).await);
    let pinned = Some(hub_key().hotkey().to_string());
    until(|| async { bench.store.hub_fact(HubFact::ServerSigns).await.unwrap() == pinned }).await;

    let other = Keypair::from_seed(&[8; 32]);
    let _stranger = session_as(&listener, &other, true).await;
    until(|| async { bench.board.get().reason.is_some_and(|reason| reason.contains("meshhub.server_hotkey")) }).await;
    let _mute = session_as(&listener, &hub_key(), false).await;
    until(|| async { bench.board.get().reason.is_some_and(|reason| reason.contains("does not prove it")) }).await;
    assert_ne!(bench.board.get().state, State::Ready);
    assert_eq!(bench.store.hub_fact(HubFact::ServerHotkey).await.unwrap(), pinned);
    let mut hub = session(&listener).await;
    hub.hear().await;
}

async fn a_marketplace_that_refuses_the_login_says_what_to_check() {
    let (listener, bench) = bench().await;
    let (mut socket, _) = dialled(&listener).await;
    let error = HubError { code: frame::code::BAD_TOKEN, message: "no".to_owned() };
    socket.send(Message::text(frame::plain(MessageType::Error, &error, 0))).await.unwrap();
    until(|| async { bench.board.get().reason.is_some_and(|reason| reason.contains("meshhub.access_token")) }).await;
}

async fn a_marketplace_that_says_nothing_is_given_up() {
    let store = store().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timing = Timing { handshake: Duration::from_millis(30), ..Timing::default() };
    let bench = dialling(&store, &listener, timing);
    let _silent = dialled(&listener).await;
    until(|| async { bench.board.get().reason.is_some_and(|reason| reason.contains("open a session")) }).await;
}

async fn a_marketplace_that_stops_answering_is_found_out() {
    let store = store().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timing = Timing { answer: Duration::from_millis(50), ping: Duration::from_millis(10), ..Timing::default() };
    let bench = dialling(&store, &listener, timing);
    // Held open and never read again.
    let _deaf = session(&listener).await;
    until(|| async { bench.board.get().reason.is_some_and(|reason| reason.contains("does not answer")) }).await;
}

async fn orders_with_an_id_are_answered_truthfully_and_tokens_are_fetched() {
    let (listener, bench) = bench().await;
    let mut hub = session(&listener).await;
    let task: TaskPublish = serde_json::from_value(json!({ "taskKey": "t", "workerKey": "x" })).unwrap();
    let update = ConfigUpdate { payload: byteleap_protocol::Object::new() };
    let acked = |report: Report| match report {
        Report::Ack(ack) => Some(ack),
        _ => None,
    };
    for expected in [AckStatus::Accepted, AckStatus::Duplicate] {
        hub.say(MessageType::TaskPublish, &task).await;
        let ack = hub.hear_first(acked).await;
        assert_eq!(
            (ack.status, ack.message_id.as_str(), ack.message_type.as_str()),
            (expected, "m1", "MESH_TASK_PUBLISH_V1")
        );
    }
    hub.say(MessageType::ConfigUpdate, &update).await;
    assert_eq!(hub.hear_first(acked).await.status, AckStatus::Failed);

    let tokens = bench.tokens.clone();
    let waiting = tokio::spawn(async move { tokens.token(MINER, &"w".parse().unwrap(), 0).await });
    let request = hub
        .hear_first(|report| match report {
            Report::TokenRequest(request) => Some(request),
            _ => None,
        })
        .await;
    assert_eq!(request.worker_key.to_string(), format!("{MINER}:w"));
    let response =
        TokenResponse { request_id: request.request_id, token: Some("jwt".to_owned()), ..TokenResponse::default() };
    hub.say(MessageType::TokenResponse, &response).await;
    assert_eq!(waiting.await.unwrap().token.as_deref(), Some("jwt"));
}

async fn a_session_that_the_marketplace_declares_lost_is_opened_again() {
    let (listener, bench) = bench().await;
    let mut hub = session(&listener).await;
    let error = HubError { code: frame::code::SESSION_LOST[0], message: "gone".to_owned() };
    hub.write(&frame::plain(MessageType::Error, &error, 0)).await;
    let mut again = session(&listener).await;
    again.hear().await;
    bench.stop.cancel();
    // The validator closes, and does not come back.
    while let Some(Ok(message)) = again.socket.next().await {
        if matches!(message, Message::Close(_)) {
            break;
        }
    }
    until(|| async { bench.running.is_finished() }).await;
}

on_both_engines!(
    a_session_begins_with_everybody_and_a_round_is_told_until_it_is_read,
    leases_are_stored_and_what_is_no_message_is_refused_while_the_session_goes_on,
    who_answers_is_who_answered_the_first_time_and_proves_it,
    a_marketplace_that_refuses_the_login_says_what_to_check,
    a_marketplace_that_says_nothing_is_given_up,
    a_marketplace_that_stops_answering_is_found_out,
    orders_with_an_id_are_answered_truthfully_and_tokens_are_fetched,
    a_session_that_the_marketplace_declares_lost_is_opened_again,
);
