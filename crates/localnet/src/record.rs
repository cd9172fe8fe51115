//! What the validator has written down in this run, read from its database as any operator may: read-only.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use sqlx::{
    Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

/// How long a read waits for the writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The validator's database.
#[derive(Debug, Clone)]
pub struct Record {
    path: PathBuf,
}

/// What happened since a moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Workers that the validator heard of.
    pub workers_heard: u64,
    /// Challenges written.
    pub created: u64,
    /// Challenges that a miner fetched.
    pub sent: u64,
    /// Challenges whose commitment is stored.
    pub committed: u64,
    /// Challenges whose proof is stored.
    pub proved: u64,
    /// Challenges with evidence against the worker, or unanswered.
    pub failed: u64,
    /// Challenges that count for nothing.
    pub voided: u64,
    /// The verified challenges, oldest first.
    pub verified: Vec<Verified>,
    /// Scoring rounds begun after the first verdict "verified".
    pub rounds_after_verdict: u64,
    /// The newest weights that the chain took.
    pub submission: Option<Submission>,
}

/// A verified challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Its id on the wire.
    pub challenge_id: String,
    /// When it was verified (Unix milliseconds).
    pub finished_at_ms: i64,
}

/// Weights that the validator submitted and found in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submission {
    /// When its scoring round began (Unix milliseconds).
    pub round_at_ms: i64,
    /// The block that holds it.
    pub block: u64,
    /// Hash of the extrinsic, as `0x…`.
    pub extrinsic: String,
    /// The weights by uid.
    pub weights: Vec<(u16, u16)>,
}

/// The database cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the validator's database {path} cannot be read: {source}")]
pub struct RecordError {
    path: PathBuf,
    source: sqlx::Error,
}

impl Record {
    /// The database at `path`, which the validator may not have made yet.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What happened since `since_ms` (Unix milliseconds); nothing, where the validator has no tables yet.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub async fn since(&self, since_ms: i64) -> Result<Facts, RecordError> {
        if !self.path.exists() {
            return Ok(Facts::default());
        }
        match self.read(since_ms).await {
            Ok(facts) => Ok(facts),
            Err(sqlx::Error::Database(error)) if error.message().starts_with("no such table") => Ok(Facts::default()),
            Err(source) => Err(RecordError { path: self.path.clone(), source }),
        }
    }

    async fn read(&self, since_ms: i64) -> Result<Facts, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(&self.path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        // One moment for all reads.
        let mut moment = connection.begin().await?;
        let heard = sqlx::query("SELECT COUNT(*) FROM workers WHERE last_heartbeat_at >= $1")
            .bind(since_ms)
            .fetch_one(&mut *moment)
            .await?;
        let counts = sqlx::query(
            "SELECT COUNT(*), COUNT(sent_at), COUNT(committed_at), COUNT(proof_at),
                    COUNT(CASE status WHEN 'failed' THEN 1 END), COUNT(CASE status WHEN 'void' THEN 1 END)
             FROM challenges WHERE created_at >= $1",
        )
        .bind(since_ms)
        .fetch_one(&mut *moment)
        .await?;
        let verified: Vec<Verified> = sqlx::query(
            "SELECT uuid, finished_at FROM challenges
             WHERE status = 'verified' AND created_at >= $1 ORDER BY finished_at, uuid",
        )
        .bind(since_ms)
        .fetch_all(&mut *moment)
        .await?
        .iter()
        .map(|row| Ok(Verified { challenge_id: row.try_get(0)?, finished_at_ms: row.try_get(1)? }))
        .collect::<Result<_, sqlx::Error>>()?;
        let rounds = match verified.first() {
            Some(first) => {
                let rounds = sqlx::query("SELECT COUNT(*) FROM scoring_rounds WHERE at >= $1")
                    .bind(first.finished_at_ms)
                    .fetch_one(&mut *moment)
                    .await?;
                count(&rounds, 0)?
            }
            None => 0,
        };
        let submission = sqlx::query(
            "SELECT r.at, COALESCE(s.confirmed_block, s.block), s.extrinsic, s.uids, s.\"values\"
             FROM weight_submissions s JOIN scoring_rounds r ON r.id = s.round
             WHERE s.status = 'included' AND s.at >= $1 ORDER BY s.id DESC LIMIT 1",
        )
        .bind(since_ms)
        .fetch_optional(&mut *moment)
        .await?;
        Ok(Facts {
            workers_heard: count(&heard, 0)?,
            created: count(&counts, 0)?,
            sent: count(&counts, 1)?,
            committed: count(&counts, 2)?,
            proved: count(&counts, 3)?,
            failed: count(&counts, 4)?,
            voided: count(&counts, 5)?,
            verified,
            rounds_after_verdict: rounds,
            submission: submission.as_ref().map(read_submission).transpose()?,
        })
    }
}

