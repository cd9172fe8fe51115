//! From a stored round to weights on the chain.
//!
//! [`vector`] turns the round's shares into what the chain accepts at this block; [`pace`] says from which block on it
//! may be sent; [`Submitter::submit`] writes the vector down, sends it and writes down its fate; [`run`] does this
//! whenever it is time. [`report`] shows it to a person, [`diff`] holds it against what others say.
//!
//! A submission is one immutable object: round, block, uids, values and version key, stored before it is sent. What was
//! sent and not seen again is never sent twice blindly: the chain's `LastUpdate` tells whether it arrived.

pub mod diff;
pub mod pace;
pub mod report;
pub mod vector;

use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::{Block, Chain, ChainError, Metagraph, Neuron, Receipt, Rules, Signer, Weights};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use tokio_util::sync::CancellationToken;

use crate::config::WeightSettings;
use crate::score::replay::ReplayError;
use crate::store::round::RoundRow;
use crate::store::submission::{Fate, SubmissionKey, SubmissionRow, SubmissionStatus};
use crate::store::{Store, StoreError};

pub use vector::VectorError;

/// How long to wait after the chain could not be asked.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How many of the last submissions decide when the next may be sent, and are shown.
const REMEMBERED: i64 = 20;

/// Why no weights were set.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The round could not be read, or the submission not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The chain did not answer or did not obey.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Nothing was scored so far.
    #[error("no scoring round yet")]
    NoRound,
    /// A stored round cannot be scored again.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Scoring has stopped.
    #[error("the newest scoring round is older than weights.max_round_age ({0} s): see in the log why scoring stopped")]
    RoundTooOld(u64),
    /// We hold no uid.
    #[error("this validator's hotkey {0} is not registered on the subnet: register it with the official command line")]
    NotRegistered(byteleap_chain::Hotkey),
    /// We may not set weights.
    #[error("this validator has no permit to set weights on others: it needs more stake")]
    NoPermit,
    /// The chain wants a newer program.
    #[error("the subnet demands version key {demanded}, weights.version_key is {ours}: update, or raise the key")]
    VersionKey {
        /// What the chain demands at least.
        demanded: u64,
        /// What we would send.
        ours: u64,
    },
    /// The round pays nobody that can be paid.
    #[error(transparent)]
    Vector(#[from] VectorError),
}

impl WeightsError {
    /// Whether a person must act before the next attempt can succeed.
    fn needs_a_person(&self) -> bool {
        match self {
            Self::RoundTooOld(_) | Self::NotRegistered(_) | Self::NoPermit | Self::VersionKey { .. } => true,
            Self::Vector(VectorError::NoBurner) => true,
            Self::Chain(error) => !error.is_temporary() && !matches!(error, ChainError::Unknown { .. }),
            Self::Store(_) | Self::NoRound | Self::Replay(_) | Self::Vector(_) => false,
        }
    }
}

/// A vector that is ready to be sent, and what it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The round that it pays.
    pub round: RoundRow,
    /// The block that uids and limits were read at.
    pub block: Block,
    /// Whom it pays, and how much.
    pub weights: Weights,
    /// Whom it does not pay though the round does.
    pub dropped: Vec<vector::Dropped>,
    /// What is burned: by which uid, and what share of the whole.
    pub burned: Option<(u16, f64)>,
}

/// Sets weights for one hotkey.
#[derive(Clone)]
pub struct Submitter {
    /// Where rounds come from and submissions are kept.
    pub store: Store,
    /// Where they go.
    pub chain: Arc<dyn Chain>,
    /// Who signs.
    pub signer: Arc<dyn Signer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The subnet.
    pub netuid: u16,
    /// How.
    pub settings: WeightSettings,
}

/// What the chain says at one moment.
struct View {
    metagraph: Metagraph,
    rules: Rules,
}

impl Submitter {
    /// Builds the vector that would be sent now.
    ///
    /// # Errors
    /// Whatever forbids to send one.
    pub async fn prepare(&self) -> Result<Prepared, WeightsError> {
        self.prepare_at(&self.view().await?).await
    }

