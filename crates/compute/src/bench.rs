//! How fast this machine computes and verifies: figures for operators, always beside what the machine could do at best.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, RowHash, Unit};
use byteleap_protocol::merkle::{MerkleTree, NodeHash};
use byteleap_protocol::payload::ProofResponse;
use rayon::prelude::*;

use crate::challenge::CpuChallenge;
use crate::cpu::{Error, compute_by};
use crate::gpu::GpuChallenge;
use crate::gpu::element::{ElementSeed, Row};
use crate::gpu::row_hash::row_hash;
use crate::gpu::verify::{Check, Tolerance};
use crate::kernel::Kernel;
use crate::verify;

/// Elements that a GPU is asked to show beside its rows.
const COORDINATES: u32 = 25;

/// How long the best speed of the machine is looked for, each time.
const PEAK_TIME: Duration = Duration::from_millis(20);

/// Rounds of multiplications between two looks at the clock.
const PEAK_ROUNDS: u32 = 20_000;

/// What computing a challenge took, from its parameters to the root; each time is the median over the runs.
#[derive(Clone, Copy, Debug)]
pub struct ComputeFigures {
    /// From the parameters to the root of the tree.
    pub total: Duration,
    /// Drawing and packing A and B.
    pub generate: Duration,
    /// The product.
    pub multiply: Duration,
    /// Hashing the rows.
    pub hash: Duration,
    /// Multiplications of the product in its time, in 10^9 a second: n³·k of them.
    pub gmac_per_s: f64,
    /// What all threads together reach in registers alone, with the instruction of the kernel. Measured between the runs.
    pub peak_gmac_per_s: f64,
    /// What a worker would commit to.
    pub merkle_root: NodeHash,
    /// How many threads computed.
    pub threads: usize,
}

/// Computes a challenge `runs` times (at least once) on the threads of the current rayon pool.
///
/// # Errors
/// [`Error::Memory`].
pub fn compute(kernel: Kernel, challenge: &CpuChallenge, runs: u32) -> Result<ComputeFigures, Error> {
    let (mut totals, mut generate, mut multiply, mut hash) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut peaks = Vec::new();
    let merkle_root = loop {
        let started = Instant::now();
        let computed = compute_by(kernel, challenge, &AtomicBool::new(false))?;
        let root = tree(&computed.row_hashes).root();
        totals.push(started.elapsed());
        generate.push(computed.generate_time);
        multiply.push(computed.product_time);
        hash.push(computed.hash_time);
        peaks.push(peak_gmac_per_s(kernel));
        if totals.len() >= runs as usize {
            break root;
        }
    };
    let multiply = median(multiply);
    peaks.sort_by(f64::total_cmp);
    let multiplications = (challenge.size() as f64).powi(3) * f64::from(challenge.iterations());
    Ok(ComputeFigures {
        total: median(totals),
        generate: median(generate),
        multiply,
        hash: median(hash),
        gmac_per_s: multiplications / multiply.as_secs_f64() / 1e9,
        peak_gmac_per_s: peaks[peaks.len() / 2],
        merkle_root,
        threads: rayon::current_num_threads(),
    })
}

/// The median time in which one thread judges an honest proof of `rows` rows, evenly spread. The proof is made first, on the
/// threads of the current rayon pool.
///
/// # Errors
/// [`Error::Memory`].
///
/// # Panics
/// If the proof does not hold: then this crate is wrong.
pub fn judge(challenge: &CpuChallenge, rows: u32, runs: u32) -> Result<Duration, Error> {
    let opened = spread(rows, challenge.size() as u32);
    let row_hashes = compute_by(Kernel::best(), challenge, &AtomicBool::new(false))?.row_hashes;
    let tree = tree(&row_hashes);
    let proof = ProofResponse {
        uuid: Unit::Cpu,
        row_hashes: opened.iter().map(|row| row_hashes[*row as usize]).collect(),
        merkle_proofs: opened.iter().filter_map(|row| tree.open(*row as usize)).collect(),
        coordinate_values: Vec::new(),
    };
    let times = (0..runs.max(1)).map(|_| {
        let started = Instant::now();
        let judged = verify::judge(challenge, &opened, tree.root(), std::slice::from_ref(&proof));
        let time = started.elapsed();
        assert_eq!(judged, Ok(()), "an honest proof holds");
        time
    });
    Ok(median(times.collect()))
}

/// What one honest GPU showed, with all that a validator holds it against.
#[derive(Clone, Debug)]
pub struct GpuProof {
    challenge: GpuChallenge,
    gpu: GpuUuid,
    rows: Vec<u32>,
    coordinates: Vec<(u32, u32)>,
    columns: Vec<u32>,
    root: NodeHash,
    proof: ProofResponse,
}

