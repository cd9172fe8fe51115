//! Reads the database of the Python validator (release 0.0.5, validator spec 2.1), of either engine, into what
//! [`super::import`] writes: the facts that scoring needs, so that nobody starts anew when the program is replaced.
//!
//! Every column is cast, so that one text serves both engines: times come as text (UTC, without a zone), JSON as text,
//! booleans as 0 and 1. Nothing is written. Rows that hold no hotkey, worker or time that we know are counted and left.

use std::collections::{BTreeMap, HashMap};

use byteleap_protocol::Object;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, Iterations, MatrixSize, Seed, WorkerId};
use byteleap_scoring::presence::{Bucket, DayBits};
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;
use time::{Date, Month, OffsetDateTime};

use super::heartbeat::Specs;
use super::presence::gpu_set;
use super::url::Access;
use super::{DatabaseUrl, Store, StoreError};
use crate::challenge::state::Status;
use crate::intake::{MAX_MACHINE_BYTES, bounded_json};

/// Rows read at a time from the tables that are long.
const PAGE_ROWS: i64 = 5_000;

/// A worker by its miner and its name.
pub(super) type WorkerName = (Hotkey, WorkerId);

/// What the old database knows.
#[derive(Debug, Default)]
pub struct Heritage {
    pub(super) miners: Vec<OldMiner>,
    pub(super) workers: Vec<OldWorker>,
    pub(super) gpus: Vec<OldGpu>,
    pub(super) machines: Vec<OldMachine>,
    /// By worker, day and GPU set.
    pub(super) presence: BTreeMap<(WorkerName, i64, Vec<String>), DayBits>,
    pub(super) addresses: HashMap<WorkerName, Vec<OldAddress>>,
    pub(super) challenges: Vec<OldChallenge>,
    pub(super) heartbeats: u64,
    pub(super) skipped: u64,
}

#[derive(Debug)]
pub(super) struct OldMiner {
    pub(super) hotkey: Hotkey,
    pub(super) version: Option<String>,
    pub(super) public_ip: Option<String>,
    pub(super) first_seen_at_ms: i64,
    pub(super) last_heartbeat_at_ms: Option<i64>,
}

#[derive(Debug)]
pub(super) struct OldWorker {
    pub(super) name: WorkerName,
    pub(super) display_name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) capabilities: Vec<String>,
    pub(super) first_seen_at_ms: i64,
    pub(super) last_heartbeat_at_ms: i64,
    pub(super) lease_score: f64,
    pub(super) lease_at_ms: i64,
}

#[derive(Debug)]
pub(super) struct OldGpu {
    pub(super) uuid: String,
    pub(super) worker: WorkerName,
    pub(super) model: Option<String>,
    pub(super) memory_mb: Option<i64>,
    pub(super) compute_capability: Option<String>,
    pub(super) sm_count: Option<i64>,
    pub(super) clock_mhz: Option<i64>,
    pub(super) architecture: Option<String>,
    pub(super) first_seen_at_ms: i64,
    pub(super) last_seen_at_ms: i64,
    pub(super) passed: i64,
    pub(super) failed: i64,
    pub(super) mean_ms: Option<f64>,
    pub(super) judged_at_ms: Option<i64>,
}

/// What a worker's host is, and how busy it was.
#[derive(Debug)]
pub(super) struct OldMachine {
    pub(super) worker: WorkerName,
    pub(super) specs: Specs,
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_percent: Option<f64>,
    pub(super) uptime_s: Option<i64>,
    pub(super) at_ms: i64,
}

#[derive(Debug)]
pub(super) struct OldAddress {
    pub(super) ip: String,
    pub(super) from_at_ms: i64,
    pub(super) to_at_ms: i64,
}

#[derive(Debug)]
pub(super) struct OldChallenge {
    pub(super) id: ChallengeId,
    pub(super) worker: WorkerName,
    pub(super) kind: String,
    pub(super) size: MatrixSize,
    pub(super) iterations: Iterations,
    pub(super) seed: Seed,
    pub(super) created_at_ms: i64,
    pub(super) finished_at_ms: i64,
    pub(super) compute_ms: Option<f64>,
    /// Verified, failed or void.
    pub(super) status: Status,
    /// Units that passed; the old program counts none as one.
    pub(super) units_ok: i64,
    /// Root by unit.
    pub(super) roots: BTreeMap<String, String>,
}

