//! What was asked and how it ended, page by page; one challenge whole; how fast verdicts are.

use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, WorkerId};
use serde::Serialize;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::super::challenge::kind_of;
use super::super::{Store, StoreError, parsed};
use super::{Page, one_more};
use crate::challenge::state::Status;

/// The newest verdicts that [`Store::verdict_times`] looks at.
const TIMED_VERDICTS: i64 = 200;

/// A challenge.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChallengeLine {
    /// Its name on the wire.
    #[schema(value_type = String)]
    pub id: ChallengeId,
    /// Its worker's miner.
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Who was asked.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// `cpu_matrix` or `gpu_matrix`.
    #[schema(value_type = String)]
    pub kind: ChallengeKind,
    /// Side of the matrices.
    pub size: i64,
    /// Multiplications, or the factor of the result on GPUs.
    pub iterations: i64,
    /// Where it is: `created`, `sent`, `committed`, `verifying`, `verified`, `failed` or `void`.
    pub status: String,
    /// Whether it counts for the score; an operator's own test does not.
    pub counted: bool,
    /// When it was made, unix milliseconds UTC.
    pub created_at_ms: i64,
    /// When it was handed out.
    pub sent_at_ms: Option<i64>,
    /// When its commitment came.
    pub committed_at_ms: Option<i64>,
    /// When its proof came.
    pub proof_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// From its hand-out to its commitment.
    pub compute_ms: Option<f64>,
    /// What judging it took.
    pub verify_ms: Option<f64>,
    /// Units (processors or GPUs) that committed.
    pub units: Option<i64>,
    /// Those that passed.
    pub units_passed: Option<i64>,
    /// The lasting short name of why it did not pass.
    pub code: Option<String>,
    /// The same in words.
    pub note: Option<String>,
}

/// One challenge with its units.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChallengeWhole {
    /// What the list of challenges shows.
    pub challenge: ChallengeLine,
    /// What committed, each with its verdict.
    pub units: Vec<UnitVerdict>,
}

/// A unit of a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnitVerdict {
    /// `-1` for the processor, else a GPU's UUID.
    pub unit: String,
    /// The Merkle root that it committed to.
    pub root: String,
    /// Whether it passed; null before the verdict.
    pub passed: Option<bool>,
    /// The lasting short name of why it did not.
    pub code: Option<String>,
    /// The same in words.
    pub note: Option<String>,
}

/// Which challenges are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChallengeFilter {
    /// Of this miner.
    pub hotkey: Option<Hotkey>,
    /// Of workers of this id.
    pub worker_id: Option<WorkerId>,
    /// In this status.
    pub status: Option<Status>,
}

/// How long the newest verdicts took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct VerdictTimes {
    /// Verdicts looked at: the newest 200 at most.
    pub verdicts: i64,
    /// Mean time of judging.
    pub verify_mean_ms: Option<f64>,
    /// The longest.
    pub verify_max_ms: Option<f64>,
    /// The longest time from a proof's arrival to its verdict.
    pub wait_max_ms: Option<i64>,
}

/// All that [`ChallengeLine`] holds.
macro_rules! challenge_columns {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.uuid, w.hotkey, w.worker_id, c.kind, c.size, c.iterations, c.status, c.test, c.created_at,
                    c.sent_at, c.committed_at, c.proof_at, c.finished_at, c.compute_ms, c.verify_ms, c.units_total,
                    c.units_ok, c.fail_code, c.fail_note
             FROM challenges c JOIN workers w ON w.id = c.worker WHERE ",
            $rest
        )
    };
}

