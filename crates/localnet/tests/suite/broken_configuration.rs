//! The real daemons, each with a configuration that is wrong in every source: the operator hears of all of it at once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use byteleap_localnet::binaries::Binaries;

/// For each daemon, in the order of [`daemons`]: a file, and the keys that it has wrong or lacks.
const FILES: [(&str, &[&str]); 3] = [
    (
        "netuid: none\nhttp: {listen: everywhere}\nvalidation: {challenge_interval: 0}\n",
        &["netuid", "wallet.name", "wallet.hotkey", "http.listen", "validation.challenge_interval"],
    ),
    (
        "netuid: 65536\nhttp: {listen: everywhere}\nwallet: default\nmetagraph: {validator_whitelist: [a]}\n",
        &["netuid", "http.listen", "wallet", "metagraph.validator_whitelist"],
    ),
    (
        "miner_url: http://a\nhttp: {listen: everywhere}\ngpu: {enable: maybe}\nping_interval: 1.5\n",
        &["miner_url", "http.listen", "gpu.enable", "ping_interval"],
    ),
];

/// What is wrong in every daemon's environment and flags.
const ELSEWHERE: [&str; 2] = ["BYTELEAP_HTTP__LISTEN", "no_such_key"];

/// Validator, miner and worker.
fn daemons() -> [PathBuf; 3] {
    let binaries = Binaries::beside_this_process().unwrap();
    [binaries.validator(), binaries.miner(), binaries.worker()]
}

/// Starts a daemon in an empty folder, with something wrong in the file, the environment and a flag.
fn start(daemon: &Path, folder: &Path, content: &str, command: &str) -> Output {
    let file = folder.join("config.yaml");
    fs::write(&file, content).unwrap();
    Command::new(daemon)
        .env_clear()
        .env("BYTELEAP_HTTP__LISTEN", "nowhere")
        .current_dir(folder)
        .args([command, "--config"])
        .arg(&file)
        .args(["--set", "no_such_key=1"])
        .output()
        .unwrap()
}

#[test]
fn every_daemon_refuses_a_broken_configuration_with_all_errors_at_once_and_exit_2() {
    for (daemon, (content, wrong)) in daemons().into_iter().zip(FILES) {
        for command in ["run", "check", "config"] {
            let folder = tempfile::tempdir().unwrap();
            let output = start(&daemon, folder.path(), content, command);
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{} {command}: {told}", daemon.display());
            for subject in wrong.iter().chain(&ELSEWHERE) {
                assert!(told.contains(subject), "{} {command} is silent on {subject}: {told}", daemon.display());
            }
            let count = format!("{} problems", wrong.len() + ELSEWHERE.len());
            assert!(told.contains(&count), "{} {command}: {told}", daemon.display());
            assert!(output.stdout.is_empty(), "{} {command}", daemon.display());
            assert_eq!(
                fs::read_dir(folder.path()).unwrap().count(),
                1,
                "{} {command} left something",
                daemon.display()
            );
        }
    }
}

#[test]
fn every_daemon_refuses_a_file_that_is_no_mapping_or_not_there_with_exit_2() {
    for daemon in daemons() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let refused = |why: &str| {
            let output = Command::new(&daemon).env_clear().args(["run", "--config"]).arg(&file).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{}: {told}", daemon.display());
            assert!(told.contains("config.yaml") && told.contains(why), "{}: {told}", daemon.display());
        };
        refused("cannot be opened");
        for (content, why) in [("- a list", "a mapping"), ("a: [", "is not YAML"), ("\u{0}", "is not YAML")] {
            fs::write(&file, content).unwrap();
            refused(why);
        }
        fs::write(&file, [0xff, 0xfe, 0xff]).unwrap();
        refused("cannot be read");
        fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
        refused("is larger than");
    }
}
