//! Why a request was not served, as the caller reads it: what [`crate::challenge`] finds wrong and [`crate::desk`] answers.

use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::id::Unit;
use byteleap_protocol::payload::ErrorAnswer;

use crate::challenge::state::UnitFault;
use crate::store::StoreError;

/// Why a request was not served. The text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No challenge of this name was given to a worker of the caller.
    #[error("Challenge not found")]
    UnknownChallenge,
    /// It is past this phase.
    #[error("Challenge already processed")]
    AlreadyProcessed,
    /// A proof for a challenge without a commitment.
    #[error("Challenge not in committed state")]
    NotCommitted,
    /// The deadline of this phase has passed.
    #[error("Challenge expired")]
    Expired,
    /// The commitment comes from another worker than the one that was asked.
    #[error("Challenge belongs to another worker")]
    OtherWorker,
    /// Not exactly one commitment, of the processor.
    #[error("Expected exactly one commitment, uuid -1")]
    Commitments,
    /// No GPU, one twice, too many, or the processor among them.
    #[error("Expected one commitment for each of 1 to 16 GPUs")]
    GpuCommitments,
    /// Nothing of the commitment is believed, and the challenge has failed by that.
    #[error("No GPU of the commitment is accepted; {unit}: {fault}")]
    Units {
        /// The first GPU.
        unit: Unit,
        /// What is wrong with it.
        fault: UnitFault,
    },
    /// A root that a matrix of this size cannot have.
    #[error("Merkle root has the wrong length")]
    Root,
    /// Not exactly one proof, of the processor.
    #[error("Expected exactly one proof, uuid -1")]
    Proofs,
    /// No GPU, one twice, or one that was not asked for.
    #[error("Expected one proof for each GPU that was to be opened")]
    GpuProofs,
    /// Not exactly what was asked for.
    #[error("Expected {rows} row hashes, {rows} Merkle proofs and no coordinate values")]
    Lengths {
        /// Rows that were asked for.
        rows: usize,
    },
    /// Our fault; the log has the reason.
    #[error("Processing failed with code 1")]
    Internal,
}

impl Refusal {
    /// Its lasting short name, for the account of what a miner was refused; none where the fault is ours.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnknownChallenge => "unknown_challenge",
            Self::AlreadyProcessed => "already_processed",
            Self::NotCommitted => "not_committed",
            Self::Expired => "expired",
            Self::OtherWorker => "other_worker",
            Self::Commitments | Self::GpuCommitments => "wrong_commitments",
            Self::Units { fault, .. } => fault.code(),
            Self::Root => "wrong_root",
            Self::Proofs | Self::GpuProofs => "wrong_proofs",
            Self::Lengths { .. } => "wrong_lengths",
            Self::Internal => return None,
        })
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "request lost to the database: check its disk, lock and connection");
        Self::Internal
    }
}

impl From<Refusal> for ErrorAnswer {
    /// As it goes, sealed, to the caller (miner-validator spec 2.4 and 5.5).
    fn from(refusal: Refusal) -> Self {
        let error_code = (refusal == Refusal::Internal).then_some(ErrorCode::Failed.number());
        Self { error: refusal.to_string(), error_code }
    }
}