impl Store {
    /// Challenges, the newest first, from before row `before` on.
    pub async fn challenge_page(
        &self,
        filter: &ChallengeFilter,
        before: i64,
        limit: u32,
    ) -> Result<Page<ChallengeLine>, StoreError> {
        let rows = sqlx::query(challenge_columns!(
            "c.id < $1 AND ($2 = '' OR w.hotkey = $2) AND ($3 = '' OR w.worker_id = $3) AND ($4 = '' OR c.status = $4)
             ORDER BY c.id DESC LIMIT $5"
        ))
        .bind(before)
        .bind(filter.hotkey.map(|hotkey| hotkey.to_string()).unwrap_or_default())
        .bind(filter.worker_id.as_ref().map(|worker_id| worker_id.as_str().to_owned()).unwrap_or_default())
        .bind(filter.status.map(Status::as_str).unwrap_or_default())
        .bind(one_more(limit))
        .fetch_all(&self.reader)
        .await?;
        let challenges = rows.iter().map(keyed_challenge).collect::<Result<Vec<_>, _>>()?;
        let Page { items, next } = Page::of(challenges, limit, |(id, _)| id.to_string());
        Ok(Page { items: items.into_iter().map(|(_, challenge)| challenge).collect(), next })
    }

    /// One challenge with its units; none when it never was, or is forgotten.
    pub async fn challenge_whole(&self, id: &ChallengeId) -> Result<Option<ChallengeWhole>, StoreError> {
        let row = sqlx::query(challenge_columns!("c.uuid = $1")).bind(id.as_str()).fetch_optional(&self.reader).await?;
        let Some((key, challenge)) = row.as_ref().map(keyed_challenge).transpose()? else { return Ok(None) };
        let rows = sqlx::query(
            "SELECT unit, root, ok, fail_code, fail_note FROM challenge_units WHERE challenge = $1 ORDER BY unit",
        )
        .bind(key)
        .fetch_all(&self.reader)
        .await?;
        let units = rows.iter().map(|row| {
            Ok(UnitVerdict {
                unit: row.try_get("unit")?,
                root: row.try_get("root")?,
                passed: row.try_get::<Option<i64>, _>("ok")?.map(|ok| ok != 0),
                code: row.try_get("fail_code")?,
                note: row.try_get("fail_note")?,
            })
        });
        let units = units.collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Some(ChallengeWhole { challenge, units }))
    }

    /// How long the newest verdicts took.
    pub async fn verdict_times(&self) -> Result<VerdictTimes, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS verdicts, AVG(verify_ms) AS mean, MAX(verify_ms) AS longest,
                    MAX(finished_at - proof_at) AS waited
             FROM (SELECT verify_ms, finished_at, proof_at FROM challenges
                   WHERE verify_ms IS NOT NULL ORDER BY id DESC LIMIT $1) AS newest",
        )
        .bind(TIMED_VERDICTS)
        .fetch_one(&self.reader)
        .await?;
        Ok(VerdictTimes {
            verdicts: row.try_get("verdicts")?,
            verify_mean_ms: row.try_get("mean")?,
            verify_max_ms: row.try_get("longest")?,
            wait_max_ms: row.try_get("waited")?,
        })
    }
}

fn keyed_challenge(row: &AnyRow) -> Result<(i64, ChallengeLine), StoreError> {
    let challenge = ChallengeLine {
        id: parsed("challenges", row, "uuid")?,
        hotkey: parsed("workers", row, "hotkey")?,
        worker_id: parsed("workers", row, "worker_id")?,
        kind: kind_of(row, "kind")?,
        size: row.try_get("size")?,
        iterations: row.try_get("iterations")?,
        status: row.try_get("status")?,
        counted: row.try_get::<i64, _>("test")? == 0,
        created_at_ms: row.try_get("created_at")?,
        sent_at_ms: row.try_get("sent_at")?,
        committed_at_ms: row.try_get("committed_at")?,
        proof_at_ms: row.try_get("proof_at")?,
        finished_at_ms: row.try_get("finished_at")?,
        compute_ms: row.try_get("compute_ms")?,
        verify_ms: row.try_get("verify_ms")?,
        units: row.try_get("units_total")?,
        units_passed: row.try_get("units_ok")?,
        code: row.try_get("fail_code")?,
        note: row.try_get("fail_note")?,
    };
    Ok((row.try_get("id")?, challenge))
}
