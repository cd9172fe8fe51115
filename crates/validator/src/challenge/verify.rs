//! The verdict: recomputes the opened rows of the proof that has waited longest, and stores what came out.
//!
//! The arithmetic runs on blocking threads, at most so many at a time. A proof stays in the database until its verdict
//! is there, so a crash costs nobody anything: the next start judges it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::verify::judge;
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use byteleap_protocol::payload::ProofResponse;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::state::{Failure, Loss, Verdict};
use crate::store::challenge::PendingProof;
use crate::store::{Store, StoreError};

/// A proof that waited longer than this for its verdict means that the machine does not keep up.
const LATE_VERDICT_MS: i64 = 5 * 60_000;

/// Judges stored proofs, oldest first.
#[derive(Debug, Clone)]
pub struct Verifier {
    store: Store,
    clock: Arc<dyn Clock>,
    proof_arrived: Arc<Notify>,
    concurrency: NonZeroUsize,
    idle: Duration,
}

impl Verifier {
    /// A verifier of `concurrency` threads, woken by `proof_arrived` and looking by itself every `idle`.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        proof_arrived: Arc<Notify>,
        concurrency: NonZeroUsize,
        idle: Duration,
    ) -> Self {
        Self { store, clock, proof_arrived, concurrency, idle }
    }

    /// Judges whatever comes until `stop`; a batch that has begun is finished.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            if self.judge_batch().await? > 0 {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.proof_arrived.notified() => {}
                () = tokio::time::sleep(self.idle) => {}
            }
        }
        Ok(())
    }

    /// Judges the proofs that have waited longest, one per thread, and returns how many these were.
    pub async fn judge_batch(&self) -> Result<usize, StoreError> {
        let limit = i64::try_from(self.concurrency.get()).unwrap_or(i64::MAX);
        let batch = self.store.oldest_proofs(limit).await?;
        let count = batch.len();
        metrics::gauge!("verification_queue_depth").set(self.store.waiting_proofs().await? as f64);
        let mut judging = JoinSet::new();
        for pending in batch {
            let (store, clock) = (self.store.clone(), Arc::clone(&self.clock));
            judging.spawn(async move { settle(&store, clock.as_ref(), pending).await });
        }
        while let Some(settled) = judging.join_next().await {
            match settled {
                Ok(result) => result?,
                Err(error) => tracing::error!(%error, "a verification task died; its proof keeps its turn"),
            }
        }
        Ok(count)
    }
}

/// Judges one proof and stores the verdict.
async fn settle(store: &Store, clock: &dyn Clock, pending: PendingProof) -> Result<(), StoreError> {
    let challenge = pending.challenge.clone();
    let (waited_ms, started) = (clock.unix_ms() - pending.proof_at_ms, clock.monotonic());
    let verdict = tokio::task::spawn_blocking(move || verdict(&pending)).await.unwrap_or_else(|error| {
        tracing::error!(challenge_id = %challenge.id, %error, "the verifier panicked on a proof");
        Verdict::Void(Loss::Verifier)
    });
    let took = clock.monotonic().saturating_sub(started);
    metrics::histogram!("verification_wait_seconds").record(waited_ms as f64 / 1000.0);
    metrics::histogram!("verification_duration_seconds").record(took.as_secs_f64());
    let verify_ms = took.as_secs_f64() * 1000.0;
    failpoint::reach("validator.verify.before");
    store.conclude(challenge.key, verdict, verify_ms, clock.unix_ms()).await?;
    failpoint::reach("validator.verify.after");
    tracing::info!(
        peer = %challenge.hotkey,
        worker_id = %challenge.worker_id,
        challenge_id = %challenge.id,
        verdict = %verdict.status(),
        reason = verdict.reason().map(|(_, note)| note),
        verify_ms,
        "challenge judged"
    );
    if waited_ms > LATE_VERDICT_MS {
        tracing::warn!(waited_ms, "proofs wait too long: raise validation.verification_concurrent");
    }
    Ok(())
}

/// What a stored proof is worth. Blocks for the time of the arithmetic.
fn verdict(pending: &PendingProof) -> Verdict {
    let challenge = &pending.challenge;
    let proofs: Vec<ProofResponse> = match serde_json::from_slice(&pending.body) {
        Ok(proofs) => proofs,
        Err(error) => {
            tracing::error!(challenge_id = %challenge.id, %error, "a stored proof cannot be read back");
            return Verdict::Void(Loss::Verifier);
        }
    };
    match CpuChallenge::new(&challenge.seed, challenge.size, challenge.iterations) {
        Ok(computable) => match judge(&computable, &challenge.rows, pending.root, &proofs) {
            Ok(()) => Verdict::Verified,
            Err(fault) => Verdict::Failed(Failure::Proof(fault)),
        },
        Err(error) => {
            tracing::error!(challenge_id = %challenge.id, %error, "a stored challenge cannot be computed");
            Verdict::Void(Loss::Verifier)
        }
    }
}
