//! From challenges to one number per worker: count, average, then rank or speed (validator spec 5.2, 5.5).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use byteleap_protocol::{hotkey::Hotkey, id::GpuUuid};

use crate::facts::{ChallengeFacts, ComputeTime, GpuOwner, GpuSet};

/// A mean time below a nanosecond is no time that work can take.
pub(crate) const LEAST_MEAN_MS: f64 = 1e-6;
/// What the last of many ranked workers still gets.
const LEAST_RANK_SCORE: f64 = 0.02;

/// What a worker's challenges of the ranking window amount to.
#[derive(Debug, Default)]
pub(crate) struct Tally<'a> {
    /// Challenges with a verdict whose GPUs the miner holds.
    pub(crate) attempts: u32,
    /// Challenges ignored because they name a GPU that the miner does not hold.
    pub(crate) foreign: u32,
    /// Attempts that passed and took a known time.
    pub(crate) successes: u32,
    /// Mean milliseconds per unit over the successes.
    pub(crate) mean_ms: Option<f64>,
    /// Mean units over the successes.
    pub(crate) mean_units: Option<f64>,
    /// Every GPU of a passed challenge, ignored ones included: the worker must have been seen with them.
    pub(crate) required_gpus: BTreeSet<&'a GpuUuid>,
}

/// Counts the challenges of a worker of `hotkey` that were created at `since_ms` or later.
pub(crate) fn tally<'a>(
    challenges: &'a [ChallengeFacts],
    hotkey: &Hotkey,
    gpus: &BTreeMap<GpuUuid, GpuOwner>,
    since_ms: i64,
) -> Tally<'a> {
    let holds = |gpu| gpus.get(gpu).is_some_and(|owner| owner.hotkey == *hotkey && owner.last_seen_ms >= since_ms);
    // The set of the challenge before, whether the miner holds it, and whether it is required already.
    let mut last: Option<(&GpuSet, bool, bool)> = None;
    let mut tally = Tally::default();
    let mut times_ms = Vec::new();
    let mut units_sum = 0.0;
    for challenge in challenges.iter().filter(|challenge| challenge.created_at_ms >= since_ms) {
        let (is_held, is_required) = match last {
            Some((gpus, is_held, is_required)) if Arc::ptr_eq(gpus, &challenge.gpus) => (is_held, is_required),
            _ => (challenge.gpus.iter().all(holds), false),
        };
        if challenge.passed && !is_required {
            tally.required_gpus.extend(challenge.gpus.iter());
        }
        last = Some((&challenge.gpus, is_held, is_required || challenge.passed));
        if !is_held {
            tally.foreign += 1;
            continue;
        }
        tally.attempts += 1;
        if let (true, Some(time)) = (challenge.passed, challenge.time) {
            let units = f64::from(challenge.units.max(1));
            times_ms.push(ComputeTime::ms(time) / units);
            units_sum += units;
            tally.successes += 1;
        }
    }
    if tally.successes > 0 {
        let n = f64::from(tally.successes);
        // Sorted, so that the sum does not depend on the order in which the challenges were gathered.
        times_ms.sort_by(f64::total_cmp);
        tally.mean_ms = Some(times_ms.iter().sum::<f64>() / n);
        tally.mean_units = Some(units_sum / n);
    }
    tally
}

/// What a worker is ranked by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Successes, no more than the baseline.
    pub(crate) successes: f64,
    /// Mean milliseconds per unit.
    pub(crate) mean_ms: f64,
}

impl Standing {
    /// Better first: more successes, then less time.
    fn order(&self, other: &Self) -> Ordering {
        other.successes.total_cmp(&self.successes).then(self.mean_ms.total_cmp(&other.mean_ms))
    }
}

/// The rank of each standing: how many are strictly better. Equals share a rank, so that no tie is broken by a name.
pub(crate) fn ranks(standings: &[Standing]) -> Vec<usize> {
    let mut sorted = standings.to_vec();
    sorted.sort_by(Standing::order);
    standings.iter().map(|standing| sorted.partition_point(|other| other.order(standing).is_lt())).collect()
}

/// The score of a rank (0 is the best) among `total` workers: 1 for the first, falling to 0.03 for the last.
#[must_use]
pub fn rank_score(rank: usize, total: usize) -> f64 {
    if total <= 1 {
        return 1.0;
    }
    let x = rank as f64 / (total - 1) as f64;
    (-3.5 * x.powf(1.8)).exp().clamp(LEAST_RANK_SCORE, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successes_rank_before_speed_and_equals_share_a_rank() {
        let standing = |successes, mean_ms| Standing { successes, mean_ms };
        let standings = [
            standing(18.0, 10.0),
            standing(36.0, 900.0),
            standing(36.0, 500.0),
            standing(36.0, 900.0),
            standing(35.0, 1.0),
        ];
        assert_eq!(ranks(&standings), [4, 1, 0, 1, 3]);
    }
}
