//! One miner's score, told to a person: every number of a round and the reason of every zero, what changed since the round
//! before, and what would raise it.
//!
//! What a round gave is rendered as it was stored, as text (`Display`) or JSON (`Serialize`). Only what would raise it is
//! computed, by weighing the stored round again with one thing better.

use std::fmt;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::presence::Availability;
use byteleap_scoring::rules::{AvailabilityScope, LeaseAggregate};
use byteleap_scoring::{Measures, MinerScore, Outcome, Raise, Remedy, Rules, WorkerScore, raises};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::change::{Change, Part, changes};
use super::on_chain::Value;
use crate::counted::counted;
use crate::store::challenge::{FailedUnit, MissedChallenge};
use crate::store::gpu::GpuRow;
use crate::store::refusal::RefusalRow;
use crate::store::round::{Lost, RoundKey, RoundRow};
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
    /// The largest weight that the round pays, 0 when it pays nobody.
    pub top_weight: f64,
    /// What of it goes on chain.
    pub value: Value,
    /// The miner's score; none when it was not registered.
    pub miner: Option<MinerScore>,
    /// The scores of its workers; empty also where they are lost.
    pub workers: Vec<WorkerScore>,
    /// Why the workers of this round are not known, if they are not.
    pub lost: Option<Lost>,
    /// The GPUs that it holds.
    pub gpus: Vec<GpuRow>,
    /// Those that lately failed in a challenge, newest first.
    pub failed_units: Vec<FailedUnit>,
    /// Its newest challenges that did not pass, newest first.
    pub missed: Vec<MissedChallenge>,
    /// What it was refused, the latest reason first. Nothing of this is a penalty.
    pub refusals: Vec<RefusalRow>,
    /// What changed since the round before; none when there is no such round.
    pub since: Option<Since>,
    /// What would have raised its weight in this round, the largest gain first; none where its workers are lost.
    pub raises: Option<Vec<Raise>>,
}

/// A comparison with the round before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Since {
    /// That round.
    pub round: RoundKey,
    /// The instant of its facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// What differs; none where the miner's workers of either round are lost.
    pub changes: Option<Vec<Change>>,
}

/// Reads what the newest round says of a hotkey; none when there is no round yet.
///
/// # Errors
/// The store cannot be read.
pub async fn explain(store: &Store, hotkey: Hotkey) -> Result<Option<Explanation>, StoreError> {
    match store.latest_round().await? {
        Some(round) => explain_round(store, hotkey, round).await.map(Some),
        None => Ok(None),
    }
}

/// Reads what a round says of a hotkey.
///
/// # Errors
/// The store cannot be read.
pub async fn explain_round(store: &Store, hotkey: Hotkey, round: RoundRow) -> Result<Explanation, StoreError> {
    let (raises, lost) = match store.whole_round(&round).await? {
        Ok(whole) => {
            let weigh = move || raises(whole.rules.profile(), &Measures::of(&whole), &hotkey);
            (Some(tokio::task::spawn_blocking(weigh).await.unwrap_or_default()), None)
        }
        Err(lost) => (None, Some(lost)),
    };
    let before = store.round_before(round.key).await?;
    let RoundRow { key, at_ms, block, rules, outcome, max_raw, .. } = round;
    let shares = store.shares_of(key).await?;
    let top_weight = shares.iter().map(|share| share.weight).fold(0.0, f64::max);
    let miner = store.miner_score(key, hotkey).await?;
    let value = Value::read(store, key, hotkey, miner.as_ref(), &shares).await?;
    let workers = store.worker_scores(key, hotkey).await?;
    let baseline = rules.windows().baseline();
    let gpus = store.gpus_of(hotkey).await?;
    let failed_units = store.failed_units(hotkey, MAX_MISSED).await?;
    let missed = store.missed_challenges(hotkey, MAX_MISSED).await?;
    let refusals = store.refusals_of(hotkey).await?;
    let part = (miner, workers);
    let since = match before {
        Some(before) => Some(since(store, hotkey, before, &part, lost).await?),
        None => None,
    };
    let (miner, workers) = part;
    Ok(Explanation {
        hotkey,
        round: key,
        at_ms,
        block,
        outcome,
        rules,
        baseline,
        max_raw,
        top_weight,
        value,
        miner,
        workers,
        lost,
        gpus,
        failed_units,
        missed,
        refusals,
        since,
        raises,
    })
}

