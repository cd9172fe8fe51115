//! The worker's table of keys (worker-miner spec 8.2 and 8.3) and the settings that it yields.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use byteleap_daemon::config::{Config, Key};
use byteleap_daemon::{admin, logging};
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::join::CertificateFingerprint;

use crate::gpu::vendor::Place;
use crate::link::url::MinerUrl;

/// Longest interval that a key accepts: a day.
const INTERVAL_MAX_S: i64 = 86_400;

/// Longest `worker_name` in bytes (worker-miner spec 1.4).
const NAME_MAX_BYTES: usize = 128;

/// Every key, in the order of the example file. The keys of former files are all here, also those without effect.
pub const KEYS: &[Key] = &[
    Key::text("worker_name", "display name, at most 128 bytes; without it the worker_id is shown").check(short),
    Key::text("worker_id", "fixed identity; without it one is computed at the first start and kept in state_dir")
        .parsed::<WorkerId>(),
    Key::text("miner_url", "the miner's worker port, as ws://<host>:<port>, or wss:// for an encrypted link")
        .parsed::<MinerUrl>()
        .default("ws://127.0.0.1:7799"),
    Key::text(
        "miner_fingerprint",
        "certificate that the miner must show on wss://, as byteleap-miner status prints it; default: any that this \
         machine's authorities vouch for",
    )
    .parsed::<CertificateFingerprint>(),
    Key::integer("reconnect_interval", 1, INTERVAL_MAX_S, "first pause before a new attempt, s; grows up to 60")
        .default("5"),
    Key::integer("ping_interval", 1, INTERVAL_MAX_S, "pause between pings to the miner, s").default("15"),
    Key::integer("ping_timeout", 1, INTERVAL_MAX_S, "how long the miner may take to answer a ping, s").default("30"),
    Key::integer("heartbeat_interval", 1, INTERVAL_MAX_S, "pause between reports to the miner, s").default("30"),
    Key::integer("max_concurrent_tasks", 1, 64, "challenges held at once, of which one on the processor").default("2"),
    Key::integer("default_task_timeout", 1, 3600, "how long a challenge may take that names no limit, s")
        .default("300"),
    Key::text("state_dir", "folder of identity and results; default: $STATE_DIRECTORY, else the folder of this file"),
    Key::boolean("gpu.enable", "compute GPU challenges").default("false"),
    Key::text(
        "gpu.engine",
        "what computes them: vendor (the compute server) or software (the processor, for own networks)",
    )
    .parsed::<GpuEngineChoice>()
    .default("vendor"),
    Key::boolean("gpu.auto_start", "start the compute server where none answers").default("true"),
    Key::text("gpu.binary_path", "the compute server, absolute or from here or a folder above the worker's program")
        .default("./bin/subnet-miner_static"),
    Key::text("gpu.socket_path", "socket of the compute server").default("/tmp/gpu_tensor.sock"),
    Key::integer("gpu.software_gpus", 1, 8, "how many GPUs the software engine plays").default("1"),
    Key::boolean("vmgw.enable", "rent out virtual machines: not available in this version").default("false"),
    Key::text("vmgw.socket_path", "accepted from former files and of no effect").default("/run/libvirt/libvirt-sock"),
    admin::listen_key("127.0.0.1:7797"),
    logging::LEVEL,
    logging::FILEPATH,
    logging::ROTATION,
    logging::RETENTION,
    logging::FORMAT,
];

/// What computes GPU challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuEngineChoice {
    /// The vendor's compute server.
    Vendor,
    /// The processor.
    Software,
}

impl FromStr for GpuEngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "vendor" => Ok(Self::Vendor),
            "software" => Ok(Self::Software),
            _ => Err("expected vendor or software".to_owned()),
        }
    }
}

/// How GPU challenges are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GpuEngineSettings {
    /// By the vendor's compute server.
    Vendor(Place),
    /// By the processor, which plays so many GPUs.
    Software {
        /// How many.
        gpus: usize,
    },
}

fn short(name: &str) -> Result<(), String> {
    if name.len() <= NAME_MAX_BYTES { Ok(()) } else { Err(format!("at most {NAME_MAX_BYTES} bytes")) }
}

/// What the worker's parts need to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Display name.
    pub worker_name: Option<String>,
    /// Identity that overrides the kept one.
    pub worker_id: Option<WorkerId>,
    /// Where the miner listens.
    pub miner_url: MinerUrl,
    /// The certificate by which it is known.
    pub miner_fingerprint: Option<CertificateFingerprint>,
    /// First pause before a new attempt to connect.
    pub reconnect_interval: Duration,
    /// Pause between pings.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// Pause between heartbeats.
    pub heartbeat_interval: Duration,
    /// Challenges held at once.
    pub max_concurrent_tasks: usize,
    /// Time limit of a challenge that names none.
    pub default_task_timeout: Duration,
    /// How GPU challenges are computed; none if they are not.
    pub gpu: Option<GpuEngineSettings>,
    /// Whether the file asks for virtual machines.
    pub vmgw_enable: bool,
    /// Folder of the identity.
    pub state_dir: PathBuf,
    /// Address of the admin endpoint.
    pub http_listen: SocketAddr,
}

