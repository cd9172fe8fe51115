//! Whose turn it is: writes `created` rows for idle, unleased workers, and ends what nobody answered.
//!
//! Processors and GPUs are challenged by `validation.challenge_type`; a worker's GPUs only if one of them is of an allowed
//! model. A worker gets its next challenge once the interval has passed since its last one and nothing of it is open
//! (validator spec 4.2); a pass every few seconds finds it soon after that, and a new worker soon after it appears.

use std::collections::BTreeMap;
use std::sync::Arc;

use byteleap_compute::size::{cpu_size, gpu_size};
use byteleap_daemon::clock::Clock;
use byteleap_daemon::failpoint;
use byteleap_daemon::live::Live;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, IdError, MatrixSize, Seed};
use rand_core::OsRng;

use super::Rules;
use crate::metagraph::Members;
use crate::store::challenge::{DueWorker, NewChallenge};
use crate::store::{Store, StoreError, WorkerKey};

/// A miner not heard of for so long gets no challenges.
const MINER_SILENCE_MS: i64 = 5 * 60_000;

/// Makes challenges and ends those that are overdue.
#[derive(Debug, Clone)]
pub struct Scheduler {
    store: Store,
    rules: Live<Rules>,
    members: Members,
    clock: Arc<dyn Clock>,
    started_at_ms: i64,
}

impl Scheduler {
    /// A scheduler for the miners that `members` knows. What began before now was begun by a former process.
    pub fn new(store: Store, rules: impl Into<Live<Rules>>, members: Members, clock: Arc<dyn Clock>) -> Self {
        let started_at_ms = clock.unix_ms();
        Self { store, rules: rules.into(), members, clock, started_at_ms }
    }

    /// Ends what is overdue: workers and miners that fell silent, challenges past their deadline.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.unix_ms();
        let (workers, miners) = self.store.sweep_offline(now_ms).await?;
        if workers + miners > 0 {
            tracing::info!(workers, miners, "went offline");
        }
        let swept =
            self.store.sweep_challenges(now_ms, self.rules.get().commitment_grace_ms, self.started_at_ms).await?;
        if swept != crate::store::challenge::Swept::default() {
            tracing::info!(
                never_fetched = swept.never_fetched,
                commitment_late = swept.commitment_late,
                proof_late = swept.proof_late,
                interrupted = swept.interrupted,
                "challenges ended by their deadline"
            );
        }
        Ok(())
    }

    /// Writes a challenge for every worker whose turn it is, and returns how many these were.
    pub async fn pass(&self) -> Result<usize, StoreError> {
        let (rules, now_ms) = (self.rules.get(), self.clock.unix_ms());
        let asked_before_ms = now_ms - rules.interval_ms;
        let due = self.store.due_workers(rules.kinds, now_ms, now_ms - MINER_SILENCE_MS, asked_before_ms).await?;
        let mut by_miner: BTreeMap<Hotkey, Vec<(DueWorker, ChallengeKind)>> = BTreeMap::new();
        for worker in due.into_iter().filter(|worker| self.members.contains(&worker.hotkey)) {
            if let Some(kind) = kind_for(&rules, &worker) {
                by_miner.entry(worker.hotkey).or_default().push((worker, kind));
            }
        }
        let round_id = format!("round_{}", now_ms.div_euclid(1000));
        let mut created = 0;
        for (hotkey, workers) in by_miner {
            let challenges = workers
                .iter()
                .map(|(worker, kind)| challenge(&rules, worker.key, *kind, &round_id))
                .collect::<Result<Vec<_>, _>>();
            let challenges = match challenges {
                Ok(challenges) => challenges,
                Err(error) => {
                    tracing::error!(%error, "no challenge made: check matrix_size and size_variance of validation.cpu and gpu");
                    return Ok(created);
                }
            };
            failpoint::reach("validator.schedule.before");
            self.store.create_challenges(&challenges, now_ms, now_ms + rules.interval_ms).await?;
            failpoint::reach("validator.schedule.after");
            tracing::info!(peer = %hotkey, challenges = challenges.len(), %round_id, "challenges created");
            created += challenges.len();
        }
        Ok(created)
    }
}

/// What a worker is asked for: what is issued and it can do; in turn, if that is both.
fn kind_for(rules: &Rules, worker: &DueWorker) -> Option<ChallengeKind> {
    let can = |kind| rules.kinds.include(kind) && worker.capabilities.contains(&kind);
    let has_gpu = || worker.models.iter().any(|model| rules.gpu.allows(model.as_deref()));
    match (can(ChallengeKind::CpuMatrix), can(ChallengeKind::GpuMatrix) && has_gpu()) {
        (true, true) if worker.last_kind == Some(ChallengeKind::CpuMatrix) => Some(ChallengeKind::GpuMatrix),
        (true, _) => Some(ChallengeKind::CpuMatrix),
        (false, true) => Some(ChallengeKind::GpuMatrix),
        (false, false) => None,
    }
}

/// A challenge that anybody in its place would get: its size and seed are drawn.
pub(super) fn challenge(
    rules: &Rules,
    worker: WorkerKey,
    kind: ChallengeKind,
    round_id: &str,
) -> Result<NewChallenge, IdError> {
    let seed = Seed::random(&mut OsRng);
    let Rules { cpu, gpu, .. } = rules;
    let (size, iterations) = match kind {
        ChallengeKind::CpuMatrix => {
            let size = cpu_size(&seed, cpu.matrix_size.get(), cpu.size_variance);
            (MatrixSize::for_cpu(size)?, cpu.iterations)
        }
        ChallengeKind::GpuMatrix => {
            let size = gpu_size(&seed, gpu.matrix_size.get(), gpu.size_variance);
            (MatrixSize::new(size.min(MatrixSize::MAX))?, gpu.iterations)
        }
    };
    Ok(NewChallenge {
        id: ChallengeId::random(&mut OsRng),
        worker,
        kind,
        size,
        iterations,
        seed,
        round_id: round_id.to_owned(),
        is_test: false,
    })
}
