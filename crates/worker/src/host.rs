//! What this worker tells of its machine: the latest sample, taken off the runtime, for whoever reports next.
//!
//! Sampling and reporting are apart, so that a disk that hangs delays the next sample and never a heartbeat.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use byteleap_host::monitor::Monitor;
use byteleap_protocol::Object;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Takes the first sample of the machine under `root`, and yields it together with the task that keeps it fresh.
pub async fn sampler(root: &Path, interval: Duration) -> (watch::Receiver<Object>, Sampler) {
    let (latest, reader) = watch::channel(Object::new());
    let mut sampler = Sampler { monitor: Some(Monitor::new(root)), latest, interval };
    sampler.sample().await;
    (reader, sampler)
}

/// Keeps the latest sample fresh.
#[derive(Debug)]
pub struct Sampler {
    /// Absent only after a sample that panicked.
    monitor: Option<Monitor>,
    latest: watch::Sender<Object>,
    interval: Duration,
}

impl Sampler {
    /// Samples once per interval until `stop`.
    ///
    /// # Errors
    /// None; the type suits a supervised task.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.sample() => {}
            }
        }
    }

    async fn sample(&mut self) {
        let Some(mut monitor) = self.monitor.take() else { return };
        let sampled = tokio::task::spawn_blocking(move || {
            let sample = serde_json::to_value(monitor.sample());
            (monitor, sample)
        });
        match sampled.await {
            Ok((monitor, sample)) => {
                self.monitor = Some(monitor);
                if let Ok(Value::Object(sample)) = sample {
                    self.latest.send_replace(sample);
                }
            }
            Err(error) => tracing::error!(%error, "this machine can no longer be sampled: restart the worker"),
        }
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::payload::SystemInfo;

    use super::*;

    #[tokio::test]
    async fn a_sample_passes_the_typed_check_of_a_miner() {
        let (latest, _sampler) = sampler(Path::new("/"), Duration::from_secs(30)).await;
        let info = SystemInfo::parse(&latest.borrow()).unwrap();
        assert!(info.cpu_count > 0 && info.memory_total > 0);
        assert!(info.cpu_info.is_some() && info.memory_info.is_some());
    }
}