fn count(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    let count: i64 = row.try_get(column)?;
    // A count is never negative.
    Ok(count.unsigned_abs())
}

fn read_submission(row: &SqliteRow) -> Result<Submission, sqlx::Error> {
    let list = |column: usize| -> Result<Vec<u16>, sqlx::Error> {
        let text: String = row.try_get(column)?;
        serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    let mut weights: Vec<(u16, u16)> = list(3)?.into_iter().zip(list(4)?).collect();
    weights.sort_unstable();
    Ok(Submission {
        round_at_ms: row.try_get(0)?,
        block: count(row, 1)?,
        extrinsic: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
        weights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns that the reads above touch.
    const TABLES: &str = "
        CREATE TABLE workers (last_heartbeat_at INTEGER);
        CREATE TABLE challenges (uuid TEXT, status TEXT, created_at INTEGER, sent_at INTEGER, committed_at INTEGER,
                                 proof_at INTEGER, finished_at INTEGER);
        CREATE TABLE scoring_rounds (id INTEGER, at INTEGER);
        CREATE TABLE weight_submissions (id INTEGER, round INTEGER, at INTEGER, block INTEGER, uids TEXT,
                                         \"values\" TEXT, extrinsic TEXT, status TEXT, confirmed_block INTEGER);";

    const ROWS: &str = "
        INSERT INTO workers VALUES (50), (150);
        INSERT INTO challenges VALUES ('old', 'verified', 90, 91, 92, 93, 94), ('good', 'verified', 110, 111, 112, 113, 114),
                                      ('bad', 'failed', 110, 111, NULL, NULL, 120), ('new', 'created', 130, NULL, NULL, NULL, NULL);
        INSERT INTO scoring_rounds VALUES (1, 105), (2, 115);
        INSERT INTO weight_submissions VALUES (1, 1, 106, 7, '[1]', '[1]', '0xaa', 'included', 8),
                                              (2, 2, 116, 9, '[2,1]', '[5,65535]', '0xbb', 'included', NULL),
                                              (3, 2, 117, 10, '[1]', '[9]', '0xcc', 'rejected', NULL);";

    async fn record(folder: &Path, statements: &'static str) -> Record {
        let path = folder.join("validator.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Record::at(&path)
    }

    #[tokio::test]
    async fn only_what_happened_since_the_start_counts() {
        let folder = tempfile::tempdir().unwrap();
        record(folder.path(), TABLES).await;
        let facts = record(folder.path(), ROWS).await.since(100).await.unwrap();
        let expected = Facts {
            workers_heard: 1,
            created: 3,
            sent: 2,
            committed: 1,
            proved: 1,
            failed: 1,
            voided: 0,
            verified: vec![Verified { challenge_id: "good".into(), finished_at_ms: 114 }],
            rounds_after_verdict: 1,
            submission: Some(Submission {
                round_at_ms: 115,
                block: 9,
                extrinsic: "0xbb".into(),
                weights: vec![(1, 65535), (2, 5)],
            }),
        };
        assert_eq!(facts, expected);
    }

    #[tokio::test]
    async fn a_validator_that_has_just_started_has_written_nothing_yet() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::at(&folder.path().join("none.db")).since(0).await.unwrap(), Facts::default());
        let record = record(folder.path(), "CREATE TABLE miners (hotkey TEXT)").await;
        assert_eq!(record.since(0).await.unwrap(), Facts::default());
    }
}
