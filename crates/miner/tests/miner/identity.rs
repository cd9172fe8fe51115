//! Who a worker proves to be, over ws and wss, and what follows from it.

use byteleap_miner::{enroll, workers::door::Standing};
use byteleap_protocol::{
    code::CloseCode,
    frame::MinerFrame,
    join::{JoinSecret, JoinToken},
    payload::TokenRecord,
    worker_key::{Channel, WorkerSecret},
};
use rand_core::OsRng;
use serde_json::{Value, json};

use crate::support::{PATIENCE, StubValidator, TestMiner, Worker, challenge, register};

fn secret(byte: u8) -> WorkerSecret {
    WorkerSecret::from_text(&format!("{byte:02x}").repeat(32)).expect("a key")
}

/// A registration that proves a key on this connection, and perhaps brings the secret of a join token.
fn proved(channel: &Channel, worker_id: &str, key: &WorkerSecret, join: Option<&JoinSecret>) -> String {
    let mut proof = key.prove(channel, &worker_id.parse_id());
    proof.join_secret = join.cloned();
    let mut register: Value = serde_json::from_str(&register(worker_id)).expect("JSON");
    register["identity"] = json!(proof);
    register.to_string()
}

trait ParseId {
    fn parse_id(&self) -> byteleap_protocol::id::WorkerId;
}

impl ParseId for str {
    fn parse_id(&self) -> byteleap_protocol::id::WorkerId {
        byteleap_protocol::id::WorkerId::new(self).expect("an id")
    }
}

/// Dials, registers with a proof, and gives the miner's first answer: none after an acknowledgement, else the close code.
async fn prove(worker: &mut Worker, worker_id: &str, key: &WorkerSecret, join: Option<&JoinSecret>) -> Option<u16> {
    worker.say(&proved(&worker.channel, worker_id, key, join)).await;
    worker.hear_verdict().await
}

async fn enrolled(miner: &TestMiner, worker_id: &str, key: &WorkerSecret) {
    enroll::enroll(&miner.settings, key.public(), Some(&worker_id.parse_id()), 0).expect("enrolled");
}

fn token(miner: &TestMiner) -> JoinToken {
    let url = format!("wss://{}", miner.workers);
    enroll::invite(&miner.settings, Some(url), std::time::Duration::from_secs(60), now_ms()).expect("a token")
}

fn now_ms() -> i64 {
    use byteleap_daemon::clock::Clock as _;
    byteleap_daemon::clock::SystemClock::new().unix_ms()
}

#[tokio::test]
async fn one_port_serves_ws_and_wss_and_status_says_who_is_not_authenticated() {
    let miner = TestMiner::start(&[]).await;
    let _old = Worker::register(miner.workers, "old").await;
    let mut new = Worker::dial_tls(miner.workers).await;
    enrolled(&miner, "new", &secret(7)).await;
    assert_eq!(prove(&mut new, "new", &secret(7), None).await, None);
    let status = miner.status().await;
    let seen: Vec<_> = status.workers.iter().map(|worker| (worker.is_tls, worker.standing)).collect();
    assert_eq!(seen, [(true, Standing::Enrolled(secret(7).public())), (false, Standing::Unproved)]);
    assert_eq!(status.fingerprint, Some(new.certificate.expect("a certificate")));
    assert!(status.page(now_ms()).contains("1 of 2 workers are not authenticated"), "{}", status.page(now_ms()));
}

#[tokio::test]
async fn a_challenge_goes_round_over_tls() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::dial_tls(miner.workers).await;
    assert_eq!(prove(&mut worker, "w1", &secret(7), None).await, None);
    worker.do_round().await;
    validator.next_proof().await;
}

#[tokio::test]
async fn a_plain_connection_is_told_that_tls_is_required() {
    for key in ["worker_management.tls.mode=required", "worker_management.auth=required"] {
        let miner = TestMiner::start_with(&[], &[key]).await;
        let answer = Worker::refused(miner.workers).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("wss://"), "{answer}");
        Worker::dial_tls(miner.workers).await;
    }
}

