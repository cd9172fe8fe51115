//! The default profile, `docs-90-10`, by hand-worked examples: what the public documents say (validator spec 5.5).

use std::collections::BTreeMap;

use byteleap_protocol::{hotkey::Hotkey, id::WorkerId};
use byteleap_scoring::{
    Facts, Outcome, Profile, ProfileName, Remedy, Round, Rules,
    facts::{ChallengeFacts, ComputeTime, LeaseScore, MinerFacts, PresenceDay, WorkerFacts},
    measure,
    presence::{Bucket, DayBits},
    raises,
    reason::{ChallengeZero, LeaseZero, MinerZero, WorkerZero},
    rules::{Overrides, Windows, ZeroRound},
    score,
};

const NOW_MS: i64 = 1_761_955_200_000;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Seen in every bucket from `hours` ago until now.
fn present_for(hours: i64) -> Vec<PresenceDay> {
    let mut days = BTreeMap::new();
    for ago_ms in (0..hours * HOUR_MS).step_by(300_000) {
        let bucket = Bucket::at(NOW_MS - ago_ms);
        days.entry(bucket.day()).or_insert(DayBits::EMPTY).insert(bucket);
    }
    days.into_iter().map(|(day, buckets)| PresenceDay { day, gpus: Default::default(), buckets }).collect()
}

/// A worker that was there all week and is there now.
fn idle() -> WorkerFacts {
    WorkerFacts { last_seen_ms: Some(NOW_MS), presence: present_for(169), ..WorkerFacts::default() }
}

fn leased(score: f64) -> WorkerFacts {
    WorkerFacts { lease: LeaseScore::new(score).expect("finite"), ..idle() }
}

/// A worker with so many passed challenges of so many milliseconds each.
fn challenged(successes: i64, ms: f64) -> WorkerFacts {
    let challenge = |k| ChallengeFacts {
        created_at_ms: NOW_MS - k * 4 * MINUTE_MS,
        passed: true,
        time: ComputeTime::from_ms(ms).ok(),
        units: 1,
        gpus: Default::default(),
    };
    WorkerFacts { challenges: (0..successes).map(challenge).collect(), ..idle() }
}

fn miner(uid: u16, workers: impl IntoIterator<Item = WorkerFacts>) -> (Hotkey, MinerFacts) {
    let named = |(index, worker)| (WorkerId::new(&format!("w{index}")).expect("a name"), worker);
    let workers = workers.into_iter().enumerate().map(named).collect();
    (Hotkey([uid.to_le_bytes()[0]; 32]), MinerFacts { uid: Some(uid), online: true, workers })
}

fn round_of(miners: impl IntoIterator<Item = (Hotkey, MinerFacts)>) -> Round {
    score(&Rules::default(), &Facts { now_ms: NOW_MS, miners: miners.into_iter().collect(), ..Facts::default() })
}

fn weights(round: &Round) -> Vec<f64> {
    round.miners.iter().map(|miner| (miner.weight * 1e6).round() / 1e6).collect()
}

#[test]
fn leases_make_nine_tenths_and_challenges_one() {
    let round = round_of([miner(0, [leased(1.0)]), miner(1, [challenged(36, 500.0)])]);
    assert_eq!(weights(&round), [0.9, 0.1]);
    assert_eq!(round.outcome, Outcome::Scored);
    assert_eq!(round.miners[0].challenge_zero, Some(ChallengeZero::NoPerformance));
    assert_eq!(round.miners[1].lease.zero, Some(LeaseZero::NoLease));
    assert_eq!(round.workers[0].zero, Some(WorkerZero::NoChallenge));
}

#[test]
fn the_profile_of_leases_alone_is_the_default_with_shares_of_one_and_nothing() {
    let alone = Profile::named(ProfileName::Docs1000);
    let changed = Profile { name: alone.name, lease_weight: 1.0, challenge_weight: 0.0, ..Profile::default() };
    assert_eq!(alone, changed);
    let rules = Rules::new(alone, Windows::default()).expect("rules");
    let miners = [miner(0, [leased(1.0)]), miner(1, [challenged(36, 500.0)]), miner(2, [leased(0.25)])];
    let facts = Facts { now_ms: NOW_MS, miners: miners.into(), ..Facts::default() };
    let round = score(&rules, &facts);
    assert_eq!(weights(&round), [0.8, 0.0, 0.2]);
    assert_eq!(round.miners[1].challenge, 1.0, "the challenge score is told, though it does not count");
    assert_eq!(round.miners[1].zero, Some(MinerZero::NotWeighed));
}

