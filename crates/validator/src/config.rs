//! What an operator can set: the table of keys, and the typed settings read from it.
//!
//! Every key of the old `validator_config.yaml` is here under its old name and meaning (validator spec 9), so old files
//! work unchanged; keys that we added are optional. The example file is generated from this table.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use byteleap_chain::timelock::Beacon;
use byteleap_compute::gpu::verify::Tolerance;
use byteleap_daemon::admin;
use byteleap_daemon::config::{Config, Error, Key, Problem, Source};
use byteleap_daemon::live::Live;
use byteleap_daemon::logging;
use byteleap_protocol::challenge::TimeoutSeconds;
use byteleap_protocol::gpu_signature::CommitmentKey;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{Iterations, MatrixSize};
use byteleap_protocol::meshhub::handshake::AccessToken;
use byteleap_protocol::synapse::SynapseKind;
use byteleap_scoring::rules::{
    AvailabilityScope, LeaseAggregate, LeasedChallenge, MaxOver, Overrides, PerformanceMode, Profile, ProfileName,
    Rules as ScoringRules, Windows, ZeroRound,
};

use crate::alarm::Limits;
use crate::alarm::webhook::{Webhook, WebhookUrl};
use crate::backup::Schedule;
use crate::challenge::verify::Pace;
use crate::challenge::{CpuRules, GpuRules, Kinds, Rules as ChallengeRules, Spread};
use crate::market::lease::Ages;
use crate::market::remote::Allowed;
use crate::market::tokens::{Bearer, Issuing, Mode as TokenMode};
use crate::market::url::HubUrl;
use crate::market::{HubSettings, LeaseRules, LeaseSource};
use crate::store::DatabaseUrl;
use crate::store::gpu::Ownership;
use crate::store::retention::Kept;

/// A day in seconds: the longest interval of any loop.
const DAY_S: i64 = 86_400;

/// The public network's key ([`byteleap_protocol::gpu_signature::NETWORK_PUBLIC_KEY`]), as the default of a list.
const TRUSTED_KEYS: &str = r#"["045db4dcfa2559220159eba6bb8b7f16e4c4962bb9d862a7df8a1ce4138c01e14533213760877d4eaba3f84a7e1e1b29cb0f3320ff90f01dc206c22cffc0b09afb"]"#;

