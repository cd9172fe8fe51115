//! The one owner of the workers table.
//!
//! Everything that the miner knows about a worker is here: its connection, what it reported, and the task it holds.
//! Connections register, report and leave; [`dispatch`](super::dispatch) takes seats and waits for answers; the
//! heartbeat relay and the admin page read snapshots. The lock is never held across an await.
//!
//! Two rules keep the table honest. An entry belongs to one connection, its [`Generation`]: only that connection may
//! change or remove it, so the clean-up of a replaced connection never touches its successor (worker-miner spec 10,
//! F1). And a task belongs to a worker, not to a connection: it is found again when the worker comes back, and only
//! the worker that was asked can answer it (F6).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use byteleap_daemon::clock::Clock;
use byteleap_protocol::{
    challenge::ChallengeKind,
    code::CloseCode,
    feedback::Relayed,
    frame::{HeartbeatReport, HostData, MinerFrame, ProofAnswer, Register, TaskAssignment, TaskOutcome, TaskResult},
    id::{ChallengeId, MessageId, WorkerId},
    worker_key::WorkerKey,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::door::Standing;

/// Which connection an entry of the table belongs to; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

/// The miner's ends of a worker's connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Frames to the worker.
    pub(super) outgoing: mpsc::Sender<MinerFrame>,
    /// Asks the connection to close; fires at most once.
    pub(super) goodbye: oneshot::Sender<CloseCode>,
    /// Where it comes from.
    pub(super) address: IpAddr,
    /// Whether it is a TLS link.
    pub(super) is_tls: bool,
    /// What its worker has proved.
    pub(super) standing: Standing,
}

/// To whom a task belongs, whatever name it goes by: only its owner's result is taken. The logbook keeps it, so that a
/// restart of the miner gives a task to nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Whoever proves this enrolled key.
    Key(WorkerKey),
    /// Whoever registers under the task's `worker_id` from this address.
    Address(IpAddr),
}

impl Link {
    fn owner(&self) -> Owner {
        match self.standing {
            Standing::Enrolled(key) => Owner::Key(key),
            Standing::Unenrolled(_) | Standing::Unproved => Owner::Address(self.address),
        }
    }

    /// Whether the worker at its other end is this owner, or was it before its key was enrolled.
    fn is_of(&self, owner: Owner) -> bool {
        match owner {
            Owner::Key(_) => self.owner() == owner,
            Owner::Address(address) => self.address == address,
        }
    }
}

/// A worker as others may see it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// Identity within this miner.
    pub worker_id: WorkerId,
    /// Display name; the identity where the worker gave none.
    pub name: String,
    /// Software version of the worker.
    pub version: String,
    /// What it has proved.
    pub standing: Standing,
    /// Whether its link is encrypted.
    pub is_tls: bool,
    /// Kinds of challenges it takes, as last reported.
    pub capabilities: Vec<String>,
    /// Host data, as last reported.
    pub system_info: HostData,
    /// When this connection registered, in milliseconds since 1970.
    pub connected_at_ms: i64,
    /// When the last heartbeat of this connection came in, in milliseconds since 1970; none before the first.
    pub last_heartbeat_at_ms: Option<i64>,
    /// The challenge it works on.
    pub task: Option<ChallengeId>,
}

/// The table is full.
#[derive(Debug, thiserror::Error)]
#[error("the miner already serves {0} workers (worker_management.max_workers)")]
pub(super) struct Full(usize);

/// Why a worker cannot be given a task now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such worker is connected.
    #[error("worker {0} is not connected")]
    Unknown(WorkerId),
    /// The worker did not report the capability.
    #[error("worker {worker_id} does not offer {capability}")]
    Incapable {
        /// The worker that was named.
        worker_id: WorkerId,
        /// The kind of challenge.
        capability: ChallengeKind,
    },
    /// The named worker, or every capable one, holds a task.
    #[error("no capable worker is idle")]
    Busy,
    /// No worker was named and none offers the capability.
    #[error("no connected worker offers {0}")]
    NobodyCapable(ChallengeKind),
}

/// Whether an answer of a worker found who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It was waited for, and now has it.
    Accepted,
    /// This worker was not asked for it, or not any more.
    Unasked,
    /// Another worker was.
    Foreign,
}