#[tokio::test]
async fn an_enrolled_name_is_taken_only_with_its_key_and_a_forger_changes_nothing_for_its_owner() {
    let miner = TestMiner::start(&[]).await;
    enrolled(&miner, "w1", &secret(7)).await;
    let mut owner = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut owner, "w1", &secret(7), None).await, None);

    let not_proved = Some(CloseCode::NotProved.number());
    let mut forger = Worker::dial(miner.workers).await;
    forger.say(&register("w1")).await;
    assert_eq!(forger.hear_verdict().await, not_proved);
    let mut forger = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut forger, "w1", &secret(8), None).await, not_proved);
    // Overheard on the owner's connection, and told again on another.
    let mut forger = Worker::dial(miner.workers).await;
    forger.say(&proved(&owner.channel, "w1", &secret(7), None)).await;
    assert_eq!(forger.hear_verdict().await, not_proved);

    owner.say(r#"{"type":"heartbeat","data":{"system_info":{}}}"#).await;
    assert_eq!(owner.hear().await, MinerFrame::HeartbeatAck);
}

#[tokio::test]
async fn a_proof_that_is_passed_on_over_another_tls_connection_does_not_hold() {
    let miner = TestMiner::start(&[]).await;
    let mut relayed = Worker::dial_tls(miner.workers).await;
    // The nonce reached the worker through somebody between, whose TLS connection to the worker is another.
    let elsewhere = Channel { exported: Some([9; 32]), ..relayed.channel };
    relayed.say(&proved(&elsewhere, "w1", &secret(7), None)).await;
    assert_eq!(relayed.hear_verdict().await, Some(CloseCode::NotProved.number()));
}

#[tokio::test]
async fn only_enrolled_keys_are_served_where_the_policy_says_so_and_a_new_one_at_once() {
    let miner = TestMiner::start_with(&[], &["worker_management.auth=enrolled"]).await;
    let not_enrolled = Some(CloseCode::NotEnrolled.number());
    let mut old = Worker::dial(miner.workers).await;
    old.say(&register("old")).await;
    assert_eq!(old.hear_verdict().await, not_enrolled);
    let mut new = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut new, "w1", &secret(7), None).await, not_enrolled);
    enroll::enroll(&miner.settings, secret(7).public(), None, 0).expect("enrolled");
    let mut new = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut new, "w1", &secret(7), None).await, None);
    // The key is now that of w1.
    let mut other = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut other, "w2", &secret(7), None).await, Some(CloseCode::NotProved.number()));
}

#[tokio::test]
async fn revoking_a_worker_closes_its_connection_and_keeps_its_key_out() {
    let miner = TestMiner::start(&[]).await;
    enrolled(&miner, "w1", &secret(7)).await;
    let mut worker = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut worker, "w1", &secret(7), None).await, None);
    enroll::revoke(&miner.settings, "w1").expect("revoked");
    worker.expect_close(CloseCode::NotEnrolled).await;
    let mut again = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut again, "w1", &secret(7), None).await, Some(CloseCode::NotEnrolled.number()));
}

#[tokio::test]
async fn enrolling_a_connected_workers_key_changes_its_standing_and_drops_whoever_has_its_name() {
    let miner = TestMiner::start(&[]).await;
    let mut worker = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut worker, "w1", &secret(7), None).await, None);
    let mut squatter = Worker::register(miner.workers, "w2").await;
    enroll::enroll(&miner.settings, secret(7).public(), None, 0).expect("enrolled");
    enrolled(&miner, "w2", &secret(8)).await;
    squatter.expect_close(CloseCode::NotProved).await;
    let workers = miner.status().await.workers;
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].standing, Standing::Enrolled(secret(7).public()));
}

#[tokio::test]
async fn a_worker_that_is_enrolled_in_mid_task_keeps_its_task() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut worker, "w1", &secret(7), None).await, None);
    let task = worker.hear_task().await;
    let mut squatter = Worker::register(miner.workers, "w2").await;
    enroll::enroll(&miner.settings, secret(7).public(), None, 0).expect("enrolled");
    enrolled(&miner, "w2", &secret(8)).await;
    // By then all have been judged again.
    squatter.expect_close(CloseCode::NotProved).await;
    worker.complete(&task.task_id, '1').await;
    let (message_id, _) = worker.hear_query().await;
    worker.prove(message_id).await;
    validator.next_proof().await;
}

#[tokio::test]
async fn a_join_token_enrols_one_worker_once_over_tls_alone() {
    let miner = TestMiner::start_with(&[], &["worker_management.auth=enrolled"]).await;
    let token = token(&miner);
    let refused = Some(CloseCode::JoinRefused.number());
    let mut plain = Worker::dial(miner.workers).await;
    assert_eq!(prove(&mut plain, "w1", &secret(7), Some(&token.secret)).await, refused);

    let mut worker = Worker::dial_tls(miner.workers).await;
    assert_eq!(token.fingerprint, worker.certificate, "the token pins the certificate");
    assert_eq!(prove(&mut worker, "w1", &secret(7), Some(&token.secret)).await, None);
    // Its acknowledgement was lost, say: it comes again with the used token, and is known.
    let mut again = Worker::dial_tls(miner.workers).await;
    assert_eq!(prove(&mut again, "w1", &secret(7), Some(&token.secret)).await, None);
    let mut second = Worker::dial_tls(miner.workers).await;
    assert_eq!(prove(&mut second, "w2", &secret(8), Some(&token.secret)).await, refused);
}