impl Settings {
    /// Reads the settings of a loaded configuration; `state_directory` is systemd's `$STATE_DIRECTORY`.
    #[must_use]
    pub fn read(config: &Config, state_directory: Option<PathBuf>) -> Self {
        Self {
            worker_name: config.get("worker_name"),
            worker_id: config.parsed_optional("worker_id"),
            miner_url: config.parsed("miner_url"),
            miner_fingerprint: config.parsed_optional("miner_fingerprint"),
            reconnect_interval: config.seconds("reconnect_interval"),
            ping_interval: config.seconds("ping_interval"),
            ping_timeout: config.seconds("ping_timeout"),
            heartbeat_interval: config.seconds("heartbeat_interval"),
            max_concurrent_tasks: config.get("max_concurrent_tasks"),
            default_task_timeout: config.seconds("default_task_timeout"),
            gpu: config.get::<bool>("gpu.enable").then(|| GpuEngineSettings::read(config)),
            vmgw_enable: config.get("vmgw.enable"),
            state_dir: config
                .get::<Option<PathBuf>>("state_dir")
                .or(state_directory)
                .unwrap_or_else(|| folder_of(config.file())),
            http_listen: config.parsed("http.listen"),
        }
    }
}

impl GpuEngineSettings {
    fn read(config: &Config) -> Self {
        match config.parsed("gpu.engine") {
            GpuEngineChoice::Software => Self::Software { gpus: config.get("gpu.software_gpus") },
            GpuEngineChoice::Vendor => Self::Vendor(Place {
                socket: config.get("gpu.socket_path"),
                binary: config.get::<bool>("gpu.auto_start").then(|| config.get("gpu.binary_path")),
            }),
        }
    }
}

/// The folder of the configuration file; without a file the current one.
fn folder_of(file: Option<&Path>) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::config::{Error, Sources, example};

    use super::*;

    fn settings(yaml: &str) -> Result<Settings, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("worker_config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let config = Config::load(KEYS, &Sources { file: Some(file), ..Sources::default() })?;
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        Ok(Settings::read(&config, None))
    }

    /// A file as the Python worker ships it (worker-miner spec 8.2).
    const FORMER: &str = r#"
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
  format: "<green>{time:YYYY-MM-DD HH:mm:ss}</green> | <level>{level: <8}</level> | {message}"
"#;

    #[test]
    fn a_former_file_is_read_unchanged() {
        let settings = settings(FORMER).unwrap();
        assert_eq!(settings.worker_name.as_deref(), Some("worker-01"));
        assert_eq!(settings.miner_url.to_string(), "ws://127.0.0.1:7799/");
        assert_eq!(settings.default_task_timeout, Duration::from_secs(300));
        let (socket, binary) = ("/tmp/gpu_tensor.sock".into(), Some("./bin/subnet-miner_static".into()));
        assert_eq!(settings.gpu, Some(GpuEngineSettings::Vendor(Place { socket, binary })));
        assert!(settings.vmgw_enable);
        assert_eq!(settings.http_listen.port(), 7797);
    }

    #[test]
    fn state_lies_beside_the_configuration_file_unless_said_otherwise() {
        let config = |file: Option<&str>, arguments: &[&str]| {
            let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            Config::load(KEYS, &Sources { file: file.map(PathBuf::from), arguments, ..Sources::default() }).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.yaml");
        std::fs::write(&file, "worker_name: w").unwrap();
        let state_dir =
            |config: &Config, systemd: Option<&str>| Settings::read(config, systemd.map(PathBuf::from)).state_dir;
        assert_eq!(state_dir(&config(None, &[]), None), Path::new("."));
        assert_eq!(state_dir(&config(file.to_str(), &[]), None), folder.path());
        assert_eq!(state_dir(&config(file.to_str(), &[]), Some("/var/lib/w")), Path::new("/var/lib/w"));
        assert_eq!(state_dir(&config(None, &["state_dir=/srv/w"]), Some("/var/lib/w")), Path::new("/srv/w"));
    }

    #[test]
    fn a_wrong_miner_url_is_answered_with_what_to_write() {
        let error = settings("miner_url: http://203.0.113.7:7799").unwrap_err().to_string();
        assert!(error.contains("miner_url") && error.contains("ws://203.0.113.7:7799"), "{error}");
    }

    #[test]
    fn the_example_file_is_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/worker_config.yaml");
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            example(KEYS),
            "write it anew: byteleap-worker config --example > config/worker_config.yaml"
        );
    }
}
