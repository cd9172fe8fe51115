//! The life of a challenge: seven statuses, the steps between them, and why a life ended badly.
//!
//! ```text
//! created ─► sent ─► committed ─► verifying ─► verified
//!    │         │         │            ├──────► failed     evidence against the worker
//!    └─────────┴─────────┴────────────┴──────► void       lost by us, or never asked for
//! ```
//! (`sent` and `committed` also end in `failed`, at their deadlines.) A [`Step`] exists only where the table allows it,
//! and the store moves a challenge only by a step and only from where the step begins.
//!
//! The row is the challenge's journal: each status is on disk before anybody is told of it. In a journal's words, `created`
//! is issued, `committed` is committed and opened at once (the rows are drawn and stored with the commitment), `verifying`
//! is proved, `verified` and `failed` are judged. What was acknowledged and then lost by us ends as `void`, never as
//! `failed`; so does what ran out of time while we were away for a part of it.

use std::fmt;
use std::str::FromStr;

use byteleap_compute::gpu::verify::Fault as GpuFault;
use byteleap_compute::verify::Fault;
use byteleap_protocol::id::Unit;
use serde::Deserialize;
use utoipa::ToSchema;

/// Where a challenge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Written, waiting for the miner to ask.
    Created,
    /// Handed to the miner; the commitment is awaited.
    Sent,
    /// The commitment is stored and the rows are drawn; the proof is awaited.
    Committed,
    /// The proof is stored; the verdict is awaited.
    Verifying,
    /// Proved right.
    Verified,
    /// Proved wrong, or not answered in time.
    Failed,
    /// Counts for nothing: neither an attempt nor a penalty.
    Void,
}

impl Status {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 7] =
        [Self::Created, Self::Sent, Self::Committed, Self::Verifying, Self::Verified, Self::Failed, Self::Void];

    /// The text in the database and in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Sent => "sent",
            Self::Committed => "committed",
            Self::Verifying => "verifying",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Void => "void",
        }
    }

    /// Whether a challenge may go from here to `next`: the table of transitions.
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Created, Self::Sent | Self::Void)
            | (Self::Sent, Self::Committed | Self::Failed | Self::Void)
            | (Self::Committed, Self::Verifying | Self::Failed | Self::Void)
            | (Self::Verifying, Self::Verified | Self::Failed | Self::Void) => true,
            (Self::Created | Self::Sent | Self::Committed | Self::Verifying, _)
            | (Self::Verified | Self::Failed | Self::Void, _) => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a challenge status")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// One allowed move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where the challenge must be.
    pub from: Status,
    /// Where it goes.
    pub to: Status,
}

impl Step {
    /// The miner fetched it.
    pub const SEND: Self = Self::new(Status::Created, Status::Sent);
    /// Its commitment came in.
    pub const COMMIT: Self = Self::new(Status::Sent, Status::Committed);
    /// Its proof came in.
    pub const PROVE: Self = Self::new(Status::Committed, Status::Verifying);

    /// A move; one that the table forbids does not compile where this is evaluated in a constant.
    const fn new(from: Status, to: Status) -> Self {
        assert!(from.may_become(to), "the table of transitions forbids this step");
        Self { from, to }
    }
}

/// How a challenge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything held.
    Verified,
    /// There is evidence against the worker.
    Failed(Failure),
    /// It counts for nothing.
    Void(Loss),
}

impl Verdict {
    /// The last status that it leads to.
    pub const fn status(self) -> Status {
        match self {
            Self::Verified => Status::Verified,
            Self::Failed(_) => Status::Failed,
            Self::Void(_) => Status::Void,
        }
    }

    /// The lasting short name of the reason and a note for people; none where all held.
    pub fn reason(self) -> Option<(&'static str, String)> {
        match self {
            Self::Verified => None,
            Self::Failed(failure) => Some((failure.code(), failure.to_string())),
            Self::Void(loss) => Some((loss.code(), loss.to_string())),
        }
    }
}

/// What was found about a challenge: its verdict, and that of each unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict on the whole.
    pub verdict: Verdict,
    /// The units that were judged on their own, each with what is wrong with it; none where the verdict is every unit's.
    pub units: Vec<(Unit, Option<UnitFault>)>,
}

