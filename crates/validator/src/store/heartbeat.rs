//! What heartbeats tell: miners, their workers, what the machines are and how busy they are.
//!
//! [`Store::record_heartbeat`] writes one heartbeat in one transaction; the rows that come back out are what
//! scheduling, scoring and the operator's view read.

use std::collections::HashMap;
use std::net::IpAddr;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use sqlx::{Any, Row, Transaction};

use super::bulk::{bulk, chunks, list, rows};
use super::gpu::SeenGpu;
use super::{Store, StoreError, WorkerKey, commit, json_of, parsed, retrying, texts_of};

/// At most so many workers of one miner are active; the rest are stored and passed over (validator spec 3.3).
pub const ACTIVE_WORKERS: usize = 100;
/// A worker counts as online for so long after a heartbeat.
pub const WORKER_DEADLINE_MS: i64 = 120_000;
/// A miner counts as online for so long after a heartbeat.
pub const MINER_DEADLINE_MS: i64 = 30 * 60_000;

/// One heartbeat of a miner, already checked: what the store writes.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The authenticated sender.
    pub hotkey: Hotkey,
    /// The miner's version, when it says one.
    pub version: Option<String>,
    /// The miner's public address, when it says one.
    pub public_ip: Option<IpAddr>,
    /// Its workers, each id once.
    pub workers: Vec<WorkerBeat>,
    /// When it arrived.
    pub at_ms: i64,
}

/// One worker inside a [`Heartbeat`].
#[derive(Debug, Clone)]
pub struct WorkerBeat {
    /// The worker's own name for itself, unique within the hotkey.
    pub worker_id: WorkerId,
    /// A name for people.
    pub name: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// What it can compute: `cpu_matrix`, `gpu_matrix`.
    pub capabilities: Vec<String>,
    /// What the miner says of its state; shown, not used.
    pub reported_status: Option<String>,
    /// What the machine is.
    pub specs: Specs,
    /// How busy it is now.
    pub usage: Usage,
    /// UUIDs of the cards its driver sees, sorted: the set that presence is kept for.
    pub gpu_set: Vec<String>,
    /// Cards its compute plugin can use: the inventory.
    pub gpus: Vec<SeenGpu>,
}

/// The parts of a machine's description that change rarely; written only when `hash` differs.
#[derive(Debug, Clone, Default)]
pub struct Specs {
    /// Digest over the other fields.
    pub hash: Vec<u8>,
    /// Name of the processor.
    pub cpu_model: Option<String>,
    /// Logical processors.
    pub cpu_count: Option<i64>,
    /// Memory in MiB.
    pub memory_mb: Option<i64>,
    /// Size of `/` in GiB.
    pub disk_gb: Option<i64>,
    /// Cards the driver sees.
    pub gpu_count: Option<i64>,
    /// Operating system.
    pub os: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// The description as JSON text, for display.
    pub raw: String,
}

/// The momentary state of a machine; only the latest is kept.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Processor load in percent.
    pub cpu_percent: f64,
    /// Used memory in percent.
    pub memory_percent: f64,
    /// Free memory in MiB.
    pub memory_free_mb: Option<i64>,
    /// Free space of `/` in GiB.
    pub disk_free_gb: Option<i64>,
    /// Seconds since the machine started.
    pub uptime_s: Option<i64>,
    /// Its public address.
    pub public_ip: Option<IpAddr>,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Workers that are beyond [`ACTIVE_WORKERS`].
    pub over_limit: Vec<WorkerId>,
    /// UUIDs that another worker holds.
    pub contested_gpus: Vec<String>,
}

/// A miner ever heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerRow {
    /// Who.
    pub hotkey: Hotkey,
    /// Its version.
    pub version: Option<String>,
    /// Its public address.
    pub public_ip: Option<String>,
    /// First heartbeat.
    pub first_seen_at_ms: i64,
    /// Latest heartbeat.
    pub last_heartbeat_at_ms: Option<i64>,
}