/// How far back the import reaches.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Heartbeats since then.
    pub heartbeats_since_ms: i64,
    /// Challenges since then.
    pub challenges_since_ms: i64,
}

impl Heritage {
    /// Reads a database.
    ///
    /// # Errors
    /// It cannot be read, or is none of that program.
    pub async fn read(url: &DatabaseUrl, reach: Reach) -> Result<Self, StoreError> {
        let missing = || StoreError::Schema(format!("{url} holds no tables of the old program: is it the right one?"));
        let old = Store::open_existing_with(url, Access::ReadOnly).await?.ok_or_else(missing)?;
        if !old.has_table("heartbeat_records").await? {
            return Err(missing());
        }
        let mut heritage = Self::default();
        heritage.read_miners(&old).await?;
        heritage.read_workers(&old).await?;
        heritage.read_gpus(&old).await?;
        heritage.read_machines(&old).await?;
        heritage.read_heartbeats(&old, reach.heartbeats_since_ms).await?;
        heritage.read_challenges(&old, reach.challenges_since_ms).await?;
        old.close().await;
        Ok(heritage)
    }

    async fn read_miners(&mut self, old: &Store) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, miner_version, public_ip, CAST(created_at AS TEXT) AS created_at,
                    CAST(last_heartbeat AS TEXT) AS last_heartbeat
             FROM miner_info WHERE deleted_at IS NULL ORDER BY id",
        )
        .fetch_all(&old.reader)
        .await?;
        for row in &rows {
            let last_heartbeat_at_ms = at(row, "last_heartbeat")?;
            let miner = (hotkey(row)?, at(row, "created_at")?.or(last_heartbeat_at_ms));
            let (Some(hotkey), Some(first_seen_at_ms)) = miner else {
                self.skipped += 1;
                continue;
            };
            self.miners.push(OldMiner {
                hotkey,
                version: text(row, "miner_version", 32)?,
                public_ip: text(row, "public_ip", 64)?,
                first_seen_at_ms,
                last_heartbeat_at_ms,
            });
        }
        Ok(())
    }

    async fn read_workers(&mut self, old: &Store) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, worker_name, worker_version, CAST(capabilities AS TEXT) AS capabilities,
                    CAST(created_at AS TEXT) AS created_at, CAST(last_heartbeat AS TEXT) AS last_heartbeat,
                    CAST(COALESCE(lease_score, 0) AS DOUBLE PRECISION) AS lease_score,
                    CAST(lease_updated_at AS TEXT) AS lease_updated_at
             FROM worker_info WHERE deleted_at IS NULL ORDER BY id",
        )
        .fetch_all(&old.reader)
        .await?;
        for row in &rows {
            let created_at_ms = at(row, "created_at")?;
            let seen_at_ms = at(row, "last_heartbeat")?.or(created_at_ms);
            let (Some(name), Some(last_heartbeat_at_ms)) = (worker(row)?, seen_at_ms) else {
                self.skipped += 1;
                continue;
            };
            let capabilities = json(row, "capabilities")?;
            let capabilities = capabilities.as_array().into_iter().flatten().filter_map(Value::as_str);
            self.workers.push(OldWorker {
                name,
                display_name: text(row, "worker_name", 128)?,
                version: text(row, "worker_version", 32)?,
                capabilities: capabilities.map(str::to_owned).collect(),
                first_seen_at_ms: created_at_ms.unwrap_or(last_heartbeat_at_ms),
                last_heartbeat_at_ms,
                lease_score: row.try_get("lease_score")?,
                lease_at_ms: at(row, "lease_updated_at")?.unwrap_or(last_heartbeat_at_ms),
            });
        }
        Ok(())
    }

    async fn read_gpus(&mut self, old: &Store) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT gpu_uuid, hotkey, worker_id, gpu_model, compute_capability, architecture,
                    CAST(gpu_memory_total AS BIGINT) AS memory_mb,
                    CAST(multiprocessor_count AS BIGINT) AS sm_count, CAST(clock_rate AS BIGINT) AS clock_mhz,
                    CAST(avg_computation_time_ms AS DOUBLE PRECISION) AS mean_ms,
                    CAST(last_activity_at AS TEXT) AS last_activity_at,
                    CAST(COALESCE(successful_challenges, 0) AS BIGINT) AS passed,
                    CAST(COALESCE(failed_challenges, 0) AS BIGINT) AS failed,
                    CAST(created_at AS TEXT) AS created_at, CAST(last_seen_at AS TEXT) AS last_seen_at
             FROM gpu_inventory WHERE deleted_at IS NULL ORDER BY id",
        )
        .fetch_all(&old.reader)
        .await?;
        for row in &rows {
            let uuid = text(row, "gpu_uuid", 64)?.filter(|uuid| uuid.starts_with("GPU-"));
            let (Some(uuid), Some(worker), Some(last_seen_at_ms)) = (uuid, worker(row)?, at(row, "last_seen_at")?)
            else {
                self.skipped += 1;
                continue;
            };
            self.gpus.push(OldGpu {
                uuid,
                worker,
                model: text(row, "gpu_model", 256)?,
                memory_mb: row.try_get("memory_mb")?,
                compute_capability: text(row, "compute_capability", 16)?,
                sm_count: row.try_get("sm_count")?,
                clock_mhz: row.try_get("clock_mhz")?,
                architecture: text(row, "architecture", 64)?,
                first_seen_at_ms: at(row, "created_at")?.unwrap_or(last_seen_at_ms),
                last_seen_at_ms,
                passed: row.try_get("passed")?,
                failed: row.try_get("failed")?,
                mean_ms: finite(row, "mean_ms")?.filter(|ms| *ms > 0.0),
                judged_at_ms: at(row, "last_activity_at")?,
            });
        }
        Ok(())
    }

    async fn read_machines(&mut self, old: &Store) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, cpu_model, system_os, CAST(cpu_count AS BIGINT) AS cpu_count,
                    CAST(memory_total_mb AS BIGINT) AS memory_mb, CAST(disk_total_gb AS BIGINT) AS disk_gb,
                    CAST(gpu_count AS BIGINT) AS gpu_count, CAST(cpu_info AS TEXT) AS cpu_info,
                    CAST(memory_info AS TEXT) AS memory_info, CAST(system_info AS TEXT) AS system_info,
                    CAST(motherboard_info AS TEXT) AS motherboard_info, CAST(storage_info AS TEXT) AS storage_info,
                    CAST(gpu_info AS TEXT) AS gpu_info, CAST(avg_cpu_usage AS DOUBLE PRECISION) AS cpu_percent,
                    CAST(avg_memory_usage AS DOUBLE PRECISION) AS memory_percent,
                    CAST(uptime_seconds AS DOUBLE PRECISION) AS uptime_s,
                    CAST(COALESCE(updated_at, created_at) AS TEXT) AS updated_at
             FROM hardware_info WHERE deleted_at IS NULL ORDER BY id",
        )
        .fetch_all(&old.reader)
        .await?;
        for row in &rows {
            let (Some(worker), Some(at_ms)) = (worker(row)?, at(row, "updated_at")?) else {
                self.skipped += 1;
                continue;
            };
            self.machines.push(OldMachine {
                worker,
                specs: specs(row)?,
                cpu_percent: finite(row, "cpu_percent")?,
                memory_percent: finite(row, "memory_percent")?,
                uptime_s: finite(row, "uptime_s")?.map(|seconds| seconds as i64),
                at_ms,
            });
        }
        Ok(())
    }

    /// Folds heartbeats, oldest first, into presence and address runs.
    async fn read_heartbeats(&mut self, old: &Store, since_ms: i64) -> Result<(), StoreError> {
        let mut after: i64 = 0;
        loop {
            let rows = sqlx::query(
                "SELECT CAST(id AS BIGINT) AS id, hotkey, worker_id, CAST(created_at AS TEXT) AS created_at,
                        CAST(gpu_utilization AS TEXT) AS gpu_utilization, public_ip
                 FROM heartbeat_records
                 WHERE id > $1 AND deleted_at IS NULL AND CAST(created_at AS TEXT) >= $2 ORDER BY id LIMIT $3",
            )
            .bind(after)
            .bind(instant_text(since_ms))
            .bind(PAGE_ROWS)
            .fetch_all(&old.reader)
            .await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.try_get("id")?;
            for row in &rows {
                let (Some(worker), Some(at_ms)) = (worker(row)?, at(row, "created_at")?) else {
                    self.skipped += 1;
                    continue;
                };
                self.heartbeats += 1;
                if let Some(ip) = text(row, "public_ip", 64)? {
                    note_address(self.addresses.entry(worker.clone()).or_default(), ip, at_ms);
                }
                let cards: Vec<Object> = serde_json::from_value(json(row, "gpu_utilization")?).unwrap_or_default();
                let bucket = Bucket::at(at_ms);
                let day = self.presence.entry((worker, bucket.day(), gpu_set(&cards))).or_insert(DayBits::EMPTY);
                day.insert(bucket);
            }
        }
    }

    async fn read_challenges(&mut self, old: &Store, since_ms: i64) -> Result<(), StoreError> {
        let mut after: i64 = 0;
        loop {
            let rows = sqlx::query(
                "SELECT CAST(id AS BIGINT) AS id, challenge_id, hotkey, worker_id, challenge_type, challenge_status,
                        CAST(challenge_data AS TEXT) AS challenge_data,
                        CAST(merkle_commitments AS TEXT) AS merkle_commitments,
                        CAST(computation_time_ms AS DOUBLE PRECISION) AS compute_ms,
                        CAST(COALESCE(success_count, 0) AS BIGINT) AS units_ok,
                        CASE WHEN is_success THEN 1 ELSE 0 END AS passed,
                        CASE WHEN is_success IS NULL THEN 1 ELSE 0 END AS unjudged,
                        CASE WHEN verification_result THEN 1 ELSE 0 END AS proved,
                        CAST(created_at AS TEXT) AS created_at, CAST(verified_at AS TEXT) AS verified_at
                 FROM compute_challenges
                 WHERE id > $1 AND deleted_at IS NULL AND challenge_status IN ('verified', 'failed')
                   AND CAST(created_at AS TEXT) >= $2
                 ORDER BY id LIMIT $3",
            )
            .bind(after)
            .bind(instant_text(since_ms))
            .bind(PAGE_ROWS)
            .fetch_all(&old.reader)
            .await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.try_get("id")?;
            for row in &rows {
                match challenge(row)? {
                    Some(challenge) => self.challenges.push(challenge),
                    None => self.skipped += 1,
                }
            }
        }
    }
}

