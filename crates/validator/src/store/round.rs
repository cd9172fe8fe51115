//! Scoring rounds: what everybody got, by which rules, and every number that led there.
//!
//! A round is written whole, in one transaction, and never changed: weights, explanations and replays all read it.

use std::collections::HashMap;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use byteleap_scoring::{MinerScore, Outcome, Round, Rules, WorkerScore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Store, StoreError, WorkerKey, double_or_null, parsed};

/// The row number of a round in `scoring_rounds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RoundKey(pub i64);

/// The rows of workers, by miner and id.
pub type WorkerKeys = HashMap<(Hotkey, WorkerId), WorkerKey>;

/// A round, without those who took part.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundRow {
    /// Its row.
    pub key: RoundKey,
    /// The instant of its facts.
    pub at_ms: i64,
    /// The block of the metagraph that it scored.
    pub block: u64,
    /// What it was computed by.
    pub rules: Rules,
    /// What becomes of it.
    pub outcome: Outcome,
    /// How many miners were registered.
    pub miners: i64,
    /// How many workers they and others had.
    pub workers: i64,
    /// The largest raw challenge score.
    pub max_raw: f64,
    /// The mean normalised challenge score.
    pub mean_norm: f64,
}

/// What a round gave to one miner.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareRow {
    /// Who.
    pub hotkey: Hotkey,
    /// Its uid at the round's block.
    pub uid: u16,
    /// Its share, above 0.
    pub weight: f64,
}

impl Store {
    /// Writes a round. Every worker of it must be in `keys`.
    pub async fn record_round(
        &self,
        round: &Round,
        block: u64,
        took_ms: i64,
        keys: &WorkerKeys,
    ) -> Result<RoundKey, StoreError> {
        let config = json("scoring_rounds", &round.rules)?;
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "INSERT INTO scoring_rounds (at, block, profile, config, config_hash, miners, workers, max_raw, avg_norm,
                                         took_ms, status)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
        )
        .bind(round.at_ms)
        .bind(i64::try_from(block).unwrap_or(i64::MAX))
        .bind(round.rules.profile().name.to_string())
        .bind(config.as_str())
        .bind(Sha256::digest(&config).to_vec())
        .bind(round.miners.len() as i64)
        .bind(round.workers.len() as i64)
        .bind(round.max_raw)
        .bind(round.mean_norm)
        .bind(took_ms)
        .bind(round.outcome.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        let key = RoundKey(row.try_get("id")?);
        for miner in &round.miners {
            insert_miner(&mut transaction, key, miner).await?;
        }
        for worker in &round.workers {
            let id = (worker.hotkey, worker.worker_id.clone());
            let worker_key = keys.get(&id).ok_or_else(|| StoreError::Corrupt {
                table: "round_workers",
                what: "worker without a row",
                value: id.1.to_string(),
            })?;
            insert_worker(&mut transaction, key, *worker_key, worker).await?;
        }
        transaction.commit().await?;
        Ok(key)
    }

    /// The newest round.
    pub async fn latest_round(&self) -> Result<Option<RoundRow>, StoreError> {
        let row = sqlx::query(
            "SELECT id, at, block, config, miners, workers, max_raw, avg_norm, status FROM scoring_rounds
             ORDER BY id DESC LIMIT 1",
        )
        .fetch_optional(&self.reader)
        .await?;
        row.as_ref().map(round_of).transpose()
    }

    /// Who is to be paid by a round: every online miner with a weight above 0, by uid.
    pub async fn shares_of(&self, round: RoundKey) -> Result<Vec<ShareRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, uid, weight FROM round_miners WHERE round = $1 AND online = 1 AND weight > 0 ORDER BY uid",
        )
        .bind(round.0)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                let uid: i64 = row.try_get("uid")?;
                Ok(ShareRow {
                    hotkey: parsed("round_miners", row, "hotkey")?,
                    uid: u16::try_from(uid).map_err(|_| StoreError::Corrupt {
                        table: "round_miners",
                        what: "uid",
                        value: uid.to_string(),
                    })?,
                    weight: row.try_get("weight")?,
                })
            })
            .collect()
    }

    /// A miner's score in a round; none when it was not registered then.
    pub async fn miner_score(&self, round: RoundKey, hotkey: Hotkey) -> Result<Option<MinerScore>, StoreError> {
        let row = sqlx::query("SELECT detail FROM round_miners WHERE round = $1 AND hotkey = $2")
            .bind(round.0)
            .bind(hotkey.to_string())
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| of_json("round_miners", "detail", &row)).transpose()
    }

    /// The scores of a miner's workers in a round, by id.
    pub async fn worker_scores(&self, round: RoundKey, hotkey: Hotkey) -> Result<Vec<WorkerScore>, StoreError> {
        let rows = sqlx::query(
            "SELECT r.detail FROM round_workers r JOIN workers w ON w.id = r.worker
             WHERE r.round = $1 AND w.hotkey = $2 ORDER BY w.worker_id",
        )
        .bind(round.0)
        .bind(hotkey.to_string())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| of_json("round_workers", "detail", row)).collect()
    }
}

async fn insert_miner(
    transaction: &mut Transaction<'_, Any>,
    round: RoundKey,
    miner: &MinerScore,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO round_miners (round, hotkey, uid, online, raw, norm, challenge, lease, availability, composite,
                                   weight, detail)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(round.0)
    .bind(miner.hotkey.to_string())
    .bind(i64::from(miner.uid))
    .bind(i64::from(miner.online))
    .bind(miner.raw)
    .bind(miner.norm)
    .bind(miner.challenge)
    .bind(miner.lease.value)
    .bind(miner.availability)
    .bind(miner.composite)
    .bind(miner.weight)
    .bind(json("round_miners", miner)?)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_worker(
    transaction: &mut Transaction<'_, Any>,
    round: RoundKey,
    key: WorkerKey,
    worker: &WorkerScore,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO round_workers (round, worker, attempts, successes, avg_ms, avg_units, participation, availability,
                                    address_changes, perf, counted, detail)
         VALUES ($1, $2, $3, $4, CAST($5 AS DOUBLE PRECISION), CAST($6 AS DOUBLE PRECISION), $7, $8, $9, $10, $11, $12)",
    )
    .bind(round.0)
    .bind(key.0)
    .bind(i64::from(worker.attempts))
    .bind(i64::from(worker.successes))
    .bind(double_or_null(worker.mean_ms))
    .bind(double_or_null(worker.mean_units))
    .bind(worker.participation)
    .bind(worker.availability.value)
    .bind(i64::from(worker.availability.address_changes))
    .bind(worker.performance)
    .bind(i64::from(worker.counted))
    .bind(json("round_workers", worker)?)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn round_of(row: &AnyRow) -> Result<RoundRow, StoreError> {
    Ok(RoundRow {
        key: RoundKey(row.try_get("id")?),
        at_ms: row.try_get("at")?,
        block: u64::try_from(row.try_get::<i64, _>("block")?).unwrap_or(0),
        rules: of_json("scoring_rounds", "config", row)?,
        outcome: parsed("scoring_rounds", row, "status")?,
        miners: row.try_get("miners")?,
        workers: row.try_get("workers")?,
        max_raw: row.try_get("max_raw")?,
        mean_norm: row.try_get("avg_norm")?,
    })
}

fn json(table: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { table, what: "score", value: error.to_string() })
}

fn of_json<T: DeserializeOwned>(table: &'static str, column: &'static str, row: &AnyRow) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { table, what: column, value: text })
}
