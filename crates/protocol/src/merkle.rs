//! The commitment to a result: a Merkle tree over its row hashes, and the openings that prove single rows.
//!
//! The worker builds the tree and commits to its root; the validator then draws rows, the worker opens them, and
//! [`MerkleProof::verify`] holds each opening against the root (worker-miner spec 4.6). Worker and validator must not share
//! the arithmetic that decides: the tree is a plain loop over levels, openings are folded by the library `rs_merkle`.

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
    /// The last node of an odd level is not its own sibling.
    #[error("path pairs a lone last node with another one")]
    LoneNode,
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
        let siblings = self.siblings(leaf_count, index)?;
        let is_proved = if leaf_count.is_power_of_two() {
            rs_merkle::MerkleProof::<Promoting>::new(siblings).verify(root, &[index], &[leaf], leaf_count)
        } else {
            rs_merkle::MerkleProof::<Doubling>::new(siblings).verify(root, &[index], &[leaf], leaf_count)
        };
        if is_proved { Ok(()) } else { Err(MerkleError::Root) }
    }

    /// Walks from the row to the root by index and leaf count alone, and gives the siblings that the library wants:
    /// those of other nodes. Where the walk meets the last node of an odd level, the wire repeats that node as its own
    /// sibling; the library doubles it itself, so the repetition is checked here and left out.
    fn siblings(&self, leaf_count: usize, index: usize) -> Result<Vec<NodeHash>, MerkleError> {
        let depth = depth(leaf_count);
        if self.proof_hashes.len() != depth || self.proof_directions.len() != depth {
            return Err(MerkleError::Depth);
        }
        let mut siblings = Vec::with_capacity(depth);
        let (mut node, mut at, mut level_len) = (self.leaf_hash, index, leaf_count);
        for (sibling, sibling_is_right) in self.proof_hashes.iter().zip(&self.proof_directions) {
            let is_left = at.is_multiple_of(2);
            if *sibling_is_right != is_left {
                return Err(MerkleError::Direction);
            }
            let is_alone = is_left && at + 1 == level_len;
            if !is_alone {
                siblings.push(*sibling);
            } else if *sibling != node {
                return Err(MerkleError::LoneNode);
            }
            node = if is_left { NodeHash::parent(node, *sibling) } else { NodeHash::parent(*sibling, node) };
            (at, level_len) = (at / 2, level_len.div_ceil(2));
        }
        Ok(siblings)
    }
}

/// Levels above the leaves: `ceil(log2 leaf_count)`.
fn depth(leaf_count: usize) -> usize {
    (usize::BITS - leaf_count.saturating_sub(1).leading_zeros()) as usize
}

/// The library's view of the tree where some level is odd: a node without a right neighbour is paired with itself.
///
/// The library walks one level more than a tree of 2^k leaves has, so there [`Promoting`] is needed.
#[derive(Clone)]
struct Doubling;

impl rs_merkle::Hasher for Doubling {
    type Hash = NodeHash;

    fn hash(data: &[u8]) -> NodeHash {
        NodeHash::Inner(Sha256::digest(data).into())
    }

    fn concat_and_hash(left: &NodeHash, right: Option<&NodeHash>) -> NodeHash {
        NodeHash::parent(*left, *right.unwrap_or(left))
    }
}

/// The library's view of a tree of 2^k leaves: no level is odd but the root's, which is carried up unchanged.
#[derive(Clone)]
struct Promoting;

impl rs_merkle::Hasher for Promoting {
    type Hash = NodeHash;

    fn hash(data: &[u8]) -> NodeHash {
        Doubling::hash(data)
    }

    fn concat_and_hash(left: &NodeHash, right: Option<&NodeHash>) -> NodeHash {
        right.map_or(*left, |right| NodeHash::parent(*left, *right))
    }
}

impl From<NodeHash> for Vec<u8> {
    /// The node's text, as the library hashes it.
    fn from(node: NodeHash) -> Self {
        node.to_string().into_bytes()
    }
}

impl TryFrom<Vec<u8>> for NodeHash {
    type Error = NodeHashError;

    fn try_from(text: Vec<u8>) -> Result<Self, NodeHashError> {
        std::str::from_utf8(&text).map_err(|_| NodeHashError)?.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(number: u64) -> RowHash {
        RowHash(number.to_be_bytes())
    }

    fn tree(leaf_count: usize) -> MerkleTree {
        let rows: Vec<_> =
            (0..leaf_count as u64).map(|number| row(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        MerkleTree::from_rows(&rows).unwrap()
    }

    /// The root by the library's own tree.
    fn library_root(leaves: &[NodeHash]) -> Option<NodeHash> {
        if leaves.len().is_power_of_two() {
            rs_merkle::MerkleTree::<Promoting>::from_leaves(leaves).root()
        } else {
            rs_merkle::MerkleTree::<Doubling>::from_leaves(leaves).root()
        }
    }

    #[test]
    fn a_tree_needs_a_leaf_and_one_leaf_is_its_root() {
        assert!(MerkleTree::new(Vec::new()).is_none());
        let tree = MerkleTree::from_rows(&[row(7)]).unwrap();
        assert_eq!(tree.root(), NodeHash::Row(row(7)));
        let opening = tree.open(0).unwrap();
        assert_eq!(opening.verify(tree.root(), 1, 0, row(7).into()), Ok(()));
        assert!(tree.open(1).is_none());
    }

    proptest! {
        #[test]
        fn the_loop_and_the_library_have_one_root(leaf_count in 1_usize..70) {
            let tree = tree(leaf_count);
            prop_assert_eq!(library_root(&tree.levels[0]), Some(tree.root()));
        }

        #[test]
        fn every_row_of_any_tree_is_proved(leaf_count in 1_usize..70) {
            let tree = tree(leaf_count);
            for index in 0..leaf_count {
                let opening = tree.open(index).unwrap();
                prop_assert_eq!(opening.verify(tree.root(), leaf_count, index, tree.levels[0][index]), Ok(()));
            }
        }

        #[test]
        fn no_altered_opening_proves(
            leaf_count in 2_usize..70,
            index in any::<prop::sample::Index>(),
            level in any::<prop::sample::Index>(),
            alteration in 0..8,
        ) {
            let tree = tree(leaf_count);
            let index = index.index(leaf_count);
            let leaf = tree.levels[0][index];
            let mut opening = tree.open(index).unwrap();
            let level = level.index(opening.proof_hashes.len());
            let (mut asked, mut count, mut expected) = (index, leaf_count, leaf);
            match alteration {
                0 => opening.proof_hashes[level] = NodeHash::Inner([0xab; 32]),
                1 => opening.proof_directions[level] ^= true,
                2 => drop(opening.proof_hashes.pop()),
                3 => { opening.proof_directions.pop(); opening.proof_hashes.pop(); }
                4 => { opening.proof_hashes.push(leaf); opening.proof_directions.push(true); }
                5 => opening.leaf_hash = NodeHash::Row(row(1)),
                6 => { expected = NodeHash::Row(row(1)); opening.leaf_hash = expected; }
                // Another row's path under this row's name.
                _ => {
                    asked = (index + 1) % leaf_count;
                    opening.leaf_index = asked as u64;
                }
            }
            prop_assert!(opening.verify(tree.root(), count, asked, expected).is_err());
            // Nor does a true opening prove for a tree of another depth.
            count = leaf_count * 2 + 1;
            prop_assert!(tree.open(index).unwrap().verify(tree.root(), count, index, leaf).is_err());
        }
    }
}
