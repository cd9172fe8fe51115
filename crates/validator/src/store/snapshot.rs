//! What a round is scored by, read as of one instant: all readings of a [`Snapshot`] see the same committed state.
//!
//! Verdicts and past days do not change, so readings can be asked for what is new alone; none of them is unbounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{GpuUuid, WorkerId};
use byteleap_scoring::facts::{GpuOwner, GpuSet};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::presence::{PresenceRow, bits_of};
use super::{Store, StoreError, WorkerKey, parsed, texts_of};
use crate::challenge::state::Status;

/// Challenges read at once.
const PAGE: i64 = 20_000;

/// At most `$2` challenges, by number from `$1` on.
pub(super) const OUTCOMES: &str =
    "SELECT c.id, c.worker, c.created_at, c.status, c.test, c.compute_ms, c.units_ok, s.uuids
     FROM challenges c LEFT JOIN gpu_sets s ON s.id = c.gpu_set
     WHERE c.id >= $1 ORDER BY c.id LIMIT $2";

/// A reading transaction.
#[derive(Debug)]
pub struct Snapshot {
    transaction: Transaction<'static, Any>,
    /// Sets of GPUs by their stored text, so that equal ones are one.
    sets: HashMap<String, GpuSet>,
}

/// A worker that is not retired, as scoring looks at it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenWorker {
    /// Its row.
    pub key: WorkerKey,
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// Latest heartbeat.
    pub last_heartbeat_at_ms: i64,
    /// Beyond the limit of active workers.
    pub over_limit: bool,
    /// Its lease score; none when the marketplace never spoke of it.
    pub lease: Option<f64>,
}

/// A finished challenge as scoring counts it; void ones are not among them.
#[derive(Debug, Clone, PartialEq)]
pub struct OutcomeRow {
    /// Its row: a later challenge has a larger number.
    pub id: i64,
    /// Whose.
    pub worker: WorkerKey,
    /// When it was written.
    pub created_at_ms: i64,
    /// Proved right.
    pub verified: bool,
    /// From handing out to the commitment, on our clock.
    pub compute_ms: Option<f64>,
    /// Units that passed.
    pub units_ok: i64,
    /// The GPUs committed to; none for the processor.
    pub gpus: GpuSet,
}

impl Store {
    /// Begins to read.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let transaction = self.reader.begin_with(self.engine.begin_snapshot()).await?;
        Ok(Snapshot { transaction, sets: HashMap::new() })
    }
}

impl Snapshot {
    /// Every miner, with its latest heartbeat.
    pub async fn miners(&mut self) -> Result<Vec<(Hotkey, Option<i64>)>, StoreError> {
        let rows = sqlx::query("SELECT hotkey, last_heartbeat_at FROM miners ORDER BY hotkey")
            .fetch_all(&mut *self.transaction)
            .await?;
        rows.iter().map(|row| Ok((parsed("miners", row, "hotkey")?, row.try_get("last_heartbeat_at")?))).collect()
    }

