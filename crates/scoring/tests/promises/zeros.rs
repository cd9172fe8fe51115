//! Every reason that a zero can have comes up in a round, with a sentence of its own, so that `explain` never shows a
//! zero without one. A new reason does not compile here before somebody says which facts bring it about.

use std::collections::BTreeSet;

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{GpuUuid, WorkerId},
};
use byteleap_scoring::{
    Facts, Profile, Round, Rules,
    facts::{ChallengeFacts, ComputeTime, GpuOwner, GpuSet, LeaseScore, MinerFacts, PresenceDay, WorkerFacts},
    presence::{Bucket, DayBits},
    reason::{ChallengeZero, LeaseZero, MinerZero, WorkerZero},
    rules::{AvailabilityScope, LeasedChallenge, Windows},
    score,
};

const NOW_MS: i64 = 1_761_955_200_000;
const MINER: Hotkey = Hotkey([1; 32]);

/// A round of one registered miner with one worker that is present and passed a challenge; then something is amiss.
struct Scene {
    profile: Profile,
    miner: MinerFacts,
    worker: WorkerFacts,
    gpus: Vec<(GpuUuid, GpuOwner)>,
}

impl Scene {
    fn faultless() -> Self {
        let mut buckets = DayBits::EMPTY;
        buckets.insert(Bucket::at(NOW_MS));
        let challenge = ChallengeFacts {
            created_at_ms: NOW_MS - 60_000,
            passed: true,
            time: ComputeTime::from_ms(500.0).ok(),
            units: 1,
            gpus: GpuSet::default(),
        };
        let worker = WorkerFacts {
            last_seen_ms: Some(NOW_MS),
            challenges: vec![challenge],
            presence: vec![PresenceDay { day: Bucket::at(NOW_MS).day(), gpus: GpuSet::default(), buckets }],
            ..WorkerFacts::default()
        };
        let miner = MinerFacts { uid: Some(0), online: true, ..MinerFacts::default() };
        Self { profile: Profile::default(), miner, worker, gpus: Vec::new() }
    }

    fn lease(&mut self) {
        self.worker.lease = LeaseScore::new(1.0).expect("finite");
    }

    fn round(mut self) -> Round {
        let worker_id: WorkerId = "w0".parse().expect("a worker id");
        self.miner.workers.insert(worker_id, self.worker);
        let facts = Facts {
            now_ms: NOW_MS,
            miners: [(MINER, self.miner)].into(),
            gpus: self.gpus.into_iter().collect(),
            ..Facts::default()
        };
        score(&Rules::new(self.profile, Windows::default()).expect("rules"), &facts)
    }
}

/// The round in which something is amiss.
fn round_with(amiss: impl FnOnce(&mut Scene)) -> Round {
    let mut scene = Scene::faultless();
    amiss(&mut scene);
    scene.round()
}

/// What brings a reason about, and the next reason.
type Case<R> = (Round, Option<R>);

fn worker_case(reason: WorkerZero) -> Case<WorkerZero> {
    use WorkerZero::*;
    match reason {
        OverLimit => (round_with(|scene| scene.worker.over_limit = true), Some(MinerNotScored)),
        MinerNotScored => (round_with(|scene| scene.miner.uid = None), Some(NoChallenge)),
        NoChallenge => (round_with(|scene| scene.worker.challenges.clear()), Some(ForeignGpu)),
        ForeignGpu => {
            let gpu = GpuUuid::new("GPU-1").expect("a uuid");
            let foreign = |scene: &mut Scene| {
                scene.worker.challenges[0].gpus = GpuSet::new(BTreeSet::from([gpu.clone()]));
                scene.gpus.push((gpu, GpuOwner { hotkey: Hotkey([2; 32]), last_seen_ms: NOW_MS }));
            };
            (round_with(foreign), Some(NoSuccess))
        }
        NoSuccess => (round_with(|scene| scene.worker.challenges[0].passed = false), Some(NoTime)),
        NoTime => {
            let no_time = |scene: &mut Scene| scene.worker.challenges[0].time = ComputeTime::from_ms(0.0).ok();
            (round_with(no_time), Some(NotPresent))
        }
        NotPresent => {
            let absent = |scene: &mut Scene| scene.worker.presence.clear();
            (
                round_with(|scene| {
                    by_worker(scene);
                    absent(scene);
                }),
                Some(AddressChanges),
            )
        }
        AddressChanges => (
            round_with(|scene| {
                by_worker(scene);
                scene.worker.address_changes = 4;
            }),
            None,
        ),
    }
}

