//! What an operator can set: the table of keys, and the typed settings read from it.
//!
//! Every key of the old `miner_config.yaml` is here under its old name and meaning (worker-miner spec 8.1), so old files
//! work unchanged; keys that we added (8.3) are optional. The example file is generated from this table.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use byteleap_daemon::{
    admin,
    config::{Config, Error, Key, Problem},
    logging,
};

use crate::{
    validators::select::{self, Whitelist},
    workers::{
        door::{self, Policy},
        tls,
    },
};

/// The miner's table of keys.
pub const KEYS: &[Key] = &[
    Key::integer("netuid", 1, 65535, "subnet that the hotkey is registered on").default("128"),
    Key::integer("heartbeat_interval", 1, 3600, "seconds between reports to the validators").default("60"),
    Key::integer("task_poll_interval", 1, 3600, "seconds between rounds of asking validators for challenges")
        .default("30"),
    Key::integer("max_retries", 1, 1000, "read for the sake of old files, without effect").default("3"),
    Key::text("state_dir", "folder of challenges under way; default: $STATE_DIRECTORY, else the folder of this file"),
    Key::list("subtensor.network", "chain: finney, test, local or a ws:// or wss:// URL; or several, tried in order")
        .default("finney"),
    Key::boolean("subtensor.allow_insecure", "allow ws:// to another machine").default("false"),
    Key::integer("metagraph.sync_interval", 1, 86_400, "seconds between refreshes of the validator list").default("60"),
    Key::map(
        "metagraph.validator_whitelist",
        "validators used whatever their permit and stake: hotkey to null, or to ip:port instead of the address on chain",
    )
    .default("{}"),
    Key::integer("metagraph.validator_min_stake_tao", 1, 21_000_000, "stake that other validators need").default("10000"),
    Key::integer("metagraph.blacklist.threshold", 1, 1000, "failures in a row of an address, while others answer, before it is left alone")
        .default("5"),
    Key::integer("metagraph.blacklist.ttl_seconds", 1, 86_400, "seconds that it is left alone at most; the first pauses are shorter").default("600"),
    Key::text("wallet.name", "wallet that holds the hotkey").default("default"),
    Key::text("wallet.hotkey", "name of the hotkey in the wallet").default("default"),
    Key::text("wallet.path", "directory of wallets").default("~/.bittensor/wallets"),
    Key::text("wallet.password_file", "file that holds the password of an encrypted hotkey, mode 0600"),
    logging::LOG_LEVEL,
    logging::LOG_DIR,
    Key::text("worker_management.host", "address or name that workers dial").default("0.0.0.0"),
    Key::integer("worker_management.port", 0, 65535, "port that workers dial; 0 picks a free one").default("7799"),
    Key::integer("worker_management.heartbeat_interval", 1, 3600, "seconds between checks for silent workers")
        .default("30"),
    Key::integer("worker_management.heartbeat_timeout", 1, 86_400, "seconds of silence before a worker is removed")
        .default("90"),
    Key::integer("worker_management.max_workers", 1, 10_000, "workers served at once; validators count 100")
        .default("100"),
    Key::text("worker_management.tls.mode", "off: ws:// only; on: wss:// too, on the same port; required: wss:// only")
        .parsed::<tls::Mode>()
        .default("on"),
    Key::text("worker_management.tls.cert", "certificate chain (PEM); default: a self-signed one, kept in state_dir"),
    Key::text("worker_management.tls.key", "its private key (PEM)"),
    Key::text(
        "worker_management.auth",
        "open: anyone may join, but an enrolled worker_id only with its key; enrolled: only workers that prove a key \
         enrolled by 'workers enroll'; required: as enrolled, and only over wss://",
    )
    .parsed::<Policy>()
    .default("open"),
    Key::text(
        "worker_management.vm_tokens",
        "who gets VM enrolment tokens: authenticated, workers with an enrolled key over wss://; any: every worker",
    )
    .check(vm_tokens)
    .default("authenticated"),
    admin::listen_key("127.0.0.1:7798"),
];

fn vm_tokens(text: &str) -> Result<(), String> {
    if ["authenticated", "any"].contains(&text) { Ok(()) } else { Err("authenticated or any".to_owned()) }
}

