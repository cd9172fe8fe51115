//! One scoring round: workers, then miners, then weights (validator spec 5.4, 5.5).
//!
//! Every intermediate number stays in the result, so that the round is its own explanation.

use std::{collections::BTreeMap, fmt, str::FromStr};

use byteleap_protocol::{hotkey::Hotkey, id::WorkerId};
use serde::{Deserialize, Serialize};

use crate::{
    WORKER_CAP,
    facts::{Facts, LeaseScore},
    lease::{Earned, Lease, earned},
    measure::{Measures, MinerMeasures, Span, WorkerMeasures, measure},
    performance::{Standing, rank_score, ranks},
    presence::Availability,
    reason::{ChallengeZero, MinerZero, WorkerZero},
    rules::{AvailabilityScope, LeasedChallenge, MaxOver, PerformanceMode, Profile, Rules, ZeroRound},
};

/// The result of one round: what everybody gets and every number that led there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The instant of the facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// What it was computed by.
    pub rules: Rules,
    /// What becomes of it.
    pub outcome: Outcome,
    /// The participation baseline: successes that make full participation.
    pub baseline: f64,
    /// The time that could have been spent present.
    pub span: Span,
    /// How many workers were ranked; 0 unless the profile ranks.
    pub ranked: u32,
    /// The largest raw challenge score, which all are divided by.
    pub max_raw: f64,
    /// The mean normalised challenge score of all registered miners.
    pub mean_norm: f64,
    /// Every worker, of registered miners and others, by hotkey and worker id.
    pub workers: Vec<WorkerScore>,
    /// Every registered miner, by hotkey.
    pub miners: Vec<MinerScore>,
}

