//! GPU challenges: what is to be computed, and the validator's check of it.
//!
//! [`GpuChallenge`] names the product: every GPU multiplies matrices of its own, drawn from the seed and the GPU's UUID
//! (worker-miner spec 5). [`element`] turns those into elements, [`row_hash`] turns delivered numbers into leaves, and [`verify`]
//! judges one GPU's proof on its own: by exact sums of the shown elements and of sampled columns of the shown rows.

pub mod element;
pub mod row_hash;
pub mod verify;

use byteleap_protocol::challenge::ChallengeData;
use byteleap_protocol::id::{Iterations, MatrixSize, Seed};
use serde::{Deserialize, Serialize};

/// The parameters of one GPU challenge: k·A·B in binary16, A and B of n×n elements drawn anew for each GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuChallenge {
    /// Where the matrices come from; its text matters, not its bytes.
    pub seed: Seed,
    /// n: rows and columns of all matrices.
    pub size: MatrixSize,
    /// k: a plain factor, where a processor's challenge multiplies k times.
    pub iterations: Iterations,
}

impl From<&ChallengeData> for GpuChallenge {
    fn from(data: &ChallengeData) -> Self {
        Self { seed: data.seed.clone(), size: data.matrix_size, iterations: data.iterations }
    }
}