#[test]
fn ten_leased_machines_earn_ten_times_what_one_earns_and_idle_ones_cost_nothing() {
    let ten = (0..10).map(|_| leased(1.0)).chain((0..50).map(|_| idle()));
    assert_eq!(weights(&round_of([miner(0, ten), miner(1, [leased(1.0)])])), [0.909091, 0.090909]);
}

#[test]
fn lease_scores_are_told_apart_up_to_a_sum_of_a_hundred_over_a_hundred_workers() {
    let round = round_of([
        miner(0, (0..120).map(|_| leased(1.0))),
        miner(1, [leased(5_000.0)]),
        miner(2, (0..25).map(|_| leased(1.0))),
    ]);
    assert_eq!(round.miners.iter().map(|miner| miner.lease.value).collect::<Vec<_>>(), [1.0, 1.0, 0.25]);
    assert_eq!(round.miners[0].lease.workers, 100);
}

#[test]
fn a_lease_counts_only_while_its_worker_was_seen_within_thirty_minutes() {
    let seen = |minutes| WorkerFacts { last_seen_ms: Some(NOW_MS - minutes * MINUTE_MS), ..leased(1.0) };
    let round = round_of([miner(0, [seen(30)]), miner(1, [seen(31)])]);
    assert_eq!(weights(&round), [1.0, 0.0]);
    assert_eq!(round.miners[1].lease.zero, Some(LeaseZero::NotCounted));
}

#[test]
fn workers_rank_by_successes_up_to_the_baseline_and_then_by_speed() {
    let round = round_of([
        miner(0, [challenged(45, 900.0)]),
        miner(1, [challenged(36, 500.0)]),
        miner(2, [challenged(35, 1.0)]),
    ]);
    let ranks: Vec<u32> = round.workers.iter().map(|worker| worker.rank.expect("ranked").better).collect();
    assert_eq!(ranks, [1, 0, 2]);
    assert_eq!(round.miners[1].norm, 1.0);
}

#[test]
fn a_miner_adds_up_its_hundred_best_workers() {
    let round = round_of([miner(0, (0..120).map(|_| challenged(36, 500.0)))]);
    assert_eq!(round.workers.iter().filter(|worker| worker.counted).count(), 100);
    assert!((round.miners[0].raw - 100.0).abs() < 1e-9);
}

#[test]
fn availability_multiplies_the_whole_score() {
    let half = WorkerFacts { presence: present_for(169 / 2 + 1), ..leased(1.0) };
    let moved = WorkerFacts { address_changes: 1, ..leased(1.0) };
    let round = round_of([miner(0, [leased(1.0)]), miner(1, [half]), miner(2, [moved])]);
    let availability: Vec<f64> = round.miners.iter().map(|miner| miner.availability).collect();
    assert_eq!(availability, [1.0, 85.0 / 169.0, 0.5]);
    assert_eq!(round.miners[2].score, 0.45);
}

#[test]
fn a_miner_whose_addresses_keep_changing_scores_zero_and_is_told_so() {
    let moving = WorkerFacts { address_changes: 2, ..leased(1.0) };
    let round = round_of([miner(0, [moving.clone(), moving])]);
    assert_eq!(round.miners[0].zero, Some(MinerZero::AddressChanges));
}

#[test]
fn time_in_which_the_validator_saw_nobody_counts_against_nobody() {
    let fresh = WorkerFacts { presence: present_for(1), ..leased(1.0) };
    let round = round_of([miner(0, [fresh])]);
    assert_eq!((round.miners[0].presence.present, round.miners[0].presence.expected), (12, 12));
    assert_eq!(weights(&round), [1.0]);
}

#[test]
fn the_silence_of_the_only_miner_is_its_own_while_this_validator_was_scoring() {
    let day = |hours: i64| present_for(hours).into_iter().map(|day| (day.day, day.buckets)).collect();
    let facts = |miners: Vec<(Hotkey, MinerFacts)>, hours| Facts {
        now_ms: NOW_MS,
        miners: miners.into_iter().collect(),
        scoring: day(hours),
        ..Facts::default()
    };
    let was_there = |hours| WorkerFacts { presence: present_for(hours), ..leased(1.0) };
    let alone = score(&Rules::default(), &facts(vec![miner(0, [was_there(1)])], 4));
    assert_eq!((alone.miners[0].presence.present, alone.miners[0].presence.expected), (12, 48));
    let both = score(&Rules::default(), &facts(vec![miner(0, [was_there(1)]), miner(1, [was_there(2)])], 4));
    assert_eq!(both.miners[0].presence.expected, 24, "both were silent at once: that was us");
}

