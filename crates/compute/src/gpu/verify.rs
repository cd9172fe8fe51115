//! The validator's side of a GPU challenge: judges each GPU's proof on its own (worker-miner spec 5.8).
//!
//! Shown elements and sampled columns of shown rows are held against exact sums in binary64; the numbers of each shown row must
//! have the hash that the GPU committed to. Numbers out of range and lists of another length than asked for fail the GPU that
//! showed them, and no other.

use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, MatrixSize};
use byteleap_protocol::merkle::{MerkleError, NodeHash};
use byteleap_protocol::payload::ProofResponse;

use super::GpuChallenge;
use super::element::{ElementSeed, Row};
use super::row_hash::row_hash;
use crate::kernel::Kernel;

/// Keeps a relative difference finite where the exact element is zero.
const RELATIVE_FLOOR: f64 = 1e-10;

/// How far a GPU's numbers may be off, since GPUs round as they like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// A number this near passes.
    pub absolute: f64,
    /// A number whose difference is at most this share of the exact one passes.
    pub relative: f64,
    /// Share of the shown elements, and of each row's sampled ones, that must pass.
    pub success_rate: f64,
    /// Share of a row's columns that are sampled; one at least.
    pub row_sample_rate: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 0.02, relative: 0.005, success_rate: 0.85, row_sample_rate: 0.001 }
    }
}

impl Tolerance {
    /// Whether a number is near enough to the exact one; one that is none never is.
    #[must_use]
    pub fn accepts(&self, exact: f64, shown: f64) -> bool {
        let difference = (exact - shown).abs();
        difference <= self.absolute || difference / (exact.abs() + RELATIVE_FLOOR) <= self.relative
    }

    /// How many of `count` numbers must pass.
    #[must_use]
    pub fn required(&self, count: usize) -> usize {
        (self.success_rate * count as f64).ceil() as usize
    }

    /// How many columns of a row are sampled.
    #[must_use]
    pub fn sampled_columns(&self, size: MatrixSize) -> u32 {
        ((f64::from(size.get()) * self.row_sample_rate) as u32).clamp(1, size.get())
    }
}

/// What every GPU of one challenge was asked to show, and what it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// What was to be computed.
    pub challenge: &'a GpuChallenge,
    /// Rows to show in full, each below n.
    pub rows: &'a [u32],
    /// Elements to show, as row and column, each below n.
    pub coordinates: &'a [(u32, u32)],
    /// How near is near enough.
    pub tolerance: Tolerance,
}

/// Why a GPU's proof does not hold: evidence against that GPU alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
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
    /// A number for each drawn element and for each element of a drawn row.
    #[error("expected {expected} numbers, found {found}")]
    NumberCount {
        /// Numbers that were asked for.
        expected: usize,
        /// Numbers in the proof.
        found: usize,
    },
    /// A number that binary16 does not hold, or that is none.
    #[error("number {index} is not a finite binary16")]
    OutOfRange {
        /// Its place in the list.
        index: usize,
    },
    /// The opening of a row does not lead to the committed root.
    #[error("row {row}: {error}")]
    Path {
        /// The drawn row.
        row: u32,
        /// What is wrong with its path.
        error: MerkleError,
    },
    /// The numbers shown for a row have another hash than the row that was committed to.
    #[error("the numbers of row {row} have another hash than the committed one")]
    RowHash {
        /// The drawn row.
        row: u32,
    },
    /// Too few of the shown elements are those of the product.
    #[error("{passed} of the shown elements are right, at least {required} must be")]
    Elements {
        /// How many are near enough.
        passed: usize,
        /// How many must be.
        required: usize,
    },
    /// Too few of a row's sampled elements are those of the product.
    #[error("{passed} of the sampled elements of row {row} are right, at least {required} must be")]
    Row {
        /// The drawn row.
        row: u32,
        /// How many are near enough.
        passed: usize,
        /// How many must be.
        required: usize,
    },
}