/// A worker ever heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// Row number, which challenges and presence refer to.
    pub key: WorkerKey,
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// A name for people.
    pub name: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// What it can compute.
    pub capabilities: Vec<String>,
    /// First heartbeat.
    pub first_seen_at_ms: i64,
    /// Latest heartbeat.
    pub last_heartbeat_at_ms: i64,
    /// Online until then.
    pub deadline_at_ms: i64,
    /// Beyond the limit of active workers: neither challenged nor scored.
    pub over_limit: bool,
}

impl Store {
    /// Writes a heartbeat, all of it or nothing.
    pub async fn record_heartbeat(&self, heartbeat: &Heartbeat) -> Result<Recorded, StoreError> {
        retrying(|| self.try_record_heartbeat(heartbeat)).await
    }

    async fn try_record_heartbeat(&self, heartbeat: &Heartbeat) -> Result<Recorded, StoreError> {
        let mut transaction = self.begin().await?;
        upsert_miner(&mut transaction, heartbeat).await?;
        let mut workers = known_workers(&mut transaction, heartbeat.hotkey).await?;
        hear_workers(&mut transaction, heartbeat, &mut workers).await?;
        let beats: Vec<_> = heartbeat
            .workers
            .iter()
            .filter_map(|beat| workers.get(&beat.worker_id).map(|known| (known.key, beat)))
            .collect();
        let at_ms = heartbeat.at_ms;
        let changed = beats.iter().filter(|(_, beat)| {
            workers.get(&beat.worker_id).and_then(|known| known.hash.as_ref()) != Some(&beat.specs.hash)
        });
        write_specs(&mut transaction, &changed.copied().collect::<Vec<_>>(), at_ms).await?;
        write_usage(&mut transaction, &beats, at_ms).await?;
        super::presence::mark(&mut transaction, heartbeat.hotkey, &beats, at_ms).await?;
        super::presence::note_addresses(&mut transaction, heartbeat.hotkey, &beats, at_ms).await?;
        let contested_gpus =
            super::gpu::claim(&mut transaction, heartbeat.hotkey, &beats, self.gpu_ownership, at_ms).await?;
        let over_limit = mark_over_limit(&mut transaction, &workers, at_ms).await?;
        commit(transaction).await?;
        Ok(Recorded { over_limit, contested_gpus })
    }

    /// Every miner, by hotkey.
    pub async fn miners(&self) -> Result<Vec<MinerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, version, public_ip, first_seen_at, last_heartbeat_at FROM miners ORDER BY hotkey",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(MinerRow {
                    hotkey: parsed("miners", row, "hotkey")?,
                    version: row.try_get("version")?,
                    public_ip: row.try_get("public_ip")?,
                    first_seen_at_ms: row.try_get("first_seen_at")?,
                    last_heartbeat_at_ms: row.try_get("last_heartbeat_at")?,
                })
            })
            .collect()
    }

    /// Every worker that is not retired, by hotkey and age.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, hotkey, worker_id, name, version, capabilities, first_seen_at, last_heartbeat_at,
                    deadline_at, over_limit
             FROM workers WHERE state <> 'retired' ORDER BY hotkey, first_seen_at, id",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerRow {
                    key: WorkerKey(row.try_get("id")?),
                    hotkey: parsed("workers", row, "hotkey")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    name: row.try_get("name")?,
                    version: row.try_get("version")?,
                    capabilities: texts_of("workers", "capabilities", row.try_get("capabilities")?)?,
                    first_seen_at_ms: row.try_get("first_seen_at")?,
                    last_heartbeat_at_ms: row.try_get("last_heartbeat_at")?,
                    deadline_at_ms: row.try_get("deadline_at")?,
                    over_limit: row.try_get::<i64, _>("over_limit")? != 0,
                })
            })
            .collect()
    }

    /// Whether this miner has a worker of this name that is online now.
    pub async fn is_live_worker(&self, hotkey: Hotkey, worker: &WorkerId, now_ms: i64) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM workers WHERE hotkey = $1 AND worker_id = $2 AND deadline_at >= $3")
            .bind(hotkey.to_string())
            .bind(worker.as_str())
            .bind(now_ms)
            .fetch_optional(&self.reader)
            .await?;
        Ok(row.is_some())
    }

    /// Marks what has fallen silent as offline; returns how many workers and miners that were.
    pub async fn sweep_offline(&self, now_ms: i64) -> Result<(u64, u64), StoreError> {
        let workers = retrying(|| async {
            let mut transaction = self.begin().await?;
            let swept = sqlx::query("UPDATE workers SET state = 'offline' WHERE state = 'online' AND deadline_at < $1")
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
            commit(transaction).await?;
            Ok(swept.rows_affected())
        });
        let miners = retrying(|| async {
            let mut transaction = self.begin().await?;
            let swept = sqlx::query(
                "UPDATE miners SET state = 'offline', state_changed_at = $1
                 WHERE state = 'online' AND last_heartbeat_at < $2",
            )
            .bind(now_ms)
            .bind(now_ms - MINER_DEADLINE_MS)
            .execute(&mut *transaction)
            .await?;
            commit(transaction).await?;
            Ok(swept.rows_affected())
        });
        Ok((workers.await?, miners.await?))
    }
}

