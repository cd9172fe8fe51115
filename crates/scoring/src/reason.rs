//! Why a number is zero: the sentence that an operator looks for first.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a worker's performance is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerZero {
    /// Beyond the miner's 100 oldest live workers.
    OverLimit,
    /// Its miner is not scored, and only scored miners are ranked.
    MinerNotScored,
    /// No challenge got a verdict within the ranking window. Leased workers are not challenged.
    NoChallenge,
    /// Every challenge named a GPU that the miner does not hold.
    ForeignGpu,
    /// No challenge was passed.
    NoSuccess,
    /// The mean time is no time that work can take.
    NoTime,
    /// Not seen within the availability window with the GPUs it was challenged on.
    NotPresent,
    /// Its public address changed too often.
    AddressChanges,
}

impl fmt::Display for WorkerZero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OverLimit => "beyond the miner's 100 oldest live workers, so neither challenged nor scored",
            Self::MinerNotScored => "its miner is offline or not registered, so not ranked",
            Self::NoChallenge => "no challenge with a verdict within the ranking window (leased workers get none)",
            Self::ForeignGpu => "every challenge named a GPU that this miner does not hold",
            Self::NoSuccess => "no challenge passed within the ranking window",
            Self::NoTime => "the recorded computation time is zero or not plausible",
            Self::NotPresent => "not seen within the availability window with the GPUs it was challenged on",
            Self::AddressChanges => "its public address changed four times or more within the availability window",
        })
    }
}

/// Why a miner's challenge score is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeZero {
    /// The miner is offline.
    Offline,
    /// No worker has a performance above zero.
    NoPerformance,
    /// The profile gives leased miners no challenge score.
    Leased,
}

impl fmt::Display for ChallengeZero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "the miner is offline",
            Self::NoPerformance => "no worker has a performance above zero",
            Self::Leased => "leased miners get no challenge score under this profile",
        })
    }
}

/// Why a miner's lease score is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseZero {
    /// The miner is offline.
    Offline,
    /// No worker is leased.
    NoLease,
    /// Leased workers are over the limit or were not seen for 30 minutes.
    NotCounted,
}

impl fmt::Display for LeaseZero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "the miner is offline",
            Self::NoLease => "no worker is leased",
            Self::NotCounted => "the leased workers were not seen within 30 minutes or are over the limit",
        })
    }
}

/// Why a miner's score, and with it its weight, is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinerZero {
    /// No heartbeat within 30 minutes.
    Offline,
    /// Neither a lease nor a performance.
    NothingEarned,
    /// It earned only what the profile does not weigh.
    NotWeighed,
    /// None of its workers was seen within the availability window.
    NotPresent,
    /// The public addresses of its workers changed too often.
    AddressChanges,
}

impl fmt::Display for MinerZero {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "the miner is offline: no heartbeat within 30 minutes",
            Self::NothingEarned => "no lease and no challenge score",
            Self::NotWeighed => "it earned only what this profile gives no weight",
            Self::NotPresent => "none of its workers was seen within the availability window",
            Self::AddressChanges => {
                "the public addresses of its workers changed four times or more within the availability window"
            }
        })
    }
}