#[test]
fn offline_and_unregistered_miners_neither_score_nor_set_the_maximum() {
    let (offline_key, offline) = miner(1, [challenged(36, 1.0), leased(100.0)]);
    let (stranger_key, stranger) = miner(2, [challenged(36, 1.0), leased(100.0)]);
    let round = round_of([
        miner(0, [challenged(36, 900.0), leased(1.0)]),
        (offline_key, MinerFacts { online: false, ..offline }),
        (stranger_key, MinerFacts { uid: None, ..stranger }),
    ]);
    let scored = &round.miners[0];
    assert_eq!((scored.norm, scored.lease.value, scored.weight), (1.0, 1.0, 1.0));
    assert_eq!(round.miners[1].zero, Some(MinerZero::Offline));
    assert_eq!(round.miners.len(), 2);
    assert_eq!(round.workers.last().and_then(|worker| worker.zero), Some(WorkerZero::MinerNotScored));
}

#[test]
fn a_worker_over_the_limit_earns_nothing() {
    let spare = WorkerFacts { over_limit: true, lease: LeaseScore::new(1.0).expect("finite"), ..challenged(36, 1.0) };
    let round = round_of([miner(0, [spare])]);
    assert_eq!(round.workers[0].zero, Some(WorkerZero::OverLimit));
    assert_eq!(round.miners[0].zero, Some(MinerZero::NothingEarned));
}

#[test]
fn when_nobody_scored_the_profile_decides_and_the_documents_pay_nobody() {
    let facts = Facts { now_ms: NOW_MS, miners: [miner(0, [idle()])].into(), ..Facts::default() };
    for (zero_round, outcome, payable) in [
        (None, Outcome::Skipped, vec![]),
        (Some(ZeroRound::Uniform), Outcome::Uniform, vec![(0, 1.0)]),
        (Some(ZeroRound::Burn), Outcome::Burn, vec![]),
    ] {
        let profile = Profile::default().with(&Overrides { zero_round, ..Overrides::default() });
        let round = score(&Rules::new(profile, Windows::default()).expect("rules"), &facts);
        assert_eq!((round.outcome, round.payable()), (outcome, payable));
    }
}

#[test]
fn what_would_raise_a_weight_is_told_with_its_gain_the_largest_first() {
    let failing = WorkerFacts {
        challenges: challenged(10, 500.0)
            .challenges
            .into_iter()
            .enumerate()
            .map(|(k, challenge)| ChallengeFacts { passed: k > 2, ..challenge })
            .collect(),
        presence: present_for(157),
        ..idle()
    };
    let miners = [miner(0, [failing]), miner(1, [leased(1.0), challenged(36, 400.0)])];
    let facts = Facts { now_ms: NOW_MS, miners: miners.into(), ..Facts::default() };
    let rules = Rules::default();
    let measures = measure(rules.windows(), &facts);
    let raises = raises(rules.profile(), &measures, &Hotkey([0; 32]));
    let remedies: Vec<&Remedy> = raises.iter().map(|raise| &raise.remedy).collect();
    assert_eq!(remedies[0], &Remedy::Lease);
    assert!(
        remedies.iter().any(|remedy| matches!(remedy, Remedy::FullPresence { absent: 144..=145, .. })),
        "{remedies:?}"
    );
    assert!(raises.windows(2).all(|pair| pair[0].gain >= pair[1].gain) && raises.iter().all(|raise| raise.gain > 0.0));

    let mut better = facts.clone();
    if let Some(worker) = better.miners.values_mut().next().and_then(|miner| miner.workers.values_mut().next()) {
        worker.lease = LeaseScore::new(1.0).expect("finite");
    }
    let had = score(&rules, &better).miners[0].weight;
    assert_eq!((raises[0].weight, raises[0].gain), (had, had - score(&rules, &facts).miners[0].weight));
}

#[test]
fn a_round_survives_being_stored() {
    let round = round_of([miner(0, [leased(1.0), challenged(36, 500.0)]), miner(1, [challenged(3, 1.5)])]);
    let text = serde_json::to_string(&round).expect("plain data");
    assert_eq!(serde_json::from_str::<Round>(&text).expect("the same text"), round);
}
