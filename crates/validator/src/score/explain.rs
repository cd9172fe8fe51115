//! One miner's score, told to a person: every number of the last round and the reason of every zero.
//!
//! Nothing is computed again: this renders what the round stored, as text (`Display`) or JSON (`Serialize`).

use std::fmt;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::presence::Availability;
use byteleap_scoring::rules::{AvailabilityScope, LeaseAggregate};
use byteleap_scoring::{MinerScore, Outcome, Rules, WorkerScore};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::store::challenge::MissedChallenge;
use crate::store::refusal::RefusalRow;
use crate::store::round::{RoundKey, RoundRow};
use crate::store::{Store, StoreError};

/// How many challenges that did not pass are told.
const MAX_MISSED: i64 = 50;

/// What a stored round says of one hotkey, and what it lately did wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Of whom.
    pub hotkey: Hotkey,
    /// The round.
    pub round: RoundKey,
    /// The instant of its facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// The block of the metagraph that it scored.
    pub block: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What it was computed by.
    pub rules: Rules,
    /// Successes that make full participation.
    pub baseline: f64,
    /// The largest raw challenge score of the round.
    pub max_raw: f64,
    /// The largest weight that the round pays, 0 when it pays nobody. A weight over it, in 65,535ths, goes on chain.
    pub top_weight: f64,
    /// The miner's score; none when it was not registered.
    pub miner: Option<MinerScore>,
    /// The scores of its workers.
    pub workers: Vec<WorkerScore>,
    /// Its newest challenges that did not pass, newest first.
    pub missed: Vec<MissedChallenge>,
    /// What it was refused, the latest reason first. Nothing of this is a penalty.
    pub refusals: Vec<RefusalRow>,
}

/// Reads what the newest round says of a hotkey; none when there is no round yet.
///
/// # Errors
/// The store cannot be read.
pub async fn explain(store: &Store, hotkey: Hotkey) -> Result<Option<Explanation>, StoreError> {
    let Some(round) = store.latest_round().await? else { return Ok(None) };
    let RoundRow { key, at_ms, block, rules, outcome, max_raw, .. } = round;
    let top_weight = store.shares_of(key).await?.iter().map(|share| share.weight).fold(0.0, f64::max);
    let miner = store.miner_score(key, hotkey).await?;
    let workers = store.worker_scores(key, hotkey).await?;
    let baseline = rules.windows().baseline();
    let missed = store.missed_challenges(hotkey, MAX_MISSED).await?;
    let refusals = store.refusals_of(hotkey).await?;
    Ok(Some(Explanation {
        hotkey,
        round: key,
        at_ms,
        block,
        outcome,
        rules,
        baseline,
        max_raw,
        top_weight,
        miner,
        workers,
        missed,
        refusals,
    }))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "miner         {}", self.hotkey)?;
        writeln!(
            f,
            "round         {} of {}, block {}, profile {}, {}",
            self.round.0,
            instant(self.at_ms),
            self.block,
            self.rules.profile().name,
            self.outcome
        )?;
        match &self.miner {
            Some(miner) => self.write_miner(f, miner)?,
            None => writeln!(f, "weight        0: this hotkey was not registered on the subnet, or never heard of")?,
        }
        writeln!(f, "workers       {}", self.workers.len())?;
        self.workers.iter().try_for_each(|worker| self.write_worker(f, worker))?;
        writeln!(f, "not passed    {} of the newest challenges", self.missed.len())?;
        for MissedChallenge { challenge_id, worker_id, status, finished_at_ms, code, note } in &self.missed {
            let at = instant(*finished_at_ms);
            writeln!(f, "  {at} {worker_id}: challenge {challenge_id} {status}, {code}: {note}")?;
        }
        writeln!(f, "refused       for {} reasons", self.refusals.len())?;
        for RefusalRow { code, times, note, last_at_ms } in &self.refusals {
            writeln!(f, "  {code}: {times} times, last {}: {note}", instant(*last_at_ms))?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_miner(&self, f: &mut fmt::Formatter<'_>, miner: &MinerScore) -> fmt::Result {
        let profile = self.rules.profile();
        writeln!(f, "uid           {} ({})", miner.uid, if miner.online { "online" } else { "offline" })?;
        writeln!(
            f,
            "weight        {:.6}: the score's share of all scores; the largest share is {:.6}",
            miner.weight, self.top_weight
        )?;
        let factor = match profile.availability_scope {
            AvailabilityScope::MinerComposite => format!(" x availability {:.6}", miner.availability),
            AvailabilityScope::WorkerChallenge | AvailabilityScope::None => String::new(),
        };
        writeln!(f, "score         {:.6} = composite {:.6}{factor}{}", miner.score, miner.composite, why(&miner.zero))?;
        writeln!(
            f,
            "composite     {:.6} = {} x lease {:.6} + {} x challenge {:.6}",
            miner.composite, profile.lease_weight, miner.lease.value, profile.challenge_weight, miner.challenge
        )?;
        let divisor = match profile.lease_aggregate {
            LeaseAggregate::Sum => "largest of the round",
            LeaseAggregate::Ratio => "workers",
        };
        writeln!(
            f,
            "lease         {:.6} = {} over {} ({divisor}), {} workers counted{}",
            miner.lease.value,
            miner.lease.sum,
            miner.lease.divisor,
            miner.lease.workers,
            why(&miner.lease.zero)
        )?;
        writeln!(
            f,
            "challenge     {:.6}: raw {:.6} of at most {:.6} = {:.6}{}",
            miner.challenge,
            miner.raw,
            self.max_raw,
            miner.norm,
            why(&miner.challenge_zero)
        )?;
        writeln!(f, "availability  {}", presence(&miner.presence))
    }

    fn write_worker(&self, f: &mut fmt::Formatter<'_>, worker: &WorkerScore) -> fmt::Result {
        write!(
            f,
            "  {}: performance {:.6}, {} of {} challenges passed, participation {:.3} (full at {})",
            worker.worker_id,
            worker.performance,
            worker.successes,
            worker.attempts,
            worker.participation,
            self.baseline
        )?;
        if let Some(mean_ms) = worker.mean_ms {
            write!(f, ", {mean_ms:.1} ms each")?;
        }
        if let Some(rank) = worker.rank {
            write!(f, ", rank {} of {}", rank.better.saturating_add(1), rank.of)?;
        }
        if worker.foreign > 0 {
            write!(f, ", {} ignored for a GPU that is not this miner's", worker.foreign)?;
        }
        if worker.performance > 0.0 && !worker.counted {
            write!(f, ", not among the 100 that count")?;
        }
        writeln!(f, ", availability {}{}", presence(&worker.availability), why(&worker.zero))
    }
}

/// The reason of a zero, as the end of a line.
fn why(reason: &Option<impl fmt::Display>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn presence(availability: &Availability) -> String {
    format!(
        "{:.6} = {} of {} five-minute buckets x {} for {} address changes",
        availability.value,
        availability.present,
        availability.expected,
        availability.address_factor,
        availability.address_changes
    )
}

/// A moment in RFC 3339; the bare number where it is no date.
pub fn instant(at_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| at_ms.to_string())
}
