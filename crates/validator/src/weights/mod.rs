//! From a stored round to weights on the chain.
//!
//! [`Preparer`] reads round and chain, and [`vector`] turns the round's shares into what the chain accepts at this block;
//! [`pace`] says from which block on it may be sent; [`Submitter::submit`] writes the vector down, sends it and writes down
//! its fate; [`run`] does this whenever it is time. [`report`] shows it to a person, [`diff`] holds it against what others
//! say. Only who sends needs the wallet.
//!
//! A submission is one immutable object: round, block, uids, values and version key, stored before it is sent. What was
//! sent and not seen again is never sent twice blindly: the chain's `LastUpdate` tells whether it arrived.

pub mod diff;
pub mod pace;
pub mod report;
pub mod vector;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::{Block, Chain, ChainError, Hotkey, Metagraph, Neuron, Receipt, Rules, Signer, Weights};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use tokio_util::sync::CancellationToken;

use crate::config::WeightSettings;
use crate::score::replay::ReplayError;
use crate::store::round::RoundRow;
use crate::store::submission::{Fate, NewSubmission, SubmissionKey, SubmissionRow, SubmissionStatus, Terms};
use crate::store::{Store, StoreError};

pub use vector::VectorError;

/// How long to wait after the chain could not be asked.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long a step may go on after the stop; within the deadline of the process.
const LAST_STEP: Duration = Duration::from_secs(15);
/// How many of the last submissions decide when the next may be sent, and are shown.
const REMEMBERED: i64 = 20;
/// How many of those that a new vector moves most are named in the log.
const MOVERS: usize = 5;

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
    NotRegistered(Hotkey),
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
    /// The chain reports them as set, and its state says otherwise.
    #[error(
        "the chain reports weights as set in block {0}, but LastUpdate does not show them: check subtensor.network, they \
         are sent again once they can no longer arrive"
    )]
    NotShown(Block),
    /// The round pays nobody that can be paid.
    #[error(transparent)]
    Vector(#[from] VectorError),
}

impl WeightsError {
    /// Whether a person must act before the next attempt can succeed.
    fn needs_a_person(&self) -> bool {
        match self {
            Self::RoundTooOld(_) | Self::NotRegistered(_) | Self::NoPermit => true,
            Self::VersionKey { .. } | Self::NotShown(_) => true,
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
    /// What it was made by.
    pub terms: Terms,
}

/// Prepares the vectors of one hotkey.
#[derive(Clone)]
pub struct Preparer {
    /// Where rounds come from and submissions are kept.
    pub store: Store,
    /// Where they go.
    pub chain: Arc<dyn Chain>,
    /// Whose they are.
    pub own: Hotkey,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The subnet.
    pub netuid: u16,
    /// How.
    pub settings: WeightSettings,
}

/// Sets weights for the hotkey that signs.
#[derive(Clone)]
pub struct Submitter {
    preparer: Preparer,
    signer: Arc<dyn Signer>,
}

/// What the chain says at one moment.
struct View {
    metagraph: Metagraph,
    rules: Rules,
}

impl Preparer {
    /// Sends what this prepares, signed by `signer`, whose hotkey it then is for.
    pub fn signed_by(mut self, signer: Arc<dyn Signer>) -> Submitter {
        self.own = signer.hotkey();
        Submitter { preparer: self, signer }
    }

    /// Builds the vector that would be sent now.
    ///
    /// # Errors
    /// Whatever forbids to send one.
    pub async fn prepare(&self) -> Result<Prepared, WeightsError> {
        self.prepare_at(&self.view().await?).await
    }

    async fn view(&self) -> Result<View, ChainError> {
        // The metagraph last: its block is the newer one, and uids matter more than limits.
        let rules = self.chain.rules(self.netuid).await?;
        Ok(View { metagraph: self.chain.metagraph(self.netuid).await?, rules })
    }

    fn own<'a>(&self, metagraph: &'a Metagraph) -> Result<&'a Neuron, WeightsError> {
        metagraph.by_hotkey(&self.own).ok_or(WeightsError::NotRegistered(self.own))
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
        let vector::Built { weights, terms } = built;
        Ok(Prepared { round, block: metagraph.block, weights, terms })
    }
}

