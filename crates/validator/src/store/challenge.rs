//! Challenges on their way: asked, answered, judged.
//!
//! Every method that moves challenges names the status they must be in, in the same statement: two requests, a request
//! and a sweep, or two processes can race, and exactly one of them moves the row.

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, Iterations, MatrixSize, Seed, Unit, WorkerId};
use byteleap_protocol::merkle::NodeHash;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::heartbeat::MINER_DEADLINE_MS;
use super::{ChallengeKey, Store, StoreError, WorkerKey, commit, parsed, retrying};
use crate::challenge::state::{Failure, Loss, Status, Step, Verdict};

/// Everything that [`ChallengeRow`] holds, in one place.
macro_rules! challenge_columns {
    () => {
        challenge_columns!("")
    };
    ($more:literal) => {
        concat!(
            "SELECT c.id, c.uuid, w.worker_id, w.hotkey, c.size, c.iterations, c.seed, c.params, c.status, c.sent_at,
                    c.expires_at, c.targets",
            $more,
            " FROM challenges c JOIN workers w ON w.id = c.worker"
        )
    };
}
/// The kind in the column `kind`; GPU challenges come beside it.
const CPU_MATRIX: &str = "cpu_matrix";

/// A worker whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWorker {
    /// Its row.
    pub key: WorkerKey,
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
}

/// A challenge to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChallenge {
    /// Its name on the wire.
    pub id: ChallengeId,
    /// Who shall compute it.
    pub worker: WorkerKey,
    /// Side of the matrices.
    pub size: MatrixSize,
    /// Multiplications.
    pub iterations: Iterations,
    /// What the matrices come from.
    pub seed: Seed,
    /// `round_<unix seconds>`, common to the challenges of one pass.
    pub round_id: String,
}

/// A challenge with its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeRow {
    /// Its row.
    pub key: ChallengeKey,
    /// Its name on the wire.
    pub id: ChallengeId,
    /// The worker that must answer.
    pub worker_id: WorkerId,
    /// That worker's miner.
    pub hotkey: Hotkey,
    /// Side of the matrices.
    pub size: MatrixSize,
    /// Multiplications.
    pub iterations: Iterations,
    /// What the matrices come from.
    pub seed: Seed,
    /// The pass that made it.
    pub round_id: String,
    /// Where it is.
    pub status: Status,
    /// When it was handed out.
    pub sent_at_ms: Option<i64>,
    /// Deadline of the status it is in.
    pub expires_at_ms: Option<i64>,
    /// The rows to open, ascending; empty before the commitment.
    pub rows: Vec<u32>,
}

/// A commitment, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommitment {
    /// Root over the row hashes.
    pub root: NodeHash,
    /// The rows drawn for it, ascending.
    pub rows: Vec<u32>,
    /// When it arrived.
    pub at_ms: i64,
    /// Until when the proof may arrive.
    pub proof_deadline_at_ms: i64,
}

/// A challenge that did not pass, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissedChallenge {
    /// Its name on the wire.
    pub challenge_id: ChallengeId,
    /// Whose it was.
    pub worker_id: WorkerId,
    /// `failed`, with evidence against the worker, or `void`, which counts for nothing.
    pub status: String,
    /// When it ended, unix milliseconds UTC.
    pub finished_at_ms: i64,
    /// The lasting short name of the reason.
    pub code: String,
    /// The reason in words.
    pub note: String,
}

/// How many challenges a sweep ended, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Not asked for in time.
    pub never_fetched: u64,
    /// No commitment in time.
    pub commitment_late: u64,
    /// No proof in time.
    pub proof_late: u64,
    /// Neither in time, but we were away for some of it.
    pub interrupted: u64,
}