impl Delivery {
    /// The receiver is gone only when its deadline has just passed.
    fn of<T>(sent: Result<(), T>) -> Self {
        if sent.is_ok() { Self::Accepted } else { Self::Unasked }
    }
}

/// When a worker is told of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Now, on its present connection.
    Now,
    /// By a former process, so that it may hold the task.
    Before,
}

/// A cheap handle on the table.
#[derive(Debug, Clone)]
pub struct Registry {
    table: Arc<Mutex<Table>>,
    changes: watch::Sender<()>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Table {
    workers: BTreeMap<WorkerId, Entry>,
    tasks: BTreeMap<WorkerId, Task>,
    max_workers: usize,
    last_number: u64,
}

#[derive(Debug)]
struct Entry {
    generation: Generation,
    link: Link,
    name: String,
    version: String,
    capabilities: Vec<String>,
    system_info: HostData,
    connected_at_ms: i64,
    last_heartbeat_at_ms: Option<i64>,
    /// On the monotonic clock.
    last_seen: Duration,
}

/// The task a worker holds; lives exactly as long as the [`Seat`](super::dispatch::Seat) that put it there.
#[derive(Debug)]
struct Task {
    number: u64,
    challenge_id: ChallengeId,
    owner: Owner,
    awaiting: Awaiting,
}

/// The one answer that is accepted from the worker at the moment.
#[derive(Debug)]
enum Awaiting {
    Nothing,
    Outcome { answer: oneshot::Sender<TaskOutcome>, assignment: Box<TaskAssignment>, told: Option<Generation> },
    Proof { message_id: MessageId, answer: oneshot::Sender<ProofAnswer> },
}

impl Registry {
    /// An empty table for at most `max_workers`.
    #[must_use]
    pub fn new(max_workers: usize, clock: Arc<dyn Clock>) -> Self {
        let table = Table { workers: BTreeMap::new(), tasks: BTreeMap::new(), max_workers, last_number: 0 };
        Self { table: Arc::new(Mutex::new(table)), changes: watch::Sender::new(()), clock }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic cannot leave the table half changed: every change is one insertion or removal.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- connections ------------------------------------------------------------------------------------------

    /// Enters a worker. A connection that already holds this identity is told to close; nobody waits for it (F8).
    pub(super) fn register(&self, register: Register, link: Link) -> Result<Generation, Full> {
        let mut table = self.table();
        if !table.workers.contains_key(&register.worker_id) && table.workers.len() >= table.max_workers {
            return Err(Full(table.max_workers));
        }
        let generation = Generation(table.next_number());
        let worker_id = register.worker_id;
        let entry = Entry {
            generation,
            link,
            name: register.worker_name.filter(|name| !name.is_empty()).unwrap_or_else(|| worker_id.to_string()),
            version: register.worker_version,
            capabilities: register.capabilities,
            system_info: HostData::from(&register.system_info),
            connected_at_ms: self.clock.unix_ms(),
            last_heartbeat_at_ms: None,
            last_seen: self.clock.monotonic(),
        };
        if let Some(replaced) = table.workers.insert(worker_id, entry) {
            // The old connection may be gone already; then there is nobody to tell.
            let _ = replaced.link.goodbye.send(CloseCode::GoingAway);
        }
        drop(table);
        self.changes.send_replace(());
        Ok(generation)
    }

    /// Takes in a heartbeat; absent capabilities leave what is stored (F9). A worker that has come back and says that it
    /// holds no task is given again the one that it was given on an earlier connection. False if the connection no longer
    /// owns the entry.
    pub(super) fn heartbeat(
        &self,
        worker_id: &WorkerId,
        generation: Generation,
        report: impl Into<HeartbeatReport>,
    ) -> bool {
        let report = report.into();
        let mut table = self.table();
        let Some(entry) = table.owned(worker_id, generation) else { return false };
        entry.system_info = report.system_info;
        let offered = report.capabilities.filter(|capabilities| *capabilities != entry.capabilities);
        let offers_something_else = offered.is_some();
        if let Some(capabilities) = offered {
            entry.capabilities = capabilities;
        }
        entry.last_seen = self.clock.monotonic();
        entry.last_heartbeat_at_ms = Some(self.clock.unix_ms());
        if report.active_tasks == Some(0) {
            table.tell_again(worker_id);
        }
        drop(table);
        // Nobody waits for a report that changes nothing.
        if offers_something_else {
            self.changes.send_replace(());
        }
        true
    }

    /// Removes the entry of an ended connection, if it is still its own. A proof that was asked for on this
    /// connection will not come any more; a computation goes on at the worker, so its result is still waited for.
    pub(super) fn leave(&self, worker_id: &WorkerId, generation: Generation) {
        let mut table = self.table();
        if table.owned(worker_id, generation).is_some() {
            table.workers.remove(worker_id);
            table.abandon_proof(worker_id);
            drop(table);
            self.changes.send_replace(());
        }
    }

    /// Removes every worker that has been silent for longer than `timeout` and tells its connection to close.
    /// Silence is measured on the monotonic clock (F49), and all of them are told at once (F8).
    fn remove_silent(&self, timeout: Duration) -> Vec<WorkerId> {
        let now = self.clock.monotonic();
        let mut table = self.table();
        let silent: Vec<_> = table
            .workers
            .iter()
            .filter(|(_, entry)| now.saturating_sub(entry.last_seen) > timeout)
            .map(|(worker_id, _)| worker_id.clone())
            .collect();
        for worker_id in &silent {
            if let Some(entry) = table.workers.remove(worker_id) {
                let _ = entry.link.goodbye.send(CloseCode::HeartbeatTimeout);
            }
            table.abandon_proof(worker_id);
        }
        drop(table);
        if !silent.is_empty() {
            self.changes.send_replace(());
        }
        silent
    }

    /// Judges every connected worker anew: those that fail are removed and told to close, the others get the standing that
    /// they were found to have. The task that a worker holds is from then on that of the key which was enrolled for it.
    pub(super) fn judge_again<E>(
        &self,
        judge: impl Fn(&WorkerId, Standing) -> Result<Standing, E>,
    ) -> Vec<(WorkerId, E)>
    where
        for<'a> CloseCode: From<&'a E>,
    {
        let mut dismissed = Vec::new();
        let mut table = self.table();
        let Table { workers, tasks, .. } = &mut *table;
        for (worker_id, entry) in workers {
            match judge(worker_id, entry.link.standing) {
                Ok(standing) => {
                    let former = entry.link.owner();
                    entry.link.standing = standing;
                    if let Some(task) = tasks.get_mut(worker_id).filter(|task| task.owner == former) {
                        task.owner = entry.link.owner();
                    }
                }
                Err(reason) => dismissed.push((worker_id.clone(), reason)),
            }
        }
        for (worker_id, reason) in &dismissed {
            if let Some(entry) = table.workers.remove(worker_id) {
                let _ = entry.link.goodbye.send(CloseCode::from(reason));
            }
            table.abandon_proof(worker_id);
        }
        drop(table);
        self.changes.send_replace(());
        dismissed
    }

    /// Whether this connection is encrypted and its worker has proved an enrolled key.
    pub(super) fn is_authenticated(&self, worker_id: &WorkerId, generation: Generation) -> bool {
        let mut table = self.table();
        let owned = table.owned(worker_id, generation);
        owned.is_some_and(|entry| entry.link.is_tls && matches!(entry.link.standing, Standing::Enrolled(_)))
    }

    /// Removes silent workers, looking every `pause`, until `stop`.
    pub(crate) async fn guard_against_silence(&self, timeout: Duration, pause: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            for worker_id in self.remove_silent(timeout) {
                tracing::warn!(%worker_id, "worker removed: no heartbeat in time");
            }
        }
    }

