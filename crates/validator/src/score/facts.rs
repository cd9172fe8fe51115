//! The facts of one instant, out of one snapshot of the store: miners with their workers, leases, verdicts, presence and
//! addresses.
//!
//! A verdict never changes and neither does a day that is over, so a validator keeps both from round to round ([`Known`])
//! and a round reads only what came since.

use std::collections::HashMap;

use byteleap_chain::Metagraph;
use byteleap_scoring::facts::{ChallengeFacts, ComputeTime, Facts, LeaseScore, MinerFacts, PresenceDay, WorkerFacts};
use byteleap_scoring::presence::{BUCKET_MS, Bucket, DayBits};
use byteleap_scoring::rules::Windows;

use crate::store::heartbeat::MINER_DEADLINE_MS;
use crate::store::presence::PresenceRow;
use crate::store::snapshot::{OutcomeRow, SeenWorker, Snapshot};
use crate::store::{Store, StoreError, WorkerKey};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// A day that has been over for so long gets no heartbeat any more.
const LATE_HEARTBEAT_MS: i64 = HOUR_MS;
/// A validator whose rounds are no further apart was there in between.
const ROUND_GAP_MS: i64 = 3 * BUCKET_MS;

/// What is known from earlier rounds and cannot change.
#[derive(Debug, Default)]
pub struct Known {
    /// The windows that it was read by: others reach further back.
    windows: Option<Windows>,
    /// Challenges with a verdict, by worker and number.
    outcomes: HashMap<WorkerKey, Vec<(i64, ChallengeFacts)>>,
    /// Every challenge of a smaller number has its verdict, and is among `outcomes` while it counts.
    settled: Option<i64>,
    /// Presence, by worker.
    presence: HashMap<WorkerKey, Vec<PresenceDay>>,
    /// Every day before this is over, and among `presence` while it counts.
    first_open_day: Option<i64>,
}

/// Reads everything that a round at `now_ms` may look at, as of one instant.
///
/// # Errors
/// The store cannot be read, or holds what is no fact.
pub async fn gather(
    store: &Store,
    known: &mut Known,
    metagraph: &Metagraph,
    windows: &Windows,
    now_ms: i64,
) -> Result<Facts, StoreError> {
    if known.windows.as_ref() != Some(windows) {
        *known = Known { windows: Some(windows.clone()), ..Known::default() };
    }
    let ranked_since_ms = now_ms - i64::from(windows.ranking_minutes) * MINUTE_MS;
    let present_since_ms = now_ms - i64::from(windows.availability_hours) * HOUR_MS;
    let mut snapshot = store.snapshot().await?;
    known.learn_outcomes(&mut snapshot, ranked_since_ms).await?;
    known.learn_presence(&mut snapshot, present_since_ms, now_ms).await?;

    let gpus = snapshot.gpu_owners(ranked_since_ms).await?;
    let scoring = buckets_between(&snapshot.rounds_since(present_since_ms).await?, now_ms);
    let mut facts = Facts { now_ms, gpus, scoring, ..Facts::default() };
    for (hotkey, last_heartbeat_at_ms) in snapshot.miners().await? {
        let uid = metagraph.by_hotkey(&hotkey).map(|neuron| neuron.uid);
        let online = last_heartbeat_at_ms.is_some_and(|at| at >= now_ms - MINER_DEADLINE_MS);
        facts.miners.insert(hotkey, MinerFacts { uid, online, ..MinerFacts::default() });
    }
    let changes: HashMap<WorkerKey, u32> = snapshot.address_changes(present_since_ms).await?.into_iter().collect();
    for worker in snapshot.workers().await? {
        let SeenWorker { key, hotkey, worker_id, last_heartbeat_at_ms, over_limit, lease } = worker;
        let Some(miner) = facts.miners.get_mut(&hotkey) else { continue };
        let outcomes = known.outcomes.get(&key).into_iter().flatten();
        let facts = WorkerFacts {
            last_seen_ms: Some(last_heartbeat_at_ms),
            over_limit,
            lease: lease.map(lease_of).transpose()?.unwrap_or_default(),
            challenges: outcomes.map(|(_, challenge)| challenge.clone()).collect(),
            presence: known.presence.get(&key).cloned().unwrap_or_default(),
            address_changes: changes.get(&key).copied().unwrap_or(0),
        };
        miner.workers.insert(worker_id, facts);
    }
    Ok(facts)
}

