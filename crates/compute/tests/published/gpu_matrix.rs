//! `vectors/gpu_matrix.json`: both sides of a GPU challenge, each held against the vectors on its own.

use std::sync::atomic::AtomicBool;

use byteleap_compute::engine::software::SoftwareEngine;
use byteleap_compute::engine::{Committed, GpuEngine};
use byteleap_compute::gpu::GpuChallenge;
use byteleap_compute::gpu::element::{ElementSeed, Row};
use byteleap_compute::gpu::row_hash::row_hash;
use byteleap_compute::gpu::verify::{Check, Tolerance};
use byteleap_compute::kernel::Kernel;
use byteleap_protocol::gpu_signature::CommitmentSigner;
use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, Iterations, MatrixSize, RowHash, Seed, Unit};
use byteleap_protocol::merkle::{MerkleProof, MerkleTree, NodeHash};
use byteleap_protocol::payload::ProofResponse;
use proptest::prelude::*;
use rand_core::OsRng;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    matrices: Vec<Matrix>,
    large_index_elements: LargeIndices,
    row_hash_samples: Vec<RowHashSample>,
    binary16_rounding_samples: Vec<RoundingSample>,
    tolerance_samples: ToleranceSamples,
    signature_sample: SignatureSample,
}

#[derive(Deserialize)]
struct Matrix {
    seed: Seed,
    uuid: GpuUuid,
    matrix_size: MatrixSize,
    iterations: Iterations,
    row_hashes: Vec<RowHash>,
    merkle_root: NodeHash,
    coordinates: Vec<Coordinate>,
    proof_rows: Vec<MerkleProof>,
    #[serde(rename = "C_fp16_bits_row_0")]
    row_0: Vec<String>,
    #[serde(rename = "C_fp16_bits_row_63")]
    row_63: Vec<String>,
    #[serde(rename = "A_elements", default)]
    a_elements: Vec<AElement>,
    #[serde(rename = "B_elements", default)]
    b_elements: Vec<BElement>,
    proof_response_layout_example: Option<Layout>,
}

#[derive(Deserialize)]
struct Coordinate {
    row: u32,
    col: u32,
    expected_f64: f64,
    fp16_bits: String,
}

#[derive(Deserialize)]
struct AElement {
    row: u32,
    k: usize,
    value: f64,
}

#[derive(Deserialize)]
struct BElement {
    k: usize,
    col: u32,
    value: f64,
}

#[derive(Deserialize)]
struct Layout {
    request: Request,
    coordinate_values: Vec<Half>,
    row_hashes: Vec<RowHash>,
    merkle_proofs: Vec<MerkleProof>,
}

#[derive(Deserialize)]
struct Request {
    rows: Vec<u32>,
    coordinates: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct LargeIndices {
    seed: Seed,
    uuid: GpuUuid,
    cases: Vec<LargeIndex>,
}

#[derive(Deserialize)]
struct LargeIndex {
    matrix_size: usize,
    row: u32,
    col: u32,
    expected_f64: f64,
    fp16_bits: String,
}

#[derive(Deserialize)]
struct RowHashSample {
    values: Vec<Half>,
    fp16_bits: Vec<String>,
    fnv1a16: RowHash,
}

#[derive(Deserialize)]
struct RoundingSample {
    f64: f64,
    fp16_bits: String,
}

#[derive(Deserialize)]
struct ToleranceSamples {
    abs_tolerance: f64,
    rel_tolerance: f64,
    cases: Vec<ToleranceCase>,
    required_counts: Vec<RequiredCount>,
}

#[derive(Deserialize)]
struct ToleranceCase {
    expected: f64,
    claimed: f64,
    pass: bool,
}

#[derive(Deserialize)]
struct RequiredCount {
    samples: usize,
    threshold: f64,
    required: usize,
}

#[derive(Deserialize)]
struct SignatureSample {
    private_key_hex: String,
    public_key_uncompressed_hex: String,
}

impl Matrix {
    fn challenge(&self) -> GpuChallenge {
        GpuChallenge { seed: self.seed.clone(), size: self.matrix_size, iterations: self.iterations }
    }

    fn element_seed(&self) -> ElementSeed {
        ElementSeed::new(&self.seed, &self.uuid)
    }

