//! Challenges on their way: from a validator to a worker and back, twice.

use byteleap_protocol::{
    code::CloseCode,
    frame::TaskOutcome,
    hotkey::Signer,
    id::{ChallengeId, WorkerId},
};
use serde_json::json;

use crate::support::{Event, Script, StubValidator, TestMiner, Worker, challenge, commitment, miner_key};

fn id(text: &str) -> ChallengeId {
    ChallengeId::new(text).expect("an id")
}

#[tokio::test]
async fn a_challenge_goes_all_the_way_round() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;

    let task = worker.hear_task().await;
    assert_eq!((task.task_id.as_str(), task.task_type.as_str()), ("c1", "cpu_matrix"));
    assert_eq!(task.validator_hotkey, Some(validator.hotkey()));
    assert_eq!(json!(task.data), json!({"matrix_size": 8, "seed": "00112233"}));
    assert_eq!(miner.status().await.workers[0].task, Some(id("c1")));
    worker.complete(&task.task_id, '7').await;

    let committed = validator.next_commitment().await;
    assert_eq!((committed.challenge_id.as_str(), committed.worker_id.as_str()), ("c1", "w1"));
    assert_eq!(committed.commitments, [commitment('7')]);

    let (message_id, query) = worker.hear_query().await;
    assert_eq!((query.validator_hotkey, query.challenge_id.as_str()), (validator.hotkey(), "c1"));
    assert_eq!(query.requests[0].rows, [0, 3]);
    worker.prove(message_id).await;

    let proof = validator.next_proof().await;
    let times = &proof.debug_info["timestamps"];
    assert_eq!(times["worker_task_received_ts"], 1000);
    assert_eq!(times["worker_task_completed_ts"], 2000);
    assert_eq!(times["worker_proof_request_received_ts"], 3000);
    assert_eq!(times["worker_proof_completed_ts"], 4000);
    for name in ["miner_task_received_ts", "miner_task_response_ts", "worker_proof_response_ts"] {
        assert!(times[name].is_i64(), "{name}");
    }

    // The worker is free again.
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c2"));
}

#[tokio::test]
async fn a_result_from_a_stranger_is_refused() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let mut stranger = Worker::register(miner.workers, "w2").await;
    let task = worker.hear_task().await;
    stranger.complete(&task.task_id, 'f').await;
    stranger.expect_close(CloseCode::ForeignTask).await;
    worker.complete(&task.task_id, '1').await;
    assert_eq!(validator.next_commitment().await.commitments, [commitment('1')]);

    let (message_id, _) = worker.hear_query().await;
    let mut stranger = Worker::register(miner.workers, "w2").await;
    stranger.prove(message_id.clone()).await;
    stranger.expect_close(CloseCode::ForeignTask).await;
    assert!(!validator.seen().await.iter().any(|event| matches!(event, Event::Proof(_))));
    assert_eq!(miner.counted(r#"worker_messages_ignored_total{reason="foreign_result"}"#), 1);
    assert_eq!(miner.counted(r#"worker_messages_ignored_total{reason="foreign_proof"}"#), 1);
    worker.prove(message_id).await;
    validator.next_proof().await;
}

#[tokio::test]
async fn a_result_under_the_right_name_from_another_address_is_refused() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start_with(&[&validator], &["worker_management.host=0.0.0.0"]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    worker.leave().await;
    let mut impostor = Worker::register_from([127, 0, 0, 2], miner.workers, "w1").await;
    impostor.complete(&task.task_id, 'f').await;
    impostor.expect_close(CloseCode::ForeignTask).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.complete(&task.task_id, '1').await;
    assert_eq!(validator.next_commitment().await.commitments, [commitment('1')]);
}

#[tokio::test]
async fn after_a_restart_a_task_still_belongs_to_the_worker_that_it_was_given_to() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let settings = ["worker_management.host=0.0.0.0"];
    let killed = TestMiner::start_with(&[&validator], &settings).await;
    let mut worker = Worker::register(killed.workers, "w1").await;
    let task = worker.hear_task().await;
    let miner = killed.start_after(&[&validator], &settings).await;
    let mut impostor = Worker::register_from([127, 0, 0, 2], miner.workers, "w1").await;
    impostor.complete(&task.task_id, 'f').await;
    impostor.expect_close(CloseCode::ForeignTask).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.complete(&task.task_id, '1').await;
    assert_eq!(validator.next_commitment().await.commitments, [commitment('1')]);
    let (message_id, _) = worker.hear_query().await;
    worker.prove(message_id).await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c1"));
}

#[tokio::test]
async fn a_stuck_worker_does_not_stop_the_others() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "stuck")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut stuck = Worker::register(miner.workers, "stuck").await;
    stuck.hear_task().await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c2"));
}

