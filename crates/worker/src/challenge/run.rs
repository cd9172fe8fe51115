//! Phase 1: takes an assignment on or refuses it, computes it off the runtime, and commits to the result.
//!
//! Every assignment ends in exactly one result in the outbox, also when it is refused, runs out of time, is given up at
//! the stop of the worker, or meets a bug (worker-miner spec 2.7, faults F3, F14, F17, F18). Only a task that is already
//! held is passed over, since its first assignment will be answered; and one whose result is kept is answered with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::cpu;
use byteleap_compute::engine::{self, EngineError, GpuEngine};
use byteleap_compute::gpu::GpuChallenge;
use byteleap_daemon::clock::Clock;
use byteleap_daemon::drain::Drain;
use byteleap_daemon::tasks::chain;
use byteleap_protocol::challenge::{ChallengeData, ChallengeKind, TimeoutSeconds};
use byteleap_protocol::frame::{ChallengeResult, TaskAssignment, TaskOutcome, TaskTimestamps};
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, RowHash, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::Commitment;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cache::{Committed, ResultCache};
use super::record::Record;
use crate::gpu::Gpus;
use crate::outbox::{Finished, Outbox};

/// How long after its own limit a challenge may still be taken: validators sweep once per scheduling cycle (worker-miner
/// spec 3.5).
const SWEEP: Duration = Duration::from_secs(240);

/// How long a running task may go on after the worker was asked to stop. Leaves time to send its result, prove it and
/// close within the 10 s that the process has to drain.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a runner may take on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tasks held at once.
    pub max_concurrent_tasks: usize,
    /// Time for a task that names no limit.
    pub default_task_timeout: Duration,
}

/// Runs tasks; a cheap handle, all clones of which share the same tasks.
#[derive(Clone, Debug)]
pub struct Runner {
    limits: Limits,
    clock: Arc<dyn Clock>,
    cache: ResultCache,
    gpus: Gpus,
    outbox: Arc<Outbox>,
    drain: Drain,
    record: Record,
    held: Arc<Mutex<Held>>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Held {
    tasks: HashMap<ChallengeId, Task>,
    is_stopping: bool,
}

/// A task that is being computed.
#[derive(Debug)]
struct Task {
    kind: ChallengeKind,
    is_cancelled: Arc<AtomicBool>,
}

/// Why an assignment is not taken on; the text is what the miner reads.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the worker is stopping")]
    Stopping,
    #[error("the worker drains: it takes no new challenges")]
    Draining,
    #[error("unknown task type {0:?}")]
    UnknownKind(String),
    #[error(transparent)]
    NoGpu(#[from] EngineError),
    #[error("the assignment names no validator, so that nobody could ask for a proof")]
    NoValidator,
    #[error("the worker already holds {0} tasks (max_concurrent_tasks)")]
    TooMany(usize),
    #[error("the worker already computes a {0} challenge")]
    KindBusy(ChallengeKind),
    #[error("{0}")]
    Data(String),
}

/// A task that was taken on.
struct Accepted {
    task_id: ChallengeId,
    validator: Hotkey,
    work: Work,
    time_limit: Duration,
    received_ts: i64,
    useful_until: Duration,
    is_cancelled: Arc<AtomicBool>,
}

/// What is to be computed, and by what.
#[derive(Clone)]
enum Work {
    Cpu(CpuChallenge),
    Gpu { challenge: GpuChallenge, engine: Arc<dyn GpuEngine>, gpus: Gpus },
}

/// Why nothing was computed.
#[derive(Debug, thiserror::Error)]
enum ComputeError {
    #[error("the computation was cancelled")]
    Cancelled,
    #[error(transparent)]
    Cpu(cpu::Error),
    #[error(transparent)]
    Gpu(EngineError),
}

/// A result: its commitments with the rows behind each, and how long it took.
struct Computed {
    units: Vec<engine::Committed>,
    computation_time: Duration,
}

impl Work {
    fn size(&self) -> u32 {
        match self {
            Self::Cpu(challenge) => challenge.size() as u32,
            Self::Gpu { challenge, .. } => challenge.size.get(),
        }
    }

