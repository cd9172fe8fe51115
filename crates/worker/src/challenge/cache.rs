//! What was committed to, kept until its rows were opened.
//!
//! Keyed by validator and challenge, so that challenges of several validators live side by side and only the same
//! challenge replaces an entry (worker-miner spec 3.6, fault F19). An opened result stays, so that a repeated request
//! works; age and number bound the memory: 64 trees of size 2000 take 9 MB.
//!
//! A commitment binds the worker even if it is killed right after it. Hence a result is on disk before it is in the cache,
//! and is in the cache before anybody hears of it: a worker that starts again can open what its predecessor committed to.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byteleap_daemon::failpoint;
use byteleap_daemon::journal::{Journal, JournalError};
use byteleap_protocol::frame::TaskOutcome;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, RowHash};
use byteleap_protocol::merkle::MerkleTree;
use serde::{Deserialize, Serialize};

/// How long a result is kept.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Results that are kept; beyond, the least recently used goes.
pub const CAPACITY: usize = 64;

/// The folder of the results in the worker's state directory.
const FOLDER: &str = "results";

/// The kept results, as a cheap handle. Times are of the monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct ResultCache {
    entries: Arc<Mutex<VecDeque<Entry>>>,
    journal: Option<Arc<Journal>>,
}

/// A result as it is on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Committed {
    /// Who asked.
    pub validator: Hotkey,
    /// What for.
    pub challenge_id: ChallengeId,
    /// What the miner is told.
    pub outcome: TaskOutcome,
    /// The leaves of the tree behind the commitment.
    pub row_hashes: Vec<RowHash>,
}

/// A result that can be told again, and opened.
#[derive(Debug)]
pub struct Kept {
    /// What the miner is told.
    pub outcome: TaskOutcome,
    /// The tree behind the commitment.
    pub tree: MerkleTree,
}

#[derive(Debug)]
struct Entry {
    validator: Hotkey,
    challenge_id: ChallengeId,
    kept: Arc<Kept>,
    expires: Duration,
}

impl ResultCache {
    /// A cache with what a former process of this worker left in `state_dir`. Blocks.
    ///
    /// # Errors
    /// The folder of the results cannot be used.
    pub fn open(state_dir: &Path, now: Duration) -> Result<Self, JournalError> {
        let journal = Journal::open(state_dir.join(FOLDER), TIME_TO_LIVE, CAPACITY)?;
        let mut cache = Self::default();
        for committed in journal.documents()? {
            cache.remember(committed, now);
        }
        cache.journal = Some(Arc::new(journal));
        Ok(cache)
    }

    /// Keeps a result with at least one row; on disk too, where the cache has a place there. Blocks.
    ///
    /// # Errors
    /// It is not on disk. It is kept in memory all the same.
    pub fn insert(&self, committed: Committed, now: Duration) -> Result<(), JournalError> {
        let written = match &self.journal {
            Some(journal) => {
                failpoint::reach("worker.result.before");
                let key = format!("{} {}", committed.validator, committed.challenge_id);
                let written = journal.put(&key, &committed);
                failpoint::reach("worker.result.after");
                written
            }
            None => Ok(()),
        };
        self.remember(committed, now);
        written
    }

    /// The result of a challenge, which becomes the most recently used.
    pub fn get(&self, validator: Hotkey, challenge_id: &ChallengeId, now: Duration) -> Option<Arc<Kept>> {
        let mut entries = self.unexpired(now);
        let index = entries.iter().position(|entry| entry.is_of(validator, challenge_id))?;
        let entry = entries.remove(index)?;
        let kept = Arc::clone(&entry.kept);
        entries.push_back(entry);
        Some(kept)
    }

