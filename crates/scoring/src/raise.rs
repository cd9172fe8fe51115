//! What would raise a miner's weight: each remedy is tried on the measures and the whole round weighed again, so that the
//! gain told is the gain had, everybody else's share and rank included.

use byteleap_protocol::{hotkey::Hotkey, id::WorkerId};
use serde::{Deserialize, Serialize};

use crate::{
    facts::LeaseScore,
    lease::SEEN_WITHIN_MS,
    measure::{Measures, MinerMeasures, WorkerMeasures},
    round::weigh,
    rules::{AvailabilityScope, Profile},
};

/// Remedies tried for one miner at most; each costs the weighing of a round.
const MAX_TRIED: usize = 48;
/// A gain below this is none.
const LEAST_GAIN: f64 = 1e-9;

/// One remedy, and what it would have been worth in this round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raise {
    /// The worker concerned; none when it is the miner as a whole.
    pub worker_id: Option<WorkerId>,
    /// What would have to be otherwise.
    #[serde(flatten)]
    pub remedy: Remedy,
    /// The score it would have had.
    pub score: f64,
    /// The weight it would have had.
    pub weight: f64,
    /// By how much that is more than it has.
    pub gain: f64,
}

/// What would have to be otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "remedy", rename_all = "snake_case")]
pub enum Remedy {
    /// A heartbeat now: the miner is offline.
    ComeOnline,
    /// Present in every five-minute bucket.
    FullPresence {
        /// Buckets in which it was missing.
        absent: u32,
        /// Buckets that make full presence.
        of: u32,
    },
    /// No change of public address within the window.
    SteadyAddress {
        /// How many there were.
        changes: u32,
    },
    /// Every challenge that got a verdict passed.
    PassAll {
        /// How many did not pass.
        failed: u32,
        /// Of how many.
        of: u32,
    },
    /// As many challenges passed as make full participation, in the time it takes now or, without any, in the median time
    /// of all workers.
    FullParticipation {
        /// How many were passed.
        passed: u32,
        /// How many it takes.
        of: u32,
    },
    /// The challenges that name a GPU which this miner does not hold would count.
    HoldGpus {
        /// How many were ignored.
        ignored: u32,
    },
    /// Seen within the last 30 minutes, so that its lease counts.
    BeSeen,
    /// Within the limit of workers of one miner.
    BeWithinLimit,
    /// A lease of score 1.
    Lease,
}

/// Everything that would have raised a miner's weight, the largest gain first. Empty for one that is not registered.
#[must_use]
pub fn raises(profile: &Profile, measures: &Measures, hotkey: &Hotkey) -> Vec<Raise> {
    let Some(miner) = measures.miners.get(hotkey).filter(|miner| miner.uid.is_some()) else { return Vec::new() };
    let outcome = |measures: &Measures| {
        let round = weigh(profile, measures);
        let found = round.miners.iter().find(|miner| miner.hotkey == *hotkey);
        found.map_or((0.0, 0.0), |miner| (miner.score, if miner.score > 0.0 { miner.weight } else { 0.0 }))
    };
    let (_, weight_now) = outcome(measures);
    let mut trial = measures.clone();
    let mut raises = Vec::new();
    for (worker_id, remedy) in remedies(profile, measures, miner).into_iter().take(MAX_TRIED) {
        let mut cured = miner.clone();
        apply(&remedy, worker_id.as_ref(), &mut cured, measures);
        trial.miners.insert(*hotkey, cured);
        let (score, weight) = outcome(&trial);
        let gain = weight - weight_now;
        if gain > LEAST_GAIN {
            raises.push(Raise { worker_id, remedy, score, weight, gain });
        }
    }
    raises.sort_by(|left, right| right.gain.total_cmp(&left.gain));
    raises
}

