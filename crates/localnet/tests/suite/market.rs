//! The marketplace and the real validator over the real wire: what a lease is worth on the chain, what becomes of it when
//! nobody repeats it, and what a marketplace that is wrong or gone costs: nothing.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use byteleap_localnet::binaries::Binaries;
use byteleap_localnet::market::{self, Command as Order, Misbehaviour};
use byteleap_localnet::status::Status;
use byteleap_localnet::{Network, Options};
use byteleap_protocol::meshhub::MeshWorker;
use serde_json::{Value, json};

/// Pause between two looks at a running network.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A network and the worker of its first miner.
struct Leased {
    network: Network,
    folder: tempfile::TempDir,
    worker: MeshWorker,
    validator_set: Vec<String>,
}

impl Leased {
    async fn start(miners: u16, validator_set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let validator_set: Vec<String> = validator_set.iter().map(|key| (*key).to_owned()).collect();
        let options = Options {
            directory: folder.path().to_owned(),
            miners,
            workers: miners,
            validator_set: validator_set.clone(),
            ..Options::default()
        };
        let network = Network::start(&options, &Binaries::beside_this_process().unwrap()).await.unwrap();
        let worker = worker_of(&network, 1);
        Self { network, folder, worker, validator_set }
    }

    async fn tell(&self, order: Order) {
        market::tell(self.network.plan().market, &order).await.unwrap();
    }

    async fn lease(&self, score: f64) {
        self.tell(Order::Lease { worker: self.worker.clone(), score }).await;
    }

    /// The validator's own `/status`.
    async fn validator(&self) -> Value {
        byteleap_daemon::admin::get(self.network.plan().daemons[0].admin, "/status").await.unwrap()
    }

    async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.network.plan().daemons[0].admin);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// What the marketplace has heard.
    async fn heard(&self) -> Value {
        market::look(self.network.plan().market).await.unwrap()["heard"].take()
    }

    /// The weight of a uid on the chain.
    async fn weight(&self, uid: u16) -> u16 {
        let weights = Status::of(self.folder.path()).await.unwrap().progress.unwrap().weights;
        weights.into_iter().find(|(found, _)| *found == uid).map_or(0, |(_, weight)| weight)
    }

    /// What `explain` tells a person of the first miner.
    fn explained(&self) -> String {
        let told = Command::new(Binaries::beside_this_process().unwrap().validator())
            .arg("--config")
            .arg(self.network.directory().join("validator/config.yaml"))
            .args(self.validator_set.iter().flat_map(|key| ["--set", key]))
            .args(["explain", &self.worker.hotkey.to_string()])
            .output()
            .unwrap();
        String::from_utf8(told.stdout).unwrap()
    }
}

/// The one worker of the miner of this uid.
fn worker_of(network: &Network, uid: u16) -> MeshWorker {
    let hotkey = network.plan().daemons[usize::from(uid)].hotkey.unwrap();
    MeshWorker { hotkey, worker_id: format!("worker-{uid}").parse().unwrap() }
}

/// Looks until something holds; the test's own deadline ends a wait in vain.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[tokio::test]
async fn a_lease_raises_its_miners_weight_on_the_chain_and_its_end_lowers_it() {
    let mut net = Leased::start(2, &[]).await;
    until(async || net.weight(1).await > 0 || net.weight(2).await > 0).await;
    // Whoever earns less by challenges earns more by a lease.
    let (less, more) = if net.weight(1).await < net.weight(2).await { (1, 2) } else { (2, 1) };
    net.worker = worker_of(&net.network, less);
    net.lease(1.0).await;
    until(async || net.weight(less).await == u16::MAX && net.weight(more).await < u16::MAX / 4).await;
    net.lease(0.0).await;
    until(async || net.weight(more).await > u16::MAX / 4).await;
    net.network.stop().await;
}

