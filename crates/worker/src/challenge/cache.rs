//! What was committed to, kept until its rows were opened.
//!
//! Keyed by validator and challenge, so that challenges of several validators live side by side and only the same
//! challenge replaces an entry (worker-miner spec 3.6, fault F19). An opened result stays, so that a repeated request
//! works; age, number of results and number of rows bound the memory: eight bytes a row, and two for each number that a GPU
//! has shown. Trees are built anew when they are opened.
//!
//! A commitment binds the worker even if it is killed right after it. Hence a result is on disk before it is in the cache,
//! and is in the cache before anybody hears of it: a worker that starts again can open what its predecessor committed to.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byteleap_compute::gpu::GpuChallenge;
use byteleap_daemon::failpoint;
use byteleap_daemon::journal::{Journal, JournalError};
use byteleap_protocol::frame::TaskOutcome;
use byteleap_protocol::half::Half;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, GpuUuid, RowHash, Unit};
use byteleap_protocol::payload::ProofRequest;
use serde::{Deserialize, Serialize};

/// How long a result is kept.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Results that are kept; beyond, the least recently used goes.
pub const CAPACITY: usize = 64;

/// Rows of all kept results together: those of fifteen challenges of eight GPUs each, 32 MiB.
pub const ROWS_MAX: usize = 1 << 22;

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
    /// What the GPUs computed; none where the processor did.
    #[serde(default)]
    pub gpu_challenge: Option<GpuChallenge>,
    /// For each unit the leaves of the tree behind its commitment.
    pub units: Vec<(Unit, Vec<RowHash>)>,
}

/// A result that can be told again, and opened.
#[derive(Debug)]
pub struct Kept {
    /// What the miner is told.
    pub outcome: TaskOutcome,
    /// What the GPUs computed; none where the processor did.
    pub gpu_challenge: Option<GpuChallenge>,
    /// For each unit the leaves of the tree behind its commitment.
    units: Vec<(Unit, Vec<RowHash>)>,
    /// What a GPU has shown last, so that it can be sent again when the GPU holds it no more.
    shown: Mutex<HashMap<GpuUuid, Shown>>,
}

/// Numbers that a GPU has shown, and what they were asked for by.
#[derive(Debug)]
struct Shown {
    request: ProofRequest,
    numbers: Vec<Half>,
}

impl Kept {
    /// The rows of a unit's result.
    pub fn row_hashes(&self, unit: &Unit) -> Option<&[RowHash]> {
        self.units.iter().find(|(of, _)| of == unit).map(|(_, row_hashes)| row_hashes.as_slice())
    }

    /// What a GPU has shown for this very request.
    pub fn shown(&self, gpu: &GpuUuid, request: &ProofRequest) -> Option<Vec<Half>> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.get(gpu).filter(|shown| shown.request == *request).map(|shown| shown.numbers.clone())
    }

    /// Keeps what a GPU has shown.
    pub fn keep_shown(&self, gpu: GpuUuid, request: ProofRequest, numbers: Vec<Half>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.insert(gpu, Shown { request, numbers });
    }

    fn row_count(&self) -> usize {
        self.units.iter().map(|(_, row_hashes)| row_hashes.len()).sum()
    }
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

    /// Keeps a result; on disk too, where the cache has a place there. Blocks.
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
        let Committed { validator, challenge_id, outcome, gpu_challenge, units } = committed;
        let kept = Arc::new(Kept { outcome, gpu_challenge, units, shown: Mutex::default() });
        let mut entries = self.unexpired(now);
        entries.retain(|entry| !entry.is_of(validator, &challenge_id));
        let rows = |entries: &VecDeque<Entry>| entries.iter().map(|entry| entry.kept.row_count()).sum::<usize>();
        while entries.len() >= CAPACITY || rows(&entries) + kept.row_count() > ROWS_MAX {
            if entries.pop_front().is_none() {
                break;
            }
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
        let units = vec![(Unit::Cpu, vec![RowHash([leaf; 8])])];
        Committed { validator, challenge_id: id(number), outcome, gpu_challenge: None, units }
    }

    fn leaf(kept: &Kept) -> u8 {
        kept.row_hashes(&Unit::Cpu).unwrap()[0].0[0]
    }

    #[test]
    fn results_of_two_validators_and_two_challenges_live_side_by_side() {
        let cache = ResultCache::default();
        let other = Hotkey([2; 32]);
        cache.insert(committed(VALIDATOR, 1, 1), Duration::ZERO).unwrap();
        cache.insert(committed(other, 1, 2), Duration::ZERO).unwrap();
        cache.insert(committed(VALIDATOR, 2, 3), Duration::ZERO).unwrap();
        let leaf = |validator, number| cache.get(validator, &id(number), Duration::ZERO).map(|kept| leaf(&kept));
        assert_eq!(leaf(VALIDATOR, 1), Some(1));
        assert_eq!(leaf(other, 1), Some(2));
        assert_eq!(leaf(VALIDATOR, 2), Some(3));
        assert_eq!(leaf(other, 2), None);
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
    fn large_results_push_older_ones_out() {
        let cache = ResultCache::default();
        let large = |number| {
            let units = vec![(Unit::Cpu, vec![RowHash([1; 8]); ROWS_MAX / 2])];
            Committed { units, ..committed(VALIDATOR, number, 1) }
        };
        for number in 0..3 {
            cache.insert(large(number), Duration::ZERO).unwrap();
        }
        let is_kept = |number| cache.get(VALIDATOR, &id(number), Duration::ZERO).is_some();
        assert_eq!([0, 1, 2].map(is_kept), [false, true, true]);
    }

    #[test]
    fn the_next_process_can_open_what_this_one_committed_to() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ResultCache::open(folder.path(), Duration::ZERO).unwrap();
        cache.insert(committed(VALIDATOR, 1, 7), Duration::ZERO).unwrap();
        drop(cache);
        let kept = ResultCache::open(folder.path(), Duration::ZERO).unwrap().get(VALIDATOR, &id(1), Duration::ZERO);
        let kept = kept.unwrap();
        assert_eq!(leaf(&kept), 7);
        assert_eq!(kept.outcome, TaskOutcome::failed("7"));
    }
}