/// The validator's table of keys.
pub const KEYS: &[Key] = &[
    Key::integer("port", 0, 65535, "port of the axon, where miners' requests arrive; 0 picks a free one").default("9091"),
    Key::text("external_ip", "address published on chain; null: none is published, miners need it on their whitelist")
        .parsed::<IpAddr>(),
    Key::integer("netuid", 1, 65535, "subnet that the hotkey validates on, 128 on the main network").required(),
    Key::text("axon.host", "address that the axon listens on").parsed::<IpAddr>().default("0.0.0.0"),
    Key::list("axon.disabled_routes", "fault injection for tests: synapses, as ChallengeSynapse, that are answered as unknown")
        .check(synapse)
        .default("[]"),
    Key::list("subtensor.network", "chain: finney, test, local or a ws:// or wss:// URL; or several, tried in order")
        .default("finney"),
    Key::boolean("subtensor.allow_insecure", "allow ws:// to another machine").default("false"),
    Key::text("subtensor.beacon", "public key of the beacon that reveals timelocked weights; null: drand's quicknet")
        .parsed::<Beacon>(),
    Key::integer("metagraph.weight_update_tempo", 0, i64::MAX, "blocks between submissions of weights; 0: never")
        .default("105"),
    Key::integer("metagraph.sync_interval", 1, DAY_S, "seconds between refreshes of the metagraph").default("60"),
    Key::text("wallet.name", "wallet that holds the hotkey").required(),
    Key::text("wallet.hotkey", "name of the hotkey in the wallet").required(),
    Key::text("wallet.path", "directory of wallets").default("~/.bittensor/wallets"),
    Key::text("wallet.password_file", "file that holds the password of an encrypted hotkey, mode 0600"),
    logging::LOG_LEVEL,
    logging::LOG_DIR,
    Key::text("database.url", "sqlite:///relative.db, sqlite:////absolute.db or postgresql://user:password@host/name")
        .parsed::<DatabaseUrl>()
        .secret()
        .default("sqlite:///./validator.db"),
    Key::integer("database.event_retention_days", 1, 3650, "days that the scores of single workers are kept; challenges as long, at least 14 days").default("7").live(),
    Key::boolean("meshhub.enabled", "dial the marketplace, where ws_url and access_token are set").default("true"),
    Key::text("meshhub.ws_url", "marketplace endpoint: wss://host/path, or ws:// to this machine").parsed::<HubUrl>(),
    Key::text("meshhub.access_token", "marketplace login").secret(),
    Key::boolean("meshhub.allow_insecure", "allow ws:// to another machine: everything on the way sees the login")
        .default("false"),
    Key::text("meshhub.server_hotkey", "who the marketplace has to be; null: whoever it was at first use")
        .parsed::<Hotkey>(),
    Key::list("meshhub.capabilities", "announced to the marketplace")
        .default(r#"["hardware_inspection", "challenge_validation"]"#),
    Key::integer("meshhub.reconnect_delay_seconds", 1, DAY_S, "longest pause before a new attempt, seconds").default("30"),
    Key::integer("meshhub.heartbeat_interval_seconds", 1, DAY_S, "seconds between heartbeats to it").default("60"),
    Key::integer("meshhub.resource_report_interval_seconds", 5, DAY_S, "seconds between reports to it").default("90"),
    Key::integer("meshhub.lease_stale_after", 1, 30 * DAY_S, "seconds after which a lease that is not repeated is stale")
        .default("1800")
        .live(),
    Key::integer("meshhub.lease_expire_after", 0, 365 * DAY_S, "seconds after which a lease that is not repeated ends; 0: \
        never")
    .default("0")
    .live(),
    Key::boolean("meshhub.lease_snapshot", "take a list of leases for all of them: whoever is not named is not leased")
        .default("false"),
    Key::text("meshhub.remote_config", "what the marketplace may set: off, safe (what is asked of workers) or all")
        .parsed::<Allowed>()
        .default("safe"),
    Key::text("leases.source", "whose leases count: meshhub, api (POST to us) or both").parsed::<LeaseSource>().default("both"),
    Key::float("lease.max_score", 0.0, f64::MAX, "a lease above this is refused; null: none is"),
    Key::text("vmgw.mode", "who issues enrolment tokens for VM gateways: off, hub (the marketplace) or http (vmgw.url)")
        .parsed::<TokenMode>()
        .default("off"),
    Key::text("vmgw.url", "where tokens are issued by POST: https://host/path (http:// to this machine)")
        .parsed::<WebhookUrl>(),
    Key::text("vmgw.token", "login there, sent as a bearer token").secret(),
    Key::integer("validation.challenge_interval", 1, DAY_S, "seconds between two challenges of a worker").default("240").live(),
    Key::integer("validation.challenge_timeout", 1, 300, "seconds that a worker has to commit to its result")
        .default("60").live(),
    Key::integer("validation.commitment_grace", 0, 300, "seconds that a late commitment is still taken").default("5").live(),
    Key::integer("validation.proof_timeout", 1, 3600, "seconds from a commitment to its proof").default("60").live(),
    Key::integer("validation.ranking_window_minutes", 1, 43_200, "minutes over which challenges count").default("180").live(),
    Key::float("validation.participation_rate_threshold", 0.1, 1.0, "share of the possible challenges that is full \
        participation")
    .default("0.80").live(),
    Key::integer("validation.verification_concurrent", -1, 1024, "proofs verified at once; -1: processors less one")
        .default("1").live(),
    Key::integer("validation.verification_interval", 1, DAY_S, "seconds between looks for unverified proofs")
        .default("30").live(),
    Key::integer("validation.verification_claim", 1, 3600, "seconds after which a proof that a killed verifier took is \
        judged by another")
    .default("120").live(),
    Key::integer("validation.proof_queue_max_size", 1, i64::MAX, "read for the sake of old files: proofs are on disk")
        .default("1000"),
    Key::text("validation.challenge_type", "cpu_matrix, gpu_matrix, or both: in turn to workers that can do both")
        .parsed::<Kinds>()
        .default("gpu_matrix")
        .live(),
    Key::integer("validation.cpu.matrix_size", 100, 10_000, "side of the matrices before variation").default("2000").live(),
    Key::float("validation.cpu.size_variance", 0.0, 0.5, "share by which the side varies").default("0.1").live(),
    Key::integer("validation.cpu.iterations", 1, 64, "multiplications").default("1").live(),
    Key::integer("validation.cpu.verification.row_verification_count", 1, 10_000, "rows to open before variation")
        .default("50").live(),
    Key::float("validation.cpu.verification.row_verification_count_variance", 0.0, 1.0, "share by which that varies")
        .default("0.5").live(),
    Key::integer("validation.gpu.matrix_size", 1, 65_536, "side of the matrices before variation").default("32768").live(),
    Key::float("validation.gpu.size_variance", 0.0, 1.0, "share by which the side varies").default("0.05").live(),
    Key::integer("validation.gpu.iterations", 1, 64, "factor of the result").default("1").live(),
    Key::boolean("validation.gpu.enable_normalization", "read for the sake of old files, without effect")
        .default("true"),
    Key::integer("validation.gpu.verification.coordinate_sample_count", 0, 10_000, "elements to show").default("25").live(),
    Key::float("validation.gpu.verification.coordinate_sample_count_variance", 0.0, 1.0, "share by which that varies")
        .default("0.2").live(),
    Key::integer("validation.gpu.verification.row_verification_count", 0, 10_000, "rows to open").default("2").live(),
    Key::float("validation.gpu.verification.row_verification_count_variance", 0.0, 1.0, "share by which that varies")
        .default("0.5").live(),
    Key::float("validation.gpu.verification.row_sample_rate", 0.0, 1.0, "share of a row's elements that is recomputed")
        .default("0.001").live(),
    Key::float("validation.gpu.verification.abs_tolerance", 0.0, 1.0, "absolute error that passes").default("0.02").live(),
    Key::float("validation.gpu.verification.rel_tolerance", 0.0, 1.0, "relative error that passes").default("0.005").live(),
    Key::float("validation.gpu.verification.success_rate_threshold", 0.0, 1.0, "share of elements that must pass")
        .default("0.85").live(),
    Key::list("validation.gpu.model_allowlist", "models that are challenged; empty: any").default(
        r#"["RTX 3090", "RTX 4090", "RTX 5090", "A100-SXM4-80GB", "A100 80GB", "A100-PCIE-80GB", "H100 80GB", "H100-PCIE-80GB", "H100 94GB", "H200", "B200"]"#,
    ).live(),
    Key::text("gpu.ownership", "who holds a card that several workers report: sticky (the first) or last_writer")
        .parsed::<Ownership>()
        .default("sticky"),
    Key::list("gpu.trusted_keys", "P-256 keys, as hexadecimal points, whose signature under a GPU's commitment counts")
        .parsed::<CommitmentKey>()
        .default(TRUSTED_KEYS).live(),
    Key::boolean("gpu.accept_host_keys", "let a worker's own key sign too: for networks where every host is trusted")
        .default("false").live(),
    Key::float("weight_management.score_weights.lease_weight", 0.0, 1000.0, "share of leases; null: the profile's").live(),
    Key::float("weight_management.score_weights.challenge_weight", 0.0, 1000.0, "share of challenges; null: the profile's").live(),
    Key::integer("weight_management.availability.window_hours", 1, 8760, "hours over which presence counts")
        .default("169"),
    Key::text("scoring.profile", "docs-90-10, docs-100-0 or reference-0.0.5 (as validators on Python release 0.0.5)")
        .parsed::<ProfileName>()
        .default("docs-90-10").live(),
    Key::integer("scoring.interval_s", 1, DAY_S, "seconds between rounds").default("420"),
    Key::text("scoring.performance.mode", "ranked or absolute; null: the profile's").parsed::<PerformanceMode>().live(),
    Key::text("scoring.availability.scope", "miner_composite, worker_challenge or none; null: the profile's")
        .parsed::<AvailabilityScope>().live(),
    Key::boolean("scoring.availability.exclude_own_downtime", "leave out what we did not see; null: the profile's").live(),
    Key::text("scoring.leased_challenge", "challenge score of a leased miner: own, average or zero; null: the profile's")
        .parsed::<LeasedChallenge>().live(),
    Key::text("scoring.lease.aggregate", "sum or ratio; null: the profile's").parsed::<LeaseAggregate>().live(),
    Key::boolean("scoring.lease.count_offline", "count leases of silent workers; null: the profile's").live(),
    Key::text("scoring.max_over", "whose results set the maximum: scored or all; null: the profile's").parsed::<MaxOver>().live(),
    Key::text("scoring.zero_round", "when nobody scored: skip, uniform or burn; null: the profile's")
        .parsed::<ZeroRound>().live(),
    Key::boolean("weights.dry_run", "do everything but send weights").default("false"),
    Key::integer("weights.version_key", 0, i64::MAX, "version key that weights carry").default("9010000"),
    Key::boolean("weights.enforce_limits", "cap and pad a vector to the chain's limits").default("true"),
    Key::float("weights.burn.share", 0.0, 1.0, "share of the weight that is burned").default("0.0"),
    Key::text("weights.burn.uid", "who it is burned by: owner (of the subnet) or a uid").parsed::<BurnUid>().default("owner"),
    Key::integer("weights.max_round_age", 1, DAY_S, "seconds after which a round is too old to be submitted")
        .default("1800"),
    Key::integer("security.rate_limit.window_seconds", 1, 3600, "seconds over which requests are counted").default("30").live(),
    Key::integer("security.rate_limit.max_requests", 1, 1_000_000, "requests of a miner in that time, more while it has \
        open challenges")
    .default("150").live(),
    Key::text("backup.folder", "where copies of the database are made by themselves; null: nowhere, make them by `backup`"),
    Key::integer("backup.interval_hours", 1, 8760, "hours between two copies").default("24"),
    Key::integer("backup.keep", 1, 10_000, "how many of the newest copies are kept").default("7"),
    Key::text("alarms.webhook_url", "where alarms are sent as JSON: https://host/path (http:// to this machine)")
        .parsed::<WebhookUrl>()
        .secret()
        .live(),
    Key::text("alarms.webhook_ca_file", "certificates (PEM) that vouch for the webhook besides those that this machine trusts")
        .live(),
    Key::integer("alarms.verification_wait_s", 1, DAY_S, "seconds that a proof may wait for its verdict before an alarm")
        .default("300")
        .live(),
    Key::integer("alarms.min_free_disk_mb", 0, 1_000_000_000, "free space below which the disk of database or log is low")
        .default("1000")
        .live(),
    Key::float("alarms.max_clock_offset_s", 0.1, 3600.0, "seconds by which the clock may differ from the miners' clocks")
        .default("2.0")
        .live(),
    Key::boolean("auto_update.enabled", "read for the sake of old files: this program does not replace itself"),
    admin::listen_key("127.0.0.1:9092"),
    Key::text("http.token_file", "who may use the HTTP API: kept by the commands token create and token revoke, mode 0600")
        .default("./api_tokens.json"),
];

/// The settings of one run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the axon listens.
    pub axon: SocketAddr,
    /// The address to publish on chain.
    pub external_ip: Option<IpAddr>,
    /// Synapses that are switched off for a test.
    pub disabled_routes: Vec<SynapseKind>,
    /// Requests of one miner in a window.
    pub rate_limit: RateLimit,
    /// The subnet.
    pub netuid: u16,
    /// Names or URLs of the chain's endpoints, tried in order.
    pub networks: Vec<String>,
    /// Whether the chain may be spoken to in plain text across machines.
    pub allow_insecure: bool,
    /// Whose rounds reveal timelocked weights.
    pub beacon: Beacon,
    /// Pause between refreshes of the metagraph.
    pub sync_interval: Duration,
    /// Where the hotkey lies.
    pub wallet: WalletLocation,
    /// Where everything is remembered.
    pub database: DatabaseUrl,
    /// How long it is remembered.
    pub kept: Kept,
    /// How challenges are made and answered.
    pub challenge: ChallengeRules,
    /// Who holds a card that several workers report.
    pub gpu_ownership: Ownership,
    /// How proofs are verified.
    pub verification: Pace,
    /// How rounds are scored.
    pub scoring: ScoringRules,
    /// Pause between rounds.
    pub scoring_interval: Duration,
    /// How weights are submitted.
    pub weights: WeightSettings,
    /// The marketplace; none where none is configured.
    pub market: Option<HubSettings>,
    /// What the marketplace may set.
    pub remote_config: Allowed,
    /// Whose leases count.
    pub lease_source: LeaseSource,
    /// From which age on a lease is stale, and from which it is none.
    pub lease_ages: Ages,
    /// Who issues enrolment tokens.
    pub tokens: Issuing,
    /// When a person is told.
    pub alarms: Limits,
    /// Copies of the database that make themselves.
    pub backup: Option<Schedule>,
    /// Folder of the log.
    pub log_dir: PathBuf,
    /// Where the admin endpoint listens.
    pub admin: SocketAddr,
    /// Who may use the HTTP API.
    pub api_tokens: PathBuf,
}