/// First of the transaction, so that two heartbeats of one miner take turns.
async fn upsert_miner(transaction: &mut Transaction<'_, Any>, heartbeat: &Heartbeat) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO miners (hotkey, version, public_ip, first_seen_at, last_heartbeat_at, state, state_changed_at)
         VALUES ($1, $2, $3, $4, $4, 'online', $4)
         ON CONFLICT (hotkey) DO UPDATE SET
             version = COALESCE(excluded.version, miners.version),
             public_ip = COALESCE(excluded.public_ip, miners.public_ip),
             last_heartbeat_at = excluded.last_heartbeat_at,
             state_changed_at = CASE WHEN miners.state = 'online' THEN miners.state_changed_at
                                     ELSE excluded.state_changed_at END,
             state = 'online'",
    )
    .bind(heartbeat.hotkey.to_string())
    .bind(heartbeat.version.clone())
    .bind(heartbeat.public_ip.map(|ip| ip.to_string()))
    .bind(heartbeat.at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A worker as its row stands.
struct KnownWorker {
    key: WorkerKey,
    first_seen_at_ms: i64,
    deadline_at_ms: i64,
    over_limit: bool,
    /// Digest of its specs, when they were written.
    hash: Option<Vec<u8>>,
    /// What it said of itself; unknown of one that has just been written.
    said: Option<Said>,
}

/// What a worker says of itself, as its row holds it.
struct Said {
    name: Option<String>,
    version: Option<String>,
    capabilities: String,
    reported_status: Option<String>,
}

impl KnownWorker {
    /// Whether this heartbeat tells nothing of the worker but that it is there.
    fn says_the_same(&self, beat: &WorkerBeat) -> bool {
        self.said.as_ref().is_some_and(|said| {
            (beat.name.is_none() || beat.name == said.name)
                && (beat.version.is_none() || beat.version == said.version)
                && beat.reported_status == said.reported_status
                && json_of(&beat.capabilities) == said.capabilities
        })
    }
}

/// The workers of the miner `$1`, with the digests of their specs.
pub(super) const KNOWN_WORKERS: &str =
    "SELECT w.id, w.worker_id, w.name, w.version, w.capabilities, w.reported_status, w.first_seen_at, w.deadline_at,
            w.over_limit, s.hash
     FROM workers w LEFT JOIN worker_specs s ON s.worker = w.id WHERE w.hotkey = $1";

/// The workers of this miner that are on record.
async fn known_workers(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
) -> Result<HashMap<WorkerId, KnownWorker>, StoreError> {
    let rows = sqlx::query(KNOWN_WORKERS).bind(hotkey.to_string()).fetch_all(&mut **transaction).await?;
    rows.iter()
        .map(|row| {
            let known = KnownWorker {
                key: WorkerKey(row.try_get("id")?),
                first_seen_at_ms: row.try_get("first_seen_at")?,
                deadline_at_ms: row.try_get("deadline_at")?,
                over_limit: row.try_get::<i64, _>("over_limit")? != 0,
                hash: row.try_get("hash")?,
                said: Some(Said {
                    name: row.try_get("name")?,
                    version: row.try_get("version")?,
                    capabilities: row.try_get("capabilities")?,
                    reported_status: row.try_get("reported_status")?,
                }),
            };
            Ok((parsed("workers", row, "worker_id")?, known))
        })
        .collect()
}

/// Writes that these workers were heard, and brings `workers` up to date. Most of them say what they said before.
async fn hear_workers(
    transaction: &mut Transaction<'_, Any>,
    heartbeat: &Heartbeat,
    workers: &mut HashMap<WorkerId, KnownWorker>,
) -> Result<(), StoreError> {
    let deadline_at_ms = heartbeat.at_ms + WORKER_DEADLINE_MS;
    let (mut same, mut changed) = (Vec::new(), Vec::new());
    for beat in &heartbeat.workers {
        match workers.get_mut(&beat.worker_id).filter(|known| known.says_the_same(beat)) {
            Some(known) => {
                known.deadline_at_ms = deadline_at_ms;
                same.push(known.key.0);
            }
            None => changed.push(beat),
        }
    }
    for keys in chunks(&same) {
        let list = list(keys.len(), 3);
        let mut query = bulk(format!(
            "UPDATE workers SET last_heartbeat_at = $1, deadline_at = $2, state = 'online' WHERE id IN ({list})"
        ))
        .bind(heartbeat.at_ms)
        .bind(deadline_at_ms);
        for key in keys {
            query = query.bind(*key);
        }
        query.execute(&mut **transaction).await?;
    }
    upsert_workers(transaction, heartbeat, &changed, workers).await
}

/// Writes workers that are new or say something new, and brings `workers` up to date.
async fn upsert_workers(
    transaction: &mut Transaction<'_, Any>,
    heartbeat: &Heartbeat,
    beats: &[&WorkerBeat],
    workers: &mut HashMap<WorkerId, KnownWorker>,
) -> Result<(), StoreError> {
    let deadline_at_ms = heartbeat.at_ms + WORKER_DEADLINE_MS;
    for beats in chunks(beats) {
        let rows = rows(beats.len(), 5, 4, ", $1, $2, $2, $3, 'online', 0");
        let mut query = bulk(format!(
            "INSERT INTO workers (worker_id, name, version, capabilities, reported_status, hotkey, first_seen_at,
                                  last_heartbeat_at, deadline_at, state, over_limit)
             VALUES {rows}
             ON CONFLICT (hotkey, worker_id) DO UPDATE SET
                 name = COALESCE(excluded.name, workers.name),
                 version = COALESCE(excluded.version, workers.version),
                 capabilities = excluded.capabilities,
                 reported_status = excluded.reported_status,
                 last_heartbeat_at = excluded.last_heartbeat_at,
                 deadline_at = excluded.deadline_at,
                 state = 'online'
             RETURNING id, worker_id, first_seen_at, over_limit"
        ))
        .bind(heartbeat.hotkey.to_string())
        .bind(heartbeat.at_ms)
        .bind(deadline_at_ms);
        for beat in beats {
            query = query
                .bind(beat.worker_id.as_str().to_owned())
                .bind(beat.name.clone())
                .bind(beat.version.clone())
                .bind(json_of(&beat.capabilities))
                .bind(beat.reported_status.clone());
        }
        for row in query.fetch_all(&mut **transaction).await? {
            let worker_id: WorkerId = parsed("workers", &row, "worker_id")?;
            let known = KnownWorker {
                key: WorkerKey(row.try_get("id")?),
                first_seen_at_ms: row.try_get("first_seen_at")?,
                deadline_at_ms,
                over_limit: row.try_get::<i64, _>("over_limit")? != 0,
                hash: workers.remove(&worker_id).and_then(|known| known.hash),
                said: None,
            };
            workers.insert(worker_id, known);
        }
    }
    Ok(())
}