/// What is less than it could be, the miner's own first.
fn remedies(profile: &Profile, measures: &Measures, miner: &MinerMeasures) -> Vec<(Option<WorkerId>, Remedy)> {
    let expected = expected(profile, measures);
    let baseline = full(measures);
    let mut remedies = Vec::new();
    if !miner.online {
        remedies.push((None, Remedy::ComeOnline));
    }
    if miner.present < expected {
        remedies.push((None, Remedy::FullPresence { absent: expected - miner.present, of: expected }));
    }
    let changes = miner.workers.values().fold(0, |sum: u32, worker| sum.saturating_add(worker.address_changes));
    if changes > 0 {
        remedies.push((None, Remedy::SteadyAddress { changes }));
    }
    if let Some((idle, _)) = miner.workers.iter().find(|(_, worker)| worker.lease.get() <= 0.0 && !worker.over_limit) {
        remedies.push((Some(idle.clone()), Remedy::Lease));
    }
    for (id, worker) in &miner.workers {
        let mut add = |remedy| remedies.push((Some(id.clone()), remedy));
        if worker.over_limit {
            add(Remedy::BeWithinLimit);
            continue;
        }
        if worker.lease.get() > 0.0 && !is_seen(worker, measures.at_ms) {
            add(Remedy::BeSeen);
        }
        if worker.foreign > 0 {
            add(Remedy::HoldGpus { ignored: worker.foreign });
        }
        if worker.successes < worker.attempts {
            add(Remedy::PassAll { failed: worker.attempts - worker.successes, of: worker.attempts });
        }
        if worker.successes < baseline && worker.lease.get() <= 0.0 {
            add(Remedy::FullParticipation { passed: worker.successes, of: baseline });
        }
        if profile.availability_scope == AvailabilityScope::WorkerChallenge && worker.present < expected {
            add(Remedy::FullPresence { absent: expected - worker.present, of: expected });
        }
        if worker.address_changes > 0 && worker.address_changes < changes {
            add(Remedy::SteadyAddress { changes: worker.address_changes });
        }
    }
    remedies
}

fn apply(remedy: &Remedy, worker_id: Option<&WorkerId>, miner: &mut MinerMeasures, measures: &Measures) {
    let median = median_ms(measures);
    let at_ms = measures.at_ms;
    let whole_miner = worker_id.is_none();
    if whole_miner {
        match remedy {
            Remedy::ComeOnline => miner.online = true,
            Remedy::FullPresence { of, .. } => miner.present = *of,
            _ => {}
        }
    }
    let concerned = miner.workers.iter_mut().filter(|(id, _)| worker_id.is_none_or(|worker_id| *id == worker_id));
    for (_, worker) in concerned {
        match remedy {
            Remedy::ComeOnline | Remedy::BeSeen => worker.last_seen_ms = Some(at_ms),
            Remedy::FullPresence { of, .. } => worker.present = *of,
            Remedy::SteadyAddress { .. } => worker.address_changes = 0,
            Remedy::PassAll { .. } => pass(worker, worker.attempts, median),
            Remedy::FullParticipation { of, .. } => pass(worker, *of, median),
            Remedy::HoldGpus { ignored } => {
                worker.attempts = worker.attempts.saturating_add(*ignored);
                worker.foreign = 0;
                pass(worker, worker.successes.saturating_add(*ignored), median);
            }
            Remedy::BeWithinLimit => worker.over_limit = false,
            Remedy::Lease => {
                worker.lease = LeaseScore::new(1.0).unwrap_or_default();
                worker.last_seen_ms = Some(at_ms);
            }
        }
    }
}

/// Lets a worker have passed so many challenges.
fn pass(worker: &mut WorkerMeasures, successes: u32, median_ms: Option<f64>) {
    worker.successes = successes;
    worker.attempts = worker.attempts.max(successes);
    worker.mean_ms = worker.mean_ms.or(median_ms);
    worker.mean_units = worker.mean_units.or(Some(1.0));
}

fn median_ms(measures: &Measures) -> Option<f64> {
    let workers = measures.miners.values().flat_map(|miner| miner.workers.values());
    let mut times_ms: Vec<f64> = workers.filter_map(WorkerMeasures::plausible_mean_ms).collect();
    times_ms.sort_by(f64::total_cmp);
    times_ms.get(times_ms.len() / 2).copied()
}

fn is_seen(worker: &WorkerMeasures, at_ms: i64) -> bool {
    worker.last_seen_ms.is_some_and(|seen_ms| seen_ms >= at_ms - SEEN_WITHIN_MS)
}

/// Buckets that make full presence under a profile.
fn expected(profile: &Profile, measures: &Measures) -> u32 {
    if profile.exclude_own_downtime { measures.span.observed } else { measures.span.window }
}

/// Challenges that make full participation.
fn full(measures: &Measures) -> u32 {
    measures.windows.baseline().ceil() as u32
}
