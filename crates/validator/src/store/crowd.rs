//! A full subnet that never was: what `bench round` scores.
//!
//! Rows are made in the database by set statements, the same on both engines: miners with their workers, a week of presence,
//! the challenges of the ranking window, leases, and GPUs on every eighth worker.

use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::presence::{BUCKET_MS, Bucket, DayBits};
use sqlx::{Any, Transaction};

use super::presence::gpu_set_row;
use super::{Store, StoreError};

/// Time between two challenges of a worker.
const CHALLENGE_MS: i64 = 240_000;
/// Challenges of a worker in the ranking window.
const CHALLENGES: i64 = 45;
/// Days of presence, the first and the last of them in part within the window.
const DAYS: i64 = 8;
/// Cards of a worker that has any.
const GPUS: usize = 8;
/// Every so many workers have cards, every so many (others) a lease.
const GPU_EVERY: i64 = 8;
const LEASED_EVERY: i64 = 3;

impl Store {
    /// Whether this database knows of nobody yet.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query("SELECT 1 FROM miners LIMIT 1").fetch_optional(&self.reader).await?.is_none())
    }

    /// Makes `hotkeys` miners of `workers` workers each, with everything that a round at `now_ms` looks at.
    pub(crate) async fn settle_crowd(&self, hotkeys: &[Hotkey], workers: i64, now_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for hotkey in hotkeys {
            settle_miner(&mut transaction, *hotkey, workers, now_ms).await?;
        }
        settle_gpus(&mut transaction, now_ms).await?;
        let none = gpu_set_row(&mut transaction, &[]).await?;
        sqlx::query(
            "INSERT INTO presence_days (worker, day, gpu_set, bits)
             SELECT w.id, d.n, $3, $4 FROM workers w CROSS JOIN
                 (WITH RECURSIVE days (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM days WHERE n < $2) SELECT n FROM days) d
             WHERE w.id NOT IN (SELECT worker FROM gpus)",
        )
        .bind(Bucket::at(now_ms).day() - DAYS + 1)
        .bind(Bucket::at(now_ms).day())
        .bind(none)
        .bind(worn().as_bytes().to_vec())
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO leases (hotkey, worker_id, score, source, received_at, changed_at)
             SELECT hotkey, worker_id, 1.0, 'bench', $1, $1 FROM workers WHERE id % $2 = 0",
        )
        .bind(now_ms)
        .bind(LEASED_EVERY)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO worker_addresses (worker, from_at, to_at, ip)
             SELECT id, $1, $2, '192.0.2.1' FROM workers UNION ALL
             SELECT id, $2, $2, '192.0.2.2' FROM workers WHERE id % 50 = 0",
        )
        .bind(now_ms - DAYS * 86_400_000)
        .bind(now_ms)
        .execute(&mut *transaction)
        .await?;
        challenge(&mut transaction, CHALLENGES, now_ms).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Lets time pass until `now_ms`, `since_ms` being the round before: heartbeats, and the verdicts of challenges.
    pub(crate) async fn live_on(&self, since_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE workers SET last_heartbeat_at = $1").bind(now_ms).execute(&mut *transaction).await?;
        sqlx::query("UPDATE miners SET last_heartbeat_at = $1").bind(now_ms).execute(&mut *transaction).await?;
        sqlx::query("UPDATE gpus SET last_seen_at = $1").bind(now_ms).execute(&mut *transaction).await?;
        let mut today = worn();
        today.insert(Bucket::at(now_ms));
        sqlx::query("UPDATE presence_days SET bits = $1 WHERE day = $2")
            .bind(today.as_bytes().to_vec())
            .bind(Bucket::at(now_ms).day())
            .execute(&mut *transaction)
            .await?;
        challenge(&mut transaction, (now_ms - since_ms) / CHALLENGE_MS, now_ms).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// How many challenges with a verdict there are.
    pub(crate) async fn verdicts(&self) -> Result<i64, StoreError> {
        use sqlx::Row;
        let row = sqlx::query("SELECT COUNT(*) AS n FROM challenges WHERE status IN ('verified', 'failed')");
        Ok(row.fetch_one(&self.reader).await?.try_get("n")?)
    }
}