/// The settings of one run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The subnet.
    pub netuid: u16,
    /// Names or URLs of the chain's endpoints, tried in order.
    pub networks: Vec<String>,
    /// Whether the chain may be spoken to in plain text across machines.
    pub allow_insecure: bool,
    /// Pause between refreshes of the validator list.
    pub sync_interval: Duration,
    /// Which validators are used.
    pub policy: select::Policy,
    /// Failures in a row before an address is left alone.
    pub blacklist_threshold: u32,
    /// How long it is left alone.
    pub blacklist_ttl: Duration,
    /// Folder of the challenges under way.
    pub state_dir: PathBuf,
    /// Where the hotkey lies.
    pub wallet: WalletLocation,
    /// Pause between reports to the validators.
    pub heartbeat_interval: Duration,
    /// Pause between rounds of task polls.
    pub task_poll_interval: Duration,
    /// Where workers dial: an address or a name of this host, and the port.
    pub listen: (String, u16),
    /// Pause between checks for silent workers.
    pub silence_check_interval: Duration,
    /// Silence after which a worker is removed.
    pub silence_timeout: Duration,
    /// Workers served at once.
    pub max_workers: usize,
    /// What the workers' port speaks.
    pub tls_mode: tls::Mode,
    /// Where its certificate comes from.
    pub certificate: tls::Origin,
    /// Which workers are served.
    pub auth: door::Policy,
    /// Whether VM enrolment tokens go to workers that are not authenticated.
    pub tokens_to_anyone: bool,
    /// Where the admin endpoint listens.
    pub admin: SocketAddr,
}

/// A hotkey's place among the wallets of the official tools.
#[derive(Debug, Clone)]
pub struct WalletLocation {
    /// Directory of wallets.
    pub path: PathBuf,
    /// Name of the wallet.
    pub name: String,
    /// Name of the hotkey.
    pub hotkey: String,
    /// File that holds the password of an encrypted hotkey.
    pub password_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings from a checked configuration; `state_directory` is systemd's `$STATE_DIRECTORY`.
    ///
    /// # Errors
    /// What the table cannot express, all at once: entries of the whitelist that are no hotkey or no address, and keys that
    /// do not go together.
    pub fn read(config: &Config, state_directory: Option<PathBuf>) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let whitelist = whitelist(config, &mut problems);
        let (mut tls_mode, auth) =
            (config.parsed("worker_management.tls.mode"), config.parsed("worker_management.auth"));
        match (tls_mode, auth) {
            (tls::Mode::Off, Policy::Required) => problems.push(config.problem(
                "worker_management.auth",
                "required needs TLS: set worker_management.tls.mode to on or required",
            )),
            (_, Policy::Required) => tls_mode = tls::Mode::Required,
            _ => {}
        }
        let state_dir =
            config.get::<Option<PathBuf>>("state_dir").or(state_directory).unwrap_or_else(|| folder_of(config.file()));
        let files = (config.get("worker_management.tls.cert"), config.get("worker_management.tls.key"));
        let certificate = match files {
            (Some(certificate), Some(key)) => tls::Origin::Files(tls::Files { certificate, key }),
            (None, None) => tls::Origin::SelfSigned(state_dir.clone()),
            (Some(_), None) => {
                problems.push(config.problem("worker_management.tls.key", "is required beside tls.cert"));
                tls::Origin::SelfSigned(state_dir.clone())
            }
            (None, Some(_)) => {
                problems.push(config.problem("worker_management.tls.cert", "is required beside tls.key"));
                tls::Origin::SelfSigned(state_dir.clone())
            }
        };
        if !problems.is_empty() {
            return Err(Error { problems });
        }
        Ok(Self {
            netuid: config.get("netuid"),
            networks: config.get("subtensor.network"),
            allow_insecure: config.get("subtensor.allow_insecure"),
            sync_interval: config.seconds("metagraph.sync_interval"),
            policy: select::Policy { whitelist, min_stake_tao: config.get("metagraph.validator_min_stake_tao") },
            blacklist_threshold: config.get("metagraph.blacklist.threshold"),
            blacklist_ttl: config.seconds("metagraph.blacklist.ttl_seconds"),
            state_dir,
            wallet: WalletLocation {
                path: config.get("wallet.path"),
                name: config.get("wallet.name"),
                hotkey: config.get("wallet.hotkey"),
                password_file: config.get("wallet.password_file"),
            },
            heartbeat_interval: config.seconds("heartbeat_interval"),
            task_poll_interval: config.seconds("task_poll_interval"),
            listen: (config.get("worker_management.host"), config.get("worker_management.port")),
            silence_check_interval: config.seconds("worker_management.heartbeat_interval"),
            silence_timeout: config.seconds("worker_management.heartbeat_timeout"),
            max_workers: config.get("worker_management.max_workers"),
            tls_mode,
            certificate,
            auth,
            tokens_to_anyone: config.get::<String>("worker_management.vm_tokens") == "any",
            admin: config.parsed("http.listen"),
        })
    }
}

