//! What holds for any facts: weights are shares, order does not matter, and doing better never pays less.

use std::collections::BTreeSet;

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{GpuUuid, WorkerId},
};
use byteleap_scoring::{
    Facts, Measures, Outcome, Profile, ProfileName, Round, Rules,
    facts::{ChallengeFacts, ComputeTime, GpuOwner, GpuSet, LeaseScore, MinerFacts, PresenceDay, WorkerFacts},
    presence::{Bucket, DayBits},
    rules::Windows,
    score, weigh,
};
use proptest::{collection::vec, prelude::*};

const NOW_MS: i64 = 1_761_955_200_000;

fn gpu(name: u8) -> GpuUuid {
    GpuUuid::new(&format!("GPU-{name}")).expect("a uuid")
}

fn gpu_set() -> impl Strategy<Value = BTreeSet<GpuUuid>> {
    vec(0..4_u8, 0..3).prop_map(|names| names.into_iter().map(gpu).collect())
}

fn challenge() -> impl Strategy<Value = ChallengeFacts> {
    let ms =
        prop_oneof![4 => 1.0..5_000.0, 1 => Just(0.0), 1 => Just(ComputeTime::MAX_MS), 1 => Just(f64::MIN_POSITIVE)];
    let passed = proptest::bool::weighted(0.8);
    let gpus = prop_oneof![3 => Just(BTreeSet::new()), 1 => gpu_set()];
    (0..13_000_000_i64, passed, proptest::option::weighted(0.9, ms), 0..9_u32, gpus).prop_map(
        |(ago_ms, passed, ms, units, gpus)| ChallengeFacts {
            created_at_ms: NOW_MS - ago_ms,
            passed,
            time: ms.and_then(|ms| ComputeTime::from_ms(ms).ok()),
            units,
            gpus: gpus.into(),
        },
    )
}

fn presence() -> impl Strategy<Value = PresenceDay> {
    (0..9_i64, gpu_set(), any::<[u8; 32]>()).prop_map(|(days_ago, gpus, bits)| {
        let mut bytes = [0; DayBits::BYTES];
        bytes[..32].copy_from_slice(&bits);
        PresenceDay { day: Bucket::at(NOW_MS).day() - days_ago, gpus: gpus.into(), buckets: DayBits::from_bytes(bytes) }
    })
}

fn worker() -> impl Strategy<Value = WorkerFacts> {
    let lease = prop_oneof![3 => Just(0.0), 3 => 0.0..2.0, 1 => any::<f64>()];
    let seen = proptest::option::of((0..3_600_000_i64).prop_map(|ago_ms| NOW_MS - ago_ms));
    (seen, proptest::bool::weighted(0.1), lease, vec(challenge(), 0..6), vec(presence(), 0..4), 0..5_u32).prop_map(
        |(last_seen_ms, over_limit, lease, challenges, presence, address_changes)| WorkerFacts {
            last_seen_ms,
            over_limit,
            lease: LeaseScore::new(lease).unwrap_or_default(),
            challenges,
            presence,
            address_changes,
        },
    )
}

/// Facts of a few miners, some of them offline, unregistered or without workers.
pub(super) fn facts() -> impl Strategy<Value = Facts> {
    let miner = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.8), vec(worker(), 0..4));
    let owners = vec((0..6_u8, 0..13_000_000_i64), 4);
    (vec(miner, 0..6), owners).prop_map(|(miners, owners)| {
        let named = |(index, worker)| (WorkerId::new(&format!("w{index}")).expect("a name"), worker);
        let miners = (0_u8..).zip(miners).map(|(index, (registered, online, workers))| {
            let workers = workers.into_iter().enumerate().map(named).collect();
            (Hotkey([index; 32]), MinerFacts { uid: registered.then_some(u16::from(index)), online, workers })
        });
        let owner = |(miner, ago_ms)| GpuOwner { hotkey: Hotkey([miner; 32]), last_seen_ms: NOW_MS - ago_ms };
        Facts {
            now_ms: NOW_MS,
            miners: miners.collect(),
            gpus: (0..).map(gpu).zip(owners.into_iter().map(owner)).collect(),
            scoring: Vec::new(),
        }
    })
}

/// Each of the named profiles.
pub(super) fn rules() -> impl Strategy<Value = Rules> {
    proptest::sample::select(vec![ProfileName::Docs9010, ProfileName::Docs1000, ProfileName::Reference005])
        .prop_map(|name| Rules::new(Profile::named(name), Windows::default()).expect("rules"))
}

