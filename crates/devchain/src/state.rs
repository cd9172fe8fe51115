//! The chain's key-value state, every value kept with the block that wrote it, so that a read at any kept block is exact.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parity_scale_codec::{Decode, Encode};
use sp_crypto_hashing::blake2_256;

use crate::{
    storage::{Entry, Key, Slot},
    store::Write,
    types::H256,
};

/// Blocks whose state can be read; older values are forgotten. The chain keeps as many block hashes, hence no era needs more.
pub(crate) const KEPT_BLOCKS: u32 = 4096;

/// A value, or its deletion, as of the block that wrote it.
struct Version {
    block: u32,
    value: Option<Vec<u8>>,
}

/// See the [module](self).
pub(crate) struct State {
    values: BTreeMap<Vec<u8>, VecDeque<Version>>,
    /// The keys that each kept block wrote, oldest block first; the last is the block being built.
    written: VecDeque<BTreeSet<Vec<u8>>>,
    /// The newest block: the one being built, or the head.
    block: u32,
    root: H256,
}

impl State {
    /// The empty state before block 0. `seed` goes into every root, so that chains of different metadata differ from the
    /// genesis hash on (clients cache metadata by it).
    pub(crate) fn new(seed: &[u8]) -> Self {
        Self {
            values: BTreeMap::new(),
            written: VecDeque::from([BTreeSet::new()]),
            block: 0,
            root: H256(blake2_256(seed)),
        }
    }

    /// The state that an earlier run left: every value with the block that wrote it, in the order of blocks, the numbers of
    /// the oldest and the newest kept block, and the newest one's root.
    pub(crate) fn restored(values: Vec<(u32, Write)>, (oldest, newest): (u32, u32), root: H256) -> Self {
        let mut state = Self { values: BTreeMap::new(), written: VecDeque::new(), block: newest, root };
        state.written.resize_with((newest - oldest) as usize + 1, BTreeSet::new);
        for (block, (key, value)) in values {
            let kept = block.checked_sub(oldest).and_then(|index| state.written.get_mut(index as usize));
            if let Some(written) = kept {
                written.insert(key.clone());
            }
            state.values.entry(key).or_default().push_back(Version { block, value });
        }
        state
    }

    /// What the newest block has written.
    pub(crate) fn writes(&self) -> Vec<Write> {
        let view = self.latest();
        let keys = self.written.back().into_iter().flatten();
        keys.map(|key| (key.clone(), view.raw(key).map(<[u8]>::to_vec))).collect()
    }

    /// Starts the next block: what is written from here on is its state.
    pub(crate) fn begin_block(&mut self) -> u32 {
        self.block += 1;
        self.written.push_back(BTreeSet::new());
        if self.written.len() > KEPT_BLOCKS as usize {
            self.written.pop_front();
            self.forget_before_oldest();
        }
        self.block
    }

    /// Ends a block: its state root, a running hash over everything that was ever written. It stands in for the root of
    /// the chain's trie, which nobody here proves anything from.
    pub(crate) fn seal_block(&mut self) -> H256 {
        let view = self.latest();
        let written: Vec<(&[u8], Option<&[u8]>)> =
            self.written.back().into_iter().flatten().map(|key| (key.as_slice(), view.raw(key))).collect();
        self.root = H256(blake2_256(&(self.root, written).encode()));
        self.root
    }

    /// The state with everything written so far.
    pub(crate) fn latest(&self) -> View<'_> {
        View { state: self, block: self.block }
    }

    /// The state after `block`; `None` once it is forgotten.
    pub(crate) fn at(&self, block: u32) -> Option<View<'_>> {
        let kept = self.block - (self.written.len() as u32 - 1)..=self.block;
        kept.contains(&block).then_some(View { state: self, block })
    }

    /// Writes a value.
    pub(crate) fn put<K: Key, V: Encode>(&mut self, slot: &Slot<K, V>, key: K, value: V) {
        self.write(slot.key(&key), Some(value.encode()));
    }

    /// Reads a value, changes it and writes it back.
    pub(crate) fn mutate<K: Key + Clone, V: Encode + Decode>(
        &mut self,
        entry: &Entry<K, V>,
        key: K,
        change: impl FnOnce(&mut V),
    ) {
        let mut value = self.latest().get(entry, key.clone());
        change(&mut value);
        self.put(entry, key, value);
    }

    /// Deletes a value.
    pub(crate) fn remove<K: Key, V>(&mut self, slot: &Slot<K, V>, key: K) {
        self.write(slot.key(&key), None);
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let versions = self.values.entry(key.clone()).or_default();
        match versions.back_mut() {
            Some(newest) if newest.block == self.block => newest.value = value,
            _ => versions.push_back(Version { block: self.block, value }),
        }
        if let Some(written) = self.written.back_mut() {
            written.insert(key);
        }
    }

    /// Drops what no kept block reads: versions that the oldest kept block has overwritten.
    fn forget_before_oldest(&mut self) {
        let oldest = self.block - (self.written.len() as u32 - 1);
        for key in self.written.front().into_iter().flatten() {
            let Some(versions) = self.values.get_mut(key) else { continue };
            while versions.get(1).is_some_and(|next| next.block <= oldest) {
                versions.pop_front();
            }
            if versions.len() == 1 && versions[0].value.is_none() {
                self.values.remove(key);
            }
        }
    }
}

