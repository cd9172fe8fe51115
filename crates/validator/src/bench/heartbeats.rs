//! `bench heartbeats`: miners that send signed, sealed heartbeats over real HTTP to a validator in another process.
//!
//! Without `--period-s` each miner sends its next heartbeat as soon as the last is answered: what the validator can take.
//! With it, each sends one in that time, and with `--challenge-period-s` its workers are challenged as often and answer: a
//! subnet's load, and how much of the processors it costs. A worker of the bench commits to a product that it never
//! computed, but opens it rightly, so the validator recomputes every drawn row before it sees that none is right: the cost
//! of an honest proof.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use byteleap_daemon::admin;
use byteleap_daemon::cli::{self, Failure};
use byteleap_daemon::tasks::TaskError;
use byteleap_protocol::challenge::{ChallengeData, ChallengeItem};
use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use byteleap_protocol::id::{RowHash, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::{
    Commitment, CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt,
    ProofResponse, SCHEMA_VERSION, TaskRequest, TaskResponse, WorkerInfo, read_answer,
};
use byteleap_protocol::session::{ClientHandshake, ReceivedPackage, Session, SessionInitResponse};
use byteleap_protocol::synapse::{AxonAddress, Dendrite, NonceSource, SynapseKind, read_reply};
use clap::Args;
use parking_lot::Mutex;
use rand_core::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant as Moment, sleep_until};
use uuid::Uuid;

use super::world::{OwnValidator, keypair, validator};

/// Pause between a miner's polls for challenges, as a miner's default is.
const POLL_PAUSE: Duration = Duration::from_secs(10);
/// A worker's interval that no bench lives to see: nobody is challenged.
const NEVER_S: u32 = 86_400;
/// Miners whose first heartbeat is under way at the same time.
const WARMING: usize = 8;

