//! The network as a whole: the real daemons all the way round, and stand-ins for the ways in which it can go wrong.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use byteleap_localnet::{
    Display, Network, NetworkError, Options,
    binaries::Binaries,
    progress::Stage,
    status::{self, Status},
};

/// A folder for one network, with stand-ins for the daemons: each runs a line of shell, once workers have been invited.
struct StandIns {
    folder: tempfile::TempDir,
}

impl StandIns {
    fn new(validator: &str, others: &str) -> Self {
        let stand_ins = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(stand_ins.binaries()).unwrap();
        for (daemon, script) in
            [("byteleap-validator", validator), ("byteleap-miner", others), ("byteleap-worker", others)]
        {
            let path = stand_ins.binaries().join(daemon);
            fs::write(&path, format!("#!/bin/sh\n{INVITED}\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        stand_ins
    }

    fn binaries(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn options(&self) -> Options {
        Options {
            directory: self.folder.path().join("net"),
            miners: 2,
            workers: 3,
            patience: Duration::ZERO,
            ..Options::default()
        }
    }

    async fn start(&self) -> Network {
        Network::start(&self.options(), &Binaries::in_folder(&self.binaries()).unwrap()).await.unwrap()
    }
}

/// The commands by which a miner invites a worker and the worker joins it.
pub(crate) const INVITED: &str = r#"case "$1" in workers | join) echo invitation; exit ;; esac"#;

/// A daemon that does nothing until it is asked to stop.
pub(crate) const IDLE: &str = "exec sleep 1000";

/// Whether a process still runs; one that is dead but not yet collected does not.
fn runs(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

fn ids(network: &Network) -> Vec<u32> {
    network.daemon_ids().into_iter().map(|(_, id)| id).collect()
}

#[tokio::test]
async fn a_challenge_goes_all_the_way_round_and_the_chain_holds_its_weight() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { directory: folder.path().to_owned(), ..Options::default() };
    let mut network = Network::start(&options, &Binaries::beside_this_process().unwrap()).await.unwrap();
    let daemons = ids(&network);
    let outcome = network.until_weights(Duration::from_secs(180), &mut Display::silent()).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let _kept = folder.keep();
            panic!("{error}");
        }
    };
    assert_eq!(outcome.weights, [(1, u16::MAX)], "the only miner holds all weight");
    assert!(outcome.challenges_verified > 0);
    let distinct: HashSet<&String> = outcome.challenge_ids.iter().collect();
    assert_eq!(distinct.len(), outcome.challenges_verified);
    assert!(outcome.extrinsic.starts_with("0x") && outcome.extrinsic.len() == 66, "{}", outcome.extrinsic);

    let status = Status::of(folder.path()).await.unwrap();
    assert!(status.running);
    assert_eq!(status.progress.unwrap().weights, outcome.weights);
    network.stop().await;
    assert!(daemons.into_iter().all(|id| !runs(id)));
    assert!(!Status::of(folder.path()).await.unwrap().running);
}

#[tokio::test]
async fn a_gpu_challenge_goes_all_the_way_round_and_names_the_gpu_that_passed() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        directory: folder.path().to_owned(),
        validator_set: vec!["validation.challenge_type=gpu_matrix".to_owned()],
        ..Options::default()
    };
    let binaries = Binaries::beside_this_process().unwrap();
    let mut network = Network::start(&options, &binaries).await.unwrap();
    let outcome = network.until_weights(Duration::from_secs(180), &mut Display::silent()).await.unwrap();
    assert_eq!(outcome.weights, [(1, u16::MAX)], "the only miner holds all weight");
    assert!(outcome.challenges_verified > 0);