impl Known {
    /// Reads the verdicts that came since, and those that may still come again.
    async fn learn_outcomes(&mut self, snapshot: &mut Snapshot, since_ms: i64) -> Result<(), StoreError> {
        let first_open = snapshot.first_open_challenge().await?;
        let settled = match self.settled {
            // Numbers start anew in a table that was emptied.
            Some(settled) if settled <= first_open => settled,
            _ => {
                self.outcomes.clear();
                snapshot.first_outcome_since(since_ms).await?.unwrap_or(first_open)
            }
        };
        self.outcomes.retain(|_, outcomes| {
            outcomes.retain(|(id, challenge)| *id < settled && challenge.created_at_ms >= since_ms);
            !outcomes.is_empty()
        });
        let mut next = Some(settled);
        while let Some(first) = next {
            let page;
            (page, next) = snapshot.outcomes_from(first, since_ms).await?;
            for row in page {
                self.outcomes.entry(row.worker).or_default().push((row.id, challenge_of(row)));
            }
        }
        self.settled = Some(first_open);
        Ok(())
    }

    /// Reads the days that are not over, and at first all of the window.
    async fn learn_presence(&mut self, snapshot: &mut Snapshot, since_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let (first, last) = (Bucket::at(since_ms).day(), Bucket::at(now_ms).day());
        let open = self.first_open_day.unwrap_or(first).max(first);
        self.presence.retain(|_, days| {
            days.retain(|day| (first..open).contains(&day.day));
            !days.is_empty()
        });
        for day in open..=last {
            for PresenceRow { worker, day, gpus, bits } in snapshot.presence_on(day).await? {
                self.presence.entry(worker).or_default().push(PresenceDay { day, gpus, buckets: bits });
            }
        }
        self.first_open_day = Some(Bucket::at(now_ms - LATE_HEARTBEAT_MS).day());
        Ok(())
    }
}

fn lease_of(score: f64) -> Result<LeaseScore, StoreError> {
    LeaseScore::new(score).map_err(|_| StoreError::Corrupt { table: "leases", what: "score", value: score.to_string() })
}

/// A challenge as scoring counts it. One during which our clock went back took no known time.
fn challenge_of(row: OutcomeRow) -> ChallengeFacts {
    ChallengeFacts {
        created_at_ms: row.created_at_ms,
        passed: row.verified,
        time: row.compute_ms.and_then(|ms| ComputeTime::from_ms(ms).ok()),
        units: u32::try_from(row.units_ok).unwrap_or(0),
        gpus: row.gpus,
    }
}

/// The buckets, by day, in which rounds show that this validator was there, up to now.
fn buckets_between(rounds_ms: &[i64], now_ms: i64) -> Vec<(i64, DayBits)> {
    let mut days: Vec<(i64, DayBits)> = Vec::new();
    let ends = rounds_ms.iter().skip(1).copied().chain([now_ms]);
    for (from_ms, to_ms) in rounds_ms.iter().copied().zip(ends) {
        let to_ms = if to_ms - from_ms <= ROUND_GAP_MS { to_ms } else { from_ms };
        for at_ms in (from_ms..=to_ms).step_by(BUCKET_MS as usize).chain([to_ms]) {
            let bucket = Bucket::at(at_ms);
            match days.last_mut() {
                Some((day, buckets)) if *day == bucket.day() => buckets.insert(bucket),
                _ => {
                    let mut buckets = DayBits::EMPTY;
                    buckets.insert(bucket);
                    days.push((bucket.day(), buckets));
                }
            }
        }
    }
    days
}
