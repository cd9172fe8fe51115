//! Weights on their way to the chain: each vector is written before it is sent, and its fate after.

use std::fmt;
use std::str::FromStr;

use byteleap_chain::{Block, Weights};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::round::RoundKey;
use super::{Store, StoreError, commit, parsed, retrying};

/// The row number of a submission in `weight_submissions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SubmissionKey(pub i64);

/// Longest reason kept, in characters.
const REASON_CHARS: usize = 512;

/// A number that SQL holds; what exceeds it saturates.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where a submission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionStatus {
    /// Written; about to be sent, or sent and not yet final.
    Pending,
    /// In a finalised block.
    Included,
    /// Refused, with the chain's reason.
    Rejected,
    /// Sent, but its fate was not seen.
    Unconfirmed,
    /// Not sent: a dry run.
    Skipped,
}

impl SubmissionStatus {
    const ALL: [Self; 5] = [Self::Pending, Self::Included, Self::Rejected, Self::Unconfirmed, Self::Skipped];

    /// The text in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Included => "included",
            Self::Rejected => "rejected",
            Self::Unconfirmed => "unconfirmed",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for SubmissionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no submission status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a submission status")]
pub struct UnknownStatus;

impl FromStr for SubmissionStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// What became of a vector that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in a finalised block; the extrinsic's hash is unknown when this was only inferred from the chain's state.
    Included {
        /// The block.
        block: Block,
        /// Hash of the extrinsic.
        extrinsic: Option<[u8; 32]>,
    },
    /// The chain said no.
    Rejected(String),
    /// Nobody knows.
    Unconfirmed(String),
}

/// A submission as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubmissionRow {
    /// Its row.
    pub key: SubmissionKey,
    /// The round that it pays.
    pub round: RoundKey,
    /// When it was written.
    pub at_ms: i64,
    /// The block that its uids and limits were read at.
    pub block: Block,
    /// Version key sent along.
    pub version_key: u64,
    /// Whom it pays.
    pub uids: Vec<u16>,
    /// How much, parallel to `uids`.
    pub values: Vec<u16>,
    /// Where it is.
    pub status: SubmissionStatus,
    /// Why, if it was not included.
    pub reason: Option<String>,
    /// Hash of the extrinsic, `0x…`.
    pub extrinsic: Option<String>,
    /// The block that holds it.
    pub confirmed_block: Option<Block>,
}

impl SubmissionRow {
    /// Uids with their values.
    pub fn pairs(&self) -> Vec<(u16, u16)> {
        self.uids.iter().copied().zip(self.values.iter().copied()).collect()
    }
}

impl Store {
    /// Writes a vector that is about to be sent, or, in a dry run, will not be.
    pub async fn record_submission(
        &self,
        round: RoundKey,
        block: Block,
        weights: &Weights,
        dry_run: bool,
        now_ms: i64,
    ) -> Result<SubmissionKey, StoreError> {
        retrying(|| self.try_record_submission(round, block, weights, dry_run, now_ms)).await
    }

    async fn try_record_submission(
        &self,
        round: RoundKey,
        block: Block,
        weights: &Weights,
        dry_run: bool,
        now_ms: i64,
    ) -> Result<SubmissionKey, StoreError> {
        let (mode, status) =
            if dry_run { ("dry_run", SubmissionStatus::Skipped) } else { ("set", SubmissionStatus::Pending) };
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "INSERT INTO weight_submissions (round, at, block, mode, version_key, uids, \"values\", status)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
        )
        .bind(round.0)
        .bind(now_ms)
        .bind(int(block))
        .bind(mode)
        .bind(int(weights.version_key()))
        .bind(serde_json::json!(weights.uids()).to_string())
        .bind(serde_json::json!(weights.values()).to_string())
        .bind(status.as_str())
        .fetch_one(&mut *transaction)
        .await?;
        commit(transaction).await?;
        Ok(SubmissionKey(row.try_get("id")?))
    }

    /// Writes what became of a submission whose fate was open; false when it was settled before.
    pub async fn settle_submission(&self, key: SubmissionKey, fate: &Fate) -> Result<bool, StoreError> {
        retrying(|| self.try_settle_submission(key, fate)).await
    }

    async fn try_settle_submission(&self, key: SubmissionKey, fate: &Fate) -> Result<bool, StoreError> {
        let (status, reason, block, extrinsic) = match fate {
            Fate::Included { block, extrinsic } => (SubmissionStatus::Included, None, Some(*block), *extrinsic),
            Fate::Rejected(reason) => (SubmissionStatus::Rejected, Some(reason), None, None),
            Fate::Unconfirmed(reason) => (SubmissionStatus::Unconfirmed, Some(reason), None, None),
        };
        let mut transaction = self.begin().await?;
        let settled = sqlx::query(
            "UPDATE weight_submissions SET status = $1, reason = $2, confirmed_block = $3, extrinsic = $4
             WHERE id = $5 AND status IN ('pending', 'unconfirmed')",
        )
        .bind(status.as_str())
        .bind(reason.map(|reason| reason.chars().take(REASON_CHARS).collect::<String>()))
        .bind(block.map(int))
        .bind(extrinsic.map(|hash| format!("0x{}", hex::encode(hash))))
        .bind(key.0)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        commit(transaction).await?;
        Ok(settled == 1)
    }

    /// The last submissions, newest first, at most `limit`; dry runs are among them.
    pub async fn last_submissions(&self, limit: i64) -> Result<Vec<SubmissionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, round, at, block, version_key, uids, \"values\", status, reason, extrinsic, confirmed_block
             FROM weight_submissions ORDER BY id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(submission_of).collect()
    }
}

fn submission_of(row: &AnyRow) -> Result<SubmissionRow, StoreError> {
    let block = |column| Ok::<_, StoreError>(row.try_get::<Option<i64>, _>(column)?.map(|block| block as u64));
    Ok(SubmissionRow {
        key: SubmissionKey(row.try_get("id")?),
        round: RoundKey(row.try_get("round")?),
        at_ms: row.try_get("at")?,
        block: block("block")?.unwrap_or(0),
        version_key: block("version_key")?.unwrap_or(0),
        uids: list(row, "uids")?,
        values: list(row, "values")?,
        status: parsed("weight_submissions", row, "status")?,
        reason: row.try_get("reason")?,
        extrinsic: row.try_get("extrinsic")?,
        confirmed_block: block("confirmed_block")?,
    })
}

fn list<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Vec<T>, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt {
        table: "weight_submissions",
        what: column,
        value: text,
    })
}