impl Store {
    /// The workers that may get a challenge now, by miner and age (validator spec 4.2): online, active, capable, not
    /// leased, nothing open, last asked before `asked_before_ms`, and a miner heard of since `heard_since_ms`.
    pub async fn due_workers(
        &self,
        now_ms: i64,
        heard_since_ms: i64,
        asked_before_ms: i64,
    ) -> Result<Vec<DueWorker>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.id, w.hotkey, w.worker_id FROM workers w JOIN miners m ON m.hotkey = w.hotkey
             WHERE m.last_heartbeat_at >= $1 AND w.state = 'online' AND w.deadline_at >= $2 AND w.over_limit = 0
               AND w.capabilities LIKE '%\"cpu_matrix\"%'
               AND NOT EXISTS (SELECT 1 FROM leases l
                               WHERE l.hotkey = w.hotkey AND l.worker_id = w.worker_id AND l.score > 0)
               AND NOT EXISTS (SELECT 1 FROM challenges c WHERE c.worker = w.id
                               AND (c.status IN ('created', 'sent', 'committed', 'verifying')
                                    OR c.created_at > $3))
             ORDER BY w.hotkey, w.first_seen_at, w.id",
        )
        .bind(heard_since_ms.max(now_ms - MINER_DEADLINE_MS))
        .bind(now_ms)
        .bind(asked_before_ms)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DueWorker {
                    key: WorkerKey(row.try_get("id")?),
                    hotkey: parsed("workers", row, "hotkey")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                })
            })
            .collect()
    }

    /// Writes challenges, each `created` until `expires_at_ms`.
    pub async fn create_challenges(
        &self,
        challenges: &[NewChallenge],
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<(), StoreError> {
        retrying(|| self.try_create_challenges(challenges, now_ms, expires_at_ms)).await
    }

    async fn try_create_challenges(
        &self,
        challenges: &[NewChallenge],
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        for challenge in challenges {
            sqlx::query(
                "INSERT INTO challenges (uuid, worker, kind, size, iterations, seed, params, status, created_at,
                                         expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(challenge.id.as_str())
            .bind(challenge.worker.0)
            .bind(CPU_MATRIX)
            .bind(i64::from(challenge.size.get()))
            .bind(i64::from(challenge.iterations.get()))
            .bind(challenge.seed.as_str())
            .bind(serde_json::json!({ "round_id": challenge.round_id }).to_string())
            .bind(Status::Created.as_str())
            .bind(now_ms)
            .bind(expires_at_ms)
            .execute(&mut *transaction)
            .await?;
        }
        commit(transaction).await?;
        Ok(())
    }

    /// Hands out what waits for this miner, oldest first, at most `limit`; each is `sent` when this returns, with one
    /// `sent_at` for the batch.
    pub async fn send_challenges(
        &self,
        hotkey: Hotkey,
        limit: i64,
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<Vec<ChallengeRow>, StoreError> {
        retrying(|| self.try_send_challenges(hotkey, limit, now_ms, expires_at_ms)).await
    }

    async fn try_send_challenges(
        &self,
        hotkey: Hotkey,
        limit: i64,
        now_ms: i64,
        expires_at_ms: i64,
    ) -> Result<Vec<ChallengeRow>, StoreError> {
        let mut transaction = self.begin().await?;
        let waiting = sqlx::query(concat!(
            challenge_columns!(),
            " WHERE w.hotkey = $1 AND c.status = $2 AND c.expires_at >= $3 ORDER BY c.created_at, c.id LIMIT $4"
        ))
        .bind(hotkey.to_string())
        .bind(Step::SEND.from.as_str())
        .bind(now_ms)
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        let mut sent = Vec::with_capacity(waiting.len());
        for row in &waiting {
            let mut challenge = challenge_of(row)?;
            let moved = sqlx::query(
                "UPDATE challenges SET status = $1, sent_at = $2, expires_at = $3 WHERE id = $4 AND status = $5",
            )
            .bind(Step::SEND.to.as_str())
            .bind(now_ms)
            .bind(expires_at_ms)
            .bind(challenge.key.0)
            .bind(Step::SEND.from.as_str())
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            if moved == 1 {
                challenge.status = Step::SEND.to;
                challenge.sent_at_ms = Some(now_ms);
                challenge.expires_at_ms = Some(expires_at_ms);
                sent.push(challenge);
            }
        }
        commit(transaction).await?;
        Ok(sent)
    }

    /// The challenge of this name, if it belongs to a worker of this miner.
    pub async fn challenge(&self, hotkey: Hotkey, id: &ChallengeId) -> Result<Option<ChallengeRow>, StoreError> {
        let row = sqlx::query(concat!(challenge_columns!(), " WHERE c.uuid = $1 AND w.hotkey = $2"))
            .bind(id.as_str())
            .bind(hotkey.to_string())
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(challenge_of).transpose()
    }

    /// The challenge in this row.
    pub(super) async fn challenge_by_key(&self, key: ChallengeKey) -> Result<Option<ChallengeRow>, StoreError> {
        let row = sqlx::query(concat!(challenge_columns!(), " WHERE c.id = $1"))
            .bind(key.0)
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(challenge_of).transpose()
    }

    /// Stores a commitment with the rows drawn for it; false, and nothing stored, when the challenge is no longer
    /// `sent`.
    pub async fn commit_challenge(&self, key: ChallengeKey, commitment: &NewCommitment) -> Result<bool, StoreError> {
        retrying(|| self.try_commit_challenge(key, commitment)).await
    }

    async fn try_commit_challenge(&self, key: ChallengeKey, commitment: &NewCommitment) -> Result<bool, StoreError> {
        let targets: Vec<(u32, Option<u32>)> = commitment.rows.iter().map(|row| (*row, None)).collect();
        let mut transaction = self.begin().await?;
        let moved = sqlx::query(
            "UPDATE challenges SET status = $1, committed_at = $2, expires_at = $3, targets = $4, units_total = 1,
                                   compute_ms = CAST($2 - sent_at AS DOUBLE PRECISION)
             WHERE id = $5 AND status = $6",
        )
        .bind(Step::COMMIT.to.as_str())
        .bind(commitment.at_ms)
        .bind(commitment.proof_deadline_at_ms)
        .bind(serde_json::json!(targets).to_string())
        .bind(key.0)
        .bind(Step::COMMIT.from.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if moved == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO challenge_units (challenge, unit, root) VALUES ($1, $2, $3)")
            .bind(key.0)
            .bind(Unit::Cpu.as_str())
            .bind(commitment.root.to_string())
            .execute(&mut *transaction)
            .await?;
        commit(transaction).await?;
        Ok(true)
    }

    /// The root that was committed to, if one was.
    pub async fn committed_root(&self, key: ChallengeKey) -> Result<Option<NodeHash>, StoreError> {
        let row = sqlx::query("SELECT root FROM challenge_units WHERE challenge = $1 AND unit = $2")
            .bind(key.0)
            .bind(Unit::Cpu.as_str())
            .fetch_optional(&self.reader)
            .await?;
        row.as_ref().map(|row| parsed("challenge_units", row, "root")).transpose()
    }

    /// Stores a proof; false, and nothing stored, when the challenge is no longer `committed`.
    pub async fn accept_proof(&self, key: ChallengeKey, body: &[u8], now_ms: i64) -> Result<bool, StoreError> {
        retrying(|| self.try_accept_proof(key, body, now_ms)).await
    }

    async fn try_accept_proof(&self, key: ChallengeKey, body: &[u8], now_ms: i64) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let moved = sqlx::query(
            "UPDATE challenges SET status = $1, proof_at = $2, expires_at = NULL WHERE id = $3 AND status = $4",
        )
        .bind(Step::PROVE.to.as_str())
        .bind(now_ms)
        .bind(key.0)
        .bind(Step::PROVE.from.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if moved == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO challenge_proofs (challenge, body, received_at) VALUES ($1, $2, $3)")
            .bind(key.0)
            .bind(body.to_vec())
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?;
        commit(transaction).await?;
        Ok(true)
    }

    /// Ends what has passed its deadline. A commitment is waited for `grace_ms` longer. Whoever was handed a challenge, or
    /// committed to it, before this process started at `started_at_ms` had less than its time: that is void, not failed.
    pub async fn sweep_challenges(&self, now_ms: i64, grace_ms: i64, started_at_ms: i64) -> Result<Swept, StoreError> {
        retrying(|| self.try_sweep_challenges(now_ms, grace_ms, started_at_ms)).await
    }

    async fn try_sweep_challenges(&self, now_ms: i64, grace_ms: i64, started_at_ms: i64) -> Result<Swept, StoreError> {
        let mut transaction = self.begin().await?;
        let mut end = async |status, verdict, grace_ms, entered_before_ms| {
            let overdue = Overdue { status, due_before_ms: now_ms - grace_ms, entered_before_ms };
            end_expired(&mut transaction, overdue, verdict, now_ms).await
        };
        let restart = Verdict::Void(Loss::Restart);
        let swept = Swept {
            never_fetched: end(Status::Created, Verdict::Void(Loss::NeverFetched), 0, i64::MAX).await?,
            interrupted: end(Status::Sent, restart, grace_ms, started_at_ms).await?
                + end(Status::Committed, restart, 0, started_at_ms).await?,
            commitment_late: end(Status::Sent, Verdict::Failed(Failure::CommitmentLate), grace_ms, i64::MAX).await?,
            proof_late: end(Status::Committed, Verdict::Failed(Failure::ProofLate), 0, i64::MAX).await?,
        };
        commit(transaction).await?;
        Ok(swept)
    }

    /// At start, before anything is served: what passed its deadline while nobody listened is void, not failed.
    /// Whatever still has time goes on, and stored proofs keep their turn.
    pub async fn void_interrupted(&self, now_ms: i64) -> Result<u64, StoreError> {
        retrying(|| self.try_void_interrupted(now_ms)).await
    }

    async fn try_void_interrupted(&self, now_ms: i64) -> Result<u64, StoreError> {
        let restart = Verdict::Void(Loss::Restart);
        let mut transaction = self.begin().await?;
        let mut ended = 0;
        for status in [Status::Created, Status::Sent, Status::Committed] {
            let overdue = Overdue { status, due_before_ms: now_ms, entered_before_ms: i64::MAX };
            ended += end_expired(&mut transaction, overdue, restart, now_ms).await?;
        }
        commit(transaction).await?;
        Ok(ended)
    }

    /// The challenges of a miner that ended without passing, newest first, at most `limit`.
    pub async fn missed_challenges(&self, hotkey: Hotkey, limit: i64) -> Result<Vec<MissedChallenge>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.uuid, w.worker_id, c.status, c.finished_at, c.fail_code, c.fail_note
             FROM challenges c JOIN workers w ON w.id = c.worker
             WHERE w.hotkey = $1 AND c.status IN ('failed', 'void') ORDER BY c.finished_at DESC, c.id DESC LIMIT $2",
        )
        .bind(hotkey.to_string())
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(MissedChallenge {
                    challenge_id: parsed("challenges", row, "uuid")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    status: row.try_get("status")?,
                    finished_at_ms: row.try_get("finished_at")?,
                    code: row.try_get("fail_code")?,
                    note: row.try_get("fail_note")?,
                })
            })
            .collect()
    }

    /// How many challenges are in each status; statuses without any are absent.
    pub async fn challenge_counts(&self) -> Result<Vec<(Status, i64)>, StoreError> {
        let rows = sqlx::query("SELECT status, COUNT(*) AS n FROM challenges GROUP BY status ORDER BY status")
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(|row| Ok((parsed("challenges", row, "status")?, row.try_get("n")?))).collect()
    }

    /// The names of the challenges verified last, newest first, at most `limit`.
    pub async fn last_verified(&self, limit: i64) -> Result<Vec<ChallengeId>, StoreError> {
        let rows = sqlx::query(
            "SELECT uuid FROM challenges WHERE status = 'verified' ORDER BY finished_at DESC, id DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| parsed("challenges", row, "uuid")).collect()
    }
}

