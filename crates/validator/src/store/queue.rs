//! The queue of proofs that wait for their verdict, shared by every verifier of the network.
//!
//! A proof enters it when [`Store::accept_proof`] stores it and leaves it with its verdict. In between, whoever verifies
//! *claims* it for a while: nobody else takes it meanwhile, and a claim whose owner was killed ends by itself. Only the
//! owner of the current claim writes the verdict, so one that comes too late changes nothing.
//!
//! On SQLite the one writer hands the proofs out; on PostgreSQL `FOR UPDATE SKIP LOCKED` lets many processes claim at the
//! same time without waiting for one another. The clocks of the machines must agree to well within the time of a claim.

use byteleap_protocol::id::Unit;
use sqlx::{Any, Row, Transaction};

use super::challenge::ChallengeRow;
use super::gpu::UnitOutcome;
use super::{ChallengeKey, Store, StoreError, WorkerKey, commit, retrying};
use crate::challenge::state::{Judgement, Status};
use crate::challenge::units::CommittedUnit;

/// The names of claims that the validator itself makes begin with this.
pub const OWN_CLAIMS: &str = "validator-";

/// A claim on some proofs, by a name that no other claim ever has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose claim it is, and which of them.
    pub name: String,
    /// It ends by itself then.
    pub until_ms: i64,
}

/// A proof that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedProof {
    /// The challenge that it answers.
    pub key: ChallengeKey,
    /// When it arrived.
    pub proof_at_ms: i64,
    /// The name of the claim.
    pub claim: String,
}

/// What is needed to judge a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingProof {
    /// What was asked.
    pub challenge: ChallengeRow,
    /// What was committed to, believed or not.
    pub units: Vec<CommittedUnit>,
    /// The proof as it was stored.
    pub body: Vec<u8>,
}

/// How long the queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Proofs without a verdict.
    pub waiting: i64,
    /// Those of them that somebody is judging.
    pub claimed: i64,
    /// When the oldest of them arrived.
    pub oldest_at_ms: Option<i64>,
}