impl Submitter {
    /// Builds and sends a vector now, whatever the tempo; the chain's own rate limit holds. `None` in a dry run.
    ///
    /// # Errors
    /// Whatever forbids to send one, and the chain's refusal.
    pub async fn submit(&self) -> Result<(Prepared, Option<Receipt>), WeightsError> {
        let prepared = self.preparer.prepare().await?;
        let receipt = self.send(&prepared).await?;
        Ok((prepared, receipt))
    }

    /// Sends a vector if it is time, and answers from which block on to look again.
    ///
    /// # Errors
    /// Whatever forbids to send one, and the chain's refusal.
    pub async fn step(&self) -> Result<Block, WeightsError> {
        let Preparer { settings, .. } = &self.preparer;
        let view = self.preparer.view().await?;
        let own = self.preparer.own(&view.metagraph)?;
        let mut history = self.settle_open(own.last_update).await?;
        // Dry runs pace one another; they do not hold back what is really sent.
        history.retain(|submission| settings.dry_run || submission.status != SubmissionStatus::Skipped);
        let now = view.metagraph.block;
        let Some(tempo_blocks) = settings.tempo_blocks else { return Ok(Block::MAX) };
        let due = pace::due_block(own.last_update, now, &view.rules, tempo_blocks, &history);
        if now < due {
            return Ok(due);
        }
        let prepared = self.preparer.prepare_at(&view).await?;
        log_difference(&prepared.weights, &history);
        self.send(&prepared).await?;
        Ok(now + 1)
    }

    /// Writes the vector down, sends it, and writes down its fate.
    async fn send(&self, prepared: &Prepared) -> Result<Option<Receipt>, WeightsError> {
        let Prepared { round, block, weights, terms } = prepared;
        let Preparer { store, chain, clock, netuid, settings, .. } = &self.preparer;
        let (dry_run, at_ms) = (settings.dry_run, clock.unix_ms());
        let submission = NewSubmission { round: round.key, block: *block, weights, terms, dry_run, at_ms };
        failpoint::reach("validator.submission.before");
        let key = store.record_submission(submission).await?;
        failpoint::reach("validator.submission.after");
        if dry_run {
            tracing::info!(round = round.key.0, block, uids = weights.uids().len(), "dry run: weights not sent");
            return Ok(None);
        }
        match chain.set_weights(*netuid, weights, self.signer.as_ref()).await {
            Ok(receipt) => {
                let fate = self.confirmed(receipt).await;
                let status = fate.status();
                metrics::counter!("weights_submissions_total", "status" => status.as_str()).increment(1);
                failpoint::reach("validator.fate.before");
                self.settle(key, fate).await?;
                failpoint::reach("validator.fate.after");
                if status != SubmissionStatus::Included {
                    return Err(WeightsError::NotShown(receipt.block));
                }
                tracing::info!(
                    round = round.key.0,
                    block = receipt.block,
                    uids = weights.uids().len(),
                    extrinsic = %format_args!("0x{}", hex::encode(receipt.hash)),
                    "weights set"
                );
                Ok(Some(receipt))
            }
            Err(error) => {
                let fate = match error {
                    ChainError::Unknown { .. } => Fate::Unconfirmed(error.to_string()),
                    _ => Fate::Rejected(error.to_string()),
                };
                metrics::counter!("weights_submissions_total", "status" => fate.status().as_str()).increment(1);
                self.settle(key, fate).await?;
                Err(error.into())
            }
        }
    }

    /// Reads `LastUpdate` back after the chain reported success. What a later block of the same chain does not show has
    /// not happened; an answer that is older, or none, leaves the receipt as it is.
    async fn confirmed(&self, Receipt { block, hash, reveal_round }: Receipt) -> Fate {
        let included = Fate::Included { block, extrinsic: Some(hash), reveal_round };
        match self.preparer.chain.metagraph(self.preparer.netuid).await {
            Ok(metagraph) if metagraph.block >= block => {
                let last_update = metagraph.by_hotkey(&self.preparer.own).map(|own| own.last_update);
                if last_update.is_some_and(|last_update| last_update >= block) {
                    return included;
                }
                tracing::debug!(block, last_update, "no weights there");
                Fate::Unconfirmed(format!("reported as included in block {block}, but LastUpdate does not show it"))
            }
            Ok(_) => included,
            Err(error) => {
                tracing::warn!(%error, "weights are in a finalised block; they could not be read back");
                included
            }
        }
    }

