//! The GPUs of this worker: an engine that computes on them, and what is known of them at present.
//!
//! An engine's calls block and may take minutes, so they stay off the runtime: [`Watcher`] looks for GPUs beside the link and leaves
//! what it finds in a watch, from where registrations and heartbeats take it; challenges and openings run on blocking threads.
//! [`vendor`] is the client of the vendor's compute server, which needs a socket and so cannot live in the compute crate; the
//! software engine does, and [`key`] keeps what it signs with.

pub mod key;
pub mod vendor;

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use byteleap_compute::engine::{Device, EngineError, GpuEngine};
use byteleap_daemon::clock::Clock;
use byteleap_protocol::Object;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::id::GpuUuid;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::status;

/// How often GPUs are looked for while there are some (worker-miner spec 5.1).
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// How often while there are none.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long a shown result is still held, so that a miner or worker that starts anew can ask for it again.
const RELEASE_AFTER: Duration = Duration::from_secs(30);

const BYTES_PER_MIB: u64 = 1 << 20;

/// What is known of the GPUs.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Those that compute.
    pub devices: Vec<Device>,
    /// When they were seen last, ms since 1970; none if never.
    pub at_ms: Option<i64>,
    /// Why there are none.
    pub reason: Option<String>,
}

/// The engine and what is known of its GPUs; a cheap handle.
#[derive(Clone, Debug)]
pub struct Gpus {
    engine: Option<Arc<dyn GpuEngine>>,
    seen: watch::Receiver<Seen>,
    /// Results that were begun: what an earlier one holds is gone with the next.
    submissions: Arc<AtomicU64>,
}

impl Gpus {
    /// A worker that computes on no GPU.
    #[must_use]
    pub fn none() -> Self {
        Self { engine: None, seen: watch::channel(Seen::default()).1, submissions: Arc::default() }
    }

    /// The GPUs of an engine, and the task that looks for them.
    #[must_use]
    pub fn of(engine: Arc<dyn GpuEngine>, clock: Arc<dyn Clock>) -> (Self, Watcher) {
        let (sender, seen) = watch::channel(Seen::default());
        let gpus = Self { engine: Some(engine.clone()), seen, submissions: Arc::default() };
        (gpus, Watcher { engine, clock, seen: sender })
    }

    /// The engine, if it has a GPU that computes.
    ///
    /// # Errors
    /// Why there is none.
    pub fn engine(&self) -> Result<Arc<dyn GpuEngine>, EngineError> {
        let none = || EngineError::Unavailable("gpu.enable is not set".to_owned());
        let engine = self.engine.as_ref().ok_or_else(none)?;
        let seen = self.seen.borrow();
        if seen.devices.is_empty() {
            let reason = seen.reason.clone().unwrap_or_else(|| "no GPU was seen yet".to_owned());
            return Err(EngineError::Unavailable(reason));
        }
        Ok(engine.clone())
    }

    /// Waits until this many GPUs or more are seen.
    pub async fn wait_for(&mut self, count: usize) {
        // Without a watcher no GPU will ever be seen, and nobody waits.
        let _ = self.seen.wait_for(|seen| seen.devices.len() >= count).await;
    }

    /// What this worker computes: GPU challenges too while a GPU is seen.
    #[must_use]
    pub fn capabilities(&self) -> Vec<String> {
        let has_gpu = !self.seen.borrow().devices.is_empty();
        let kinds = [Some(ChallengeKind::CpuMatrix), has_gpu.then_some(ChallengeKind::GpuMatrix)];
        kinds.into_iter().flatten().map(|kind| kind.as_str().to_owned()).collect()
    }

    /// The summary of a heartbeat's `gpu_info` (worker-miner spec 2.5).
    #[must_use]
    pub fn summary(&self) -> Object {
        let seen = self.seen.borrow();
        let mut summary = Object::new();
        summary.insert("gpu_available".to_owned(), (!seen.devices.is_empty()).into());
        summary.insert("gpu_count".to_owned(), seen.devices.len().into());
        if self.engine.is_some() {
            let details = seen.devices.iter().map(|device| Value::Object(device.details.clone()));
            summary.insert("gpu_details".to_owned(), details.collect());
        }
        if let Some(at_ms) = seen.at_ms {
            summary.insert("last_updated".to_owned(), json!(at_ms as f64 / 1000.0));
        }
        summary
    }