    fn remember(&self, committed: Committed, now: Duration) {
        let Committed { validator, challenge_id, outcome, row_hashes } = committed;
        let Some(tree) = MerkleTree::from_rows(&row_hashes) else { return };
        let kept = Arc::new(Kept { outcome, tree });
        let mut entries = self.unexpired(now);
        entries.retain(|entry| !entry.is_of(validator, &challenge_id));
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(Entry { validator, challenge_id, kept, expires: now + TIME_TO_LIVE });
    }

    /// The entries, least recently used first, without those that have expired.
    fn unexpired(&self, now: Duration) -> MutexGuard<'_, VecDeque<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.expires > now);
        entries
    }
}

impl Entry {
    fn is_of(&self, validator: Hotkey, challenge_id: &ChallengeId) -> bool {
        self.validator == validator && self.challenge_id == *challenge_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDATOR: Hotkey = Hotkey([1; 32]);

    fn id(number: usize) -> ChallengeId {
        ChallengeId::new(&number.to_string()).unwrap()
    }

    fn committed(validator: Hotkey, number: usize, leaf: u8) -> Committed {
        let outcome = TaskOutcome::failed(leaf.to_string());
        Committed { validator, challenge_id: id(number), outcome, row_hashes: vec![RowHash([leaf; 8])] }
    }

    fn tree(leaf: u8) -> MerkleTree {
        MerkleTree::from_rows(&[RowHash([leaf; 8])]).unwrap()
    }

    #[test]
    fn results_of_two_validators_and_two_challenges_live_side_by_side() {
        let cache = ResultCache::default();
        let other = Hotkey([2; 32]);
        cache.insert(committed(VALIDATOR, 1, 1), Duration::ZERO).unwrap();
        cache.insert(committed(other, 1, 2), Duration::ZERO).unwrap();
        cache.insert(committed(VALIDATOR, 2, 3), Duration::ZERO).unwrap();
        let root = |validator, number| cache.get(validator, &id(number), Duration::ZERO).map(|kept| kept.tree.root());
        assert_eq!(root(VALIDATOR, 1), Some(tree(1).root()));
        assert_eq!(root(other, 1), Some(tree(2).root()));
        assert_eq!(root(VALIDATOR, 2), Some(tree(3).root()));
        assert_eq!(root(other, 2), None);
    }

    #[test]
    fn a_result_can_be_had_again_until_it_expires() {
        let cache = ResultCache::default();
        cache.insert(committed(VALIDATOR, 1, 1), Duration::ZERO).unwrap();
        let just_before = TIME_TO_LIVE - Duration::from_millis(1);
        assert!(cache.get(VALIDATOR, &id(1), just_before).is_some());
        assert!(cache.get(VALIDATOR, &id(1), just_before).is_some());
        assert!(cache.get(VALIDATOR, &id(1), TIME_TO_LIVE).is_none());
    }

    #[test]
    fn the_least_recently_used_result_goes_first() {
        let cache = ResultCache::default();
        for number in 0..CAPACITY {
            cache.insert(committed(VALIDATOR, number, 1), Duration::ZERO).unwrap();
        }
        assert!(cache.get(VALIDATOR, &id(0), Duration::ZERO).is_some());
        cache.insert(committed(VALIDATOR, CAPACITY, 1), Duration::ZERO).unwrap();
        assert!(cache.get(VALIDATOR, &id(0), Duration::ZERO).is_some());
        assert!(cache.get(VALIDATOR, &id(1), Duration::ZERO).is_none());
    }
    #[test]
    fn the_next_process_can_open_what_this_one_committed_to() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ResultCache::open(folder.path(), Duration::ZERO).unwrap();
        cache.insert(committed(VALIDATOR, 1, 7), Duration::ZERO).unwrap();
        drop(cache);
        let kept = ResultCache::open(folder.path(), Duration::ZERO).unwrap().get(VALIDATOR, &id(1), Duration::ZERO);
        let kept = kept.unwrap();
        assert_eq!(kept.tree.root(), tree(7).root());
        assert_eq!(kept.outcome, TaskOutcome::failed("7"));
    }
}
