//! The validator's side of a CPU challenge: recompute the opened rows, and only these, then judge.
//!
//! Nothing here shares arithmetic with [`crate::product`], so that a fault in one cannot hide in the other: rows times
//! matrix, in plain 64-bit numbers that wrap. B is never held as a whole either: it passes by row by row, straight from the
//! generator, once per iteration.

use byteleap_protocol::id::{RowHash, Unit};
use byteleap_protocol::merkle::{MerkleError, NodeHash};
use byteleap_protocol::payload::ProofResponse;

use crate::challenge::CpuChallenge;
use crate::matrix::draw_row;
use crate::mt19937::Mt19937;
use crate::row_hash::row_hash;

/// Rows of B that are applied to one opened row at a time, so that its sums stay in the first-level cache.
const BLOCK_ROWS: usize = 8;

/// Why a proof does not hold: evidence against the worker, without tolerance (worker-miner spec 4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There must be one proof, of the processor.
    #[error("expected one proof, of the processor")]
    Units,
    /// A row hash and a path for each drawn row.
    #[error("expected {expected} rows, found {row_hashes} row hashes and {paths} paths")]
    RowCount {
        /// Rows that were drawn.
        expected: usize,
        /// Row hashes in the proof.
        row_hashes: usize,
        /// Merkle paths in the proof.
        paths: usize,
    },
    /// The opening of a row does not lead to the committed root.
    #[error("row {row}: {error}")]
    Path {
        /// The drawn row.
        row: u32,
        /// What is wrong with its path.
        error: MerkleError,
    },
    /// The row that was committed to is not the row of the product.
    #[error("row {row} has another hash than the product's row")]
    RowHash {
        /// The drawn row.
        row: u32,
    },
}

impl Fault {
    /// The fault's lasting short name, for storage and statistics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Units => "wrong_units",
            Self::RowCount { .. } => "wrong_row_count",
            Self::Path { error: MerkleError::Index, .. } => "wrong_index",
            Self::Path { .. } => "wrong_path",
            Self::RowHash { .. } => "wrong_row_hash",
        }
    }
}

/// Judges the proof that a worker gave for the drawn rows of a challenge, against the root that it had committed to.
///
/// What is cheap comes first: the shape, then the paths, and only then the rows themselves (cost: see
/// [`expected_row_hashes`]).
///
/// # Errors
/// The first [`Fault`] found.
///
/// # Panics
/// If a drawn row is not below n.
pub fn judge(challenge: &CpuChallenge, rows: &[u32], root: NodeHash, proofs: &[ProofResponse]) -> Result<(), Fault> {
    let [ProofResponse { uuid: Unit::Cpu, row_hashes, merkle_proofs, .. }] = proofs else { return Err(Fault::Units) };
    if row_hashes.len() != rows.len() || merkle_proofs.len() != rows.len() {
        let (expected, row_hashes, paths) = (rows.len(), row_hashes.len(), merkle_proofs.len());
        return Err(Fault::RowCount { expected, row_hashes, paths });
    }
    for ((row, hash), path) in rows.iter().zip(row_hashes).zip(merkle_proofs) {
        path.verify(root, challenge.size(), *row as usize, NodeHash::Row(*hash))
            .map_err(|error| Fault::Path { row: *row, error })?;
    }
    let expected = expected_row_hashes(challenge, rows);
    let mut compared = rows.iter().zip(row_hashes.iter().zip(&expected));
    match compared.find(|(_, (found, expected))| found != expected) {
        Some((row, _)) => Err(Fault::RowHash { row: *row }),
        None => Ok(()),
    }
}

/// The hashes that these rows of the product must have, in the order of `rows`. One thread, about rows·n²·k
/// multiplications; 16·n bytes per row.
///
/// # Panics
/// If a row is not below n.
#[must_use]
pub fn expected_row_hashes(challenge: &CpuChallenge, rows: &[u32]) -> Vec<RowHash> {
    let size = challenge.size();
    assert!(rows.iter().all(|row| (*row as usize) < size), "drawn rows lie within the matrix");
    let mut stream = Mt19937::new(challenge.seed_word());
    let mut opened = take_rows_of_a(size, rows, &mut stream);
    for _ in 0..challenge.iterations() {
        opened = times_b(size, &opened, stream.clone());
    }
    opened.iter().map(|row| row_hash(row)).collect()
}

/// Takes A off the stream, which then stands before B, and keeps the opened rows.
fn take_rows_of_a(size: usize, rows: &[u32], stream: &mut Mt19937) -> Vec<Vec<i64>> {
    let mut opened = vec![Vec::new(); rows.len()];
    let mut drawn = vec![0_i16; size];
    for row in 0..size {
        draw_row(stream, &mut drawn);
        for (kept, _) in opened.iter_mut().zip(rows).filter(|(_, wanted)| **wanted as usize == row) {
            *kept = drawn.iter().map(|element| i64::from(*element)).collect();
        }
    }
    opened
}