impl Fault {
    /// The fault's lasting short name, for storage and statistics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::RowCount { .. } => "wrong_row_count",
            Self::NumberCount { .. } => "wrong_number_count",
            Self::OutOfRange { .. } => "number_out_of_range",
            Self::Path { error: MerkleError::Index, .. } => "wrong_index",
            Self::Path { .. } => "wrong_path",
            Self::RowHash { .. } => "wrong_row_hash",
            Self::Elements { .. } => "wrong_elements",
            Self::Row { .. } => "wrong_row",
        }
    }
}

impl Check<'_> {
    /// Judges what one GPU showed, against the root that it had committed to. `columns` are sampled anew for each GPU, after its
    /// proof is here: [`Tolerance::sampled_columns`] of them, each below n.
    ///
    /// What is cheap comes first: counts, range, paths, hashes, and only then the sums. One thread, 2·n elements are drawn for
    /// each coordinate and n for each sampled column of each row; 8·n bytes.
    ///
    /// # Errors
    /// The first [`Fault`] found.
    pub fn judge(&self, gpu: &GpuUuid, root: NodeHash, columns: &[u32], proof: &ProofResponse) -> Result<(), Fault> {
        self.judge_by(Kernel::best(), gpu, root, columns, proof)
    }

    /// As [`Self::judge`], by a certain kernel.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn judge_by(
        &self,
        kernel: Kernel,
        gpu: &GpuUuid,
        root: NodeHash,
        columns: &[u32],
        proof: &ProofResponse,
    ) -> Result<(), Fault> {
        self.check_shape(proof)?;
        let (elements, rows) = proof.coordinate_values.split_at(self.coordinates.len());
        let rows = || self.rows.iter().copied().zip(rows.chunks_exact(self.size()));
        self.check_commitment(root, proof, rows())?;
        let product = Product { kernel, seed: ElementSeed::new(&self.challenge.seed, gpu), check: self };
        let required = self.tolerance.required(elements.len());
        let passed = product.count_elements(elements);
        if passed < required {
            return Err(Fault::Elements { passed, required });
        }
        let required = self.tolerance.required(columns.len());
        for (row, numbers) in rows() {
            let passed = product.count_in_row(row, numbers, columns);
            if passed < required {
                return Err(Fault::Row { row, passed, required });
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.challenge.size.as_usize()
    }

    /// As many of everything as was asked for, and numbers only.
    fn check_shape(&self, proof: &ProofResponse) -> Result<(), Fault> {
        let (expected, row_hashes, paths) = (self.rows.len(), proof.row_hashes.len(), proof.merkle_proofs.len());
        if row_hashes != expected || paths != expected {
            return Err(Fault::RowCount { expected, row_hashes, paths });
        }
        let (expected, found) = (self.coordinates.len() + self.rows.len() * self.size(), proof.coordinate_values.len());
        if found != expected {
            return Err(Fault::NumberCount { expected, found });
        }
        match proof.coordinate_values.iter().position(|number| !number.is_finite()) {
            Some(index) => Err(Fault::OutOfRange { index }),
            None => Ok(()),
        }
    }

    /// The shown rows are those that were committed to.
    fn check_commitment<'n>(
        &self,
        root: NodeHash,
        proof: &ProofResponse,
        rows: impl Iterator<Item = (u32, &'n [Half])>,
    ) -> Result<(), Fault> {
        for ((row, numbers), (hash, path)) in rows.zip(proof.row_hashes.iter().zip(&proof.merkle_proofs)) {
            path.verify(root, self.size(), row as usize, NodeHash::Row(*hash))
                .map_err(|error| Fault::Path { row, error })?;
            if row_hash(numbers) != *hash {
                return Err(Fault::RowHash { row });
            }
        }
        Ok(())
    }
}

/// The exact product of one GPU's matrices, element by element as far as it is needed.
struct Product<'a> {
    kernel: Kernel,
    seed: ElementSeed,
    check: &'a Check<'a>,
}

