//! Supervised tasks: each has a name, an owner and an end.
//!
//! A daemon has one [`Tasks`]. Its parts spawn on it: a *service* runs until it is asked to stop, a *job* may finish
//! earlier. Each gets a [`CancellationToken`] that says when. [`Tasks::run`] then waits for the first of three things
//! that end a process: a signal, a call of [`Tasks::stop`], or a task that failed, panicked or (a service) returned
//! unasked. It cancels the token, waits for all tasks within a deadline, and says what went wrong. A second signal
//! ends the wait at once.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinError,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::notify::{State, notify};

/// What a task may fail with.
pub type TaskError = Box<dyn StdError + Send + Sync>;

/// Why the process ends other than as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task returned an error.
    #[error("task {task} failed")]
    Failed {
        /// Its name.
        task: String,
        /// What it failed with.
        source: TaskError,
    },
    /// A task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: String,
        /// What the panic said.
        message: String,
    },
    /// A service returned though nobody asked it to stop.
    #[error("task {task} ended though it should run until the process stops")]
    Ended {
        /// Its name.
        task: String,
    },
    /// Tasks were still running at the deadline.
    #[error("still running {} s after the stop: {}", deadline.as_secs_f32(), tasks.join(", "))]
    Undrained {
        /// How long they had.
        deadline: Duration,
        /// Their names.
        tasks: Vec<String>,
    },
    /// A second signal came while tasks were draining.
    #[error("a second signal came while these were stopping: {}", tasks.join(", "))]
    Interrupted {
        /// Their names.
        tasks: Vec<String>,
    },
    /// The process cannot listen to signals.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
}

/// The supervisor, as a cheap handle: clones share the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: CancellationToken,
    tracker: TaskTracker,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    next_id: u64,
    running: BTreeMap<u64, String>,
    failure: Option<Error>,
}

