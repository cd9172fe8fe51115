//! The trees behind commitments, kept until their rows were opened.
//!
//! Keyed by validator and challenge, so that challenges of several validators live side by side and only the same
//! challenge replaces an entry (worker-miner spec 3.6, fault F19). An opened tree stays, so that a repeated request works;
//! age and number bound the memory: 64 trees of size 2000 take 9 MB.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::ChallengeId;
use byteleap_protocol::merkle::MerkleTree;

/// How long a tree is kept.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Trees that are kept; beyond, the least recently used goes.
pub const CAPACITY: usize = 64;

/// The kept trees, as a cheap handle. Times are of the monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct ResultCache {
    entries: Arc<Mutex<VecDeque<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    validator: Hotkey,
    challenge_id: ChallengeId,
    tree: Arc<MerkleTree>,
    expires: Duration,
}

impl ResultCache {
    /// Keeps the tree that the processor's commitment was made from.
    pub fn insert(&self, validator: Hotkey, challenge_id: ChallengeId, tree: MerkleTree, now: Duration) {
        let mut entries = self.unexpired(now);
        entries.retain(|entry| !entry.is_of(validator, &challenge_id));
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(Entry { validator, challenge_id, tree: Arc::new(tree), expires: now + TIME_TO_LIVE });
    }

    /// The tree of a challenge, which becomes the most recently used.
    pub fn get(&self, validator: Hotkey, challenge_id: &ChallengeId, now: Duration) -> Option<Arc<MerkleTree>> {
        let mut entries = self.unexpired(now);
        let index = entries.iter().position(|entry| entry.is_of(validator, challenge_id))?;
        let entry = entries.remove(index)?;
        let tree = entry.tree.clone();
        entries.push_back(entry);
        Some(tree)
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
    use byteleap_protocol::id::RowHash;

    use super::*;

    const VALIDATOR: Hotkey = Hotkey([1; 32]);

    fn id(number: usize) -> ChallengeId {
        ChallengeId::new(&number.to_string()).unwrap()
    }

    fn tree(leaf: u8) -> MerkleTree {
        MerkleTree::from_rows(&[RowHash([leaf; 8])]).unwrap()
    }

    #[test]
    fn results_of_two_validators_and_two_challenges_live_side_by_side() {
        let cache = ResultCache::default();
        let other = Hotkey([2; 32]);
        cache.insert(VALIDATOR, id(1), tree(1), Duration::ZERO);
        cache.insert(other, id(1), tree(2), Duration::ZERO);
        cache.insert(VALIDATOR, id(2), tree(3), Duration::ZERO);
        let root = |validator, number| cache.get(validator, &id(number), Duration::ZERO).map(|tree| tree.root());
        assert_eq!(root(VALIDATOR, 1), Some(tree(1).root()));
        assert_eq!(root(other, 1), Some(tree(2).root()));
        assert_eq!(root(VALIDATOR, 2), Some(tree(3).root()));
        assert_eq!(root(other, 2), None);
    }

    #[test]
    fn a_result_can_be_had_again_until_it_expires() {
        let cache = ResultCache::default();
        cache.insert(VALIDATOR, id(1), tree(1), Duration::ZERO);
        let just_before = TIME_TO_LIVE - Duration::from_millis(1);
        assert!(cache.get(VALIDATOR, &id(1), just_before).is_some());
        assert!(cache.get(VALIDATOR, &id(1), just_before).is_some());
        assert!(cache.get(VALIDATOR, &id(1), TIME_TO_LIVE).is_none());
    }

    #[test]
    fn the_least_recently_used_result_goes_first() {
        let cache = ResultCache::default();
        for number in 0..CAPACITY {
            cache.insert(VALIDATOR, id(number), tree(1), Duration::ZERO);
        }
        assert!(cache.get(VALIDATOR, &id(0), Duration::ZERO).is_some());
        cache.insert(VALIDATOR, id(CAPACITY), tree(1), Duration::ZERO);
        assert!(cache.get(VALIDATOR, &id(0), Duration::ZERO).is_some());
        assert!(cache.get(VALIDATOR, &id(1), Duration::ZERO).is_none());
    }
}
