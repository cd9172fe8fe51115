//! The worker's side of a CPU challenge: parameters in, row hashes out (worker-miner spec 4.1-4.7).

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use byteleap_protocol::id::RowHash;

use crate::challenge::CpuChallenge;
use crate::kernel::Kernel;
use crate::matrix::Factors;
use crate::product::{Band, band_rows};
use crate::row_hash::row_hashes;

/// What a worker knows once it has computed a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    /// The leaves of the commitment: a hash for each row of C, in row order.
    pub row_hashes: Vec<RowHash>,
    /// Time that drawing and packing A and B took.
    pub generate_time: Duration,
    /// Time that the product took, without generation and hashing.
    pub product_time: Duration,
    /// Time that hashing took. Rows are hashed beside the product: this is its share of the time that passed.
    pub hash_time: Duration,
}

/// Why a challenge was not computed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The work was no longer wanted.
    #[error("the computation was cancelled")]
    Cancelled,
    /// The matrices do not fit this machine.
    #[error("not enough memory for a matrix of {needed_bytes} bytes")]
    Memory {
        /// What was asked of the allocator.
        needed_bytes: u64,
    },
}

/// Computes the hashes of all rows of A·B^k on the threads of the current rayon pool, by the fastest kernel of this machine;
/// the caller waits.
///
/// Memory: 4·n² bytes for A and B, and 10·n for each row of a band, 18·n where k > 1. All bands together have n/8 rows, or 12
/// per thread if that is more. So n = 2000 takes 25 MB at most, n = 10,000 625 MB, and 950 MB on 256 threads. C is never held
/// as a whole.
///
/// # Errors
/// [`Error::Cancelled`] within about a millisecond after `cancelled` is set; [`Error::Memory`].
pub fn compute(challenge: &CpuChallenge, cancelled: &AtomicBool) -> Result<Computed, Error> {
    compute_by(Kernel::best(), challenge, cancelled)
}

/// As [`compute`], by a certain kernel.
///
/// # Errors
/// As [`compute`].
pub fn compute_by(kernel: Kernel, challenge: &CpuChallenge, cancelled: &AtomicBool) -> Result<Computed, Error> {
    let size = challenge.size();
    let started = Instant::now();
    let factors = Factors::generate(challenge, kernel, cancelled)?;
    let generate_time = started.elapsed();

    let started = Instant::now();
    let rows = band_rows(size, rayon::current_num_threads());
    let mut leaves = vec![RowHash([0; 8]); size];
    let bands = Mutex::new(leaves.chunks_mut(rows).enumerate());
    let next_band = || bands.lock().unwrap_or_else(PoisonError::into_inner).next();
    // Every thread keeps one workspace and takes the next band when it is done with one.
    let times = rayon::broadcast(|_| -> Result<Times, Error> {
        let mut times = Times::default();
        let mut band = None;
        while let Some((index, hashes)) = next_band() {
            let band = match &mut band {
                Some(band) => band,
                none => none.insert(Band::new(&factors, kernel, challenge.iterations(), rows)?),
            };
            let band_started = Instant::now();
            let product = band.multiply(index * rows, hashes.len(), cancelled)?;
            let band_ended = Instant::now();
            row_hashes(product, size, hashes);
            times.product += band_ended - band_started;
            times.hash += band_ended.elapsed();
        }
        Ok(times)
    });
    let elapsed = started.elapsed();

    let mut total = Times::default();
    for times in times {
        let times = times?;
        total.product += times.product;
        total.hash += times.hash;
    }
    let product_share = total.product.div_duration_f64((total.product + total.hash).max(Duration::from_nanos(1)));
    let product_time = elapsed.mul_f64(product_share);
    Ok(Computed { row_hashes: leaves, generate_time, product_time, hash_time: elapsed - product_time })
}

/// What one thread spent on its bands.
#[derive(Default)]
struct Times {
    product: Duration,
    hash: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_challenge_ends_with_that_error() {
        let challenge = CpuChallenge::sample(1, 300, 64);
        assert_eq!(compute(&challenge, &AtomicBool::new(true)), Err(Error::Cancelled));
    }
}
