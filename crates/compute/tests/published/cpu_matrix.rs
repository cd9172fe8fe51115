//! `vectors/cpu_matrix.json`: the generator, 21 challenges, and both sides on each of them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::kernel::Kernel;
use byteleap_compute::matrix::Factors;
use byteleap_compute::mt19937::Mt19937;
use byteleap_compute::product::Band;
use byteleap_compute::{cpu, verify};
use byteleap_protocol::id::{Iterations, MatrixSize, RowHash, Seed, Unit};
use byteleap_protocol::merkle::{MerkleProof, MerkleTree, NodeHash};
use byteleap_protocol::payload::ProofResponse;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    mt19937: Vec<Stream>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Stream {
    seed: u32,
    words_0_to_7: Vec<u32>,
    word_623: u32,
    word_624: u32,
    word_1248: u32,
    #[serde(rename = "first_16_values_in_-500..500")]
    first_values: Vec<i64>,
    words_consumed_for_them: usize,
}

#[derive(Deserialize)]
struct Case {
    seed: Seed,
    seed_int: u32,
    matrix_size: MatrixSize,
    iterations: Iterations,
    merkle_root: NodeHash,
    #[serde(rename = "A")]
    a: Option<Vec<Vec<i64>>>,
    #[serde(rename = "B")]
    b: Option<Vec<Vec<i64>>>,
    #[serde(rename = "C")]
    c: Option<Vec<Vec<Value>>>,
    #[serde(rename = "A_first_row_head", default)]
    a_first_row_head: Vec<i64>,
    #[serde(rename = "A_last")]
    a_last: Option<i64>,
    #[serde(rename = "B_first_row_head", default)]
    b_first_row_head: Vec<i64>,
    #[serde(rename = "B_last")]
    b_last: Option<i64>,
    #[serde(rename = "C_corners_as_strings", default)]
    c_corners: Vec<String>,
    row_hashes: Option<Vec<RowHash>>,
    #[serde(default)]
    row_hashes_selected: BTreeMap<String, RowHash>,
    proofs: Vec<MerkleProof>,
}

impl Case {
    fn challenge(&self) -> CpuChallenge {
        CpuChallenge::new(&self.seed, self.matrix_size, self.iterations).unwrap()
    }