impl Store {
    /// Claims the proofs that have waited longest and that nobody else is judging, oldest first, at most `limit`.
    pub async fn claim_proofs(
        &self,
        claim: &Claim,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<ClaimedProof>, StoreError> {
        retrying(|| async {
            let mut transaction = self.begin().await?;
            let rows = sqlx::query(self.engine.claim())
                .bind(claim.name.as_str())
                .bind(claim.until_ms)
                .bind(now_ms)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(&mut *transaction)
                .await?;
            commit(transaction).await?;
            let claimed = rows.iter().map(|row| {
                Ok(ClaimedProof {
                    key: ChallengeKey(row.try_get("challenge")?),
                    proof_at_ms: row.try_get("received_at")?,
                    claim: claim.name.clone(),
                })
            });
            let mut claimed = claimed.collect::<Result<Vec<_>, StoreError>>()?;
            claimed.sort_by_key(|proof| (proof.proof_at_ms, proof.key));
            Ok(claimed)
        })
        .await
    }

    /// What a claimed proof is judged by; none when the claim has passed to somebody else.
    pub async fn pending_proof(&self, proof: &ClaimedProof) -> Result<Option<PendingProof>, StoreError> {
        let Some(challenge) = self.challenge_by_key(proof.key).await? else { return Ok(None) };
        let row = sqlx::query("SELECT body FROM challenge_proofs WHERE challenge = $1 AND claimed_by = $2")
            .bind(proof.key.0)
            .bind(proof.claim.as_str())
            .fetch_optional(&self.reader)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let units = self.committed_units(proof.key).await?;
        Ok(Some(PendingProof { challenge, units, body: row.try_get("body")? }))
    }

    /// Ends a challenge with its verdict and those of its units, credits its GPUs, and forgets its proof; false, and nothing written, when the claim has passed to
    /// somebody else.
    pub async fn conclude(
        &self,
        proof: &ClaimedProof,
        judgement: &Judgement,
        verify_ms: f64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        retrying(|| self.try_conclude(proof, judgement, verify_ms, now_ms)).await
    }

    async fn try_conclude(
        &self,
        proof: &ClaimedProof,
        judgement: &Judgement,
        verify_ms: f64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let verdict = judgement.verdict;
        let (code, note) = verdict.reason().unzip();
        let mut transaction = self.begin().await?;
        let forgotten = sqlx::query("DELETE FROM challenge_proofs WHERE challenge = $1 AND claimed_by = $2")
            .bind(proof.key.0)
            .bind(proof.claim.as_str())
            .execute(&mut *transaction)
            .await?;
        if forgotten.rows_affected() == 0 {
            return Ok(false);
        }
        let moved = sqlx::query(
            "UPDATE challenges SET status = $1, finished_at = $2, units_ok = $3, verify_ms = $4, fail_code = $5,
                                   fail_note = $6
             WHERE id = $7 AND status = $8 RETURNING worker, compute_ms, test",
        )
        .bind(verdict.status().as_str())
        .bind(now_ms)
        .bind(judgement.units_ok() as i64)
        .bind(verify_ms)
        .bind(code)
        .bind(note)
        .bind(proof.key.0)
        .bind(Status::Verifying.as_str())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(moved) = moved else { return Ok(false) };
        if verdict.status() != Status::Void {
            write_unit_verdicts(&mut transaction, proof.key, judgement).await?;
            let (worker, took_ms) = (WorkerKey(moved.try_get("worker")?), moved.try_get("compute_ms")?);
            let is_test = moved.try_get::<i64, _>("test")? != 0;
            for (unit, fault) in judgement.units.iter().filter(|_| !is_test) {
                if let Unit::Gpu(gpu) = unit {
                    let outcome = UnitOutcome { worker, gpu, passed: fault.is_none(), took_ms, at_ms: now_ms };
                    super::gpu::credit(&mut transaction, outcome).await?;
                }
            }
        }
        commit(transaction).await?;
        Ok(true)
    }

    /// Ends the claims that a former run of the validator left, so that its proofs need not wait for their end; returns
    /// how many proofs those were. Claims of other machines stand.
    pub async fn release_own_claims(&self) -> Result<u64, StoreError> {
        retrying(|| async {
            let mut transaction = self.begin().await?;
            let released = sqlx::query(
                "UPDATE challenge_proofs SET claimed_by = NULL, claimed_until = NULL
                 WHERE substr(claimed_by, 1, length($1)) = $1",
            )
            .bind(OWN_CLAIMS)
            .execute(&mut *transaction)
            .await?;
            commit(transaction).await?;
            Ok(released.rows_affected())
        })
        .await
    }

    /// How long the queue is.
    pub async fn verification_queue(&self, now_ms: i64) -> Result<QueueState, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS waiting, COUNT(CASE WHEN claimed_until >= $1 THEN 1 END) AS claimed,
                    MIN(received_at) AS oldest
             FROM challenge_proofs",
        )
        .bind(now_ms)
        .fetch_one(&self.reader)
        .await?;
        Ok(QueueState {
            waiting: row.try_get("waiting")?,
            claimed: row.try_get("claimed")?,
            oldest_at_ms: row.try_get("oldest")?,
        })
    }
}

