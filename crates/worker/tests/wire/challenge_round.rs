//! The worker's part of a challenge: assignment to commitment, proof request to proof.

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::verify;
use byteleap_protocol::frame::WorkerFrame;
use byteleap_protocol::id::{Iterations, MatrixSize};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::bench::{Bench, WORKER_ID, calm};
use crate::miner::Miner;

#[tokio::test]
async fn a_worker_registers_reports_computes_and_proves() {
    let miner = Miner::start().await;
    let bench = Bench::start(&miner, calm());
    let (mut connection, register) = miner.connection().await;
    assert_eq!((register.worker_id.as_str(), register.worker_name.as_deref()), (WORKER_ID, Some("bench")));
    assert_eq!(register.capabilities, ["cpu_matrix"]);
    assert_eq!(register.system_info["cpu_count"], 4);
    assert!(!bench.readiness.is_ready());
    connection.acknowledge().await;

    let WorkerFrame::Heartbeat { data } = connection.frame().await else { panic!("a heartbeat comes at once") };
    assert_eq!((data.status.as_deref(), data.active_tasks), (Some("online"), Some(0)));
    assert_eq!(data.capabilities, Some(vec!["cpu_matrix".to_owned()]));
    assert_eq!(data.system_info["memory_total"], 1024);
    assert!(bench.readiness.is_ready());

    connection.assign_cpu("c1").await;
    let result = connection.result().await;
    assert_eq!((result.task_id.as_str(), result.worker_id.as_str()), ("c1", WORKER_ID));
    assert!(result.timestamp > 0.0 && result.data.timestamps.is_some());
    let committed = result.data.challenge_result().unwrap();
    assert_eq!(committed.matrix_size, 64);

    let rows = [0, 13, 63];
    connection.ask_for_rows("m1", "c1", &rows).await;
    let (message_id, proof) = connection.proof().await;
    assert_eq!(message_id.as_str(), "m1");
    assert!(proof.success && proof.phase2_timestamp("worker_proof_completed_ts").is_some());
    let seed = "00112233445566778899aabbccddeeff".parse().unwrap();
    let challenge = CpuChallenge::new(&seed, MatrixSize::new(64).unwrap(), Iterations::new(3).unwrap()).unwrap();
    let root = committed.commitments[0].merkle_root;
    assert_eq!(verify::judge(&challenge, &rows, root, &proof.proofs), Ok(()));

    connection.ask_for_rows("m2", "c1", &[1]).await;
    assert!(connection.proof().await.1.success, "a repeated request works");
}

#[tokio::test]
async fn a_proof_of_an_unknown_challenge_is_answered_with_the_reason() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    connection.ask_for_rows("m1", "never-seen", &[0]).await;
    let (message_id, proof) = connection.proof().await;
    assert_eq!((message_id.as_str(), proof.success), ("m1", false));
    assert!(proof.error.unwrap().contains("no result is kept"));
}

#[tokio::test]
async fn a_proof_request_that_cannot_be_read_is_answered_all_the_same() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    let unreadable = r#"{"type":"proof_request","message_id":"m1","data":{"validator_hotkey":"nobody","requests":[]}}"#;
    connection.send_raw(Message::text(unreadable)).await;
    let (message_id, proof) = connection.proof().await;
    assert_eq!((message_id.as_str(), proof.success), ("m1", false));
    assert!(proof.error.unwrap().contains("proof_request"));
}

#[tokio::test]
async fn the_type_of_an_acknowledgement_is_enough() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let (mut connection, _) = miner.connection().await;
    connection.send_raw(Message::text(r#"{"type":"registration_ack","data":null}"#)).await;
    assert!(matches!(connection.frame().await, WorkerFrame::Heartbeat { .. }));
}

#[tokio::test]
async fn every_assignment_that_cannot_be_computed_ends_in_one_failed_result() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    let good = json!({"matrix_size": 8, "seed": "07"});
    connection.assign("gpu", "gpu_matrix", json!({"matrix_size": 32_768, "seed": "07"})).await;
    connection.assign("unknown", "quantum", good).await;
    connection.assign("large", "cpu_matrix", json!({"matrix_size": 20_000, "seed": "07"})).await;
    let malformed =
        r#"{"type":"task_assignment","data":{"task_id":"malformed","task_type":"cpu_matrix","data":{},"timeout":-1}}"#;
    connection.send_raw(Message::text(malformed)).await;
    for expected in ["gpu", "unknown", "large", "malformed"] {
        let result = connection.result().await;
        assert_eq!(result.task_id.as_str(), expected);
        assert_eq!((result.data.success, result.data.error_code), (false, 1006));
        assert!(result.data.error.is_some_and(|reason| !reason.is_empty()));
    }
}

#[tokio::test]
async fn what_the_worker_cannot_read_does_not_cost_the_connection() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    for text in ["no json", "[]", "{}", r#"{"type":"novelty"}"#, r#"{"type":"proof_request","data":{}}"#] {
        connection.send_raw(Message::text(text)).await;
    }
    connection.send_raw(Message::binary(&b"\xff\xfe"[..])).await;
    let lenient = r#"{"type":"task_assignment","extra":NaN,"data":{"task_id":"c","task_type":"cpu_matrix","timeout":"60.0",
        "validator_hotkey":"VALIDATOR","data":{"matrix_size":8,"seed":"AB CD ef01","noise":-Infinity}}}"#;
    let lenient = lenient.replace("VALIDATOR", &crate::miner::VALIDATOR.to_string());
    connection.send_raw(Message::binary(lenient.into_bytes())).await;
    let result = connection.result().await;
    assert!(result.data.success, "{result:?}");

    connection.send_raw(Message::text(r#"{"type":"heartbeat_request","message_id":"6f1c"}"#)).await;
    let WorkerFrame::HeartbeatResponse { worker_id, message_id, .. } = connection.answer().await else {
        panic!("a heartbeat response")
    };
    assert_eq!((worker_id.as_str(), message_id.unwrap().as_str()), (WORKER_ID, "6f1c"));
}