    /// Hands a result to the task it belongs to, if this connection is its owner's. One that comes after the task has
    /// ended is unasked; one for a task that another owner holds is foreign.
    pub(super) fn deliver_result(&self, worker_id: &WorkerId, generation: Generation, result: TaskResult) -> Delivery {
        let mut table = self.table();
        match table.claim(worker_id, generation, |task| task.challenge_id == result.task_id) {
            Ok(task) => match std::mem::replace(&mut task.awaiting, Awaiting::Nothing) {
                Awaiting::Outcome { answer, .. } => Delivery::of(answer.send(result.data)),
                other => {
                    task.awaiting = other;
                    Delivery::Unasked
                }
            },
            Err(refused) => refused,
        }
    }

    /// Hands a proof to whoever asked this worker for it under the same `message_id`.
    pub(super) fn deliver_proof(
        &self,
        worker_id: &WorkerId,
        generation: Generation,
        asked: &MessageId,
        proof: ProofAnswer,
    ) -> Delivery {
        let mut table = self.table();
        match table.claim(worker_id, generation, |task| task.awaits_proof(asked)) {
            Ok(task) => match std::mem::replace(&mut task.awaiting, Awaiting::Nothing) {
                Awaiting::Proof { answer, .. } => Delivery::of(answer.send(proof)),
                Awaiting::Nothing | Awaiting::Outcome { .. } => Delivery::Unasked,
            },
            Err(refused) => refused,
        }
    }