impl Product<'_> {
    /// How many of the shown elements are right.
    fn count_elements(&self, shown: &[Half]) -> usize {
        let coordinates = self.check.coordinates.iter().zip(shown);
        coordinates.filter(|((row, column), shown)| self.accepts(&self.row(*row), *column, **shown)).count()
    }

    /// How many of a row's sampled elements are right.
    fn count_in_row(&self, row: u32, shown: &[Half], columns: &[u32]) -> usize {
        let row = self.row(row);
        columns.iter().filter(|column| self.accepts(&row, **column, shown[**column as usize])).count()
    }

    fn row(&self, row: u32) -> Row {
        Row::draw(self.kernel, self.seed, self.check.size(), row)
    }

    fn accepts(&self, row: &Row, column: u32, shown: Half) -> bool {
        let exact = f64::from(self.check.challenge.iterations.get()) * row.times_column(column);
        self.check.tolerance.accepts(exact, shown.to_f64())
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::id::Unit;
    use byteleap_protocol::merkle::MerkleTree;
    use byteleap_protocol::payload::ProofResponse;

    use super::*;

    const SIZE: usize = 40;
    const ROWS: [u32; 2] = [3, 39];
    const COORDINATES: [(u32, u32); 4] = [(0, 0), (39, 39), (7, 1), (20, 30)];
    const COLUMNS: [u32; 8] = [0, 5, 10, 15, 20, 25, 30, 39];

    /// A GPU that computes as the verifier does, and what it shows.
    struct Honest {
        challenge: GpuChallenge,
        gpu: GpuUuid,
        root: NodeHash,
        proof: ProofResponse,
    }

    impl Honest {
        fn new() -> Self {
            Self::with_rows(|_, _| {})
        }

        /// Alters rows before they are committed to.
        fn with_rows(alter: impl Fn(u32, &mut Vec<Half>)) -> Self {
            let challenge = GpuChallenge {
                seed: "0011".parse().unwrap(),
                size: MatrixSize::new(SIZE as u32).unwrap(),
                iterations: byteleap_protocol::id::Iterations::new(3).unwrap(),
            };
            let gpu: GpuUuid = "GPU-1".parse().unwrap();
            let seed = ElementSeed::new(&challenge.seed, &gpu);
            let number =
                |row, column| Half::from_f64(3.0 * Row::draw(Kernel::best(), seed, SIZE, row).times_column(column));
            let row = |row| {
                let mut numbers = (0..SIZE as u32).map(|column| number(row, column)).collect();
                alter(row, &mut numbers);
                numbers
            };
            let row_hashes: Vec<_> = (0..SIZE as u32).map(|index| row_hash(&row(index))).collect();
            let tree = MerkleTree::from_rows(&row_hashes).unwrap();
            let mut coordinate_values: Vec<Half> =
                COORDINATES.iter().map(|(row, column)| number(*row, *column)).collect();
            coordinate_values.extend(ROWS.into_iter().flat_map(row));
            let proof = ProofResponse {
                uuid: Unit::Gpu(gpu.clone()),
                row_hashes: ROWS.iter().map(|row| row_hashes[*row as usize]).collect(),
                merkle_proofs: ROWS.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
                coordinate_values,
            };
            Self { challenge, gpu, root: tree.root(), proof }
        }

        fn judged(&self) -> Result<(), Fault> {
            let tolerance = Tolerance::default();
            let check = Check { challenge: &self.challenge, rows: &ROWS, coordinates: &COORDINATES, tolerance };
            check.judge(&self.gpu, self.root, &COLUMNS, &self.proof)
        }
    }

    #[test]
    fn an_honest_gpu_passes() {
        assert_eq!(Honest::new().judged(), Ok(()));
    }

    #[test]
    fn short_and_long_lists_fail() {
        let expected = COORDINATES.len() + ROWS.len() * SIZE;
        for found in [0, COORDINATES.len(), expected - 1, expected + 1] {
            let mut gpu = Honest::new();
            gpu.proof.coordinate_values.resize(found, Half::from_f64(1.0));
            assert_eq!(gpu.judged(), Err(Fault::NumberCount { expected, found }));
        }
    }

    #[test]
    fn row_hashes_and_paths_are_as_many_as_rows_were_drawn() {
        let mut gpu = Honest::new();
        gpu.proof.row_hashes.pop();
        assert_eq!(gpu.judged(), Err(Fault::RowCount { expected: 2, row_hashes: 1, paths: 2 }));
        let mut gpu = Honest::new();
        gpu.proof.merkle_proofs.clear();
        assert_eq!(gpu.judged(), Err(Fault::RowCount { expected: 2, row_hashes: 2, paths: 0 }));
    }

    #[test]
    fn a_number_that_is_none_fails_wherever_it_stands() {
        for index in [0, COORDINATES.len() + 11] {
            let mut gpu = Honest::new();
            gpu.proof.coordinate_values[index] = Half::NAN;
            assert_eq!(gpu.judged(), Err(Fault::OutOfRange { index }));
        }
    }

    #[test]
    fn a_number_beyond_the_range_fails_and_does_not_end_the_check() {
        let mut gpu = Honest::new();
        gpu.proof.coordinate_values[1] = Half::from_f64(1e9);
        assert_eq!(gpu.judged(), Err(Fault::OutOfRange { index: 1 }));
        // Also where the row that holds it was committed to.
        let place = COORDINATES.len() + 4;
        let infinite = Honest::with_rows(|row, numbers| {
            if row == ROWS[0] {
                numbers[4] = Half::from_f64(f64::INFINITY);
            }
        });
        assert_eq!(infinite.judged(), Err(Fault::OutOfRange { index: place }));
    }

    #[test]
    fn paths_lead_from_the_drawn_rows_to_the_committed_root() {
        let mut gpu = Honest::new();
        gpu.proof.merkle_proofs.swap(0, 1);
        let fault = Fault::Path { row: ROWS[0], error: MerkleError::Index };
        assert_eq!(gpu.judged(), Err(fault));
        let mut gpu = Honest::new();
        gpu.root = NodeHash::Inner([7; 32]);
        assert_eq!(gpu.judged(), Err(Fault::Path { row: ROWS[0], error: MerkleError::Root }));
    }

    #[test]
    fn a_row_that_is_not_the_committed_one_fails_by_a_single_bit() {
        let mut gpu = Honest::new();
        let number = &mut gpu.proof.coordinate_values[COORDINATES.len() + SIZE];
        *number = Half::from_bits(number.to_bits() ^ 1);
        assert_eq!(gpu.judged(), Err(Fault::RowHash { row: ROWS[1] }));
    }

    #[test]
    fn shown_elements_are_those_of_the_product() {
        let mut gpu = Honest::new();
        gpu.proof.coordinate_values[2] = Half::from_f64(500.0);
        // Of four, ceil(0.85 * 4) = 4 must be right.
        assert_eq!(gpu.judged(), Err(Fault::Elements { passed: 3, required: 4 }));
    }

    #[test]
    fn a_committed_row_that_was_not_computed_fails_where_it_is_sampled() {
        let guessed = Honest::with_rows(|row, numbers| {
            if row == ROWS[1] {
                numbers.fill(Half::from_f64(500.0));
            }
        });
        assert_eq!(guessed.judged(), Err(Fault::Row { row: ROWS[1], passed: 0, required: 7 }));
        // One wrong number of eight is within the rate.
        let rounded = Honest::with_rows(|row, numbers| {
            if row == ROWS[1] {
                numbers[COLUMNS[3] as usize] = Half::from_f64(500.0);
            }
        });
        assert_eq!(rounded.judged(), Ok(()));
    }

    #[test]
    fn at_least_one_column_is_sampled_and_at_most_all() {
        let columns = |size, row_sample_rate| {
            Tolerance { row_sample_rate, ..Tolerance::default() }.sampled_columns(MatrixSize::new(size).unwrap())
        };
        assert_eq!(columns(32_768, 0.001), 32);
        assert_eq!(columns(34_406, 0.001), 34);
        assert_eq!((columns(64, 0.001), columns(64, 0.0), columns(64, 7.0)), (1, 1, 64));
    }
}
