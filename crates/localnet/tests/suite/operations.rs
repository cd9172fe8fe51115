//! What an operator does to a running validator, with its real program: reload, alarms, capture, backup and restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use byteleap_daemon::admin;
use byteleap_localnet::{Display, Network, Options, binaries::Binaries};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Longest wait for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

struct World {
    network: Network,
    binaries: Binaries,
    _folder: tempfile::TempDir,
}

impl World {
    /// A network that has verified a challenge.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::beside_this_process().unwrap();
        let options = Options { directory: folder.path().to_owned(), ..Options::default() };
        let mut network = Network::start(&options, &binaries).await.unwrap();
        network.until_weights(Duration::from_secs(180), &mut Display::silent()).await.unwrap();
        Self { network, binaries, _folder: folder }
    }

    fn folder(&self) -> PathBuf {
        self.network.directory().join("validator")
    }

    fn config(&self) -> PathBuf {
        let mut found = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
        found.find(|path| path.extension().is_some_and(|extension| extension == "yaml")).unwrap()
    }

    /// Changes the configuration file and lets the running validator read it again.
    fn reload(&self, change: impl FnOnce(&mut Value)) {
        let mut config: Value = serde_yaml::from_str(&fs::read_to_string(self.config()).unwrap()).unwrap();
        change(&mut config);
        fs::write(self.config(), config.to_string()).unwrap();
        self.hang_up();
    }

    fn hang_up(&self) {
        let (_, id) = self.network.daemon_ids().into_iter().find(|(name, _)| *name == "validator").unwrap();
        kill(Pid::from_raw(id.try_into().unwrap()), Signal::SIGHUP).unwrap();
    }

    /// Runs a command of the validator's program with the configuration of the running one.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(self.binaries.validator());
        program.arg("--config").arg(self.config()).args(arguments).output().unwrap()
    }

    async fn status(&self) -> Value {
        admin::get(self.network.plan().daemons[0].admin, "/status").await.unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder().join("logs/validator.log")).unwrap()
    }

    /// Waits until the log tells of it.
    async fn until_logged(&self, text: &str) {
        until(|| async { self.log().contains(text) }, text).await;
    }
}

async fn until<F: Future<Output = bool>>(holds: impl Fn() -> F, what: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits for a message; a network that is faster than any real one may raise other alarms too.
async fn until_told(messages: &mut mpsc::Receiver<Value>, alarm: &str, state: &str) {
    let told = async {
        while let Some(message) = messages.recv().await {
            if message["alarm"] == alarm && message["state"] == state {
                return;
            }
        }
        panic!("the webhook is gone");
    };
    assert!(tokio::time::timeout(PATIENCE, told).await.is_ok(), "nobody was told that {alarm} is {state}");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// A webhook on loopback, and what arrives there.
async fn webhook() -> (String, mpsc::Receiver<Value>) {
    let (messages, received) = mpsc::channel(64);
    let take = move |body: String| {
        let messages = messages.clone();
        async move { messages.send(serde_json::from_str(&body).unwrap()).await.unwrap() }
    };
    let router = Router::new().route("/hook", post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=hunter2", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_is_reloaded_watched_looked_into_copied_and_restored_while_it_works() {
    let mut world = World::new().await;

    // A problem anywhere changes nothing, and is told.
    world.reload(|config| config["scoring"]["profile"] = json!("none"));
    world.until_logged("configuration not reloaded, nothing has changed").await;

    // Live keys take effect, others are named; an alarm that follows from them reaches the webhook once.
    let (url, mut messages) = webhook().await;
    world.reload(|config| {
        config["scoring"]["profile"] = json!("docs-100-0");
        config["scoring"]["interval_s"] = json!(6);
        config["alarms"] = json!({ "webhook_url": url, "min_free_disk_mb": 1_000_000_000 });
    });
    world.until_logged("these keys have changed and wait for a restart").await;
    assert!(world.log().contains("scoring.interval_s"), "the key is named");
    until_told(&mut messages, "low_disk", "raised").await;
    assert!(world.status().await["alarms"].to_string().contains("low_disk"));
    world.reload(|config| config["alarms"]["min_free_disk_mb"] = json!(0));
    until_told(&mut messages, "low_disk", "cleared").await;
    let tested = world.run(&["alarm", "test"]);
    assert!(tested.status.success(), "{}", text(&tested));
    until_told(&mut messages, "test", "test").await;
    assert!(!world.log().contains("hunter2") && !text(&tested).contains("hunter2"));
    let effective = text(&world.run(&["config"]));
    assert!(
        effective.lines().any(|line| line.starts_with("scoring.profile:") && line.ends_with(", live")),
        "{effective}"
    );

    a_capture_holds_requests_and_no_secrets(&world).await;
    a_copy_becomes_the_database(&mut world).await;
    world.network.stop().await;
}

async fn a_capture_holds_requests_and_no_secrets(world: &World) {
    let started = world.run(&["capture", "start", "--seconds", "600", "--share", "1"]);
    assert!(started.status.success(), "{}", text(&started));
    let file = PathBuf::from(text(&started).trim());
    let lines = || fs::read_to_string(&file).unwrap().lines().count();
    until(|| async { lines() >= 3 }, "three captured requests").await;
    assert!(world.run(&["capture", "stop"]).status.success());
    assert_eq!(world.status().await["capture"], Value::Null);
    let captured = fs::read_to_string(&file).unwrap();
    for line in captured.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["peer"].is_string() && line["synapse"].is_string(), "{line}");
    }
    assert!(!captured.contains("ciphertext"), "nothing sealed");
}

/// As docs/operating-validator.md tells it: check the copy, stop, put it in place, start.
async fn a_copy_becomes_the_database(world: &mut World) {
    let copy = world.folder().join("copy.db");
    let made = world.run(&["backup", copy.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made));
    let checked = world.run(&["backup", "--check", copy.to_str().unwrap()]);
    assert!(text(&checked).contains("the copy is whole"), "{}", text(&checked));
    let again = world.run(&["backup", copy.to_str().unwrap()]);
    assert!(again.status.code() == Some(1) && text(&again).contains("is there already"), "{}", text(&again));

    world.network.kill("validator").await.unwrap();
    let database = world.folder().join("validator.db");
    for gone in ["validator.db", "validator.db-wal", "validator.db-shm"] {
        let _ = fs::remove_file(world.folder().join(gone));
    }
    fs::rename(&copy, &database).unwrap();
    world.network.start_again("validator", &[]).unwrap();
    let admin = world.network.plan().daemons[0].admin;
    until(|| async { admin::get(admin, "/readyz").await.is_ok() }, "the validator is ready on the copy").await;
    assert!(world.status().await["challenges"]["verified"].as_i64() > Some(0), "what was verified before is known");
    assert!(Path::new(&database).exists());
}
