//! A worker that does what a test tells it.

use std::net::SocketAddr;

use byteleap_protocol::{
    code::CloseCode,
    frame::{
        ChallengeResult, MinerFrame, ProofAnswer, ProofQuery, TaskAssignment, TaskOutcome, TaskTimestamps, WorkerFrame,
    },
    id::{ChallengeId, MessageId, Unit},
    payload::{Commitment, ProofResponse},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::PATIENCE;

/// A worker's connection.
pub(crate) struct Worker {
    socket: WebSocketStream<TcpStream>,
}

impl Worker {
    /// Connects without registering.
    pub(crate) async fn dial(miner: SocketAddr) -> Self {
        let stream = TcpStream::connect(miner).await.expect("a connection");
        let (socket, _) = client_async(format!("ws://{miner}/ws"), stream).await.expect("an upgrade");
        Self { socket }
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
        let (socket, _) = client_async(format!("ws://{miner}/ws"), stream).await.expect("an upgrade");
        let mut worker = Self { socket };
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

    async fn receive(&mut self) -> Message {
        loop {
            let received = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message in time");
            match received.expect("an open connection").expect("a sound connection") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next frame of the miner.
    pub(crate) async fn hear(&mut self) -> MinerFrame {
        match self.receive().await {
            Message::Text(text) => MinerFrame::decode(text.as_bytes()).expect("a frame"),
            other => panic!("expected a frame, got {other:?}"),
        }
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
        match self.receive().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("expected a close, got {other:?}"),
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
