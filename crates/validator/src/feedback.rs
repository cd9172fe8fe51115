//! What a miner is told of its workers in the answer to a heartbeat: lease, last verdict, score, and why no challenge comes.
//!
//! Leases and verdicts are read by one statement per miner, at most once in [`FRESH`]; scores are those of the newest round,
//! which scoring leaves in memory. Told is only what is the miner's own, and nothing that a score or a schedule depends on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::feedback::{
    Lease, MAX_WORKERS, MinerFeedback, MinerScore, Outcome, Verdict, WorkerFeedback, WorkerScore, cut,
};
use byteleap_protocol::hotkey::Hotkey;

use crate::alarm::Limits;
use crate::challenge::Rules;
use crate::challenge::state::Status;
use crate::score::ScoredRound;
use crate::store::standing::{EndedChallenge, LeaseStanding, NewestChallenge, WorkerStanding};
use crate::store::{Store, StoreError};

/// What was read of a miner's workers is told again for so long: a miner that reports faster costs no more reading.
const FRESH: Duration = Duration::from_secs(10);

/// Tells miners how their workers stand. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feedback {
    store: Store,
    clock: Arc<dyn Clock>,
    rules: Live<Rules>,
    limits: Live<Limits>,
    newest_round: Live<Option<ScoredRound>>,
    read: Arc<Mutex<HashMap<Hotkey, Read>>>,
}

/// What was read of one miner's workers.
#[derive(Debug, Clone)]
struct Read {
    /// When, on the monotonic clock.
    at: Duration,
    standings: Arc<[WorkerStanding]>,
}

impl Feedback {
    /// Feedback by these rules; a lease is stale as [`Limits`] say, and scores are of the newest round.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        rules: Live<Rules>,
        limits: Live<Limits>,
        newest_round: Live<Option<ScoredRound>>,
    ) -> Self {
        Self { store, clock, rules, limits, newest_round, read: Arc::default() }
    }

    /// What this miner is told now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn for_miner(&self, hotkey: Hotkey) -> Result<MinerFeedback, StoreError> {
        let standings = self.standings(hotkey).await?;
        let (rules, round, now_ms) = (self.rules.get(), self.newest_round.get(), self.clock.unix_ms());
        let stale_after = self.limits.get().lease_stale_after;
        let stale_before_ms = now_ms - i64::try_from(stale_after.as_millis()).unwrap_or(i64::MAX);
        let round = round.as_ref().as_ref();
        let workers = standings.iter().map(|standing| WorkerFeedback {
            worker_id: standing.worker_id.clone(),
            lease: standing.lease.as_ref().map(|lease| lease_of(lease, stale_before_ms)),
            verdict: standing.ended.as_ref().and_then(verdict_of),
            score: round.and_then(|round| worker_score(round, hotkey, standing)),
            no_challenge: no_challenge(&rules, standing, now_ms).and_then(|reason| cut(&reason)),
            next_challenge_at_ms: standing.newest.as_ref().map(|newest| newest.created_at_ms + rules.interval_ms),
        });
        Ok(MinerFeedback { workers: workers.collect(), score: round.and_then(|round| miner_score(round, hotkey)) })
    }

    async fn standings(&self, hotkey: Hotkey) -> Result<Arc<[WorkerStanding]>, StoreError> {
        let now = self.clock.monotonic();
        let is_fresh = |read: &Read| now.saturating_sub(read.at) < FRESH;
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&hotkey).cloned();
        if let Some(read) = known.filter(is_fresh) {
            return Ok(read.standings);
        }
        let standings: Arc<[_]> = self.store.standings(hotkey, self.clock.unix_ms(), MAX_WORKERS).await?.into();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|_, read| is_fresh(read));
        read.insert(hotkey, Read { at: now, standings: Arc::clone(&standings) });
        Ok(standings)
    }
}

fn lease_of(lease: &LeaseStanding, stale_before_ms: i64) -> Lease {
    let leased = lease.score > 0.0;
    Lease {
        leased,
        changed_at_ms: lease.changed_at_ms,
        confirmed_at_ms: lease.received_at_ms,
        is_stale: leased && lease.received_at_ms < stale_before_ms,
    }
}

