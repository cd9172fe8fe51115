//! The loops in which the time of a challenge goes, each by every kernel that this machine has:
//! `cargo bench -p byteleap-compute --features bench`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up shall end")]

use std::hint::black_box;
use std::sync::atomic::AtomicBool;

use byteleap_compute::bench::GpuProof;
use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::gpu::GpuChallenge;
use byteleap_compute::kernel::{Kernel, TILE_ROWS};
use byteleap_compute::matrix::Factors;
use byteleap_compute::mt19937::Elements;
use byteleap_compute::product::Band;
use byteleap_compute::row_hash::row_hash;
use byteleap_compute::verify::expected_row_hashes_by;
use byteleap_protocol::id::{Iterations, MatrixSize, RowHash};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::ProofResponse;
use byteleap_protocol::{canonical, lenient};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZE: usize = 2000;

/// The leaves of the largest GPU challenge.
const LEAVES: u64 = 34_406;

fn challenge(iterations: u32) -> CpuChallenge {
    let size = MatrixSize::new(SIZE as u32).unwrap();
    CpuChallenge::new(&"0123456789abcdef".parse().unwrap(), size, Iterations::new(iterations).unwrap()).unwrap()
}

/// A million elements of the stream.
fn draw(criterion: &mut Criterion) {
    let mut elements = vec![0; 1_000_000];
    let mut group = criterion.benchmark_group("draw");
    group.throughput(Throughput::Elements(elements.len() as u64));
    for kernel in Kernel::all() {
        let mut stream = Elements::new(1, kernel);
        group.bench_function(kernel.name(), |bencher| bencher.iter(|| stream.draw(black_box(&mut elements))));
    }
    group.finish();
}

/// One band of rows on one thread, with and without further iterations; throughput in multiplications.
fn multiply(criterion: &mut Criterion) {
    const ROWS: usize = 8 * TILE_ROWS;
    let going_on = AtomicBool::new(false);
    let mut group = criterion.benchmark_group("multiply");
    for (kernel, iterations) in Kernel::all().into_iter().flat_map(|kernel| [(kernel, 1), (kernel, 3)]) {
        let factors = Factors::generate(&challenge(iterations), kernel, &going_on).unwrap();
        let mut band = Band::new(&factors, kernel, iterations, ROWS).unwrap();
        group.throughput(Throughput::Elements((ROWS * SIZE * SIZE) as u64 * u64::from(iterations)));
        group.bench_function(BenchmarkId::new(kernel.name(), iterations), |bencher| {
            bencher.iter(|| black_box(band.multiply(0, ROWS, &going_on).unwrap()[0]));
        });
    }
    group.finish();
}

/// One row of the product.
fn hash(criterion: &mut Criterion) {
    let row: Vec<i64> = (0..SIZE as i64).map(|element| element * 1_000_003).collect();
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(8 * SIZE as u64));
    group.bench_function("row", |bencher| bencher.iter(|| row_hash(black_box(&row))));
    group.finish();
}

/// The tree over as many rows as a challenge can have.
fn tree(criterion: &mut Criterion) {
    let leaves: Vec<RowHash> = (0..LEAVES).map(|leaf| RowHash(leaf.to_le_bytes())).collect();
    criterion
        .bench_function("tree", |bencher| bencher.iter(|| MerkleTree::from_rows(black_box(&leaves)).unwrap().root()));
}

/// Fifty rows, as a validator recomputes them on one thread.
fn verify(criterion: &mut Criterion) {
    let rows: Vec<u32> = (0..50).map(|row| row * 40).collect();
    let mut group = criterion.benchmark_group("verify");
    group.sample_size(20);
    for kernel in Kernel::all() {
        group.bench_function(kernel.name(), |bencher| {
            bencher.iter(|| expected_row_hashes_by(kernel, &challenge(1), black_box(&rows)));
        });
    }
    group.finish();
}

/// What one GPU showed, as a validator judges it on one thread, and reading the largest such proof of three rows from its text,
/// straight and by way of a tree of values, and writing it.
fn gpu(criterion: &mut Criterion) {
    let proof = |size, rows| {
        let challenge = GpuChallenge {
            seed: "0123456789abcdef".parse().unwrap(),
            size: MatrixSize::new(size).unwrap(),
            iterations: Iterations::ONE,
        };
        GpuProof::new(&challenge, "GPU-1".parse().unwrap(), rows)
    };
    let mut group = criterion.benchmark_group("gpu");
    group.sample_size(20);
    let judged = proof(32_768, 2);
    group.bench_function("verify", |bencher| bencher.iter(|| black_box(&judged).judge()));
    let response = proof(LEAVES as u32, 3).response().clone();
    let text = canonical::ascii(&response);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| lenient::from_str::<ProofResponse>(black_box(&text)).unwrap());
    });
    group.bench_function("parse by a tree", |bencher| {
        let by_tree = |text| serde_json::from_value::<ProofResponse>(lenient::parse(text).unwrap()).unwrap();
        bencher.iter(|| by_tree(black_box(&text)));
    });
    group.bench_function("write", |bencher| bencher.iter(|| canonical::ascii(black_box(&response))));
    group.finish();
}

criterion_group!(kernels, draw, multiply, hash, tree, verify, gpu);
criterion_main!(kernels);