/// A profile under which presence counts for each worker.
fn by_worker(scene: &mut Scene) {
    scene.profile.availability_scope = AvailabilityScope::WorkerChallenge;
}

fn challenge_case(reason: ChallengeZero) -> Case<ChallengeZero> {
    use ChallengeZero::*;
    match reason {
        Offline => (round_with(|scene| scene.miner.online = false), Some(NoPerformance)),
        NoPerformance => (round_with(|scene| scene.worker.challenges.clear()), Some(Leased)),
        Leased => {
            let leased = |scene: &mut Scene| {
                scene.profile.leased_challenge = LeasedChallenge::Zero;
                scene.lease();
            };
            (round_with(leased), None)
        }
    }
}

fn lease_case(reason: LeaseZero) -> Case<LeaseZero> {
    use LeaseZero::*;
    match reason {
        Offline => (round_with(|scene| scene.miner.online = false), Some(NoLease)),
        NoLease => (round_with(|_| ()), Some(NotCounted)),
        NotCounted => {
            let unseen = |scene: &mut Scene| {
                scene.lease();
                scene.worker.over_limit = true;
            };
            (round_with(unseen), None)
        }
    }
}

fn miner_case(reason: MinerZero) -> Case<MinerZero> {
    use MinerZero::*;
    match reason {
        Offline => (round_with(|scene| scene.miner.online = false), Some(NothingEarned)),
        NothingEarned => (round_with(|scene| scene.worker.challenges.clear()), Some(NotWeighed)),
        NotWeighed => {
            let unweighed = |scene: &mut Scene| {
                scene.profile.challenge_weight = 0.0;
                scene.profile.lease_weight = 1.0;
            };
            (round_with(unweighed), Some(NotPresent))
        }
        NotPresent => (round_with(|scene| scene.worker.presence.clear()), Some(AddressChanges)),
        AddressChanges => (round_with(|scene| scene.worker.address_changes = 4), None),
    }
}

#[test]
fn every_reason_of_a_zero_comes_up_in_a_round_with_a_sentence_of_its_own() {
    let mut sentences = BTreeSet::new();
    let mut next = Some(WorkerZero::OverLimit);
    while let Some(reason) = next {
        let (round, after) = worker_case(reason);
        assert_eq!((round.workers[0].zero, round.workers[0].performance), (Some(reason), 0.0));
        assert!(sentences.insert(("worker", reason.to_string())), "{reason}");
        next = after;
    }
    let mut next = Some(ChallengeZero::Offline);
    while let Some(reason) = next {
        let (round, after) = challenge_case(reason);
        assert_eq!((round.miners[0].challenge_zero, round.miners[0].challenge), (Some(reason), 0.0));
        assert!(sentences.insert(("challenge", reason.to_string())), "{reason}");
        next = after;
    }
    let mut next = Some(LeaseZero::Offline);
    while let Some(reason) = next {
        let (round, after) = lease_case(reason);
        assert_eq!((round.miners[0].lease.zero, round.miners[0].lease.value), (Some(reason), 0.0));
        assert!(sentences.insert(("lease", reason.to_string())), "{reason}");
        next = after;
    }
    let mut next = Some(MinerZero::Offline);
    while let Some(reason) = next {
        let (round, after) = miner_case(reason);
        assert_eq!((round.miners[0].zero, round.miners[0].score), (Some(reason), 0.0));
        assert!(sentences.insert(("miner", reason.to_string())), "{reason}");
        next = after;
    }
}

#[test]
fn what_is_faultless_is_no_zero() {
    let round = round_with(Scene::lease);
    assert_eq!((round.workers[0].zero, round.miners[0].zero), (None, None));
    assert_eq!((round.miners[0].challenge_zero, round.miners[0].lease.zero), (None, None));
}
