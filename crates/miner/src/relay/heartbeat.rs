//! Reports the workers to every validator (worker-miner spec 3.3, miner-validator spec 2.3).
//!
//! A report is a picture of the workers table, not a queue that is emptied: a worker that is in the table has been
//! heard of within `worker_management.heartbeat_timeout`, and a report that fails is repeated by the next one, so
//! nothing is lost (F48). A miner without workers reports too; otherwise validators take it for dead.
//!
//! What a validator tells of the workers in its answer is kept for `status`, and each worker gets its part.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use byteleap_daemon::{clock::Clock, drain::Drain};
use byteleap_host::monitor::Monitor;
use byteleap_protocol::{
    feedback::{Relayed, cut},
    hotkey::Hotkey,
    payload::{HeartbeatData, SCHEMA_VERSION, SystemInfo, WorkerInfo, WorkerStatus},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::told::{Answer, Answers};
use crate::{
    status::idle_because,
    time::seconds,
    validators::{Validator, Validators},
    workers::registry::{Registry, WorkerView},
};

/// What a report is made from.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    validators: Validators,
    registry: Registry,
    clock: Arc<dyn Clock>,
    own: Hotkey,
    answers: Answers,
    drain: Drain,
    monitor: Arc<Mutex<Monitor>>,
}

impl Heartbeat {
    pub(crate) fn new(
        validators: Validators,
        registry: Registry,
        clock: Arc<dyn Clock>,
        own: Hotkey,
        answers: Answers,
        drain: Drain,
    ) -> Self {
        let monitor = Arc::new(Mutex::new(Monitor::new(Path::new("/"))));
        Self { validators, registry, clock, own, answers, drain, monitor }
    }

    /// Reports at once and then every interval, until `stop`. A validator that has not answered the last report yet is left
    /// out of the next one, so that it delays nobody else's.
    pub(crate) async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reports, mut awaited) = (FuturesUnordered::new(), Vec::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(answered) = reports.next(), if !reports.is_empty() => {
                    awaited.retain(|hotkey| *hotkey != answered);
                    self.pass_on();
                }
                _ = ticks.tick() => {
                    let data = Arc::new(self.picture().await);
                    metrics::gauge!("workers_reported").set(data.workers.len() as f64);
                    metrics::gauge!("workers_idle").set(self.registry.idle() as f64);
                    let validators = self.validators.current();
                    self.answers.retain(|hotkey| validators.iter().any(|validator| validator.hotkey() == *hotkey));
                    if validators.is_empty() {
                        self.pass_on();
                    }
                    for validator in validators {
                        if !awaited.contains(&validator.hotkey()) {
                            awaited.push(validator.hotkey());
                            reports.push(self.report(validator, Arc::clone(&data)));
                        }
                    }
                }
            }
        }
    }

    /// What is reported now.
    async fn picture(&self) -> HeartbeatData {
        HeartbeatData {
            hotkey: self.own.to_string(),
            timestamp: seconds(self.clock.unix_ms()),
            workers: self.registry.snapshot().into_iter().filter_map(worker_info).collect::<Vec<_>>().into(),
            miner_info: self.miner_info().await,
            schema_version: SCHEMA_VERSION,
        }
    }

    /// Reports to one validator and keeps what it answers. Returns whom.
    async fn report(&self, validator: Arc<Validator>, data: Arc<HeartbeatData>) -> Hotkey {
        let (hotkey, workers) = (validator.hotkey(), data.workers.len());
        let (message, feedback) = match validator.report(data).await {
            Ok(response) => {
                match response.error_code {
                    0 => tracing::debug!(validator = %hotkey, workers, "heartbeat taken"),
                    code => tracing::warn!(validator = %hotkey, code, "heartbeat refused"),
                }
                (response.message, response.feedback)
            }
            Err(error) => {
                error.log("heartbeat", hotkey);
                (error.to_string(), None)
            }
        };
        let message = cut(&message).unwrap_or_else(|| "taken".to_owned());
        self.answers.keep(hotkey, Answer { at_ms: self.clock.unix_ms(), message, feedback });
        hotkey
    }

    /// Tells each worker that has proved a key why it has no work and what validators said of it; a former worker has none,
    /// and would have no use for it.
    fn pass_on(&self) {
        let trouble = self.validators.trouble();
        let mut told = self.answers.by_worker();
        for worker in self.registry.snapshot() {
            if worker.standing.key().is_none() {
                continue;
            }
            let validators = told.remove(&worker.worker_id).unwrap_or_default();
            let idle_because = idle_because(&worker, self.drain.is_on(), trouble.as_deref(), &validators);
            self.registry.tell(&worker.worker_id, Relayed { idle_because, validators });
        }
    }

    /// The miner's own host.
    async fn miner_info(&self) -> Option<SystemInfo> {
        let monitor = Arc::clone(&self.monitor);
        let sampling = tokio::task::spawn_blocking(move || {
            let sample = monitor.lock().unwrap_or_else(PoisonError::into_inner).sample();
            serde_json::from_value(serde_json::to_value(sample)?)
        });
        match sampling.await {
            Ok(Ok(info)) => Some(SystemInfo { miner_version: Some(env!("CARGO_PKG_VERSION").to_owned()), ..info }),
            Ok(Err(error)) => {
                let error: serde_json::Error = error;
                tracing::warn!(%error, "the miner's own host is left out of the report");
                None
            }
            // The process stops.
            Err(_) => None,
        }
    }
}

