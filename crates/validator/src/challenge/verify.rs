//! The verdict: recomputes what the proofs that have waited longest opened, and stores what came out.
//!
//! The same code runs inside the validator and in `byteleap-validator verifier` on other machines: it claims proofs from the
//! queue in the database, one for each free thread, judges them on blocking threads, and writes each verdict under its
//! claim. A proof stays in the database until its verdict is there, so a crash costs nobody anything: when the claim has
//! run out, somebody else judges it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::gpu::GpuChallenge;
use byteleap_compute::gpu::verify::{Check, Tolerance};
use byteleap_compute::verify::judge;
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use byteleap_daemon::live::Live;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::id::Unit;
use byteleap_protocol::payload::ProofResponse;
use rand_core::OsRng;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::state::{Failure, Judgement, Loss, UnitFault, Verdict};
use super::stored_proof;
use super::targets::draw_rows;
use super::units::CommittedUnit;
use super::{Rules, Spread};
use crate::store::queue::{Claim, ClaimedProof, PendingProof};
use crate::store::{Store, StoreError};

/// A proof that waited longer than this for its verdict means that the machines do not keep up.
const LATE_VERDICT_MS: i64 = 5 * 60_000;
/// Pause between looks at the length of the queue, for the metrics.
const QUEUE_LOOK: Duration = Duration::from_secs(5);

/// How much is judged at once, and how often one looks for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Proofs judged at the same time, each on a thread of its own.
    pub concurrency: NonZeroUsize,
    /// Pause between looks at an empty queue.
    pub idle: Duration,
    /// How long a proof that was claimed is left alone by all others.
    pub claim: Duration,
}

/// Judges stored proofs, oldest first.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Store,
    clock: Arc<dyn Clock>,
    proof_arrived: Arc<Notify>,
    /// The beginning of its claims' names.
    name: String,
    /// Claims made so far.
    claims: Arc<AtomicU64>,
    pace: Live<Pace>,
    /// The longest that it lets an empty queue be, whatever its pace says.
    longest_idle: Duration,
    /// What the numbers of GPUs are held against, among others.
    rules: Live<Rules>,
}

impl Verifier {
    /// A verifier, woken by `proof_arrived` and looking by itself at its own pace. Nothing else that verifies on the same
    /// database, ever, has its `name`.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        proof_arrived: Arc<Notify>,
        name: String,
        pace: Live<Pace>,
        rules: Live<Rules>,
    ) -> Self {
        let longest_idle = Duration::MAX;
        Self { store, clock, proof_arrived, name, claims: Arc::default(), pace, longest_idle, rules }
    }

    /// Looks by itself at least this often: where nobody tells it that a proof has arrived.
    #[must_use]
    pub fn idle_at_most(self, longest_idle: Duration) -> Self {
        Self { longest_idle, ..self }
    }

    /// Judges whatever comes until `stop`; what has begun is finished.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut judging = JoinSet::new();
        let ended = self.keep_busy(&mut judging, &stop).await;
        while let Some(settled) = judging.join_next().await {
            outcome(settled)?;
        }
        ended
    }

    async fn keep_busy(
        &self,
        judging: &mut JoinSet<Result<(), StoreError>>,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut look = tokio::time::interval(QUEUE_LOOK);
        while !stop.is_cancelled() {
            self.fill(judging).await?;
            let idle = self.pace.get().idle.min(self.longest_idle);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(settled) = judging.join_next() => outcome(settled)?,
                () = self.proof_arrived.notified() => {}
                () = tokio::time::sleep(idle) => {}
                _ = look.tick() => self.measure_queue().await?,
            }
        }
        Ok(())
    }

    /// Judges one claim of proofs to the end and returns how many these were.
    pub async fn judge_batch(&self) -> Result<usize, StoreError> {
        let mut judging = JoinSet::new();
        self.fill(&mut judging).await?;
        let count = judging.len();
        while let Some(settled) = judging.join_next().await {
            outcome(settled)?;
        }
        Ok(count)
    }

    /// Claims a proof for each free thread and begins to judge it.
    async fn fill(&self, judging: &mut JoinSet<Result<(), StoreError>>) -> Result<(), StoreError> {
        let (pace, tolerance) = (self.pace.get(), self.rules.get().gpu.tolerance);
        let free = pace.concurrency.get().saturating_sub(judging.len());
        if free == 0 {
            return Ok(());
        }
        let now_ms = self.clock.unix_ms();
        let claim = Claim {
            name: format!("{}/{}", self.name, self.claims.fetch_add(1, Ordering::Relaxed)),
            until_ms: now_ms + pace.claim.as_millis() as i64,
        };
        for proof in self.store.claim_proofs(&claim, free, now_ms).await? {
            let (store, clock) = (self.store.clone(), Arc::clone(&self.clock));
            judging.spawn(async move { settle(&store, clock.as_ref(), tolerance, proof).await });
        }
        Ok(())
    }

    /// Shows how many proofs wait, and how long the oldest does.
    pub(super) async fn measure_queue(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let queue = self.store.verification_queue(now_ms).await?;
        let oldest_ms = queue.oldest_at_ms.map_or(0, |at_ms| (now_ms - at_ms).max(0));
        metrics::gauge!("verification_queue_depth").set(queue.waiting as f64);
        metrics::gauge!("verification_queue_claimed").set(queue.claimed as f64);
        metrics::gauge!("verification_queue_oldest_seconds").set(oldest_ms as f64 / 1000.0);
        Ok(())
    }
}