impl Judgement {
    /// That of GPUs: one that passes is enough, and only those that pass count (validator spec 4.6).
    pub fn of_units(units: Vec<(Unit, Option<UnitFault>)>) -> Self {
        let verdict = match units.first() {
            None => Verdict::Void(Loss::Verifier),
            Some(_) if units.iter().any(|(_, fault)| fault.is_none()) => Verdict::Verified,
            Some((_, fault)) => Verdict::Failed(Failure::Units(fault.unwrap_or(UnitFault::NoProof))),
        };
        Self { verdict, units }
    }

    /// How many units passed.
    pub fn units_ok(&self) -> usize {
        match (self.verdict, self.units.as_slice()) {
            (Verdict::Verified, []) => 1,
            (Verdict::Verified, units) => units.iter().filter(|(_, fault)| fault.is_none()).count(),
            (Verdict::Failed(_) | Verdict::Void(_), _) => 0,
        }
    }
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, units: Vec::new() }
    }
}

/// Evidence against a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No commitment before the deadline.
    #[error("no commitment before the deadline")]
    CommitmentLate,
    /// No proof before the deadline.
    #[error("no proof before the deadline")]
    ProofLate,
    /// The proof does not hold.
    #[error("{0}")]
    Proof(Fault),
    /// Not one GPU passed; this is what was wrong with the first.
    #[error("no GPU passed, the first because {0}")]
    Units(UnitFault),
}

impl Failure {
    /// Its lasting short name, for storage and statistics.
    pub fn code(self) -> &'static str {
        match self {
            Self::CommitmentLate => "commitment_late",
            Self::ProofLate => "proof_late",
            Self::Proof(fault) => fault.code(),
            Self::Units(fault) => fault.code(),
        }
    }
}

/// Evidence against one GPU of a challenge: it fails, and the others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitFault {
    /// The worker does not report it, or another one holds it and this one does not claim it.
    #[error("its worker does not report this GPU")]
    NotHeld,
    /// A root that a matrix of this size cannot have.
    #[error("its Merkle root has the wrong length")]
    Root,
    /// No signature under its commitment.
    #[error("its commitment is not signed")]
    Unsigned,
    /// The signature is nobody's whose key counts.
    #[error("no trusted key signed its commitment")]
    Signature,
    /// The host's own key signed it.
    #[error("its commitment is signed by the host's own key, which this validator does not accept")]
    HostKey,
    /// It was to be opened, and the proof leaves it out.
    #[error("the proof leaves it out")]
    NoProof,
    /// Its proof does not hold.
    #[error("{0}")]
    Proof(GpuFault),
}

impl UnitFault {
    /// Those for which a commitment is not believed, so that nothing of the unit is opened.
    const OF_COMMITMENT: [Self; 5] = [Self::NotHeld, Self::Root, Self::Unsigned, Self::Signature, Self::HostKey];

    /// The fault of a commitment with this short name.
    pub fn of_commitment(code: &str) -> Option<Self> {
        Self::OF_COMMITMENT.into_iter().find(|fault| fault.code() == code)
    }

    /// Its lasting short name, for storage and statistics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotHeld => "gpu_not_held",
            Self::Root => "wrong_root",
            Self::Unsigned => "unsigned",
            Self::Signature => "wrong_signature",
            Self::HostKey => "untrusted_key",
            Self::NoProof => "no_proof",
            Self::Proof(fault) => fault.code(),
        }
    }
}

/// Why a challenge counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The miner did not ask for it in time.
    #[error("the miner did not ask for it in time")]
    NeverFetched,
    /// It was not answered in time, but this validator was down for some of that time.
    #[error("not answered in time, but the validator was down for some of it")]
    Restart,
    /// The stored proof could not be judged for a reason that is ours.
    #[error("the validator could not judge the stored proof")]
    Verifier,
}

impl Loss {
    /// Its lasting short name, for storage and statistics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NeverFetched => "never_fetched",
            Self::Restart => "restart",
            Self::Verifier => "verifier",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_transitions_is_the_drawing() {
        use Status::{Committed, Created, Failed, Sent, Verified, Verifying, Void};
        let allowed = [
            (Created, Sent),
            (Created, Void),
            (Sent, Committed),
            (Sent, Failed),
            (Sent, Void),
            (Committed, Verifying),
            (Committed, Failed),
            (Committed, Void),
            (Verifying, Verified),
            (Verifying, Failed),
            (Verifying, Void),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&(from, to)), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn a_status_survives_its_text() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("Sent".parse::<Status>(), Err(UnknownStatus));
    }
}
