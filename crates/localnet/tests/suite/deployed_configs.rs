//! The configuration files that operators have, of the deployed Python release 0.0.5 and of the public documents, read by the
//! real daemons: every old key is known, keeps its value, and nothing is warned about.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use byteleap_localnet::binaries::Binaries;

/// Worker-miner spec 8.1, values as shipped.
const MINER: &str = r#"
netuid: 128
subtensor:
  network: "finney"
metagraph:
  sync_interval: 60
  validator_whitelist:
    "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi": null
    "5Fpfx4iDtrrY99VGkQnLXASytC2y9Z3o8KUyTtD4w7o5SZcA": "203.0.113.7:9091"
  validator_min_stake_tao: 10000
  blacklist:
    threshold: 5
    ttl_seconds: 600
wallet:
  name: "miner-testnet"
  hotkey: "default"
  path: "~/.bittensor/wallets"
logging:
  log_level: "INFO"
  log_dir: "./logs"
heartbeat_interval: 60
task_poll_interval: 30
max_retries: 3
worker_management:
  host: "0.0.0.0"
  port: 7799
  heartbeat_interval: 30
  heartbeat_timeout: 90
"#;

/// Worker-miner spec 8.2, values as shipped.
const WORKER: &str = r#"
worker_name: "worker-01"
miner_url: "ws://127.0.0.1:7799"
reconnect_interval: 5
ping_interval: 15
ping_timeout: 30
max_concurrent_tasks: 2
default_task_timeout: 300
gpu:
  enable: true
  auto_start: true
  binary_path: "./bin/subnet-miner_static"
  socket_path: "/tmp/gpu_tensor.sock"
vmgw:
  enable: true
  socket_path: "/run/libvirt/libvirt-sock"
heartbeat_interval: 30
logging:
  level: "DEBUG"
  filepath: "logs/worker.log"
  rotation: "1 day"
  retention: "3 days"
  format: "{time:YYYY-MM-DD HH:mm:ss} | {level} | {message}"
"#;

/// Validator spec 9, example values; the marketplace token is not one.
const VALIDATOR: &str = r#"
port: 9091
external_ip: null
netuid: 128
subtensor:
  network: "finney"
metagraph:
  weight_update_tempo: 105
  sync_interval: 60
wallet:
  name: "validator"
  hotkey: "default"
  path: "~/.bittensor/wallets"
logging:
  log_level: "INFO"
  log_dir: "./logs"
database:
  url: "sqlite:///./validator.db"
  event_retention_days: 7
meshhub:
  ws_url: "wss://hub.example/ws"
  access_token: "not-a-token"
  capabilities: ["hardware_inspection", "challenge_validation"]
  reconnect_delay_seconds: 30
  heartbeat_interval_seconds: 60
  resource_report_interval_seconds: 90
validation:
  challenge_interval: 240
  challenge_timeout: 60
  ranking_window_minutes: 180
  participation_rate_threshold: 0.80
  verification_concurrent: 1
  verification_interval: 30
  proof_queue_max_size: 1000
  challenge_type: "gpu_matrix"
  cpu:
    matrix_size: 2000
    size_variance: 0.1
    iterations: 1
    verification:
      row_verification_count: 50
      row_verification_count_variance: 0.5
  gpu:
    matrix_size: 32768
    size_variance: 0.05
    iterations: 1
    enable_normalization: true
    verification:
      coordinate_sample_count: 25
      coordinate_sample_count_variance: 0.2
      row_verification_count: 2
      row_verification_count_variance: 0.5
      row_sample_rate: 0.001
      abs_tolerance: 0.02
      rel_tolerance: 0.005
      success_rate_threshold: 0.85
    model_allowlist:
      - "RTX 3090"
      - "RTX 4090"
      - "RTX 5090"
      - "A100-SXM4-80GB"
      - "A100 80GB"
      - "A100-PCIE-80GB"
      - "H100 80GB"
      - "H100-PCIE-80GB"
      - "H100 94GB"
      - "H200"
      - "B200"
weight_management:
  score_weights:
    lease_weight: 0.70
    challenge_weight: 0.30
  availability:
    window_hours: 169
security:
  rate_limit:
    window_seconds: 30
    max_requests: 150
auto_update:
  enabled: true
"#;

struct Effective {
    values: String,
    warnings: String,
}

