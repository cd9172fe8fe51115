//! Who may connect, under which name, and how a connection ends.

use byteleap_protocol::{code::CloseCode, frame::MinerFrame, id::WorkerId};
use serde_json::json;

use crate::support::{StubValidator, TestMiner, Worker, challenge, register};

#[tokio::test]
async fn a_first_message_that_is_no_registration_decides_the_close_code() {
    let miner = TestMiner::start(&[]).await;
    for (first, code) in [
        ("hello", 1000),
        ("[]", 4000),
        (r#"{"type":"heartbeat","data":{"system_info":{}}}"#, 4000),
        (r#"{"type":"register","worker_version":"1"}"#, 4000),
        (r#"{"type":"register","worker_id":" ","worker_version":"1"}"#, 4001),
        (r#"{"type":"register","worker_id":"w","worker_version":" "}"#, 4002),
    ] {
        let mut worker = Worker::dial(miner.workers).await;
        worker.say(first).await;
        assert_eq!(worker.hear_close().await.0, code, "{first}");
    }
}

#[tokio::test]
async fn a_binary_registration_is_taken_like_a_text() {
    let miner = TestMiner::start(&[]).await;
    let mut worker = Worker::dial(miner.workers).await;
    worker.say_binary(&register("w1")).await;
    assert!(matches!(worker.hear().await, MinerFrame::RegistrationAck { .. }));
}

#[tokio::test]
async fn the_worker_above_the_cap_is_turned_away_and_a_known_one_is_not() {
    let miner = TestMiner::start_with(&[], &["worker_management.max_workers=1"]).await;
    let _first = Worker::register(miner.workers, "w1").await;
    let mut second = Worker::dial(miner.workers).await;
    second.say(&register("w2")).await;
    second.expect_close(CloseCode::WorkerLimit).await;
    let _again = Worker::register(miner.workers, "w1").await;
}

#[tokio::test]
async fn a_replaced_connection_keeps_the_new_worker() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut old = Worker::register(miner.workers, "w1").await;
    let mut new = Worker::register(miner.workers, "w1").await;
    assert_eq!(old.hear_close().await, (1001, "Connection replaced".to_owned()));
    old.leave().await;
    validator.hand_out([challenge("c1", "w1")]);
    new.do_round().await;
    validator.next_proof().await;
    assert_eq!(miner.status().await.workers.len(), 1);
}

#[tokio::test]
async fn a_silent_old_connection_does_not_delay_the_new_worker() {
    let miner = TestMiner::start(&[]).await;
    // The old peer never reads, so it never answers the close.
    let _old = Worker::register(miner.workers, "w1").await;
    let _new = Worker::register(miner.workers, "w1").await;
    assert_eq!(miner.status().await.workers.len(), 1);
}

#[tokio::test]
async fn a_heartbeat_is_acknowledged_and_one_without_capabilities_keeps_them() {
    let miner = TestMiner::start(&[]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.say(&json!({"type": "heartbeat", "data": {"system_info": {"cpu_count": 4}}}).to_string()).await;
    assert_eq!(worker.hear().await, MinerFrame::HeartbeatAck);
    let workers = miner.status().await.workers;
    assert_eq!(workers[0].capabilities, ["cpu_matrix"]);
    assert!(workers[0].last_heartbeat_at_ms.is_some());
}

#[tokio::test]
async fn what_a_registered_worker_gets_wrong_is_counted_and_does_not_cost_its_connection() {
    let miner = TestMiner::start(&[]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    for nonsense in ["{", "[]", "{}", r#"{"type":"dance"}"#, r#"{"type":"heartbeat","data":{}}"#, &register("w1")] {
        worker.say(nonsense).await;
    }
    worker.say(r#"{"type":"heartbeat","data":{"system_info":{"load":Infinity}}}"#).await;
    assert_eq!(worker.hear().await, MinerFrame::HeartbeatAck);
    assert_eq!(miner.counted(r#"worker_messages_ignored_total{reason="unreadable"}"#), 5);
    assert_eq!(miner.counted(r#"worker_messages_ignored_total{reason="unexpected"}"#), 1);
}

#[tokio::test]
async fn a_worker_that_leaves_is_gone_from_the_table() {
    let miner = TestMiner::start(&[]).await;
    let worker = Worker::register(miner.workers, "w1").await;
    let other = Worker::register(miner.workers, "w2").await;
    worker.leave().await;
    let workers = miner.status().await.workers;
    assert_eq!(workers.into_iter().map(|worker| worker.worker_id).collect::<Vec<_>>(), [WorkerId::new("w2").unwrap()]);
    other.leave().await;
}

#[tokio::test]
async fn a_stop_says_goodbye_to_every_worker() {
    let miner = TestMiner::start(&[]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let farewell = async {
        let (code, _) = worker.hear_close().await;
        worker.leave().await;
        code
    };
    let ((), code) = tokio::join!(miner.stop(), farewell);
    assert_eq!(code, 1000);
}