/// The load.
#[derive(Debug, Clone, Args)]
pub struct HeartbeatsArgs {
    /// Miners.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    miners: u16,
    /// Workers of each miner.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// GPUs of each worker.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=16))]
    gpus: u8,
    /// How long it is measured, after each miner's first heartbeat.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Each miner sends one heartbeat in so many seconds; without it, as many as are answered.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    period_s: Option<u32>,
    /// Each worker is challenged once in so many seconds, and answers; without it, never.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    challenge_period_s: Option<u32>,
    /// Axon of a validator that `bench validator` serves, instead of an own one on a temporary SQLite file.
    #[arg(long, value_name = "IP:PORT")]
    url: Option<SocketAddr>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `bench heartbeats --json` prints. What only an own validator shows is absent with `--url`.
#[derive(Debug, Default, Serialize)]
struct Report {
    heartbeats_per_s: f64,
    workers_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Resident memory of the validator at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    /// Processors that the validator kept busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_cores: Option<f64>,
    /// Proofs that it took in.
    proofs_per_s: f64,
    /// Challenges at the end, by status.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenges: Option<Value>,
    /// Requests that failed or were refused.
    errors: u64,
    /// The first of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Measures and prints.
pub(super) fn run(arguments: &HeartbeatsArgs) -> Result<(), Failure> {
    cli::block_on(async {
        let report = measure(arguments).await.map_err(Failure::runtime)?;
        if arguments.json {
            return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?);
        }
        Ok(writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?)
    })
}

async fn measure(arguments: &HeartbeatsArgs) -> Result<Report, TaskError> {
    let own = match arguments.url {
        Some(_) => None,
        None => Some(OwnValidator::start(arguments.miners, arguments.challenge_period_s.unwrap_or(NEVER_S)).await?),
    };
    let axon = arguments.url.or(own.as_ref().map(|own| own.served.axon)).ok_or("no validator")?;
    let miners = warm_up(arguments, axon).await?;

    let tally = Arc::new(Mutex::new(Tally::default()));
    let (started, cpu_before) = (Moment::now(), own.as_ref().map(OwnValidator::cpu_time).transpose()?);
    let until = started + Duration::from_secs(arguments.seconds.into());
    let mut running = JoinSet::new();
    for (number, miner) in (0_u32..).zip(miners) {
        let pace = arguments.period_s.map(|period_s| Duration::from_secs(period_s.into()));
        let share = f64::from(number) / f64::from(arguments.miners);
        running.spawn(keep_beating(Arc::clone(&miner), pace, share, until, Arc::clone(&tally)));
        if arguments.challenge_period_s.is_some() {
            running.spawn(keep_answering(miner, share, until, Arc::clone(&tally)));
        }
    }
    while running.join_next().await.is_some() {}
    let elapsed_s = started.elapsed().as_secs_f64();

    let tally = std::mem::take(&mut *tally.lock());
    let mut report = tally.report(elapsed_s, arguments.workers);
    if let (Some(own), Some(cpu_before)) = (own, cpu_before) {
        report.cpu_cores = Some((own.cpu_time()? - cpu_before).as_secs_f64() / elapsed_s);
        report.rss_mb = Some(own.rss_mb()?);
        report.challenges = Some(admin::get(own.served.admin, "/status").await?["challenges"].take());
        own.stop().await?;
    }
    Ok(report)
}

/// Every miner with its session, after its first heartbeat.
async fn warm_up(arguments: &HeartbeatsArgs, axon: SocketAddr) -> Result<Vec<Arc<Miner>>, TaskError> {
    let http =
        reqwest::Client::builder().no_proxy().tcp_nodelay(true).pool_idle_timeout(Duration::from_secs(4)).build()?;
    let (mut warming, mut miners) = (JoinSet::new(), Vec::new());
    for number in 1..=arguments.miners {
        if warming.len() >= WARMING
            && let Some(warm) = warming.join_next().await
        {
            miners.push(warm??);
        }
        let (http, arguments) = (http.clone(), arguments.clone());
        warming.spawn(async move {
            let miner = Miner::new(number, &arguments, axon, http).await?;
            miner.beat().await?;
            Ok::<_, TaskError>(Arc::new(miner))
        });
    }
    while let Some(warm) = warming.join_next().await {
        miners.push(warm??);
    }
    Ok(miners)
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    latencies: Vec<Duration>,
    proofs: u64,
    errors: Vec<String>,
}

impl Tally {
    fn report(mut self, elapsed_s: f64, workers: u16) -> Report {
        self.latencies.sort_unstable();
        let quantile_ms = |share: f64| {
            let place = (share * self.latencies.len() as f64) as usize;
            self.latencies
                .get(place.min(self.latencies.len().saturating_sub(1)))
                .map_or(0.0, |at| 1000.0 * at.as_secs_f64())
        };
        let heartbeats_per_s = self.latencies.len() as f64 / elapsed_s;
        Report {
            heartbeats_per_s,
            workers_per_s: heartbeats_per_s * f64::from(workers),
            p50_ms: quantile_ms(0.5),
            p99_ms: quantile_ms(0.99),
            proofs_per_s: self.proofs as f64 / elapsed_s,
            errors: self.errors.len() as u64,
            error: self.errors.into_iter().next(),
            ..Report::default()
        }
    }
}

/// Heartbeats until `until`, one after the other or one in each `pace`, of which the first comes after its `share`.
async fn keep_beating(miner: Arc<Miner>, pace: Option<Duration>, share: f64, until: Moment, tally: Arc<Mutex<Tally>>) {
    let mut due = Moment::now() + pace.unwrap_or_default().mul_f64(share);
    while due < until && Moment::now() < until {
        sleep_until(due).await;
        match miner.beat().await {
            Ok(latency) => tally.lock().latencies.push(latency),
            Err(error) => tally.lock().errors.push(format!("heartbeat: {error}")),
        }
        due += pace.unwrap_or_default();
    }
}

/// Polls for challenges and answers them until `until`.
async fn keep_answering(miner: Arc<Miner>, share: f64, until: Moment, tally: Arc<Mutex<Tally>>) {
    let mut trees = HashMap::new();
    let mut due = Moment::now() + POLL_PAUSE.mul_f64(share);
    while due < until && Moment::now() < until {
        sleep_until(due).await;
        let request = TaskRequest::new(miner.dendrite.hotkey(), unix_s());
        let challenges = match miner.call::<TaskResponse>(SynapseKind::Task, &request).await {
            Ok(response) => response.challenges,
            Err(error) => {
                tally.lock().errors.push(format!("poll: {error}"));
                Vec::new()
            }
        };
        for challenge in challenges {
            match miner.answer(challenge, &mut trees).await {
                Ok(()) => tally.lock().proofs += 1,
                Err(error) => tally.lock().errors.push(format!("challenge: {error}")),
            }
        }
        due = (due + POLL_PAUSE).max(Moment::now());
    }
}

/// A miner of the bench.
struct Miner {
    dendrite: Dendrite<Keypair>,
    axon: AxonAddress,
    address: SocketAddr,
    nonces: NonceSource,
    /// Requests of one dendrite follow one another, since a nonce below the last is refused.
    turn: tokio::sync::Mutex<()>,
    session: Session,
    http: reqwest::Client,
    heartbeat: HeartbeatData,
}

impl Miner {
    /// One that has a session.
    async fn new(
        number: u16,
        arguments: &HeartbeatsArgs,
        address: SocketAddr,
        http: reqwest::Client,
    ) -> Result<Self, TaskError> {
        let signer = keypair(number);
        let own = signer.hotkey();
        let dendrite = Dendrite::new(signer, Uuid::new_v4().to_string(), "127.0.0.1".to_owned());
        let axon = AxonAddress { hotkey: validator(), ip: address.ip().to_string(), port: address.port() };
        let (nonces, heartbeat) = (NonceSource::default(), heartbeat(number, own, arguments)?);
        let handshake = ClientHandshake::new(&mut OsRng, unix_s());
        let request = handshake.request().to_text();
        let reply = post(&http, &dendrite, &axon, address, &nonces, SynapseKind::SessionInit, request).await?;
        let session = handshake.finish(&SessionInitResponse::parse(&reply)?, own, axon.hotkey)?;
        Ok(Self { dendrite, axon, address, nonces, turn: tokio::sync::Mutex::new(()), session, http, heartbeat })
    }

