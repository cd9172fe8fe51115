//! Challenges on their way: asked, answered, judged.
//!
//! Every method that moves challenges names the status they must be in, in the same statement: two requests, a request
//! and a sweep, or two processes can race, and exactly one of them moves the row.

use std::collections::BTreeSet;

use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, GpuUuid, Iterations, MatrixSize, Seed, Unit, WorkerId};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::gpu::OWNERSHIP_LAPSE_MS;
use super::heartbeat::MINER_DEADLINE_MS;
use super::presence::gpu_set_row;
use super::{ChallengeKey, Store, StoreError, WorkerKey, commit, parsed, retrying, texts_of};
use crate::challenge::Kinds;
use crate::challenge::state::{Failure, Loss, Status, Step, UnitFault, Verdict};
use crate::challenge::targets::Targets;
use crate::challenge::units::CommittedUnit;

/// Everything that [`ChallengeRow`] holds, in one place.
macro_rules! challenge_columns {
    () => {
        challenge_columns!("")
    };
    ($more:literal) => {
        concat!(
            "SELECT c.id, c.uuid, c.worker, c.kind, w.worker_id, w.hotkey, c.size, c.iterations, c.seed, c.params, c.status, c.sent_at,
                    c.expires_at, c.targets",
            $more,
            " FROM challenges c JOIN workers w ON w.id = c.worker"
        )
    };
}
/// A worker whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueWorker {
    /// Its row.
    pub key: WorkerKey,
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// What it can compute.
    pub capabilities: BTreeSet<ChallengeKind>,
    /// The models of the GPUs that it holds or claims, where it names them.
    pub models: BTreeSet<Option<String>>,
    /// What it was asked for last.
    pub last_kind: Option<ChallengeKind>,
}

/// A worker that is online, as far as a test of it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testable {
    /// Its row.
    pub key: WorkerKey,
    /// What it can compute.
    pub capabilities: BTreeSet<ChallengeKind>,
    /// Somebody rents it.
    pub is_leased: bool,
    /// A challenge of it has no verdict yet.
    pub has_open: bool,
}

/// A challenge to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChallenge {
    /// Its name on the wire.
    pub id: ChallengeId,
    /// Who shall compute it.
    pub worker: WorkerKey,
    /// What is to be computed.
    pub kind: ChallengeKind,
    /// Side of the matrices.
    pub size: MatrixSize,
    /// Multiplications, or the factor of the result on GPUs.
    pub iterations: Iterations,
    /// What the matrices come from.
    pub seed: Seed,
    /// `round_<unix seconds>`, common to the challenges of one pass.
    pub round_id: String,
    /// An operator's own: it counts for nothing.
    pub is_test: bool,
}

/// A challenge with its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeRow {
    /// Its row.
    pub key: ChallengeKey,
    /// Its name on the wire.
    pub id: ChallengeId,
    /// What is to be computed.
    pub kind: ChallengeKind,
    /// The row of the worker that must answer.
    pub worker: WorkerKey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// That worker's miner.
    pub hotkey: Hotkey,
    /// Side of the matrices.
    pub size: MatrixSize,
    /// Multiplications, or the factor of the result on GPUs.
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
    /// What to open; empty before the commitment.
    pub targets: Targets,
}

/// A commitment, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCommitment {
    /// The units that it names, believed or not.
    pub units: Vec<CommittedUnit>,
    /// What was drawn for them.
    pub targets: Targets,
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