    // --- tasks ------------------------------------------------------------------------------------------------

    /// Marks a worker busy with a challenge: the named one, else the idle capable one that registered first.
    /// Returns the worker, the number under which the task is known, and to whom it belongs.
    pub(super) fn occupy(
        &self,
        target: Option<&WorkerId>,
        capability: ChallengeKind,
        challenge_id: &ChallengeId,
    ) -> Result<(WorkerId, u64, Owner), Refusal> {
        let mut table = self.table();
        let (worker_id, owner) = table.choose(target, capability)?;
        let number = table.next_number();
        let task = Task { number, challenge_id: challenge_id.clone(), owner, awaiting: Awaiting::Nothing };
        table.tasks.insert(worker_id.clone(), task);
        drop(table);
        self.changes.send_replace(());
        Ok((worker_id, number, owner))
    }

    /// Marks a worker busy with a challenge of a former process, whether it is connected or not. Returns the number under
    /// which the task is known; none if the worker holds another.
    pub(super) fn resume(&self, worker_id: &WorkerId, challenge_id: &ChallengeId, owner: Owner) -> Option<u64> {
        let mut table = self.table();
        if table.tasks.contains_key(worker_id) {
            return None;
        }
        let number = table.next_number();
        let task = Task { number, challenge_id: challenge_id.clone(), owner, awaiting: Awaiting::Nothing };
        table.tasks.insert(worker_id.clone(), task);
        Some(number)
    }

    /// Frees the worker again.
    pub(super) fn vacate(&self, worker_id: &WorkerId, number: u64) {
        let mut table = self.table();
        if table.tasks.get(worker_id).is_some_and(|task| task.number == number) {
            table.tasks.remove(worker_id);
            drop(table);
            self.changes.send_replace(());
        }
    }

    /// From now on the outcome of the task is accepted from the worker that holds it.
    pub(super) fn expect_outcome(
        &self,
        worker_id: &WorkerId,
        number: u64,
        assignment: TaskAssignment,
        told: Told,
    ) -> oneshot::Receiver<TaskOutcome> {
        let (answer, receiver) = oneshot::channel();
        let told = match told {
            Told::Now => self.table().workers.get(worker_id).map(|entry| entry.generation),
            Told::Before => None,
        };
        self.expect(worker_id, number, Awaiting::Outcome { answer, assignment: Box::new(assignment), told });
        receiver
    }

    /// From now on the proof `message_id` is accepted from the worker that holds the task.
    pub(super) fn expect_proof(
        &self,
        worker_id: &WorkerId,
        number: u64,
        message_id: MessageId,
    ) -> oneshot::Receiver<ProofAnswer> {
        let (answer, receiver) = oneshot::channel();
        self.expect(worker_id, number, Awaiting::Proof { message_id, answer });
        receiver
    }

    fn expect(&self, worker_id: &WorkerId, number: u64, awaiting: Awaiting) {
        if let Some(task) = self.table().tasks.get_mut(worker_id).filter(|task| task.number == number) {
            task.awaiting = awaiting;
        }
    }