    /// Sends a heartbeat, and says how long its answer took.
    async fn beat(&self) -> Result<Duration, TaskError> {
        let package = self.session.seal(SynapseKind::Heartbeat.protocol_type(), &self.heartbeat)?.to_text();
        let started = Instant::now();
        let reply = self.post(SynapseKind::Heartbeat, package).await?;
        let latency = started.elapsed();
        let answer: HeartbeatResponse = self.opened(SynapseKind::Heartbeat, &reply)?;
        if answer.error_code != 0 || answer.workers_processed != self.heartbeat.workers.len() as u64 {
            return Err(answer.message.into());
        }
        Ok(latency)
    }

    /// Commits to rows that all have the hash 0, and opens what is asked for.
    async fn answer(&self, item: ChallengeItem, trees: &mut HashMap<u32, MerkleTree>) -> Result<(), TaskError> {
        let size = ChallengeData::parse(item.challenge_type, &item.data)?.matrix_size.get();
        let worker_id = item.target_worker_id.ok_or("a challenge for nobody")?;
        let tree = match trees.entry(size) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let rows = vec![RowHash([0; 8]); size as usize];
                place.insert(MerkleTree::from_rows(&rows).ok_or("a matrix without rows")?)
            }
        };
        let commitment = CommitmentData {
            challenge_id: item.challenge_id.clone(),
            worker_id,
            commitments: vec![Commitment::cpu(tree.root())],
            debug_info: Default::default(),
            schema_version: SCHEMA_VERSION,
        };
        let asked: CommitmentResponse = self.call(SynapseKind::Challenge, &commitment).await?;
        let request = asked.proof_requests.first().ok_or("nothing to open")?;
        let merkle_proofs: Option<Vec<_>> = request.rows.iter().map(|row| tree.open(*row as usize)).collect();
        let proof = ProofResponse {
            uuid: Unit::Cpu,
            row_hashes: vec![RowHash([0; 8]); request.rows.len()],
            merkle_proofs: merkle_proofs.ok_or("a row beyond the matrix")?,
            coordinate_values: Vec::new(),
        };
        let data = ProofData {
            challenge_id: item.challenge_id,
            proofs: vec![proof],
            debug_info: Default::default(),
            schema_version: SCHEMA_VERSION,
        };
        self.call::<ProofReceipt>(SynapseKind::ChallengeProof, &data).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(&self, kind: SynapseKind, payload: &impl Serialize) -> Result<T, TaskError> {
        let package = self.session.seal(kind.protocol_type(), payload)?.to_text();
        let reply = self.post(kind, package).await?;
        self.opened(kind, &reply)
    }