    async fn settle(&self, key: SubmissionKey, fate: Fate) -> Result<(), StoreError> {
        self.preparer.store.settle_submission(key, &fate).await.map(drop)
    }

    /// The last submissions, newest first, after settling those whose fate the chain's `LastUpdate` tells: sent before
    /// it, they arrived.
    async fn settle_open(&self, last_update: Block) -> Result<Vec<SubmissionRow>, StoreError> {
        let history = self.preparer.store.last_submissions(REMEMBERED).await?;
        let newest_sent = history.iter().find(|submission| submission.status != SubmissionStatus::Skipped);
        if let Some(open) = newest_sent.filter(|submission| pace::is_open(submission) && last_update > submission.block)
        {
            self.settle(open.key, Fate::Included { block: last_update, extrinsic: None, reveal_round: None }).await?;
            tracing::info!(submission = open.key.0, block = last_update, "weights had arrived after all");
            return self.preparer.store.last_submissions(REMEMBERED).await;
        }
        Ok(history)
    }
}

/// Sets weights whenever it is time, until `stop`. Whatever forbids it is logged once until it changes; what a person
/// must mend is looked at again after a tempo, everything else at the next block.
pub async fn run(submitter: Submitter, stop: CancellationToken) {
    let Some(tempo_blocks) = submitter.preparer.settings.tempo_blocks else {
        tracing::info!("metagraph.weight_update_tempo is 0: no weights are set");
        return stop.cancelled().await;
    };
    let mut said = None;
    let mut block = 0;
    loop {
        let mut step = pin!(submitter.step());
        let stepped = tokio::select! {
            stepped = &mut step => stepped,
            // What is on its way is seen to its end, within the time that a stop has.
            () = stop.cancelled() => return drop(tokio::time::timeout(LAST_STEP, step).await),
        };
        let due = match stepped {
            Ok(due) => {
                said = None;
                due
            }
            Err(error) => {
                complain(&error, &mut said);
                again_at(&error, block, tempo_blocks)
            }
        };
        let waited = tokio::select! {
            () = stop.cancelled() => return,
            head = submitter.preparer.chain.next_block(due.saturating_sub(1).max(block)) => head,
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

/// The block at which to try again after an error. What the chain refused for good is not repeated within a tempo, since
/// time alone does not mend it.
fn again_at(error: &WeightsError, block: Block, tempo_blocks: u64) -> Block {
    let refused = matches!(error, WeightsError::Chain(_)) && error.needs_a_person();
    block.saturating_add(if refused { tempo_blocks } else { 1 })
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

/// Logs how far a vector is from the last that arrived, half the sum of the differences of all shares, and who moved most.
fn log_difference(weights: &Weights, history: &[SubmissionRow]) {
    if let Some(previous) = history.iter().find(|submission| submission.status == SubmissionStatus::Included) {
        let (ours, theirs) = (weights.pairs().collect::<Vec<_>>(), previous.pairs());
        let moved = format!("{:.4}%", 100.0 * vector::moved_share(&ours, &theirs));
        tracing::info!(
            moved,
            movers = movers(&ours, &theirs),
            since = previous.key.0,
            "weights differ from the last ones"
        );
    }
}

/// Who gained and lost most between two vectors, as `uid 3 +12.0000%, uid 7 -4.5000%`; empty when nobody did.
fn movers(new: &[(u16, u16)], old: &[(u16, u16)]) -> String {
    let moved = vector::differences(new, old).into_iter().filter(|(_, difference)| *difference != 0.0);
    let named = moved.take(MOVERS).map(|(uid, difference)| format!("uid {uid} {:+.4}%", 100.0 * difference));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