    /// Builds and sends a vector now, whatever the tempo; the chain's own rate limit holds. `None` in a dry run.
    ///
    /// # Errors
    /// Whatever forbids to send one, and the chain's refusal.
    pub async fn submit(&self) -> Result<(Prepared, Option<Receipt>), WeightsError> {
        let prepared = self.prepare().await?;
        let receipt = self.send(&prepared).await?;
        Ok((prepared, receipt))
    }

    /// Sends a vector if it is time, and answers from which block on to look again.
    ///
    /// # Errors
    /// Whatever forbids to send one, and the chain's refusal.
    pub async fn step(&self) -> Result<Block, WeightsError> {
        let view = self.view().await?;
        let own = self.own(&view.metagraph)?;
        let mut history = self.settle_open(own.last_update).await?;
        // Dry runs pace one another; they do not hold back what is really sent.
        history.retain(|submission| self.settings.dry_run || submission.status != SubmissionStatus::Skipped);
        let now = view.metagraph.block;
        let Some(tempo_blocks) = self.settings.tempo_blocks else { return Ok(Block::MAX) };
        let due = pace::due_block(own.last_update, now, &view.rules, tempo_blocks, &history);
        if now < due {
            return Ok(due);
        }
        let prepared = self.prepare_at(&view).await?;
        log_difference(&prepared.weights, &history);
        self.send(&prepared).await?;
        Ok(now + 1)
    }

    async fn view(&self) -> Result<View, ChainError> {
        // The metagraph last: its block is the newer one, and uids matter more than limits.
        let rules = self.chain.rules(self.netuid).await?;
        Ok(View { metagraph: self.chain.metagraph(self.netuid).await?, rules })
    }

    fn own<'a>(&self, metagraph: &'a Metagraph) -> Result<&'a Neuron, WeightsError> {
        let hotkey = self.signer.hotkey();
        metagraph.by_hotkey(&hotkey).ok_or(WeightsError::NotRegistered(hotkey))
    }

    async fn prepare_at(&self, View { metagraph, rules }: &View) -> Result<Prepared, WeightsError> {
        let own = self.own(metagraph)?;
        if !own.validator_permit && own.hotkey != metagraph.owner_hotkey {
            return Err(WeightsError::NoPermit);
        }
        if rules.weights_version > self.settings.version_key {
            return Err(WeightsError::VersionKey { demanded: rules.weights_version, ours: self.settings.version_key });
        }
        let round = self.store.latest_round().await?.ok_or(WeightsError::NoRound)?;
        let age_ms = self.clock.unix_ms().saturating_sub(round.at_ms);
        if u128::try_from(age_ms).is_ok_and(|age_ms| age_ms > self.settings.max_round_age.as_millis()) {
            return Err(WeightsError::RoundTooOld(self.settings.max_round_age.as_secs()));
        }
        let shares = self.store.shares_of(round.key).await?;
        let built = vector::build(&round, &shares, metagraph, rules, own.uid, &self.settings)?;
        let vector::Built { weights, dropped, burned } = built;
        Ok(Prepared { round, block: metagraph.block, weights, dropped, burned })
    }

    /// Writes the vector down, sends it, and writes down its fate.
    async fn send(&self, prepared: &Prepared) -> Result<Option<Receipt>, WeightsError> {
        let Prepared { round, block, weights, .. } = prepared;
        let dry_run = self.settings.dry_run;
        failpoint::reach("validator.submission.before");
        let key = self.store.record_submission(round.key, *block, weights, dry_run, self.clock.unix_ms()).await?;
        failpoint::reach("validator.submission.after");
        if dry_run {
            tracing::info!(round = round.key.0, block, uids = weights.uids().len(), "dry run: weights not sent");
            return Ok(None);
        }
        match self.chain.set_weights(self.netuid, weights, self.signer.as_ref()).await {
            Ok(receipt) => {
                failpoint::reach("validator.fate.before");
                self.settle(key, Fate::Included { block: receipt.block, extrinsic: Some(receipt.hash) }).await?;
                failpoint::reach("validator.fate.after");
                tracing::info!(
                    round = round.key.0,
                    block = receipt.block,
                    uids = weights.uids().len(),
                    extrinsic = %format_args!("0x{}", hex::encode(receipt.hash)),
                    "weights set"
                );
                metrics::counter!("weights_submissions_total", "status" => "included").increment(1);
                Ok(Some(receipt))
            }
            Err(error) => {
                let fate = match error {
                    ChainError::Unknown { .. } => Fate::Unconfirmed(error.to_string()),
                    _ => Fate::Rejected(error.to_string()),
                };
                let status = if matches!(fate, Fate::Unconfirmed(_)) { "unconfirmed" } else { "rejected" };
                self.settle(key, fate).await?;
                metrics::counter!("weights_submissions_total", "status" => status).increment(1);
                Err(error.into())
            }
        }
    }

    async fn settle(&self, key: SubmissionKey, fate: Fate) -> Result<(), StoreError> {
        self.store.settle_submission(key, &fate).await.map(drop)
    }

    /// The last submissions, newest first, after settling those whose fate the chain's `LastUpdate` tells: sent before
    /// it, they arrived.
    async fn settle_open(&self, last_update: Block) -> Result<Vec<SubmissionRow>, StoreError> {
        let history = self.store.last_submissions(REMEMBERED).await?;
        let newest_sent = history.iter().find(|submission| submission.status != SubmissionStatus::Skipped);
        if let Some(open) = newest_sent.filter(|submission| pace::is_open(submission) && last_update > submission.block)
        {
            self.settle(open.key, Fate::Included { block: last_update, extrinsic: None }).await?;
            tracing::info!(submission = open.key.0, block = last_update, "weights had arrived after all");
            return self.store.last_submissions(REMEMBERED).await;
        }
        Ok(history)
    }
}