    /// Where frames to this worker go; none if it is not connected.
    pub(super) fn outgoing(&self, worker_id: &WorkerId) -> Option<mpsc::Sender<MinerFrame>> {
        self.table().workers.get(worker_id).map(|entry| entry.link.outgoing.clone())
    }

    /// Passes on what validators tell of a worker, unless it has left or takes nothing in at the moment: the next report
    /// comes soon.
    pub(crate) fn tell(&self, worker_id: &WorkerId, data: Relayed) {
        if let Some(outgoing) = self.outgoing(worker_id) {
            let _ = outgoing.try_send(MinerFrame::Feedback { data });
        }
    }

    // --- views ------------------------------------------------------------------------------------------------

    /// How many connected workers hold no task.
    #[must_use]
    pub fn idle(&self) -> usize {
        let table = self.table();
        table.workers.keys().filter(|worker_id| !table.tasks.contains_key(*worker_id)).count()
    }

    /// Every connected worker, by identity.
    #[must_use]
    pub fn snapshot(&self) -> Vec<WorkerView> {
        let table = self.table();
        table
            .workers
            .iter()
            .map(|(worker_id, entry)| WorkerView {
                worker_id: worker_id.clone(),
                name: entry.name.clone(),
                version: entry.version.clone(),
                standing: entry.link.standing,
                is_tls: entry.link.is_tls,
                capabilities: entry.capabilities.clone(),
                system_info: entry.system_info.clone(),
                connected_at_ms: entry.connected_at_ms,
                last_heartbeat_at_ms: entry.last_heartbeat_at_ms,
                task: table.tasks.get(worker_id).map(|task| task.challenge_id.clone()),
            })
            .collect()
    }

    /// Wakes on every change of the table: a worker came, reported, went, was given or finished a task.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl Task {
    fn awaits_proof(&self, asked: &MessageId) -> bool {
        matches!(&self.awaiting, Awaiting::Proof { message_id, .. } if message_id == asked)
    }
}

impl Table {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The task that a worker means, if this connection is its owner's; otherwise why its answer is refused.
    fn claim(
        &mut self,
        worker_id: &WorkerId,
        generation: Generation,
        is_meant: impl Fn(&Task) -> bool,
    ) -> Result<&mut Task, Delivery> {
        // A replaced connection has nothing to say any more; its worker says it again on the new one.
        let present = self.workers.get(worker_id).filter(|entry| entry.generation == generation);
        let link = &present.ok_or(Delivery::Unasked)?.link;
        if !self.tasks.get(worker_id).is_some_and(&is_meant) {
            let is_held = self.tasks.values().any(is_meant);
            return Err(if is_held { Delivery::Foreign } else { Delivery::Unasked });
        }
        self.tasks.get_mut(worker_id).filter(|task| link.is_of(task.owner)).ok_or(Delivery::Foreign)
    }

    fn owned(&mut self, worker_id: &WorkerId, generation: Generation) -> Option<&mut Entry> {
        self.workers.get_mut(worker_id).filter(|entry| entry.generation == generation)
    }

    /// Gives a worker the task that it was given on an earlier connection or not at all, if its outcome is awaited. A
    /// connection without room for it is tried again at the next heartbeat.
    fn tell_again(&mut self, worker_id: &WorkerId) {
        let (Some(entry), Some(task)) = (self.workers.get(worker_id), self.tasks.get_mut(worker_id)) else { return };
        if let Awaiting::Outcome { assignment, told, .. } = &mut task.awaiting
            && *told != Some(entry.generation)
            && entry.link.is_of(task.owner)
        {
            let data = TaskAssignment::clone(assignment);
            if entry.link.outgoing.try_send(MinerFrame::TaskAssignment { data }).is_ok() {
                *told = Some(entry.generation);
                tracing::info!(%worker_id, challenge_id = %task.challenge_id, "worker came back without its task: assigned again");
            }
        }
    }

    /// Drops the waiter of a proof, which it takes for "will not come".
    fn abandon_proof(&mut self, worker_id: &WorkerId) {
        if let Some(task) = self.tasks.get_mut(worker_id)
            && matches!(task.awaiting, Awaiting::Proof { .. })
        {
            task.awaiting = Awaiting::Nothing;
        }
    }

