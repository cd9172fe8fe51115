//! Whom the miner goes on calling, by what way, and whom it leaves alone for a while.

use byteleap_protocol::{frame::MinerFrame, hotkey::Hotkey, payload::TokenRecord};
use serde_json::json;

use crate::support::{Event, Script, StubValidator, TestMiner, Worker, challenge};

/// A validator is left alone after its second failure that counts, and for a second only.
const STRICT: [&str; 3] =
    ["metagraph.sync_interval=1", "metagraph.blacklist.threshold=2", "metagraph.blacklist.ttl_seconds=1"];

/// A validator is left alone after its first failure that counts, and for as long as a test lasts.
const STRICTEST: [&str; 3] =
    ["metagraph.sync_interval=1", "metagraph.blacklist.threshold=1", "metagraph.blacklist.ttl_seconds=600"];

/// The validators in use, as the operator sees them.
async fn in_use(miner: &TestMiner) -> Vec<Hotkey> {
    miner.status().await.validators.iter().map(|validator| validator.hotkey).collect()
}

#[tokio::test]
async fn an_outage_of_our_own_charges_no_validator_and_all_are_called_again_when_it_ends() {
    let validators =
        [StubValidator::start(0x22).await, StubValidator::start(0x33).await, StubValidator::start(0x44).await];
    let miner = TestMiner::start_with(&validators.each_ref(), &STRICTEST).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    for validator in &validators {
        validator.next_heartbeat().await;
    }
    for validator in &validators {
        validator.cut(true);
    }
    for validator in &validators {
        validator.has_cut(5).await;
    }
    for (number, validator) in validators.iter().enumerate() {
        validator.hand_out([challenge(&format!("c{number}"), "w1")]);
        validator.cut(false);
    }
    for _ in &validators {
        worker.do_round().await;
    }
    for (number, validator) in validators.iter().enumerate() {
        assert_eq!(validator.next_proof().await.challenge_id.as_str(), format!("c{number}"));
    }
    assert_eq!(in_use(&miner).await, validators.each_ref().map(StubValidator::hotkey));
}

#[tokio::test]
async fn a_validator_that_fails_while_others_answer_is_left_alone_and_taken_back_when_it_recovers() {
    let (down, sound) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    let miner = TestMiner::start_with(&[&down, &sound], &STRICT).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    down.next_heartbeat().await;
    down.cut(true);
    while in_use(&miner).await != [sound.hotkey()] {
        // Each of its answers may be the one by which the other's failures count.
        sound.next_heartbeat().await;
    }
    down.hand_out([challenge("c1", "w1")]);
    down.cut(false);
    worker.do_round().await;
    assert_eq!(down.next_proof().await.challenge_id.as_str(), "c1");
    while in_use(&miner).await != [down.hotkey(), sound.hotkey()] {
        sound.next_heartbeat().await;
    }
}

async fn ask_for_token(worker: &mut Worker) -> i64 {
    worker.say(&json!({"type": "vmgw_enroll_token_request", "data": {"worker_id": "w1"}}).to_string()).await;
    match worker.hear().await {
        MinerFrame::VmgwEnrollTokenResponse { data } => data.code,
        other => panic!("expected a token, got {other:?}"),
    }
}

#[tokio::test]
async fn a_validator_without_the_optional_route_stays_in_use() {
    let (old, new) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    let missing = Script::Http(404, "application/json", br#"{"message": "Not found"}"#);
    old.script("GetVmgwEnrollTokenSynapse", vec![missing; 3]);
    let refusal = TokenRecord { code: 1003, ..TokenRecord::default() };
    new.give_tokens(vec![refusal; 3]);
    let settings = [&STRICTEST[..], &["worker_management.vm_tokens=any"]].concat();
    let miner = TestMiner::start_with(&[&old, &new], &settings).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    for _ in 0..3 {
        assert_eq!(ask_for_token(&mut worker).await, 1003);
    }
    old.seen().await;
    // The list of validators is refreshed at least once between.
    for _ in 0..3 {
        old.next_heartbeat().await;
        new.next_heartbeat().await;
    }
    assert_eq!(in_use(&miner).await, [old.hotkey(), new.hotkey()]);
}

#[tokio::test]
async fn tokens_are_asked_for_in_the_order_of_the_validators_and_first_where_the_last_one_came_from() {
    let validators = [StubValidator::start(0x22).await, StubValidator::start(0x33).await];
    let refusal = || TokenRecord { code: 1003, ..TokenRecord::default() };
    let token = || TokenRecord { token: Some("eyJh".to_owned()), ..TokenRecord::default() };
    validators[0].give_tokens([refusal(), token()]);
    validators[1].give_tokens([token(), refusal()]);
    let miner = TestMiner::start_with(&validators.each_ref(), &["worker_management.vm_tokens=any"]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    for _ in 0..2 {
        assert_eq!(ask_for_token(&mut worker).await, 0);
    }
    // In another order the first search would have ended at the first validator's refusal, or the second at once.
    assert_eq!(validators.each_ref().map(StubValidator::unasked_tokens), [0, 0]);
}

#[tokio::test]
async fn many_calls_go_over_one_connection() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let mut calls = 0;
    for round in 0..5 {
        let challenge_id = format!("c{round}");
        validator.hand_out([challenge(&challenge_id, "w1")]);
        worker.do_round().await;
        loop {
            match validator.next(Some).await {
                Event::Proof(_) => break calls += 1,
                Event::Handshake | Event::Heartbeat(_) | Event::Commitment(_) => calls += 1,
            }
        }
    }
    assert!(calls > 15, "{calls}");
    // A heartbeat and a challenge's call may be under way at the same time, each over a connection of its own.
    assert!(validator.connections() <= 3, "{} connections for {calls} calls", validator.connections());
}

#[tokio::test]
async fn a_validator_on_ipv6_is_served() {
    let Some(validator) = StubValidator::start_v6(0x22).await else {
        // Without IPv6 on this host there is nobody to call; that such an axon is chosen is shown beside `select`.
        return;
    };
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    Worker::register(miner.workers, "w1").await.do_round().await;
    assert_eq!(validator.next_proof().await.challenge_id.as_str(), "c1");
}
