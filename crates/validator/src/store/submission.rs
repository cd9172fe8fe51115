//! Weights on their way to the chain: each vector is written before it is sent, with what it was made by, and its fate
//! after.

use std::fmt;
use std::str::FromStr;

use byteleap_chain::{Block, Hotkey, Weights};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::round::RoundKey;
use super::{Store, StoreError, commit, parsed, retrying};

/// The row number of a submission in `weight_submissions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
pub struct SubmissionKey(pub i64);

/// Longest reason kept, in characters.
const REASON_CHARS: usize = 512;

/// A number that SQL holds; what exceeds it saturates.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where a submission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
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

/// What a vector was made by, besides the round: all that stands between a miner's share and its value on chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Terms {
    /// Fewest weights that the chain takes (`MinAllowedWeights`).
    pub min_allowed: u16,
    /// Largest share of one weight that it takes, of 65,535 (`MaxWeightsLimit`).
    pub max_share: u16,
    /// Whether the vector was brought within these two (`weights.enforce_limits`).
    pub enforced: bool,
    /// Whether a share was larger and has been cut to `max_share`.
    pub capped: bool,
    /// Uids at the end that have the value 1 only so that the vector is long enough.
    pub filled: usize,
    /// The least version key that the chain takes.
    pub version_demanded: u64,
    /// Blocks that the chain wants between two settings.
    pub rate_limit_blocks: u64,
    /// Whether weights are committed under a time lock, and revealed by the chain later.
    pub timelocked: bool,
    /// What is burned; none when nothing is.
    pub burned: Option<Burned>,
    /// Whom the round pays and the vector does not.
    pub dropped: Vec<Dropped>,
}

/// Weight that nobody is paid.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Burned {
    /// By whom.
    pub uid: u16,
    /// How much of the whole, 0 to 1, before a cap.
    pub share: f64,
}

/// A miner that the round pays and the vector does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// Who.
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its uid at the round's block.
    pub uid: u16,
    /// Why.
    pub reason: DropReason,
}

/// Why a miner is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// It is no longer registered, or was registered anew after the round.
    Reregistered,
    /// It is ourselves.
    Own,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reregistered => "no longer the holder of its uid",
            Self::Own => "this validator itself",
        })
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
        /// Beacon round that reveals it, where it is timelocked.
        reveal_round: Option<u64>,
    },
    /// The chain said no.
    Rejected(String),
    /// Nobody knows.
    Unconfirmed(String),
}

impl Fate {
    /// Where a submission of this fate is.
    pub fn status(&self) -> SubmissionStatus {
        match self {
            Self::Included { .. } => SubmissionStatus::Included,
            Self::Rejected(_) => SubmissionStatus::Rejected,
            Self::Unconfirmed(_) => SubmissionStatus::Unconfirmed,
        }
    }
}

/// A submission as stored.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
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
    /// What it was made by; none for one of a program that did not keep it.
    pub terms: Option<Terms>,
    /// Where it is.
    pub status: SubmissionStatus,
    /// Why, if it was not included.
    pub reason: Option<String>,
    /// Hash of the extrinsic, `0x…`.
    pub extrinsic: Option<String>,
    /// The block that holds it.
    pub confirmed_block: Option<Block>,
    /// Beacon round that reveals it, where it is timelocked.
    pub reveal_round: Option<u64>,
}

/// A vector about to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewSubmission<'a> {
    /// The round that it pays.
    pub round: RoundKey,
    /// The block that uids and limits were read at.
    pub block: Block,
    /// Whom it pays, and how much.
    pub weights: &'a Weights,
    /// What it was made by.
    pub terms: &'a Terms,
    /// Whether it will not be sent.
    pub dry_run: bool,
    /// Now.
    pub at_ms: i64,
}

impl SubmissionRow {
    /// Uids with their values.
    pub fn pairs(&self) -> Vec<(u16, u16)> {
        self.uids.iter().copied().zip(self.values.iter().copied()).collect()
    }
}

impl Store {
    /// Writes a vector that is about to be sent, or, in a dry run, will not be.
    pub async fn record_submission(&self, submission: NewSubmission<'_>) -> Result<SubmissionKey, StoreError> {
        retrying(|| self.try_record_submission(submission)).await
    }

