//! GPU challenges, by the software engine and by the vendor's compute server, however that one behaves.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use byteleap_compute::engine::software::SoftwareEngine;
use byteleap_compute::engine::{EngineError, GpuEngine};
use byteleap_compute::gpu::GpuChallenge;
use byteleap_compute::gpu::verify::{Check, Tolerance};
use byteleap_daemon::clock::SystemClock;
use byteleap_protocol::frame::{ChallengeResult, ProofAnswer, WorkerFrame};
use byteleap_protocol::gpu_server::Command;
use byteleap_protocol::gpu_signature::CommitmentSigner;
use byteleap_protocol::id::{GpuUuid, Iterations, MatrixSize, Unit};
use byteleap_worker::gpu::Gpus;
use byteleap_worker::gpu::vendor::{Place, Timing, VendorServer};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, calm};
use crate::gpu_server::{GpuServer, Mood};
use crate::miner::{Connection, Miner, soon};

const SEED: &str = "00112233445566778899aabbccddeeff";
const SIZE: u32 = 64;
const ROWS: [u32; 2] = [3, 60];
const COORDINATES: [(u32, u32); 3] = [(0, 0), (63, 1), (7, 40)];

fn challenge() -> GpuChallenge {
    let iterations = Iterations::ONE;
    GpuChallenge { seed: SEED.parse().unwrap(), size: MatrixSize::new(SIZE).unwrap(), iterations }
}

fn software() -> Arc<SoftwareEngine> {
    Arc::new(SoftwareEngine::new(CommitmentSigner::from_hex(&"07".repeat(32)).unwrap(), 2))
}

fn quick() -> Timing {
    Timing {
        command: Duration::from_secs(5),
        ping: Duration::from_secs(5),
        start: Duration::from_secs(20),
        start_ping: Duration::from_millis(5),
        restart_first: Duration::from_secs(3600),
        restart_max: Duration::from_secs(3600),
    }
}

fn vendor(server: &GpuServer, timing: Timing) -> Arc<VendorServer> {
    let place = Place { socket: server.socket(), binary: None };
    Arc::new(VendorServer::new(place, timing, Handle::current()))
}

/// A worker with two GPUs of this engine, seen.
async fn worker(miner: &Miner, engine: Arc<dyn GpuEngine>) -> Bench {
    let (mut gpus, watcher) = Gpus::of(engine, Arc::new(SystemClock::new()));
    tokio::spawn(watcher.run(CancellationToken::new()));
    soon(gpus.wait_for(2)).await;
    Bench::with_gpus(miner, calm(), gpus)
}

async fn computed(connection: &mut Connection, task_id: &str) -> ChallengeResult {
    connection.assign(task_id, "gpu_matrix", json!({"matrix_size": SIZE, "seed": SEED, "mode": 0})).await;
    let result = connection.result().await;
    assert!(result.data.success, "{result:?}");
    result.data.challenge_result().unwrap()
}

async fn opened(connection: &mut Connection, task_id: &str, result: &ChallengeResult) -> ProofAnswer {
    let units: Vec<Unit> = result.commitments.iter().map(|commitment| commitment.uuid.clone()).collect();
    connection.ask_units("m", task_id, &units, &ROWS, &COORDINATES).await;
    connection.proof().await.1
}

fn assert_holds(result: &ChallengeResult, answer: &ProofAnswer) {
    let challenge = challenge();
    let check =
        Check { challenge: &challenge, rows: &ROWS, coordinates: &COORDINATES, tolerance: Tolerance::default() };
    assert_eq!((answer.success, &answer.error, answer.proofs.len()), (true, &None, 2));
    for (commitment, proof) in result.commitments.iter().zip(&answer.proofs) {
        assert_eq!(commitment.uuid, proof.uuid);
        let Unit::Gpu(gpu) = &proof.uuid else { panic!("a GPU") };
        assert_eq!(check.judge(gpu, commitment.merkle_root, &[0, 9, 63], proof), Ok(()));
    }
}