    /// Puts the GPUs into a sample of this machine: `gpu_plugin`, from which validators take the inventory, and `gpu_info`, by which
    /// they count presence, as far as the machine's own monitoring does not list them already.
    #[must_use]
    pub fn put_into(&self, mut system_info: Object) -> Object {
        let seen = self.seen.borrow();
        if seen.devices.is_empty() {
            return system_info;
        }
        let details = seen.devices.iter().map(|device| Value::Object(device.details.clone()));
        system_info.insert("gpu_plugin".to_owned(), details.collect());
        let mut listed = match system_info.remove("gpu_info") {
            Some(Value::Array(listed)) => listed,
            _ => Vec::new(),
        };
        let names: HashSet<String> =
            listed.iter().filter_map(|gpu| gpu.get("uuid")?.as_str().map(str::to_owned)).collect();
        let missing = seen.devices.iter().filter(|device| !names.contains(device.uuid.as_str()));
        let first = listed.len();
        listed.extend((first..).zip(missing).map(|(id, device)| presence(id, device)));
        system_info.insert("gpu_info".to_owned(), Value::Array(listed));
        system_info
    }

    /// The state for `/status`.
    #[must_use]
    pub fn status(&self) -> status::Gpu {
        let seen = self.seen.borrow();
        status::Gpu {
            engine: self.engine.as_ref().map(|engine| engine.name().to_owned()),
            gpus: seen.devices.iter().map(|device| device.uuid.to_string()).collect(),
            reason: seen.reason.clone(),
        }
    }

    /// A result is begun, before which what former ones hold is let go of.
    pub(crate) fn submission_begins(&self) {
        self.submissions.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of what a GPU holds after a while, unless another result has taken its place. Must be called on a runtime.
    pub(crate) fn release_later(&self, gpu: GpuUuid) {
        let Some(engine) = self.engine.clone() else { return };
        let (submissions, now) = (self.submissions.clone(), self.submissions.load(Ordering::Relaxed));
        tokio::spawn(async move {
            tokio::time::sleep(RELEASE_AFTER).await;
            if submissions.load(Ordering::Relaxed) == now {
                let released = tokio::task::spawn_blocking(move || engine.release(&gpu)).await;
                if let Ok(Err(error)) = released {
                    tracing::debug!(%error, "a GPU's result is still held");
                }
            }
        });
    }
}

/// A GPU as the machine's monitoring would list it (worker-miner spec 6.4).
fn presence(id: usize, device: &Device) -> Value {
    let mib = |name| device.details.get(name).and_then(Value::as_u64).unwrap_or(0) / BYTES_PER_MIB;
    let (total, free) = (mib("total_memory"), mib("free_memory"));
    let used = total.saturating_sub(free);
    let memory_util = if total == 0 { 0.0 } else { used as f64 / total as f64 * 100.0 };
    json!({
        "id": id,
        "name": device.details.get("name"),
        "memory_total": total,
        "memory_used": used,
        "memory_free": free,
        "memory_util": memory_util,
        "gpu_util": null,
        "temperature": null,
        "vendor": "NVIDIA",
        "type": "discrete",
        "uuid": device.uuid,
    })
}

/// Looks for GPUs, again and again.
#[derive(Debug)]
pub struct Watcher {
    engine: Arc<dyn GpuEngine>,
    clock: Arc<dyn Clock>,
    seen: watch::Sender<Seen>,
}

impl Watcher {
    /// Looks until `stop`: seldom while there are GPUs, often while there are none.
    ///
    /// # Errors
    /// None; the type suits a supervised task.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        loop {
            let has_gpus = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                has_gpus = self.look() => has_gpus,
            };
            let pause = if has_gpus { REFRESH_INTERVAL } else { RETRY_INTERVAL };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once; whether there are GPUs.
    async fn look(&self) -> bool {
        let engine = self.engine.clone();
        let looked = tokio::task::spawn_blocking(move || engine.devices()).await;
        let found = looked.unwrap_or_else(|panic| Err(EngineError::Failed(panic.to_string())));
        let seen = match found {
            Ok(devices) if devices.is_empty() => {
                Seen { reason: Some("the engine has no GPU".to_owned()), ..Seen::default() }
            }
            Ok(devices) => Seen { devices, at_ms: Some(self.clock.unix_ms()), reason: None },
            Err(error) => Seen { reason: Some(error.to_string()), ..Seen::default() },
        };
        let has_gpus = !seen.devices.is_empty();
        self.seen.send_modify(|last| {
            if last.reason != seen.reason || last.devices.len() != seen.devices.len() {
                match &seen.reason {
                    Some(reason) => tracing::warn!(engine = self.engine.name(), reason, "no GPU challenges"),
                    None => tracing::info!(engine = self.engine.name(), gpus = seen.devices.len(), "GPUs compute"),
                }
            }
            *last = seen;
        });
        has_gpus
    }
}