/// The settings that a reload changes: each part holds those that it obeys.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// How challenges are made and answered.
    pub challenge: Live<ChallengeRules>,
    /// How proofs are verified.
    pub verification: Live<Pace>,
    /// How rounds are scored.
    pub scoring: Live<ScoringRules>,
    /// Requests of one miner in a window.
    pub rate_limit: Live<RateLimit>,
    /// How long things are remembered.
    pub kept: Live<Kept>,
    /// From which age on a lease is stale, and from which it is none.
    pub lease_ages: Live<Ages>,
    /// When a person is told.
    pub alarms: Live<Limits>,
}

impl LiveSettings {
    /// Those of the start.
    pub fn of(settings: &Settings) -> Self {
        Self {
            challenge: settings.challenge.clone().into(),
            verification: settings.verification.into(),
            scoring: settings.scoring.clone().into(),
            rate_limit: settings.rate_limit.into(),
            kept: settings.kept.into(),
            lease_ages: settings.lease_ages.into(),
            alarms: settings.alarms.clone().into(),
        }
    }

    /// Replaces all of them.
    pub fn set(&self, settings: Settings) {
        self.challenge.set(settings.challenge);
        self.verification.set(settings.verification);
        self.scoring.set(settings.scoring);
        self.rate_limit.set(settings.rate_limit);
        self.kept.set(settings.kept);
        self.lease_ages.set(settings.lease_ages);
        self.alarms.set(settings.alarms);
    }
}

