//! What a round is computed from: the state of the network as one validator knows it, at one instant.
//!
//! Numbers that a peer or the marketplace can influence are types that hold no bad value: [`LeaseScore`] and
//! [`ComputeTime`] refuse what is not finite where it enters. Maps are keyed, so nobody can be counted twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{GpuUuid, WorkerId},
};
use serde::{Deserialize, Serialize};

use crate::presence::DayBits;

/// A set of GPUs. Most facts of a worker name the same one, so they share it.
pub type GpuSet = Arc<BTreeSet<GpuUuid>>;

/// Everything known at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The instant, unix milliseconds UTC.
    pub now_ms: i64,
    /// Every hotkey with workers, leases or results in the windows, registered or not.
    pub miners: BTreeMap<Hotkey, MinerFacts>,
    /// Who owns each known GPU.
    pub gpus: BTreeMap<GpuUuid, GpuOwner>,
    /// The days, since 1970-01-01 UTC, and buckets in which this validator itself was scoring.
    pub scoring: Vec<(i64, DayBits)>,
}

/// One miner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinerFacts {
    /// Its uid in the metagraph; none when it is not registered, and then it is not scored.
    pub uid: Option<u16>,
    /// Whether it sent a heartbeat within the last 30 minutes. An offline miner scores zero.
    pub online: bool,
    /// Its workers.
    pub workers: BTreeMap<WorkerId, WorkerFacts>,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerFacts {
    /// Its newest heartbeat, unix milliseconds UTC.
    pub last_seen_ms: Option<i64>,
    /// Beyond the miner's 100 oldest live workers: never challenged, never scored.
    pub over_limit: bool,
    /// What the marketplace says it earns.
    pub lease: LeaseScore,
    /// Its challenges that got a verdict; those outside the ranking window are ignored.
    pub challenges: Vec<ChallengeFacts>,
    /// When it was seen, and with which GPUs; days outside the availability window are ignored.
    pub presence: Vec<PresenceDay>,
    /// How often its public address changed within the availability window.
    pub address_changes: u32,
}

/// One challenge with a verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct ChallengeFacts {
    /// When it was created, unix milliseconds UTC.
    pub created_at_ms: i64,
    /// Whether the proof was found right.
    pub passed: bool,
    /// From sending to commitment; none when no time was taken, and then it is no success.
    pub time: Option<ComputeTime>,
    /// How many units (GPUs, or the one CPU) passed. 0 counts as 1.
    pub units: u32,
    /// The GPUs committed to; empty for a CPU challenge.
    pub gpus: GpuSet,
}

/// One UTC day of one worker with one set of GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct PresenceDay {
    /// Days since 1970-01-01 UTC.
    pub day: i64,
    /// The GPUs reported.
    pub gpus: GpuSet,
    /// The five-minute buckets with at least one heartbeat that reported just these GPUs.
    pub buckets: DayBits,
}

/// The holder of a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuOwner {
    /// The miner under which it is held.
    pub hotkey: Hotkey,
    /// When it was last reported, unix milliseconds UTC.
    pub last_seen_ms: i64,
}

/// A lease score: finite, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LeaseScore(f64);

impl LeaseScore {
    /// Reads a score as the marketplace sends it; a negative one counts as zero.
    ///
    /// # Errors
    /// When it is infinite or not a number.
    pub fn new(score: f64) -> Result<Self, FactsError> {
        if score.is_finite() { Ok(Self(score.max(0.0))) } else { Err(FactsError::Lease(score)) }
    }

    /// The score.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<LeaseScore> for f64 {
    fn from(score: LeaseScore) -> Self {
        score.0
    }
}

impl TryFrom<f64> for LeaseScore {
    type Error = FactsError;

    fn try_from(score: f64) -> Result<Self, FactsError> {
        Self::new(score)
    }
}

/// How long a challenge took, in milliseconds: from 0 to [`ComputeTime::MAX_MS`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct ComputeTime(f64);

impl ComputeTime {
    /// Some thirty years: keeps every sum of times finite.
    pub const MAX_MS: f64 = 1e12;

    /// Reads a time in milliseconds.
    ///
    /// # Errors
    /// When it is negative, infinite, not a number or beyond [`ComputeTime::MAX_MS`].
    pub fn from_ms(ms: f64) -> Result<Self, FactsError> {
        if (0.0..=Self::MAX_MS).contains(&ms) { Ok(Self(ms)) } else { Err(FactsError::Time(ms)) }
    }

    /// The time in milliseconds.
    #[must_use]
    pub fn ms(self) -> f64 {
        self.0
    }
}

/// A number that is no fact.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FactsError {
    /// A lease score.
    #[error("lease score {0} is not a finite number")]
    Lease(f64),
    /// A computation time.
    #[error("computation time {0} ms is not a number from 0 to {max}", max = ComputeTime::MAX_MS)]
    Time(f64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_refused_where_they_enter() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(LeaseScore::new(number).is_err());
            assert!(ComputeTime::from_ms(number).is_err());
        }
        assert!(ComputeTime::from_ms(-1.0).is_err());
    }

    #[test]
    fn a_negative_lease_is_no_lease() {
        assert_eq!(LeaseScore::new(-3.0).map(LeaseScore::get), Ok(0.0));
    }
}
