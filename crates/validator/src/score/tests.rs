//! Rounds over a real store, with the chain and the clock held by hand.

use byteleap_chain::{FixedChain, Hotkey, Metagraph, Neuron, Weights};
use byteleap_daemon::clock::ManualClock;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::id::{Iterations, MatrixSize, WorkerId};
use byteleap_scoring::reason::{LeaseZero, WorkerZero};
use byteleap_scoring::{Measures, Profile, ProfileName, weigh};

use super::explain::{Explanation, explain, explain_round};
use super::replay::replay;
use super::*;
use crate::challenge::state::{Failure, Verdict};
use crate::challenge::targets::Targets;
use crate::challenge::units::CommittedUnit;
use crate::store::challenge::{NewChallenge, NewCommitment};
use crate::store::heartbeat::Heartbeat;
use crate::store::lease::LeaseScore;
use crate::store::round::Lost;
use crate::store::testing::{beat, on_both_engines, store};
use crate::store::{ChallengeKey, WorkerKey};
use crate::weights::testing::{chain_rules, neuron};

const NOW_MS: i64 = 1_761_955_200_000;
const MINER: Hotkey = Hotkey([1; 32]);
const IDLE: Hotkey = Hotkey([2; 32]);
const STRANGER: Hotkey = Hotkey([9; 32]);

fn worker_id(id: &str) -> WorkerId {
    id.parse().unwrap()
}

async fn hear(store: &Store, hotkey: Hotkey, ids: &[&str], at_ms: i64) {
    let workers = ids.iter().map(|id| beat(id)).collect();
    let heartbeat = Heartbeat { hotkey, version: None, public_ip: None, workers, at_ms };
    store.record_heartbeat(&heartbeat).await.unwrap();
}

fn scorer(store: &Store, neurons: Vec<Neuron>) -> Scorer {
    let metagraph = Metagraph { netuid: 128, block: 500, owner_hotkey: Hotkey([7; 32]), neurons };
    Scorer {
        store: store.clone(),
        chain: Arc::new(FixedChain::new(metagraph, chain_rules())),
        netuid: 128,
        clock: Arc::new(ManualClock::new(NOW_MS)),
        rules: Rules::default().into(),
    }
}

async fn a_lease_and_presence_become_a_stored_weight_with_its_reasons() {
    let store = store().await;
    hear(&store, MINER, &["w0", "w1"], NOW_MS).await;
    hear(&store, IDLE, &["w0"], NOW_MS).await;
    let lease = LeaseScore::new(1.0).unwrap();
    store.set_lease(MINER, &worker_id("w0"), lease, "test", NOW_MS).await.unwrap();
    store.set_lease(IDLE, &worker_id("never-heard-of"), lease, "test", NOW_MS).await.unwrap();

    let (round, outcome) = scorer(&store, vec![neuron(0, MINER), neuron(1, IDLE)]).score_once().await.unwrap();

    assert_eq!(outcome, Outcome::Scored);
    let shares = store.shares_of(round).await.unwrap();
    assert_eq!(shares.iter().map(|share| (share.uid, share.weight)).collect::<Vec<_>>(), [(0, 1.0)]);
    let told = explain(&store, MINER).await.unwrap().unwrap();
    assert_eq!((told.round, told.block, told.workers.len()), (round, 500, 2));
    assert_eq!(told.workers[1].zero, Some(WorkerZero::NoChallenge));
    let idle = explain(&store, IDLE).await.unwrap().unwrap().miner.unwrap();
    assert_eq!(idle.lease.zero, Some(LeaseZero::NoLease));
}

fn challenge_of(store_key: WorkerKey, number: u32) -> NewChallenge {
    NewChallenge {
        id: format!("00000000-0000-4000-8000-{number:012}").parse().unwrap(),
        worker: store_key,
        kind: ChallengeKind::CpuMatrix,
        size: MatrixSize::new(2_000).unwrap(),
        iterations: Iterations::ONE,
        seed: "00".parse().unwrap(),
        round_id: "round_1".to_owned(),
        is_test: false,
    }
}

/// Hands the miner's next challenge out.
async fn send(store: &Store, challenge: NewChallenge) -> ChallengeKey {
    store.create_challenges(&[challenge], NOW_MS - 60_000, NOW_MS).await.unwrap();
    store.send_challenges(MINER, 1, NOW_MS - 50_000, NOW_MS).await.unwrap().remove(0).key
}