/// A wallet's place in the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletLocation {
    /// Directory of wallets.
    pub path: PathBuf,
    /// Wallet.
    pub name: String,
    /// Hotkey in the wallet.
    pub hotkey: String,
    /// File that holds the password of an encrypted hotkey.
    pub password_file: Option<PathBuf>,
}

/// How many requests a miner may send in a window (validator spec 1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The window.
    pub window: Duration,
    /// Requests in it, before the allowance for open challenges.
    pub max_requests: u32,
}

/// Weight that is given to nobody: the chain does not pay out what goes to the subnet's owner (chain spec 5.4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burn {
    /// How much of the whole, 0 to 1.
    pub share: f64,
    /// By whom.
    pub uid: BurnUid,
}

/// Whose weight is not paid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BurnUid {
    /// The uid of the subnet owner's hotkey, read from the chain.
    Owner,
    /// A fixed one, as another hotkey of the owner.
    Fixed(u16),
}

/// A text that names no [`BurnUid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("owner, or a uid from 0 to 65535")]
pub struct UnknownBurnUid;

impl FromStr for BurnUid {
    type Err = UnknownBurnUid;

    fn from_str(text: &str) -> Result<Self, UnknownBurnUid> {
        if text == "owner" { Ok(Self::Owner) } else { text.parse().map(Self::Fixed).map_err(|_| UnknownBurnUid) }
    }
}

/// How weights go to the chain (validator spec 6).
#[derive(Debug, Clone, PartialEq)]
pub struct WeightSettings {
    /// Blocks between submissions; none: never.
    pub tempo_blocks: Option<u64>,
    /// Do everything but send.
    pub dry_run: bool,
    /// Version key that they carry.
    pub version_key: u64,
    /// Cap and pad a vector to the chain's limits.
    pub enforce_limits: bool,
    /// A round older than this is not submitted.
    pub max_round_age: Duration,
    /// What is burned of every vector.
    pub burn: Burn,
}