#[tokio::test]
async fn gpus_are_reported_compute_and_show_what_they_committed_to() {
    let server = GpuServer::start();
    let engines: [Arc<dyn GpuEngine>; 2] = [software(), vendor(&server, quick())];
    for engine in engines {
        let miner = Miner::start().await;
        let _bench = worker(&miner, engine).await;
        let (mut connection, register) = miner.connection().await;
        assert_eq!(register.capabilities, ["cpu_matrix", "gpu_matrix"]);
        connection.acknowledge().await;
        let WorkerFrame::Heartbeat { data } = connection.frame().await else { panic!("a heartbeat comes at once") };
        let summary = data.gpu_info.unwrap();
        assert_eq!((&summary["gpu_available"], &summary["gpu_count"]), (&json!(true), &json!(2)));
        assert_eq!(summary["gpu_details"], data.system_info["gpu_plugin"]);
        for (plugin, info) in
            [0, 1].map(|gpu| (&data.system_info["gpu_plugin"][gpu], &data.system_info["gpu_info"][gpu]))
        {
            assert!(plugin["uuid"].as_str().unwrap().parse::<GpuUuid>().is_ok());
            assert_eq!(plugin["uuid"], info["uuid"], "presence is counted under the same name");
        }
        let result = computed(&mut connection, "c1").await;
        let names: Vec<_> = result.commitments.iter().map(|commitment| json!(commitment.uuid)).collect();
        assert_eq!(names, [0, 1].map(|gpu| data.system_info["gpu_plugin"][gpu]["uuid"].clone()));
        let answer = opened(&mut connection, "c1", &result).await;
        assert_holds(&result, &answer);
        assert_eq!(opened(&mut connection, "c1", &result).await.proofs, answer.proofs, "a repeated request works");
    }
    let submits = server.seen().into_iter().filter(|command| matches!(command, Command::SubmitChallenge { .. }));
    assert_eq!(submits.count(), 1);
}

#[tokio::test]
async fn a_gpu_challenge_runs_beside_one_on_the_processor() {
    let server = GpuServer::start();
    let miner = Miner::start().await;
    let _bench = worker(&miner, vendor(&server, quick())).await;
    let mut connection = miner.registered().await;
    server.set_mood(Mood::Silent);
    connection.assign("gpu", "gpu_matrix", json!({"matrix_size": SIZE, "seed": SEED})).await;
    connection.assign("second", "gpu_matrix", json!({"matrix_size": SIZE, "seed": SEED})).await;
    assert!(connection.result().await.data.error.unwrap().contains("already computes"));
    // The server says nothing, and the link goes on all the same.
    connection.assign_cpu("cpu").await;
    let result = connection.result().await;
    assert_eq!((result.task_id.as_str(), result.data.success), ("cpu", true));
}

#[tokio::test]
async fn a_result_that_the_server_no_longer_has_is_not_passed_off_as_one() {
    let server = GpuServer::start();
    let miner = Miner::start().await;
    let _bench = worker(&miner, vendor(&server, quick())).await;
    let mut connection = miner.registered().await;
    let first = computed(&mut connection, "c1").await;
    connection.assign("c2", "gpu_matrix", json!({"matrix_size": SIZE, "seed": "ff"})).await;
    assert!(connection.result().await.data.success);
    let answer = opened(&mut connection, "c1", &first).await;
    assert!(answer.success && answer.error.unwrap().contains("no longer has this result"));
    assert!(answer.proofs.iter().all(|proof| proof.coordinate_values.is_empty() && proof.merkle_proofs.len() == 2));
}

#[tokio::test]
async fn however_the_server_misbehaves_the_challenge_fails_with_its_reason_and_the_next_succeeds() {
    let server = GpuServer::start();
    let miner = Miner::start().await;
    let timing = Timing { command: Duration::from_millis(300), ..quick() };
    let _bench = worker(&miner, vendor(&server, timing)).await;
    let mut connection = miner.registered().await;
    let moods = [
        (Mood::Silent, "no answer within"),
        (Mood::Garbage, "cannot be read"),
        (Mood::HugeFrame, "16777217 bytes"),
        (Mood::DiesInMidAnswer, "connection"),
        (Mood::Refuses, "out of memory"),
    ];
    for (mood, part) in moods {
        server.set_mood(mood);
        connection.assign("bad", "gpu_matrix", json!({"matrix_size": SIZE, "seed": SEED})).await;
        let result = connection.result().await;
        assert_eq!((result.data.success, result.data.error_code), (false, 1006), "{mood:?}");
        let reason = result.data.error.unwrap();
        assert!(reason.contains(part), "{mood:?}: {reason}");
    }
    server.set_mood(Mood::Honest);
    // Quick enough for a machine under load.
    let result = soon(async {
        loop {
            connection.assign("good", "gpu_matrix", json!({"matrix_size": 2, "seed": SEED})).await;
            let result = connection.result().await;
            if result.data.success {
                return result;
            }
        }
    });
    assert_eq!(result.await.task_id.as_str(), "good");
}