/// Answers a challenge and judges it.
async fn judge(store: &Store, challenge: ChallengeKey, verdict: Verdict) {
    let commitment = NewCommitment {
        units: vec![CommittedUnit::cpu("ab".repeat(32).parse().unwrap())],
        targets: Targets { rows: vec![1], coordinates: Vec::new() },
        at_ms: NOW_MS - 49_500,
        proof_deadline_at_ms: NOW_MS,
    };
    assert!(store.commit_challenge(challenge, &commitment).await.unwrap());
    assert!(store.accept_proof(challenge, b"proof", NOW_MS).await.unwrap());
    store.judge_oldest(verdict, NOW_MS).await;
}

async fn a_verified_challenge_becomes_a_performance_and_a_failed_one_an_attempt() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    let worker = store.workers().await.unwrap()[0].key;
    for (number, verdict) in [(1, Verdict::Verified), (2, Verdict::Failed(Failure::ProofLate))] {
        let challenge = send(&store, challenge_of(worker, number)).await;
        judge(&store, challenge, verdict).await;
    }

    let (round, _) = scorer(&store, vec![neuron(0, MINER)]).score_once().await.unwrap();

    let worker = store.worker_scores(round, MINER).await.unwrap().remove(0);
    assert_eq!((worker.attempts, worker.successes, worker.mean_ms), (2, 1, Some(500.0)));
    assert_eq!((worker.performance, worker.counted), (1.0, true));
    assert_eq!(store.shares_of(round).await.unwrap()[0].weight, 1.0);
}

async fn a_stored_round_reads_back_bit_for_bit_and_replays_under_any_profile() {
    let store = store().await;
    hear(&store, MINER, &["w0", "w1"], NOW_MS).await;
    hear(&store, IDLE, &["w0"], NOW_MS - 3 * 3_600_000).await;
    hear(&store, IDLE, &["w0"], NOW_MS).await;
    hear(&store, STRANGER, &["w0"], NOW_MS).await;
    store.set_lease(IDLE, &worker_id("w0"), LeaseScore::new(1.0 / 3.0).unwrap(), "test", NOW_MS).await.unwrap();
    let worker = store.workers().await.unwrap()[0].key;
    let challenge = send(&store, challenge_of(worker, 1)).await;
    judge(&store, challenge, Verdict::Verified).await;
    let scorer = scorer(&store, vec![neuron(0, MINER), neuron(1, IDLE)]);
    let metagraph = scorer.chain.metagraph(128).await.unwrap();
    let facts =
        facts::gather(&store, &mut Known::default(), &metagraph, scorer.rules.get().windows(), NOW_MS).await.unwrap();

    let (key, _) = scorer.score_once().await.unwrap();

    let stored = store.whole_round(&store.round(key).await.unwrap().unwrap()).await.unwrap().unwrap();
    assert_eq!(stored, score(&scorer.rules.get(), &facts));
    for name in [ProfileName::Docs9010, ProfileName::Docs1000, ProfileName::Reference005] {
        let rules = Rules::new(Profile::named(name), scorer.rules.get().windows().clone()).unwrap();
        assert_eq!(weigh(rules.profile(), &Measures::of(&stored)), score(&rules, &facts), "{name}");
    }
}

async fn what_is_kept_from_round_to_round_changes_no_number() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS - 26 * 3_600_000).await;
    hear(&store, MINER, &["w0"], NOW_MS - 600_000).await;
    let worker = store.workers().await.unwrap()[0].key;
    let scorer = scorer(&store, vec![neuron(0, MINER)]);
    let metagraph = scorer.chain.metagraph(128).await.unwrap();
    let rules = scorer.rules.get();
    let windows = rules.windows();
    let mut known = Known::default();
    let mut same = async |now_ms: i64| {
        let kept = facts::gather(&store, &mut known, &metagraph, windows, now_ms).await.unwrap();
        let fresh = facts::gather(&store, &mut Known::default(), &metagraph, windows, now_ms).await.unwrap();
        assert_eq!(kept, fresh);
        kept.miners[&MINER].workers[&worker_id("w0")].clone()
    };
    let (late, early) = (send(&store, challenge_of(worker, 1)).await, send(&store, challenge_of(worker, 2)).await);
    assert_eq!(same(NOW_MS).await.challenges.len(), 0);
    judge(&store, early, Verdict::Verified).await;
    assert_eq!(same(NOW_MS).await.challenges.len(), 1);
    judge(&store, late, Verdict::Verified).await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    let worker_now = same(NOW_MS).await;
    assert_eq!((worker_now.challenges.len(), worker_now.presence.len()), (2, 3));
    let third = send(&store, challenge_of(worker, 3)).await;
    judge(&store, third, Verdict::Failed(Failure::ProofLate)).await;
    assert_eq!(same(NOW_MS).await.challenges.len(), 3);
    assert_eq!(same(NOW_MS + 4 * 3_600_000).await.challenges.len(), 0, "the ranking window has passed");
    assert_eq!(same(NOW_MS + 150 * 3_600_000).await.presence.len(), 2);
}

