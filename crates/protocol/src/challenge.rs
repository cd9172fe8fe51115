//! What is to be computed: the definition of a challenge, and the item of a batch that brings it to a miner.
//!
//! The validator makes both, the miner relays the definition untouched, and the worker parses it only when it starts,
//! since it has to answer an unusable definition with a failed result (worker-miner spec 2.7).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hotkey::Hotkey;
use crate::id::{ChallengeId, IdError, Iterations, MatrixSize, Seed, WorkerId};
use crate::{Object, lenient};

/// What kind of computation: also the name of the worker capability that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeKind {
    /// An integer matrix product on the processor.
    CpuMatrix,
    /// A half-precision matrix product on every GPU.
    GpuMatrix,
}

impl ChallengeKind {
    /// The kind as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuMatrix => "cpu_matrix",
            Self::GpuMatrix => "gpu_matrix",
        }
    }

    /// The kind of a text, if it is one.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::CpuMatrix, Self::GpuMatrix].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The definition of a challenge (worker-miner spec 4.1 and 5.1, miner-validator spec 2.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChallengeData {
    /// The kind; always sent, and implied by the task where a peer leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_type: Option<ChallengeKind>,
    /// Side of the matrices.
    pub matrix_size: MatrixSize,
    /// Where the matrices come from.
    pub seed: Seed,
    /// Number of multiplications; 1 where absent.
    #[serde(default)]
    pub iterations: Iterations,
    /// GPU only: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<i64>,
    /// GPU only: -1, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_gpu_id: Option<i64>,
    /// The challenge itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge_id: Option<ChallengeId>,
    /// The worker that must compute it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// That worker's miner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miner_hotkey: Option<Hotkey>,
    /// The scheduling round, `round_<unix seconds>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_id: Option<String>,
}

/// Why a definition cannot be computed; the text is what a worker reports.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeDataError {
    /// A field is missing or wrong.
    #[error("challenge data: {0}")]
    Field(#[from] serde_json::Error),
    /// A size that a processor is not asked for.
    #[error("challenge data: {0}")]
    Size(#[from] IdError),
    /// The definition names another kind than the task.
    #[error("challenge data is of kind {found}, the task of kind {expected}")]
    Kind {
        /// The task's kind.
        expected: ChallengeKind,
        /// The definition's.
        found: ChallengeKind,
    },
}

impl ChallengeData {
    /// Reads the definition of a task of `kind`.
    ///
    /// # Errors
    /// A field is missing, wrong or out of range, or the kind differs.
    pub fn parse(kind: ChallengeKind, data: &Object) -> Result<Self, ChallengeDataError> {
        let data: Self = serde_json::from_value(Value::Object(data.clone()))?;
        if let Some(found) = data.challenge_type.filter(|found| *found != kind) {
            return Err(ChallengeDataError::Kind { expected: kind, found });
        }
        if kind == ChallengeKind::CpuMatrix {
            MatrixSize::for_cpu(data.matrix_size.get())?;
        }
        Ok(data)
    }

    /// The definition as the free object that a batch item or an assignment carries.
    #[must_use]
    pub fn to_object(&self) -> Object {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            _ => Object::new(),
        }
    }
}

/// A challenge's time limit in seconds, 1 to 300.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TimeoutSeconds(u16);

impl TimeoutSeconds {
    /// Longest limit.
    pub const MAX: u16 = 300;

    /// A limit of `seconds`.
    ///
    /// # Errors
    /// Outside 1 to [`Self::MAX`].
    pub fn new(seconds: u16) -> Result<Self, IdError> {
        if (1..=Self::MAX).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(IdError::Range("timeout", 1, u32::from(Self::MAX)))
        }
    }

    /// The number of seconds.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// The limit as a duration.
    #[must_use]
    pub fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.0))
    }
}

impl Default for TimeoutSeconds {
    /// What an absent limit means to a miner (worker-miner spec 3.4).
    fn default() -> Self {
        Self(45)
    }
}

impl<'de> Deserialize<'de> for TimeoutSeconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(lenient::read(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// One challenge of a batch, as a task poll brings it to a miner (miner-validator spec 2.4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChallengeItem {
    /// The challenge.
    pub challenge_id: ChallengeId,
    /// Its kind.
    pub challenge_type: ChallengeKind,
    /// Its definition, relayed as it came; see [`ChallengeData`].
    #[serde(deserialize_with = "lenient::read")]
    pub data: Object,
    /// How long the worker has.
    #[serde(default)]
    pub timeout: TimeoutSeconds,
    /// The worker that must compute it; any idle one where absent.
    #[serde(default)]
    pub target_worker_id: Option<WorkerId>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(kind: ChallengeKind, data: Value) -> Result<ChallengeData, ChallengeDataError> {
        let Value::Object(data) = data else { unreachable!() };
        ChallengeData::parse(kind, &data)
    }

    #[test]
    fn a_definition_survives_the_wire() {
        let data = ChallengeData {
            challenge_type: Some(ChallengeKind::CpuMatrix),
            matrix_size: MatrixSize::for_cpu(1958).unwrap(),
            seed: "00112233445566778899aabbccddeeff".parse().unwrap(),
            iterations: Iterations::ONE,
            mode: None,
            target_gpu_id: None,
            challenge_id: Some(ChallengeId::new("c1").unwrap()),
            worker_id: Some(WorkerId::new("w1").unwrap()),
            miner_hotkey: Some(Hotkey([7; 32])),
            round_id: Some("round_1760000000".to_owned()),
        };
        assert_eq!(ChallengeData::parse(ChallengeKind::CpuMatrix, &data.to_object()).unwrap(), data);
    }

    #[test]
    fn a_worker_refuses_what_it_could_not_compute() {
        let cpu = ChallengeKind::CpuMatrix;
        assert!(parse(cpu, json!({"matrix_size": 8, "seed": "07"})).is_ok());
        for bad in [
            json!({}),
            json!({"matrix_size": 8}),
            json!({"matrix_size": 0, "seed": "07"}),
            json!({"matrix_size": 16385, "seed": "07"}),
            json!({"matrix_size": 8, "seed": "0x07"}),
            json!({"matrix_size": 8, "seed": "07", "iterations": 65}),
            json!({"matrix_size": 8, "seed": "07", "iterations": null}),
            json!({"matrix_size": 8, "seed": "07", "challenge_type": "gpu_matrix"}),
        ] {
            assert!(parse(cpu, bad).is_err());
        }
        assert!(parse(ChallengeKind::GpuMatrix, json!({"matrix_size": 32768, "seed": "07"})).is_ok());
    }

    #[test]
    fn a_batch_item_has_a_timeout_from_1_to_300() {
        let item = |timeout: Value| {
            serde_json::from_value::<ChallengeItem>(json!({
                "challenge_id": "c", "challenge_type": "cpu_matrix", "data": {}, "timeout": timeout
            }))
        };
        assert_eq!(item(json!(60.0)).unwrap().timeout.get(), 60);
        assert!(item(json!(0)).is_err());
        assert!(item(json!(301)).is_err());
    }
}
