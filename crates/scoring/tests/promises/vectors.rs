//! `vectors/scoring.json`: rounds that the reference computed, read as facts, scored and compared number by number.

use std::collections::{BTreeMap, BTreeSet};

use byteleap_chain::{Weights, cap_largest_share};
use byteleap_protocol::{
    hotkey::Hotkey,
    id::{GpuUuid, WorkerId},
};
use byteleap_scoring::{
    Facts, Profile, ProfileName, Round, Rules,
    facts::{ChallengeFacts, ComputeTime, GpuOwner, LeaseScore, MinerFacts, PresenceDay, WorkerFacts},
    performance::rank_score,
    presence::{Bucket, DayBits},
    rules::{AvailabilityScope, Overrides, Windows},
    score,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    now_unix: i64,
    float_tolerance_rel: f64,
    scenarios: Vec<Scenario>,
    ranked_mode_scores: Vec<RankedScores>,
    u16_emit: Vec<Emission>,
    process_weights: Vec<Processing>,
}

#[derive(Deserialize)]
struct Emission {
    uids: Vec<u16>,
    weights: Vec<f64>,
    out_uids: Vec<u16>,
    out_u16: Vec<u16>,
}

#[derive(Deserialize)]
struct Processing {
    weights: Vec<f64>,
    min_allowed_weights: usize,
    max_weight_limit: f64,
    out_emit_uids: Vec<u16>,
    out_emit_u16: Vec<u16>,
}

#[derive(Deserialize)]
struct RankedScores {
    total: usize,
    scores: Vec<f64>,
}

#[derive(Deserialize)]
struct Scenario {
    name: String,
    config: Config,
    metagraph: Vec<String>,
    miners: Vec<Miner>,
    workers: Vec<Worker>,
    #[serde(default)]
    gpus: Vec<Gpu>,
    #[serde(default)]
    heartbeat_runs: Vec<HeartbeatRun>,
    #[serde(default)]
    challenges: Vec<ChallengeRun>,
    expect: Expect,
    expect_miner_composite_scope: Option<ExpectComposite>,
}

#[derive(Deserialize)]
struct Config {
    challenge_interval: u32,
    participation_rate_threshold: f64,
    ranking_window_minutes: u32,
    availability_window_hours: u32,
    lease_weight: f64,
    challenge_weight: f64,
}

#[derive(Deserialize)]
struct Miner {
    hotkey: String,
    is_online: Option<bool>,
}

#[derive(Deserialize)]
struct Worker {
    hotkey: String,
    worker_id: String,
    #[serde(default)]
    lease_score: f64,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct Gpu {
    gpu_uuid: String,
    hotkey: String,
    #[serde(default)]
    last_seen_s_ago: i64,
}

#[derive(Deserialize)]
struct HeartbeatRun {
    hotkey: String,
    worker_id: String,
    first_s_ago: i64,
    last_s_ago: i64,
    step_s: i64,
    public_ip: Option<String>,
    #[serde(default)]
    gpu_uuids: Vec<String>,
}

#[derive(Deserialize)]
struct ChallengeRun {
    hotkey: String,
    worker_id: String,
    repeat: i64,
    first_s_ago: i64,
    every_s: i64,
    computation_time_ms: Option<f64>,
    success_count: Option<u32>,
    #[serde(default)]
    gpu_uuids: Vec<String>,
    #[serde(default = "verified")]
    status: String,
    #[serde(default = "yes")]
    is_success: Option<bool>,
    #[serde(default = "yes")]
    verification_result: Option<bool>,
}

fn verified() -> String {
    "verified".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "the default of a field that may be null")]
fn yes() -> Option<bool> {
    Some(true)
}

#[derive(Deserialize)]
struct Expect {
    workers: BTreeMap<String, ExpectWorker>,
    miners: BTreeMap<String, ExpectMiner>,
    u16: Option<Vec<(u16, u16)>>,
    report_worker_scores: BTreeMap<String, f64>,
    #[serde(default)]
    workers_sample_only: bool,
}

