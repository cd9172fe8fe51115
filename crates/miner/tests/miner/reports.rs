//! Heartbeats to the validators, and enrolment tokens for the workers.

use byteleap_protocol::{
    frame::{MinerFrame, TokenAnswer},
    payload::{HeartbeatData, TokenRecord, WorkerStatus},
};
use serde_json::json;

use crate::support::{Script, StubValidator, TestMiner, Worker, challenge};

/// The next report that lists a worker.
async fn report_with_a_worker(validator: &StubValidator) -> HeartbeatData {
    loop {
        let data = validator.next_heartbeat().await;
        if !data.workers.is_empty() {
            return data;
        }
    }
}

async fn beat(worker: &mut Worker) {
    worker.say(&json!({"type": "heartbeat", "data": {"system_info": {"cpu_count": 8}}}).to_string()).await;
    assert_eq!(worker.hear().await, MinerFrame::HeartbeatAck);
}

#[tokio::test]
async fn a_worker_is_reported_to_every_validator() {
    let (first, second) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    let miner = TestMiner::start(&[&first, &second]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    beat(&mut worker).await;
    for validator in [&first, &second] {
        let data = report_with_a_worker(validator).await;
        let reported = &data.workers[0];
        assert_eq!(reported.worker_id.as_str(), "w1");
        assert_eq!((reported.status, reported.system_info.cpu_count), (WorkerStatus::Online, 8));
        let host = data.miner_info.expect("the miner's own host");
        assert_eq!(host.miner_version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert!(host.cpu_count > 0);
    }
}

#[tokio::test]
async fn a_failed_report_loses_nothing() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    validator.script("HeartbeatSynapse", [Script::Plain("Processing failed", 5000), Script::Sealed("no")]);
    beat(&mut worker).await;
    assert_eq!(report_with_a_worker(&validator).await.workers.len(), 1);
    assert_eq!(validator.next_heartbeat().await.workers.len(), 1);
}

#[tokio::test]
async fn a_worker_with_a_task_is_reported_busy() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.hear_task().await;
    beat(&mut worker).await;
    assert_eq!(report_with_a_worker(&validator).await.workers[0].status, WorkerStatus::Busy);
}

async fn ask_for_token(worker: &mut Worker, worker_id: &str) {
    worker.say(&json!({"type": "vmgw_enroll_token_request", "data": {"worker_id": worker_id}}).to_string()).await;
}

async fn hear_token(worker: &mut Worker) -> TokenAnswer {
    match worker.hear().await {
        MinerFrame::VmgwEnrollTokenResponse { data } => data,
        other => panic!("expected a token, got {other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_searched_until_a_validator_gives_one() {
    let (poor, rich) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    poor.give_tokens([TokenRecord { code: 1003, ..TokenRecord::default() }]);
    rich.give_tokens([TokenRecord {
        token: Some("eyJh".to_owned()),
        enrollment_url: Some("https://gw.example/enroll".to_owned()),
        ..TokenRecord::default()
    }]);
    let miner = TestMiner::start_with(&[&poor, &rich], &["worker_management.vm_tokens=any"]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    ask_for_token(&mut worker, "w1").await;
    let answer = hear_token(&mut worker).await;
    assert_eq!((answer.code, answer.token.as_deref()), (0, Some("eyJh")));
    assert_eq!(answer.enrollment_url.as_deref(), Some("https://gw.example/enroll"));
}

#[tokio::test]
async fn a_token_for_another_worker_or_a_second_at_a_time_is_refused() {
    // The validator answers "pending", so that the first request is still under way when the second comes.
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start_with(&[&validator], &["worker_management.vm_tokens=any"]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    ask_for_token(&mut worker, "w2").await;
    assert_eq!(hear_token(&mut worker).await.code, 1002);
    ask_for_token(&mut worker, "w1").await;
    ask_for_token(&mut worker, "w1").await;
    assert_eq!(hear_token(&mut worker).await.code, 1001);
}

#[tokio::test]
async fn a_worker_is_told_when_no_validator_has_a_token() {
    let validator = StubValidator::start(0x22).await;
    validator.give_tokens([TokenRecord {
        code: 1003,
        error_message: Some("no issuer".to_owned()),
        ..TokenRecord::default()
    }]);
    let miner = TestMiner::start_with(&[&validator], &["worker_management.vm_tokens=any"]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    ask_for_token(&mut worker, "w1").await;
    let answer = hear_token(&mut worker).await;
    assert_eq!(answer.code, 1003);
    assert!(answer.error.is_some_and(|error| error.contains("no issuer")));
}