/// The old program wrote the system's version where the kernel's belongs; what the worker itself said is right.
fn specs(row: &AnyRow) -> Result<Specs, StoreError> {
    const PARTS: [&str; 6] = ["cpu_info", "memory_info", "system_info", "motherboard_info", "storage_info", "gpu_info"];
    let mut raw = Object::new();
    for part in PARTS {
        raw.insert(part.to_owned(), json(row, part)?);
    }
    let of_system = |key: &str| raw["system_info"].get(key).and_then(Value::as_str).map(|text| bounded(text, 128));
    Ok(Specs {
        hash: Vec::new(),
        cpu_model: text(row, "cpu_model", 256)?,
        cpu_count: row.try_get("cpu_count")?,
        memory_mb: row.try_get("memory_mb")?,
        disk_gb: row.try_get("disk_gb")?,
        gpu_count: row.try_get("gpu_count")?,
        os: of_system("system").or(text(row, "system_os", 128)?),
        kernel: of_system("release"),
        raw: bounded_json(&Value::Object(raw), MAX_MACHINE_BYTES),
    })
}

fn challenge(row: &AnyRow) -> Result<Option<OldChallenge>, StoreError> {
    let data = json(row, "challenge_data")?;
    let number = |key: &str| data.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let id = text(row, "challenge_id", 37)?.filter(|id| id.len() <= 36).and_then(|id| id.parse().ok());
    let size = number("matrix_size").and_then(|size| MatrixSize::new(size).ok());
    let iterations = number("iterations").map_or(Some(Iterations::ONE), |number| Iterations::new(number).ok());
    let seed = data.get("seed").and_then(Value::as_str).and_then(|seed| seed.parse().ok());
    let facts = (id, worker(row)?, at(row, "created_at")?, size, iterations, seed);
    let (Some(id), Some(worker), Some(created_at_ms), Some(size), Some(iterations), Some(seed)) = facts else {
        return Ok(None);
    };
    let flag = |column| Ok::<bool, StoreError>(row.try_get::<i64, _>(column)? == 1);
    let status = match text(row, "challenge_status", 16)?.as_deref() {
        Some("verified") if flag("passed")? && flag("proved")? => Status::Verified,
        // Without a judgement it was the validator that lost it.
        _ if flag("unjudged")? => Status::Void,
        _ => Status::Failed,
    };
    let roots = json(row, "merkle_commitments")?;
    let roots = roots.as_object().into_iter().flatten();
    let roots = roots.filter_map(|(unit, root)| Some((unit.clone(), root.as_str()?.to_owned())));
    Ok(Some(OldChallenge {
        id,
        worker,
        kind: text(row, "challenge_type", 16)?.unwrap_or_default(),
        size,
        iterations,
        seed,
        created_at_ms,
        finished_at_ms: at(row, "verified_at")?.unwrap_or(created_at_ms),
        compute_ms: finite(row, "compute_ms")?,
        status,
        units_ok: row.try_get::<i64, _>("units_ok")?.max(0),
        roots: roots.filter(|(unit, root)| unit.len() <= 64 && root.len() <= 64).collect(),
    }))
}

