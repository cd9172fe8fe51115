//! How long a challenge took on each hop of its way, and how it ended: the last one of each worker, for `status`, and all of
//! them as histograms.
//!
//! Queue, network and computing are told apart: what a worker says it took is its own, and the rest of the time between
//! question and answer is the link's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{ChallengeId, WorkerId},
};
use serde::{Deserialize, Serialize};

/// Workers whose last challenge is remembered; as many as a miner may serve. Beyond, the oldest challenge goes.
const CAPACITY: usize = 10_000;

/// Milliseconds on each hop; none where the challenge did not come so far, or an earlier process took it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Hops {
    /// From its receipt until its worker was free.
    pub queue_ms: Option<i64>,
    /// To the worker and back with the commitment, without the computing.
    pub task_network_ms: Option<i64>,
    /// The worker's computing, by its own clock.
    pub compute_ms: Option<i64>,
    /// The commitment's exchange with the validator.
    pub commit_ms: Option<i64>,
    /// To the worker and back with the proof, without the opening.
    pub proof_network_ms: Option<i64>,
    /// The worker's opening of rows, by its own clock.
    pub open_ms: Option<i64>,
    /// The proof's exchange with the validator.
    pub prove_ms: Option<i64>,
}

impl Hops {
    /// Name and time of each hop that was passed, in order.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, i64)> {
        [
            ("queue", self.queue_ms),
            ("task_network", self.task_network_ms),
            ("compute", self.compute_ms),
            ("commit", self.commit_ms),
            ("proof_network", self.proof_network_ms),
            ("open", self.open_ms),
            ("prove", self.prove_ms),
        ]
        .into_iter()
        .filter_map(|(name, ms)| Some((name, ms?)))
    }
}

/// Splits the time between a question to a worker and its answer into the link's part and the worker's own, which cannot be
/// more than all of it whatever its clock says. A worker that names no time is all link.
pub(super) fn split(elapsed_ms: i64, began: Option<i64>, ended: Option<i64>) -> (i64, Option<i64>) {
    let own = began.zip(ended).map(|(began, ended)| ended.saturating_sub(began).clamp(0, elapsed_ms.max(0)));
    (elapsed_ms - own.unwrap_or(0), own)
}

/// The last challenge of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChallenge {
    /// Which.
    pub challenge_id: ChallengeId,
    /// Whose.
    pub validator: Hotkey,
    /// When it came, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// How long each hop took.
    pub hops: Hops,
    /// How it ended here: `proved`, or why not. None while it is under way. A validator never says its verdict.
    pub end: Option<String>,
}

/// The last challenge of every worker, as a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record(Arc<Mutex<BTreeMap<WorkerId, LastChallenge>>>);

impl Record {
    /// Writes how far a challenge has come, over the one before.
    pub(super) fn write(&self, worker_id: &WorkerId, last: LastChallenge) {
        let mut table = self.table();
        if table.len() >= CAPACITY
            && !table.contains_key(worker_id)
            && let Some(oldest) = table.iter().min_by_key(|(_, last)| last.received_at_ms).map(|(id, _)| id.clone())
        {
            table.remove(&oldest);
        }
        table.insert(worker_id.clone(), last);
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<WorkerId, LastChallenge> {
        self.table().clone()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<WorkerId, LastChallenge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a challenge that has ended.
pub(super) fn observe(hops: &Hops) {
    for (hop, ms) in hops.named() {
        metrics::histogram!("challenge_hop_seconds", "hop" => hop).record(ms as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_own_time_and_the_links_add_up_whatever_its_clock_says() {
        assert_eq!(split(100, Some(1_000), Some(1_070)), (30, Some(70)));
        assert_eq!(split(100, Some(1_000), Some(9_000)), (0, Some(100)));
        assert_eq!(split(100, Some(1_000), Some(900)), (100, Some(0)));
        assert_eq!(split(100, None, Some(900)), (100, None));
    }
}
