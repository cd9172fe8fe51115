//! Workers that lie to the real miner, which relays what they say, and to the validator behind it.

use byteleap_protocol::{
    challenge::ChallengeKind,
    frame::{
        ChallengeResult, MinerFrame, ProofAnswer, Register, TaskAssignment, TaskOutcome, TaskResult, TaskTimestamps,
        WorkerFrame, WorkerHeartbeat,
    },
    hotkey::Signer,
    id::WorkerId,
    payload::Commitment,
};
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{
    work::{Lie, Work},
    world::{Real, World, missed, passed, refused, score_of},
};

const HONEST: &str = "honest";

/// A worker's connection to the miner.
pub(super) struct Worker {
    worker_id: &'static str,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Worker {
    /// Connects, registers and reports itself once, as one that computes challenges of this kind.
    pub(super) async fn join(
        port: u16,
        worker_id: &'static str,
        kind: ChallengeKind,
        system_info: byteleap_protocol::Object,
    ) -> Self {
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}")).await.unwrap();
        let mut worker = Self { worker_id, socket };
        let capabilities = vec![kind.as_str().to_owned()];
        worker
            .say(WorkerFrame::Register(Register {
                worker_id: WorkerId::new(worker_id).unwrap(),
                worker_name: None,
                worker_version: "1.0.0".to_owned(),
                capabilities: capabilities.clone(),
                system_info: system_info.clone(),
                identity: None,
            }))
            .await;
        let data = WorkerHeartbeat { capabilities: Some(capabilities), system_info, ..WorkerHeartbeat::default() };
        worker.say(WorkerFrame::Heartbeat { data }).await;
        worker
    }

    pub(super) async fn say(&mut self, frame: WorkerFrame) {
        self.socket.send(Message::text(frame.encode())).await.unwrap();
    }

    /// The miner's next message; none once it has hung up.
    pub(super) async fn hear(&mut self) -> Option<MinerFrame> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => return Some(MinerFrame::decode(text.as_bytes()).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Answers each challenge and each request to open rows, truly or by one lie, until the miner hangs up.
    async fn serve(mut self, lie: Option<Lie>) {
        let mut held: Option<Work> = None;
        while let Some(frame) = self.hear().await {
            match frame {
                MinerFrame::TaskAssignment { data } => {
                    let (root, work) = match lie {
                        Some(lie) => lie.work(&data.data),
                        None => {
                            let work = Work::of(&data.data);
                            (work.root(), work)
                        }
                    };
                    held = Some(work);
                    let result = self.result(data, vec![Commitment::cpu(root)]);
                    self.say(WorkerFrame::TaskResult(result)).await;
                }
                MinerFrame::ProofRequest { message_id, data } => {
                    let (work, rows) = (held.as_ref().unwrap(), &data.requests[0].rows);
                    let proof = lie.map_or_else(|| work.open(rows), |lie| lie.proof(work, rows));
                    let data = ProofAnswer::opened(vec![proof], 0, 0);
                    self.say(WorkerFrame::ProofResponse { message_id, data }).await;
                }
                _ => {}
            }
        }
    }

    /// The result of a task that committed to this.
    pub(super) fn result(&self, assignment: TaskAssignment, commitments: Vec<Commitment>) -> TaskResult {
        let times = TaskTimestamps { worker_task_received_ts: 0, worker_task_completed_ts: 0 };
        let result = ChallengeResult { computation_time_ms: 1.0, matrix_size: 101, commitments };
        TaskResult {
            worker_id: self.worker_id.to_owned(),
            task_id: assignment.task_id,
            timestamp: 0.0,
            data: TaskOutcome::completed(&result, times),
        }
    }
}

#[tokio::test]
async fn a_lying_worker_behind_an_honest_miner_is_caught_and_told_why() {
    let mut world =
        World::start(Real::Miner, &["validation.challenge_timeout=60", "validation.proof_timeout=15"]).await;
    let port = world.port_of(1).await;
    let miner = world.miner(1).hotkey();
    let mut workers = JoinSet::new();
    let join = |name| Worker::join(port, name, ChallengeKind::CpuMatrix, Default::default());
    workers.spawn(join(HONEST).await.serve(None));
    for lie in Lie::ALL {
        workers.spawn(join(lie.worker_id()).await.serve(Some(lie)));
    }

    let all_ended = |told: &serde_json::Value| {
        let attempts = |worker: &str| {
            let workers = told["workers"].as_array().into_iter().flatten();
            workers
                .filter(|score| score["worker_id"] == worker)
                .filter_map(|score| score["attempts"].as_u64())
                .sum::<u64>()
        };
        attempts(HONEST) > 0 && Lie::ALL.iter().all(|lie| missed(told, lie.worker_id()).is_some())
    };
    let told = world.explained(miner, "every lie is judged", all_ended).await;
    let text = world.explained_to_people(miner);
    for lie in Lie::ALL {
        let (worker, (code, note)) = (lie.worker_id(), lie.verdict());
        assert_eq!(missed(&told, worker), Some(("failed", code, note)), "{lie:?}");
        let score = score_of(&told, worker);
        assert_eq!((&score["successes"], &score["performance"]), (&0.into(), &0.0.into()), "{lie:?} earned");
        assert_eq!(score["zero"], "no_success", "{lie:?}");
        let told_so = |line: &str| {
            line.contains(&format!(" {worker}: challenge ")) && line.ends_with(&format!("failed, {code}: {note}"))
        };
        assert!(text.lines().any(told_so), "{lie:?} is not told in\n{text}");
    }
    assert_eq!(refused(&told, "wrong_lengths"), 1, "a proof without a row is refused at the door");
    assert_eq!((passed(&told, HONEST), missed(&told, HONEST)), (1, None), "the honest worker is not disturbed");
    world.network.stop().await;
}