/// A day with a gap.
fn worn() -> DayBits {
    let mut bits = DayBits::EMPTY;
    (0..288).filter(|index| index % 20 != 7).for_each(|index| bits.insert(Bucket::at(index * BUCKET_MS)));
    bits
}

async fn settle_miner(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
    workers: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO miners (hotkey, first_seen_at, last_heartbeat_at, state) VALUES ($1, $2, $2, 'online')")
        .bind(hotkey.to_string())
        .bind(now_ms)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO workers (hotkey, worker_id, capabilities, first_seen_at, last_heartbeat_at, deadline_at, state, over_limit)
         SELECT $1, 'worker-' || CAST(k.n AS TEXT), '[]', $2, $2, $2, 'online', 0 FROM
             (WITH RECURSIVE ks (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ks WHERE n < $3) SELECT n FROM ks) k",
    )
    .bind(hotkey.to_string())
    .bind(now_ms)
    .bind(workers)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Gives every eighth worker its cards, and presence with them.
async fn settle_gpus(transaction: &mut Transaction<'_, Any>, now_ms: i64) -> Result<(), StoreError> {
    use sqlx::Row;
    let rows = sqlx::query("SELECT id FROM workers WHERE id % $1 = 1 ORDER BY id")
        .bind(GPU_EVERY)
        .fetch_all(&mut **transaction)
        .await?;
    for row in rows {
        let worker: i64 = row.try_get("id")?;
        let uuids: Vec<String> = (0..GPUS).map(|card| format!("GPU-{worker:08x}-0000-4000-8000-{card:012x}")).collect();
        let set = gpu_set_row(transaction, &uuids).await?;
        for uuid in &uuids {
            sqlx::query(
                "INSERT INTO gpus (uuid, worker, first_seen_at, last_seen_at, owner_since) VALUES ($1, $2, $3, $3, $3)",
            )
            .bind(uuid.as_str())
            .bind(worker)
            .bind(now_ms)
            .execute(&mut **transaction)
            .await?;
        }
        for day in 0..DAYS {
            sqlx::query("INSERT INTO presence_days (worker, day, gpu_set, bits) VALUES ($1, $2, $3, $4)")
                .bind(worker)
                .bind(Bucket::at(now_ms).day() - day)
                .bind(set)
                .bind(worn().as_bytes().to_vec())
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Gives every worker without a lease its last `count` challenges before `now_ms`, one in twenty failed.
async fn challenge(transaction: &mut Transaction<'_, Any>, count: i64, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO challenges (uuid, worker, kind, size, iterations, seed, params, status, created_at, finished_at,
                                 compute_ms, units_total, units_ok, gpu_set)
         SELECT CAST(w.id AS TEXT) || '-' || CAST($1 - k.n * $2 AS TEXT), w.id,
                CASE WHEN s.gpu_set IS NULL THEN 'cpu_matrix' ELSE 'gpu_matrix' END, 2000, 1, '00', '{}',
                CASE WHEN (w.id + k.n) % 20 = 0 THEN 'failed' ELSE 'verified' END, $1 - k.n * $2, $1 - k.n * $2,
                500.0 + (w.id % 977) + k.n, 1, 1, s.gpu_set
         FROM workers w
         LEFT JOIN (SELECT p.worker, MAX(p.gpu_set) AS gpu_set FROM presence_days p
                    WHERE p.worker IN (SELECT worker FROM gpus) GROUP BY p.worker) s ON s.worker = w.id
         CROSS JOIN (WITH RECURSIVE ks (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM ks WHERE n < $3) SELECT n FROM ks) k
         WHERE w.id % $4 <> 0",
    )
    .bind(now_ms)
    .bind(CHALLENGE_MS)
    .bind(count)
    .bind(LEASED_EVERY)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