    fn gpu_challenge(&self) -> Option<GpuChallenge> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu { challenge, .. } => Some(challenge.clone()),
        }
    }

    /// Computes until it is done or no longer wanted. Blocks.
    fn compute(&self, is_cancelled: &AtomicBool) -> Result<Computed, ComputeError> {
        match self {
            Self::Cpu(challenge) => compute_on_cpu(challenge, is_cancelled),
            Self::Gpu { challenge, engine, gpus } => {
                gpus.submission_begins();
                let started = Instant::now();
                let units = engine.submit(challenge, is_cancelled).map_err(|error| match error {
                    EngineError::Cancelled => ComputeError::Cancelled,
                    error => ComputeError::Gpu(error),
                })?;
                Ok(Computed { units, computation_time: started.elapsed() })
            }
        }
    }
}

fn compute_on_cpu(challenge: &CpuChallenge, is_cancelled: &AtomicBool) -> Result<Computed, ComputeError> {
    let computed = cpu::compute(challenge, is_cancelled).map_err(|error| match error {
        cpu::Error::Cancelled => ComputeError::Cancelled,
        error => ComputeError::Cpu(error),
    })?;
    match MerkleTree::from_rows(&computed.row_hashes) {
        Some(tree) => Ok(Computed {
            units: vec![engine::Committed {
                commitment: Commitment::cpu(tree.root()),
                row_hashes: computed.row_hashes,
            }],
            computation_time: computed.product_time,
        }),
        None => unreachable!("a challenge has at least one row"),
    }
}

