//! The facts of one instant, out of the store: miners with their workers, leases, verdicts, presence and addresses.
//!
//! The reads follow one another: what arrives between them belongs to this instant or to the next round, and a row of a
//! worker that was not read yet waits for that round.

use std::collections::HashMap;

use byteleap_chain::Metagraph;
use byteleap_protocol::id::GpuUuid;
use byteleap_scoring::facts::{ChallengeFacts, ComputeTime, Facts, LeaseScore, MinerFacts, PresenceDay, WorkerFacts};
use byteleap_scoring::rules::Windows;

use crate::store::challenge::OutcomeRow;
use crate::store::heartbeat::MINER_DEADLINE_MS;
use crate::store::presence::PresenceRow;
use crate::store::round::WorkerKeys;
use crate::store::{Store, StoreError, WorkerKey};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Reads everything that a round at `now_ms` may look at, and the rows of the workers in it.
///
/// # Errors
/// The store cannot be read, or holds what is no fact.
pub async fn gather(
    store: &Store,
    metagraph: &Metagraph,
    windows: &Windows,
    now_ms: i64,
) -> Result<(Facts, WorkerKeys), StoreError> {
    let mut keys = WorkerKeys::new();
    let mut workers: HashMap<WorkerKey, WorkerFacts> = HashMap::new();
    for row in store.workers().await? {
        keys.insert((row.hotkey, row.worker_id), row.key);
        let seen = WorkerFacts {
            last_seen_ms: Some(row.last_heartbeat_at_ms),
            over_limit: row.over_limit,
            ..Default::default()
        };
        workers.insert(row.key, seen);
    }
    add_leases(store, &keys, &mut workers).await?;
    let ranked_since_ms = now_ms - i64::from(windows.ranking_minutes) * MINUTE_MS;
    add_challenges(store, ranked_since_ms, &mut workers).await?;
    add_presence(store, now_ms - i64::from(windows.availability_hours) * HOUR_MS, &mut workers).await?;

    let gpus = store.gpu_owners(ranked_since_ms).await?;
    let mut facts = Facts { now_ms, gpus, ..Facts::default() };
    for row in store.miners().await? {
        let uid = metagraph.by_hotkey(&row.hotkey).map(|neuron| neuron.uid);
        let online = row.last_heartbeat_at_ms.is_some_and(|at| at >= now_ms - MINER_DEADLINE_MS);
        facts.miners.insert(row.hotkey, MinerFacts { uid, online, ..MinerFacts::default() });
    }
    for ((hotkey, worker_id), key) in &keys {
        if let (Some(miner), Some(worker)) = (facts.miners.get_mut(hotkey), workers.remove(key)) {
            miner.workers.insert(worker_id.clone(), worker);
        }
    }
    Ok((facts, keys))
}

async fn add_leases(
    store: &Store,
    keys: &WorkerKeys,
    workers: &mut HashMap<WorkerKey, WorkerFacts>,
) -> Result<(), StoreError> {
    for row in store.leases().await? {
        let key = keys.get(&(row.hotkey, row.worker_id));
        if let Some(worker) = key.and_then(|key| workers.get_mut(key)) {
            worker.lease = LeaseScore::new(row.score).map_err(|_| StoreError::Corrupt {
                table: "leases",
                what: "score",
                value: row.score.to_string(),
            })?;
        }
    }
    Ok(())
}

async fn add_challenges(
    store: &Store,
    since_ms: i64,
    workers: &mut HashMap<WorkerKey, WorkerFacts>,
) -> Result<(), StoreError> {
    for row in store.outcomes_since(since_ms).await? {
        if let Some(worker) = workers.get_mut(&row.worker) {
            worker.challenges.push(challenge_of(row));
        }
    }
    Ok(())
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

async fn add_presence(
    store: &Store,
    since_ms: i64,
    workers: &mut HashMap<WorkerKey, WorkerFacts>,
) -> Result<(), StoreError> {
    for row in store.presence_since(since_ms).await? {
        if let Some(worker) = workers.get_mut(&row.worker) {
            worker.presence.push(presence_of(&row)?);
        }
    }
    let mut runs: HashMap<WorkerKey, u32> = HashMap::new();
    for run in store.addresses_since(since_ms).await? {
        *runs.entry(run.worker).or_default() += 1;
    }
    for (key, runs) in runs {
        if let Some(worker) = workers.get_mut(&key) {
            worker.address_changes = runs.saturating_sub(1);
        }
    }
    Ok(())
}

fn presence_of(row: &PresenceRow) -> Result<PresenceDay, StoreError> {
    let gpu = |uuid: &String| {
        GpuUuid::new(uuid).map_err(|_| StoreError::Corrupt { table: "gpu_sets", what: "uuid", value: uuid.clone() })
    };
    Ok(PresenceDay { day: row.day, gpus: row.gpus.iter().map(gpu).collect::<Result<_, _>>()?, buckets: row.bits })
}
