//! Kills the daemons of a working network, `kill -9`, at every failpoint and at random moments, and starts them again: what
//! was acknowledged is verified or void afterwards, and the chain gets its weights.

use std::{
    collections::{BTreeSet, VecDeque},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use byteleap_daemon::{
    admin,
    clock::{Clock as _, SystemClock},
    failpoint,
};
use byteleap_localnet::{Network, Options, binaries::Binaries};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// The daemon of each kind that is killed, with the prefix of its failpoints.
const VICTIMS: [(&str, &str); 3] = [("validator", "validator."), ("miner-1", "miner."), ("worker-1", "worker.")];
/// How soon a daemon must be ready again.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a failpoint may take to be reached, and challenges and weights to come through at the end; only a failing test
/// waits that long.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the test looks.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Random moments of one seed at which each daemon is killed.
const RANDOM_MOMENTS: usize = 20;
/// How far apart these are at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash_at_every_point_and_at_random_moments() {
    let mut world = World::start().await;
    world.refuse_unknown_points();
    world.die_at_every_point().await;
    world.die_at_random(seed()).await;
    world.settle().await;
}

#[tokio::test]
#[ignore = "long: scripts/test --soak"]
async fn what_was_acknowledged_survives_many_crashes_at_random_moments() {
    let mut world = World::start().await;
    let first = seed();
    for seed in first..first + 4 {
        world.die_at_random(seed).await;
        world.settle().await;
    }
}

/// `CRASH_SEED`, to see a failure again; else another one each time.
fn seed() -> u64 {
    let given = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| SystemClock::new().unix_ms().unsigned_abs())
}

/// A small and quick network, whose folder is kept when the test fails.
struct World {
    network: Network,
    folder: Option<tempfile::TempDir>,
    binaries: Binaries,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let validator_set = [
            "validation.challenge_interval=1",
            "validation.challenge_timeout=5",
            "validation.commitment_grace=1",
            "validation.cpu.matrix_size=100",
            "scoring.interval_s=1",
            "metagraph.weight_update_tempo=2",
        ];
        let options = Options {
            directory: folder.path().to_owned(),
            // A submission that was written and not sent holds back the next one for 80 blocks.
            block_time: Duration::from_millis(100),
            workers: 5,
            validator_set: validator_set.map(str::to_owned).to_vec(),
            ..Options::default()
        };
        let binaries = Binaries::beside_this_process().unwrap();
        let network = Network::start(&options, &binaries).await.unwrap();
        let world = Self { network, folder: Some(folder), binaries };
        for (name, _) in VICTIMS {
            world.ready(name, Instant::now()).await;
        }
        world
    }

    /// A program that is to die at a point it does not have refuses to start, and names those that it has: the documented ones.
    fn refuse_unknown_points(&self) {
        let binaries = [self.binaries.validator(), self.binaries.miner(), self.binaries.worker()];
        for ((name, prefix), binary) in VICTIMS.into_iter().zip(binaries) {
            let output = Command::new(binary)
                .arg("--config")
                .arg(self.network.directory().join(name).join("config.yaml"))
                .env(failpoint::VARIABLE, "nowhere")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            let (_, known) = said.split_once("known are ").unwrap_or_else(|| panic!("{said}"));
            let known: BTreeSet<&str> = known.trim().split(", ").collect();
            let listed = documented_points(prefix);
            assert_eq!(known, listed.iter().map(String::as_str).collect(), "docs/architecture.md lists others");
        }
    }

    /// Lets each daemon die at its failpoints, one after the other, all three at the same time.
    async fn die_at_every_point(&mut self) {
        let mut victims: Vec<Victim> = VICTIMS.into_iter().map(|(name, prefix)| Victim::new(name, prefix)).collect();
        for victim in &mut victims {
            self.network.kill(victim.name).await.unwrap();
            victim.start_again(&mut self.network);
        }
        while victims.iter().any(|victim| victim.armed.is_some()) {
            for victim in &mut victims {
                victim.look(&mut self.network).await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for victim in &victims {
            self.ready(victim.name, victim.started).await;
        }
    }

    /// Kills every daemon again and again, each at a random moment of its own.
    async fn die_at_random(&mut self, seed: u64) {
        eprintln!("random kills: CRASH_SEED={seed}");
        let mut random = SplitMix(seed);
        for _ in 0..RANDOM_MOMENTS {
            let began = Instant::now();
            let mut kills = VICTIMS.map(|(name, _)| (LONGEST_PAUSE.mul_f64(random.share()), name));
            kills.sort_unstable();
            for (moment, name) in kills {
                tokio::time::sleep(moment.saturating_sub(began.elapsed())).await;
                self.network.kill(name).await.unwrap();
                self.network.start_again(name, &[]).unwrap();
            }
            let started = Instant::now();
            for (_, name) in kills {
                self.ready(name, started).await;
            }
        }
    }

    /// Waits until `name` is ready, which must be soon after `started`.
    async fn ready(&self, name: &str, started: Instant) {
        while !is_ready(&self.network, name).await {
            assert!(started.elapsed() < READY_WITHIN, "{name} is not ready again: {}", self.logs());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until everything acknowledged so far has its verdict and new challenges have become weights; then nothing may
    /// have failed that was acknowledged.
    async fn settle(&mut self) {
        let (now_ms, began) = (SystemClock::new().unix_ms(), Instant::now());
        let mut acknowledged = self.acknowledged(now_ms).await;
        while acknowledged.iter().any(Acknowledged::is_open)
            || self.network.progress_since(now_ms).await.unwrap().earned().is_none()
        {
            assert!(began.elapsed() < PATIENCE, "it does not go on: {acknowledged:?} {}", self.logs());
            tokio::time::sleep(Duration::from_millis(250)).await;
            acknowledged = self.acknowledged(now_ms).await;
        }
        let failed: Vec<_> = acknowledged.iter().filter(|challenge| challenge.status == "failed").collect();
        assert!(failed.is_empty(), "{failed:?}: {}", self.logs());
        let count = |status| acknowledged.iter().filter(|challenge| challenge.status == status).count();
        let (verified, void) = (count("verified"), count("void"));
        eprintln!("{} acknowledged challenges: {verified} verified, {void} void", acknowledged.len());
        assert_eq!(verified + void, acknowledged.len());
        assert!(verified > void, "a crash should cost few challenges");
    }

    /// The challenges written until `until_ms` of which at least the commitment was taken.
    async fn acknowledged(&self, until_ms: i64) -> Vec<Acknowledged> {
        let options = SqliteConnectOptions::new()
            .filename(&self.network.plan().database)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5));
        let mut database = SqliteConnection::connect_with(&options).await.unwrap();
        let rows = sqlx::query(
            "SELECT uuid, status, fail_code FROM challenges WHERE committed_at IS NOT NULL AND created_at <= $1",
        )
        .bind(until_ms)
        .fetch_all(&mut database)
        .await
        .unwrap();
        rows.iter()
            .map(|row| Acknowledged { challenge_id: row.get(0), status: row.get(1), fail_code: row.get(2) })
            .collect()
    }

    /// Where the logs are, for whoever reads why the test failed.
    fn logs(&self) -> String {
        format!("see {}", self.network.directory().join("logs").display())
    }
}

/// The folder of a failed test stays.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let _ = folder.keep();
        }
    }
}