fn weight_of(round: &Round, hotkey: &Hotkey) -> f64 {
    round.miners.iter().find(|miner| miner.hotkey == *hotkey).map_or(0.0, |miner| miner.weight)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn weights_are_shares_of_one_or_there_are_none(rules in rules(), facts in facts()) {
        let round = score(&rules, &facts);
        let sum: f64 = round.miners.iter().map(|miner| miner.weight).sum();
        match round.outcome {
            Outcome::Scored | Outcome::Uniform => prop_assert!((sum - 1.0).abs() < 1e-9, "sum is {sum}"),
            Outcome::Skipped | Outcome::Burn => prop_assert_eq!(sum, 0.0),
        }
        for miner in &round.miners {
            for share in [miner.norm, miner.challenge, miner.lease.value, miner.availability, miner.presence.value, miner.weight] {
                prop_assert!((0.0..=1.0).contains(&share), "{miner:?}");
            }
            prop_assert!(miner.raw.is_finite() && miner.lease.sum.is_finite() && miner.score.is_finite());
            prop_assert_eq!(miner.zero.is_some(), miner.score == 0.0, "{:?}", miner);
            prop_assert_eq!(miner.challenge_zero.is_some(), miner.challenge == 0.0, "{:?}", miner);
            prop_assert_eq!(miner.lease.zero.is_some(), miner.lease.value == 0.0, "{:?}", miner);
        }
        for worker in &round.workers {
            prop_assert!(worker.performance.is_finite() && worker.performance >= 0.0);
            prop_assert_eq!(worker.zero.is_some(), worker.performance == 0.0, "{:?}", worker);
        }
    }

    #[test]
    fn a_round_read_back_is_replayed_bit_for_bit_under_any_profile(rules in rules(), other in rules(), facts in facts()) {
        let text = serde_json::to_string(&score(&rules, &facts)).expect("plain data");
        let stored: Round = serde_json::from_str(&text).expect("the same text");
        prop_assert_eq!(&weigh(rules.profile(), &Measures::of(&stored)), &stored);
        prop_assert_eq!(weigh(other.profile(), &Measures::of(&stored)), score(&other, &facts));
    }

    #[test]
    fn the_order_in_which_facts_were_gathered_does_not_matter(rules in rules(), facts in facts()) {
        let mut reversed = facts.clone();
        for worker in reversed.miners.values_mut().flat_map(|miner| miner.workers.values_mut()) {
            worker.challenges.reverse();
            worker.presence.reverse();
        }
        prop_assert_eq!(score(&rules, &facts), score(&rules, &reversed));
    }

    #[test]
    fn below_the_baseline_more_successes_never_score_less(counts in vec((1..36_usize, 1.0..5_000.0_f64), 2..8)) {
        let worker = |(n, ms): &(usize, f64)| WorkerFacts {
            challenges: vec![
                ChallengeFacts {
                    created_at_ms: NOW_MS,
                    passed: true,
                    time: ComputeTime::from_ms(*ms).ok(),
                    units: 1,
                    gpus: GpuSet::default(),
                };
                *n
            ],
            ..WorkerFacts::default()
        };
        let miners = (0_u16..).zip(&counts).map(|(uid, count)| {
            let workers = [(WorkerId::new("w").expect("a name"), worker(count))].into();
            (Hotkey([uid.to_le_bytes()[0]; 32]), MinerFacts { uid: Some(uid), online: true, workers })
        });
        let facts = Facts { now_ms: NOW_MS, miners: miners.collect(), ..Facts::default() };
        let round = score(&Rules::default(), &facts);
        for one in &round.workers {
            for other in &round.workers {
                prop_assert!(one.successes <= other.successes || one.performance >= other.performance, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_higher_lease_score_never_lowers_its_miners_weight(facts in facts(), more in 0.0..3.0_f64) {
        let rules = Rules::default();
        let before = score(&rules, &facts);
        for hotkey in facts.miners.keys() {
            let mut better = facts.clone();
            for worker in better.miners.get_mut(hotkey).into_iter().flat_map(|miner| miner.workers.values_mut()) {
                worker.lease = LeaseScore::new(worker.lease.get() + more).unwrap_or(worker.lease);
            }
            prop_assert!(weight_of(&score(&rules, &better), hotkey) >= weight_of(&before, hotkey) - 1e-12);
        }
    }

    #[test]
    fn being_seen_more_never_lowers_a_miners_own_weight(facts in facts(), day in presence()) {
        let rules = Rules::default();
        let before = score(&rules, &facts);
        for hotkey in facts.miners.keys() {
            let mut better = facts.clone();
            if let Some(worker) = better.miners.get_mut(hotkey).and_then(|miner| miner.workers.values_mut().next()) {
                worker.presence.push(day.clone());
            }
            prop_assert!(weight_of(&score(&rules, &better), hotkey) >= weight_of(&before, hotkey) - 1e-12);
        }
    }
}
