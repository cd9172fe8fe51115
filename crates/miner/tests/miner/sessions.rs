//! What the miner does when a session or a request is refused.

use crate::support::{Event, Script, StubValidator, TestMiner, Worker, challenge};

const COMMITMENT: &str = "ChallengeSynapse";
const PROOF: &str = "ChallengeProofSynapse";
const HEARTBEAT: &str = "HeartbeatSynapse";

/// A validator with this script, its miner, and a worker that has just reported the result of challenge c1.
async fn committing(class: &'static str, scripts: &[Script]) -> (StubValidator, TestMiner, Worker) {
    let validator = StubValidator::start(0x22).await;
    validator.script(class, scripts.iter().cloned());
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    worker.complete(&task.task_id, '1').await;
    (validator, miner, worker)
}

/// What the validator processed until it got the proof of `challenge_id`.
struct Seen {
    handshakes: usize,
    commitments: Vec<String>,
    proofs: Vec<String>,
}

async fn until_proof(validator: &StubValidator, challenge_id: &str) -> Seen {
    let mut seen = Seen { handshakes: 0, commitments: vec![], proofs: vec![] };
    while seen.proofs.last().is_none_or(|last| last != challenge_id) {
        match validator.next(Some).await {
            Event::Handshake => seen.handshakes += 1,
            Event::Commitment(data) => seen.commitments.push(data.challenge_id.to_string()),
            Event::Proof(data) => seen.proofs.push(data.challenge_id.to_string()),
            Event::Heartbeat(_) => {}
        }
    }
    seen
}

#[tokio::test]
async fn a_forgotten_session_is_renewed_once_and_the_commitment_repeated() {
    for refusal in [Script::Plain("Session not found or expired: x", 4012), Script::Plain("SEQUENCE_ERROR", 4020)] {
        let (validator, _miner, mut worker) = committing(COMMITMENT, &[refusal]).await;
        let (message_id, _) = worker.hear_query().await;
        worker.prove(message_id).await;
        let seen = until_proof(&validator, "c1").await;
        assert_eq!((seen.handshakes, seen.commitments.len(), seen.proofs.len()), (2, 1, 1));
    }
}

#[tokio::test]
async fn a_session_refused_twice_ends_the_challenge_and_frees_the_worker() {
    let refusal = Script::Plain("Session not found or expired: x", 4012);
    let (validator, _miner, mut worker) = committing(COMMITMENT, &[refusal.clone(), refusal]).await;
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    let seen = until_proof(&validator, "c2").await;
    assert_eq!((seen.handshakes, seen.commitments), (3, vec!["c2".to_owned()]));
}

#[tokio::test]
async fn a_commitment_that_may_have_been_processed_is_never_repeated() {
    for reply in [Script::PlainAfter("Response encryption failed: x", 4011), Script::Garbage] {
        let (validator, _miner, mut worker) = committing(COMMITMENT, &[reply]).await;
        validator.hand_out([challenge("c2", "w1")]);
        worker.do_round().await;
        let seen = until_proof(&validator, "c2").await;
        assert_eq!(seen.commitments, ["c1", "c2"]);
        assert_eq!(seen.handshakes, 2);
    }
}

#[tokio::test]
async fn a_refused_proof_is_repeated_only_in_a_new_session() {
    let (validator, _miner, mut worker) = committing(PROOF, &[Script::Plain("Decryption failed: x", 4011)]).await;
    let (message_id, _) = worker.hear_query().await;
    worker.prove(message_id).await;
    let seen = until_proof(&validator, "c1").await;
    assert_eq!((seen.handshakes, seen.proofs.len()), (2, 1));
}

#[tokio::test]
async fn a_heartbeat_is_repeated_even_if_it_may_have_been_processed() {
    let validator = StubValidator::start(0x22).await;
    validator.script(HEARTBEAT, [Script::Garbage]);
    let _miner = TestMiner::start(&[&validator]).await;
    let mut handshakes_between = 0;
    validator.next_heartbeat().await;
    while !matches!(validator.next(Some).await, Event::Heartbeat(_)) {
        handshakes_between += 1;
    }
    assert_eq!(handshakes_between, 1);
}

#[tokio::test]
async fn a_refusal_inside_the_session_keeps_it() {
    let (validator, _miner, mut worker) =
        committing(COMMITMENT, &[Script::Sealed("challenge already processed")]).await;
    validator.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    let seen = until_proof(&validator, "c2").await;
    assert_eq!((seen.handshakes, seen.commitments), (1, vec!["c1".to_owned(), "c2".to_owned()]));
}
