//! A miner between stand-ins for the world: a chain in memory, validators, workers.

mod validator;
mod worker;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use byteleap_chain::{Chain, FixedChain, Metagraph, Neuron, Rules};
use byteleap_daemon::{
    admin,
    clock::SystemClock,
    config::{Config, Sources},
    tasks::{Signals, Tasks},
};
use byteleap_miner::{
    config::{KEYS, Settings},
    service::{self, World},
    status::Status,
};
use byteleap_protocol::{
    challenge::{ChallengeItem, ChallengeKind, TimeoutSeconds},
    hotkey::{Hotkey, Keypair, Signer},
    id::{ChallengeId, WorkerId},
};
use metrics_exporter_prometheus::PrometheusHandle;

pub(crate) use self::{
    validator::{Event, Script, StubValidator},
    worker::{Worker, commitment, register},
};

/// How long a test waits for what must come; only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The miner's key pair.
pub(crate) fn miner_key() -> Keypair {
    Keypair::from_seed(&[0x11; 32])
}

/// A running miner.
pub(crate) struct TestMiner {
    pub(crate) workers: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) settings: Settings,
    metrics: PrometheusHandle,
    tasks: Tasks,
    state_dir: Arc<tempfile::TempDir>,
}

impl TestMiner {
    /// Starts a miner that knows these validators.
    pub(crate) async fn start(validators: &[&StubValidator]) -> Self {
        Self::start_with(validators, &[]).await
    }

    /// Starts a miner with more settings, as `key=value`.
    pub(crate) async fn start_with(validators: &[&StubValidator], more: &[&str]) -> Self {
        let state_dir = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::start_in(state_dir, validators, more).await
    }

    /// Starts the miner that follows this one after a kill: it has nothing of it but its files.
    pub(crate) async fn start_after(&self, validators: &[&StubValidator], more: &[&str]) -> Self {
        Self::start_in(Arc::clone(&self.state_dir), validators, more).await
    }

    async fn start_in(state_dir: Arc<tempfile::TempDir>, validators: &[&StubValidator], more: &[&str]) -> Self {
        let mut arguments: Vec<String> = [
            "worker_management.host=127.0.0.1",
            "worker_management.port=0",
            "http.listen=127.0.0.1:0",
            "task_poll_interval=1",
            "heartbeat_interval=1",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("state_dir={}", state_dir.path().display()));
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let config = Config::load(KEYS, &Sources { arguments, ..Sources::default() }).expect("a configuration");
        let settings = Settings::read(&config, None).expect("settings");
        let chain: Arc<dyn Chain> = Arc::new(FixedChain::new(metagraph(validators), rules()));
        static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
        let metrics = METRICS.get_or_init(|| admin::record_metrics().expect("the first recorder")).clone();
        let world = World {
            chain,
            signer: Arc::new(miner_key()),
            clock: Arc::new(SystemClock::new()),
            metrics: metrics.clone(),
        };
        let tasks = Tasks::new();
        let addresses = service::start(&settings, world, &tasks).await.expect("a miner");
        Self { workers: addresses.workers, admin: addresses.admin, settings, metrics, tasks, state_dir }
    }

    /// What the admin endpoint shows.
    pub(crate) async fn status(&self) -> Status {
        let status = admin::get(self.admin, "/status").await.expect("a status");
        serde_json::from_value(status).expect("a status")
    }

    /// The value of a counter, as Prometheus reads it; 0 while nothing was counted.
    pub(crate) fn counted(&self, counter: &str) -> u64 {
        let text = self.metrics.render();
        let value = text.lines().find_map(|line| line.strip_prefix(counter)).map(str::trim);
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Stops as on a signal and waits for the end.
    pub(crate) async fn stop(self) {
        let (raise, signals) = Signals::manual();
        raise.send("SIGTERM").await.expect("a signal");
        self.tasks.clone().run(signals, PATIENCE).await.expect("a clean end");
    }
}

fn metagraph(validators: &[&StubValidator]) -> Metagraph {
    let mut neurons = vec![neuron(0, miner_key().hotkey(), None)];
    for (uid, validator) in (1..).zip(validators) {
        neurons.push(neuron(uid, validator.hotkey(), Some(validator.address())));
    }
    Metagraph { netuid: 128, block: 1, owner_hotkey: Hotkey([9; 32]), neurons }
}

fn neuron(uid: u16, hotkey: Hotkey, axon: Option<SocketAddr>) -> Neuron {
    Neuron {
        uid,
        hotkey,
        coldkey: [0; 32],
        axon,
        axon_version: 0,
        alpha_stake: 0,
        total_stake: 20_000_000_000_000,
        validator_permit: axon.is_some(),
        active: true,
        last_update: 0,
        registered_at: 0,
    }
}

fn rules() -> Rules {
    Rules {
        tempo: 360,
        immunity_period: 0,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version: 0,
        weights_rate_limit: 0,
        serving_rate_limit: 0,
        admin_freeze_window: 10,
        stake_threshold: 0,
        commit_reveal: false,
        reveal_period: 1,
        max_uids: 256,
    }
}

/// A CPU challenge for a worker.
pub(crate) fn challenge(challenge_id: &str, worker: &str) -> ChallengeItem {
    let serde_json::Value::Object(data) = serde_json::json!({"matrix_size": 8, "seed": "00112233"}) else { panic!() };
    ChallengeItem {
        challenge_id: ChallengeId::new(challenge_id).expect("an id"),
        challenge_type: ChallengeKind::CpuMatrix,
        data,
        timeout: TimeoutSeconds::new(60).expect("a timeout"),
        target_worker_id: Some(WorkerId::new(worker).expect("an id")),
    }
}