impl Effective {
    /// What `DAEMON --config FILE config` says of this file.
    fn of(daemon: &PathBuf, yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, yaml).unwrap();
        let output = Command::new(daemon).env_clear().arg("--config").arg(&file).arg("config").output().unwrap();
        let warnings = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}: {warnings}", daemon.display());
        Self { values: String::from_utf8(output.stdout).unwrap(), warnings }
    }

    fn value(&self, key: &str) -> &str {
        let line = self.values.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("no {key} in\n{}", self.values)).split("  # ").next().unwrap().trim()
    }

    /// Every key of the file comes from the file: none was overlooked.
    fn assert_holds_every_key_of(&self, yaml: &str) {
        assert_eq!(self.warnings.lines().find(|line| line.contains("unknown key")), None);
        let file: serde_yaml::Value = serde_yaml::from_str(yaml).unwrap();
        for key in leaves(&file, "") {
            let line = self.values.lines().find(|line| {
                line.split(": ").next().is_some_and(|name| key == name || key.starts_with(&format!("{name}.")))
            });
            let line = line.unwrap_or_else(|| panic!("{key} is not shown in\n{}", self.values));
            assert!(line.contains("# file "), "{key} does not come from the file: {line}");
        }
    }
}

fn leaves(node: &serde_yaml::Value, prefix: &str) -> Vec<String> {
    let serde_yaml::Value::Mapping(mapping) = node else { return vec![prefix.to_owned()] };
    mapping
        .iter()
        .flat_map(|(key, value)| {
            let key = key.as_str().unwrap();
            leaves(value, &if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") })
        })
        .collect()
}

fn binaries() -> Binaries {
    Binaries::beside_this_process().unwrap()
}

#[test]
fn the_deployed_miners_file_is_read_whole() {
    let effective = Effective::of(&binaries().miner(), MINER);
    effective.assert_holds_every_key_of(MINER);
    assert_eq!(effective.value("worker_management.port"), "7799");
    assert!(effective.value("metagraph.validator_whitelist").contains("203.0.113.7:9091"));
}

#[test]
fn the_deployed_workers_file_is_read_whole() {
    let effective = Effective::of(&binaries().worker(), WORKER);
    effective.assert_holds_every_key_of(WORKER);
    assert_eq!(effective.value("gpu.enable"), "true");
    assert_eq!(effective.value("logging.retention"), "3 days");
}

#[test]
fn the_deployed_validators_file_is_read_whole_and_its_token_stays_hidden() {
    let effective = Effective::of(&binaries().validator(), VALIDATOR);
    effective.assert_holds_every_key_of(VALIDATOR);
    assert_eq!(effective.value("weight_management.score_weights.lease_weight"), "0.7");
    assert!(!effective.values.contains("not-a-token"), "{}", effective.values);
}

#[test]
fn the_documents_fragment_of_the_workers_keys_is_read() {
    let fragment = r#"
worker_name: "my-worker-01"
miner_url: "ws://miner.example.com:8080/ws"
max_concurrent_tasks: 4
vmgw:
  enable: true
"#;
    let effective = Effective::of(&binaries().worker(), fragment);
    effective.assert_holds_every_key_of(fragment);
    assert_eq!(effective.value("miner_url"), "ws://miner.example.com:8080/ws");
}

#[test]
fn the_documents_fragment_of_the_vm_gateway_is_read() {
    let fragment = "vmgw:\n  enable: true\n  socket_path: \"/run/libvirt/libvirt-sock\"  # Socket path to libvirt\n";
    Effective::of(&binaries().worker(), fragment).assert_holds_every_key_of(fragment);
}

#[test]
fn scalars_mean_what_yaml_1_1_makes_of_them() {
    let yaml =
        "gpu: {enable: yes}\nvmgw: {enable: Off}\nping_interval: 0x10\nping_timeout: 036\nreconnect_interval: 1_0\n";
    let effective = Effective::of(&binaries().worker(), yaml);
    for (key, value) in [
        ("gpu.enable", "true"),
        ("vmgw.enable", "false"),
        ("ping_interval", "16"),
        ("ping_timeout", "30"),
        ("reconnect_interval", "10"),
    ] {
        assert_eq!(effective.value(key), value, "{key}");
    }
    assert_eq!(
        Effective::of(&binaries().validator(), &VALIDATOR.replace("0.70", "1"))
            .value("weight_management.score_weights.lease_weight"),
        "1.0"
    );
}

#[test]
fn an_unknown_key_warns_with_the_nearest_name() {
    let effective = Effective::of(&binaries().miner(), &MINER.replace("worker_management:", "worker_managment:"));
    assert!(effective.warnings.contains("worker_managment"), "{}", effective.warnings);
    assert!(effective.warnings.contains("did you mean worker_management?"), "{}", effective.warnings);
}