impl GpuProof {
    /// The proof of `rows` rows and 25 elements, all evenly spread. Only these are computed, on the threads of the current
    /// rayon pool; the rows that are not shown have made-up hashes, which no check looks behind.
    #[must_use]
    pub fn new(challenge: &GpuChallenge, gpu: GpuUuid, rows: u32) -> Self {
        let size = challenge.size;
        let rows = spread(rows, size.get());
        let columns = spread(Tolerance::default().sampled_columns(size), size.get());
        let coordinates: Vec<_> =
            spread(COORDINATES, size.get()).into_iter().map(|row| (row, size.get() - 1 - row)).collect();
        let seed = ElementSeed::new(&challenge.seed, &gpu);
        let row = |row| Row::draw(Kernel::best(), seed, size.as_usize(), row);
        let number =
            |row: &Row, column| Half::from_f64(f64::from(challenge.iterations.get()) * row.times_column(column));
        let mut coordinate_values: Vec<_> = coordinates.iter().map(|(at, column)| number(&row(*at), *column)).collect();
        let mut hashes: Vec<_> = (0..u64::from(size.get())).map(|row| RowHash(row.to_be_bytes())).collect();
        for at in &rows {
            let (elements, hash) = (row(*at), &mut hashes[*at as usize]);
            let numbers: Vec<_> = (0..size.get()).into_par_iter().map(|column| number(&elements, column)).collect();
            *hash = row_hash(&numbers);
            coordinate_values.extend(numbers);
        }
        let tree = tree(&hashes);
        let proof = ProofResponse {
            uuid: Unit::Gpu(gpu.clone()),
            row_hashes: rows.iter().map(|row| hashes[*row as usize]).collect(),
            merkle_proofs: rows.iter().filter_map(|row| tree.open(*row as usize)).collect(),
            coordinate_values,
        };
        Self { challenge: challenge.clone(), gpu, rows, coordinates, columns, root: tree.root(), proof }
    }

    /// What the GPU's worker sends.
    #[must_use]
    pub fn response(&self) -> &ProofResponse {
        &self.proof
    }

    /// Judges the proof on one thread.
    ///
    /// # Panics
    /// If the proof does not hold: then this crate is wrong.
    pub fn judge(&self) {
        let Self { challenge, rows, coordinates, .. } = self;
        let check = Check { challenge, rows, coordinates, tolerance: Tolerance::default() };
        let judged = check.judge(&self.gpu, self.root, &self.columns, &self.proof);
        assert_eq!(judged, Ok(()), "an honest proof holds");
    }
}

/// The median time in which one thread judges what an honest GPU showed: `rows` rows and 25 elements, without reading the
/// message. The proof is made first, on the threads of the current rayon pool.
///
/// # Panics
/// If the proof does not hold: then this crate is wrong.
#[must_use]
pub fn judge_gpu(challenge: &GpuChallenge, gpu: GpuUuid, rows: u32, runs: u32) -> Duration {
    let proof = GpuProof::new(challenge, gpu, rows);
    let times = (0..runs.max(1)).map(|_| {
        let started = Instant::now();
        proof.judge();
        started.elapsed()
    });
    median(times.collect())
}

/// `count` indices below `size`, evenly spread.
fn spread(count: u32, size: u32) -> Vec<u32> {
    (0..u64::from(count)).map(|index| (index * u64::from(size) / u64::from(count)) as u32).collect()
}

#[expect(clippy::expect_used, reason = "a challenge has at least one row")]
fn tree(row_hashes: &[RowHash]) -> MerkleTree {
    MerkleTree::from_rows(row_hashes).expect("no tree over no rows")
}

fn peak_gmac_per_s(kernel: Kernel) -> f64 {
    let rates = rayon::broadcast(|_| {
        let started = Instant::now();
        let mut multiplications = 0;
        while started.elapsed() < PEAK_TIME {
            multiplications += kernel.spin(PEAK_ROUNDS);
        }
        multiplications as f64 / started.elapsed().as_secs_f64() / 1e9
    });
    rates.into_iter().sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::id::{Iterations, MatrixSize};

    use super::*;

    #[test]
    fn every_kernel_is_measured_at_the_same_root() {
        let challenge = CpuChallenge::sample(3, 100, 2);
        let figures = Kernel::all().into_iter().map(|kernel| compute(kernel, &challenge, 1).unwrap());
        let roots: Vec<NodeHash> = figures
            .map(|figures| {
                assert!(figures.gmac_per_s > 0.0 && figures.peak_gmac_per_s > 0.0);
                figures.merkle_root
            })
            .collect();
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn judging_an_honest_proof_is_measured() {
        assert!(judge(&CpuChallenge::sample(3, 64, 2), 5, 2).unwrap() > Duration::ZERO);
        let challenge = GpuChallenge {
            seed: "0011".parse().unwrap(),
            size: MatrixSize::new(64).unwrap(),
            iterations: Iterations::new(3).unwrap(),
        };
        assert!(judge_gpu(&challenge, "GPU-1".parse().unwrap(), 2, 2) > Duration::ZERO);
    }
}