    /// Every published row hash of this case, by row.
    fn published_hashes(&self) -> Vec<(u32, RowHash)> {
        let selected = self.row_hashes_selected.iter().map(|(row, hash)| (row.parse().unwrap(), *hash));
        (0..).zip(self.row_hashes.iter().flatten().copied()).chain(selected).collect()
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/cpu_matrix.json")).unwrap()
}

fn factors_and_product(kernel: Kernel, challenge: &CpuChallenge) -> (Factors, Vec<Vec<i64>>) {
    let cancelled = AtomicBool::new(false);
    let size = challenge.size();
    let factors = Factors::generate(challenge, kernel, &cancelled).unwrap();
    let mut band = Band::new(&factors, kernel, challenge.iterations(), size).unwrap();
    let product = band.multiply(0, size, &cancelled).unwrap();
    let product = product.chunks_exact(size).map(<[i64]>::to_vec).collect();
    (factors, product)
}

fn widen(elements: &[i16]) -> Vec<i64> {
    elements.iter().map(|element| i64::from(*element)).collect()
}

fn computed_hashes(kernel: Kernel, challenge: &CpuChallenge) -> Vec<RowHash> {
    cpu::compute_by(kernel, challenge, &AtomicBool::new(false)).unwrap().row_hashes
}

#[test]
fn the_generator_yields_the_published_words_and_bounded_values() {
    for stream in vectors().mt19937 {
        let mut generator = Mt19937::new(stream.seed);
        let words: Vec<u32> = (0..=1248).map(|_| generator.word()).collect();
        assert_eq!(words[..8], stream.words_0_to_7);
        assert_eq!([words[623], words[624], words[1248]], [stream.word_623, stream.word_624, stream.word_1248]);

        let mut generator = Mt19937::new(stream.seed);
        let values: Vec<i64> = (0..16).map(|_| i64::from(generator.up_to(1000)) - 500).collect();
        assert_eq!(values, stream.first_values);
        assert_eq!(generator.word(), words[stream.words_consumed_for_them], "words consumed for seed {}", stream.seed);
    }
}

#[test]
fn matrices_and_products_are_the_published_ones() {
    let cases = vectors().cases;
    for (kernel, case) in Kernel::all().into_iter().flat_map(|kernel| cases.iter().map(move |case| (kernel, case))) {
        let challenge = case.challenge();
        assert_eq!(challenge.seed_word(), case.seed_int);
        let size = challenge.size();
        let (factors, product) = factors_and_product(kernel, &challenge);
        let b = |row: usize, column: usize| i64::from(factors.b().element(row, column));
        for (row, elements) in case.a.iter().flatten().enumerate() {
            assert_eq!(widen(factors.a_row(row)), *elements);
        }
        for (row, elements) in case.b.iter().flatten().enumerate() {
            assert_eq!((0..size).map(|column| b(row, column)).collect::<Vec<_>>(), *elements);
        }
        for (elements, published) in product.iter().zip(case.c.iter().flatten()) {
            let published: Vec<String> =
                published.iter().map(|value| value.to_string().trim_matches('"').to_owned()).collect();
            assert_eq!(elements.iter().map(i64::to_string).collect::<Vec<_>>(), published);
        }
        for (column, element) in case.a_first_row_head.iter().enumerate() {
            assert_eq!(i64::from(factors.a_row(0)[column]), *element);
        }
        for (column, element) in case.b_first_row_head.iter().enumerate() {
            assert_eq!(b(0, column), *element);
        }
        let last = size - 1;
        assert!(case.a_last.is_none_or(|element| i64::from(factors.a_row(last)[last]) == element));
        assert!(case.b_last.is_none_or(|element| b(last, last) == element));
        let corners =
            [(0, 0), (0, last), (last, 0), (last, last)].map(|(row, column)| product[row][column].to_string());
        assert!(case.c_corners.is_empty() || case.c_corners == corners, "{:?} is not {corners:?}", case.c_corners);
    }
}

#[test]
fn the_workers_row_hashes_root_and_openings_are_the_published_ones() {
    let cases = vectors().cases;
    for (kernel, case) in Kernel::all().into_iter().flat_map(|kernel| cases.iter().map(move |case| (kernel, case))) {
        let computed = computed_hashes(kernel, &case.challenge());
        assert_eq!(computed.len(), case.matrix_size.as_usize());
        for (row, hash) in case.published_hashes() {
            assert_eq!(computed[row as usize], hash, "row {row} of size {}, seed {}", case.matrix_size, case.seed);
        }
        let tree = MerkleTree::from_rows(&computed).unwrap();
        assert_eq!(tree.root(), case.merkle_root);
        for published in &case.proofs {
            assert_eq!(tree.open(published.leaf_index as usize).as_ref(), Some(published));
        }
    }
}

#[test]
fn the_verifiers_row_hashes_are_the_published_ones() {
    for case in vectors().cases {
        let (rows, hashes): (Vec<u32>, Vec<RowHash>) = case.published_hashes().into_iter().unzip();
        for kernel in Kernel::all() {
            let expected = verify::expected_row_hashes_by(kernel, &case.challenge(), &rows);
            assert_eq!(expected, hashes, "{kernel:?}, size {}, seed {}", case.matrix_size, case.seed);
        }
    }
}

#[test]
fn the_published_openings_pass_judgement() {
    for case in vectors().cases {
        let rows: Vec<u32> = case.proofs.iter().map(|proof| proof.leaf_index as u32).collect();
        let leaf = |proof: &MerkleProof| proof.leaf_hash.to_string().parse().unwrap();
        let proof = ProofResponse {
            uuid: Unit::Cpu,
            row_hashes: case.proofs.iter().map(leaf).collect(),
            merkle_proofs: case.proofs.clone(),
            coordinate_values: Vec::new(),
        };
        assert_eq!(verify::judge(&case.challenge(), &rows, case.merkle_root, &[proof]), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_verifier_finds_the_rows_that_the_worker_computed(
        seed in any::<[u8; 4]>(),
        size in 1..150_u32,
        iterations in 1..9_u32,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    ) {
        let seed: Seed = hex::encode(seed).parse().unwrap();
        let (size, iterations) = (MatrixSize::new(size).unwrap(), Iterations::new(iterations).unwrap());
        let challenge = CpuChallenge::new(&seed, size, iterations).unwrap();
        let computed = computed_hashes(Kernel::best(), &challenge);
        let rows: Vec<u32> = picks.iter().map(|pick| pick.index(challenge.size()) as u32).collect();
        let opened: Vec<RowHash> = rows.iter().map(|row| computed[*row as usize]).collect();
        prop_assert_eq!(verify::expected_row_hashes(&challenge, &rows), opened);
    }
}