/// Writes what these machines are.
async fn write_specs(
    transaction: &mut Transaction<'_, Any>,
    changed: &[(WorkerKey, &WorkerBeat)],
    at_ms: i64,
) -> Result<(), StoreError> {
    for beats in chunks(changed) {
        let rows = rows(beats.len(), 10, 2, ", $1, $1");
        let mut query = bulk(format!(
            "INSERT INTO worker_specs (worker, hash, cpu_model, cpu_count, memory_mb, disk_gb, gpu_count, os, kernel, raw,
                                       changed_at, seen_at)
             VALUES {rows}
             ON CONFLICT (worker) DO UPDATE SET
                 hash = excluded.hash, cpu_model = excluded.cpu_model, cpu_count = excluded.cpu_count,
                 memory_mb = excluded.memory_mb, disk_gb = excluded.disk_gb, gpu_count = excluded.gpu_count,
                 os = excluded.os, kernel = excluded.kernel, raw = excluded.raw, changed_at = excluded.changed_at,
                 seen_at = excluded.seen_at"
        ))
        .bind(at_ms);
        for (worker, WorkerBeat { specs, .. }) in beats {
            query = query
                .bind(worker.0)
                .bind(specs.hash.clone())
                .bind(specs.cpu_model.clone())
                .bind(specs.cpu_count)
                .bind(specs.memory_mb)
                .bind(specs.disk_gb)
                .bind(specs.gpu_count)
                .bind(specs.os.clone())
                .bind(specs.kernel.clone())
                .bind(specs.raw.clone());
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Writes how busy these machines are.
async fn write_usage(
    transaction: &mut Transaction<'_, Any>,
    beats: &[(WorkerKey, &WorkerBeat)],
    at_ms: i64,
) -> Result<(), StoreError> {
    for beats in chunks(beats) {
        let rows = rows(beats.len(), 7, 2, ", $1");
        let mut query = bulk(format!(
            "INSERT INTO worker_usage (worker, cpu_pct, mem_pct, mem_free_mb, disk_free_gb, uptime_s, public_ip, at)
             VALUES {rows}
             ON CONFLICT (worker) DO UPDATE SET
                 cpu_pct = excluded.cpu_pct, mem_pct = excluded.mem_pct, mem_free_mb = excluded.mem_free_mb,
                 disk_free_gb = excluded.disk_free_gb, uptime_s = excluded.uptime_s, public_ip = excluded.public_ip,
                 at = excluded.at"
        ))
        .bind(at_ms);
        for (worker, WorkerBeat { usage, .. }) in beats {
            query = query
                .bind(worker.0)
                .bind(usage.cpu_percent)
                .bind(usage.memory_percent)
                .bind(usage.memory_free_mb)
                .bind(usage.disk_free_gb)
                .bind(usage.uptime_s)
                .bind(usage.public_ip.map(|ip| ip.to_string()));
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// The oldest live workers are the active ones, so that nobody pushes out a machine that has served for long. Writes only
/// what has changed, and returns the others by age.
async fn mark_over_limit(
    transaction: &mut Transaction<'_, Any>,
    workers: &HashMap<WorkerId, KnownWorker>,
    at_ms: i64,
) -> Result<Vec<WorkerId>, StoreError> {
    let mut live: Vec<_> = workers.iter().filter(|(_, worker)| worker.deadline_at_ms >= at_ms).collect();
    live.sort_by_key(|(_, worker)| (worker.first_seen_at_ms, worker.key));
    let active = live.len().min(ACTIVE_WORKERS);
    let joined = live[..active].iter().filter(|(_, worker)| worker.over_limit);
    let left = live[active..].iter().filter(|(_, worker)| !worker.over_limit);
    let changed: Vec<i64> = joined.chain(left).map(|(_, worker)| worker.key.0).collect();
    for keys in chunks(&changed) {
        let list = list(keys.len(), 1);
        let mut query = bulk(format!("UPDATE workers SET over_limit = 1 - over_limit WHERE id IN ({list})"));
        for key in keys {
            query = query.bind(*key);
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(live[active..].iter().map(|(worker_id, _)| (*worker_id).clone()).collect())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::lease::LeaseScore;
    use super::super::retention::Kept;
    use super::super::testing::{self, on_both_engines, store};
    use super::*;

    const MINER: Hotkey = Hotkey([1; 32]);

    fn beat(worker_id: &str) -> WorkerBeat {
        WorkerBeat { capabilities: vec!["cpu_matrix".to_owned()], ..testing::beat(worker_id) }
    }

    fn heartbeat(workers: Vec<WorkerBeat>, at_ms: i64) -> Heartbeat {
        Heartbeat { hotkey: MINER, version: None, public_ip: None, workers, at_ms }
    }

    async fn a_worker_keeps_its_row_and_what_it_no_longer_says() {
        let store = store().await;
        let named = WorkerBeat { name: Some("rack".to_owned()), ..beat("w") };
        store.record_heartbeat(&heartbeat(vec![named], 1_000)).await.unwrap();
        store.record_heartbeat(&heartbeat(vec![beat("w")], 61_000)).await.unwrap();
        let workers = store.workers().await.unwrap();
        assert_eq!(workers.len(), 1);
        assert_eq!(workers[0].name.as_deref(), Some("rack"));
        assert_eq!((workers[0].first_seen_at_ms, workers[0].last_heartbeat_at_ms), (1_000, 61_000));
        assert_eq!(workers[0].deadline_at_ms, 61_000 + WORKER_DEADLINE_MS);
    }

    async fn the_hundred_oldest_live_workers_are_active() {
        let store = store().await;
        store.record_heartbeat(&heartbeat(vec![beat("old")], 0)).await.unwrap();
        let many: Vec<_> = (0..101).map(|i| beat(&format!("w{i:03}"))).collect();
        let recorded = store.record_heartbeat(&heartbeat(many.clone(), 60_000)).await.unwrap();
        assert_eq!(recorded.over_limit, ["w099", "w100"].map(|id| id.parse().unwrap()));
        // The old one has fallen silent, so its place is free.
        let recorded = store.record_heartbeat(&heartbeat(many, 60_000 + WORKER_DEADLINE_MS)).await.unwrap();
        assert_eq!(recorded.over_limit, ["w100".parse().unwrap()]);
    }

    async fn specs_are_written_only_when_they_change() {
        let store = store().await;
        let changed_at = async |store: &Store| -> i64 {
            let row = sqlx::query("SELECT changed_at FROM worker_specs").fetch_one(&store.reader).await.unwrap();
            row.try_get("changed_at").unwrap()
        };
        store.record_heartbeat(&heartbeat(vec![beat("w")], 1)).await.unwrap();
        store.record_heartbeat(&heartbeat(vec![beat("w")], 2)).await.unwrap();
        assert_eq!(changed_at(&store).await, 1);
        let mut other = beat("w");
        other.specs.hash = vec![2];
        store.record_heartbeat(&heartbeat(vec![other], 3)).await.unwrap();
        assert_eq!(changed_at(&store).await, 3);
    }

    async fn a_worker_that_reports_offline_is_online_and_shown_as_it_reports() {
        let store = store().await;
        let leaving = WorkerBeat { reported_status: Some("offline".to_owned()), ..beat("w") };
        store.record_heartbeat(&heartbeat(vec![leaving], 0)).await.unwrap();
        let worker = WorkerId::new("w").unwrap();
        assert!(store.is_live_worker(MINER, &worker, WORKER_DEADLINE_MS).await.unwrap());
        let row = sqlx::query("SELECT state, reported_status FROM workers").fetch_one(&store.reader).await.unwrap();
        let text = |column| row.get::<String, _>(column);
        assert_eq!((text("state").as_str(), text("reported_status").as_str()), ("online", "offline"));
    }

    async fn silence_ends_in_offline() {
        let store = store().await;
        store.record_heartbeat(&heartbeat(vec![beat("w")], 0)).await.unwrap();
        assert_eq!(store.sweep_offline(WORKER_DEADLINE_MS).await.unwrap(), (0, 0));
        assert_eq!(store.sweep_offline(WORKER_DEADLINE_MS + 1).await.unwrap(), (1, 0));
        assert_eq!(store.sweep_offline(MINER_DEADLINE_MS + 1).await.unwrap(), (0, 1));
    }

    /// How long the soak writes.
    const SOAK: Duration = Duration::from_secs(60);

    /// One miner, again and again: its heartbeat, with cards that all the others claim too, and its lease.
    async fn keep_writing(store: Store, miner: u8, until: Instant) -> i64 {
        let (hotkey, worker) = (Hotkey([miner; 32]), WorkerId::new("w1").unwrap());
        let gpu = |id: &str| SeenGpu { uuid: id.to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        let mut written = 0;
        while Instant::now() < until {
            let at_ms = written * 1_000;
            let set = format!("GPU-{}", (written + i64::from(miner)) % 4);
            let first = WorkerBeat { gpu_set: vec![set], gpus: vec![gpu("GPU-b"), gpu("GPU-a")], ..beat("w1") };
            let second = WorkerBeat { gpus: vec![gpu("GPU-a"), gpu("GPU-c")], ..beat("w2") };
            store.record_heartbeat(&Heartbeat { hotkey, ..heartbeat(vec![first, second], at_ms) }).await.unwrap();
            let score = LeaseScore::new(f64::from(miner)).unwrap();
            store.set_lease(hotkey, &worker, score, "soak", at_ms).await.unwrap();
            written += 1;
        }
        written
    }

    /// Sweeps and forgets beside them, so far in the future that it meets the rows they write, cards excepted: one that
    /// was just claimed is never old.
    async fn keep_sweeping(store: Store, until: Instant) {
        let kept = Kept { events_ms: 0, ranking_ms: 0, availability_ms: 0 };
        let later_ms = 20 * 86_400_000;
        while Instant::now() < until {
            store.sweep_offline(later_ms).await.unwrap();
            store.forget(kept, later_ms).await.unwrap();
        }
    }

    async fn sixty_four_writers_for_a_minute_meet_no_error() {
        let (store, until) = (store().await, Instant::now() + SOAK);
        let sweeper = tokio::spawn(keep_sweeping(store.clone(), until));
        let writers: Vec<_> = (0..64).map(|miner| tokio::spawn(keep_writing(store.clone(), miner, until))).collect();
        for writer in writers {
            assert!(writer.await.unwrap() > 0, "everybody gets a turn");
        }
        sweeper.await.unwrap();
        assert_eq!(store.miners().await.unwrap().len(), 64);
    }

    on_both_engines!(
        a_worker_keeps_its_row_and_what_it_no_longer_says,
        the_hundred_oldest_live_workers_are_active,
        specs_are_written_only_when_they_change,
        a_worker_that_reports_offline_is_online_and_shown_as_it_reports,
        silence_ends_in_offline,
        #[ignore = "long: scripts/test --soak"]
        sixty_four_writers_for_a_minute_meet_no_error,
    );
}