#[derive(Debug)]
struct Acknowledged {
    #[expect(dead_code, reason = "shown when the test fails")]
    challenge_id: String,
    status: String,
    #[expect(dead_code, reason = "shown when the test fails")]
    fail_code: Option<String>,
}

impl Acknowledged {
    fn is_open(&self) -> bool {
        self.status == "committed" || self.status == "verifying"
    }
}

/// A daemon on its way through its failpoints.
struct Victim {
    name: &'static str,
    /// Points at which it has still to die.
    left: VecDeque<String>,
    /// The point at which it dies next.
    armed: Option<String>,
    started: Instant,
    was_ready: bool,
}

impl Victim {
    fn new(name: &'static str, prefix: &str) -> Self {
        let left = documented_points(prefix).into();
        Self { name, left, armed: None, started: Instant::now(), was_ready: false }
    }

    /// Starts it so that it dies at its next point, or, after the last one, so that it lives.
    fn start_again(&mut self, network: &mut Network) {
        self.armed = self.left.pop_front();
        let environment: Vec<(&str, &str)> =
            self.armed.iter().map(|point| (failpoint::VARIABLE, point.as_str())).collect();
        network.start_again(self.name, &environment).unwrap();
        (self.started, self.was_ready) = (Instant::now(), false);
    }

    /// Starts it again if it has died; while it lives, it must be ready soon and reach its point in time.
    async fn look(&mut self, network: &mut Network) {
        let Some(point) = self.armed.clone() else { return };
        let logs = network.directory().join("logs");
        if let Some(end) = network.end_of(self.name).unwrap() {
            assert_eq!(end.signal(), Some(9), "{} should have died at {point}: see {}", self.name, logs.display());
            return self.start_again(network);
        }
        self.was_ready = self.was_ready || is_ready(network, self.name).await;
        let waited = self.started.elapsed();
        assert!(self.was_ready || waited < READY_WITHIN, "{} is not ready: see {}", self.name, logs.display());
        assert!(waited < PATIENCE, "{point} is never reached: see {}", logs.display());
    }
}

async fn is_ready(network: &Network, name: &str) -> bool {
    let daemon = network.plan().daemons.iter().find(|daemon| daemon.name == name).unwrap();
    admin::get(daemon.admin, "/readyz").await.is_ok()
}

/// The failpoints that `docs/architecture.md` lists, in its order.
fn documented_points(prefix: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architecture.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, chapter) = text.split_once("## Crash safety").unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let code = chapter.split('`').skip(1).step_by(2);
    let is_point = |text: &&str| {
        text.starts_with(prefix) && (text.ends_with(".before") || text.ends_with(".after")) && !text.contains(' ')
    };
    code.filter(is_point).map(str::to_owned).collect()
}

/// A small generator of random numbers (SplitMix64).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