    fn opened<T: DeserializeOwned>(&self, kind: SynapseKind, reply: &str) -> Result<T, TaskError> {
        let answer = self.session.open(&ReceivedPackage::parse(reply)?, kind.protocol_type())?;
        Ok(read_answer(answer.read()?)?)
    }

    async fn post(&self, kind: SynapseKind, package: String) -> Result<String, TaskError> {
        let _turn = self.turn.lock().await;
        post(&self.http, &self.dendrite, &self.axon, self.address, &self.nonces, kind, package).await
    }
}

async fn post(
    http: &reqwest::Client,
    dendrite: &Dendrite<Keypair>,
    axon: &AxonAddress,
    address: SocketAddr,
    nonces: &NonceSource,
    kind: SynapseKind,
    payload: String,
) -> Result<String, TaskError> {
    let nonce = nonces.next((unix_s() * 1e9) as u64);
    let request = dendrite.request(kind, axon, kind.timeout(), nonce, payload);
    let mut call = http.post(format!("http://{address}/{}", request.path)).header("content-type", "application/json");
    for (name, value) in request.headers {
        call = call.header(name, value);
    }
    let reply = call.body(request.body).send().await?;
    let content_type = reply.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = reply.status().as_u16();
    Ok(read_reply(status, content_type.as_deref(), &reply.bytes().await?)?)
}

/// The heartbeat of a miner, as a deployed one sends it.
fn heartbeat(number: u16, hotkey: Hotkey, arguments: &HeartbeatsArgs) -> Result<HeartbeatData, TaskError> {
    let challenged = arguments.challenge_period_s.is_some();
    let workers = (0..arguments.workers)
        .map(|worker| serde_json::from_value(worker_of(number, worker, arguments.gpus, challenged)))
        .collect::<Result<Vec<WorkerInfo>, _>>()?;
    Ok(HeartbeatData {
        hotkey: hotkey.to_string(),
        timestamp: unix_s(),
        workers: workers.into(),
        miner_info: None,
        schema_version: SCHEMA_VERSION,
    })
}

fn worker_of(miner: u16, worker: u16, gpus: u8, challenged: bool) -> Value {
    let uuid = |gpu: u8| format!("GPU-{miner:08x}-{worker:04x}-4000-8000-{gpu:012x}");
    let gpu_info: Vec<_> = (0..gpus)
        .map(|gpu| {
            json!({ "index": gpu, "uuid": uuid(gpu), "name": "NVIDIA GeForce RTX 4090", "memory_total": 24564,
                    "memory_used": 421, "utilization": 3, "temperature": 41, "power_usage": 21.5, "driver_version": "550.54" })
        })
        .collect();
    let gpu_plugin: Vec<_> = (0..gpus)
        .map(|gpu| {
            json!({ "uuid": uuid(gpu), "name": "NVIDIA GeForce RTX 4090", "total_memory": 25_757_220_864_i64,
                    "free_memory": 25_000_000_000_i64, "compute_capability": [8, 9], "gpu_cores": 128,
                    "gpu_clock_mhz": 2520, "architecture": "Ada Lovelace" })
        })
        .collect();
    json!({
        "worker_id": format!("bench-{miner:04}-{worker:03}"),
        "worker_name": format!("rack {miner} slot {worker}"),
        "worker_version": "0.0.5",
        "capabilities": if challenged { vec!["cpu_matrix"] } else { Vec::new() },
        "status": "online",
        "system_info": {
            "cpu_count": 64, "cpu_usage": 12.5, "memory_total": 515_000, "memory_available": 480_000, "memory_usage": 6.8,
            "disk_total": 3500, "disk_free": 2900, "public_ip": format!("198.51.{}.{}", miner % 256, worker),
            "cpu_info": { "model_name": "AMD EPYC 7763 64-Core Processor", "physical_cores": 64, "frequency_mhz": 2450 },
            "memory_info": { "total": 515_000, "available": 480_000 },
            "system_info": { "system": "Linux", "release": "6.8.0-45-generic", "machine": "x86_64" },
            "motherboard_info": { "vendor": "Supermicro", "product": "H12DSG-O-CPU" },
            "uptime_seconds": 864_000.0, "gpu_info": gpu_info, "gpu_plugin": gpu_plugin
        }
    })
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