/// Which challenges a deadline ends.
struct Overdue {
    status: Status,
    /// Their deadline is before this.
    due_before_ms: i64,
    /// They came into the status before this.
    entered_before_ms: i64,
}

async fn end_expired(
    transaction: &mut Transaction<'_, Any>,
    overdue: Overdue,
    verdict: Verdict,
    now_ms: i64,
) -> Result<u64, StoreError> {
    let (code, note) = verdict.reason().unzip();
    let ended = sqlx::query(
        "UPDATE challenges SET status = $1, finished_at = $2, units_ok = 0, fail_code = $3, fail_note = $4
         WHERE status = $5 AND expires_at < $6 AND COALESCE(committed_at, sent_at, created_at) < $7",
    )
    .bind(verdict.status().as_str())
    .bind(now_ms)
    .bind(code)
    .bind(note)
    .bind(overdue.status.as_str())
    .bind(overdue.due_before_ms)
    .bind(overdue.entered_before_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(ended.rows_affected())
}

fn challenge_of(row: &AnyRow) -> Result<ChallengeRow, StoreError> {
    let params: String = row.try_get("params")?;
    let params: Params = json("params", &params)?;
    let targets: Option<String> = row.try_get("targets")?;
    let targets: Vec<(u32, Option<u32>)> = targets.map_or(Ok(Vec::new()), |text| json("targets", &text))?;
    Ok(ChallengeRow {
        key: ChallengeKey(row.try_get("id")?),
        id: parsed("challenges", row, "uuid")?,
        worker_id: parsed("workers", row, "worker_id")?,
        hotkey: parsed("workers", row, "hotkey")?,
        size: number(row, "size", MatrixSize::new)?,
        iterations: number(row, "iterations", Iterations::new)?,
        seed: parsed("challenges", row, "seed")?,
        round_id: params.round_id,
        status: parsed("challenges", row, "status")?,
        sent_at_ms: row.try_get("sent_at")?,
        expires_at_ms: row.try_get("expires_at")?,
        rows: targets.into_iter().map(|(row, _)| row).collect(),
    })
}

/// The column `params`.
#[derive(serde::Deserialize)]
struct Params {
    round_id: String,
}

fn number<T, E>(row: &AnyRow, column: &'static str, make: impl Fn(u32) -> Result<T, E>) -> Result<T, StoreError> {
    let number: i64 = row.try_get(column)?;
    let corrupt = || StoreError::Corrupt { table: "challenges", what: column, value: number.to_string() };
    u32::try_from(number).ok().and_then(|number| make(number).ok()).ok_or_else(corrupt)
}

fn json<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt {
        table: "challenges",
        what: column,
        value: text.to_owned(),
    })
}

#[cfg(test)]
impl Store {
    /// Why a challenge ended badly.
    pub(crate) async fn fail_code(&self, key: ChallengeKey) -> Option<String> {
        let row = sqlx::query("SELECT fail_code FROM challenges WHERE id = $1").bind(key.0).fetch_one(&self.reader);
        row.await.unwrap().try_get("fail_code").unwrap()
    }
}