/// Each row times B: the sum of B's rows, weighted by the row's elements.
fn times_b(size: usize, rows: &[Vec<i64>], mut b: Mt19937) -> Vec<Vec<i64>> {
    let mut products = vec![vec![0_i64; size]; rows.len()];
    let mut block = vec![0_i16; BLOCK_ROWS * size];
    for first in (0..size).step_by(BLOCK_ROWS) {
        let block = &mut block[..BLOCK_ROWS.min(size - first) * size];
        draw_row(&mut b, block);
        for (row, product) in rows.iter().zip(&mut products) {
            for (weight, b_row) in row[first..].iter().zip(block.chunks_exact(size)) {
                for (sum, element) in product.iter_mut().zip(b_row) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(i64::from(*element)));
                }
            }
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use byteleap_protocol::merkle::MerkleTree;
    use proptest::prelude::*;

    use super::*;
    use crate::cpu;

    /// What an honest worker commits to, and the tree that it opens rows from.
    fn committed(challenge: &CpuChallenge) -> (MerkleTree, Vec<RowHash>) {
        let row_hashes = cpu::compute(challenge, &AtomicBool::new(false)).unwrap().row_hashes;
        (MerkleTree::from_rows(&row_hashes).unwrap(), row_hashes)
    }

    fn open(tree: &MerkleTree, row_hashes: &[RowHash], rows: &[u32]) -> ProofResponse {
        ProofResponse {
            uuid: Unit::Cpu,
            row_hashes: rows.iter().map(|row| row_hashes[*row as usize]).collect(),
            merkle_proofs: rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
            coordinate_values: Vec::new(),
        }
    }

    /// A challenge, its drawn rows, the committed root and the honest proof.
    fn honest() -> (CpuChallenge, [u32; 4], NodeHash, ProofResponse) {
        let challenge = CpuChallenge::sample(11, 37, 2);
        let (tree, row_hashes) = committed(&challenge);
        let rows = [0, 7, 20, 36];
        (challenge, rows, tree.root(), open(&tree, &row_hashes, &rows))
    }

    #[test]
    fn an_honest_proof_holds() {
        let (challenge, rows, root, proof) = honest();
        assert_eq!(judge(&challenge, &rows, root, &[proof]), Ok(()));
    }

    #[test]
    fn a_proof_must_be_one_and_of_the_processor() {
        let (challenge, rows, root, proof) = honest();
        assert_eq!(judge(&challenge, &rows, root, &[]), Err(Fault::Units));
        assert_eq!(judge(&challenge, &rows, root, &[proof.clone(), proof.clone()]), Err(Fault::Units));
        let of_a_gpu = ProofResponse { uuid: "GPU-1".parse().unwrap(), ..proof };
        assert_eq!(judge(&challenge, &rows, root, &[of_a_gpu]), Err(Fault::Units));
    }

    #[test]
    fn every_drawn_row_needs_its_hash_and_its_path() {
        let (challenge, rows, root, proof) = honest();
        let mut without_hash = proof.clone();
        without_hash.row_hashes.pop();
        let fault = Fault::RowCount { expected: 4, row_hashes: 3, paths: 4 };
        assert_eq!(judge(&challenge, &rows, root, &[without_hash]), Err(fault));
        let mut with_more_paths = proof;
        with_more_paths.merkle_proofs.extend_from_within(..1);
        let fault = Fault::RowCount { expected: 4, row_hashes: 4, paths: 5 };
        assert_eq!(judge(&challenge, &rows, root, &[with_more_paths]), Err(fault));
    }

    #[test]
    fn other_rows_than_the_drawn_ones_do_not_count() {
        let (challenge, _, root, proof) = honest();
        let fault = Fault::Path { row: 8, error: MerkleError::Index };
        assert_eq!(judge(&challenge, &[0, 8, 20, 36], root, std::slice::from_ref(&proof)), Err(fault));
        assert_eq!(fault.code(), "wrong_index");
        let fault = Fault::Path { row: 20, error: MerkleError::Index };
        assert_eq!(judge(&challenge, &[0, 20, 7, 36], root, &[proof]), Err(fault), "order matters");
    }

    #[test]
    fn a_path_must_lead_to_the_committed_root() {
        let (challenge, rows, _, proof) = honest();
        let other_root = committed(&CpuChallenge::sample(12, 37, 2)).0.root();
        let fault = Fault::Path { row: 0, error: MerkleError::Root };
        assert_eq!(judge(&challenge, &rows, other_root, &[proof]), Err(fault));
    }

    #[test]
    fn a_hash_that_was_swapped_after_the_commitment_is_caught() {
        let (challenge, rows, root, mut proof) = honest();
        proof.row_hashes[1].0[0] ^= 1;
        let fault = Fault::Path { row: 7, error: MerkleError::Leaf };
        assert_eq!(judge(&challenge, &rows, root, &[proof]), Err(fault));
    }

    #[test]
    fn the_result_of_another_challenge_is_caught_although_its_paths_hold() {
        let (challenge, rows, ..) = honest();
        let (tree, row_hashes) = committed(&CpuChallenge::sample(12, 37, 2));
        let proof = open(&tree, &row_hashes, &rows);
        assert_eq!(judge(&challenge, &rows, tree.root(), &[proof]), Err(Fault::RowHash { row: 0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_row_that_was_not_computed_is_caught_when_it_is_drawn(
            seed in any::<u32>(),
            size in 1..120_u32,
            iterations in 1..4_u32,
            wrong in any::<prop::sample::Index>(),
            others in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let challenge = CpuChallenge::sample(seed, size, iterations);
            let (_, mut row_hashes) = committed(&challenge);
            let wrong = wrong.index(challenge.size()) as u32;
            row_hashes[wrong as usize].0[7] ^= 0x80;
            let tree = MerkleTree::from_rows(&row_hashes).unwrap();
            let mut rows: Vec<u32> = others.iter().map(|other| other.index(challenge.size()) as u32).collect();
            rows.retain(|row| *row != wrong);
            prop_assert_eq!(judge(&challenge, &rows, tree.root(), &[open(&tree, &row_hashes, &rows)]), Ok(()));
            rows.push(wrong);
            let proof = open(&tree, &row_hashes, &rows);
            prop_assert_eq!(judge(&challenge, &rows, tree.root(), &[proof]), Err(Fault::RowHash { row: wrong }));
        }
    }
}
