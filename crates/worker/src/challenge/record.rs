//! What became of the last challenges, hop by hop, for `byteleap-worker status` and `drain`.
//!
//! The runner writes down how a challenge begins and ends, the link when its result went out and when its rows were
//! opened. Nothing here decides anything; what must survive a crash is in the [cache](super::cache).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use byteleap_protocol::id::ChallengeId;
use serde::{Deserialize, Serialize};

/// Challenges that are remembered: more than a worker can have under way.
const CAPACITY: usize = 32;

/// How long after a commitment its proof request is still expected, in ms (worker-miner spec 3.5: phase 1 takes 15 s at
/// most).
const PROOF_EXPECTED_MS: i64 = 15_000;

/// One challenge, as far as this worker knows. Its verdict is the validator's, and is not told on this wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastChallenge {
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// Its kind, as the miner named it.
    pub task_type: String,
    /// When it came, in ms since 1970.
    pub received_at_ms: i64,
    /// How long the product took, in ms; none while it is computed, or if it failed.
    pub computation_time_ms: Option<f64>,
    /// Why there is no result.
    pub failed: Option<String>,
    /// When its result was sent last, in ms since 1970.
    pub sent_at_ms: Option<i64>,
    /// When its rows were opened last, in ms since 1970.
    pub proved_at_ms: Option<i64>,
    /// Why the opening was incomplete.
    pub proof_failed: Option<String>,
}

impl LastChallenge {
    /// Where it stands, for people.
    #[must_use]
    pub fn outcome(&self) -> String {
        match self {
            Self { failed: Some(reason), .. } => format!("no result: {reason}"),
            Self { proof_failed: Some(reason), .. } => format!("proof incomplete: {reason}"),
            Self { proved_at_ms: Some(_), .. } => "proved; the validator judges".to_owned(),
            Self { sent_at_ms: Some(_), .. } => "committed; no proof was asked for yet".to_owned(),
            Self { computation_time_ms: Some(_), .. } => "computed; not sent yet".to_owned(),
            _ => "being computed".to_owned(),
        }
    }

    /// Each hop and its length in ms, as far as it came.
    #[must_use]
    pub fn timings(&self) -> String {
        let hop = |name: &str, from: Option<i64>, to: Option<i64>| {
            from.zip(to).filter(|(from, to)| to >= from).map(|(from, to)| format!("{name} {} ms", to - from))
        };
        let product = self.computation_time_ms.map(|ms| format!("product {ms:.1} ms"));
        let sent = hop("until sent", Some(self.received_at_ms), self.sent_at_ms);
        [product, sent, hop("until proved", self.sent_at_ms, self.proved_at_ms)]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The last challenges, oldest first; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<VecDeque<LastChallenge>>>);

impl Record {
    /// A challenge came.
    pub(crate) fn begins(&self, challenge_id: ChallengeId, task_type: String, now_ms: i64) {
        let mut challenges = self.challenges();
        challenges.retain(|known| known.challenge_id != challenge_id);
        if challenges.len() == CAPACITY {
            challenges.pop_front();
        }
        challenges.push_back(LastChallenge {
            challenge_id,
            task_type,
            received_at_ms: now_ms,
            computation_time_ms: None,
            failed: None,
            sent_at_ms: None,
            proved_at_ms: None,
            proof_failed: None,
        });
    }

    /// Changes what is known of a challenge, if it is remembered.
    pub(crate) fn note(&self, challenge_id: &ChallengeId, change: impl FnOnce(&mut LastChallenge)) {
        if let Some(known) = self.challenges().iter_mut().find(|known| known.challenge_id == *challenge_id) {
            change(known);
        }
    }

    /// The challenge that came last.
    #[must_use]
    pub fn last(&self) -> Option<LastChallenge> {
        self.challenges().back().cloned()
    }

    /// Challenges whose commitment was sent a short while ago and whose proof is still to be given.
    #[must_use]
    pub fn unproved(&self, now_ms: i64) -> Vec<ChallengeId> {
        let waits = |known: &&LastChallenge| {
            known.failed.is_none()
                && known.proved_at_ms.is_none()
                && known.sent_at_ms.is_some_and(|sent_at_ms| now_ms - sent_at_ms < PROOF_EXPECTED_MS)
        };
        self.challenges().iter().filter(waits).map(|known| known.challenge_id.clone()).collect()
    }

    fn challenges(&self) -> MutexGuard<'_, VecDeque<LastChallenge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ChallengeId {
        ChallengeId::new(text).unwrap()
    }

    #[test]
    fn a_commitment_waits_for_its_proof_until_it_is_given_or_no_longer_asked_for() {
        let record = Record::default();
        for name in ["proved", "waiting", "failed"] {
            record.begins(id(name), "cpu_matrix".to_owned(), 1_000);
            record.note(&id(name), |known| known.sent_at_ms = Some(2_000));
        }
        record.note(&id("proved"), |known| known.proved_at_ms = Some(2_500));
        record.note(&id("failed"), |known| known.failed = Some("no GPU".to_owned()));
        assert_eq!(record.unproved(3_000), [id("waiting")]);
        assert_eq!(record.unproved(2_000 + PROOF_EXPECTED_MS), []);
        assert_eq!(record.last().unwrap().outcome(), "no result: no GPU");
    }

    #[test]
    fn the_oldest_challenge_is_forgotten_first() {
        let record = Record::default();
        for number in 0..=CAPACITY {
            record.begins(id(&format!("c{number}")), "cpu_matrix".to_owned(), 0);
        }
        assert_eq!(record.challenges().len(), CAPACITY);
        assert_eq!(record.challenges()[0].challenge_id, id("c1"));
    }
}