#[tokio::test]
async fn without_the_marketplace_a_lease_grows_stale_and_expires_and_no_report_is_lost() {
    let net = Leased::start(1, &["meshhub.lease_stale_after=3", "meshhub.lease_expire_after=12"]).await;
    net.lease(0.8).await;
    until(async || net.validator().await["leases"]["active"] == 1).await;
    until(async || !net.heard().await["rounds"].as_array().unwrap().is_empty()).await;
    assert!(net.explained().contains("lease of worker-1: 0.8, by meshhub"), "{}", net.explained());

    net.tell(Order::Down).await;
    until(async || net.metrics().await.contains("\nleases_stale 1\n")).await;
    assert!(net.metrics().await.contains("\nmarketplace_connected 0\n"));
    assert!(net.explained().contains("stale: meshhub has not repeated it"), "{}", net.explained());
    until(async || net.metrics().await.contains("\nleases_expired_total 1\n")).await;
    let status = net.validator().await;
    assert_eq!((&status["leases"]["active"], &status["marketplace"]["state"]), (&json!(0), &json!("disconnected")));
    assert!(net.explained().contains("expired: meshhub has not repeated its 0.8"), "{}", net.explained());

    net.tell(Order::Up).await;
    until(async || net.validator().await["leases"]["active"] == 1).await;
    // Every round that the validator scored since the first one told has been told, those of the outage too.
    let rounds = rounds_of(&net.network.plan().database).await;
    until(async || {
        let heard = net.heard().await;
        let heard: Vec<&str> =
            heard["rounds"].as_array().unwrap().iter().map(|round| round["timestamp"].as_str().unwrap()).collect();
        let first = rounds.iter().position(|round| round == heard[0]).expect("the first round that was told");
        rounds[first..].iter().all(|round| heard.contains(&round.as_str()))
    })
    .await;
    assert!(net.heard().await["sessions"].as_u64().unwrap() >= 2, "the outage was one");
    net.network.stop().await;
}

/// The instants of the rounds in the validator's database, as the marketplace is told them.
async fn rounds_of(database: &Path) -> Vec<String> {
    use sqlx::Row;
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=ro", database.display());
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    let rows = sqlx::query("SELECT at FROM scoring_rounds ORDER BY id").fetch_all(&pool).await.unwrap();
    pool.close().await;
    let format = &time::format_description::well_known::Rfc3339;
    rows.iter()
        .map(|row| {
            let at_ms: i64 = row.get("at");
            time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000)
                .unwrap()
                .format(format)
                .unwrap()
        })
        .collect()
}

#[tokio::test]
async fn a_marketplace_that_misbehaves_is_refused_with_a_reason_and_disturbs_nothing() {
    let net = Leased::start(1, &[]).await;
    net.lease(0.5).await;
    until(async || net.validator().await["leases"]["active"] == 1).await;
    for (misbehaviour, reason) in [
        (Misbehaviour::Replay, "replay"),
        (Misbehaviour::BadSequence, "replay"),
        (Misbehaviour::WrongType, "mismatch"),
        (Misbehaviour::Malformed, "malformed"),
        (Misbehaviour::InfiniteScore, "not_finite"),
        (Misbehaviour::UnknownWorker, "unknown_worker"),
        (Misbehaviour::NegativeScore, "negative"),
    ] {
        let count = async || {
            let metrics = net.metrics().await;
            let name = format!("marketplace_refused_total{{reason=\"{reason}\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let before = count().await;
        net.tell(Order::Misbehave(misbehaviour)).await;
        until(async || count().await > before).await;
        assert_eq!(net.validator().await["marketplace"]["state"], "ready", "{reason}");
    }
    net.tell(Order::Misbehave(Misbehaviour::WrongKey)).await;
    until(async || {
        let status = net.validator().await;
        status["marketplace"]["reason"].as_str().is_some_and(|reason| reason.contains("meshhub.server_hotkey"))
    })
    .await;
    net.tell(Order::Misbehave(Misbehaviour::None)).await;
    until(async || net.validator().await["marketplace"]["state"] == "ready").await;
    until(async || net.validator().await["leases"]["active"] == 2).await;

    // What it may set is limited; what it asks is answered.
    net.tell(Order::Config(json!({ "validation": { "challenge_interval": 20 } }))).await;
    net.tell(Order::Config(json!({ "weight_management": { "score_weights": { "lease_weight": 1.0 } } }))).await;
    until(async || net.heard().await["acks"].as_array().unwrap().len() == 2).await;
    let acks = net.heard().await["acks"].take();
    assert_eq!(
        (&acks[0][1], &acks[1][1], &acks[1][2]["error"]),
        (&json!("accepted"), &json!("failed"), &json!("key_not_allowed"))
    );
    assert_eq!(net.validator().await["set_by_marketplace"], json!([["validation.challenge_interval", "20"]]));
    net.network.stop().await;
}
