//! A challenge takes a seat at a worker: the worker is busy while the seat lives and free when it is dropped.
//!
//! Because freeing is the seat's `Drop`, no path of a challenge's flow (refusal, timeout, panic, shutdown) can leave
//! a worker busy (worker-miner spec 10, F3, F14). What the worker answers comes back only through its own seat.

use std::time::Duration;

use byteleap_protocol::{
    challenge::ChallengeKind,
    frame::{MinerFrame, ProofAnswer, ProofQuery, TaskAssignment, TaskOutcome},
    id::{ChallengeId, MessageId, WorkerId},
};
use rand_core::OsRng;
use tokio::{sync::oneshot, time::Instant};

use super::registry::{Owner, Refusal, Registry, Told};

/// How long a frame may wait to be handed to a worker's connection.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker that is busy with one challenge.
#[derive(Debug)]
pub struct Seat {
    registry: Registry,
    worker_id: WorkerId,
    number: u64,
    owner: Owner,
}

/// What a challenge asks of a worker.
#[derive(Debug, Clone)]
pub struct Demand {
    /// The worker that must do it, where the validator named one.
    pub target: Option<WorkerId>,
    /// The kind of challenge, which the worker must have reported as a capability.
    pub capability: ChallengeKind,
    /// The challenge.
    pub challenge_id: ChallengeId,
}

/// Why a worker gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is not connected, or went while it was asked for a proof.
    #[error("the worker is not connected")]
    Disconnected,
    /// Its connection does not take frames.
    #[error("the worker's connection is stuck")]
    Stuck,
    /// The deadline passed.
    #[error("the worker did not answer in time")]
    Late,
}

impl Seat {
    /// Takes a seat now.
    ///
    /// # Errors
    /// [`Refusal`]; only [`Refusal::Busy`] can change by waiting.
    pub fn take(registry: &Registry, demand: &Demand) -> Result<Self, Refusal> {
        let (worker_id, number, owner) =
            registry.occupy(demand.target.as_ref(), demand.capability, &demand.challenge_id)?;
        Ok(Self { registry: registry.clone(), worker_id, number, owner })
    }