impl Runner {
    /// A runner without tasks.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>, cache: ResultCache, gpus: Gpus, outbox: Arc<Outbox>) -> Self {
        Self {
            limits,
            clock,
            cache,
            gpus,
            outbox,
            drain: Drain::default(),
            record: Record::default(),
            held: Arc::default(),
            count: watch::Sender::new(0),
        }
    }

    /// Takes an assignment on, or puts its refusal into the outbox. Must be called on a runtime.
    pub fn assign(&self, assignment: TaskAssignment) {
        let task_id = assignment.task_id.clone();
        if self.held().tasks.contains_key(&task_id) {
            tracing::debug!(challenge_id = %task_id, "assignment of a task that is already held");
            return;
        }
        let now = self.clock.monotonic();
        let useful_until = now + self.time_limit(assignment.timeout) + SWEEP;
        if let Some(kept) = assignment.validator_hotkey.and_then(|validator| self.cache.get(validator, &task_id, now)) {
            tracing::info!(challenge_id = %task_id, "assignment of a task whose result is kept");
            return self.outbox.push(Finished { task_id, outcome: kept.outcome.clone(), useful_until });
        }
        self.record.begins(task_id.clone(), assignment.task_type.clone(), self.clock.unix_ms());
        match self.accept(assignment, useful_until) {
            Ok(accepted) => {
                tracing::info!(challenge_id = %task_id, size = accepted.work.size(), "challenge accepted");
                tokio::spawn(self.clone().carry_out(accepted));
            }
            Err(refusal) => self.refuse(task_id, &refusal.to_string(), useful_until),
        }
    }

    /// Answers an assignment that could be read no further than its name.
    pub fn refuse_unreadable(&self, task_id: ChallengeId, reason: &str) {
        let useful_until = self.clock.monotonic() + self.limits.default_task_timeout + SWEEP;
        self.refuse(task_id, reason, useful_until);
    }

    /// The switch that lets it take nothing new.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// What became of the last challenges.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What a stop would lose, one line each: for `byteleap-worker drain`.
    #[must_use]
    pub fn under_way(&self) -> Vec<String> {
        let held = self.held_tasks().into_iter().map(|task| format!("challenge {task} is computed"));
        let unsent = self.outbox.len();
        let unsent = (unsent > 0).then(|| format!("{unsent} results are not certainly with the miner"));
        let unproved = self.record.unproved(self.clock.unix_ms());
        let unproved = unproved.into_iter().map(|task| format!("challenge {task} may still be proved"));
        held.chain(unsent).chain(unproved).collect()
    }

    /// How many tasks are held.
    #[must_use]
    pub fn held_count(&self) -> usize {
        *self.count.borrow()
    }

    /// Names of the held tasks.
    #[must_use]
    pub fn held_tasks(&self) -> Vec<ChallengeId> {
        self.held().tasks.keys().cloned().collect()
    }

    /// Waits until no task is held.
    pub async fn idle(&self) {
        // The sender lives as long as this handle, so that the wait cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Waits for `stop`; from then on refuses tasks, and gives the held ones up that do not end soon.
    ///
    /// # Errors
    /// None; the type suits a supervised task.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.cancelled().await;
        self.held().is_stopping = true;
        if tokio::time::timeout(STOP_GRACE, self.idle()).await.is_err() {
            for task in self.held().tasks.values() {
                task.is_cancelled.store(true, Ordering::Relaxed);
            }
            self.idle().await;
        }
        Ok(())
    }

    fn refuse(&self, task_id: ChallengeId, reason: &str, useful_until: Duration) {
        tracing::warn!(challenge_id = %task_id, reason, "challenge refused");
        metrics::counter!("worker_challenges_total", "outcome" => "refused").increment(1);
        self.record.note(&task_id, |known| known.failed = Some(reason.to_owned()));
        self.outbox.push(Finished { task_id, outcome: TaskOutcome::failed(reason), useful_until });
    }

    /// Checks an assignment and holds it.
    fn accept(&self, assignment: TaskAssignment, useful_until: Duration) -> Result<Accepted, Refusal> {
        let kind = assignment.kind().ok_or_else(|| Refusal::UnknownKind(assignment.task_type.clone()))?;
        let engine = match kind {
            ChallengeKind::CpuMatrix => None,
            ChallengeKind::GpuMatrix => Some(self.gpus.engine()?),
        };
        let validator = assignment.validator_hotkey.ok_or(Refusal::NoValidator)?;
        let data = ChallengeData::parse(kind, &assignment.data).map_err(|error| Refusal::Data(error.to_string()))?;
        let work = match engine {
            Some(engine) => Work::Gpu { challenge: GpuChallenge::from(&data), engine, gpus: self.gpus.clone() },
            None => CpuChallenge::new(&data.seed, data.matrix_size, data.iterations)
                .map(Work::Cpu)
                .map_err(|error| Refusal::Data(error.to_string()))?,
        };
        let is_cancelled = self.hold(assignment.task_id.clone(), kind)?;
        Ok(Accepted {
            task_id: assignment.task_id,
            validator,
            work,
            time_limit: self.time_limit(assignment.timeout),
            received_ts: self.clock.unix_ms(),
            useful_until,
            is_cancelled,
        })
    }

    fn hold(&self, task_id: ChallengeId, kind: ChallengeKind) -> Result<Arc<AtomicBool>, Refusal> {
        let mut held = self.held();
        if held.is_stopping {
            return Err(Refusal::Stopping);
        }
        if self.drain.is_on() {
            return Err(Refusal::Draining);
        }
        if held.tasks.len() >= self.limits.max_concurrent_tasks {
            return Err(Refusal::TooMany(held.tasks.len()));
        }
        if held.tasks.values().any(|task| task.kind == kind) {
            return Err(Refusal::KindBusy(kind));
        }
        let is_cancelled = Arc::new(AtomicBool::new(false));
        held.tasks.insert(task_id, Task { kind, is_cancelled: is_cancelled.clone() });
        self.count.send_replace(held.tasks.len());
        Ok(is_cancelled)
    }

    /// Computes a task to its end, keeps the result, and only then lets it out.
    async fn carry_out(self, task: Accepted) {
        let outcome = match self.compute(&task).await {
            Ok(computed) => {
                let computation_time_ms = computed.computation_time.as_secs_f64() * 1000.0;
                let outcome = self.keep(&task, computed).await;
                self.record.note(&task.task_id, |known| known.computation_time_ms = Some(computation_time_ms));
                metrics::counter!("worker_challenges_total", "outcome" => "committed").increment(1);
                metrics::histogram!("worker_hop_seconds", "hop" => "compute").record(computation_time_ms / 1000.0);
                outcome
            }
            Err(reason) => {
                tracing::warn!(challenge_id = %task.task_id, reason, "challenge failed");
                metrics::counter!("worker_challenges_total", "outcome" => "failed").increment(1);
                self.record.note(&task.task_id, |known| known.failed = Some(reason.clone()));
                TaskOutcome::failed(reason)
            }
        };
        let finished = Finished { task_id: task.task_id.clone(), outcome, useful_until: task.useful_until };
        self.outbox.push(finished);
        let mut held = self.held();
        held.tasks.remove(&task.task_id);
        self.count.send_replace(held.tasks.len());
    }

    /// Keeps a result for the proof, and says what the miner is told of it.
    async fn keep(&self, task: &Accepted, computed: Computed) -> TaskOutcome {
        let Computed { units, computation_time } = computed;
        let computation_time_ms = computation_time.as_secs_f64() * 1000.0;
        let (commitments, units): (Vec<Commitment>, Vec<(Unit, Vec<RowHash>)>) =
            units.into_iter().map(|unit| (unit.commitment.clone(), (unit.commitment.uuid, unit.row_hashes))).unzip();
        tracing::info!(challenge_id = %task.task_id, computation_time_ms, units = units.len(), "challenge computed");
        let result = ChallengeResult { computation_time_ms, matrix_size: task.work.size(), commitments };
        let timestamps = TaskTimestamps {
            worker_task_received_ts: task.received_ts,
            worker_task_completed_ts: self.clock.unix_ms(),
        };
        let outcome = TaskOutcome::completed(&result, timestamps);
        let (validator, challenge_id) = (task.validator, task.task_id.clone());
        let gpu_challenge = task.work.gpu_challenge();
        let committed = Committed { validator, challenge_id, outcome: outcome.clone(), gpu_challenge, units };
        let (cache, now) = (self.cache.clone(), self.clock.monotonic());
        match tokio::task::spawn_blocking(move || cache.insert(committed, now)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the result does not survive a crash"),
            Err(error) => tracing::error!(%error, "the result could not be kept"),
        }
        outcome
    }

    /// Computes on a blocking thread, within the task's time limit.
    async fn compute(&self, task: &Accepted) -> Result<Computed, String> {
        let (work, is_cancelled) = (task.work.clone(), task.is_cancelled.clone());
        let mut work = tokio::task::spawn_blocking(move || work.compute(&is_cancelled));
        let (ended, is_late) = tokio::select! {
            ended = &mut work => (ended, false),
            () = tokio::time::sleep(task.time_limit) => {
                task.is_cancelled.store(true, Ordering::Relaxed);
                (work.await, true)
            }
        };
        match ended {
            Ok(Err(ComputeError::Cancelled)) if is_late => {
                Err(format!("not computed within {} s", task.time_limit.as_secs()))
            }
            Ok(Err(ComputeError::Cancelled)) => Err(Refusal::Stopping.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(computed)) => Ok(computed),
            Err(panic) => {
                tracing::error!(challenge_id = %task.task_id, error = %panic, "the computation panicked: please report this");
                Err("internal error of the worker".to_owned())
            }
        }
    }

    fn time_limit(&self, limit: Option<TimeoutSeconds>) -> Duration {
        limit.map_or(self.limits.default_task_timeout, TimeoutSeconds::as_duration)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::clock::SystemClock;
    use byteleap_protocol::Object;
    use serde_json::{Value, json};

    use super::*;

    const VALIDATOR: Hotkey = Hotkey([1; 32]);

    struct Bench {
        runner: Runner,
        cache: ResultCache,
        outbox: Arc<Outbox>,
    }

    impl Bench {
        fn new(max_concurrent_tasks: usize) -> Self {
            let (cache, outbox) = (ResultCache::default(), Arc::new(Outbox::default()));
            let limits = Limits { max_concurrent_tasks, default_task_timeout: Duration::from_secs(300) };
            let clock = Arc::new(SystemClock::new());
            Self { runner: Runner::new(limits, clock, cache.clone(), Gpus::none(), outbox.clone()), cache, outbox }
        }

        /// All results so far, after every task has ended.
        async fn outcomes(&self) -> Vec<(String, TaskOutcome)> {
            self.runner.idle().await;
            let finished = self.outbox.take_unsent(Duration::ZERO, 1);
            finished.into_iter().map(|finished| (finished.task_id.to_string(), finished.outcome)).collect()
        }

        async fn reason(&self) -> String {
            let outcomes = self.outcomes().await;
            let [(_, outcome)] = outcomes.as_slice() else { panic!("one result, not {outcomes:?}") };
            assert_eq!((outcome.success, outcome.error_code), (false, 1006));
            outcome.error.clone().unwrap()
        }
    }

    fn assignment(task_id: &str, task_type: &str, data: Value) -> TaskAssignment {
        TaskAssignment {
            task_id: ChallengeId::new(task_id).unwrap(),
            task_type: task_type.to_owned(),
            challenge_id: None,
            data: data.as_object().cloned().unwrap_or_else(Object::new),
            timeout: None,
            validator_hotkey: Some(VALIDATOR),
        }
    }

    /// A challenge that takes minutes, so that it ends by being given up.
    fn endless(task_id: &str) -> TaskAssignment {
        assignment(task_id, "cpu_matrix", json!({"matrix_size": 4096, "seed": "07", "iterations": 64}))
    }

    #[tokio::test]
    async fn a_challenge_becomes_a_commitment_whose_tree_is_kept() {
        let bench = Bench::new(2);
        let data = json!({"matrix_size": 8, "seed": "00112233445566778899aabbccddeeff"});
        bench.runner.assign(assignment("c", "cpu_matrix", data));
        let outcomes = bench.outcomes().await;
        let [(task_id, outcome)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert_eq!(task_id, "c");
        let result = outcome.challenge_result().unwrap();
        assert_eq!(result.matrix_size, 8);
        let published = "0d21c2f3f0b63dbcbdae90f5de76c2653d05ade71620891104d4fbce303a0201";
        assert_eq!(result.commitments, [Commitment::cpu(published.parse().unwrap())]);
        let kept = bench.cache.get(VALIDATOR, &ChallengeId::new("c").unwrap(), Duration::ZERO).unwrap();
        let tree = MerkleTree::from_rows(kept.row_hashes(&Unit::Cpu).unwrap()).unwrap();
        assert_eq!(tree.root().to_string(), published);
        let timestamps = outcome.timestamps.unwrap();
        assert!(timestamps.worker_task_completed_ts >= timestamps.worker_task_received_ts);
    }

    #[tokio::test]
    async fn a_task_whose_result_is_kept_is_answered_with_it() {
        let bench = Bench::new(2);
        let data = json!({"matrix_size": 8, "seed": "07"});
        bench.runner.assign(assignment("c", "cpu_matrix", data.clone()));
        let first = bench.outcomes().await;
        bench.runner.assign(assignment("c", "cpu_matrix", data));
        assert_eq!(bench.runner.held_count(), 0, "nothing is computed again");
        assert_eq!(bench.outcomes().await, first);
    }

    #[tokio::test]
    async fn what_cannot_be_computed_is_refused_with_its_reason() {
        let good = json!({"matrix_size": 8, "seed": "07"});
        let cases = [
            (assignment("c", "quantum", good.clone()), "unknown task type"),
            (assignment("c", "gpu_matrix", good.clone()), "gpu.enable"),
            (TaskAssignment { validator_hotkey: None, ..assignment("c", "cpu_matrix", good) }, "validator"),
            (assignment("c", "cpu_matrix", json!({})), "matrix_size"),
            (assignment("c", "cpu_matrix", json!({"matrix_size": 8, "seed": "0x07"})), "hexadecimal"),
            (assignment("c", "cpu_matrix", json!({"matrix_size": 16_385, "seed": "07"})), "16384"),
            (assignment("c", "cpu_matrix", json!({"matrix_size": 8, "seed": "07", "iterations": 65})), "64"),
        ];
        for (assignment, part) in cases {
            let bench = Bench::new(2);
            bench.runner.assign(assignment);
            let reason = bench.reason().await;
            assert!(reason.contains(part), "{reason:?} should say {part:?}");
        }
    }

    #[tokio::test]
    async fn a_second_challenge_on_the_processor_is_refused_and_a_repeated_assignment_passed_over() {
        let bench = Bench::new(2);
        bench.runner.assign(endless("first"));
        bench.runner.assign(endless("first"));
        bench.runner.assign(endless("second"));
        assert_eq!(bench.runner.held_tasks(), [ChallengeId::new("first").unwrap()]);
        bench.runner.held().tasks.values().for_each(|task| task.is_cancelled.store(true, Ordering::Relaxed));
        let outcomes = bench.outcomes().await;
        let names: Vec<&str> = outcomes.iter().map(|(task_id, _)| task_id.as_str()).collect();
        assert_eq!(names, ["second", "first"]);
        assert!(outcomes[0].1.error.as_deref().unwrap().contains("already computes"));
    }

    #[tokio::test]
    async fn a_worker_that_holds_as_many_tasks_as_it_may_refuses_more() {
        let bench = Bench::new(1);
        bench.runner.assign(endless("first"));
        bench.runner.assign(endless("second"));
        bench.runner.held().tasks.values().for_each(|task| task.is_cancelled.store(true, Ordering::Relaxed));
        let outcomes = bench.outcomes().await;
        assert!(outcomes[0].1.error.as_deref().unwrap().contains("max_concurrent_tasks"));
    }

    #[tokio::test]
    async fn a_challenge_that_runs_out_of_time_fails() {
        let bench = Bench::new(2);
        let limit = TimeoutSeconds::new(1).unwrap();
        bench.runner.assign(TaskAssignment { timeout: Some(limit), ..endless("slow") });
        assert_eq!(bench.reason().await, "not computed within 1 s");
    }

    #[tokio::test]
    async fn a_stopping_worker_refuses_tasks() {
        let bench = Bench::new(2);
        let stop = CancellationToken::new();
        stop.cancel();
        bench.runner.clone().run(stop).await.unwrap();
        bench.runner.assign(endless("late"));
        assert_eq!(bench.reason().await, "the worker is stopping");
    }

    #[tokio::test]
    async fn a_draining_worker_refuses_tasks_until_the_drain_is_cancelled() {
        let bench = Bench::new(2);
        bench.runner.drain().set(true);
        bench.runner.assign(endless("late"));
        assert_eq!(bench.reason().await, "the worker drains: it takes no new challenges");
        bench.runner.drain().set(false);
        bench.runner.assign(endless("c"));
        assert_eq!(bench.runner.held_tasks(), [ChallengeId::new("c").unwrap()]);
        bench.runner.held().tasks.values().for_each(|task| task.is_cancelled.store(true, Ordering::Relaxed));
        bench.runner.idle().await;
    }

    #[tokio::test]
    async fn an_assignment_that_can_only_be_named_is_answered() {
        let bench = Bench::new(2);
        bench.runner.refuse_unreadable(ChallengeId::new("c").unwrap(), "invalid task_assignment");
        assert_eq!(bench.reason().await, "invalid task_assignment");
    }
}