fn verdict_of(ended: &EndedChallenge) -> Option<Verdict> {
    let outcome = match ended.status {
        Status::Verified => Outcome::Verified,
        Status::Failed => Outcome::Failed,
        Status::Void => Outcome::Void,
        Status::Created | Status::Sent | Status::Committed | Status::Verifying => return None,
    };
    Some(Verdict {
        challenge_id: ended.id.clone(),
        kind: ended.kind.clone(),
        outcome,
        reason: ended.note.as_deref().and_then(cut),
        ended_at_ms: ended.finished_at_ms,
        units_ok: u32::try_from(ended.units_ok).unwrap_or(0),
        units: u32::try_from(ended.units).unwrap_or(0),
        compute_ms: ended.compute_ms,
        verify_ms: ended.verify_ms,
    })
}

fn worker_score(scored: &ScoredRound, hotkey: Hotkey, standing: &WorkerStanding) -> Option<WorkerScore> {
    let score = scored.worker(&hotkey, &standing.worker_id)?;
    Some(WorkerScore {
        round: scored.key.0,
        at_ms: scored.round.at_ms,
        performance: score.performance,
        attempts: score.attempts,
        successes: score.successes,
        zero: score.zero.as_ref().and_then(|zero| cut(&zero.to_string())),
    })
}

fn miner_score(scored: &ScoredRound, hotkey: Hotkey) -> Option<MinerScore> {
    let miner = scored.miner(&hotkey)?;
    Some(MinerScore {
        round: scored.key.0,
        at_ms: scored.round.at_ms,
        score: miner.score,
        weight: miner.weight,
        zero: miner.zero.as_ref().and_then(|zero| cut(&zero.to_string())),
    })
}

/// Why the scheduler passes this worker over (validator spec 4.2); none when it is a matter of time alone.
fn no_challenge(rules: &Rules, worker: &WorkerStanding, now_ms: i64) -> Option<String> {
    let offers = |kind: ChallengeKind| worker.capabilities.iter().any(|offered| offered == kind.as_str());
    let kinds = [ChallengeKind::CpuMatrix, ChallengeKind::GpuMatrix];
    let issued = || kinds.into_iter().filter(|kind| rules.kinds.include(*kind));
    if worker.over_limit {
        return Some("it is beyond the miner's 100 oldest active workers, and only these are challenged".to_owned());
    }
    if worker.lease.is_some_and(|lease| lease.score > 0.0) {
        return Some("it is leased: leased workers are not challenged".to_owned());
    }
    if !issued().any(offers) {
        let issued: Vec<_> = issued().map(ChallengeKind::as_str).collect();
        let offered =
            if worker.capabilities.is_empty() { "nothing".to_owned() } else { worker.capabilities.join(", ") };
        return Some(format!("it offers {offered}, and this validator issues {}", issued.join(", ")));
    }
    if let Some(NewestChallenge { id, status, .. }) = &worker.newest
        && let Some(what) = awaited(*status)
    {
        return Some(format!("challenge {id} waits for {what}"));
    }
    let asked_at_ms = worker.newest.as_ref().map_or(worker.first_seen_at_ms, |newest| newest.created_at_ms);
    let offers_gpus_alone = !issued().any(|kind| kind == ChallengeKind::CpuMatrix && offers(kind));
    (offers_gpus_alone && now_ms - asked_at_ms > 2 * rules.interval_ms).then(|| no_gpu(rules))
}

/// What a challenge waits for; none once it has ended.
fn awaited(status: Status) -> Option<&'static str> {
    match status {
        Status::Created => Some("the miner to fetch it"),
        Status::Sent => Some("its commitment"),
        Status::Committed => Some("its proof"),
        Status::Verifying => Some("its verdict"),
        Status::Verified | Status::Failed | Status::Void => None,
    }
}

fn no_gpu(rules: &Rules) -> String {
    match rules.gpu.model_allowlist.as_slice() {
        [] => "it offers GPUs alone, and none of them is known here: gpu_plugin of its reports names none".to_owned(),
        allowed => format!("none of its GPUs is of a model that this validator challenges: {}", allowed.join(", ")),
    }
}