/// What becomes of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Miners scored: their weights are to be submitted.
    Scored,
    /// Nobody scored: nothing is to be submitted.
    Skipped,
    /// Nobody scored: every registered miner has the same weight.
    Uniform,
    /// Nobody scored: everything goes to the burn uid; no miner has a weight.
    Burn,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Scored, Self::Skipped, Self::Uniform, Self::Burn];

    /// Its text, as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Skipped => "skipped",
            Self::Uniform => "uniform",
            Self::Burn => "burn",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no [`Outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an outcome of a round")]
pub struct UnknownOutcome;

impl FromStr for Outcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(UnknownOutcome)
    }
}

/// A worker's place among the ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// How many are strictly better: 0 is the best.
    pub better: u32,
    /// How many are ranked.
    pub of: u32,
}

/// A worker's performance and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerScore {
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its name under that miner.
    pub worker_id: WorkerId,
    /// Its newest heartbeat, unix milliseconds UTC.
    pub last_seen_ms: Option<i64>,
    /// Beyond the miner's 100 oldest live workers.
    pub over_limit: bool,
    /// What the marketplace says it earns.
    pub lease: LeaseScore,
    /// Challenges with a verdict in the ranking window that count.
    pub attempts: u32,
    /// Challenges ignored because they name a GPU that the miner does not hold.
    pub foreign: u32,
    /// Attempts that passed and took a known time.
    pub successes: u32,
    /// Mean milliseconds per unit over the successes.
    pub mean_ms: Option<f64>,
    /// Mean units over the successes.
    pub mean_units: Option<f64>,
    /// Share of the baseline that was reached, 0 to 1.
    pub participation: f64,
    /// Its place, where the profile ranks.
    pub rank: Option<Rank>,
    /// Its own presence; multiplies the performance where the profile says `worker_challenge`.
    pub availability: Availability,
    /// What it contributes to its miner.
    pub performance: f64,
    /// Whether it is among the miner's best 100 and above zero.
    pub counted: bool,
    /// Why the performance is zero.
    pub zero: Option<WorkerZero>,
}

/// A miner's weight and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MinerScore {
    /// The miner.
    pub hotkey: Hotkey,
    /// Its uid in the metagraph of the facts.
    pub uid: u16,
    /// Whether it was online.
    pub online: bool,
    /// Sum of its best 100 performances.
    pub raw: f64,
    /// That over the round's maximum, 0 to 1.
    pub norm: f64,
    /// The challenge score that enters the composite.
    pub challenge: f64,
    /// Why the challenge score is zero.
    pub challenge_zero: Option<ChallengeZero>,
    /// The lease score that enters the composite, with its numbers.
    pub lease: Lease,
    /// Challenge and lease, weighed; 0 when offline.
    pub composite: f64,
    /// How much of the window any of its workers was seen.
    pub presence: Availability,
    /// The availability of the profile's scope: `presence` for `miner_composite`, else the mean over its workers with
    /// a speed, for the record. 0 when offline.
    pub availability: f64,
    /// The composite times availability, where the scope is `miner_composite`; else the composite.
    pub score: f64,
    /// Its share of all scores, 0 to 1.
    pub weight: f64,
    /// Why the score is zero.
    pub zero: Option<MinerZero>,
}

impl Round {
    /// What is to be paid: uid and weight of every online miner with a weight above zero, by uid.
    /// Empty when there is nothing to submit, or (outcome [`Outcome::Burn`]) only to burn.
    #[must_use]
    pub fn payable(&self) -> Vec<(u16, f64)> {
        let mut shares: Vec<(u16, f64)> = self
            .miners
            .iter()
            .filter(|miner| miner.online && miner.weight > 0.0)
            .map(|miner| (miner.uid, miner.weight))
            .collect();
        shares.sort_by_key(|(uid, _)| *uid);
        shares
    }
}

/// Computes a round.
#[must_use]
pub fn score(rules: &Rules, facts: &Facts) -> Round {
    weigh(rules.profile(), &measure(rules.windows(), facts))
}

/// The second half of [`score`]: what the measured is worth under a profile.
#[must_use]
pub fn weigh(profile: &Profile, measures: &Measures) -> Round {
    let baseline = measures.windows.baseline();
    let views = View::all(profile, measures);
    let (workers, ranked) = score_workers(profile, baseline, &views);
    let mut raws = BTreeMap::new();
    let workers = count_best(workers, &mut raws);
    let (miners, max_raw, mean_norm) = score_miners(profile, &views, &workers, &raws);
    let (miners, outcome) = share_out(miners, profile.zero_round);
    let rules = Rules::joined(profile.clone(), measures.windows.clone());
    let span = measures.span;
    Round { at_ms: measures.at_ms, rules, outcome, baseline, span, ranked, max_raw, mean_norm, workers, miners }
}

/// One hotkey, with its presence as a share and its leases added up.
struct View<'a> {
    hotkey: &'a Hotkey,
    measures: &'a MinerMeasures,
    /// Registered and online.
    scored: bool,
    presence: Availability,
    workers: Vec<(&'a WorkerId, &'a WorkerMeasures, Availability)>,
    leases: Earned,
}

impl<'a> View<'a> {
    fn all(profile: &Profile, measures: &'a Measures) -> Vec<Self> {
        let span = measures.span;
        let expected = if profile.exclude_own_downtime { span.observed } else { span.window };
        let view = |(hotkey, miner): (&'a Hotkey, &'a MinerMeasures)| {
            let workers = miner.workers.iter();
            let changes = workers.clone().fold(0, |sum: u32, (_, worker)| sum.saturating_add(worker.address_changes));
            let available =
                |worker: &WorkerMeasures| Availability::of(worker.present, expected, worker.address_changes);
            Self {
                hotkey,
                measures: miner,
                scored: miner.uid.is_some() && miner.online,
                presence: Availability::of(miner.present, expected, changes),
                workers: workers.map(|(id, worker)| (id, worker, available(worker))).collect(),
                leases: earned(miner, profile, measures.at_ms),
            }
        };
        measures.miners.iter().map(view).collect()
    }

    /// Whether its results set maxima and are ranked.
    fn sets_maximum(&self, over: MaxOver) -> bool {
        self.scored || over == MaxOver::All
    }
}

/// Scores every worker; answers also how many were ranked.
fn score_workers(profile: &Profile, baseline: f64, views: &[View<'_>]) -> (Vec<WorkerScore>, u32) {
    let may_score = |view: &View<'_>, worker: &WorkerMeasures| {
        !worker.over_limit
            && (profile.performance_mode == PerformanceMode::Absolute || view.sets_maximum(profile.max_over))
    };
    let standing = |worker: &WorkerMeasures| {
        let mean_ms = worker.plausible_mean_ms()?;
        Some(Standing { successes: f64::from(worker.successes).min(baseline), mean_ms })
    };
    let standings: Vec<Standing> = match profile.performance_mode {
        PerformanceMode::Absolute => Vec::new(),
        PerformanceMode::Ranked => views
            .iter()
            .flat_map(|view| view.workers.iter().filter(|(_, worker, ..)| may_score(view, worker)))
            .filter_map(|(_, worker, _)| standing(worker))
            .collect(),
    };
    let mut ranks = ranks(&standings).into_iter();
    let of = standings.len();
    let mut scores = Vec::new();
    for view in views {
        for (worker_id, worker, availability) in &view.workers {
            let participation = worker.participation(baseline);
            let speed = worker.plausible_mean_ms().filter(|_| may_score(view, worker));
            let (base, rank) = match (profile.performance_mode, speed) {
                (_, None) => (0.0, None),
                (PerformanceMode::Absolute, Some(mean_ms)) => (participation / mean_ms, None),
                // Workers are met here in the order in which their standings were collected.
                (PerformanceMode::Ranked, Some(_)) => ranks.next().map_or((0.0, None), |better| {
                    (rank_score(better, of), Some(Rank { better: count(better), of: count(of) }))
                }),
            };
            let present = match profile.availability_scope {
                AvailabilityScope::WorkerChallenge => availability.value,
                AvailabilityScope::MinerComposite | AvailabilityScope::None => 1.0,
            };
            let performance = base * present;
            scores.push(WorkerScore {
                hotkey: *view.hotkey,
                worker_id: (*worker_id).clone(),
                last_seen_ms: worker.last_seen_ms,
                over_limit: worker.over_limit,
                lease: worker.lease,
                attempts: worker.attempts,
                foreign: worker.foreign,
                successes: worker.successes,
                mean_ms: worker.mean_ms,
                mean_units: worker.mean_units,
                participation,
                rank,
                availability: *availability,
                performance,
                counted: false,
                zero: (performance <= 0.0).then(|| worker_zero(may_score(view, worker), worker, availability)),
            });
        }
    }
    (scores, count(of))
}

fn worker_zero(may_score: bool, worker: &WorkerMeasures, availability: &Availability) -> WorkerZero {
    if worker.over_limit {
        WorkerZero::OverLimit
    } else if !may_score {
        WorkerZero::MinerNotScored
    } else if worker.attempts == 0 && worker.foreign > 0 {
        WorkerZero::ForeignGpu
    } else if worker.attempts == 0 {
        WorkerZero::NoChallenge
    } else if worker.successes == 0 {
        WorkerZero::NoSuccess
    } else if worker.plausible_mean_ms().is_none() {
        WorkerZero::NoTime
    } else if availability.present == 0 {
        WorkerZero::NotPresent
    } else {
        WorkerZero::AddressChanges
    }
}

/// Marks the 100 best workers of each hotkey and adds them up in `raws`.
fn count_best(mut workers: Vec<WorkerScore>, raws: &mut BTreeMap<Hotkey, f64>) -> Vec<WorkerScore> {
    let mut best_first: Vec<usize> = (0..workers.len()).collect();
    best_first.sort_by(|left, right| workers[*right].performance.total_cmp(&workers[*left].performance));
    let mut taken: BTreeMap<Hotkey, usize> = BTreeMap::new();
    for index in best_first {
        let worker = &mut workers[index];
        let taken = taken.entry(worker.hotkey).or_default();
        if *taken < WORKER_CAP && worker.performance > 0.0 {
            worker.counted = true;
            *taken += 1;
            *raws.entry(worker.hotkey).or_default() += worker.performance;
        }
    }
    workers
}

/// Scores every registered miner, weights still open; answers also the largest raw and the mean normalised score.
fn score_miners(
    profile: &Profile,
    views: &[View<'_>],
    workers: &[WorkerScore],
    raws: &BTreeMap<Hotkey, f64>,
) -> (Vec<MinerScore>, f64, f64) {
    let raw_of = |view: &View<'_>| raws.get(view.hotkey).copied().unwrap_or(0.0);
    let setters = || views.iter().filter(|view| view.sets_maximum(profile.max_over));
    let max_raw = setters().map(raw_of).fold(0.0, f64::max);
    let max_lease = setters().map(|view| view.leases.capped()).fold(0.0, f64::max);
    let norm_of = |view: &View<'_>| if max_raw > 0.0 { (raw_of(view) / max_raw).min(1.0) } else { 0.0 };

    let members: Vec<(u16, &View<'_>)> = views.iter().filter_map(|view| Some((view.measures.uid?, view))).collect();
    let mean_norm = members.iter().map(|(_, view)| norm_of(view)).sum::<f64>() / members.len().max(1) as f64;

    let miner = |(uid, view): (u16, &View<'_>)| {
        let online = view.measures.online;
        let norm = norm_of(view);
        let lease = view.leases.score(profile, online, max_lease);
        let leased = lease.value > 0.0;
        let challenge = match profile.leased_challenge {
            _ if !online => 0.0,
            LeasedChallenge::Average if leased => mean_norm,
            LeasedChallenge::Zero if leased => 0.0,
            LeasedChallenge::Own | LeasedChallenge::Average | LeasedChallenge::Zero => norm,
        };
        let challenge_zero = (challenge <= 0.0).then_some(match profile.leased_challenge {
            _ if !online => ChallengeZero::Offline,
            LeasedChallenge::Zero if leased => ChallengeZero::Leased,
            _ => ChallengeZero::NoPerformance,
        });
        let composite = profile.challenge_weight * challenge + profile.lease_weight * lease.value;
        let (availability, score) = match profile.availability_scope {
            _ if !online => (0.0, 0.0),
            AvailabilityScope::MinerComposite => (view.presence.value, composite * view.presence.value),
            AvailabilityScope::WorkerChallenge | AvailabilityScope::None => {
                (mean_availability(workers, view.hotkey), composite)
            }
        };
        let mut miner = MinerScore {
            hotkey: *view.hotkey,
            uid,
            online,
            raw: raw_of(view),
            norm,
            challenge,
            challenge_zero,
            lease,
            composite,
            presence: view.presence,
            availability,
            score,
            weight: 0.0,
            zero: None,
        };
        miner.zero = (score <= 0.0).then(|| miner_zero(&miner));
        miner
    };
    (members.into_iter().map(miner).collect(), max_raw, mean_norm)
}

/// The mean availability of a miner's workers with a speed; 0 when there is none.
fn mean_availability(workers: &[WorkerScore], hotkey: &Hotkey) -> f64 {
    let first = workers.partition_point(|worker| worker.hotkey < *hotkey);
    let own = workers[first..].iter().take_while(|worker| worker.hotkey == *hotkey);
    let (sum, n) = own
        .filter(|worker| worker.successes > 0 && worker.zero != Some(WorkerZero::NoTime))
        .fold((0.0, 0.0), |(sum, n), worker| (sum + worker.availability.value, n + 1.0));
    if n > 0.0 { sum / n } else { 0.0 }
}

fn miner_zero(miner: &MinerScore) -> MinerZero {
    if !miner.online {
        MinerZero::Offline
    } else if miner.composite <= 0.0 && miner.lease.value <= 0.0 && miner.challenge <= 0.0 {
        MinerZero::NothingEarned
    } else if miner.composite <= 0.0 {
        MinerZero::NotWeighed
    } else if miner.presence.present == 0 {
        MinerZero::NotPresent
    } else {
        MinerZero::AddressChanges
    }
}

/// Turns scores into weights that sum to 1, or, when nobody scored, does what the profile says.
fn share_out(mut miners: Vec<MinerScore>, zero_round: ZeroRound) -> (Vec<MinerScore>, Outcome) {
    let sum: f64 = miners.iter().map(|miner| miner.score).sum();
    if sum > 0.0 {
        miners.iter_mut().for_each(|miner| miner.weight = miner.score / sum);
        return (miners, Outcome::Scored);
    }
    match zero_round {
        ZeroRound::Burn => (miners, Outcome::Burn),
        ZeroRound::Uniform if !miners.is_empty() => {
            let share = 1.0 / miners.len() as f64;
            miners.iter_mut().for_each(|miner| miner.weight = share);
            (miners, Outcome::Uniform)
        }
        ZeroRound::Skip | ZeroRound::Uniform => (miners, Outcome::Skipped),
    }
}

/// A number of workers, for the record.
fn count(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX)
}
