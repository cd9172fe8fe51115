//! A network with the real validator on a development chain, and stand-ins that do nothing for what a test plays itself.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use byteleap_chain::wallet::Passwords;
use byteleap_chain::{Hotkey, Wallet};
use byteleap_localnet::{Network, Options, binaries::Binaries};
use byteleap_protocol::hotkey::Keypair;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::network::{IDLE, INVITED};

/// Long enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Every challenge is small and odd, and every row of it is opened; each worker is asked once.
const SETTINGS: [&str; 9] = [
    "validation.cpu.matrix_size=101",
    "validation.cpu.size_variance=0",
    "validation.cpu.verification.row_verification_count=200",
    "validation.cpu.verification.row_verification_count_variance=0",
    "validation.challenge_interval=3600",
    "validation.commitment_grace=0",
    "validation.ranking_window_minutes=60",
    "metagraph.weight_update_tempo=0",
    "scoring.interval_s=1",
];

pub(super) struct World {
    pub(super) network: Network,
    validator: PathBuf,
    _folder: tempfile::TempDir,
}

/// Which daemons are real, beside the validator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Real {
    Nothing,
    Miner,
}

impl World {
    /// Starts the network with two miners; `set` adds keys of the validator, as `key=value`.
    pub(super) async fn start(real: Real, set: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (built, binaries) = (Binaries::beside_this_process().unwrap(), folder.path().join("bin"));
        fs::create_dir(&binaries).unwrap();
        symlink(built.validator(), binaries.join("byteleap-validator")).unwrap();
        let idle = |name: &str| {
            let path = binaries.join(name);
            fs::write(&path, format!("#!/bin/sh\n{INVITED}\n{IDLE}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        };
        idle("byteleap-worker");
        match real {
            Real::Nothing => idle("byteleap-miner"),
            Real::Miner => symlink(built.miner(), binaries.join("byteleap-miner")).unwrap(),
        }
        let options = Options {
            directory: folder.path().join("net"),
            miners: 2,
            workers: 1,
            // The test itself waits for what it dials: nobody ever listens where a stand-in should.
            patience: Duration::ZERO,
            validator_set: SETTINGS.iter().chain(set).map(|assignment| (*assignment).to_owned()).collect(),
            ..Options::default()
        };
        let network = Network::start(&options, &Binaries::in_folder(&binaries).unwrap()).await.unwrap();
        Self { network, validator: built.validator(), _folder: folder }
    }

    /// Waits until somebody listens at the service of this daemon, counted as the plan counts, and gives its port.
    pub(super) async fn port_of(&mut self, daemon: usize) -> u16 {
        let address = self.network.plan().daemons[daemon].service.unwrap();
        let started = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            self.look_again(started, "nobody listens").await;
        }
        address.port()
    }

    /// The validator's hotkey.
    pub(super) fn validator(&self) -> Hotkey {
        self.network.plan().daemons[0].hotkey.unwrap()
    }

    /// The key pair of a miner, counted from 1.
    pub(super) fn miner(&self, number: usize) -> Keypair {
        let wallets = self.network.directory().join("wallets");
        Wallet::load(&wallets, &format!("miner-{number}"), "default", &Passwords::default()).unwrap().keypair
    }

    /// What the validator's metrics endpoint shows.
    pub(super) async fn metrics(&self) -> String {
        let validator = self.network.plan().daemons.iter().find(|daemon| daemon.name == "validator").unwrap();
        let url = format!("http://{}/metrics", validator.admin);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// What `byteleap-validator explain` prints.
    fn explain(&self, hotkey: Hotkey, options: &[&str]) -> Option<String> {
        let output = Command::new(&self.validator)
            .arg("--config")
            .arg(self.network.directory().join("validator/config.yaml"))
            .args(["explain", &hotkey.to_string()])
            .args(options)
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// The explanation as text, for people.
    pub(super) fn explained_to_people(&self, hotkey: Hotkey) -> String {
        self.explain(hotkey, &[]).unwrap()
    }

    /// The explanation, once it is of a round that began after `holds` was first true of it.
    pub(super) async fn explained(&mut self, hotkey: Hotkey, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let (started, mut held_in) = (Instant::now(), None);
        loop {
            let told = self.explain(hotkey, &["--json"]);
            if let Some(told) = told.map(|told| serde_json::from_str::<Value>(&told).unwrap())
                && holds(&told)
            {
                let round = told["round"].as_i64().unwrap();
                if round > *held_in.get_or_insert(round) + 1 {
                    return told;
                }
            }
            self.look_again(started, what).await;
        }
    }

    async fn look_again(&mut self, started: Instant, what: &str) {
        self.network.check().unwrap();
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What an explanation tells of a worker's one challenge that did not pass: status, code and note.
pub(super) fn missed<'a>(told: &'a Value, worker: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let missed = told["missed"].as_array()?.iter().find(|missed| missed["worker_id"] == worker)?;
    Some((missed["status"].as_str()?, missed["code"].as_str()?, missed["note"].as_str()?))
}

/// The number of an explanation's challenges that a worker passed.
pub(super) fn passed(told: &Value, worker: &str) -> u64 {
    score_of(told, worker)["successes"].as_u64().unwrap()
}

/// What the last round gave to a worker.
pub(super) fn score_of<'a>(told: &'a Value, worker: &str) -> &'a Value {
    let mut workers = told["workers"].as_array().unwrap().iter();
    workers.find(|score| score["worker_id"] == worker).unwrap_or_else(|| panic!("{worker} is not in {told:#}"))
}

/// How often an explanation says that the hotkey was refused for this reason.
pub(super) fn refused(told: &Value, code: &str) -> u64 {
    let mut refusals = told["refusals"].as_array().unwrap().iter();
    refusals.find(|refusal| refusal["code"] == code).map_or(0, |refusal| refusal["times"].as_u64().unwrap())
}