#[tokio::test]
async fn an_address_that_guesses_join_secrets_is_held_off() {
    let miner = TestMiner::start_with(&[], &["worker_management.auth=enrolled"]).await;
    let refused = Some(CloseCode::JoinRefused.number());
    for _ in 0..5 {
        let mut worker = Worker::dial_tls(miner.workers).await;
        let guess = JoinSecret::random(&mut OsRng);
        assert_eq!(prove(&mut worker, "w1", &secret(7), Some(&guess)).await, refused);
    }
    let mut worker = Worker::dial_tls(miner.workers).await;
    assert_eq!(prove(&mut worker, "w1", &secret(7), Some(&token(&miner).secret)).await, refused, "even the right one");
}

#[tokio::test]
async fn an_enrolment_token_goes_to_an_authenticated_worker_alone() {
    let validator = StubValidator::start(0x22).await;
    validator.give_tokens([TokenRecord { token: Some("eyJh".to_owned()), ..TokenRecord::default() }]);
    let miner = TestMiner::start(&[&validator]).await;
    enrolled(&miner, "w1", &secret(7)).await;
    let ask = json!({"type": "vmgw_enroll_token_request", "data": {"worker_id": "w1"}}).to_string();
    let mut codes = Vec::new();
    // Plain, though the key is proved; then over TLS.
    for mut worker in [Worker::dial(miner.workers).await, Worker::dial_tls(miner.workers).await] {
        assert_eq!(prove(&mut worker, "w1", &secret(7), None).await, None);
        worker.say(&ask).await;
        let MinerFrame::VmgwEnrollTokenResponse { data } = worker.hear().await else { panic!("no token") };
        codes.push(data.code);
    }
    assert_eq!(codes, [1003, 0]);
}

#[tokio::test]
async fn a_compressed_frame_that_nobody_agreed_to_closes_its_connection_alone() {
    let miner = TestMiner::start(&[]).await;
    let mut other = Worker::register(miner.workers, "w2").await;
    let close = tokio::time::timeout(PATIENCE, Worker::send_rsv1(miner.workers)).await.expect("a close");
    assert_eq!(close, 1002);
    other.say(r#"{"type":"heartbeat","data":{"system_info":{}}}"#).await;
    assert_eq!(other.hear().await, MinerFrame::HeartbeatAck);
}

#[tokio::test]
async fn what_a_validator_tells_is_shown_and_passed_on_to_workers_that_have_proved_a_key() {
    let validator = StubValidator::start(0x22).await;
    let leased = "it is leased: leased workers are not challenged";
    validator.tell(&json!({
        "score": {"round": 7, "at_ms": 1, "score": 0.5, "weight": 0.25},
        "workers": [{"worker_id": "new", "no_challenge": leased}, {"worker_id": "old", "no_challenge": leased}],
    }));
    let miner = TestMiner::start(&[&validator]).await;
    let mut old = Worker::register(miner.workers, "old").await;
    let mut new = Worker::dial_tls(miner.workers).await;
    assert_eq!(prove(&mut new, "new", &secret(7), None).await, None);
    let beat = json!({"type": "heartbeat", "data": {"system_info": {"cpu_count": 8}}}).to_string();
    new.say(&beat).await;
    let told = loop {
        match new.hear_any().await {
            MinerFrame::Feedback { data } if data.idle_because.as_ref().is_some_and(|why| why.contains(leased)) => {
                break data;
            }
            _ => {}
        }
    };
    assert_eq!(told.validators.iter().map(|told| told.validator).collect::<Vec<_>>(), [validator.hotkey()]);
    // The miner told all in the same breath, and there was nothing for the one that has proved nothing.
    old.say(&beat).await;
    assert_eq!(old.hear_any().await, MinerFrame::HeartbeatAck);

    let status = miner.status().await;
    let page = status.page(now_ms());
    assert!(page.contains("0.5000, weight 0.2500 in round 7"), "{page}");
    for worker in &status.workers {
        assert_eq!(worker.validators[0].feedback.no_challenge.as_deref(), Some(leased));
        assert!(worker.worker_id.as_str() == "old" || worker.idle_because.as_ref().unwrap().contains(leased));
    }
}
