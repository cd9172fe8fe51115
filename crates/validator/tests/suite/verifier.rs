//! `byteleap-validator verifier`: real processes that share one queue on one real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use byteleap_compute::challenge::CpuChallenge;
use byteleap_compute::cpu::compute;
use byteleap_daemon::admin;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, Iterations, MatrixSize, RowHash, Seed, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::ProofResponse;
use byteleap_validator::challenge::targets::Targets;
use byteleap_validator::challenge::units::CommittedUnit;
use byteleap_validator::store::Store;
use byteleap_validator::store::challenge::{NewChallenge, NewCommitment};
use byteleap_validator::store::heartbeat::{Heartbeat, Specs, Usage, WorkerBeat};
use sqlx::{AnyConnection, Row};

use super::postgres::{DEADLINE, Database, rows, run, texts, until};

const MINER: Hotkey = Hotkey([1; 32]);
/// Rows that the proofs open.
const OPENED: [u32; 3] = [0, 7, 99];

/// A verifier process.
struct Process {
    child: Child,
    log: PathBuf,
    folder: tempfile::TempDir,
}

fn settings(database_url: &str) -> Vec<String> {
    let settings = [
        "netuid=128".to_owned(),
        "wallet.name=validator".to_owned(),
        "wallet.hotkey=default".to_owned(),
        "http.listen=127.0.0.1:0".to_owned(),
        "validation.verification_concurrent=2".to_owned(),
        format!("database.url={database_url}"),
    ];
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
}

