//! A worker's link in this process, with intervals short enough for tests.

use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::admin::Readiness;
use byteleap_daemon::clock::SystemClock;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::worker_key::WorkerSecret;
use byteleap_worker::challenge::cache::ResultCache;
use byteleap_worker::challenge::run::{Limits, Runner};
use byteleap_worker::gpu::Gpus;
use byteleap_worker::link::told::LastRelayed;
use byteleap_worker::link::{Identity, Link, LinkState, Timing};
use byteleap_worker::outbox::Outbox;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::miner::{Miner, soon};

pub(crate) const WORKER_ID: &str = "09442c31e75402e3";

pub(crate) struct Bench {
    pub(crate) state: watch::Receiver<LinkState>,
    pub(crate) readiness: Readiness,
    pub(crate) told: LastRelayed,
    stop: CancellationToken,
    link: JoinHandle<()>,
}

/// Intervals of a link whose miner lives: nothing happens by itself.
pub(crate) fn calm() -> Timing {
    let long = Duration::from_secs(3600);
    Timing {
        reconnect_max: Duration::from_millis(20),
        second_registration_pause: Duration::from_millis(1),
        ..Timing::new(Duration::from_millis(1), long, long, long)
    }
}

impl Bench {
    /// A worker on its way to the miner.
    pub(crate) fn start(miner: &Miner, timing: Timing) -> Self {
        Self::with_gpus(miner, timing, Gpus::none())
    }

    /// A worker with GPUs on its way to the miner.
    pub(crate) fn with_gpus(miner: &Miner, timing: Timing, gpus: Gpus) -> Self {
        let clock = Arc::new(SystemClock::new());
        let (cache, outbox) = (ResultCache::default(), Arc::new(Outbox::default()));
        let limits = Limits { max_concurrent_tasks: 2, default_task_timeout: Duration::from_secs(300) };
        let runner = Runner::new(limits, clock.clone(), cache.clone(), gpus.clone(), outbox.clone());
        let readiness = Readiness::new();
        let (state, link_state) = watch::channel(LinkState::Away { reason: "not connected yet".to_owned() });
        let system_info = json!({"cpu_count": 4, "memory_total": 1024}).as_object().cloned().unwrap();
        let told = LastRelayed::default();
        let link = Link {
            identity: Identity {
                worker_id: WorkerId::new(WORKER_ID).unwrap(),
                worker_name: Some("bench".to_owned()),
                secret: Arc::new(WorkerSecret::from_text(&"07".repeat(32)).unwrap()),
                state_dir: std::path::PathBuf::from("/nowhere"),
            },
            url: miner.url().parse().unwrap(),
            pinned: None,
            timing,
            runner: runner.clone(),
            cache,
            gpus,
            outbox,
            system_info: watch::channel(system_info).1,
            clock,
            told: told.clone(),
            state,
            gate: readiness.gate("miner", "not connected yet"),
        };
        let stop = CancellationToken::new();
        let (link_stop, runner_stop) = (stop.clone(), stop.clone());
        let link = tokio::spawn(async move {
            let (link, runner) = tokio::join!(link.run(link_stop), runner.run(runner_stop));
            link.unwrap();
            runner.unwrap();
        });
        Self { state: link_state, readiness, told, stop, link }
    }

    /// Why the worker is not registered, once it says so with this part.
    pub(crate) async fn away_because(&mut self, part: &str) -> String {
        let said = |state: &LinkState| matches!(state, LinkState::Away { reason } if reason.contains(part));
        match soon(self.state.wait_for(said)).await.unwrap().clone() {
            LinkState::Away { reason } => reason,
            LinkState::Registered { .. } => unreachable!("the state is what was waited for"),
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn ended(self) {
        soon(self.link).await.unwrap();
    }
}
