//! Scoring rounds: what everybody got, by which rules, and every number that led there, the inputs among them.
//!
//! A round is written whole, in one transaction, and never changed: weights, explanations and replays all read it, and
//! [`Store::whole_round`] gives it back bit for bit. The scores of a miner's workers are alike and many, so they are one
//! compressed document per miner ([`PackedRound`]).

use std::fmt;
use std::io::{self, Read, Write};

use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::{MinerScore, Outcome, Round, Rules, WorkerScore};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};
use utoipa::ToSchema;

use super::{Store, StoreError, commit, parsed, retrying};

/// The largest document of one miner's workers.
const MAX_ROSTER_BYTES: u64 = 64 << 20;

/// The row number of a round in `scoring_rounds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
pub struct RoundKey(pub i64);

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

/// Why the scores of a round's workers are not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lost {
    /// Their time was over.
    Forgotten,
    /// An older version of this program scored the round, and kept them otherwise.
    OlderVersion,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forgotten => "its workers are forgotten: they are kept for database.event_retention_days",
            Self::OlderVersion => "an older version of this program scored it, and its workers were not taken over",
        })
    }
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

/// A round made ready to be written. Making it takes processor time, so it is done where scoring is.
#[derive(Debug)]
pub struct PackedRound {
    /// The round.
    pub round: Round,
    config: String,
    span: String,
    /// The scores of [`Round::miners`], as JSON.
    miners: Vec<String>,
    rosters: Vec<Roster>,
}

/// The workers of one miner.
#[derive(Debug)]
struct Roster {
    hotkey: Hotkey,
    workers: i64,
    /// Compressed JSON.
    scores: Vec<u8>,
}

impl PackedRound {
    /// Packs a round.
    ///
    /// # Errors
    /// Its scores are no JSON, which scores are.
    pub fn new(round: Round) -> Result<Self, StoreError> {
        let rosters = round.workers.chunk_by(|left, right| left.hotkey == right.hotkey).filter_map(|workers| {
            let hotkey = workers.first()?.hotkey;
            let scores = compressed(workers);
            Some(scores.map(|scores| Roster { hotkey, workers: workers.len() as i64, scores }))
        });
        Ok(Self {
            config: json("scoring_rounds", &round.rules)?,
            span: json("scoring_rounds", &round.span)?,
            miners: round.miners.iter().map(|miner| json("round_miners", miner)).collect::<Result<_, _>>()?,
            rosters: rosters.collect::<Result<_, _>>()?,
            round,
        })
    }
}

impl Store {
    /// Writes a round.
    pub async fn record_round(&self, packed: &PackedRound, block: u64, took_ms: i64) -> Result<RoundKey, StoreError> {
        retrying(|| self.try_record_round(packed, block, took_ms)).await
    }