    fn computed(&self) -> (SoftwareEngine, Committed) {
        let engine = engine(vec![self.uuid.clone()]);
        let committed = engine.submit(&self.challenge(), &AtomicBool::new(false)).unwrap();
        let [committed] = <[Committed; 1]>::try_from(committed).unwrap();
        (engine, committed)
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/gpu_matrix.json")).unwrap()
}

/// An engine that signs with the vectors' key.
fn engine(gpus: Vec<GpuUuid>) -> SoftwareEngine {
    let key = CommitmentSigner::from_hex(&vectors().signature_sample.private_key_hex).unwrap();
    SoftwareEngine::with_gpus(key, gpus)
}

fn half(bits: &str) -> Half {
    Half::from_bits(u16::from_str_radix(bits, 16).unwrap())
}

#[test]
fn numbers_are_rounded_as_published() {
    for sample in vectors().binary16_rounding_samples {
        assert_eq!(Half::from_f64(sample.f64), half(&sample.fp16_bits), "{}", sample.f64);
    }
}

#[test]
fn rows_are_hashed_as_published() {
    for sample in vectors().row_hash_samples {
        let bits: Vec<Half> = sample.fp16_bits.iter().map(|bits| half(bits)).collect();
        assert_eq!(sample.values, bits);
        assert_eq!(row_hash(&sample.values), sample.fnv1a16);
    }
}

#[test]
fn numbers_pass_and_are_counted_as_published() {
    let samples = vectors().tolerance_samples;
    let tolerance = Tolerance::default();
    assert_eq!((tolerance.absolute, tolerance.relative), (samples.abs_tolerance, samples.rel_tolerance));
    for ToleranceCase { expected, claimed, pass } in samples.cases {
        assert_eq!(tolerance.accepts(expected, claimed), pass, "{claimed} for {expected}");
    }
    for RequiredCount { samples, threshold, required } in samples.required_counts {
        assert_eq!(Tolerance { success_rate: threshold, ..tolerance }.required(samples), required);
    }
}

#[test]
fn the_verifier_draws_the_published_elements_and_sums_by_every_kernel() {
    let vectors = vectors();
    for kernel in Kernel::all() {
        for matrix in &vectors.matrices {
            let (seed, size) = (matrix.element_seed(), matrix.matrix_size.as_usize());
            let a = |row, k: usize| Row::draw(kernel, seed, size, row).elements()[k];
            for element in &matrix.a_elements {
                assert_eq!(a(element.row, element.k), element.value);
            }
            // B is A with the rows of each pair swapped.
            for element in &matrix.b_elements {
                assert_eq!(a(element.k as u32 ^ 1, element.col as usize), element.value);
            }
            for shown in &matrix.coordinates {
                let sum = Row::draw(kernel, seed, size, shown.row).times_column(shown.col);
                assert_eq!(f64::from(matrix.iterations.get()) * sum, shown.expected_f64);
            }
        }
        let LargeIndices { seed, uuid, cases } = &vectors.large_index_elements;
        for case in cases {
            let row = Row::draw(kernel, ElementSeed::new(seed, uuid), case.matrix_size, case.row);
            let sum = row.times_column(case.col);
            assert_eq!((sum, Half::from_f64(sum)), (case.expected_f64, half(&case.fp16_bits)));
        }
    }
}

#[test]
fn the_software_engine_commits_to_the_published_results_and_shows_them() {
    for matrix in vectors().matrices {
        let (engine, Committed { commitment, row_hashes }) = matrix.computed();
        assert_eq!(row_hashes, matrix.row_hashes);
        assert_eq!((commitment.uuid, commitment.merkle_root), (Unit::Gpu(matrix.uuid.clone()), matrix.merkle_root));
        let coordinates: Vec<_> = matrix.coordinates.iter().map(|shown| (shown.row, shown.col)).collect();
        let shown = engine.open(&matrix.challenge(), &matrix.uuid, &[0, 63], &coordinates).unwrap();
        let published =
            matrix.coordinates.iter().map(|shown| &shown.fp16_bits).chain(&matrix.row_0).chain(&matrix.row_63);
        assert_eq!(shown, published.map(|bits| half(bits)).collect::<Vec<_>>());
    }
}

#[test]
fn the_software_engine_signs_so_that_its_announced_key_accepts() {
    let sample = vectors().signature_sample;
    let matrix = &vectors().matrices[0];
    let (engine, Committed { commitment, .. }) = matrix.computed();
    let announced = engine.devices().unwrap()[0].details["host_key"].as_str().unwrap().to_owned();
    assert_eq!(announced, sample.public_key_uncompressed_hex);
    let key: byteleap_protocol::gpu_signature::CommitmentKey = announced.parse().unwrap();
    assert!(key.verify(&matrix.seed, &matrix.uuid, commitment.merkle_root, &commitment.sig_val.unwrap()));
}

#[test]
fn the_published_proofs_pass_judgement_by_every_kernel() {
    for matrix in vectors().matrices {
        let challenge = matrix.challenge();
        let Some(example) = matrix.proof_response_layout_example else { continue };
        let Layout { request, coordinate_values, row_hashes, merkle_proofs } = example;
        let check = Check {
            challenge: &challenge,
            rows: &request.rows,
            coordinates: &request.coordinates,
            tolerance: Tolerance::default(),
        };
        let proof =
            ProofResponse { uuid: Unit::Gpu(matrix.uuid.clone()), row_hashes, merkle_proofs, coordinate_values };
        let columns: Vec<u32> = (0..matrix.matrix_size.get()).collect();
        for kernel in Kernel::all() {
            assert_eq!(check.judge_by(kernel, &matrix.uuid, matrix.merkle_root, &columns, &proof), Ok(()));
        }
    }
}

#[test]
fn the_published_openings_are_those_of_the_published_tree() {
    for matrix in vectors().matrices {
        let tree = MerkleTree::from_rows(&matrix.row_hashes).unwrap();
        assert_eq!(tree.root(), matrix.merkle_root);
        for proof in matrix.proof_rows {
            assert_eq!(tree.open(proof.leaf_index as usize).unwrap(), proof);
        }
    }
}

/// What an engine shows of its own result, ready to be judged.
fn shown(engine: &SoftwareEngine, check: &Check<'_>, gpu: &GpuUuid, row_hashes: &[RowHash]) -> ProofResponse {
    let tree = MerkleTree::from_rows(row_hashes).unwrap();
    ProofResponse {
        uuid: Unit::Gpu(gpu.clone()),
        row_hashes: check.rows.iter().map(|row| row_hashes[*row as usize]).collect(),
        merkle_proofs: check.rows.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
        coordinate_values: engine.open(check.challenge, gpu, check.rows, check.coordinates).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_verifier_finds_exactly_what_the_software_engine_computed(
        seed in any::<[u8; 16]>(),
        size in 1..100_u32,
        iterations in 1..=64_u32,
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let challenge = GpuChallenge {
            seed: hex::encode(seed).parse().unwrap(),
            size: MatrixSize::new(size).unwrap(),
            iterations: Iterations::new(iterations).unwrap(),
        };
        let engine = SoftwareEngine::new(CommitmentSigner::random(&mut OsRng), 2);
        let n = size as usize;
        let coordinates: Vec<_> = picks.iter().map(|(row, column)| (row.index(n) as u32, column.index(n) as u32)).collect();
        let rows: Vec<u32> = coordinates.iter().map(|(row, _)| *row).collect();
        let columns: Vec<u32> = (0..size).collect();
        // A binary16 is within a 2048th of what was rounded to it.
        let tolerance = Tolerance { absolute: 0.0, relative: 1.0 / 2048.0, success_rate: 1.0, row_sample_rate: 1.0 };
        let check = Check { challenge: &challenge, rows: &rows, coordinates: &coordinates, tolerance };
        for Committed { commitment, row_hashes } in engine.submit(&challenge, &AtomicBool::new(false)).unwrap() {
            let Unit::Gpu(gpu) = commitment.uuid else { panic!("a GPU") };
            let proof = shown(&engine, &check, &gpu, &row_hashes);
            for kernel in Kernel::all() {
                prop_assert_eq!(check.judge_by(kernel, &gpu, commitment.merkle_root, &columns, &proof), Ok(()));
            }
        }
    }
}

#[test]
fn the_result_of_another_gpu_or_seed_is_caught() {
    let challenge = |seed: &str| GpuChallenge {
        seed: seed.parse().unwrap(),
        size: MatrixSize::new(96).unwrap(),
        iterations: Iterations::ONE,
    };
    let (mine, other) = (challenge("01"), challenge("02"));
    let engine = SoftwareEngine::new(CommitmentSigner::random(&mut OsRng), 2);
    let gpus: Vec<GpuUuid> = engine.devices().unwrap().into_iter().map(|device| device.uuid).collect();
    let coordinates: Vec<_> = (0..25).map(|index| (index, 2 * index)).collect();
    let columns: Vec<u32> = (0..96).step_by(3).collect();
    let check =
        |challenge| Check { challenge, rows: &[5, 90], coordinates: &coordinates, tolerance: Tolerance::default() };
    let committed = engine.submit(&mine, &AtomicBool::new(false)).unwrap().swap_remove(0);
    let proof = shown(&engine, &check(&mine), &gpus[0], &committed.row_hashes);
    let root = committed.commitment.merkle_root;
    assert_eq!(check(&mine).judge(&gpus[0], root, &columns, &proof), Ok(()));
    for (challenge, gpu) in [(&mine, &gpus[1]), (&other, &gpus[0])] {
        let fault = check(challenge).judge(gpu, root, &columns, &proof).unwrap_err();
        assert_eq!(fault.code(), "wrong_elements");
        // Nor do the rows pass where no element is asked for.
        let rows_only = Check { coordinates: &[], ..check(challenge) };
        let proof = ProofResponse { coordinate_values: proof.coordinate_values[25..].to_vec(), ..proof.clone() };
        assert_eq!(rows_only.judge(gpu, root, &columns, &proof).unwrap_err().code(), "wrong_row");
    }
}