#[derive(Deserialize)]
struct ExpectWorker {
    successes: u32,
    attempts: u32,
    avg_time_per_unit_ms: f64,
    avg_units: f64,
    baseline_expected: f64,
    participation: f64,
    availability: f64,
    performance_score: f64,
}

#[derive(Deserialize)]
struct ExpectMiner {
    raw_challenge: f64,
    challenge_score: f64,
    lease_score: f64,
    availability_reported: f64,
    weight: f64,
}

#[derive(Deserialize)]
struct ExpectComposite {
    miners: BTreeMap<String, ExpectCompositeMiner>,
    u16: Vec<(u16, u16)>,
}

#[derive(Deserialize)]
struct ExpectCompositeMiner {
    availability: f64,
    composite: f64,
    score: f64,
    weight: f64,
}

fn file() -> File {
    serde_json::from_str(include_str!("../vectors/scoring.json")).expect("the vectors have the shape written here")
}

fn hotkey(name: &str) -> Hotkey {
    Hotkey([name.as_bytes()[0]; 32])
}

fn worker_id(name: &str) -> WorkerId {
    WorkerId::new(name).expect("a name")
}

fn gpus(names: &[String]) -> BTreeSet<GpuUuid> {
    names.iter().map(|name| GpuUuid::new(name).expect("a uuid")).collect()
}

/// Presence and address changes of one worker, as the heartbeat intake of the validator keeps them.
fn presence<'a>(runs: impl Iterator<Item = &'a HeartbeatRun>, now_ms: i64) -> (Vec<PresenceDay>, u32) {
    let mut beats: Vec<(i64, &HeartbeatRun)> = runs
        .flat_map(|run| {
            (0..)
                .map(|k| run.first_s_ago - k * run.step_s)
                .take_while(|ago| *ago >= run.last_s_ago)
                .map(move |ago| (ago, run))
        })
        .collect();
    beats.sort_by_key(|(ago, _)| -ago);
    let mut days: BTreeMap<(i64, BTreeSet<GpuUuid>), DayBits> = BTreeMap::new();
    for (ago, run) in &beats {
        let bucket = Bucket::at(now_ms - ago * 1_000);
        days.entry((bucket.day(), gpus(&run.gpu_uuids))).or_insert(DayBits::EMPTY).insert(bucket);
    }
    let mut addresses: Vec<&str> = beats.iter().filter_map(|(_, run)| run.public_ip.as_deref()).collect();
    addresses.dedup();
    let changes = u32::try_from(addresses.len().saturating_sub(1)).expect("few changes");
    (days.into_iter().map(|((day, gpus), buckets)| PresenceDay { day, gpus: gpus.into(), buckets }).collect(), changes)
}

/// What the validator would have stored of a run of challenges; only verified ones have a verdict.
fn challenges(run: &ChallengeRun, now_ms: i64) -> Vec<ChallengeFacts> {
    if run.status != "verified" {
        return Vec::new();
    }
    let fact = |k| ChallengeFacts {
        created_at_ms: now_ms - (run.first_s_ago - k * run.every_s) * 1_000,
        passed: run.is_success == Some(true) && run.verification_result == Some(true),
        time: run.computation_time_ms.map(|ms| ComputeTime::from_ms(ms).expect("a time")),
        units: run.success_count.unwrap_or(0),
        gpus: gpus(&run.gpu_uuids).into(),
    };
    (0..run.repeat).map(fact).collect()
}

