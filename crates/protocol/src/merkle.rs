//! The commitment to a result: a Merkle tree over its row hashes, and the openings that prove single rows.
//!
//! The worker builds the tree and commits to its root; the validator then draws rows, the worker opens them, and
//! [`MerkleProof::verify`] holds each opening against the root (worker-miner spec 4.6).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{RowHash, decode_lower_hex};
use crate::lenient;

/// A node of the tree, which is a text: parents hash the hexadecimal digits of their children, not the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NodeHash {
    /// A row hash, 16 digits: a leaf, and the root of a tree with one leaf.
    Row(RowHash),
    /// SHA-256 of two children, 64 digits.
    Inner([u8; 32]),
}

impl NodeHash {
    /// The parent of two nodes: SHA-256 over the texts of both.
    #[must_use]
    pub fn parent(left: Self, right: Self) -> Self {
        let mut hasher = Sha256::new();
        left.with_text(|text| hasher.update(text));
        right.with_text(|text| hasher.update(text));
        Self::Inner(hasher.finalize().into())
    }

    /// Hands out the node's digits without allocating.
    fn with_text(self, take: impl FnOnce(&[u8])) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0_u8; 64];
        let bytes = self.bytes();
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        take(&text[..2 * bytes.len()]);
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Row(RowHash(bytes)) => bytes,
            Self::Inner(bytes) => bytes,
        }
    }
}

impl From<RowHash> for NodeHash {
    fn from(hash: RowHash) -> Self {
        Self::Row(hash)
    }
}

impl fmt::Display for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.bytes()))
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is neither 16 nor 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node must be 16 or 64 lower-case hexadecimal digits")]
pub struct NodeHashError;

impl FromStr for NodeHash {
    type Err = NodeHashError;

    fn from_str(text: &str) -> Result<Self, NodeHashError> {
        if let Ok(row) = text.parse() {
            return Ok(Self::Row(row));
        }
        let mut bytes = [0_u8; 32];
        decode_lower_hex(text, &mut bytes).ok_or(NodeHashError)?;
        Ok(Self::Inner(bytes))
    }
}

impl TryFrom<String> for NodeHash {
    type Error = NodeHashError;

    fn try_from(text: String) -> Result<Self, NodeHashError> {
        text.parse()
    }
}

impl From<NodeHash> for String {
    fn from(hash: NodeHash) -> Self {
        hash.to_string()
    }
}

/// A tree over the row hashes of one result, all levels kept, so that an opening is a walk by index.
#[derive(Debug, Clone)]
pub struct MerkleTree {
    /// Leaves first, the root alone in the last.
    levels: Vec<Vec<NodeHash>>,
}

impl MerkleTree {
    /// The tree over `leaves`, in row order; none if there are none.
    ///
    /// The last node of an odd level is paired with itself; one leaf is its own root.
    #[must_use]
    pub fn new(leaves: Vec<NodeHash>) -> Option<Self> {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let parents =
                level.chunks(2).map(|pair| NodeHash::parent(pair[0], pair.get(1).copied().unwrap_or(pair[0])));
            levels.push(parents.collect());
        }
        levels.last().is_some_and(|top| top.len() == 1).then_some(Self { levels })
    }

    /// The tree over the rows of a result.
    #[must_use]
    pub fn from_rows(rows: &[RowHash]) -> Option<Self> {
        Self::new(rows.iter().copied().map(NodeHash::Row).collect())
    }

    /// What a worker commits to.
    #[must_use]
    pub fn root(&self) -> NodeHash {
        self.levels[self.levels.len() - 1][0]
    }

    /// How many rows the tree has.
    #[must_use]
    pub fn leaf_count(&self) -> usize {
        self.levels[0].len()
    }

    /// Opens row `index`: its hash and the siblings on the way to the root. None if there is no such row.
    #[must_use]
    pub fn open(&self, index: usize) -> Option<MerkleProof> {
        let leaf_hash = *self.levels[0].get(index)?;
        let depth = self.levels.len() - 1;
        let mut proof_hashes = Vec::with_capacity(depth);
        let mut proof_directions = Vec::with_capacity(depth);
        let mut at = index;
        for level in &self.levels[..depth] {
            let is_left = at.is_multiple_of(2);
            let sibling = if is_left { level.get(at + 1).unwrap_or(&level[at]) } else { &level[at - 1] };
            proof_hashes.push(*sibling);
            proof_directions.push(is_left);
            at /= 2;
        }
        Some(MerkleProof { leaf_index: index as u64, leaf_hash, proof_hashes, proof_directions })
    }
}

/// The opening of one row (worker-miner spec 4.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerkleProof {
    /// Row index.
    #[serde(deserialize_with = "lenient::read")]
    pub leaf_index: u64,
    /// Row hash.
    pub leaf_hash: NodeHash,
    /// The sibling on each level, leaf to root; `ceil(log2 n)` of them for n rows.
    pub proof_hashes: Vec<NodeHash>,
    /// For each sibling: true if it stands to the right.
    #[serde(deserialize_with = "lenient::read")]
    pub proof_directions: Vec<bool>,
}

/// Why an opening does not prove its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MerkleError {
    /// It opens another row than the requested one, or one that the tree does not have.
    #[error("opens another row than the requested one")]
    Index,
    /// It opens another value than the row hash.
    #[error("opens another value than the row hash")]
    Leaf,
    /// It has not exactly one sibling and direction per level.
    #[error("path does not have one sibling and direction per level")]
    Depth,
    /// Its directions do not follow from the row's index.
    #[error("path does not lead from the requested row")]
    Direction,
    /// It leads to another root than the committed one.
    #[error("path does not lead to the committed root")]
    Root,
}

impl MerkleProof {
    /// Checks that this opening proves `leaf` to be row `index` of the tree of `leaf_count` rows under `root`.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self, root: NodeHash, leaf_count: usize, index: usize, leaf: NodeHash) -> Result<(), MerkleError> {
        if self.leaf_index != index as u64 || index >= leaf_count {
            return Err(MerkleError::Index);
        }
        if self.leaf_hash != leaf {
            return Err(MerkleError::Leaf);
        }
        let depth = leaf_count.next_power_of_two().ilog2() as usize;
        if self.proof_hashes.len() != depth || self.proof_directions.len() != depth {
            return Err(MerkleError::Depth);
        }
        let mut node = leaf;
        for (level, (sibling, sibling_is_right)) in self.proof_hashes.iter().zip(&self.proof_directions).enumerate() {
            if *sibling_is_right != ((index >> level) & 1 == 0) {
                return Err(MerkleError::Direction);
            }
            node = if *sibling_is_right { NodeHash::parent(node, *sibling) } else { NodeHash::parent(*sibling, node) };
        }
        if node == root { Ok(()) } else { Err(MerkleError::Root) }
    }
}