/// The report of one worker; none before its first heartbeat, or where its host data fail the typed check.
fn worker_info(worker: WorkerView) -> Option<WorkerInfo> {
    let last_heartbeat_ms = worker.last_heartbeat_at_ms?;
    let read = worker.system_info.read().map_err(|error| error.to_string());
    let system_info = match read.and_then(|host| SystemInfo::parse(&host).map_err(|error| error.to_string())) {
        Ok(system_info) => system_info,
        Err(error) => {
            tracing::warn!(worker_id = %worker.worker_id, %error, "worker left out of the report: its system_info is malformed");
            return None;
        }
    };
    Some(WorkerInfo {
        worker_id: worker.worker_id,
        worker_name: Some(worker.name),
        worker_version: Some(worker.version),
        capabilities: worker.capabilities,
        status: if worker.task.is_some() { WorkerStatus::Busy } else { WorkerStatus::Online },
        system_info,
        connected_at: seconds(worker.connected_at_ms),
        last_heartbeat: seconds(last_heartbeat_ms),
    })
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::{
        frame::HostData,
        id::{ChallengeId, WorkerId},
    };
    use serde_json::json;

    use super::*;
    use crate::workers::door::Standing;

    fn worker(system_info: serde_json::Value) -> WorkerView {
        let serde_json::Value::Object(system_info) = system_info else { panic!("an object") };
        WorkerView {
            worker_id: WorkerId::new("w1").expect("an id"),
            name: "rack 1".to_owned(),
            version: "0.1.0".to_owned(),
            standing: Standing::Unproved,
            is_tls: false,
            capabilities: vec!["cpu_matrix".to_owned()],
            system_info: HostData::from(&system_info),
            connected_at_ms: 1_760_000_000_250,
            last_heartbeat_at_ms: Some(1_760_000_030_500),
            task: Some(ChallengeId::new("c1").expect("an id")),
        }
    }

    #[test]
    fn a_worker_is_reported_with_the_miners_own_status_and_in_seconds() {
        let info = worker_info(worker(json!({"cpu_count": 8, "novelty": true}))).expect("a report");
        assert_eq!(info.status, WorkerStatus::Busy);
        assert_eq!((info.connected_at, info.last_heartbeat), (1_760_000_000.25, 1_760_000_030.5));
        assert_eq!(info.system_info.cpu_count, 8);
        assert_eq!(info.system_info.other.get("novelty"), Some(&json!(true)));
    }

    #[test]
    fn a_worker_with_malformed_host_data_is_left_out() {
        assert_eq!(worker_info(worker(json!({"cpu_count": null}))), None);
    }

    #[test]
    fn a_worker_that_never_sent_a_heartbeat_is_left_out() {
        let silent = WorkerView { last_heartbeat_at_ms: None, ..worker(json!({})) };
        assert_eq!(worker_info(silent), None);
    }
}