/// The folder of the configuration file; without a file the current one.
fn folder_of(file: Option<&Path>) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn whitelist(config: &Config, problems: &mut Vec<Problem>) -> Whitelist {
    const NAME: &str = "metagraph.validator_whitelist";
    let mut whitelist = Whitelist::new();
    for (hotkey, address) in config.get::<BTreeMap<String, Option<String>>>(NAME) {
        let parsed = hotkey.parse().map_err(|error| format!("{hotkey} is no hotkey: {error}")).and_then(|hotkey| {
            let address =
                address.as_deref().map(|text| text.parse().map_err(|_| format!("{hotkey}: {text} is no ip:port")));
            Ok((hotkey, address.transpose()?))
        });
        match parsed {
            Ok((hotkey, address)) => {
                whitelist.insert(hotkey, address);
            }
            Err(message) => problems.push(config.problem(NAME, message)),
        }
    }
    whitelist
}

#[cfg(test)]
mod tests {
    use std::fs;

    use byteleap_daemon::config::{Sources, example};

    use super::*;

    fn load(yaml: &str) -> Result<Settings, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("miner_config.yaml");
        fs::write(&file, yaml).expect("a file");
        let config = Config::load(KEYS, &Sources { file: Some(file), ..Sources::default() })?;
        Settings::read(&config, None)
    }

    #[test]
    fn the_example_file_is_this_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/miner_config.yaml");
        if std::env::var_os("BYTELEAP_BLESS").is_some() {
            fs::write(&file, example(KEYS)).expect("written");
        }
        let checked_in = fs::read_to_string(&file).expect("config/miner_config.yaml");
        assert!(checked_in == example(KEYS), "stale: write it anew with BYTELEAP_BLESS=1 cargo test -p byteleap-miner");
    }

    #[test]
    fn the_defaults_are_complete() {
        let settings = load("{}").expect("defaults");
        assert_eq!(settings.listen, ("0.0.0.0".to_owned(), 7799));
        assert_eq!(settings.admin.to_string(), "127.0.0.1:7798");
        assert_eq!(settings.max_workers, 100);
        assert!(settings.state_dir.is_absolute(), "beside the file: {}", settings.state_dir.display());
    }

    #[test]
    fn an_old_file_is_read_unchanged() {
        let settings = load(
            "netuid: 128\n\
             subtensor:\n  network: test\n\
             metagraph:\n  sync_interval: 60\n  validator_min_stake_tao: 10000\n  validator_whitelist:\n    \
             5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi: null\n    \
             5Fpfx4iDtrrY99VGkQnLXASytC2y9Z3o8KUyTtD4w7o5SZcA: \"203.0.113.7:9091\"\n  \
             blacklist:\n    threshold: 5\n    ttl_seconds: 600\n\
             wallet:\n  name: miner-testnet\n  hotkey: default\n  path: ~/.bittensor/wallets\n\
             logging:\n  log_level: INFO\n  log_dir: ./logs\n\
             heartbeat_interval: 60\ntask_poll_interval: 30\nmax_retries: 3\n\
             worker_management:\n  host: 0.0.0.0\n  port: 7799\n  heartbeat_interval: 30\n  heartbeat_timeout: 90\n",
        )
        .expect("an old file");
        let addresses: Vec<_> = settings.policy.whitelist.values().collect();
        assert_eq!(addresses, [&None, &Some("203.0.113.7:9091".parse().expect("an address"))]);
        assert_eq!(settings.wallet.name, "miner-testnet");
    }

    #[test]
    fn keys_of_the_workers_port_that_do_not_go_together_are_named() {
        let keys = |yaml: &str| load(&format!("worker_management:\n{yaml}")).map_err(|error| error.to_string());
        let error = keys("  auth: required\n  tls: {mode: off, cert: /etc/c.pem}\n").expect_err("two problems");
        assert!(error.contains("needs TLS") && error.contains("tls.key"), "{error}");
        let settings = keys("  auth: required\n").expect("settings");
        assert_eq!(settings.tls_mode, tls::Mode::Required, "a required key is proved over TLS only");
        assert_eq!(keys("  tls: {mode: on}\n").expect("settings").tls_mode, tls::Mode::On);
        assert!(keys("  vm_tokens: some\n").is_err() && keys("  auth: closed\n").is_err());
    }

    #[test]
    fn every_wrong_entry_of_the_whitelist_is_named_at_once() {
        let error = load(
            "metagraph:\n  validator_whitelist:\n    5Nonsense: null\n    \
             5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi: somewhere\n",
        )
        .expect_err("two problems");
        assert_eq!(error.problems.len(), 2, "{error}");
    }
}
