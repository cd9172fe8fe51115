//! A miner as a script: it accepts connections and says and hears one message at a time.

use std::time::Duration;

use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::frame::{
    MinerFrame, ProofAnswer, ProofQuery, Register, Registered, TaskAssignment, TaskResult, WorkerFrame,
};
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, MessageId, Unit};
use byteleap_protocol::payload::ProofRequest;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// The validator on whose behalf the miner asks.
pub(crate) const VALIDATOR: Hotkey = Hotkey([7; 32]);

/// Long enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what the test waits for comes in time")
}

pub(crate) struct Miner {
    listener: TcpListener,
}

impl Miner {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.listener.local_addr().unwrap())
    }

    /// The worker's next connection, its registration not yet acknowledged.
    pub(crate) async fn connection(&self) -> (Connection, Register) {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let mut connection = Connection { socket: soon(accept_async(stream)).await.unwrap() };
        match connection.frame().await {
            WorkerFrame::Register(register) => (connection, register),
            other => panic!("the first message is a registration, not {other:?}"),
        }
    }

    /// The worker's next connection, registered.
    pub(crate) async fn registered(&self) -> Connection {
        let (mut connection, _) = self.connection().await;
        connection.acknowledge().await;
        connection
    }
}

/// How the worker's side of a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    Closed(u16),
    Lost,
}

pub(crate) struct Connection {
    socket: WebSocketStream<TcpStream>,
}

impl Connection {
    pub(crate) async fn send(&mut self, frame: MinerFrame) {
        self.send_raw(Message::text(frame.encode())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn acknowledge(&mut self) {
        self.send(MinerFrame::RegistrationAck { data: Registered::default() }).await;
    }

    pub(crate) async fn assign(&mut self, task_id: &str, task_type: &str, data: Value) {
        let data = TaskAssignment {
            task_id: ChallengeId::new(task_id).unwrap(),
            task_type: task_type.to_owned(),
            challenge_id: None,
            data: data.as_object().cloned().unwrap(),
            timeout: None,
            validator_hotkey: Some(VALIDATOR),
        };
        self.send(MinerFrame::TaskAssignment { data }).await;
    }

    /// Assigns a challenge that takes a moment.
    pub(crate) async fn assign_cpu(&mut self, task_id: &str) {
        let data = serde_json::json!({"matrix_size": 64, "seed": "00112233445566778899aabbccddeeff", "iterations": 3});
        self.assign(task_id, ChallengeKind::CpuMatrix.as_str(), data).await;
    }

    pub(crate) async fn ask_for_rows(&mut self, message_id: &str, challenge_id: &str, rows: &[u32]) {
        let request = ProofRequest { uuid: Unit::Cpu, rows: rows.to_vec(), coordinates: Vec::new() };
        let data = ProofQuery {
            validator_hotkey: VALIDATOR,
            challenge_id: ChallengeId::new(challenge_id).unwrap(),
            requests: vec![request],
        };
        self.send(MinerFrame::ProofRequest { message_id: MessageId::new(message_id).unwrap(), data }).await;
    }

    /// Asks several units for the same rows and elements.
    pub(crate) async fn ask_units(
        &mut self,
        message_id: &str,
        challenge_id: &str,
        units: &[Unit],
        rows: &[u32],
        coordinates: &[(u32, u32)],
    ) {
        let request =
            |uuid: &Unit| ProofRequest { uuid: uuid.clone(), rows: rows.to_vec(), coordinates: coordinates.to_vec() };
        let data = ProofQuery {
            validator_hotkey: VALIDATOR,
            challenge_id: ChallengeId::new(challenge_id).unwrap(),
            requests: units.iter().map(request).collect(),
        };
        self.send(MinerFrame::ProofRequest { message_id: MessageId::new(message_id).unwrap(), data }).await;
    }

    /// The worker's next frame.
    pub(crate) async fn frame(&mut self) -> WorkerFrame {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return WorkerFrame::decode(text.as_bytes()).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("a text frame, not {other:?}"),
            }
        }
    }

    /// The worker's next frame that is no heartbeat.
    pub(crate) async fn answer(&mut self) -> WorkerFrame {
        loop {
            match self.frame().await {
                WorkerFrame::Heartbeat { .. } => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn result(&mut self) -> TaskResult {
        match self.answer().await {
            WorkerFrame::TaskResult(result) => result,
            other => panic!("a task result, not {other:?}"),
        }
    }

    pub(crate) async fn proof(&mut self) -> (MessageId, ProofAnswer) {
        match self.answer().await {
            WorkerFrame::ProofResponse { message_id, data } => (message_id, data),
            other => panic!("a proof, not {other:?}"),
        }
    }

    /// Answers the worker's next ping, as a live peer does on its own.
    pub(crate) async fn answer_ping(&mut self) {
        loop {
            if let Message::Ping(_) = soon(self.socket.next()).await.unwrap().unwrap() {
                return soon(self.socket.flush()).await.unwrap();
            }
        }
    }

    /// Closes with this code and waits until the worker has done so too.
    pub(crate) async fn close(mut self, code: u16, text: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: text.into() };
        soon(self.socket.close(Some(frame))).await.unwrap();
        while let Some(Ok(_)) = soon(self.socket.next()).await {}
    }

    /// Reads on until the worker ends the connection.
    pub(crate) async fn end(mut self) -> WorkerEnd {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => {
                    while let Some(Ok(_)) = soon(self.socket.next()).await {}
                    return WorkerEnd::Closed(frame.unwrap().code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return WorkerEnd::Lost,
            }
        }
    }
}
