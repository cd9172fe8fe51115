//! What is to be computed: the parameters of one CPU challenge, known to be computable.
//!
//! Both sides start here. A [`CpuChallenge`] cannot hold a size or a number of iterations outside the bounds below, so
//! nothing behind this edge allocates or loops without limit.

use std::ops::RangeInclusive;

use crate::mt19937;

/// Sizes that a worker computes (worker-miner spec 4.10). As issued, sizes lie within 100..=10000.
pub const SIZES: RangeInclusive<u64> = 1..=16_384;

/// Numbers of iterations that a worker computes (worker-miner spec 4.10).
pub const ITERATIONS: RangeInclusive<u64> = 1..=64;

/// The parameters of one CPU challenge: C = A·B^k, A and B of n×n elements drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuChallenge {
    seed_word: u32,
    size: usize,
    iterations: u32,
}

impl CpuChallenge {
    /// Accepts the parameters as they stand in a challenge: the seed's bytes, n and k.
    ///
    /// # Errors
    /// [`Refusal`] names the parameter that is out of bounds.
    pub fn new(seed: &[u8], size: u64, iterations: u64) -> Result<Self, Refusal> {
        if !SIZES.contains(&size) {
            return Err(Refusal::Size(size));
        }
        if !ITERATIONS.contains(&iterations) {
            return Err(Refusal::Iterations(iterations));
        }
        Ok(Self { seed_word: mt19937::seed_word(seed), size: size as usize, iterations: iterations as u32 })
    }

    /// The 32 bits of the seed that matter (worker-miner spec 4.2).
    pub fn seed_word(&self) -> u32 {
        self.seed_word
    }

    /// n: rows and columns of A, B and C.
    pub fn size(&self) -> usize {
        self.size
    }

    /// k: how many times B is multiplied in.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// Why a challenge is not computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// n is outside [`SIZES`].
    #[error("matrix size {0} is outside {sizes:?}", sizes = SIZES)]
    Size(u64),
    /// k is outside [`ITERATIONS`].
    #[error("{0} iterations are outside {iterations:?}", iterations = ITERATIONS)]
    Iterations(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_iterations_out_of_bounds_are_refused_before_anything_is_allocated() {
        assert_eq!(CpuChallenge::new(&[1], 0, 1), Err(Refusal::Size(0)));
        assert_eq!(CpuChallenge::new(&[1], 16_385, 1), Err(Refusal::Size(16_385)));
        assert_eq!(CpuChallenge::new(&[1], 8, 0), Err(Refusal::Iterations(0)));
        assert_eq!(CpuChallenge::new(&[1], 8, 65), Err(Refusal::Iterations(65)));
        assert!(CpuChallenge::new(&[], 16_384, 64).is_ok());
    }

    #[test]
    fn a_refusal_says_what_the_bounds_are() {
        assert_eq!(Refusal::Size(20_000).to_string(), "matrix size 20000 is outside 1..=16384");
    }
}
