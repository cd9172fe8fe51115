//! The vendor's compute server as a script: it speaks the wire of the specification with a software engine behind it, and
//! misbehaves where a test wants it to.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use byteleap_compute::engine::GpuEngine;
use byteleap_compute::engine::software::SoftwareEngine;
use byteleap_compute::gpu::GpuChallenge;
use byteleap_protocol::gpu_server::{Command, LENGTH_BYTES, MAX_ANSWER_BYTES, Task, framed};
use byteleap_protocol::gpu_signature::CommitmentSigner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// How the next answers to anything but a ping go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    Silent,
    Garbage,
    HugeFrame,
    DiesInMidAnswer,
    Refuses,
}

pub(crate) struct GpuServer {
    folder: tempfile::TempDir,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Vec<Command>>>,
    task: Option<JoinHandle<()>>,
}

struct State {
    engine: Arc<SoftwareEngine>,
    last: Mutex<Option<GpuChallenge>>,
    mood: Arc<Mutex<Mood>>,
    seen: Arc<Mutex<Vec<Command>>>,
}

impl GpuServer {
    /// A place for a server, where none listens yet.
    pub(crate) fn absent() -> Self {
        let (mood, seen) = (Arc::new(Mutex::new(Mood::Honest)), Arc::default());
        Self { folder: tempfile::tempdir().unwrap(), mood, seen, task: None }
    }

    /// A server of two GPUs.
    pub(crate) fn start() -> Self {
        let mut server = Self::absent();
        server.listen();
        server
    }

    pub(crate) fn listen(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        let signer = CommitmentSigner::from_hex(&"07".repeat(32)).unwrap();
        let engine = Arc::new(SoftwareEngine::new(signer, 2));
        let state = State { engine, last: Mutex::default(), mood: self.mood.clone(), seen: self.seen.clone() };
        let state = Arc::new(state);
        self.task = Some(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                tokio::spawn(async move { state.serve(stream).await });
            }
        }));
    }

    /// Ends as on a crash: its socket stays behind, and nobody listens.
    pub(crate) fn die(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("gpu.sock")
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn seen(&self) -> Vec<Command> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for GpuServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl State {
    async fn serve(&self, mut stream: UnixStream) {
        let mut length = [0; LENGTH_BYTES];
        if stream.read_exact(&mut length).await.is_err() {
            return;
        }
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        stream.read_exact(&mut text).await.unwrap();
        let command: Command = serde_json::from_slice(&text).unwrap();
        self.seen.lock().unwrap().push(command.clone());
        let is_ping = command == Command::Ping;
        let answer = framed(&self.answer(command).await.to_string());
        let mood = if is_ping { Mood::Honest } else { *self.mood.lock().unwrap() };
        // A worker that has given up reads no answer.
        let _ = match mood {
            Mood::Honest => stream.write_all(&answer).await,
            Mood::Silent => return std::future::pending().await,
            Mood::Garbage => stream.write_all(&framed("\u{1}{]")).await,
            Mood::HugeFrame => stream.write_all(&(MAX_ANSWER_BYTES + 1).to_le_bytes()).await,
            Mood::DiesInMidAnswer => stream.write_all(&answer[..answer.len() / 2]).await,
            Mood::Refuses => stream.write_all(&framed(r#"{"success":false,"error":"out of memory"}"#)).await,
        };
    }

    async fn answer(&self, command: Command) -> Value {
        match command {
            Command::Ping => json!({"pong": true}),
            Command::GetGpuInfo => {
                let gpus: Vec<_> = self.engine.devices().unwrap().into_iter().map(|device| device.details).collect();
                json!({"success": true, "gpu_count": gpus.len(), "gpus": gpus})
            }
            Command::SubmitChallenge { task: Task { seed, matrix_size, matrix_iterations, .. } } => {
                let challenge = GpuChallenge { seed, size: matrix_size, iterations: matrix_iterations };
                *self.last.lock().unwrap() = Some(challenge.clone());
                let engine = self.engine.clone();
                let computed = move || engine.submit(&challenge, &AtomicBool::new(false)).unwrap();
                let computed = tokio::task::spawn_blocking(computed).await.unwrap();
                let results = computed.into_iter().map(|unit| {
                    let commitment = unit.commitment;
                    json!({
                        "gpu_uuid": commitment.uuid, "merkle_root": commitment.merkle_root,
                        "sig_ver": 1, "sig_val": commitment.sig_val, "row_hashes": unit.row_hashes,
                    })
                });
                json!({"success": true, "results": results.collect::<Vec<_>>()})
            }
            Command::GetResultCoords { gpu_uuid, queries } => match &*self.last.lock().unwrap() {
                None => json!({"success": false, "error": "no cached result"}),
                Some(challenge) => {
                    json!({"success": true, "values": self.engine.open(challenge, &gpu_uuid, &[], &queries).unwrap()})
                }
            },
            Command::GetResultRows { gpu_uuid, row_indices } => match &*self.last.lock().unwrap() {
                None => json!({"success": false, "error": "no cached result"}),
                Some(challenge) => {
                    let row = |row: &u32| {
                        let numbers = self.engine.open(challenge, &gpu_uuid, &[*row], &[]).unwrap();
                        (row.to_string(), json!(numbers))
                    };
                    let rows: serde_json::Map<_, _> = row_indices.iter().map(row).collect();
                    json!({"success": true, "matrix_size": challenge.size, "rows": rows})
                }
            },
            Command::ClearResultCache { .. } => {
                *self.last.lock().unwrap() = None;
                json!({"success": true, "cleared_count": 1})
            }
        }
    }
}