/// Prolongs the last run, or begins one.
fn note_address(runs: &mut Vec<OldAddress>, ip: String, at_ms: i64) {
    match runs.last_mut() {
        Some(run) if run.ip == ip => run.to_at_ms = run.to_at_ms.max(at_ms),
        _ => runs.push(OldAddress { ip, from_at_ms: at_ms, to_at_ms: at_ms }),
    }
}

fn hotkey(row: &AnyRow) -> Result<Option<Hotkey>, StoreError> {
    Ok(text(row, "hotkey", 64)?.and_then(|hotkey| hotkey.parse().ok()))
}

fn worker(row: &AnyRow) -> Result<Option<WorkerName>, StoreError> {
    let id: Option<String> = row.try_get("worker_id")?;
    Ok(hotkey(row)?.zip(id.and_then(|id| id.parse().ok())))
}

/// A text without control characters, cut to a column's length; none when it is empty.
fn text(row: &AnyRow, column: &str, max_chars: usize) -> Result<Option<String>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    Ok(text.map(|text| bounded(&text, max_chars)).filter(|text| !text.is_empty()))
}

fn bounded(text: &str, max_chars: usize) -> String {
    text.trim().chars().filter(|character| !character.is_control()).take(max_chars).collect()
}

/// A number, where it is one.
fn finite(row: &AnyRow, column: &str) -> Result<Option<f64>, StoreError> {
    Ok(row.try_get::<Option<f64>, _>(column)?.filter(|number| number.is_finite()))
}