    let miner = network.plan().daemons[1].hotkey.unwrap();
    let told = Command::new(binaries.validator())
        .arg("--config")
        .arg(network.directory().join("validator/config.yaml"))
        .args(["explain", &miner.to_string(), "--json"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let gpus = told["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 2, "one played GPU of each worker: {told}");
    assert!(gpus.iter().any(|gpu| gpu["passed"].as_i64() > Some(0)), "{told}");
    network.stop().await;
}

#[tokio::test]
async fn without_the_route_for_commitments_the_wait_ends_and_names_that_stage() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        directory: folder.path().to_owned(),
        validator_set: vec!["axon.disabled_routes=ChallengeSynapse".to_owned()],
        ..Options::default()
    };
    let mut network = Network::start(&options, &Binaries::beside_this_process().unwrap()).await.unwrap();
    let error = network.until_weights(Duration::from_secs(25), &mut Display::silent()).await.unwrap_err();
    assert!(matches!(error, NetworkError::TimedOut { missing: Stage::Commitment, .. }), "{error}");
    network.stop().await;
}

#[tokio::test]
async fn every_daemon_gets_its_configuration_and_is_listed() {
    let stand_ins = StandIns::new(IDLE, IDLE);
    let network = stand_ins.start().await;
    let plan = status::running(&stand_ins.options().directory).unwrap().unwrap();
    let names: Vec<&str> = plan.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
    assert_eq!(names, ["validator", "miner-1", "miner-2", "worker-1", "worker-2", "worker-3"]);
    let miners: Vec<_> = plan.daemons.iter().filter_map(|daemon| daemon.miner.as_deref()).collect();
    assert_eq!(miners, ["miner-1", "miner-2", "miner-1"], "workers are dealt to the miners in turn");
    for name in names {
        let config = network.directory().join(name).join("config.yaml");
        let config: serde_yaml::Value = serde_yaml::from_str(&fs::read_to_string(config).unwrap()).unwrap();
        assert!(config["http"]["listen"].is_string(), "{name}");
    }
    network.stop().await;
}

#[tokio::test]
async fn a_daemon_that_ends_ends_the_wait_with_its_last_words_and_leaves_no_orphans() {
    let stand_ins = StandIns::new("echo 'error: no such wallet' >&2; exit 2", IDLE);
    let mut network = stand_ins.start().await;
    let daemons = ids(&network);
    let error = network.until_weights(Duration::from_secs(60), &mut Display::silent()).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, NetworkError::Child(_)), "{text}");
    assert!(text.contains("validator ended with exit status: 2") && text.contains("no such wallet"), "{text}");
    network.stop().await;
    assert!(daemons.into_iter().all(|id| !runs(id)));
}

#[tokio::test]
async fn a_network_that_does_nothing_times_out_and_names_the_first_missing_stage() {
    let stand_ins = StandIns::new(IDLE, IDLE);
    let mut network = stand_ins.start().await;
    let error = network.until_weights(Duration::ZERO, &mut Display::silent()).await.unwrap_err();
    assert!(matches!(error, NetworkError::TimedOut { missing: Stage::Heartbeat, .. }), "{error}");
    assert!(error.to_string().contains(&*network.directory().join("logs").to_string_lossy()), "{error}");
    network.stop().await;
}

#[tokio::test]
async fn a_dropped_network_leaves_no_orphans() {
    let stand_ins = StandIns::new(IDLE, IDLE);
    let network = stand_ins.start().await;
    let daemons = ids(&network);
    assert_eq!(daemons.len(), 6);
    drop(network);
    while daemons.iter().any(|id| runs(*id)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_missing_daemon_is_an_error_of_the_command_that_names_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    // The command looks for the daemons beside itself: a copy of it stands alone.
    let alone = folder.path().join("byteleap-localnet");
    fs::copy(env!("CARGO_BIN_EXE_byteleap-localnet"), &alone).unwrap();
    let output = command(&alone, folder.path(), &["up", "--until-weights"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("byteleap-validator is missing") && errors.contains("cargo build --workspace --bins"),
        "{errors}"
    );
}

/// Starts the command among stand-ins that write down their ids, kills it with `signal` once all of them run, and waits
/// until they are gone: for ever if one stays.
async fn killed_by(signal: &str) {
    let stand_ins = StandIns::new("echo $$ > id; exec sleep 1000", IDLE);
    let binary = stand_ins.binaries().join("byteleap-localnet");
    fs::copy(env!("CARGO_BIN_EXE_byteleap-localnet"), &binary).unwrap();
    let mut running =
        std::process::Command::new(&binary).current_dir(stand_ins.folder.path()).arg("up").spawn().unwrap();
    let id_file = stand_ins.folder.path().join(".localnet/validator/id");
    let validator: u32 = loop {
        if let Some(id) = fs::read_to_string(&id_file).ok().and_then(|id| id.trim().parse().ok()) {
            break id;
        }
        tokio::task::yield_now().await;
    };
    assert!(runs(validator));
    let killed = std::process::Command::new("kill").args([signal, &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(!running.wait().unwrap().success());
    while runs(validator) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_interrupted_command_leaves_no_orphans() {
    killed_by("-INT").await;
}

#[tokio::test]
async fn a_command_that_is_killed_outright_leaves_no_orphans() {
    killed_by("-KILL").await;
}

#[tokio::test]
async fn the_status_of_no_network_is_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(Path::new(env!("CARGO_BIN_EXE_byteleap-localnet")), folder.path(), &["status"]);
    assert!(output.status.success());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["running"], false);
}

fn command(binary: &Path, folder: &Path, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(binary).current_dir(folder).args(arguments).output().unwrap()
}