impl Tasks {
    /// A supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when the process stops.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.shared.stop.clone()
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Names of the tasks that run now.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.ledger().running.values().cloned().collect()
    }

    /// Spawns a task that runs until its token is cancelled. Its error, panic or early end stops the process.
    pub fn service<F, E>(&self, name: impl Into<String>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        self.spawn(name.into(), true, task(self.stop_token()));
    }

    /// Spawns a task that may finish by itself. Its error or panic stops the process.
    pub fn job<F, E>(&self, name: impl Into<String>, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        self.spawn(name.into(), false, task(self.stop_token()));
    }

    /// Spawns a task that is started again, after `pause`, whenever it fails, panics or ends before the stop. Each end
    /// is logged and counted (`task_restarts_total`).
    pub fn restarting<F, E>(
        &self,
        name: impl Into<String>,
        pause: Duration,
        mut task: impl FnMut(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        let (name, stop) = (name.into(), self.stop_token());
        self.service(name.clone(), |_| async move {
            while !stop.is_cancelled() {
                let attempt = task(stop.clone());
                let end = attempt_end(&name, tokio::spawn(attempt).await);
                if stop.is_cancelled() {
                    break;
                }
                let error = end.err().unwrap_or_else(|| Error::Ended { task: name.clone() });
                tracing::warn!(task = name, error = chain(&error), pause_ms = pause.as_millis(), "task starts again");
                metrics::counter!("task_restarts_total", "task" => name.clone()).increment(1);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Ok::<(), Error>(())
        });
    }

    /// Runs until the process ends, then drains: all tasks have `deadline` from the stop to return.
    ///
    /// # Errors
    ///
    /// The first failure of a task; else the tasks that had not returned at the deadline or at a second signal.
    pub async fn run(self, mut signals: Signals, deadline: Duration) -> Result<(), Error> {
        tokio::select! {
            () = self.shared.stop.cancelled() => {}
            name = signals.next() => {
                tracing::info!(signal = name, deadline_ms = deadline.as_millis(), "stopping");
                self.stop();
            }
        }
        notify(State::Stopping);
        self.shared.tracker.close();
        let drained = tokio::select! {
            () = self.shared.tracker.wait() => Ok(()),
            () = tokio::time::sleep(deadline) => Err(Error::Undrained { deadline, tasks: self.running() }),
            _ = signals.next() => Err(Error::Interrupted { tasks: self.running() }),
        };
        match (self.ledger().failure.take(), drained) {
            (Some(failure), Err(undrained)) => {
                tracing::error!(error = chain(&undrained), "tasks did not drain");
                Err(failure)
            }
            (Some(failure), Ok(())) => Err(failure),
            (None, drained) => drained,
        }
    }

    fn spawn<F, E>(&self, name: String, is_service: bool, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        let id = {
            let mut ledger = self.ledger();
            ledger.next_id += 1;
            let id = ledger.next_id;
            ledger.running.insert(id, name.clone());
            id
        };
        let shared = self.clone();
        // The task runs on its own, so that its panic ends there, and is awaited inside the tracker.
        let task = tokio::spawn(task);
        self.shared.tracker.spawn(async move {
            let end = attempt_end(&name, task.await);
            shared.ended(id, name, is_service, end);
        });
    }

    fn ended(&self, id: u64, name: String, is_service: bool, end: Result<(), Error>) {
        let failure = match end {
            Ok(()) if is_service && !self.shared.stop.is_cancelled() => Some(Error::Ended { task: name }),
            Ok(()) => None,
            Err(error) => Some(error),
        };
        let mut ledger = self.ledger();
        ledger.running.remove(&id);
        if let Some(failure) = failure {
            tracing::error!(error = chain(&failure), "task failed: the process stops");
            ledger.failure.get_or_insert(failure);
            drop(ledger);
            self.stop();
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one run of a task ended.
fn attempt_end<E: Into<TaskError>>(task: &str, end: Result<Result<(), E>, JoinError>) -> Result<(), Error> {
    match end {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::Failed { task: task.to_owned(), source: error.into() }),
        Err(join) => {
            let message = match join.try_into_panic() {
                Ok(panic) => panic_message(&*panic),
                Err(cancelled) => cancelled.to_string(),
            };
            Err(Error::Panicked { task: task.to_owned(), message })
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// An error and its causes on one line, as a log field.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The signals that end a process: the system's, or those that a test raises.
#[derive(Debug)]
pub struct Signals {
    raised: mpsc::Receiver<&'static str>,
}

impl Signals {
    /// SIGTERM and SIGINT of this process. Must be called on a runtime; from then on these signals end nothing by
    /// themselves.
    ///
    /// # Errors
    ///
    /// The process cannot listen to signals.
    pub fn of_process() -> Result<Self, Error> {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let (raise, raised) = mpsc::channel(2);
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                // Beyond the two that matter, a signal has nothing to add.
                if let Err(mpsc::error::TrySendError::Closed(_)) = raise.try_send(name) {
                    break;
                }
            }
        });
        Ok(Self { raised })
    }

    /// Signals that the holder of the sender raises.
    #[must_use]
    pub fn manual() -> (mpsc::Sender<&'static str>, Self) {
        let (raise, raised) = mpsc::channel(2);
        (raise, Self { raised })
    }

    /// The next signal; none ever comes once nobody can raise one.
    pub async fn next(&mut self) -> &'static str {
        match self.raised.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn until_stopped(stop: CancellationToken) -> Result<(), io::Error> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_signal_drains_all_tasks() {
        let tasks = Tasks::new();
        tasks.service("one", until_stopped);
        tasks.job("two", until_stopped);
        assert_eq!(tasks.running(), ["one", "two"]);
        let (raise, signals) = Signals::manual();
        raise.send("SIGTERM").await.unwrap();
        tasks.clone().run(signals, DEADLINE).await.unwrap();
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn a_failed_task_stops_the_others_and_is_named() {
        let tasks = Tasks::new();
        tasks.service("steady", until_stopped);
        tasks.job("broken", |_| async { Err(io::Error::other("disk full")) });
        let (_raise, signals) = Signals::manual();
        let error = tasks.run(signals, DEADLINE).await.unwrap_err();
        assert_eq!(chain(&error), "task broken failed: disk full");
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_not_a_silence() {
        let tasks = Tasks::new();
        tasks.service("wild", |_| async {
            if true {
                panic!("index {}", 7);
            }
            Ok::<(), io::Error>(())
        });
        let (_raise, signals) = Signals::manual();
        let error = tasks.run(signals, DEADLINE).await.unwrap_err();
        assert!(
            matches!(&error, Error::Panicked { task, message } if task == "wild" && message == "index 7"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_service_that_ends_unasked_is_a_failure_and_a_job_is_not() {
        let tasks = Tasks::new();
        tasks.job("errand", |_| async { Ok::<(), io::Error>(()) });
        tasks.service("short", |_| async { Ok::<(), io::Error>(()) });
        let (_raise, signals) = Signals::manual();
        let error = tasks.run(signals, DEADLINE).await.unwrap_err();
        assert!(matches!(&error, Error::Ended { task } if task == "short"), "{error}");
    }

    #[tokio::test]
    async fn tasks_that_outlast_the_deadline_are_named() {
        let tasks = Tasks::new();
        tasks.service("stuck", |_| std::future::pending::<Result<(), io::Error>>());
        let (raise, signals) = Signals::manual();
        raise.send("SIGINT").await.unwrap();
        let error = tasks.run(signals, Duration::from_millis(1)).await.unwrap_err();
        assert!(matches!(&error, Error::Undrained { tasks, .. } if *tasks == ["stuck"]), "{error}");
    }

    #[tokio::test]
    async fn a_real_sigterm_is_received() {
        let mut signals = Signals::of_process().unwrap();
        let killed = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert_eq!(signals.next().await, "SIGTERM");
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_drain_at_once() {
        let tasks = Tasks::new();
        tasks.service("stuck", |_| std::future::pending::<Result<(), io::Error>>());
        let (raise, signals) = Signals::manual();
        raise.send("SIGTERM").await.unwrap();
        raise.send("SIGTERM").await.unwrap();
        let error = tasks.run(signals, Duration::from_secs(3600)).await.unwrap_err();
        assert!(matches!(&error, Error::Interrupted { tasks } if *tasks == ["stuck"]), "{error}");
    }

    #[tokio::test]
    async fn a_restarting_task_is_started_again_after_failure_panic_and_end() {
        let tasks = Tasks::new();
        let (attempts, mut attempted) = mpsc::channel(8);
        let mut attempt = 0;
        tasks.restarting("phoenix", Duration::ZERO, move |stop| {
            attempt += 1;
            let (attempts, attempt) = (attempts.clone(), attempt);
            async move {
                attempts.send(attempt).await?;
                match attempt {
                    1 => Err("refused".into()),
                    2 => panic!("burnt"),
                    3 => Ok(()),
                    _ => {
                        stop.cancelled().await;
                        Ok::<(), TaskError>(())
                    }
                }
            }
        });
        for expected in 1..=4 {
            assert_eq!(attempted.recv().await, Some(expected));
        }
        tasks.stop();
        let (_raise, signals) = Signals::manual();
        tasks.run(signals, DEADLINE).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_reported() {
        let tasks = Tasks::new();
        tasks.job("first", |_| async { Err(io::Error::other("cause")) });
        tasks.service("second", |stop| async move {
            stop.cancelled().await;
            Err(io::Error::other("consequence"))
        });
        let (_raise, signals) = Signals::manual();
        let error = tasks.run(signals, DEADLINE).await.unwrap_err();
        assert!(matches!(&error, Error::Failed { task, .. } if task == "first"), "{error}");
    }
}