    async fn try_record_round(&self, packed: &PackedRound, block: u64, took_ms: i64) -> Result<RoundKey, StoreError> {
        let PackedRound { round, config, span, miners, rosters } = packed;
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "INSERT INTO scoring_rounds (at, block, profile, config, config_hash, miners, workers, max_raw, avg_norm,
                                         took_ms, status, span, ranked)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING id",
        )
        .bind(round.at_ms)
        .bind(i64::try_from(block).unwrap_or(i64::MAX))
        .bind(round.rules.profile().name.to_string())
        .bind(config.as_str())
        .bind(Sha256::digest(config).to_vec())
        .bind(round.miners.len() as i64)
        .bind(round.workers.len() as i64)
        .bind(round.max_raw)
        .bind(round.mean_norm)
        .bind(took_ms)
        .bind(round.outcome.as_str())
        .bind(span.as_str())
        .bind(i64::from(round.ranked))
        .fetch_one(&mut *transaction)
        .await?;
        let key = RoundKey(row.try_get("id")?);
        for (miner, detail) in round.miners.iter().zip(miners) {
            insert_miner(&mut transaction, key, miner, detail).await?;
        }
        for roster in rosters {
            insert_roster(&mut transaction, key, roster).await?;
        }
        commit(transaction).await?;
        Ok(key)
    }

    /// The newest round.
    pub async fn latest_round(&self) -> Result<Option<RoundRow>, StoreError> {
        self.round_where("ORDER BY id DESC LIMIT 1", None).await
    }

    /// A round; none when it was never scored, or is forgotten.
    pub async fn round(&self, key: RoundKey) -> Result<Option<RoundRow>, StoreError> {
        self.round_where("WHERE id = $1", Some(key)).await
    }

    /// The round before another one.
    pub async fn round_before(&self, key: RoundKey) -> Result<Option<RoundRow>, StoreError> {
        self.round_where("WHERE id < $1 ORDER BY id DESC LIMIT 1", Some(key)).await
    }

    async fn round_where(&self, which: &'static str, key: Option<RoundKey>) -> Result<Option<RoundRow>, StoreError> {
        let sql = format!(
            "SELECT id, at, block, config, miners, workers, max_raw, avg_norm, status FROM scoring_rounds {which}"
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        if let Some(key) = key {
            query = query.bind(key.0);
        }
        query.fetch_optional(&self.reader).await?.as_ref().map(round_of).transpose()
    }

    /// Why a round is not there with all its workers; none when it is.
    pub async fn lost_of(&self, row: &RoundRow) -> Result<Option<Lost>, StoreError> {
        let found = sqlx::query(
            "SELECT COUNT(s.span) AS spans, COALESCE(CAST(SUM(r.workers) AS BIGINT), 0) AS workers
             FROM scoring_rounds s LEFT JOIN round_rosters r ON r.round = s.id WHERE s.id = $1",
        )
        .bind(row.key.0)
        .fetch_one(&self.reader)
        .await?;
        let (spans, workers): (i64, i64) = (found.try_get("spans")?, found.try_get("workers")?);
        Ok(match (spans, workers == row.workers) {
            (0, _) => Some(Lost::OlderVersion),
            (_, false) => Some(Lost::Forgotten),
            (_, true) => None,
        })
    }

    /// A round with everybody in it, as it was scored, unless the scores of its workers are lost.
    pub async fn whole_round(&self, row: &RoundRow) -> Result<Result<Round, Lost>, StoreError> {
        if let Some(lost) = self.lost_of(row).await? {
            return Ok(Err(lost));
        }
        let found = sqlx::query("SELECT span, ranked FROM scoring_rounds WHERE id = $1")
            .bind(row.key.0)
            .fetch_one(&self.reader)
            .await?;
        let details = sqlx::query("SELECT detail FROM round_miners WHERE round = $1")
            .bind(row.key.0)
            .fetch_all(&self.reader)
            .await?;
        let mut miners: Vec<MinerScore> =
            details.iter().map(|row| of_json("round_miners", "detail", row)).collect::<Result<_, _>>()?;
        miners.sort_by_key(|miner| miner.hotkey);
        let rosters = sqlx::query("SELECT scores FROM round_rosters WHERE round = $1")
            .bind(row.key.0)
            .fetch_all(&self.reader)
            .await?;
        let mut workers: Vec<WorkerScore> = Vec::new();
        for roster in &rosters {
            workers.extend(uncompressed(roster.try_get("scores")?)?);
        }
        if workers.len() as i64 != row.workers || miners.len() as i64 != row.miners {
            return Ok(Err(Lost::Forgotten));
        }
        workers.sort_by(|left, right| (left.hotkey, &left.worker_id).cmp(&(right.hotkey, &right.worker_id)));
        Ok(Ok(Round {
            at_ms: row.at_ms,
            rules: row.rules.clone(),
            outcome: row.outcome,
            baseline: row.rules.windows().baseline(),
            span: of_json("scoring_rounds", "span", &found)?,
            ranked: u32::try_from(found.try_get::<i64, _>("ranked")?).unwrap_or(0),
            max_raw: row.max_raw,
            mean_norm: row.mean_norm,
            workers,
            miners,
        }))
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

    /// The scores of a miner's workers in a round, by id; none once they are forgotten.
    pub async fn worker_scores(&self, round: RoundKey, hotkey: Hotkey) -> Result<Vec<WorkerScore>, StoreError> {
        let row = sqlx::query("SELECT scores FROM round_rosters WHERE round = $1 AND hotkey = $2")
            .bind(round.0)
            .bind(hotkey.to_string())
            .fetch_optional(&self.reader)
            .await?;
        row.map_or(Ok(Vec::new()), |row| uncompressed(row.try_get("scores")?))
    }
}

async fn insert_miner(
    transaction: &mut Transaction<'_, Any>,
    round: RoundKey,
    miner: &MinerScore,
    detail: &str,
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
    .bind(detail)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn insert_roster(
    transaction: &mut Transaction<'_, Any>,
    round: RoundKey,
    roster: &Roster,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO round_rosters (round, hotkey, workers, scores) VALUES ($1, $2, $3, $4)")
        .bind(round.0)
        .bind(roster.hotkey.to_string())
        .bind(roster.workers)
        .bind(roster.scores.as_slice())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn compressed(workers: &[WorkerScore]) -> Result<Vec<u8>, StoreError> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(json("round_rosters", &workers)?.as_bytes());
    written.and_then(|()| encoder.finish()).map_err(|error| unreadable(&error))
}

fn uncompressed(scores: Vec<u8>) -> Result<Vec<WorkerScore>, StoreError> {
    let mut json = Vec::new();
    let read = DeflateDecoder::new(scores.as_slice()).take(MAX_ROSTER_BYTES).read_to_end(&mut json);
    read.map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&json).map_err(|error| unreadable(&error.into()))
}

fn unreadable(error: &io::Error) -> StoreError {
    StoreError::Corrupt { table: "round_rosters", what: "scores", value: error.to_string() }
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