/// The state after one block.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    state: &'a State,
    block: u32,
}

impl<'a> View<'a> {
    /// The block.
    pub(crate) fn block(self) -> u32 {
        self.block
    }

    /// The stored value, or the entry's default.
    pub(crate) fn get<K: Key, V: Decode>(self, entry: &Entry<K, V>, key: K) -> V {
        self.find(entry, key).unwrap_or_else(entry.default)
    }

    /// The stored value, if there is one.
    pub(crate) fn find<K: Key, V: Decode>(self, slot: &Slot<K, V>, key: K) -> Option<V> {
        let mut bytes = self.raw(&slot.key(&key))?;
        #[expect(clippy::expect_used, reason = "only `State::put` writes, and it takes the slot's own type")]
        Some(V::decode(&mut bytes).expect("a stored value decodes as its slot's type"))
    }

    /// The stored bytes under a whole key.
    pub(crate) fn raw(self, key: &[u8]) -> Option<&'a [u8]> {
        let versions = self.state.values.get(key)?;
        let newer = versions.partition_point(|version| version.block <= self.block);
        versions.get(newer.checked_sub(1)?)?.value.as_deref()
    }

    /// The keys below `prefix` that hold a value, in order, those after `start` only.
    pub(crate) fn keys(self, prefix: &'a [u8], start: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.state
            .values
            .range(prefix.max(start).to_vec()..)
            .map(|(key, _)| key.as_slice())
            .take_while(move |key| key.starts_with(prefix))
            .filter(move |key| *key != start && self.raw(key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage,
        types::{AccountId32, NetUid},
    };

    const NETUID: NetUid = NetUid(1);
    const ALICE: AccountId32 = AccountId32([1; 32]);

    #[test]
    fn a_read_at_an_earlier_block_sees_what_was_true_then() {
        let mut state = State::new(b"");
        state.begin_block();
        state.put(&storage::Uids, (NETUID, ALICE), 7);
        state.begin_block();
        state.put(&storage::Uids, (NETUID, ALICE), 8);
        state.begin_block();
        state.remove(&storage::Uids, (NETUID, ALICE));

        let uid_at = |block| state.at(block).unwrap().find(&storage::Uids, (NETUID, ALICE));
        assert_eq!([0, 1, 2, 3].map(uid_at), [None, Some(7), Some(8), None]);
        assert!(state.at(4).is_none());
    }

    #[test]
    fn an_unwritten_key_reads_as_the_default() {
        let state = State::new(b"");
        assert_eq!(state.latest().get(&storage::Tempo, NETUID), 10);
        assert_eq!(state.latest().raw(&storage::Tempo.key(&NETUID)), None);
    }

    #[test]
    fn only_the_last_blocks_are_kept_and_they_stay_exact() {
        let mut state = State::new(b"");
        state.put(&storage::Tempo, NETUID, 1);
        state.put(&storage::Uids, (NETUID, ALICE), 7);
        state.begin_block();
        state.put(&storage::Tempo, NETUID, 2);
        state.remove(&storage::Uids, (NETUID, ALICE));
        for _ in 1..KEPT_BLOCKS {
            state.begin_block();
        }
        assert!(state.at(0).is_none());
        assert_eq!(state.at(1).unwrap().get(&storage::Tempo, NETUID), 2);
        assert_eq!(state.values[&storage::Tempo.key(&NETUID)].len(), 1, "the overwritten version is gone");
        assert!(!state.values.contains_key(&storage::Uids.key(&(NETUID, ALICE))), "so is the deleted key");
    }

    #[test]
    fn keys_are_listed_page_by_page() {
        let mut state = State::new(b"");
        for netuid in 0..5 {
            state.put(&storage::Tempo, NetUid(netuid), 1);
        }
        let all: Vec<Vec<u8>> = (0..5).map(|netuid| storage::Tempo.key(&NetUid(netuid))).collect();
        let prefix = &all[0][..32];
        let view = state.latest();
        assert_eq!(view.keys(prefix, &[]).take(2).collect::<Vec<_>>(), all[..2]);
        assert_eq!(view.keys(prefix, &all[1]).collect::<Vec<_>>(), all[2..]);
    }

    #[test]
    fn the_state_root_follows_what_was_written() {
        let root = |tempo| {
            let mut state = State::new(b"");
            state.put(&storage::Tempo, NETUID, tempo);
            state.seal_block()
        };
        assert_eq!(root(1), root(1));
        assert_ne!(root(1), root(2));
    }
}