/// A GPU that failed in a challenge, with the reason; others of that challenge may have passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedUnit {
    /// The challenge's name on the wire.
    pub challenge_id: ChallengeId,
    /// Whose it was.
    pub worker_id: WorkerId,
    /// The GPU.
    pub gpu: GpuUuid,
    /// When it was judged, unix milliseconds UTC.
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
        kinds: Kinds,
        now_ms: i64,
        heard_since_ms: i64,
        asked_before_ms: i64,
    ) -> Result<Vec<DueWorker>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.id, w.hotkey, w.worker_id, w.capabilities, g.id AS gpu, g.model,
                    (SELECT c.kind FROM challenges c WHERE c.worker = w.id
                     ORDER BY c.created_at DESC, c.id DESC LIMIT 1) AS last_kind
             FROM workers w JOIN miners m ON m.hotkey = w.hotkey
             LEFT JOIN gpus g ON g.worker = w.id AND g.last_seen_at >= $4
             WHERE m.last_heartbeat_at >= $1 AND w.state = 'online' AND w.deadline_at >= $2 AND w.over_limit = 0
               AND (($5 = 1 AND w.capabilities LIKE '%\"cpu_matrix\"%')
                    OR ($6 = 1 AND w.capabilities LIKE '%\"gpu_matrix\"%'))
               AND NOT EXISTS (SELECT 1 FROM leases l
                               WHERE l.hotkey = w.hotkey AND l.worker_id = w.worker_id AND l.score > 0)
               AND NOT EXISTS (SELECT 1 FROM challenges c WHERE c.worker = w.id
                               AND (c.status IN ('created', 'sent', 'committed', 'verifying')
                                    OR (c.created_at > $3 AND c.test = 0)))
             ORDER BY w.hotkey, w.first_seen_at, w.id",
        )
        .bind(heard_since_ms.max(now_ms - MINER_DEADLINE_MS))
        .bind(now_ms)
        .bind(asked_before_ms)
        .bind(now_ms - OWNERSHIP_LAPSE_MS)
        .bind(i64::from(kinds.include(ChallengeKind::CpuMatrix)))
        .bind(i64::from(kinds.include(ChallengeKind::GpuMatrix)))
        .fetch_all(&self.reader)
        .await?;
        let mut due: Vec<DueWorker> = Vec::new();
        for row in &rows {
            let key = WorkerKey(row.try_get("id")?);
            if due.last().is_none_or(|worker| worker.key != key) {
                due.push(due_worker(key, row)?);
            }
            if let (Some(worker), Some(_)) = (due.last_mut(), row.try_get::<Option<i64>, _>("gpu")?) {
                worker.models.insert(row.try_get("model")?);
            }
        }
        if !due.is_empty() && kinds.include(ChallengeKind::GpuMatrix) {
            let mut claimed = self.claimed_models(now_ms - OWNERSHIP_LAPSE_MS).await?;
            for worker in &mut due {
                worker.models.extend(claimed.remove(&worker.key).unwrap_or_default());
            }
        }
        Ok(due)
    }

    /// What decides whether a worker can be challenged out of turn; none when it is not online.
    pub async fn testable(
        &self,
        hotkey: Hotkey,
        worker_id: &WorkerId,
        now_ms: i64,
    ) -> Result<Option<Testable>, StoreError> {
        let row = sqlx::query(
            "SELECT w.id, w.capabilities,
                    (SELECT COUNT(*) FROM leases l
                     WHERE l.hotkey = w.hotkey AND l.worker_id = w.worker_id AND l.score > 0) AS leases,
                    (SELECT COUNT(*) FROM challenges c WHERE c.worker = w.id
                     AND c.status IN ('created', 'sent', 'committed', 'verifying')) AS open
             FROM workers w WHERE w.hotkey = $1 AND w.worker_id = $2 AND w.state <> 'retired' AND w.deadline_at >= $3",
        )
        .bind(hotkey.to_string())
        .bind(worker_id.as_str())
        .bind(now_ms)
        .fetch_optional(&self.reader)
        .await?;
        row.map(|row| {
            let capabilities = texts_of("workers", "capabilities", row.try_get("capabilities")?)?;
            Ok(Testable {
                key: WorkerKey(row.try_get("id")?),
                capabilities: capabilities.iter().filter_map(|text| ChallengeKind::from_text(text)).collect(),
                is_leased: row.try_get::<i64, _>("leases")? > 0,
                has_open: row.try_get::<i64, _>("open")? > 0,
            })
        })
        .transpose()
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
                                         expires_at, test)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            )
            .bind(challenge.id.as_str())
            .bind(challenge.worker.0)
            .bind(challenge.kind.as_str())
            .bind(i64::from(challenge.size.get()))
            .bind(i64::from(challenge.iterations.get()))
            .bind(challenge.seed.as_str())
            .bind(serde_json::json!({ "round_id": challenge.round_id }).to_string())
            .bind(Status::Created.as_str())
            .bind(now_ms)
            .bind(expires_at_ms)
            .bind(i64::from(challenge.is_test))
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

    /// Stores a commitment with the targets drawn for it; false, and nothing stored, when the challenge is no longer
    /// `sent`.
    pub async fn commit_challenge(&self, key: ChallengeKey, commitment: &NewCommitment) -> Result<bool, StoreError> {
        retrying(|| self.try_commit_challenge(key, commitment)).await
    }

    async fn try_commit_challenge(&self, key: ChallengeKey, commitment: &NewCommitment) -> Result<bool, StoreError> {
        let believed = commitment.units.iter().filter(|unit| unit.fault.is_none());
        let gpus: Vec<String> = believed
            .filter_map(|unit| match &unit.unit {
                Unit::Cpu => None,
                Unit::Gpu(uuid) => Some(uuid.to_string()),
            })
            .collect();
        let mut transaction = self.begin().await?;
        let gpu_set = if gpus.is_empty() { None } else { Some(gpu_set_row(&mut transaction, &gpus).await?) };
        let moved = sqlx::query(
            "UPDATE challenges SET status = $1, committed_at = $2, expires_at = $3, targets = $4, units_total = $5,
                                   gpu_set = $6, compute_ms = CAST($2 - sent_at AS DOUBLE PRECISION)
             WHERE id = $7 AND status = $8",
        )
        .bind(Step::COMMIT.to.as_str())
        .bind(commitment.at_ms)
        .bind(commitment.proof_deadline_at_ms)
        .bind(json_of_targets(&commitment.targets))
        .bind(commitment.units.len() as i64)
        .bind(gpu_set)
        .bind(key.0)
        .bind(Step::COMMIT.from.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if moved == 0 {
            return Ok(false);
        }
        insert_units(&mut transaction, key, &commitment.units).await?;
        commit(transaction).await?;
        Ok(true)
    }

    /// Fails a challenge whose commitment names nothing that can be believed; nothing changes when it is no longer `sent`.
    pub async fn refuse_commitment(
        &self,
        key: ChallengeKey,
        commitment: &NewCommitment,
        failure: Failure,
    ) -> Result<(), StoreError> {
        retrying(|| self.try_refuse_commitment(key, commitment, failure)).await
    }

    async fn try_refuse_commitment(
        &self,
        key: ChallengeKey,
        commitment: &NewCommitment,
        failure: Failure,
    ) -> Result<(), StoreError> {
        let verdict = Verdict::Failed(failure);
        let (code, note) = verdict.reason().unzip();
        let mut transaction = self.begin().await?;
        let moved = sqlx::query(
            "UPDATE challenges SET status = $1, committed_at = $2, finished_at = $2, units_total = $3, units_ok = 0,
                                   fail_code = $4, fail_note = $5
             WHERE id = $6 AND status = $7",
        )
        .bind(verdict.status().as_str())
        .bind(commitment.at_ms)
        .bind(commitment.units.len() as i64)
        .bind(code)
        .bind(note)
        .bind(key.0)
        .bind(Step::COMMIT.from.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if moved == 1 {
            insert_units(&mut transaction, key, &commitment.units).await?;
            commit(transaction).await?;
        }
        Ok(())
    }

    /// The units of a commitment, by name. Of one that is not believed the fault stands for itself only as long as nothing is judged.
    pub async fn committed_units(&self, key: ChallengeKey) -> Result<Vec<CommittedUnit>, StoreError> {
        let rows = sqlx::query("SELECT unit, root, fail_code FROM challenge_units WHERE challenge = $1 ORDER BY unit")
            .bind(key.0)
            .fetch_all(&self.reader)
            .await?;
        rows.iter()
            .map(|row| {
                let code: Option<String> = row.try_get("fail_code")?;
                Ok(CommittedUnit {
                    unit: parsed("challenge_units", row, "unit")?,
                    root: parsed("challenge_units", row, "root")?,
                    fault: code.and_then(|code| UnitFault::of_commitment(&code)),
                })
            })
            .collect()
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
             WHERE w.hotkey = $1 AND c.status IN ('failed', 'void') AND c.test = 0 ORDER BY c.finished_at DESC, c.id DESC LIMIT $2",
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

    /// The GPUs of a miner that failed in challenges with a verdict, newest first, at most `limit`.
    pub async fn failed_units(&self, hotkey: Hotkey, limit: i64) -> Result<Vec<FailedUnit>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.uuid, w.worker_id, u.unit, c.finished_at, u.fail_code, COALESCE(u.fail_note, u.fail_code) AS note
             FROM workers w JOIN challenges c ON c.worker = w.id JOIN challenge_units u ON u.challenge = c.id
             WHERE w.hotkey = $1 AND c.status IN ('verified', 'failed') AND c.test = 0 AND u.ok = 0 AND u.unit <> '-1'
               AND u.fail_code IS NOT NULL
             ORDER BY c.finished_at DESC, c.id DESC, u.unit LIMIT $2",
        )
        .bind(hotkey.to_string())
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(FailedUnit {
                    challenge_id: parsed("challenges", row, "uuid")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    gpu: parsed("challenge_units", row, "unit")?,
                    finished_at_ms: row.try_get("finished_at")?,
                    code: row.try_get("fail_code")?,
                    note: row.try_get("note")?,
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
    Ok(ChallengeRow {
        key: ChallengeKey(row.try_get("id")?),
        kind: kind_of(row, "kind")?,
        worker: WorkerKey(row.try_get("worker")?),
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
        targets: targets.map_or(Ok(Targets::default()), |text| targets_of(&text))?,
    })
}

/// Elements with their column, then rows with none (miner-validator spec 5.5).
fn json_of_targets(targets: &Targets) -> String {
    let coordinates = targets.coordinates.iter().map(|(row, column)| (*row, Some(*column)));
    let rows = targets.rows.iter().map(|row| (*row, None));
    serde_json::json!(coordinates.chain(rows).collect::<Vec<_>>()).to_string()
}

fn targets_of(text: &str) -> Result<Targets, StoreError> {
    let mut targets = Targets::default();
    for (row, column) in json::<Vec<(u32, Option<u32>)>>("targets", text)? {
        match column {
            Some(column) => targets.coordinates.push((row, column)),
            None => targets.rows.push(row),
        }
    }
    Ok(targets)
}

pub(super) fn kind_of(row: &AnyRow, column: &'static str) -> Result<ChallengeKind, StoreError> {
    let text: String = row.try_get(column)?;
    ChallengeKind::from_text(&text).ok_or(StoreError::Corrupt { table: "challenges", what: column, value: text })
}

fn due_worker(key: WorkerKey, row: &AnyRow) -> Result<DueWorker, StoreError> {
    let capabilities = texts_of("workers", "capabilities", row.try_get("capabilities")?)?;
    Ok(DueWorker {
        key,
        hotkey: parsed("workers", row, "hotkey")?,
        worker_id: parsed("workers", row, "worker_id")?,
        capabilities: capabilities.iter().filter_map(|text| ChallengeKind::from_text(text)).collect(),
        models: BTreeSet::new(),
        last_kind: row.try_get::<Option<String>, _>("last_kind")?.and_then(|text| ChallengeKind::from_text(&text)),
    })
}

/// Those that are believed wait for their verdict, the others have theirs.
async fn insert_units(
    transaction: &mut Transaction<'_, Any>,
    key: ChallengeKey,
    units: &[CommittedUnit],
) -> Result<(), StoreError> {
    for CommittedUnit { unit, root, fault } in units {
        sqlx::query(
            "INSERT INTO challenge_units (challenge, unit, root, ok, fail_code, fail_note)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(key.0)
        .bind(unit.as_str())
        .bind(root.to_string())
        .bind(fault.map(|_| 0_i64))
        .bind(fault.map(|fault| fault.code()))
        .bind(fault.map(|fault| fault.to_string()))
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
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