/// Sets weights whenever it is time, until `stop`. Whatever forbids it is logged once until it changes; what a person
/// must mend is looked at again after a tempo, everything else at the next block.
pub async fn run(submitter: Submitter, stop: CancellationToken) {
    let Some(tempo_blocks) = submitter.settings.tempo_blocks else {
        tracing::info!("metagraph.weight_update_tempo is 0: no weights are set");
        return stop.cancelled().await;
    };
    let mut said = None;
    let mut block = 0;
    loop {
        let stepped = tokio::select! {
            () = stop.cancelled() => return,
            stepped = submitter.step() => stepped,
        };
        let due = match stepped {
            Ok(due) => {
                said = None;
                due
            }
            Err(error) => {
                complain(&error, &mut said);
                let refused = matches!(error, WeightsError::Chain(_)) && error.needs_a_person();
                if refused { block + tempo_blocks } else { block + 1 }
            }
        };
        let waited = tokio::select! {
            () = stop.cancelled() => return,
            head = submitter.chain.next_block(due.saturating_sub(1).max(block)) => head,
        };
        match waited {
            Ok(head) => block = head.block,
            Err(error) => {
                complain(&error.into(), &mut said);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
        }
    }
}

/// Logs an error unless it was the last thing said.
fn complain(error: &WeightsError, said: &mut Option<String>) {
    let text = error.to_string();
    if said.as_ref() == Some(&text) {
        return;
    }
    match error {
        error if error.needs_a_person() => tracing::error!(%error, "weights are not set"),
        WeightsError::NoRound | WeightsError::Vector(_) => tracing::info!(reason = %error, "no weights to set"),
        error => tracing::warn!(%error, "weights are not set; tried again"),
    }
    *said = Some(text);
}

/// Logs how far a vector is from the one before: half the sum of the differences of all shares, 0 to 1.
fn log_difference(weights: &Weights, history: &[SubmissionRow]) {
    if let Some(previous) = history.iter().find(|submission| submission.status == SubmissionStatus::Included) {
        let moved = vector::moved_share(&weights.pairs().collect::<Vec<_>>(), &previous.pairs());
        tracing::info!(moved, since = previous.key.0, "weights differ from the last ones");
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