impl Settings {
    /// Reads the settings from a checked configuration.
    ///
    /// # Errors
    /// What the table alone cannot express, all of it at once.
    pub fn read(config: &Config) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let concurrency = concurrency(config).unwrap_or_else(|problem| {
            problems.push(problem);
            NonZeroUsize::MIN
        });
        let scoring = scoring(config).unwrap_or_else(|problem| {
            problems.push(problem);
            ScoringRules::default()
        });
        problems.extend(targets(config));
        problems.extend(issuer(config));
        let challenge = challenge(config);
        match challenge {
            Ok(challenge) if problems.is_empty() => Ok(Self {
                axon: SocketAddr::new(config.parsed("axon.host"), config.get("port")),
                external_ip: config.parsed_optional("external_ip"),
                disabled_routes: config
                    .get::<Vec<String>>("axon.disabled_routes")
                    .iter()
                    .filter_map(|name| SynapseKind::from_name(name))
                    .collect(),
                rate_limit: RateLimit {
                    window: config.seconds("security.rate_limit.window_seconds"),
                    max_requests: config.get("security.rate_limit.max_requests"),
                },
                netuid: config.get("netuid"),
                networks: config.get("subtensor.network"),
                allow_insecure: config.get("subtensor.allow_insecure"),
                beacon: config.parsed_optional("subtensor.beacon").unwrap_or(Beacon::QUICKNET),
                sync_interval: config.seconds("metagraph.sync_interval"),
                wallet: WalletLocation {
                    path: config.get("wallet.path"),
                    name: config.get("wallet.name"),
                    hotkey: config.get("wallet.hotkey"),
                    password_file: config.get("wallet.password_file"),
                },
                database: config.parsed("database.url"),
                kept: Kept {
                    events_ms: config.get::<i64>("database.event_retention_days") * DAY_S * 1000,
                    ranking_ms: config.get::<i64>("validation.ranking_window_minutes") * 60_000,
                    availability_ms: config.get::<i64>("weight_management.availability.window_hours") * 3_600_000,
                },
                challenge,
                gpu_ownership: config.parsed("gpu.ownership"),
                verification: Pace {
                    concurrency,
                    idle: config.seconds("validation.verification_interval"),
                    claim: config.seconds("validation.verification_claim"),
                },
                scoring,
                scoring_interval: config.seconds("scoring.interval_s"),
                weights: WeightSettings {
                    tempo_blocks: Some(config.get("metagraph.weight_update_tempo")).filter(|blocks| *blocks > 0),
                    dry_run: config.get("weights.dry_run"),
                    version_key: config.get("weights.version_key"),
                    enforce_limits: config.get("weights.enforce_limits"),
                    max_round_age: config.seconds("weights.max_round_age"),
                    burn: Burn { share: config.get("weights.burn.share"), uid: config.parsed("weights.burn.uid") },
                },
                market: market(config),
                remote_config: config.parsed("meshhub.remote_config"),
                lease_source: config.parsed("leases.source"),
                lease_ages: Ages {
                    stale_after: config.seconds("meshhub.lease_stale_after"),
                    expire_after: Some(config.seconds("meshhub.lease_expire_after")).filter(|age| !age.is_zero()),
                },
                tokens: issuing(config),
                alarms: Limits {
                    webhook: config
                        .parsed_optional("alarms.webhook_url")
                        .map(|url| Webhook { url, ca_file: config.get("alarms.webhook_ca_file") }),
                    verification_wait: config.seconds("alarms.verification_wait_s"),
                    lease_stale_after: config.seconds("meshhub.lease_stale_after"),
                    min_free_disk_bytes: config.get::<u64>("alarms.min_free_disk_mb") * 1_000_000,
                    max_clock_offset: config.seconds("alarms.max_clock_offset_s"),
                },
                backup: config.get::<Option<PathBuf>>("backup.folder").map(|folder| Schedule {
                    folder,
                    interval: Duration::from_secs(3600 * config.get::<u64>("backup.interval_hours")),
                    keep: config.get("backup.keep"),
                }),
                log_dir: config.get(logging::LOG_DIR.name),
                admin: config.parsed("http.listen"),
                api_tokens: PathBuf::from(config.get::<String>("http.token_file")),
            }),
            Ok(_) => Err(Error { problems }),
            Err(problem) => {
                problems.push(problem);
                Err(Error { problems })
            }
        }
    }
}

/// What an operator should know about a configuration that is not wrong.
pub fn advice(config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    if config.get::<Option<String>>("external_ip").is_none() {
        advice.push(
            "external_ip is not set: no address is published on chain, and only miners that have this validator on their \
             whitelist with its address find it"
                .to_owned(),
        );
    }
    if config.get("gpu.accept_host_keys") {
        advice.push(
            "gpu.accept_host_keys is true: whoever runs a worker can sign for GPUs that do not exist; leave it to networks \
             of your own"
                .to_owned(),
        );
    }
    let has = |name: &str| config.get::<Option<String>>(name).is_some();
    if has("meshhub.ws_url") && config.get("meshhub.enabled") && !has("meshhub.access_token") {
        advice.push("meshhub.ws_url is set and meshhub.access_token is not: the marketplace is not dialled".to_owned());
    }
    let shares = ["lease_weight", "challenge_weight"].map(|share| format!("weight_management.score_weights.{share}"));
    let shares_are_set = shares.iter().any(|share| *config.source(share) != Source::Default);
    if shares_are_set && *config.source("scoring.profile") == Source::Default {
        advice.push(
            "weight_management.score_weights is set and scoring.profile is not: the weights are those of the file, all \
             other rules those of docs-90-10; beside validators on Python release 0.0.5 set scoring.profile to \
             reference-0.0.5"
                .to_owned(),
        );
    }
    advice
}

/// An issuer has an address.
fn issuer(config: &Config) -> Option<Problem> {
    let has_url = config.parsed_optional::<WebhookUrl>("vmgw.url").is_some();
    let is_wanted = config.parsed::<TokenMode>("vmgw.mode") == TokenMode::Http;
    (is_wanted && !has_url).then(|| config.problem("vmgw.url", "is required where vmgw.mode is http"))
}

fn issuing(config: &Config) -> Issuing {
    match (config.parsed("vmgw.mode"), config.parsed_optional("vmgw.url")) {
        (TokenMode::Hub, _) => Issuing::Hub,
        (TokenMode::Http, Some(url)) => {
            Issuing::Http { url, bearer: config.get::<Option<String>>("vmgw.token").map(Bearer::new) }
        }
        _ => Issuing::Off,
    }
}

/// The marketplace, where one is configured and wanted.
fn market(config: &Config) -> Option<HubSettings> {
    let url: HubUrl = config.parsed_optional("meshhub.ws_url")?;
    let token: String = config.get::<Option<String>>("meshhub.access_token")?;
    let source: LeaseSource = config.parsed("leases.source");
    config.get::<bool>("meshhub.enabled").then(|| HubSettings {
        url,
        allow_insecure: config.get("meshhub.allow_insecure"),
        token: AccessToken::new(token),
        capabilities: config.get("meshhub.capabilities"),
        server: config.parsed_optional("meshhub.server_hotkey"),
        longest_pause: config.seconds("meshhub.reconnect_delay_seconds"),
        heartbeat: config.seconds("meshhub.heartbeat_interval_seconds"),
        resources: config.seconds("meshhub.resource_report_interval_seconds"),
        leases: LeaseRules {
            taken: source.takes_meshhub(),
            snapshot: config.get("meshhub.lease_snapshot"),
            max_score: config.get("lease.max_score"),
        },
    })
}