/// What became of a proof that was judged.
fn outcome(settled: Result<Result<(), StoreError>, JoinError>) -> Result<(), StoreError> {
    settled.unwrap_or_else(|error| {
        tracing::error!(%error, "a verification task died; its proof is judged again when its claim has run out");
        Ok(())
    })
}

/// Judges one proof and stores the verdict, unless its claim has passed to somebody else meanwhile.
async fn settle(store: &Store, clock: &dyn Clock, tolerance: Tolerance, proof: ClaimedProof) -> Result<(), StoreError> {
    let Some(pending) = store.pending_proof(&proof).await? else { return Ok(()) };
    let challenge = pending.challenge.clone();
    let (waited_ms, started) = (clock.unix_ms() - proof.proof_at_ms, clock.monotonic());
    let judged = tokio::task::spawn_blocking(move || verify(&pending, tolerance)).await;
    let judgement = judged.unwrap_or_else(|error| {
        tracing::error!(challenge_id = %challenge.id, %error, "the verifier panicked on a proof");
        Verdict::Void(Loss::Verifier).into()
    });
    let verdict = judgement.verdict;
    let took = clock.monotonic().saturating_sub(started);
    metrics::histogram!("verification_wait_seconds").record(waited_ms as f64 / 1000.0);
    metrics::histogram!("verification_duration_seconds").record(took.as_secs_f64());
    let verify_ms = took.as_secs_f64() * 1000.0;
    failpoint::reach("validator.verify.before");
    if !store.conclude(&proof, &judgement, verify_ms, clock.unix_ms()).await? {
        metrics::counter!("verification_claims_lost_total").increment(1);
        tracing::warn!(
            challenge_id = %challenge.id,
            verify_ms,
            "the claim ran out before the verdict, so somebody else judges this proof: raise validation.verification_claim"
        );
        return Ok(());
    }
    failpoint::reach("validator.verify.after");
    metrics::counter!("verification_verdicts_total", "verdict" => verdict.status().as_str()).increment(1);
    tracing::info!(
        peer = %challenge.hotkey,
        worker_id = %challenge.worker_id,
        challenge_id = %challenge.id,
        kind = %challenge.kind,
        verdict = %verdict.status(),
        units_ok = judgement.units_ok(),
        units_failed = judgement.units.iter().filter(|(_, fault)| fault.is_some()).count(),
        reason = verdict.reason().map(|(_, note)| note),
        verify_ms,
        "challenge judged"
    );
    if waited_ms > LATE_VERDICT_MS {
        tracing::warn!(
            waited_ms,
            "proofs wait too long: raise validation.verification_concurrent, or run `verifier` on more machines"
        );
    }
    Ok(())
}

/// What a stored proof is worth. Blocks for the time of the arithmetic.
fn verify(pending: &PendingProof, tolerance: Tolerance) -> Judgement {
    let challenge = &pending.challenge;
    let proofs = match stored_proof::unpack(&pending.body) {
        Ok(proofs) => proofs,
        Err(error) => {
            tracing::error!(challenge_id = %challenge.id, %error, "a stored proof cannot be read back");
            return Verdict::Void(Loss::Verifier).into();
        }
    };
    match challenge.kind {
        ChallengeKind::CpuMatrix => verify_cpu(pending, &proofs).into(),
        ChallengeKind::GpuMatrix => verify_gpus(pending, &proofs, tolerance),
    }
}

/// The rows of the processor must be the product's.
fn verify_cpu(pending: &PendingProof, proofs: &[ProofResponse]) -> Verdict {
    let challenge = &pending.challenge;
    let [CommittedUnit { unit: Unit::Cpu, root, .. }] = pending.units.as_slice() else {
        tracing::error!(challenge_id = %challenge.id, "a stored commitment is not the processor's");
        return Verdict::Void(Loss::Verifier);
    };
    match CpuChallenge::new(&challenge.seed, challenge.size, challenge.iterations) {
        Ok(computable) => match judge(&computable, &challenge.targets.rows, *root, proofs) {
            Ok(()) => Verdict::Verified,
            Err(fault) => Verdict::Failed(Failure::Proof(fault)),
        },
        Err(error) => {
            tracing::error!(challenge_id = %challenge.id, %error, "a stored challenge cannot be computed");
            Verdict::Void(Loss::Verifier)
        }
    }
}

/// Each GPU whose commitment is believed is judged on its own. The columns of its rows are drawn only now, for it alone.
fn verify_gpus(pending: &PendingProof, proofs: &[ProofResponse], tolerance: Tolerance) -> Judgement {
    let challenge = &pending.challenge;
    let computable =
        GpuChallenge { seed: challenge.seed.clone(), size: challenge.size, iterations: challenge.iterations };
    let (rows, coordinates) = (&challenge.targets.rows, &challenge.targets.coordinates);
    let check = Check { challenge: &computable, rows, coordinates, tolerance };
    let sampled = Spread { base: tolerance.sampled_columns(challenge.size), variance: 0.0 };
    let judged = |CommittedUnit { unit, root, .. }: &CommittedUnit| {
        let (Unit::Gpu(gpu), Some(proof)) = (unit, proofs.iter().find(|proof| proof.uuid == *unit)) else {
            return (unit.clone(), Some(UnitFault::NoProof));
        };
        let columns = draw_rows(&mut OsRng, challenge.size, sampled);
        (unit.clone(), check.judge(gpu, *root, &columns, proof).err().map(UnitFault::Proof))
    };
    Judgement::of_units(pending.units.iter().filter(|unit| unit.fault.is_none()).map(judged).collect())
}