/// JSON, or null where it is none.
fn json(row: &AnyRow, column: &str) -> Result<Value, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null))
}

fn at(row: &AnyRow, column: &str) -> Result<Option<i64>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    Ok(text.and_then(|text| unix_ms(&text)))
}

/// Unix milliseconds of a time as both engines write it: `2025-11-01 00:00:00`, with or without a fraction.
fn unix_ms(text: &str) -> Option<i64> {
    let (date, clock) = text.trim().split_once([' ', 'T'])?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let milliseconds: String = fraction.chars().chain("000".chars()).take(3).collect();
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    let date = Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?;
    let at = date.with_hms_milli(hour, minute, second, milliseconds.parse().ok()?).ok()?.assume_utc();
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// The time as the old tables hold it, to be compared as text.
pub(super) fn instant_text(unix_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_utc_and_written_as_they_stand() {
        assert_eq!(unix_ms("2025-11-01 00:00:00"), Some(1_761_955_200_000));
        assert_eq!(unix_ms("2025-11-01 00:00:00.5"), Some(1_761_955_200_500));
        assert_eq!(unix_ms("2025-11-01T00:00:00.123456"), Some(1_761_955_200_123));
        assert_eq!(unix_ms("yesterday"), None);
        assert_eq!(instant_text(1_761_955_200_999), "2025-11-01 00:00:00");
    }
}
