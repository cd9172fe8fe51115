//! From the leases of a miner's workers to one number per miner (validator spec 5.4, 5.5).

use serde::{Deserialize, Serialize};

use crate::{
    WORKER_CAP,
    measure::{MinerMeasures, WorkerMeasures},
    reason::LeaseZero,
    rules::{LeaseAggregate, Profile},
};

/// A lease counts while its worker was seen within this time, unless the profile counts offline workers.
pub const SEEN_WITHIN_MS: i64 = 30 * 60 * 1_000;
/// The largest sum of lease scores that is told apart.
pub const SUM_CAP: f64 = 100.0;

/// A miner's lease score, with every number that made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Sum of the best 100 counted workers' lease scores.
    pub sum: f64,
    /// How many workers were counted (at most 100), idle ones included.
    pub workers: u32,
    /// What the sum is divided by: the round's largest sum, or the number of workers, as the profile says.
    pub divisor: f64,
    /// The score, 0 to 1.
    pub value: f64,
    /// Why it is zero.
    pub zero: Option<LeaseZero>,
}

/// What the counted workers of a miner add up to.
pub(crate) struct Earned {
    sum: f64,
    workers: u32,
    any_lease: bool,
}

/// Adds up the leases of one miner.
pub(crate) fn earned(miner: &MinerMeasures, profile: &Profile, now_ms: i64) -> Earned {
    let counts = |worker: &&WorkerMeasures| {
        !worker.over_limit
            && (profile.lease_count_offline || worker.last_seen_ms.is_some_and(|at| at >= now_ms - SEEN_WITHIN_MS))
    };
    let mut scores: Vec<f64> = miner.workers.values().filter(counts).map(|worker| worker.lease.get()).collect();
    scores.sort_by(|left, right| right.total_cmp(left));
    scores.truncate(WORKER_CAP);
    Earned {
        sum: scores.iter().sum::<f64>().min(f64::MAX),
        workers: u32::try_from(scores.len()).unwrap_or(u32::MAX),
        any_lease: miner.workers.values().any(|worker| worker.lease.get() > 0.0),
    }
}

impl Earned {
    /// The sum as far as it is told apart.
    pub(crate) fn capped(&self) -> f64 {
        self.sum.min(SUM_CAP)
    }

    /// The lease score, given the largest capped sum of the round.
    pub(crate) fn score(&self, profile: &Profile, online: bool, largest: f64) -> Lease {
        let (dividend, divisor) = match profile.lease_aggregate {
            LeaseAggregate::Sum => (self.capped(), largest),
            LeaseAggregate::Ratio => (self.sum, f64::from(self.workers)),
        };
        let zero = if !online {
            Some(LeaseZero::Offline)
        } else if self.sum > 0.0 {
            None
        } else if self.any_lease {
            Some(LeaseZero::NotCounted)
        } else {
            Some(LeaseZero::NoLease)
        };
        let value = if zero.is_some() || divisor <= 0.0 { 0.0 } else { (dividend / divisor).min(1.0) };
        Lease { sum: self.sum, workers: self.workers, divisor, value, zero }
    }
}