#[tokio::test]
async fn a_worker_without_gpus_refuses_their_challenges_and_goes_on() {
    let server = GpuServer::absent();
    let miner = Miner::start().await;
    let (gpus, watcher) = Gpus::of(vendor(&server, quick()), Arc::new(SystemClock::new()));
    tokio::spawn(watcher.run(CancellationToken::new()));
    let _bench = Bench::with_gpus(&miner, calm(), gpus);
    let (mut connection, register) = miner.connection().await;
    assert_eq!(register.capabilities, ["cpu_matrix"]);
    connection.acknowledge().await;
    connection.assign("gpu", "gpu_matrix", json!({"matrix_size": SIZE, "seed": SEED})).await;
    assert!(connection.result().await.data.error.unwrap().contains("no GPU engine"));
    connection.assign_cpu("cpu").await;
    assert!(connection.result().await.data.success);
}

/// Looks for GPUs off the runtime, as the worker does.
async fn devices(server: &Arc<VendorServer>) -> Result<usize, EngineError> {
    let server = server.clone();
    let looked = tokio::task::spawn_blocking(move || server.devices());
    soon(looked).await.unwrap().map(|devices| devices.len())
}

/// A program that says that it was started, by its arguments in a file.
fn program(server: &GpuServer, then: &str) -> std::path::PathBuf {
    let path = server.folder().join("server");
    let started = server.folder().join("started");
    std::fs::write(&path, format!("#!/bin/sh\necho \"$@\" >> {}\n{then}\n", started.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_server_that_does_not_run_is_started_with_its_socket_and_ended_with_the_worker() {
    let mut server = GpuServer::absent();
    let place = Place { socket: server.socket(), binary: Some(program(&server, "exec sleep 600")) };
    let vendor = Arc::new(VendorServer::new(place, quick(), Handle::current()));
    let looking = tokio::spawn({
        let vendor = vendor.clone();
        async move { devices(&vendor).await }
    });
    let started = server.folder().join("started");
    soon(async {
        while !std::fs::read_to_string(&started).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(std::fs::read_to_string(&started).unwrap(), format!("--socket {}\n", server.socket().display()));
    server.listen();
    assert_eq!(soon(looking).await.unwrap(), Ok(2));
    soon(vendor.stop()).await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_anew() {
    let mut server = GpuServer::start();
    let place = Place { socket: server.socket(), binary: Some(program(&server, "exec sleep 600")) };
    let vendor = Arc::new(VendorServer::new(place, quick(), Handle::current()));
    assert_eq!(devices(&vendor).await, Ok(2), "one that is there already is not started");
    assert!(!server.folder().join("started").exists());
    server.die();
    let looking = tokio::spawn({
        let vendor = vendor.clone();
        async move { devices(&vendor).await }
    });
    let started = server.folder().join("started");
    soon(async {
        while !std::fs::read_to_string(&started).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    server.listen();
    assert_eq!(soon(looking).await.unwrap(), Ok(2));
    soon(vendor.stop()).await;
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_started_again_only_after_a_pause() {
    let server = GpuServer::absent();
    let place = Place { socket: server.socket(), binary: Some(program(&server, "exit 3")) };
    let vendor = Arc::new(VendorServer::new(place, quick(), Handle::current()));
    let reason = devices(&vendor).await.unwrap_err().to_string();
    assert!(reason.contains("ended at once"), "{reason}");
    let reason = devices(&vendor).await.unwrap_err().to_string();
    assert!(reason.contains("started again in"), "{reason}");
    assert_eq!(std::fs::read_to_string(server.folder().join("started")).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn a_program_that_others_could_change_is_not_run() {
    let server = GpuServer::absent();
    let binary = program(&server, "exit 0");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o777)).unwrap();
    for (binary, part) in [(binary, "chmod 755"), (server.folder().join("missing"), "gpu.binary_path")] {
        let place = Place { socket: server.socket(), binary: Some(binary) };
        let vendor = Arc::new(VendorServer::new(place, quick(), Handle::current()));
        let reason = devices(&vendor).await.unwrap_err().to_string();
        assert!(reason.contains(part), "{reason}");
    }
    assert!(!server.folder().join("started").exists());
}