impl Scenario {
    fn facts(&self, now_ms: i64) -> Facts {
        let uid = |name: &str| self.metagraph.iter().position(|member| member == name).map(|uid| uid as u16);
        let mut miners: BTreeMap<Hotkey, MinerFacts> = self
            .miners
            .iter()
            .map(|miner| {
                let online = miner.is_online.unwrap_or(true);
                (hotkey(&miner.hotkey), MinerFacts { uid: uid(&miner.hotkey), online, workers: BTreeMap::new() })
            })
            .collect();
        for worker in self.workers.iter().filter(|worker| !worker.deleted) {
            let is_own = |owner: &str, id: &str| owner == worker.hotkey && id == worker.worker_id;
            let runs = self.heartbeat_runs.iter().filter(|run| is_own(&run.hotkey, &run.worker_id));
            let last_seen_ms = runs.clone().map(|run| now_ms - run.last_s_ago * 1_000).max();
            let (presence, address_changes) = presence(runs, now_ms);
            let own_challenges = self.challenges.iter().filter(|run| is_own(&run.hotkey, &run.worker_id));
            let facts = WorkerFacts {
                last_seen_ms,
                over_limit: false,
                lease: LeaseScore::new(worker.lease_score).expect("a score"),
                challenges: own_challenges.flat_map(|run| challenges(run, now_ms)).collect(),
                presence,
                address_changes,
            };
            let miner = miners.get_mut(&hotkey(&worker.hotkey)).expect("a worker of a miner");
            miner.workers.insert(worker_id(&worker.worker_id), facts);
        }
        let owner =
            |gpu: &Gpu| GpuOwner { hotkey: hotkey(&gpu.hotkey), last_seen_ms: now_ms - gpu.last_seen_s_ago * 1_000 };
        let gpus = self.gpus.iter().map(|gpu| (GpuUuid::new(&gpu.gpu_uuid).expect("a uuid"), owner(gpu))).collect();
        Facts { now_ms, miners, gpus, ..Facts::default() }
    }

    fn windows(&self) -> Windows {
        Windows {
            ranking_minutes: self.config.ranking_window_minutes,
            challenge_interval_s: self.config.challenge_interval,
            participation_threshold: self.config.participation_rate_threshold,
            availability_hours: self.config.availability_window_hours,
        }
    }

    fn round(&self, now_ms: i64, name: ProfileName, set: &Overrides) -> Round {
        let set = Overrides {
            lease_weight: Some(self.config.lease_weight),
            challenge_weight: Some(self.config.challenge_weight),
            ..set.clone()
        };
        let rules = Rules::new(Profile::named(name).with(&set), self.windows()).expect("rules");
        score(&rules, &self.facts(now_ms))
    }
}

/// The chain's 16-bit values of a round (chain spec 5.3, `emit`), by uid.
fn emitted(round: &Round) -> Option<Vec<(u16, u16)>> {
    let weights = Weights::emit(&round.payable(), 0).expect("a round's weights are shares");
    weights.map(|weights| weights.pairs().collect())
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{what}: {found} instead of {expected}");
}

#[test]
fn the_reference_profile_computes_what_the_reference_computed() {
    let file = file();
    let near = |what: &str, found, expected| close(what, found, expected, file.float_tolerance_rel);
    assert_eq!(file.scenarios.len(), 22);
    for scenario in &file.scenarios {
        let name = &scenario.name;
        let round = scenario.round(file.now_unix * 1_000, ProfileName::Reference005, &Overrides::default());
        for worker in &round.workers {
            let key = format!("{}:{}", char::from(worker.hotkey.0[0]), worker.worker_id);
            let what = |number: &str| format!("{name} {key} {number}");
            let Some(expect) = scenario.expect.workers.get(&key) else {
                if !scenario.expect.workers_sample_only {
                    assert_eq!((worker.successes, worker.performance), (0, 0.0), "{}", what("is not ranked"));
                }
                continue;
            };
            assert_eq!((worker.attempts, worker.successes), (expect.attempts, expect.successes), "{}", what("counts"));
            near(&what("mean time"), worker.mean_ms.expect("successes"), expect.avg_time_per_unit_ms);
            near(&what("mean units"), worker.mean_units.expect("successes"), expect.avg_units);
            near(&what("baseline"), round.baseline, expect.baseline_expected);
            near(&what("participation"), worker.participation, expect.participation);
            near(&what("availability"), worker.availability.value, expect.availability);
            near(&what("performance"), worker.performance, expect.performance_score);
            assert_eq!(worker.zero.is_some(), worker.performance == 0.0, "{}", what("zero has a reason"));
            let best = round.workers.iter().map(|worker| worker.performance).fold(0.0, f64::max);
            let reported = if best > 0.0 { (worker.performance / best * 1e6).round() / 1e6 } else { 0.0 };
            near(&what("report"), reported, scenario.expect.report_worker_scores[&key]);
        }
        assert_eq!(round.miners.len(), scenario.expect.miners.len(), "{name}");
        for miner in &round.miners {
            let key = char::from(miner.hotkey.0[0]).to_string();
            let what = |number: &str| format!("{name} {key} {number}");
            let expect = &scenario.expect.miners[&key];
            near(&what("raw"), miner.raw, expect.raw_challenge);
            near(&what("challenge"), miner.challenge, expect.challenge_score);
            near(&what("lease"), miner.lease.value, expect.lease_score);
            near(&what("availability"), miner.availability, expect.availability_reported);
            near(&what("weight"), miner.weight, expect.weight);
            assert_eq!(miner.zero.is_some(), miner.score == 0.0, "{}", what("zero has a reason"));
        }
        assert_eq!(emitted(&round), scenario.expect.u16, "{name}");
    }
}

