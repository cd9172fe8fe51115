//! What is to be computed: the parameters of one CPU challenge, known to be computable.
//!
//! Both sides start here. A [`CpuChallenge`] cannot hold a size or a number of iterations out of bounds (worker-miner
//! spec 4.10), so nothing behind this edge allocates or loops without limit.

use byteleap_protocol::id::{IdError, Iterations, MatrixSize, Seed};

/// The parameters of one CPU challenge: C = A·B^k, A and B of n×n elements drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuChallenge {
    seed_word: u32,
    size: MatrixSize,
    iterations: Iterations,
}

impl CpuChallenge {
    /// Accepts the parameters as they stand in a challenge.
    ///
    /// # Errors
    /// The size is one that a processor is not asked for (above [`MatrixSize::MAX_CPU`]).
    pub fn new(seed: &Seed, size: MatrixSize, iterations: Iterations) -> Result<Self, IdError> {
        Ok(Self { seed_word: seed.first_word(), size: MatrixSize::for_cpu(size.get())?, iterations })
    }

    /// The 32 bits of the seed that matter (worker-miner spec 4.2).
    pub fn seed_word(&self) -> u32 {
        self.seed_word
    }

    /// n: rows and columns of A, B and C.
    pub fn size(&self) -> usize {
        self.size.as_usize()
    }

    /// k: how many times B is multiplied in.
    pub fn iterations(&self) -> u32 {
        self.iterations.get()
    }

    #[cfg(test)]
    pub(crate) fn sample(seed_word: u32, size: u32, iterations: u32) -> Self {
        let iterations = Iterations::new(iterations).expect("iterations within bounds");
        Self { seed_word, size: MatrixSize::for_cpu(size).expect("size within bounds"), iterations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_above_the_processors_bound_is_refused_before_anything_is_allocated() {
        let seed: Seed = "07".parse().unwrap();
        let challenge = |size| CpuChallenge::new(&seed, MatrixSize::new(size).unwrap(), Iterations::ONE);
        assert!(challenge(16_384).is_ok());
        assert!(challenge(16_385).is_err());
    }
}