fn synapse(name: &str) -> Result<(), String> {
    let names = || SynapseKind::ALL.map(SynapseKind::name).join(", ");
    SynapseKind::from_name(name).map(drop).ok_or_else(|| format!("one of {}", names()))
}

/// What a checked value says; the table's bounds are the type's, so this does not fail on a loaded configuration.
fn within<T, E: ToString>(config: &Config, name: &str, made: Result<T, E>) -> Result<T, Problem> {
    made.map_err(|error| config.problem(name, error.to_string()))
}

fn challenge(config: &Config) -> Result<ChallengeRules, Problem> {
    let milliseconds = |name: &str| config.get::<i64>(name) * 1000;
    Ok(ChallengeRules {
        kinds: config.parsed("validation.challenge_type"),
        interval_ms: milliseconds("validation.challenge_interval"),
        timeout: within(
            config,
            "validation.challenge_timeout",
            TimeoutSeconds::new(config.get("validation.challenge_timeout")),
        )?,
        commitment_grace_ms: milliseconds("validation.commitment_grace"),
        proof_timeout_ms: milliseconds("validation.proof_timeout"),
        cpu: CpuRules {
            matrix_size: number(config, "validation.cpu.matrix_size", MatrixSize::for_cpu)?,
            size_variance: config.get("validation.cpu.size_variance"),
            iterations: number(config, "validation.cpu.iterations", Iterations::new)?,
            rows: spread(config, "validation.cpu.verification.row_verification_count"),
        },
        gpu: GpuRules {
            matrix_size: number(config, "validation.gpu.matrix_size", MatrixSize::new)?,
            size_variance: config.get("validation.gpu.size_variance"),
            iterations: number(config, "validation.gpu.iterations", Iterations::new)?,
            coordinates: spread(config, "validation.gpu.verification.coordinate_sample_count"),
            rows: spread(config, "validation.gpu.verification.row_verification_count"),
            tolerance: Tolerance {
                absolute: config.get("validation.gpu.verification.abs_tolerance"),
                relative: config.get("validation.gpu.verification.rel_tolerance"),
                success_rate: config.get("validation.gpu.verification.success_rate_threshold"),
                row_sample_rate: config.get("validation.gpu.verification.row_sample_rate"),
            },
            model_allowlist: config
                .get::<Vec<String>>("validation.gpu.model_allowlist")
                .iter()
                .map(|entry| entry.to_lowercase())
                .collect(),
            trusted_keys: config
                .get::<Vec<String>>("gpu.trusted_keys")
                .iter()
                .filter_map(|key| key.parse().ok())
                .collect(),
            accept_host_keys: config.get("gpu.accept_host_keys"),
        },
    })
}

fn number<T, E: ToString>(config: &Config, name: &str, make: impl Fn(u32) -> Result<T, E>) -> Result<T, Problem> {
    within(config, name, make(config.get(name)))
}

/// A count with the share by which it varies, which stands beside it.
fn spread(config: &Config, name: &str) -> Spread {
    Spread { base: config.get(name), variance: config.get(&format!("{name}_variance")) }
}

/// A GPU challenge without anything to show would prove nothing.
fn targets(config: &Config) -> Option<Problem> {
    let (elements, rows) =
        ("validation.gpu.verification.coordinate_sample_count", "validation.gpu.verification.row_verification_count");
    let asks_nothing = config.get::<u32>(elements) == 0 && config.get::<u32>(rows) == 0;
    asks_nothing.then(|| config.problem(elements, format!("found 0 here and in {rows}, expected one above 0")))
}

/// -1 leaves one processor to everything else.
fn concurrency(config: &Config) -> Result<NonZeroUsize, Problem> {
    match config.get::<i64>("validation.verification_concurrent") {
        -1 => {
            let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            Ok(NonZeroUsize::new(processors - 1).unwrap_or(NonZeroUsize::MIN))
        }
        number => usize::try_from(number).ok().and_then(NonZeroUsize::new).ok_or_else(|| {
            config.problem("validation.verification_concurrent", "found 0, expected -1 or 1 and more".to_owned())
        }),
    }
}