#[test]
fn availability_over_the_whole_score_computes_what_the_older_release_computed() {
    let file = file();
    let near = |what: &str, found, expected| close(what, found, expected, file.float_tolerance_rel);
    let composite_scope =
        Overrides { availability_scope: Some(AvailabilityScope::MinerComposite), ..Overrides::default() };
    let mut seen = 0;
    for scenario in &file.scenarios {
        let Some(expect) = &scenario.expect_miner_composite_scope else { continue };
        seen += 1;
        // The documented profiles agree here: everybody leases one worker, and the validator itself was never down.
        for (profile, set) in [
            (ProfileName::Reference005, &composite_scope),
            (ProfileName::Docs9010, &Overrides::default()),
            (ProfileName::Docs1000, &Overrides::default()),
        ] {
            let round = scenario.round(file.now_unix * 1_000, profile, set);
            for miner in &round.miners {
                let key = char::from(miner.hotkey.0[0]).to_string();
                let what = |number: &str| format!("{} {profile} {key} {number}", scenario.name);
                let expect = &expect.miners[&key];
                near(&what("availability"), miner.availability, expect.availability);
                near(&what("composite"), miner.composite, expect.composite);
                near(&what("score"), miner.score, expect.score);
                near(&what("weight"), miner.weight, expect.weight);
            }
            assert_eq!(emitted(&round).as_ref(), Some(&expect.u16), "{} {profile}", scenario.name);
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn ranks_score_as_recorded() {
    for RankedScores { total, scores } in file().ranked_mode_scores {
        for (rank, expected) in scores.into_iter().enumerate() {
            close(&format!("rank {rank} of {total}"), rank_score(rank, total), expected, 1e-12);
        }
    }
}

#[test]
fn weights_become_integers_as_recorded() {
    let emit = |pairs: &[(u16, f64)]| {
        let weights = Weights::emit(pairs, 0).expect("weights");
        weights.map(|weights| (weights.uids().to_vec(), weights.values().to_vec())).unwrap_or_default()
    };
    let file = file();
    assert_eq!(file.u16_emit.len(), 9);
    for Emission { uids, weights, out_uids, out_u16 } in file.u16_emit {
        let pairs: Vec<_> = uids.into_iter().zip(weights).collect();
        assert_eq!(emit(&pairs), (out_uids, out_u16), "{pairs:?}");
    }
    let mut seen = 0;
    for case in file.process_weights {
        let paid: Vec<(u16, f64)> = (0..).zip(case.weights).filter(|(_, weight)| *weight > 0.0).collect();
        // Vectors that are too short are filled in our own way (chain spec 5.3).
        if paid.len() >= case.min_allowed_weights {
            seen += 1;
            let emitted = emit(&cap_largest_share(&paid, case.max_weight_limit));
            assert_eq!(emitted, (case.out_emit_uids, case.out_emit_u16), "{paid:?}");
        }
    }
    assert_eq!(seen, 4);
}
