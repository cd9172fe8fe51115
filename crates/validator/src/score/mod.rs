//! Scoring in the validator: every few minutes the facts of one instant become a stored round.
//!
//! [`facts`] reads the store into what `byteleap-scoring` computes from; [`Scorer::score_once`] does that, scores, and
//! stores the round with every number; [`run`] repeats it. [`explain`] tells one miner's score to a person, from what
//! was stored, down to its value on chain ([`on_chain`]), with what changed since ([`change`]); [`replay`] scores a stored
//! round again. Nothing here weighs anything: the formulas are `byteleap-scoring`'s.

pub mod change;
pub mod explain;
pub mod facts;
pub mod on_chain;
pub mod replay;

use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::{Chain, ChainError};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use byteleap_scoring::{MinerScore, Outcome, Round, Rules, WorkerScore, score};
use tokio_util::sync::CancellationToken;

use self::facts::Known;
use crate::store::round::{PackedRound, RoundKey};
use crate::store::{Store, StoreError};

/// Why no round was made.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// Facts could not be read or the round not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody knows who is registered.
    #[error("metagraph: {0}")]
    Chain(#[from] ChainError),
    /// The computation itself ended badly.
    #[error("scoring did not finish: {0}")]
    Computation(#[from] tokio::task::JoinError),
}

/// A stored round, as it was scored.
#[derive(Debug)]
pub struct ScoredRound {
    /// Its row.
    pub key: RoundKey,
    /// All that was scored.
    pub round: Round,
}

impl ScoredRound {
    /// What a miner got; none when it was not registered.
    pub fn miner(&self, hotkey: &Hotkey) -> Option<&MinerScore> {
        let found = self.round.miners.binary_search_by_key(hotkey, |miner| miner.hotkey);
        found.ok().map(|index| &self.round.miners[index])
    }

    /// What a worker got; none when it was not known.
    pub fn worker(&self, hotkey: &Hotkey, worker_id: &WorkerId) -> Option<&WorkerScore> {
        let workers = &self.round.workers;
        let found = workers.binary_search_by(|worker| (&worker.hotkey, &worker.worker_id).cmp(&(hotkey, worker_id)));
        found.ok().map(|index| &workers[index])
    }
}

/// What a round needs.
#[derive(Clone)]
pub struct Scorer {
    /// Where facts come from and the round goes to.
    pub store: Store,
    /// Who is registered.
    pub chain: Arc<dyn Chain>,
    /// The subnet.
    pub netuid: u16,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is rewarded.
    pub rules: Live<Rules>,
}

impl Scorer {
    /// Makes one round of the facts of now.
    ///
    /// # Errors
    /// As [`ScoreError`]; then nothing was stored.
    pub async fn score_once(&self) -> Result<(RoundKey, Outcome), ScoreError> {
        let ScoredRound { key, round } = self.score_from(&mut Known::default()).await?;
        Ok((key, round.outcome))
    }

    /// Makes one round of the facts of now, of which `known` holds what earlier rounds read and cannot have changed.
    ///
    /// # Errors
    /// As [`ScoreError`]; then nothing was stored.
    pub async fn score_from(&self, known: &mut Known) -> Result<ScoredRound, ScoreError> {
        let started = self.clock.monotonic();
        let rules = self.rules.get();
        let metagraph = self.chain.metagraph(self.netuid).await?;
        let (windows, now_ms) = (rules.windows(), self.clock.unix_ms());
        let facts = facts::gather(&self.store, known, &metagraph, windows, now_ms).await?;
        let packed = tokio::task::spawn_blocking(move || PackedRound::new(score(&rules, &facts))).await??;
        let round = &packed.round;
        let took = self.clock.monotonic().saturating_sub(started);
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        failpoint::reach("validator.round.before");
        let key = self.store.record_round(&packed, metagraph.block, took_ms).await?;
        failpoint::reach("validator.round.after");
        tracing::info!(
            round = key.0,
            block = metagraph.block,
            outcome = %round.outcome,
            miners = round.miners.len(),
            workers = round.workers.len(),
            paid = round.payable().len(),
            took_ms,
            "scored"
        );
        metrics::gauge!("scoring_round_at_seconds").set(round.at_ms as f64 / 1_000.0);
        metrics::histogram!("scoring_duration_seconds").record(took.as_secs_f64());
        Ok(ScoredRound { key, round: packed.round })
    }
}

/// Makes a round at once and then every `interval` (`scoring.interval_s`), until `stop`; `newest` is then the one
/// made last. A round that fails is logged and left out; the next one starts afresh.
pub async fn run(scorer: Scorer, interval: Duration, newest: Live<Option<ScoredRound>>, stop: CancellationToken) {
    let mut known = Known::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            scored = scorer.score_from(&mut known) => {
                match scored {
                    Ok(scored) => newest.set(Some(scored)),
                    Err(error) => {
                        known = Known::default();
                        tracing::warn!(%error, "no scoring round: the next one is tried as planned");
                        metrics::counter!("scoring_failures_total").increment(1);
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

#[cfg(test)]
mod tests;