#[tokio::test]
async fn a_busy_worker_takes_no_challenge_of_another_validator() {
    let (first, second) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    first.hand_out([challenge("c1", "w1")]);
    second.hand_out([challenge("c2", "w1")]);
    let miner = TestMiner::start(&[&first, &second]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    assert_eq!(first.unfetched() + second.unfetched(), 1);
    worker.complete(&task.task_id, '1').await;
    let (message_id, _) = worker.hear_query().await;
    worker.prove(message_id).await;
    worker.do_round().await;
    assert_eq!(first.next_proof().await.challenge_id, id("c1"));
    assert_eq!(second.next_proof().await.challenge_id, id("c2"));
}

#[tokio::test]
async fn two_challenges_for_one_worker_are_computed_one_after_the_other() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1"), challenge("c2", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.do_round().await;
    worker.do_round().await;
    validator.next_proof().await;
    validator.next_proof().await;
}

#[tokio::test]
async fn a_challenge_without_a_target_goes_to_a_capable_worker() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut incapable = Worker::dial(miner.workers).await;
    incapable.say(r#"{"type":"register","worker_id":"w0","worker_version":"1","capabilities":["gpu_matrix"]}"#).await;
    incapable.hear().await;
    let mut capable = Worker::register(miner.workers, "w1").await;
    let mut item = challenge("c1", "w1");
    item.target_worker_id = None;
    validator.hand_out([item]);
    capable.do_round().await;
    assert_eq!(validator.next_commitment().await.worker_id, WorkerId::new("w1").expect("an id"));
}

#[tokio::test]
async fn every_way_to_fail_frees_the_worker() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let failures = [
        // Properly said.
        json!(TaskOutcome::failed("no memory")).to_string(),
        // What a reference worker sends for an internal error (F3).
        r#"{"error":"boom"}"#.to_owned(),
        // What it sends for a failed GPU task (F24).
        r#"{"success":false,"error_code":1006,"execution_time":Infinity,"result":{}}"#.to_owned(),
        // A success without a commitment.
        r#"{"success":true,"error_code":0,"result":{"commitments":[]}}"#.to_owned(),
        // A success with nonsense for one.
        r#"{"success":true,"error_code":0,"result":{"commitments":[{"uuid":"-1","merkle_root":"0xAB"}]}}"#.to_owned(),
    ];
    for (number, data) in failures.into_iter().enumerate() {
        let challenge_id = format!("c{number}");
        validator.hand_out([challenge(&challenge_id, "w1")]);
        let task = worker.hear_task().await;
        assert_eq!(task.task_id, id(&challenge_id));
        let text = format!(
            r#"{{"type":"task_result","worker_id":"w1","task_id":"{challenge_id}","timestamp":1.5,"data":{data}}}"#
        );
        worker.say(&text).await;
    }
    validator.hand_out([challenge("last", "w1")]);
    worker.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id, id("last"));
}

#[tokio::test]
async fn a_refused_commitment_frees_the_worker() {
    let validator = StubValidator::start(0x22).await;
    validator.script("ChallengeSynapse", [Script::Sealed("challenge already processed")]);
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    worker.complete(&task.task_id, '1').await;
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c2"));
}

#[tokio::test]
async fn a_worker_that_cannot_open_is_freed_and_nothing_is_sent_for_it() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    worker.complete(&task.task_id, '1').await;
    let (message_id, _) = worker.hear_query().await;
    worker
        .say(&json!({"type": "proof_response", "message_id": message_id, "data": {"success": false}}).to_string())
        .await;
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c2"));
}

#[tokio::test]
async fn a_worker_that_comes_back_brings_its_result_along() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut before = Worker::register(miner.workers, "w1").await;
    let task = before.hear_task().await;
    before.leave().await;
    let mut after = Worker::register(miner.workers, "w1").await;
    after.complete(&task.task_id, '5').await;
    assert_eq!(validator.next_commitment().await.commitments, [commitment('5')]);
    let (message_id, _) = after.hear_query().await;
    after.prove(message_id).await;
    assert_eq!(validator.next_proof().await.challenge_id, id("c1"));
}

#[tokio::test]
async fn the_miner_names_itself_in_reports_and_polls() {
    let validator = StubValidator::start(0x22).await;
    let _miner = TestMiner::start(&[&validator]).await;
    assert_eq!(validator.next_heartbeat().await.hotkey, miner_key().hotkey().to_string());
}

#[tokio::test]
async fn a_stop_lets_a_challenge_under_way_finish() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    let rest = async {
        worker.complete(&task.task_id, '1').await;
        let (message_id, _) = worker.hear_query().await;
        worker.prove(message_id).await;
        validator.next_proof().await;
        assert_eq!(worker.hear_close().await.0, 1000);
        worker.leave().await;
    };
    tokio::join!(miner.stop(), rest);
}