impl Process {
    /// Starts one whose claims last so many seconds.
    fn start(database: &Database, claim_s: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("output");
        let child = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"))
            .args(settings(&database.url))
            .args(["--set", &format!("validation.verification_claim={claim_s}"), "--log-format", "json", "verifier"])
            .current_dir(folder.path())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, log, folder }
    }

    /// Its admin address, once it serves.
    async fn address(&self) -> SocketAddr {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&self.log).unwrap();
            let line = text.lines().find(|line| line.contains("verifier started"));
            if let Some(address) = line.and_then(|line| line.split("\"admin\":\"").nth(1)) {
                return address.split('"').next().unwrap().parse().unwrap();
            }
            assert!(started.elapsed() < DEADLINE, "not started: {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The beginning of its claims' names.
    async fn name(&self) -> String {
        let status = admin::get(self.address().await, "/status").await.unwrap();
        status["name"].as_str().unwrap().to_owned()
    }

    async fn page(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address().await);
        reqwest::get(url).await.unwrap().error_for_status().unwrap().text().await.unwrap()
    }

    /// Verdicts that it says it wrote.
    async fn verdicts(&self) -> u64 {
        let metrics = self.page("/metrics").await;
        let lines = metrics.lines().filter(|line| line.starts_with("verification_verdicts_total{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end.
    fn drain(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(asked.success());
        let status = self.child.wait().unwrap();
        self.folder.close().unwrap();
        status
    }
}

/// A database in which so many honest proofs wait, which nobody can claim before [`open_queue`]. It counts claims and
/// verdicts by itself, in triggers.
async fn with_parked_proofs(count: usize) -> (Database, AnyConnection) {
    let database = Database::create().await;
    let store = Store::open(&database.checked_url()).await.unwrap();
    store.migrate_up(0).await.unwrap();
    let mut connection = database.connect().await;
    run(
        &mut connection,
        "CREATE TABLE claims (challenge BIGINT, claim TEXT);
         CREATE TABLE verdicts (challenge BIGINT, status TEXT);
         CREATE FUNCTION park() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.claimed_by := 'parked'; NEW.claimed_until := 9223372036854775807; RETURN NEW; END $$;
         CREATE TRIGGER park BEFORE INSERT ON challenge_proofs FOR EACH ROW EXECUTE FUNCTION park();
         CREATE FUNCTION count_claim() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO claims VALUES (NEW.challenge, NEW.claimed_by); RETURN NEW; END $$;
         CREATE TRIGGER count_claim AFTER UPDATE ON challenge_proofs FOR EACH ROW
             WHEN (NEW.claimed_by IS NOT NULL) EXECUTE FUNCTION count_claim();
         CREATE FUNCTION count_verdict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO verdicts VALUES (NEW.id, NEW.status); RETURN NEW; END $$;
         CREATE TRIGGER count_verdict AFTER UPDATE ON challenges FOR EACH ROW
             WHEN (NEW.status IN ('verified', 'failed', 'void')) EXECUTE FUNCTION count_verdict();",
    )
    .await;
    fill(&store, count).await;
    (database, connection)
}

async fn fill(store: &Store, count: usize) {
    let (seed, size): (Seed, _) = ("00112233".parse().unwrap(), MatrixSize::new(100).unwrap());
    let challenge = CpuChallenge::new(&seed, size, Iterations::ONE).unwrap();
    let hashes: Vec<RowHash> = compute(&challenge, &AtomicBool::new(false)).unwrap().row_hashes;
    let tree = MerkleTree::from_rows(&hashes).unwrap();
    let proof = ProofResponse {
        uuid: Unit::Cpu,
        row_hashes: OPENED.iter().map(|row| hashes[*row as usize]).collect(),
        merkle_proofs: OPENED.iter().map(|row| tree.open(*row as usize).unwrap()).collect(),
        coordinate_values: Vec::new(),
    };
    let body = serde_json::to_vec(&[proof]).unwrap();

    let workers = (0..count).map(|number| worker(&format!("w{number}"))).collect();
    let heartbeat = Heartbeat { hotkey: MINER, version: None, public_ip: None, workers, at_ms: 0 };
    store.record_heartbeat(&heartbeat).await.unwrap();
    let workers = store.workers().await.unwrap();
    let challenges = workers.iter().map(|row| NewChallenge {
        kind: ChallengeKind::CpuMatrix,
        id: ChallengeId::new(&uuid::Uuid::new_v4().to_string()).unwrap(),
        worker: row.key,
        size,
        iterations: Iterations::ONE,
        seed: seed.clone(),
        round_id: "round_1".to_owned(),
        is_test: false,
    });
    let challenges: Vec<_> = challenges.collect();
    store.create_challenges(&challenges, 0, 100).await.unwrap();
    for sent in store.send_challenges(MINER, count as i64, 0, 100).await.unwrap() {
        let (root, rows) = (tree.root(), OPENED.to_vec());
        let commitment = NewCommitment {
            units: vec![CommittedUnit::cpu(root)],
            targets: Targets { rows, coordinates: Vec::new() },
            at_ms: 1,
            proof_deadline_at_ms: 100,
        };
        assert!(store.commit_challenge(sent.key, &commitment).await.unwrap());
        assert!(store.accept_proof(sent.key, &body, 2).await.unwrap());
    }
}

fn worker(worker_id: &str) -> WorkerBeat {
    WorkerBeat {
        worker_id: worker_id.parse().unwrap(),
        name: None,
        version: None,
        capabilities: vec!["cpu_matrix".to_owned()],
        reported_status: None,
        specs: Specs { hash: vec![1], raw: "{}".to_owned(), ..Specs::default() },
        usage: Usage::default(),
        gpu_set: Vec::new(),
        gpus: Vec::new(),
    }
}

/// Lets the proofs be claimed, and holds back every verdict until both verifiers have claims: no verifier can be so quick
/// that the other finds nothing to do. Returns the connection that holds them back; its end lets them go.
async fn open_queue_and_hold_verdicts(database: &Database, connection: &mut AnyConnection) -> AnyConnection {
    let mut holder = database.connect().await;
    run(&mut holder, "BEGIN; LOCK TABLE challenges IN SHARE MODE").await;
    run(connection, "UPDATE challenge_proofs SET claimed_by = NULL, claimed_until = NULL").await;
    until(connection, "SELECT DISTINCT split_part(claim, '/', 1) FROM claims", 2).await;
    holder
}

/// How often each challenge was claimed.
async fn claims(connection: &mut AnyConnection) -> BTreeMap<i64, i64> {
    let counted = rows(connection, "SELECT challenge, COUNT(*) FROM claims GROUP BY challenge").await;
    counted.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until every challenge has its verdict: each exactly one, and each `verified`.
async fn everything_is_verified_once(connection: &mut AnyConnection, count: usize) {
    until(connection, "SELECT 1 FROM verdicts", count).await;
    until(connection, "SELECT 1 FROM challenges WHERE status = 'verified'", count).await;
    assert_eq!(texts(connection, "SELECT status FROM verdicts").await, vec!["verified"; count]);
    let challenges = rows(connection, "SELECT challenge FROM verdicts").await;
    let distinct: BTreeSet<i64> = challenges.iter().map(|row| row.get(0)).collect();
    assert_eq!(distinct.len(), count);
    assert!(rows(connection, "SELECT 1 FROM challenge_proofs").await.is_empty());
}

/// What only PostgreSQL carries, since SQLite stays on one machine: no tests of the store, which run on both engines.
mod between_machines {
    use super::*;

    #[tokio::test]
    async fn two_verifiers_share_a_queue_and_do_nothing_twice() {
        const COUNT: usize = 40;
        let (database, mut connection) = with_parked_proofs(COUNT).await;
        let verifiers = [Process::start(&database, 120), Process::start(&database, 120)];
        for verifier in &verifiers {
            verifier.page("/livez").await;
        }
        let mut holder = open_queue_and_hold_verdicts(&database, &mut connection).await;
        run(&mut holder, "COMMIT").await;
        everything_is_verified_once(&mut connection, COUNT).await;

        let claims = claims(&mut connection).await;
        assert_eq!(claims.len(), COUNT);
        assert!(claims.values().all(|times| *times == 1), "{claims:?}");
        let mut told = 0;
        for verifier in verifiers {
            let own = verifier.verdicts().await;
            assert!(own > 0, "both work");
            told += own;
            assert!(verifier.drain().success());
        }
        assert_eq!(told, COUNT as u64);
    }

    #[tokio::test]
    async fn a_verifier_killed_in_the_middle_loses_nothing() {
        const COUNT: usize = 24;
        let (database, mut connection) = with_parked_proofs(COUNT).await;
        let (mut killed, other) = (Process::start(&database, 3), Process::start(&database, 3));
        let name = killed.name().await;
        other.page("/livez").await;
        let mut holder = open_queue_and_hold_verdicts(&database, &mut connection).await;
        killed.kill_9();
        run(&mut holder, "COMMIT").await;
        everything_is_verified_once(&mut connection, COUNT).await;

        // What it held when it was killed was claimed again, by the other one.
        let held = rows(&mut connection, "SELECT challenge, claim FROM claims").await;
        let held: Vec<(i64, String)> = held.iter().map(|row| (row.get(0), row.get(1))).collect();
        let of_killed = |claim: &str| claim.starts_with(&name);
        let taken_over: BTreeSet<i64> =
            held.iter().filter(|(_, claim)| of_killed(claim)).map(|(challenge, _)| *challenge).collect();
        assert!(!taken_over.is_empty());
        for challenge in taken_over {
            let (_, last) = held.iter().rfind(|(claimed, _)| *claimed == challenge).unwrap();
            assert!(!of_killed(last), "{challenge} was not taken over");
        }
        assert!(other.drain().success());
    }

    #[tokio::test]
    async fn a_verifier_makes_no_tables() {
        let database = Database::create().await;
        let refused = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"))
            .args(settings(&database.url))
            .arg("verifier")
            .current_dir(tempfile::tempdir().unwrap().path())
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(text.contains("start the validator of this version first"), "{text}");
        assert!(
            rows(&mut database.connect().await, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'").await.is_empty()
        );
    }
}

#[test]
fn a_file_is_refused_with_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"))
        .args(settings("sqlite:///validator.db"))
        .arg("verifier")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("PostgreSQL") && text.contains("database.url"), "{text}");
    assert!(!folder.path().join("validator.db").exists());
}
