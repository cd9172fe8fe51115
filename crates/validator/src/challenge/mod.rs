//! A challenge from the row that creates it to its verdict; the files are its stations.
//!
//! [`schedule`] decides whose turn it is, [`deliver`] hands the batch to the miner that asks, [`commit`] takes the
//! commitment in and only then draws the rows ([`targets`]), [`prove`] stores the proof, [`verify`] judges it.
//! [`state`] says which step may follow which; [`Rules`] are the numbers that all of them obey.

pub mod commit;
pub mod deliver;
pub mod prove;
pub mod schedule;
pub mod state;
pub mod targets;
pub mod verify;

#[cfg(test)]
mod odds;
#[cfg(test)]
mod tests;

use byteleap_protocol::challenge::{ChallengeKind, TimeoutSeconds};
use byteleap_protocol::id::{Iterations, MatrixSize};

/// How challenges are made and how long their answers may take; from the configuration's `validation` section.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What is asked of workers.
    pub kind: ChallengeKind,
    /// A worker's turn comes once in so long.
    pub interval_ms: i64,
    /// How long a worker may compute, as the challenge tells it.
    pub timeout: TimeoutSeconds,
    /// A commitment is still taken so long after that.
    pub commitment_grace_ms: i64,
    /// A proof must follow its commitment within so long.
    pub proof_timeout_ms: i64,
    /// Side of the matrices, before variation.
    pub matrix_size: MatrixSize,
    /// Share by which the side varies, 0 to 0.5.
    pub size_variance: f64,
    /// Multiplications.
    pub iterations: Iterations,
    /// Rows to open, before variation.
    pub row_count: u32,
    /// Share by which that number varies.
    pub row_count_variance: f64,
}

impl Rules {
    /// [`Self::timeout`] in milliseconds.
    pub fn timeout_ms(&self) -> i64 {
        i64::from(self.timeout.get()) * 1000
    }
}
