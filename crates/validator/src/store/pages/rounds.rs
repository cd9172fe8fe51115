//! What it was worth: rounds, a miner's scores from round to round, submissions, page by page.

use byteleap_protocol::hotkey::Hotkey;
use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::super::round::RoundKey;
use super::super::submission::{SubmissionRow, submission_of};
use super::super::{Store, StoreError, parsed};
use super::{Page, one_more};

/// A round of scores.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoundLine {
    /// Its number.
    pub round: i64,
    /// The instant of its facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// The block of the metagraph that it scored.
    pub block: Option<i64>,
    /// The profile that it was scored by.
    pub profile: String,
    /// What became of it: `scored`, or why nobody is paid.
    pub outcome: String,
    /// Miners in it.
    pub miners: i64,
    /// Workers in it.
    pub workers: i64,
    /// The largest raw challenge score.
    pub max_raw: Option<f64>,
    /// How long it took to compute.
    pub took_ms: Option<i64>,
}

/// One round with its miners.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoundWhole {
    /// What the list of rounds shows.
    pub round: RoundLine,
    /// Its miners, the largest weight first.
    pub miners: Vec<ScoreLine>,
}

/// A miner's score in one round; the numbers in the order in which they follow from one another.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ScoreLine {
    /// The round.
    pub round: i64,
    /// The miner's hotkey (SS58).
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its uid then.
    pub uid: Option<i64>,
    /// Whether it was online.
    pub online: bool,
    /// Sum of its best performances.
    pub raw: f64,
    /// That over the round's maximum.
    pub norm: f64,
    /// The challenge score.
    pub challenge: f64,
    /// The lease score.
    pub lease: f64,
    /// The availability, 0 to 1.
    pub availability: f64,
    /// Challenge and lease, weighed.
    pub composite: f64,
    /// Its share of all scores, 0 to 1.
    pub weight: f64,
}

/// All that [`RoundLine`] holds.
macro_rules! round_columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, at, block, profile, status, miners, workers, max_raw, took_ms FROM scoring_rounds WHERE ",
            $rest
        )
    };
}

/// All that [`ScoreLine`] holds.
macro_rules! score_columns {
    ($rest:literal) => {
        concat!(
            "SELECT round, hotkey, uid, online, raw, norm, challenge, lease, availability, composite, weight
             FROM round_miners WHERE ",
            $rest
        )
    };
}

impl Store {
    /// Rounds, the newest first, from before round `before` on.
    pub async fn round_page(&self, before: i64, limit: u32) -> Result<Page<RoundLine>, StoreError> {
        let rows = sqlx::query(round_columns!("id < $1 ORDER BY id DESC LIMIT $2"))
            .bind(before)
            .bind(one_more(limit))
            .fetch_all(&self.reader)
            .await?;
        let rounds = rows.iter().map(round_line).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::of(rounds, limit, |round| round.round.to_string()))
    }

    /// One round with its miners; none when it never was, or is forgotten.
    pub async fn round_with_miners(&self, key: RoundKey) -> Result<Option<RoundWhole>, StoreError> {
        let row = sqlx::query(round_columns!("id = $1")).bind(key.0).fetch_optional(&self.reader).await?;
        let Some(round) = row.as_ref().map(round_line).transpose()? else { return Ok(None) };
        let rows = sqlx::query(score_columns!("round = $1 ORDER BY weight DESC, hotkey"))
            .bind(key.0)
            .fetch_all(&self.reader)
            .await?;
        Ok(Some(RoundWhole { round, miners: rows.iter().map(score_line).collect::<Result<_, _>>()? }))
    }

    /// A miner's scores, the newest first, from before round `before` on.
    pub async fn score_page(&self, hotkey: Hotkey, before: i64, limit: u32) -> Result<Page<ScoreLine>, StoreError> {
        let rows = sqlx::query(score_columns!("hotkey = $1 AND round < $2 ORDER BY round DESC LIMIT $3"))
            .bind(hotkey.to_string())
            .bind(before)
            .bind(one_more(limit))
            .fetch_all(&self.reader)
            .await?;
        let scores = rows.iter().map(score_line).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::of(scores, limit, |score| score.round.to_string()))
    }

    /// Submissions, the newest first, from before row `before` on; dry runs are among them.
    pub async fn submission_page(&self, before: i64, limit: u32) -> Result<Page<SubmissionRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM weight_submissions WHERE id < $1 ORDER BY id DESC LIMIT $2")
            .bind(before)
            .bind(one_more(limit))
            .fetch_all(&self.reader)
            .await?;
        let submissions = rows.iter().map(submission_of).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::of(submissions, limit, |submission| submission.key.0.to_string()))
    }
}

fn round_line(row: &AnyRow) -> Result<RoundLine, StoreError> {
    Ok(RoundLine {
        round: row.try_get("id")?,
        at_ms: row.try_get("at")?,
        block: row.try_get("block")?,
        profile: row.try_get("profile")?,
        outcome: row.try_get("status")?,
        miners: row.try_get("miners")?,
        workers: row.try_get("workers")?,
        max_raw: row.try_get("max_raw")?,
        took_ms: row.try_get("took_ms")?,
    })
}

fn score_line(row: &AnyRow) -> Result<ScoreLine, StoreError> {
    Ok(ScoreLine {
        round: row.try_get("round")?,
        hotkey: parsed("round_miners", row, "hotkey")?,
        uid: row.try_get("uid")?,
        online: row.try_get::<i64, _>("online")? != 0,
        raw: row.try_get("raw")?,
        norm: row.try_get("norm")?,
        challenge: row.try_get("challenge")?,
        lease: row.try_get("lease")?,
        availability: row.try_get("availability")?,
        composite: row.try_get("composite")?,
        weight: row.try_get("weight")?,
    })
}
