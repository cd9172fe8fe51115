//! The worker's side of a CPU challenge: parameters in, row hashes out (worker-miner spec 4.1-4.7).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use byteleap_protocol::id::RowHash;
use rayon::prelude::*;

use crate::challenge::CpuChallenge;
use crate::matrix::Factors;
use crate::product::{BAND_ROWS, band};
use crate::row_hash::row_hash;

/// What a worker knows once it has computed a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computed {
    /// The leaves of the commitment: a hash for each row of C, in row order.
    pub row_hashes: Vec<RowHash>,
    /// Time that the product took, without generation and hashing.
    pub product_time: Duration,
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

/// Computes the hashes of all rows of A·B^k on the threads of the current rayon pool; the caller waits.
///
/// Memory: 4·n² bytes for A and B (16 MB for n = 2000, 1 GiB for n = 16,384), and per thread some 300·n bytes for a band.
/// C is never held as a whole.
///
/// # Errors
/// [`Error::Cancelled`] within about a millisecond after `cancelled` is set; [`Error::Memory`].
pub fn compute(challenge: &CpuChallenge, cancelled: &AtomicBool) -> Result<Computed, Error> {
    let size = challenge.size();
    let factors = Factors::generate(challenge, cancelled)?;

    let started = Instant::now();
    let (product_ns, hash_ns) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut row_hashes = vec![RowHash([0; 8]); size];
    row_hashes.par_chunks_mut(BAND_ROWS).enumerate().try_for_each(|(index, hashes)| {
        let band_started = Instant::now();
        let rows = band(&factors, size, index * BAND_ROWS, hashes.len(), challenge.iterations(), cancelled)?;
        let band_ended = Instant::now();
        for (hash, row) in hashes.iter_mut().zip(rows.chunks_exact(size)) {
            *hash = row_hash(row);
        }
        add(&product_ns, band_ended - band_started);
        add(&hash_ns, band_ended.elapsed());
        Ok(())
    })?;

    // Threads multiply and hash side by side: of the time that passed, the product has its share of the work.
    let (product_ns, hash_ns) = (product_ns.into_inner() as f64, hash_ns.into_inner() as f64);
    let product_share = product_ns / (product_ns + hash_ns).max(1.0);
    Ok(Computed { row_hashes, product_time: started.elapsed().mul_f64(product_share) })
}

fn add(total_ns: &AtomicU64, time: Duration) {
    total_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
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
