//! Blocks: headers, their hashes, and the newest of them by number and by hash.

use std::collections::{HashMap, VecDeque};

use parity_scale_codec::{Compact, Decode, Encode};
use sp_crypto_hashing::blake2_256;

use crate::{state::KEPT_BLOCKS, types::H256};

/// What a block's hash covers.
#[derive(Clone, Debug, Decode, Encode)]
pub(crate) struct Header {
    pub(crate) parent: H256,
    pub(crate) number: u32,
    pub(crate) state_root: H256,
    pub(crate) extrinsics_root: H256,
}

impl Header {
    /// blake2b-256 of the SCALE header, as clients recompute it. The digest is empty: nobody seals these blocks.
    pub(crate) fn hash(&self) -> H256 {
        let no_digest = Compact(0_u32);
        H256(blake2_256(
            &(self.parent, Compact(self.number), self.state_root, self.extrinsics_root, no_digest).encode(),
        ))
    }
}

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) header: Header,
    pub(crate) hash: H256,
    /// The extrinsics as they were submitted, length prefix included; the first sets the time.
    pub(crate) extrinsics: Vec<Vec<u8>>,
}

impl Block {
    /// Builds the block above `parent`. The extrinsics' root is their plain hash, in place of the chain's trie.
    pub(crate) fn new(parent: H256, number: u32, state_root: H256, extrinsics: Vec<Vec<u8>>) -> Self {
        let header = Header { parent, number, state_root, extrinsics_root: H256(blake2_256(&extrinsics.encode())) };
        Self { hash: header.hash(), header, extrinsics }
    }
}

/// The kept blocks and, for ever, the genesis hash.
pub(crate) struct Blocks {
    genesis: H256,
    /// Oldest first, never empty.
    kept: VecDeque<Block>,
    numbers: HashMap<H256, u32>,
}

impl Blocks {
    /// A chain of one block.
    pub(crate) fn new(genesis: Block) -> Self {
        let hash = genesis.hash;
        Self { genesis: hash, numbers: HashMap::from([(hash, genesis.header.number)]), kept: VecDeque::from([genesis]) }
    }

    /// The blocks that an earlier run kept, oldest first, at least one.
    pub(crate) fn restored(genesis: H256, kept: Vec<Block>) -> Self {
        let numbers = kept.iter().map(|block| (block.hash, block.header.number)).collect();
        Self { genesis, numbers, kept: kept.into() }
    }

    /// Adds the block above the head.
    pub(crate) fn push(&mut self, block: Block) {
        self.numbers.insert(block.hash, block.header.number);
        self.kept.push_back(block);
        if self.kept.len() > KEPT_BLOCKS as usize
            && let Some(forgotten) = self.kept.pop_front()
        {
            self.numbers.remove(&forgotten.hash);
        }
    }

    /// Puts another block in the head's place.
    pub(crate) fn replace_head(&mut self, block: Block) {
        if let Some(replaced) = self.kept.pop_back() {
            self.numbers.remove(&replaced.hash);
        }
        self.push(block);
    }

    /// The newest block.
    pub(crate) fn head(&self) -> &Block {
        &self.kept[self.kept.len() - 1]
    }

    /// The hash of block 0.
    pub(crate) fn genesis(&self) -> H256 {
        self.genesis
    }

    /// The block of that number, if it exists and is kept.
    pub(crate) fn by_number(&self, number: u32) -> Option<&Block> {
        self.kept.get(number.checked_sub(self.kept[0].header.number)? as usize)
    }

    /// The block of that hash, if it is kept.
    pub(crate) fn by_hash(&self, hash: &H256) -> Option<&Block> {
        self.by_number(*self.numbers.get(hash)?)
    }

    /// The hash of the block of that number; the genesis hash is known for ever.
    pub(crate) fn hash(&self, number: u32) -> Option<H256> {
        if number == 0 { Some(self.genesis) } else { self.by_number(number).map(|block| block.hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_block_is_forgotten_but_never_the_genesis_hash() {
        let mut blocks = Blocks::new(Block::new(H256::default(), 0, H256::default(), vec![]));
        let genesis = blocks.genesis();
        for number in 1..=KEPT_BLOCKS {
            blocks.push(Block::new(blocks.head().hash, number, H256::default(), vec![]));
        }
        assert!(blocks.by_hash(&genesis).is_none());
        assert_eq!(blocks.hash(0), Some(genesis));
        assert_eq!(blocks.by_number(1).map(|block| block.header.parent), Some(genesis));
        assert_eq!(blocks.by_number(KEPT_BLOCKS + 1).map(|block| block.hash), None);
        assert_eq!(blocks.by_hash(&blocks.head().hash).map(|block| block.header.number), Some(KEPT_BLOCKS));
    }
}