    fn choose(&self, target: Option<&WorkerId>, capability: ChallengeKind) -> Result<(WorkerId, Owner), Refusal> {
        let offers = |entry: &Entry| entry.capabilities.iter().any(|offered| offered == capability.as_str());
        if let Some(worker_id) = target {
            let entry = self.workers.get(worker_id).ok_or_else(|| Refusal::Unknown(worker_id.clone()))?;
            if !offers(entry) {
                return Err(Refusal::Incapable { worker_id: worker_id.clone(), capability });
            }
            let is_busy = self.tasks.contains_key(worker_id);
            return if is_busy { Err(Refusal::Busy) } else { Ok((worker_id.clone(), entry.link.owner())) };
        }
        let mut capable = self.workers.iter().filter(|(_, entry)| offers(entry)).peekable();
        if capable.peek().is_none() {
            return Err(Refusal::NobodyCapable(capability));
        }
        capable
            .filter(|(worker_id, _)| !self.tasks.contains_key(*worker_id))
            .min_by_key(|(_, entry)| entry.generation.0)
            .map(|(worker_id, entry)| (worker_id.clone(), entry.link.owner()))
            .ok_or(Refusal::Busy)
    }
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::clock::ManualClock;
    use byteleap_protocol::{Object, frame::WorkerHeartbeat};

    use super::*;

    struct World {
        registry: Registry,
        clock: Arc<ManualClock>,
    }

    /// The worker's ends of a connection.
    struct Ends {
        frames: mpsc::Receiver<MinerFrame>,
        goodbye: oneshot::Receiver<CloseCode>,
        generation: Generation,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::new(1_760_000_000_000));
            Self { registry: Registry::new(2, Arc::clone(&clock) as Arc<dyn Clock>), clock }
        }

        fn register(&self, worker: &str) -> Result<Ends, Full> {
            self.register_from(worker, [127, 0, 0, 1], Standing::Unproved)
        }

        fn register_from(&self, worker: &str, address: [u8; 4], standing: Standing) -> Result<Ends, Full> {
            let (outgoing, frames) = mpsc::channel(1);
            let (goodbye, asked_to_close) = oneshot::channel();
            let register = Register {
                worker_id: id(worker),
                worker_name: None,
                worker_version: "1".to_owned(),
                capabilities: vec!["cpu_matrix".to_owned()],
                system_info: Object::new(),
                identity: None,
            };
            let generation = self
                .registry
                .register(register, Link { outgoing, goodbye, address: address.into(), is_tls: false, standing })?;
            Ok(Ends { frames, goodbye: asked_to_close, generation })
        }

