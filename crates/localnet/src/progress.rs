//! How far round a challenge has come: the stages of its way, and which of them this run has seen.

use std::fmt;

use serde::Serialize;

use crate::record::{Facts, Submission};

/// A stage on the way from a heartbeat to weights on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Workers reached the validator's record through their miner.
    Heartbeat,
    /// The validator wrote a challenge.
    Challenge,
    /// A miner fetched it.
    Fetch,
    /// The worker's commitment came back and is stored.
    Commitment,
    /// The proof came back and is stored.
    Proof,
    /// A proof was verified.
    Verdict,
    /// A scoring round counted it.
    Round,
    /// The chain holds the weights of such a round.
    Weights,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 8] = [
        Self::Heartbeat,
        Self::Challenge,
        Self::Fetch,
        Self::Commitment,
        Self::Proof,
        Self::Verdict,
        Self::Round,
        Self::Weights,
    ];

    /// Whose log to read where this stage does not happen.
    #[must_use]
    pub fn suspects(self) -> &'static str {
        match self {
            Self::Heartbeat => "worker, miner, validator",
            Self::Challenge | Self::Verdict | Self::Round => "validator",
            Self::Fetch => "miner, validator",
            Self::Commitment | Self::Proof => "worker, miner, validator",
            Self::Weights => "validator, and the chain",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Heartbeat => "heartbeat",
            Self::Challenge => "challenge",
            Self::Fetch => "fetch",
            Self::Commitment => "commitment",
            Self::Proof => "proof",
            Self::Verdict => "verdict",
            Self::Round => "round",
            Self::Weights => "weights",
        })
    }
}

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Progress {
    /// The chain's finalised block.
    pub block: u64,
    /// The validator's weights as the chain holds them, by uid.
    pub weights: Vec<(u16, u16)>,
    /// What the validator has written down since the start.
    pub facts: Facts,
}

impl Progress {
    /// Whether a stage has happened in this run.
    #[must_use]
    pub fn has(&self, stage: Stage) -> bool {
        let facts = &self.facts;
        match stage {
            Stage::Heartbeat => facts.workers_heard > 0,
            Stage::Challenge => facts.created > 0,
            Stage::Fetch => facts.sent > 0,
            Stage::Commitment => facts.committed > 0,
            Stage::Proof => facts.proved > 0,
            Stage::Verdict => !facts.verified.is_empty(),
            Stage::Round => facts.rounds_after_verdict > 0,
            Stage::Weights => self.earned().is_some(),
        }
    }

    /// The first stage that has not happened; `None` once the chain holds the weights.
    #[must_use]
    pub fn missing(&self) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| !self.has(*stage))
    }

    /// The submission that the chain's weights come from, with the verified challenges that its round could count: none
    /// before the chain holds exactly these weights, they are not all zero, and at least one challenge stands behind them.
    #[must_use]
    pub fn earned(&self) -> Option<(&Submission, Vec<&str>)> {
        let submission = self.facts.submission.as_ref()?;
        let holds = self.weights == submission.weights && self.weights.iter().any(|(_, weight)| *weight > 0);
        let counted: Vec<&str> = self
            .facts
            .verified
            .iter()
            .filter(|verified| verified.finished_at_ms <= submission.round_at_ms)
            .map(|verified| verified.challenge_id.as_str())
            .collect();
        (holds && !counted.is_empty()).then_some((submission, counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Verified;

    fn complete() -> Progress {
        let verified = |id: &str, finished_at_ms| Verified { challenge_id: id.to_owned(), finished_at_ms };
        Progress {
            block: 40,
            weights: vec![(1, 65535)],
            facts: Facts {
                workers_heard: 2,
                created: 2,
                sent: 2,
                committed: 2,
                proved: 2,
                verified: vec![verified("early", 100), verified("late", 300)],
                rounds_after_verdict: 1,
                submission: Some(Submission {
                    round_at_ms: 200,
                    block: 38,
                    extrinsic: "0xab".into(),
                    weights: vec![(1, 65535)],
                }),
                ..Facts::default()
            },
        }
    }

    #[test]
    fn weights_count_with_the_challenges_verified_before_their_round() {
        let progress = complete();
        assert_eq!(progress.missing(), None);
        assert_eq!(progress.earned().unwrap().1, ["early"]);
    }

    #[test]
    fn weights_without_a_challenge_behind_them_do_not_count() {
        let mut progress = complete();
        progress.facts.verified.remove(0);
        assert_eq!(progress.missing(), Some(Stage::Weights));
    }

    #[test]
    fn only_what_the_chain_holds_counts() {
        let mut progress = complete();
        progress.weights = vec![(1, 65534)];
        assert_eq!(progress.missing(), Some(Stage::Weights));
        progress.weights.clear();
        assert_eq!(progress.missing(), Some(Stage::Weights));
    }

    #[test]
    fn the_first_missing_stage_is_named() {
        let mut progress = complete();
        progress.facts.committed = 0;
        assert_eq!(progress.missing(), Some(Stage::Commitment));
        assert_eq!(Progress::default().missing(), Some(Stage::Heartbeat));
    }
}