    /// Every worker that is not retired.
    pub async fn workers(&mut self) -> Result<Vec<SeenWorker>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.id, w.hotkey, w.worker_id, w.last_heartbeat_at, w.over_limit, l.score
             FROM workers w LEFT JOIN leases l ON l.hotkey = w.hotkey AND l.worker_id = w.worker_id
             WHERE w.state <> 'retired' ORDER BY w.hotkey, w.id",
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SeenWorker {
                    key: WorkerKey(row.try_get("id")?),
                    hotkey: parsed("workers", row, "hotkey")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    last_heartbeat_at_ms: row.try_get("last_heartbeat_at")?,
                    over_limit: row.try_get::<i64, _>("over_limit")? != 0,
                    lease: row.try_get("score")?,
                })
            })
            .collect()
    }

    /// The number below which no challenge is without a verdict.
    pub async fn first_open_challenge(&mut self) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT MIN(id) FROM challenges WHERE status IN ('created', 'sent', 'committed', 'verifying')) AS open,
                    (SELECT MAX(id) FROM challenges) AS newest",
        )
        .fetch_one(&mut *self.transaction)
        .await?;
        let (open, newest): (Option<i64>, Option<i64>) = (row.try_get("open")?, row.try_get("newest")?);
        Ok(open.or(newest.map(|newest| newest + 1)).unwrap_or(0))
    }

    /// The smallest number of a challenge with a verdict that was created since `since_ms`; none if there is none.
    pub async fn first_outcome_since(&mut self, since_ms: i64) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query(
            "SELECT MIN(id) AS first FROM challenges WHERE status IN ('verified', 'failed') AND created_at >= $1",
        )
        .bind(since_ms)
        .fetch_one(&mut *self.transaction)
        .await?;
        Ok(row.try_get("first")?)
    }

    /// The challenges with a verdict that were created since `since_ms`, by number, out of a page of challenges from `id` on,
    /// with the number that the next page begins at; none at the end.
    ///
    /// The page is asked for by number alone: given a status or a time to look for, SQLite would take their index, and sort
    /// all that it finds there for each page.
    pub async fn outcomes_from(
        &mut self,
        id: i64,
        since_ms: i64,
    ) -> Result<(Vec<OutcomeRow>, Option<i64>), StoreError> {
        let rows = sqlx::query(OUTCOMES).bind(id).bind(PAGE).fetch_all(&mut *self.transaction).await?;
        let mut outcomes = Vec::with_capacity(rows.len());
        for row in &rows {
            let status: Status = parsed("challenges", row, "status")?;
            let is_test = row.try_get::<i64, _>("test")? != 0;
            let counts = matches!(status, Status::Verified | Status::Failed) && !is_test;
            if counts && row.try_get::<i64, _>("created_at")? >= since_ms {
                outcomes.push(self.outcome_of(row, status)?);
            }
        }
        let last = rows.last().filter(|_| rows.len() as i64 == PAGE);
        let next = last.map(|row| row.try_get::<i64, _>("id")).transpose()?.map(|last| last + 1);
        Ok((outcomes, next))
    }

    fn outcome_of(&mut self, row: &AnyRow, status: Status) -> Result<OutcomeRow, StoreError> {
        Ok(OutcomeRow {
            id: row.try_get("id")?,
            worker: WorkerKey(row.try_get("worker")?),
            created_at_ms: row.try_get("created_at")?,
            verified: status == Status::Verified,
            compute_ms: row.try_get("compute_ms")?,
            units_ok: row.try_get::<Option<i64>, _>("units_ok")?.unwrap_or(0),
            gpus: match row.try_get::<Option<String>, _>("uuids")? {
                Some(uuids) => self.set_of(uuids)?,
                None => GpuSet::default(),
            },
        })
    }

    /// All presence on one day, by worker.
    pub async fn presence_on(&mut self, day: i64) -> Result<Vec<PresenceRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.worker, p.bits, s.uuids FROM presence_days p JOIN gpu_sets s ON s.id = p.gpu_set
             WHERE p.day = $1 ORDER BY p.worker, p.gpu_set",
        )
        .bind(day)
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(PresenceRow {
                    worker: WorkerKey(row.try_get("worker")?),
                    day,
                    gpus: self.set_of(row.try_get("uuids")?)?,
                    bits: bits_of(row.try_get("bits")?)?,
                })
            })
            .collect()
    }

    /// How often the public address of each worker changed since `since_ms`: the address runs that reach into that time,
    /// less one. Workers that kept theirs are left out.
    pub async fn address_changes(&mut self, since_ms: i64) -> Result<Vec<(WorkerKey, u32)>, StoreError> {
        let rows = sqlx::query(
            "SELECT worker, COUNT(*) AS runs FROM worker_addresses WHERE to_at >= $1 GROUP BY worker HAVING COUNT(*) > 1",
        )
        .bind(since_ms)
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.iter()
            .map(|row| {
                let runs: i64 = row.try_get("runs")?;
                Ok((WorkerKey(row.try_get("worker")?), u32::try_from(runs - 1).unwrap_or(u32::MAX)))
            })
            .collect()
    }

    /// Who holds each card that was reported since `since_ms`.
    pub async fn gpu_owners(&mut self, since_ms: i64) -> Result<BTreeMap<GpuUuid, GpuOwner>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.uuid, w.hotkey, g.last_seen_at FROM gpus g JOIN workers w ON w.id = g.worker
             WHERE g.uuid IS NOT NULL AND g.last_seen_at >= $1 ORDER BY g.uuid",
        )
        .bind(since_ms)
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.iter()
            .map(|row| {
                let hotkey = parsed("workers", row, "hotkey")?;
                Ok((parsed("gpus", row, "uuid")?, GpuOwner { hotkey, last_seen_ms: row.try_get("last_seen_at")? }))
            })
            .collect()
    }

    /// When rounds were scored since `since_ms`, oldest first.
    pub async fn rounds_since(&mut self, since_ms: i64) -> Result<Vec<i64>, StoreError> {
        let rows = sqlx::query("SELECT at FROM scoring_rounds WHERE at >= $1 ORDER BY at")
            .bind(since_ms)
            .fetch_all(&mut *self.transaction)
            .await?;
        rows.iter().map(|row| Ok(row.try_get("at")?)).collect()
    }

    /// A set of GPUs out of its JSON; equal texts share one.
    fn set_of(&mut self, uuids: String) -> Result<GpuSet, StoreError> {
        if let Some(set) = self.sets.get(&uuids) {
            return Ok(GpuSet::clone(set));
        }
        let gpu = |uuid: String| {
            GpuUuid::new(&uuid).map_err(|_| StoreError::Corrupt { table: "gpu_sets", what: "uuid", value: uuid })
        };
        let gpus = texts_of("gpu_sets", "uuids", uuids.clone())?.into_iter().map(gpu);
        let set = GpuSet::new(gpus.collect::<Result<BTreeSet<_>, _>>()?);
        self.sets.insert(uuids, GpuSet::clone(&set));
        Ok(set)
    }
}
