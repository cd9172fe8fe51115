//! A challenge from the row that creates it to its verdict; the files are its stations.
//!
//! [`schedule`] decides whose turn it is, [`deliver`] hands the batch to the miner that asks, [`commit`] takes the
//! commitment in, believes of its GPUs what is signed ([`units`]) and only then draws what to open ([`targets`]), [`prove`]
//! stores the proof as [`stored_proof`] packs it, [`verify`] judges it.
//! [`test_run`] challenges one worker for its operator. [`state`] says which step may follow which; [`Rules`] are the numbers that all of them obey.

pub mod commit;
pub mod deliver;
pub mod prove;
pub mod schedule;
pub mod state;
pub mod stored_proof;
pub mod targets;
pub mod test_run;
pub mod units;
pub mod verify;

#[cfg(test)]
mod gpu_tests;
#[cfg(test)]
mod odds;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use byteleap_compute::gpu::verify::Tolerance;
use byteleap_protocol::challenge::{ChallengeKind, TimeoutSeconds};
use byteleap_protocol::gpu_signature::CommitmentKey;
use byteleap_protocol::id::{Iterations, MatrixSize};

/// How challenges are made and how long their answers may take; from the configuration's `validation` section.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What is asked of workers.
    pub kinds: Kinds,
    /// A worker's turn comes once in so long.
    pub interval_ms: i64,
    /// How long a worker may compute, as the challenge tells it.
    pub timeout: TimeoutSeconds,
    /// A commitment is still taken so long after that.
    pub commitment_grace_ms: i64,
    /// A proof must follow its commitment within so long.
    pub proof_timeout_ms: i64,
    /// What a processor is asked for.
    pub cpu: CpuRules,
    /// What GPUs are asked for.
    pub gpu: GpuRules,
}

/// A challenge of a processor.
#[derive(Debug, Clone, PartialEq)]
pub struct CpuRules {
    /// Side of the matrices, before variation.
    pub matrix_size: MatrixSize,
    /// Share by which the side varies, 0 to 0.5.
    pub size_variance: f64,
    /// Multiplications.
    pub iterations: Iterations,
    /// Rows to open.
    pub rows: Spread,
}

/// A challenge of a worker's GPUs.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuRules {
    /// Side of the matrices, before variation.
    pub matrix_size: MatrixSize,
    /// Share by which the side varies, 0 to 1.
    pub size_variance: f64,
    /// Factor of the result.
    pub iterations: Iterations,
    /// Elements to show.
    pub coordinates: Spread,
    /// Rows to open and to show.
    pub rows: Spread,
    /// How near a shown number must be to the exact one.
    pub tolerance: Tolerance,
    /// Parts of the model names that are challenged, in lower case; none: every model.
    pub model_allowlist: Vec<String>,
    /// Whose signature under a commitment counts.
    pub trusted_keys: Vec<CommitmentKey>,
    /// Whether that of a host's own key counts too.
    pub accept_host_keys: bool,
}

impl GpuRules {
    /// Whether a card of this model is challenged: its name contains an entry of the list, in whatever case.
    pub fn allows(&self, model: Option<&str>) -> bool {
        let model = model.unwrap_or_default().to_lowercase();
        self.model_allowlist.is_empty() || self.model_allowlist.iter().any(|allowed| model.contains(allowed))
    }
}

/// A number to draw by: `base` ± up to the whole part of `base` × `variance`, each as likely as the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The number in the middle.
    pub base: u32,
    /// Share by which it varies, 0 to 1.
    pub variance: f64,
}

/// Which kinds of challenges are issued (`validation.challenge_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// `cpu_matrix`: to every worker that can.
    Cpu,
    /// `gpu_matrix`: to every worker that can and has an allowed GPU.
    Gpu,
    /// `both`: in turn to a worker that can do both, else the one that it can.
    Both,
}

impl Kinds {
    /// Whether challenges of this kind are issued.
    pub fn include(self, kind: ChallengeKind) -> bool {
        match self {
            Self::Cpu => kind == ChallengeKind::CpuMatrix,
            Self::Gpu => kind == ChallengeKind::GpuMatrix,
            Self::Both => true,
        }
    }
}

impl FromStr for Kinds {
    type Err = UnknownKinds;

    fn from_str(text: &str) -> Result<Self, UnknownKinds> {
        match (ChallengeKind::from_text(text), text) {
            (Some(ChallengeKind::CpuMatrix), _) => Ok(Self::Cpu),
            (Some(ChallengeKind::GpuMatrix), _) => Ok(Self::Gpu),
            (None, "both") => Ok(Self::Both),
            (None, _) => Err(UnknownKinds),
        }
    }
}

/// A text that names no kinds of challenges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cpu_matrix, gpu_matrix or both")]
pub struct UnknownKinds;

impl Rules {
    /// [`Self::timeout`] in milliseconds.
    pub fn timeout_ms(&self) -> i64 {
        i64::from(self.timeout.get()) * 1000
    }
}