async fn a_round_is_of_one_instant() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    let mut snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.miners().await.unwrap().len(), 1);
    hear(&store, IDLE, &["w0"], NOW_MS).await;
    assert_eq!(snapshot.workers().await.unwrap().len(), 1, "what comes later is not seen");
    drop(snapshot);
    assert_eq!(store.snapshot().await.unwrap().workers().await.unwrap().len(), 2);
}

async fn the_json_of_one_explanation_is_enough_for_its_composite_and_its_value_on_chain() {
    let store = store().await;
    let (rich, poor) = (MINER, IDLE);
    for (hotkey, score) in [(rich, 1.0), (poor, 0.25)] {
        hear(&store, hotkey, &["w0"], NOW_MS).await;
        store.set_lease(hotkey, &worker_id("w0"), LeaseScore::new(score).unwrap(), "test", NOW_MS).await.unwrap();
    }
    let (round, _) = scorer(&store, vec![neuron(0, rich), neuron(1, poor)]).score_once().await.unwrap();
    let shares = store.shares_of(round).await.unwrap();
    let shares: Vec<_> = shares.iter().map(|share| (share.uid, share.weight)).collect();
    let emitted = Weights::emit(&shares, 0).unwrap().unwrap();

    for (hotkey, (_, on_chain)) in [rich, poor].into_iter().zip(emitted.pairs()) {
        let told = explain(&store, hotkey).await.unwrap().unwrap();
        let told: serde_json::Value = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
        let (profile, miner) = (&told["rules"]["profile"], &told["miner"]);
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let composite = number(&profile["challenge_weight"]) * number(&miner["challenge"])
            + number(&profile["lease_weight"]) * number(&miner["lease"]["value"]);
        assert_eq!(composite, number(&miner["composite"]));
        assert_eq!(composite * number(&miner["availability"]), number(&miner["score"]));
        let value = number(&miner["weight"]) / number(&told["top_weight"]) * 65_535.0;
        assert_eq!(value.round_ties_even(), f64::from(on_chain));
    }
    assert_eq!(emitted.values(), [65_535, 16_384]);
}

async fn an_explanation_tells_what_did_not_pass_and_what_was_refused() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    let challenge = challenge_of(store.workers().await.unwrap()[0].key, 1);
    store.create_challenges(&[challenge], NOW_MS - 60_000, NOW_MS).await.unwrap();
    store.send_challenges(MINER, 1, NOW_MS - 50_000, NOW_MS - 1).await.unwrap();
    store.sweep_challenges(NOW_MS, 0, 0).await.unwrap();
    store.record_refusal(MINER, "expired", "commitment: Challenge expired", NOW_MS).await.unwrap();
    scorer(&store, vec![neuron(3, MINER)]).score_once().await.unwrap();

    let told = explain(&store, MINER).await.unwrap().unwrap();
    let text = told.to_string();
    for line in [
        "  2025-11-01T00:00:00Z w0: challenge 00000000-0000-4000-8000-000000000001 failed, commitment_late: no commitment \
         before the deadline",
        "  expired: 1 time, last 2025-11-01T00:00:00Z: commitment: Challenge expired",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!((&json["missed"][0]["code"], &json["refusals"][0]["times"]), (&"commitment_late".into(), &1.into()));
}

async fn an_explanation_names_every_factor_and_the_reason_of_a_zero() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    hear(&store, STRANGER, &["w0"], NOW_MS).await;
    scorer(&store, vec![neuron(3, MINER)]).score_once().await.unwrap();

    let text = explain(&store, MINER).await.unwrap().unwrap().to_string();
    for line in [
        "round         1 of 2025-11-01T00:00:00Z, block 500, profile docs-90-10, skipped",
        "uid           3 (online)",
        "score         0.000000 = composite 0.000000 x availability 1.000000: no lease and no challenge score",
        "lease         0.000000 = 0 over 0 (largest of the round), 1 worker counted: no worker is leased",
        "availability  1.000000 = 1 of 1 five-minute bucket x 1 for 0 address changes",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    let stranger = explain(&store, STRANGER).await.unwrap().unwrap();
    assert!(stranger.miner.is_none() && stranger.to_string().contains("not registered"), "{stranger}");
    let json = serde_json::to_value(&stranger).unwrap();
    assert_eq!(json["workers"][0]["zero"], "miner_not_scored");
}