/// Each unit's own verdict; where none is, that of the challenge. What was not believed keeps the verdict that it has.
async fn write_unit_verdicts(
    transaction: &mut Transaction<'_, Any>,
    key: ChallengeKey,
    judgement: &Judgement,
) -> Result<(), StoreError> {
    if judgement.units.is_empty() {
        let (code, note) = judgement.verdict.reason().unzip();
        sqlx::query("UPDATE challenge_units SET ok = $1, fail_code = $2, fail_note = $3 WHERE challenge = $4")
            .bind(judgement.units_ok() as i64)
            .bind(code)
            .bind(note)
            .bind(key.0)
            .execute(&mut **transaction)
            .await?;
    }
    for (unit, fault) in &judgement.units {
        sqlx::query(
            "UPDATE challenge_units SET ok = $1, fail_code = $2, fail_note = $3 WHERE challenge = $4 AND unit = $5",
        )
        .bind(i64::from(fault.is_none()))
        .bind(fault.map(|fault| fault.code()))
        .bind(fault.map(|fault| fault.to_string()))
        .bind(key.0)
        .bind(unit.as_str())
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
impl Store {
    /// Claims the oldest proof and gives it this verdict.
    pub(crate) async fn judge_oldest(&self, verdict: crate::challenge::state::Verdict, now_ms: i64) {
        let claim = Claim { name: format!("test/{now_ms}"), until_ms: now_ms };
        let proof = self.claim_proofs(&claim, 1, now_ms).await.unwrap().remove(0);
        assert!(self.conclude(&proof, &verdict.into(), 1.0, now_ms).await.unwrap());
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::challenge::ChallengeKind;
    use byteleap_protocol::hotkey::Hotkey;
    use byteleap_protocol::id::{ChallengeId, Iterations, MatrixSize};

    use super::super::challenge::{NewChallenge, NewCommitment};
    use super::super::heartbeat::Heartbeat;
    use super::super::testing::{self, on_both_engines, store};
    use super::*;
    use crate::challenge::state::{Loss, Verdict};
    use crate::challenge::targets::Targets;

    const MINER: Hotkey = Hotkey([1; 32]);

    fn claim(name: &str, until_ms: i64) -> Claim {
        Claim { name: name.to_owned(), until_ms }
    }

    /// A store in which so many proofs wait; the first arrived at 1 ms, the next at 2 ms, and so on.
    async fn with_proofs(count: i64) -> Store {
        let store = store().await;
        let workers = (0..count).map(|number| testing::beat(&format!("w{number}"))).collect();
        let heartbeat = Heartbeat { hotkey: MINER, version: None, public_ip: None, workers, at_ms: 0 };
        store.record_heartbeat(&heartbeat).await.unwrap();
        let challenges: Vec<_> = store.workers().await.unwrap().iter().map(|row| new_challenge(row.key)).collect();
        store.create_challenges(&challenges, 0, 100).await.unwrap();
        let sent = store.send_challenges(MINER, count, 0, 100).await.unwrap();
        for (challenge, at_ms) in sent.iter().zip(1..) {
            let root = "ab".repeat(32).parse().unwrap();
            let commitment = NewCommitment {
                units: vec![CommittedUnit::cpu(root)],
                targets: Targets { rows: vec![1], coordinates: Vec::new() },
                at_ms,
                proof_deadline_at_ms: 100,
            };
            assert!(store.commit_challenge(challenge.key, &commitment).await.unwrap());
            assert!(store.accept_proof(challenge.key, b"proof", at_ms).await.unwrap());
        }
        store
    }

    fn new_challenge(worker: super::super::WorkerKey) -> NewChallenge {
        NewChallenge {
            id: ChallengeId::new(&uuid::Uuid::new_v4().to_string()).unwrap(),
            worker,
            kind: ChallengeKind::CpuMatrix,
            size: MatrixSize::new(100).unwrap(),
            iterations: Iterations::ONE,
            seed: "00".parse().unwrap(),
            round_id: "round_1".to_owned(),
            is_test: false,
        }
    }

    fn arrivals(proofs: &[ClaimedProof]) -> Vec<i64> {
        proofs.iter().map(|proof| proof.proof_at_ms).collect()
    }

    async fn the_oldest_proofs_come_first_and_each_to_one_claim() {
        let store = with_proofs(5).await;
        let one = store.claim_proofs(&claim("a/1", 100), 2, 10).await.unwrap();
        let two = store.claim_proofs(&claim("b/1", 100), 2, 10).await.unwrap();
        let three = store.claim_proofs(&claim("a/2", 100), 9, 10).await.unwrap();
        assert_eq!([arrivals(&one), arrivals(&two), arrivals(&three)], [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(store.claim_proofs(&claim("b/2", 100), 9, 100).await.unwrap(), []);
        assert_eq!(
            store.verification_queue(10).await.unwrap(),
            QueueState { waiting: 5, claimed: 5, oldest_at_ms: Some(1) }
        );
    }

    async fn a_claim_that_ran_out_is_taken_over_and_its_owner_can_write_nothing() {
        let store = with_proofs(1).await;
        let killed = store.claim_proofs(&claim("a/1", 50), 1, 10).await.unwrap().remove(0);
        assert_eq!(store.claim_proofs(&claim("b/1", 90), 1, 50).await.unwrap(), [], "still its");
        let taken = store.claim_proofs(&claim("b/1", 90), 1, 51).await.unwrap().remove(0);
        assert_eq!(store.pending_proof(&killed).await.unwrap(), None);
        assert!(!store.conclude(&killed, &Verdict::Void(Loss::Verifier).into(), 1.0, 60).await.unwrap());
        assert_eq!(store.pending_proof(&taken).await.unwrap().unwrap().body, b"proof");
        assert!(store.conclude(&taken, &Verdict::Verified.into(), 1.0, 60).await.unwrap());
        assert_eq!(store.challenge_counts().await.unwrap(), [(Status::Verified, 1)]);
    }

    async fn a_verdict_is_given_once() {
        let store = with_proofs(1).await;
        let proof = store.claim_proofs(&claim("a/1", 50), 1, 10).await.unwrap().remove(0);
        assert!(store.conclude(&proof, &Verdict::Verified.into(), 1.0, 20).await.unwrap());
        assert!(!store.conclude(&proof, &Verdict::Verified.into(), 1.0, 20).await.unwrap());
        assert_eq!(store.verification_queue(20).await.unwrap(), QueueState::default());
    }

    async fn a_validator_that_starts_again_waits_for_no_claim_of_its_own() {
        let store = with_proofs(2).await;
        store.claim_proofs(&claim("validator-1/1", 1_000), 1, 10).await.unwrap();
        store.claim_proofs(&claim("verifier-1/1", 1_000), 1, 10).await.unwrap();
        assert_eq!(store.release_own_claims().await.unwrap(), 1);
        let again = store.claim_proofs(&claim("validator-2/1", 1_000), 9, 11).await.unwrap();
        assert_eq!(arrivals(&again), [1]);
    }

    /// Claims until nothing is left, and says what it got.
    async fn drain(store: Store, name: String) -> Vec<ClaimedProof> {
        let mut got = Vec::new();
        for batch in 0.. {
            let claimed = store.claim_proofs(&claim(&format!("{name}/{batch}"), 1_000), 2, 10).await.unwrap();
            if claimed.is_empty() {
                break;
            }
            for proof in &claimed {
                assert!(store.conclude(proof, &Verdict::Verified.into(), 1.0, 20).await.unwrap());
            }
            got.extend(claimed);
        }
        got
    }

    async fn many_that_claim_at_once_share_the_queue_without_overlap() {
        let store = with_proofs(40).await;
        let verifiers: Vec<_> = (0..4).map(|number| tokio::spawn(drain(store.clone(), number.to_string()))).collect();
        let mut got = Vec::new();
        for verifier in verifiers {
            got.extend(arrivals(&verifier.await.unwrap()));
        }
        got.sort_unstable();
        assert_eq!(got, (1..=40).collect::<Vec<_>>());
    }

    on_both_engines!(
        the_oldest_proofs_come_first_and_each_to_one_claim,
        a_claim_that_ran_out_is_taken_over_and_its_owner_can_write_nothing,
        a_verdict_is_given_once,
        a_validator_that_starts_again_waits_for_no_claim_of_its_own,
        many_that_claim_at_once_share_the_queue_without_overlap,
    );
}