    /// Takes a seat as soon as the worker is free, until the deadline.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::Busy`] when the deadline passed.
    pub async fn await_turn(registry: &Registry, demand: &Demand, deadline: Instant) -> Result<Self, Refusal> {
        let mut changes = registry.changes();
        loop {
            match Self::take(registry, demand) {
                Err(Refusal::Busy) => {}
                taken => return taken,
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Refusal::Busy),
            }
        }
    }

    /// Takes the seat of a challenge that a former process gave to this worker, which need not be connected yet; it belongs
    /// to whom it belonged then. None if the worker holds another task.
    #[must_use]
    pub fn resume(registry: &Registry, worker_id: &WorkerId, challenge_id: &ChallengeId, owner: Owner) -> Option<Self> {
        let number = registry.resume(worker_id, challenge_id, owner)?;
        Some(Self { registry: registry.clone(), worker_id: worker_id.clone(), number, owner })
    }

    /// The worker.
    #[must_use]
    pub fn worker_id(&self) -> &WorkerId {
        &self.worker_id
    }

    /// Whose result is taken.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Assigns the task and waits for its result. A worker that loses its connection meanwhile may come back with it, or
    /// without it: then it gets it again.
    ///
    /// # Errors
    /// [`NoAnswer::Stuck`] or [`NoAnswer::Late`].
    pub async fn compute(&self, data: TaskAssignment, deadline: Instant) -> Result<TaskOutcome, NoAnswer> {
        let answer = self.registry.expect_outcome(&self.worker_id, self.number, data.clone(), Told::Now);
        match self.send(MinerFrame::TaskAssignment { data }, deadline).await {
            Ok(()) | Err(NoAnswer::Disconnected) => await_answer(answer, deadline).await,
            Err(error) => Err(error),
        }
    }

    /// Waits for the result of a task that a former process assigned. The worker gets it again only if it says that it
    /// holds none.
    ///
    /// # Errors
    /// [`NoAnswer::Late`].
    pub async fn recover(&self, data: TaskAssignment, deadline: Instant) -> Result<TaskOutcome, NoAnswer> {
        let answer = self.registry.expect_outcome(&self.worker_id, self.number, data, Told::Before);
        await_answer(answer, deadline).await
    }

    /// Waits until the worker is connected.
    ///
    /// # Errors
    /// [`NoAnswer::Disconnected`] when the deadline passed.
    pub async fn connected(&self, deadline: Instant) -> Result<(), NoAnswer> {
        let mut changes = self.registry.changes();
        while self.registry.outgoing(&self.worker_id).is_none() {
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(NoAnswer::Disconnected);
            }
        }
        Ok(())
    }

    /// Asks for proofs and waits for them.
    ///
    /// # Errors
    /// [`NoAnswer`]; [`NoAnswer::Disconnected`] as soon as the worker goes.
    pub async fn prove(&self, data: ProofQuery, deadline: Instant) -> Result<ProofAnswer, NoAnswer> {
        let message_id = MessageId::random(&mut OsRng);
        let answer = self.registry.expect_proof(&self.worker_id, self.number, message_id.clone());
        self.send(MinerFrame::ProofRequest { message_id, data }, deadline).await?;
        await_answer(answer, deadline).await
    }

    /// Hands a frame to the worker's connection, whose queue is bounded: a worker that takes nothing in holds up its own
    /// challenge only, and no longer than this.
    async fn send(&self, frame: MinerFrame, deadline: Instant) -> Result<(), NoAnswer> {
        let outgoing = self.registry.outgoing(&self.worker_id).ok_or(NoAnswer::Disconnected)?;
        let handover_ends = deadline.min(Instant::now() + HANDOVER_TIMEOUT);
        match tokio::time::timeout_at(handover_ends, outgoing.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(NoAnswer::Disconnected),
            Err(_) => Err(NoAnswer::Stuck),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.vacate(&self.worker_id, self.number);
    }
}

async fn await_answer<T>(answer: oneshot::Receiver<T>, deadline: Instant) -> Result<T, NoAnswer> {
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(NoAnswer::Disconnected),
        Err(_) => Err(NoAnswer::Late),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use byteleap_daemon::clock::SystemClock;
    use byteleap_protocol::{Object, frame::Register};
    use tokio::sync::mpsc;

    use super::*;
    use crate::workers::{door::Standing, registry::Link};

    #[tokio::test]
    async fn a_worker_whose_queue_is_full_fails_its_own_challenge_at_the_deadline_and_is_free_again() {
        let registry = Registry::new(1, Arc::new(SystemClock::new()));
        let (outgoing, _taken_by_nobody) = mpsc::channel(1);
        outgoing.try_send(MinerFrame::HeartbeatAck).expect("room for one");
        let (goodbye, _asked_to_close) = oneshot::channel();
        let worker_id = WorkerId::new("w1").expect("an id");
        let register = Register {
            worker_id: worker_id.clone(),
            worker_name: None,
            worker_version: "1".to_owned(),
            capabilities: vec!["cpu_matrix".to_owned()],
            system_info: Object::new(),
            identity: None,
        };
        let address = [127, 0, 0, 1].into();
        let link = Link { outgoing, goodbye, address, is_tls: false, standing: Standing::Unproved };
        registry.register(register, link).expect("registered");

        let challenge_id = ChallengeId::new("c1").expect("an id");
        let demand = Demand { target: Some(worker_id), capability: ChallengeKind::CpuMatrix, challenge_id };
        let seat = Seat::take(&registry, &demand).expect("idle");
        let data = TaskAssignment {
            task_id: demand.challenge_id.clone(),
            task_type: "cpu_matrix".to_owned(),
            challenge_id: None,
            data: Object::new(),
            timeout: None,
            validator_hotkey: None,
        };
        let answer = seat.compute(data, Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(answer, Err(NoAnswer::Stuck));
        assert_eq!(registry.idle(), 0);
        drop(seat);
        assert_eq!(registry.idle(), 1);
    }
}