fn scoring(config: &Config) -> Result<ScoringRules, Problem> {
    fn set<T: FromStr>(config: &Config, name: &str) -> Option<T> {
        config.parsed_optional(name)
    }
    let set_singly = Overrides {
        lease_weight: config.get("weight_management.score_weights.lease_weight"),
        challenge_weight: config.get("weight_management.score_weights.challenge_weight"),
        performance_mode: set(config, "scoring.performance.mode"),
        availability_scope: set(config, "scoring.availability.scope"),
        exclude_own_downtime: config.get("scoring.availability.exclude_own_downtime"),
        leased_challenge: set(config, "scoring.leased_challenge"),
        lease_aggregate: set(config, "scoring.lease.aggregate"),
        lease_count_offline: config.get("scoring.lease.count_offline"),
        max_over: set(config, "scoring.max_over"),
        zero_round: set(config, "scoring.zero_round"),
    };
    let windows = Windows {
        ranking_minutes: config.get("validation.ranking_window_minutes"),
        challenge_interval_s: config.get("validation.challenge_interval"),
        participation_threshold: config.get("validation.participation_rate_threshold"),
        availability_hours: config.get("weight_management.availability.window_hours"),
    };
    let profile = Profile::named(config.parsed("scoring.profile")).with(&set_singly);
    within(config, "scoring.profile", ScoringRules::new(profile, windows))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use byteleap_daemon::config::{Sources, example};
    use byteleap_protocol::gpu_signature::NETWORK_PUBLIC_KEY;

    use super::*;

    const REQUIRED: &str = "netuid: 128\nwallet:\n  name: validator\n  hotkey: default\n";

    fn config(yaml: &str) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("validator_config.yaml");
        fs::write(&file, yaml).unwrap();
        Config::load(KEYS, &Sources { file: Some(file), ..Sources::default() })
    }

    #[test]
    fn the_example_file_is_this_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/validator_config.yaml");
        if std::env::var_os("BYTELEAP_BLESS").is_some() {
            fs::write(&file, example(KEYS)).unwrap();
        }
        let checked_in = fs::read_to_string(&file).expect("config/validator_config.yaml");
        assert!(
            checked_in == example(KEYS),
            "stale: write it anew with BYTELEAP_BLESS=1 cargo test -p byteleap-validator"
        );
    }

    #[test]
    fn all_but_the_subnet_and_the_wallet_has_a_default() {
        let missing = config("port: 9091\n").unwrap_err();
        let subjects: Vec<_> = missing.problems.iter().map(|problem| problem.subject.as_str()).collect();
        assert_eq!(subjects, ["netuid", "wallet.name", "wallet.hotkey"]);
        let settings = Settings::read(&config(REQUIRED).unwrap()).unwrap();
        assert_eq!(settings.axon.to_string(), "0.0.0.0:9091");
        assert_eq!(settings.scoring, ScoringRules::default());
        assert_eq!(settings.weights.tempo_blocks, Some(105));
    }

    #[test]
    fn an_old_file_is_read_unchanged() {
        let old = config(
            "port: 9091\nexternal_ip: null\nnetuid: 128\nsubtensor:\n  network: finney\n\
             metagraph:\n  weight_update_tempo: 105\n  sync_interval: 60\n\
             wallet:\n  name: validator\n  hotkey: default\n  path: ~/.bittensor/wallets\n\
             logging:\n  log_level: INFO\n  log_dir: ./logs\n\
             database:\n  url: postgresql://validator:secret@localhost:5432/validator\n  event_retention_days: 7\n\
             meshhub:\n  ws_url: ws://203.0.113.1:8000/ws\n  access_token: token\n  capabilities:\n    \
             - hardware_inspection\n    - challenge_validation\n  reconnect_delay_seconds: 30\n  \
             heartbeat_interval_seconds: 60\n  resource_report_interval_seconds: 90\n\
             validation:\n  challenge_interval: 240\n  challenge_timeout: 60\n  ranking_window_minutes: 180\n  \
             participation_rate_threshold: 0.80\n  verification_concurrent: 1\n  verification_interval: 30\n  \
             proof_queue_max_size: 1000\n  challenge_type: gpu_matrix\n  cpu:\n    matrix_size: 2000\n    \
             size_variance: 0.1\n    iterations: 1\n    verification:\n      row_verification_count: 50\n      \
             row_verification_count_variance: 0.5\n  gpu:\n    matrix_size: 32768\n    size_variance: 0.05\n    \
             iterations: 1\n    enable_normalization: true\n    verification:\n      coordinate_sample_count: 25\n      \
             coordinate_sample_count_variance: 0.2\n      row_verification_count: 2\n      \
             row_verification_count_variance: 0.5\n      row_sample_rate: 0.001\n      abs_tolerance: 0.02\n      \
             rel_tolerance: 0.005\n      success_rate_threshold: 0.85\n    model_allowlist:\n      - RTX 4090\n\
             weight_management:\n  score_weights:\n    lease_weight: 0.70\n    challenge_weight: 0.30\n  \
             availability:\n    window_hours: 169\n\
             security:\n  rate_limit:\n    window_seconds: 30\n    max_requests: 150\n",
        )
        .unwrap();
        assert!(old.warnings().is_empty(), "{:?}", old.warnings());
        let settings = Settings::read(&old).unwrap();
        assert_eq!(settings.scoring.profile().lease_weight, 0.70);
        assert_eq!(settings.challenge.kinds, Kinds::Gpu);
        assert_eq!(settings.challenge.gpu.model_allowlist, ["rtx 4090"]);
        assert_eq!(settings.challenge.gpu.trusted_keys, [NETWORK_PUBLIC_KEY.parse().unwrap()]);
        assert!(!settings.challenge.gpu.accept_host_keys);
        assert_eq!(advice(&old).len(), 2);
        assert!(!old.effective().contains("secret"));
        let refusal = settings.market.unwrap().refusal().unwrap();
        assert!(refusal.contains("\n  meshhub.allow_insecure: true\n"), "{refusal}");
    }

    #[test]
    fn the_marketplace_is_dialled_where_it_is_named_with_a_login() {
        let market = |meshhub: &str| Settings::read(&config(&format!("{REQUIRED}{meshhub}")).unwrap()).unwrap().market;
        assert!(market("").is_none());
        assert!(market("meshhub:\n  ws_url: wss://hub.example/ws\n").is_none());
        assert!(market("meshhub:\n  enabled: false\n  ws_url: wss://hub.example/ws\n  access_token: t\n").is_none());
        let safe = market("meshhub:\n  ws_url: wss://hub.example/ws\n  access_token: t\n").unwrap();
        assert_eq!(safe.refusal(), None);
        let meant = "meshhub:\n  ws_url: ws://203.0.113.1/ws\n  access_token: t\n  allow_insecure: true\n";
        assert_eq!(market(meant).unwrap().refusal(), None);
        let error = Settings::read(&config(&format!("{REQUIRED}vmgw:\n  mode: http\n")).unwrap()).unwrap_err();
        assert!(error.to_string().contains("vmgw.url"), "{error}");
        assert!(config(&format!("{REQUIRED}leases:\n  source: nobody\n")).is_err());
    }

    #[test]
    fn every_key_that_the_specification_calls_live_is_live() {
        let live = |name: &str| KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name}")).live;
        for key in [
            "challenge_interval",
            "challenge_timeout",
            "ranking_window_minutes",
            "participation_rate_threshold",
            "verification_concurrent",
            "verification_interval",
            "challenge_type",
            "cpu.matrix_size",
            "cpu.size_variance",
            "cpu.iterations",
            "cpu.verification.row_verification_count",
            "cpu.verification.row_verification_count_variance",
            "gpu.matrix_size",
            "gpu.size_variance",
            "gpu.iterations",
            "gpu.verification.coordinate_sample_count",
            "gpu.verification.coordinate_sample_count_variance",
            "gpu.verification.row_verification_count",
            "gpu.verification.row_verification_count_variance",
            "gpu.verification.row_sample_rate",
            "gpu.verification.abs_tolerance",
            "gpu.verification.rel_tolerance",
            "gpu.verification.success_rate_threshold",
            "gpu.model_allowlist",
        ] {
            assert!(live(&format!("validation.{key}")), "{key}");
        }
        assert!(live("weight_management.score_weights.lease_weight"));
        assert!(live("weight_management.score_weights.challenge_weight"));
        for key in ["port", "netuid", "database.url", "metagraph.sync_interval", "weights.dry_run", "gpu.ownership"] {
            assert!(!live(key), "{key}");
        }
    }

    #[test]
    fn what_a_reload_brings_reaches_the_parts_that_obey_it() {
        let read = |more: &str| Settings::read(&config(&format!("{REQUIRED}{more}")).unwrap()).unwrap();
        let live = LiveSettings::of(&read(""));
        let fresh = read(
            "validation:\n  verification_concurrent: 3\n  verification_interval: 7\n  challenge_interval: 90\n  gpu:\n    \
             verification:\n      abs_tolerance: 0.5\nscoring:\n  profile: docs-100-0\nalarms:\n  \
             verification_wait_s: 9\ndatabase:\n  event_retention_days: 2\nsecurity:\n  rate_limit:\n    \
             max_requests: 5\n",
        );
        live.set(fresh);
        let (pace, rules) = (live.verification.get(), live.challenge.get());
        assert_eq!((pace.concurrency.get(), pace.idle), (3, Duration::from_secs(7)));
        assert_eq!((rules.interval_ms, rules.gpu.tolerance.absolute), (90_000, 0.5));
        assert_eq!(live.scoring.get().profile().name, ProfileName::Docs1000);
        assert_eq!(live.alarms.get().verification_wait, Duration::from_secs(9));
        assert_eq!(live.kept.get().events_ms, 2 * DAY_S * 1000);
        assert_eq!(live.rate_limit.get().max_requests, 5);
    }

    #[test]
    fn a_disabled_route_is_a_synapse_that_exists() {
        let with = |name: &str| config(&format!("{REQUIRED}axon:\n  disabled_routes: [{name}]\n"));
        let settings = Settings::read(&with("ChallengeSynapse").unwrap()).unwrap();
        assert_eq!(settings.disabled_routes, [SynapseKind::Challenge]);
        assert!(with("Challenge").is_err());
    }

    #[test]
    fn what_the_table_cannot_say_is_a_problem_of_its_key() {
        let zeros = "validation:\n  verification_concurrent: 0\n\
                     weight_management:\n  score_weights:\n    lease_weight: 0\n    challenge_weight: 0\n";
        let error = Settings::read(&config(&format!("{REQUIRED}{zeros}")).unwrap()).unwrap_err();
        let subjects: Vec<_> = error.problems.iter().map(|problem| problem.subject.as_str()).collect();
        assert_eq!(subjects, ["validation.verification_concurrent", "scoring.profile"]);
    }

    #[test]
    fn a_gpu_challenge_has_something_to_show_and_known_keys() {
        let with = |gpu: &str| config(&format!("{REQUIRED}{gpu}"));
        let nothing = "validation:\n  gpu:\n    verification:\n      coordinate_sample_count: 0\n      \
                       row_verification_count: 0\n";
        let error = Settings::read(&with(nothing).unwrap()).unwrap_err();
        assert!(error.to_string().contains("coordinate_sample_count"), "{error}");
        assert!(with("gpu:\n  trusted_keys: [\"04ab\"]\n").is_err());
        let own = with("gpu:\n  trusted_keys: []\n  accept_host_keys: true\n").unwrap();
        assert!(Settings::read(&own).unwrap().challenge.gpu.trusted_keys.is_empty());
        assert!(advice(&own).iter().any(|advice| advice.contains("gpu.accept_host_keys")));
    }

    #[test]
    fn the_kinds_of_challenges_are_those_of_the_specification_or_both() {
        let kinds = |text: &str| {
            let loaded = config(&format!("{REQUIRED}validation:\n  challenge_type: {text}\n"));
            loaded.map(|config| Settings::read(&config).unwrap().challenge.kinds)
        };
        assert_eq!(
            [kinds("cpu_matrix"), kinds("gpu_matrix"), kinds("both")].map(Result::unwrap),
            [Kinds::Cpu, Kinds::Gpu, Kinds::Both]
        );
        assert!(kinds("gpu").unwrap_err().to_string().contains("cpu_matrix, gpu_matrix or both"));
    }
}