async fn since(
    store: &Store,
    hotkey: Hotkey,
    before: RoundRow,
    now: &Part,
    lost: Option<Lost>,
) -> Result<Since, StoreError> {
    let miner = store.miner_score(before.key, hotkey).await?;
    let workers = store.worker_scores(before.key, hotkey).await?;
    let is_known =
        (lost.is_none() || !now.1.is_empty()) && (!workers.is_empty() || store.lost_of(&before).await?.is_none());
    let changes = is_known.then(|| changes(&(miner, workers), now));
    Ok(Since { round: before.key, at_ms: before.at_ms, changes })
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
        match self.lost {
            Some(lost) if self.workers.is_empty() => writeln!(f, "workers       not known of this round: {lost}")?,
            _ => writeln!(f, "workers       {}", self.workers.len())?,
        }
        self.workers.iter().try_for_each(|worker| self.write_worker(f, worker))?;
        self.write_gpus(f)?;
        self.write_since(f)?;
        self.write_raises(f)?;
        writeln!(f, "not passed    {} of the newest challenges", self.missed.len())?;
        for MissedChallenge { challenge_id, worker_id, status, finished_at_ms, code, note } in &self.missed {
            let at = instant(*finished_at_ms);
            writeln!(f, "  {at} {worker_id}: challenge {challenge_id} {status}, {code}: {note}")?;
        }
        match self.refusals.len() {
            0 => writeln!(f, "refused       nothing")?,
            reasons => writeln!(f, "refused       for {}", counted(reasons, "reason"))?,
        }
        for RefusalRow { code, times, note, last_at_ms } in &self.refusals {
            writeln!(f, "  {code}: {}, last {}: {note}", counted(*times, "time"), instant(*last_at_ms))?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_since(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Since { round, at_ms, changes }) = &self.since else {
            return writeln!(f, "changed       nothing to compare with: there is no round before it");
        };
        let before = format!("round {} of {}", round.0, instant(*at_ms));
        let Some(changes) = changes else {
            return writeln!(f, "changed       not known: the workers of this round or of {before} are lost");
        };
        writeln!(f, "changed       {} since {before}", counted(changes.len(), "factor"))?;
        changes.iter().try_for_each(|change| writeln!(f, "  {change}"))
    }

    fn write_raises(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.raises.as_deref() {
            None => writeln!(f, "would raise   not known of this round"),
            Some([]) => writeln!(f, "would raise   nothing alone would have raised the weight"),
            Some(raises) => {
                writeln!(f, "would raise   {} alone would have raised the weight", counted(raises.len(), "thing"))?;
                raises.iter().try_for_each(|raise| write_raise(f, raise))
            }
        }
    }

    fn write_miner(&self, f: &mut fmt::Formatter<'_>, miner: &MinerScore) -> fmt::Result {
        let profile = self.rules.profile();
        writeln!(f, "uid           {} ({})", miner.uid, if miner.online { "online" } else { "offline" })?;
        self.value.write(f, self.round)?;
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
            "lease         {:.6} = {} over {} ({divisor}), {} counted{}",
            miner.lease.value,
            miner.lease.sum,
            miner.lease.divisor,
            counted(miner.lease.workers, "worker"),
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
            "  {}: performance {:.6}, {} of {} challenges passed, participation {:.3} (full at {:.1})",
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

impl Explanation {
    fn write_gpus(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "gpus          {}", self.gpus.len())?;
        for GpuRow { uuid, worker_id, model, last_seen_at_ms, contested_at_ms, passed, failed } in &self.gpus {
            let (model, seen) = (model.as_deref().unwrap_or("model unknown"), instant(*last_seen_at_ms));
            write!(f, "  {uuid} of {worker_id}: {model}, {passed} passed, {failed} failed, last reported {seen}")?;
            if let Some(at_ms) = contested_at_ms {
                write!(f, ", also claimed by another worker, last {}", instant(*at_ms))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "gpus failed   {} of the newest", self.failed_units.len())?;
        for FailedUnit { challenge_id, worker_id, gpu, finished_at_ms, code, note } in &self.failed_units {
            writeln!(
                f,
                "  {} {worker_id}: {gpu} in challenge {challenge_id}, {code}: {note}",
                instant(*finished_at_ms)
            )?;
        }
        Ok(())
    }
}

fn write_raise(f: &mut fmt::Formatter<'_>, raise: &Raise) -> fmt::Result {
    write!(f, "  +{:.6} (to {:.6}): ", raise.gain, raise.weight)?;
    let who = raise.worker_id.as_ref().map_or_else(|| "the miner".to_owned(), ToString::to_string);
    let hours = |buckets: &u32| f64::from(*buckets) / 12.0;
    match &raise.remedy {
        Remedy::ComeOnline => writeln!(f, "{who} is offline: a heartbeat"),
        Remedy::FullPresence { absent, of } => {
            writeln!(f, "{who} was absent {:.1} of {:.1} hours: full presence", hours(absent), hours(of))
        }
        Remedy::SteadyAddress { changes } => {
            writeln!(f, "{who} changed its public address {}: one that stays", counted(*changes, "time"))
        }
        Remedy::PassAll { failed, of } => writeln!(f, "{who} failed {failed} of {of} challenges: all of them passed"),
        Remedy::FullParticipation { passed, of } => {
            writeln!(f, "{who} passed {passed} challenges: {of}, which is full participation")
        }
        Remedy::HoldGpus { ignored } => {
            let challenges = counted(*ignored, "challenge");
            writeln!(f, "{who} named a GPU that is not this miner's in {challenges}: its own GPUs")
        }
        Remedy::BeSeen => writeln!(f, "{who} is leased and was not seen for 30 minutes: a heartbeat"),
        Remedy::BeWithinLimit => writeln!(f, "{who} is beyond the 100 oldest workers: a place among them"),
        Remedy::Lease => writeln!(f, "{who} has no lease: one of score 1"),
    }
}

/// The reason of a zero, as the end of a line.
fn why(reason: &Option<impl fmt::Display>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn presence(availability: &Availability) -> String {
    format!(
        "{:.6} = {} of {} x {} for {}",
        availability.value,
        availability.present,
        counted(availability.expected, "five-minute bucket"),
        availability.address_factor,
        counted(availability.address_changes, "address change")
    )
}

/// A moment in RFC 3339; the bare number where it is no date.
pub fn instant(at_ms: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| at_ms.to_string())
}