async fn an_explanation_tells_what_changed_and_what_would_raise_the_weight() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    hear(&store, IDLE, &["w0", "w1"], NOW_MS).await;
    for hotkey in [MINER, IDLE] {
        store.set_lease(hotkey, &worker_id("w0"), LeaseScore::new(1.0).unwrap(), "test", NOW_MS).await.unwrap();
    }
    let scorer = scorer(&store, vec![neuron(0, MINER), neuron(1, IDLE)]);
    scorer.score_once().await.unwrap();
    store.set_lease(IDLE, &worker_id("w0"), LeaseScore::new(0.0).unwrap(), "test", NOW_MS).await.unwrap();
    scorer.score_once().await.unwrap();

    let told = explain(&store, IDLE).await.unwrap().unwrap();

    let since = told.since.as_ref().unwrap();
    assert_eq!(since.round, RoundKey(1));
    let text = told.to_string();
    for line in [
        "  w0: lease 1.000000 -> 0.000000: its lease ended",
        "  weight 0.500000 -> 0.000000: its share of all scores, those of others included",
        "  +0.500000 (to 0.500000): w0 has no lease: one of score 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
    let first = explain_round(&store, IDLE, store.round(RoundKey(1)).await.unwrap().unwrap()).await.unwrap();
    assert_eq!((first.round, first.since.is_none(), first.miner.unwrap().weight), (RoundKey(1), true, 0.5));
}

async fn what_is_lost_of_a_round_is_said_and_not_told_as_none() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS).await;
    let scorer = scorer(&store, vec![neuron(0, MINER)]);
    let (one, _) = scorer.score_once().await.unwrap();
    let (two, _) = scorer.score_once().await.unwrap();
    let told = async |key| explain_round(&store, MINER, store.round(key).await.unwrap().unwrap()).await.unwrap();
    let has = |told: &Explanation, line: &str| {
        let text = told.to_string();
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}\nis not in\n{text}");
    };
    let first = told(one).await;
    has(&first, "workers       1");
    has(&first, "changed       nothing to compare with: there is no round before it");
    has(&told(two).await, "changed       0 factors since round 1 of 2025-11-01T00:00:00Z");

    store.lose_workers(one, Lost::OlderVersion).await;
    let first = told(one).await;
    assert_eq!((first.lost, first.raises.is_none()), (Some(Lost::OlderVersion), true));
    has(&first, "workers       not known of this round: an older version of this program scored it");
    has(&first, "would raise   not known of this round");
    let second = told(two).await;
    assert_eq!((second.lost, second.since.as_ref().unwrap().changes.is_none()), (None, true));
    has(&second, "changed       not known: the workers of this round or of round 1");

    store.lose_workers(two, Lost::Forgotten).await;
    has(&told(two).await, "workers       not known of this round: its workers are forgotten: they are kept for");
    assert_eq!(serde_json::to_value(told(two).await).unwrap()["lost"], "forgotten");
    for (round, why) in [(one, "an older version"), (two, "its workers are forgotten")] {
        let refused = replay(&store, Some(round), &Profile::default()).await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("round {} cannot be scored again: {why}", round.0)), "{refused}");
    }
}

async fn a_miner_silent_for_half_an_hour_is_offline() {
    let store = store().await;
    hear(&store, MINER, &["w0"], NOW_MS - 30 * 60_000 - 1).await;
    scorer(&store, vec![neuron(0, MINER)]).score_once().await.unwrap();
    assert!(!explain(&store, MINER).await.unwrap().unwrap().miner.unwrap().online);
}

async fn without_a_metagraph_there_is_no_round() {
    let store = store().await;
    let scorer = Scorer { netuid: 1, ..scorer(&store, vec![]) };
    assert!(matches!(scorer.score_once().await, Err(ScoreError::Chain(_))));
    assert_eq!(store.latest_round().await.unwrap(), None);
    assert_eq!(explain(&store, MINER).await.unwrap(), None);
}

on_both_engines!(
    what_is_lost_of_a_round_is_said_and_not_told_as_none,
    a_lease_and_presence_become_a_stored_weight_with_its_reasons,
    a_verified_challenge_becomes_a_performance_and_a_failed_one_an_attempt,
    a_stored_round_reads_back_bit_for_bit_and_replays_under_any_profile,
    what_is_kept_from_round_to_round_changes_no_number,
    a_round_is_of_one_instant,
    the_json_of_one_explanation_is_enough_for_its_composite_and_its_value_on_chain,
    an_explanation_tells_what_did_not_pass_and_what_was_refused,
    an_explanation_names_every_factor_and_the_reason_of_a_zero,
    an_explanation_tells_what_changed_and_what_would_raise_the_weight,
    a_miner_silent_for_half_an_hour_is_offline,
    without_a_metagraph_there_is_no_round,
);