        fn occupy(&self, target: Option<&str>) -> Result<(WorkerId, u64), Refusal> {
            let challenge_id = ChallengeId::new("c1").expect("an id");
            let occupied = self.registry.occupy(target.map(id).as_ref(), ChallengeKind::CpuMatrix, &challenge_id);
            occupied.map(|(worker_id, number, _)| (worker_id, number))
        }
    }

    fn id(worker: &str) -> WorkerId {
        WorkerId::new(worker).expect("an id")
    }

    #[test]
    fn only_the_connection_that_owns_an_entry_changes_or_removes_it() {
        let world = World::new();
        let mut old = world.register("w1").expect("registered");
        let new = world.register("w1").expect("registered");
        assert_eq!(old.goodbye.try_recv(), Ok(CloseCode::GoingAway));
        let report = || WorkerHeartbeat::default();
        assert!(!world.registry.heartbeat(&id("w1"), old.generation, report()));
        world.registry.leave(&id("w1"), old.generation);
        assert!(world.registry.heartbeat(&id("w1"), new.generation, report()));
        world.registry.leave(&id("w1"), new.generation);
        assert!(world.registry.snapshot().is_empty());
    }

    #[test]
    fn silence_is_measured_whatever_the_wall_clock_does() {
        let world = World::new();
        let timeout = Duration::from_secs(90);
        let mut silent = world.register("w1").expect("registered");
        let alive = world.register("w2").expect("registered");
        world.clock.set_unix_ms(0);
        world.clock.advance(timeout);
        assert_eq!(world.registry.remove_silent(timeout), []);
        assert!(world.registry.heartbeat(&id("w2"), alive.generation, WorkerHeartbeat::default()));
        world.clock.advance(Duration::from_millis(1));
        assert_eq!(world.registry.remove_silent(timeout), [id("w1")]);
        assert_eq!(silent.goodbye.try_recv(), Ok(CloseCode::HeartbeatTimeout));
    }

    #[test]
    fn a_task_is_placed_by_target_capability_and_idleness() {
        let world = World::new();
        assert_eq!(world.occupy(None), Err(Refusal::NobodyCapable(ChallengeKind::CpuMatrix)));
        assert_eq!(world.occupy(Some("w2")), Err(Refusal::Unknown(id("w2"))));
        let _second = world.register("w2").expect("registered");
        let _first = world.register("w1").expect("registered");
        assert_eq!(world.occupy(None).map(|(worker, _)| worker), Ok(id("w2")));
        assert_eq!(world.occupy(Some("w2")), Err(Refusal::Busy));
        let (worker, number) = world.occupy(None).expect("w1 is idle");
        assert_eq!((worker, world.registry.idle()), (id("w1"), 0));
        assert_eq!(world.occupy(None), Err(Refusal::Busy));
        world.registry.vacate(&id("w1"), number);
        assert_eq!(world.registry.idle(), 1);
    }

    #[test]
    fn a_worker_that_comes_back_is_still_busy_and_its_proof_is_no_longer_awaited() {
        let world = World::new();
        let before = world.register("w1").expect("registered");
        let (worker, number) = world.occupy(Some("w1")).expect("idle");
        let mut proof = world.registry.expect_proof(&worker, number, MessageId::new("m1").expect("an id"));
        world.registry.leave(&worker, before.generation);
        assert_eq!(proof.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let _after = world.register("w1").expect("registered");
        assert_eq!(world.occupy(Some("w1")), Err(Refusal::Busy));
    }

    fn result(challenge: &str) -> TaskResult {
        TaskResult {
            worker_id: "whatever".to_owned(),
            task_id: ChallengeId::new(challenge).expect("an id"),
            timestamp: 1.0,
            data: TaskOutcome::failed("for the test"),
        }
    }

    fn assignment(challenge: &str) -> TaskAssignment {
        TaskAssignment {
            task_id: ChallengeId::new(challenge).expect("an id"),
            task_type: "cpu_matrix".to_owned(),
            challenge_id: None,
            data: Object::new(),
            timeout: None,
            validator_hotkey: None,
        }
    }

    #[test]
    fn a_result_is_taken_from_the_tasks_owner_wherever_it_is_now() {
        let world = World::new();
        let key = Standing::Enrolled(WorkerKey([7; 32]));
        let _before = world.register_from("keyed", [203, 0, 113, 1], key).expect("registered");
        let (worker, number) = world.occupy(Some("keyed")).expect("idle");
        let mut outcome = world.registry.expect_outcome(&worker, number, assignment("c1"), Told::Now);
        let deliver =
            |worker: &str, ends: &Ends| world.registry.deliver_result(&id(worker), ends.generation, result("c1"));

        let other_key = Standing::Enrolled(WorkerKey([8; 32]));
        for standing in [Standing::Unproved, other_key] {
            let impostor = world.register_from("keyed", [203, 0, 113, 1], standing).expect("registered");
            assert_eq!(deliver("keyed", &impostor), Delivery::Foreign, "the same address, but not the key");
        }
        let stranger = world.register_from("stranger", [203, 0, 113, 1], Standing::Unproved).expect("registered");
        assert_eq!(deliver("stranger", &stranger), Delivery::Foreign);
        let moved = world.register_from("keyed", [198, 51, 100, 1], key).expect("registered");
        assert!(outcome.try_recv().is_err(), "nobody was taken for the owner");
        assert_eq!(deliver("keyed", &moved), Delivery::Accepted, "the key, after a reconnect from elsewhere");
        assert!(outcome.try_recv().is_ok());
        assert_eq!(deliver("keyed", &moved), Delivery::Unasked, "once");
    }

    #[test]
    fn a_worker_that_is_enrolled_in_mid_task_keeps_it_and_brings_it_along_by_its_key() {
        let key = WorkerKey([7; 32]);
        for (is_judged, now_from) in [(true, [198, 51, 100, 1]), (false, [203, 0, 113, 1])] {
            let world = World::new();
            let _before = world.register_from("w1", [203, 0, 113, 1], Standing::Unenrolled(key)).expect("registered");
            let (worker, number) = world.occupy(Some("w1")).expect("idle");
            let mut outcome = world.registry.expect_outcome(&worker, number, assignment("c1"), Told::Now);
            if is_judged {
                let dismissed = world.registry.judge_again(|_, _| Ok::<_, ClosedFor>(Standing::Enrolled(key)));
                assert!(dismissed.is_empty());
            }
            // A key that nobody saw connected proves the task by its address, as the worker did when it was given to it.
            let after = world.register_from("w1", now_from, Standing::Enrolled(key)).expect("registered");
            assert_eq!(world.registry.deliver_result(&worker, after.generation, result("c1")), Delivery::Accepted);
            assert!(outcome.try_recv().is_ok());
        }
    }

    /// A reason to be dismissed, which nobody here has.
    #[derive(Debug)]
    struct ClosedFor;

    impl From<&ClosedFor> for CloseCode {
        fn from(_: &ClosedFor) -> Self {
            Self::NotEnrolled
        }
    }

    #[test]
    fn a_worker_gets_its_task_again_when_it_comes_back_and_says_that_it_holds_none() {
        let world = World::new();
        let beat = |ends: &Ends, active_tasks| {
            let report = WorkerHeartbeat { active_tasks, ..WorkerHeartbeat::default() };
            assert!(world.registry.heartbeat(&id("w1"), ends.generation, report));
        };
        let assignment = || TaskAssignment {
            task_id: ChallengeId::new("c1").expect("an id"),
            task_type: "cpu_matrix".to_owned(),
            challenge_id: None,
            data: Object::new(),
            timeout: None,
            validator_hotkey: None,
        };
        let mut first = world.register("w1").expect("registered");
        let (worker, number) = world.occupy(Some("w1")).expect("idle");
        let _outcome = world.registry.expect_outcome(&worker, number, assignment(), Told::Now);
        beat(&first, Some(0));
        assert!(first.frames.try_recv().is_err(), "it has just been told");

        let mut second = world.register("w1").expect("registered");
        beat(&second, Some(1));
        beat(&second, None);
        assert!(second.frames.try_recv().is_err(), "it still holds it, or does not say");
        beat(&second, Some(0));
        beat(&second, Some(0));
        assert_eq!(second.frames.try_recv(), Ok(MinerFrame::TaskAssignment { data: assignment() }));
        assert!(second.frames.try_recv().is_err(), "once for each connection");
    }

    #[test]
    fn a_task_of_a_former_process_waits_for_its_worker() {
        let world = World::new();
        let challenge_id = ChallengeId::new("c1").expect("an id");
        let owner = Owner::Address([127, 0, 0, 1].into());
        let number = world.registry.resume(&id("w1"), &challenge_id, owner).expect("it holds none");
        assert_eq!(world.registry.resume(&id("w1"), &challenge_id, owner), None);
        let _ends = world.register("w1").expect("registered");
        assert_eq!(world.occupy(Some("w1")), Err(Refusal::Busy));
        world.registry.vacate(&id("w1"), number);
        assert!(world.occupy(Some("w1")).is_ok());
    }

    #[test]
    fn the_table_has_a_cap_that_a_known_worker_does_not_meet() {
        let world = World::new();
        let _ends = [world.register("w1"), world.register("w2")];
        assert!(world.register("w3").is_err());
        assert!(world.register("w2").is_ok());
    }

    #[test]
    fn changes_of_the_table_wake_whoever_waits() {
        let world = World::new();
        let mut changes = world.registry.changes();
        let ends = world.register("w1").expect("registered");
        assert!(changes.has_changed().expect("a registry"));
        changes.mark_unchanged();
        world.registry.leave(&id("w1"), ends.generation);
        assert!(changes.has_changed().expect("a registry"));
    }
}
