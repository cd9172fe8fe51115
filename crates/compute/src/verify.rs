//! The validator's side of a CPU challenge: recompute the opened rows, and only these, then judge.
//!
//! Nothing here shares arithmetic with [`crate::product`], so that a fault in one cannot hide in the other: rows times
//! matrix, in whole 32- and 64-bit words where the product has packed 16-bit pairs. B is never held as a whole either: it
//! passes by row by row, straight from the generator, once per iteration.

use std::ops::Range;

use byteleap_protocol::id::{RowHash, Unit};
use byteleap_protocol::merkle::{MerkleError, NodeHash};
use byteleap_protocol::payload::ProofResponse;

use crate::challenge::CpuChallenge;
use crate::kernel::{DEPTH, Kernel, WIDTH, Word};
use crate::matrix::ELEMENT_MAX;
use crate::mt19937::Elements;
use crate::row_hash::row_hash;

/// Rows of B whose products with the opened rows of A are summed in 32 bits before these sums are added up in 64.
const EXACT_ROWS: usize = 8192;

const _: () = assert!(EXACT_ROWS as i64 * ELEMENT_MAX as i64 * ELEMENT_MAX as i64 <= i32::MAX as i64);
const _: () = assert!(EXACT_ROWS.is_multiple_of(DEPTH));

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
    expected_row_hashes_by(Kernel::best(), challenge, rows)
}

/// As [`expected_row_hashes`], by a certain kernel.
///
/// # Panics
/// If a row is not below n.
#[must_use]
pub fn expected_row_hashes_by(kernel: Kernel, challenge: &CpuChallenge, rows: &[u32]) -> Vec<RowHash> {
    let size = challenge.size();
    assert!(rows.iter().all(|row| (*row as usize) < size), "drawn rows lie within the matrix");
    let mut stream = Elements::new(challenge.seed_word(), kernel);
    let a_rows = take_rows_of_a(size, rows, &mut stream);
    let mut opened = a_rows_times_b(kernel, size, &a_rows, stream.clone());
    for _ in 1..challenge.iterations() {
        opened = weigh_rows(kernel, size, 0..size, &opened, &mut stream.clone());
    }
    opened.iter().map(|row| row_hash(row)).collect()
}

/// Takes A off the stream, which then stands before B, and keeps the opened rows.
fn take_rows_of_a(size: usize, rows: &[u32], stream: &mut Elements) -> Vec<Vec<i32>> {
    let mut opened = vec![Vec::new(); rows.len()];
    let mut drawn = vec![0_i16; size];
    for row in 0..size {
        stream.draw(&mut drawn);
        for (kept, _) in opened.iter_mut().zip(rows).filter(|(_, wanted)| **wanted as usize == row) {
            *kept = drawn.iter().map(|element| i32::from(*element)).collect();
        }
    }
    opened
}

/// The opened rows of A times B. Its sums fit 32 bits over so many rows of B that few challenges need a second round.
fn a_rows_times_b(kernel: Kernel, size: usize, a_rows: &[Vec<i32>], mut b: Elements) -> Vec<Vec<i64>> {
    let mut products = vec![vec![0_i64; size]; a_rows.len()];
    for first in (0..size).step_by(EXACT_ROWS) {
        let b_rows = first..size.min(first + EXACT_ROWS);
        let sums = weigh_rows(kernel, size, b_rows, a_rows, &mut b);
        for (product, sums) in products.iter_mut().zip(&sums) {
            for (element, sum) in product.iter_mut().zip(sums) {
                *element += i64::from(*sum);
            }
        }
    }
    products
}

/// Each opened row times these rows of B, which come next in the stream: their sum, weighted by the row's elements.
fn weigh_rows<T: Word>(
    kernel: Kernel,
    size: usize,
    b_rows: Range<usize>,
    opened: &[Vec<T>],
    b: &mut Elements,
) -> Vec<Vec<T>> {
    let mut sums = vec![vec![T::default(); size.next_multiple_of(WIDTH)]; opened.len()];
    let mut drawn = vec![0_i16; DEPTH * size];
    let mut weights = vec![[T::default(); DEPTH]; opened.len()];
    let mut tile = [[T::default(); WIDTH]; DEPTH];
    for first in b_rows.clone().step_by(DEPTH) {
        let depth = DEPTH.min(b_rows.end - first);
        b.draw(&mut drawn[..depth * size]);
        drawn[depth * size..].fill(0);
        for (weights, row) in weights.iter_mut().zip(opened) {
            weights[..depth].copy_from_slice(&row[first..first + depth]);
        }
        for first_column in (0..size).step_by(WIDTH) {
            let width = WIDTH.min(size - first_column);
            for (words, b_row) in tile.iter_mut().zip(drawn.chunks_exact(size)) {
                for (word, element) in words.iter_mut().zip(&b_row[first_column..first_column + width]) {
                    *word = T::from(*element);
                }
            }
            for (weights, sums) in weights.iter().zip(&mut sums) {
                let (parts, _) = sums.as_chunks_mut::<WIDTH>();
                kernel.weigh(weights, &tile, &mut parts[first_column / WIDTH]);
            }
        }
    }
    for sums in &mut sums {
        sums.truncate(size);
    }
    sums
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

    #[test]
    fn every_kernel_weighs_rows_like_the_portable_one_at_the_edges_of_words() {
        fn check<T: Word + PartialEq>(weights: [T; 4], elements: [T; 4]) {
            let weights: [T; DEPTH] = std::array::from_fn(|row| weights[row % 4]);
            let rows: [[T; WIDTH]; DEPTH] =
                std::array::from_fn(|row| std::array::from_fn(|column| elements[(row + column) % 4]));
            let weighed = |kernel: Kernel| {
                let mut sums = [T::from(9); WIDTH];
                kernel.weigh(&weights, &rows, &mut sums);
                sums
            };
            let kernels = Kernel::all();
            assert!(kernels.iter().all(|kernel| weighed(*kernel) == weighed(kernels[kernels.len() - 1])));
        }
        check([i32::MIN, i32::MAX, -1, 500], [-500, 500, i32::MIN, 499]);
        check([i64::MIN, i64::MAX, -1, 1 << 33], [-500, 500, i64::MIN, 499]);
    }

    #[test]
    fn sums_of_32_bits_are_added_up_before_they_run_over() {
        // The largest row and column: the sum of 9000 products of 500·500 exceeds 32 bits.
        let size = 9000;
        let challenge = CpuChallenge::sample(5, size, 1);
        let kernel = Kernel::best();
        let size = challenge.size();
        let mut b = Elements::new(challenge.seed_word(), kernel);
        b.draw(&mut vec![0; size * size]);
        let column: Vec<i64> = {
            let mut b = b.clone();
            let mut row = vec![0; size];
            (0..size).map(|_| (b.draw(&mut row), i64::from(row[17])).1).collect()
        };
        let weights: Vec<i32> = column.iter().map(|element| 500 * element.signum() as i32).collect();
        let expected: i64 = column.iter().map(|element| 500 * element.abs()).sum();
        assert_eq!(a_rows_times_b(kernel, size, &[weights], b)[0][17], expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_kernel_expects_the_same_rows(seed in any::<u32>(), size in 1..300_u32, iterations in 1..8_u32) {
            let challenge = CpuChallenge::sample(seed, size, iterations);
            let rows = [0, size / 2, size - 1];
            let expected: Vec<_> =
                Kernel::all().into_iter().map(|kernel| expected_row_hashes_by(kernel, &challenge, &rows)).collect();
            prop_assert!(expected.iter().all(|hashes| *hashes == expected[0]));
        }

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