    async fn try_record_submission(&self, submission: NewSubmission<'_>) -> Result<SubmissionKey, StoreError> {
        let NewSubmission { round, block, weights, terms, dry_run, at_ms } = submission;
        let (mode, status) = match (dry_run, terms.timelocked) {
            (true, _) => ("dry_run", SubmissionStatus::Skipped),
            (false, true) => ("commit", SubmissionStatus::Pending),
            (false, false) => ("set", SubmissionStatus::Pending),
        };
        let mut transaction = self.begin().await?;
        let row = sqlx::query(
            "INSERT INTO weight_submissions (round, at, block, mode, version_key, uids, \"values\", status, terms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
        )
        .bind(round.0)
        .bind(at_ms)
        .bind(int(block))
        .bind(mode)
        .bind(int(weights.version_key()))
        .bind(serde_json::json!(weights.uids()).to_string())
        .bind(serde_json::json!(weights.values()).to_string())
        .bind(status.as_str())
        .bind(serde_json::json!(terms).to_string())
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
        let (reason, block, extrinsic, reveal_round) = match fate {
            Fate::Included { block, extrinsic, reveal_round } => (None, Some(*block), *extrinsic, *reveal_round),
            Fate::Rejected(reason) | Fate::Unconfirmed(reason) => (Some(reason), None, None, None),
        };
        let mut transaction = self.begin().await?;
        let settled = sqlx::query(
            "UPDATE weight_submissions SET status = $1, reason = $2, confirmed_block = $3, extrinsic = $4,
                                           reveal_round = $5
             WHERE id = $6 AND status IN ('pending', 'unconfirmed')",
        )
        .bind(fate.status().as_str())
        .bind(reason.map(|reason| reason.chars().take(REASON_CHARS).collect::<String>()))
        .bind(block.map(int))
        .bind(extrinsic.map(|hash| format!("0x{}", hex::encode(hash))))
        .bind(reveal_round.map(int))
        .bind(key.0)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        commit(transaction).await?;
        Ok(settled == 1)
    }

    /// The last submissions, newest first, at most `limit`; dry runs are among them.
    pub async fn last_submissions(&self, limit: i64) -> Result<Vec<SubmissionRow>, StoreError> {
        self.submissions_up_to(RoundKey(i64::MAX), limit).await
    }

    /// The last submissions that pay `round` or an earlier one, newest first, at most `limit`.
    pub async fn submissions_up_to(&self, round: RoundKey, limit: i64) -> Result<Vec<SubmissionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, round, at, block, version_key, uids, \"values\", terms, status, reason, extrinsic,
                    confirmed_block, reveal_round
             FROM weight_submissions WHERE round <= $2 ORDER BY id DESC LIMIT $1",
        )
        .bind(limit)
        .bind(round.0)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(submission_of).collect()
    }
}

pub(super) fn submission_of(row: &AnyRow) -> Result<SubmissionRow, StoreError> {
    let number = |column| Ok::<_, StoreError>(row.try_get::<Option<i64>, _>(column)?.map(|number| number as u64));
    let terms: Option<String> = row.try_get("terms")?;
    Ok(SubmissionRow {
        key: SubmissionKey(row.try_get("id")?),
        round: RoundKey(row.try_get("round")?),
        at_ms: row.try_get("at")?,
        block: number("block")?.unwrap_or(0),
        version_key: number("version_key")?.unwrap_or(0),
        uids: list(row, "uids")?,
        values: list(row, "values")?,
        terms: terms.map(|text| of_json("terms", text)).transpose()?,
        status: parsed("weight_submissions", row, "status")?,
        reason: row.try_get("reason")?,
        extrinsic: row.try_get("extrinsic")?,
        confirmed_block: number("confirmed_block")?,
        reveal_round: number("reveal_round")?,
    })
}

fn list<T: DeserializeOwned>(row: &AnyRow, column: &'static str) -> Result<Vec<T>, StoreError> {
    of_json(column, row.try_get(column)?)
}

fn of_json<T: DeserializeOwned>(column: &'static str, text: String) -> Result<T, StoreError> {
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt {
        table: "weight_submissions",
        what: column,
        value: text,
    })
}
