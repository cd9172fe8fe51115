//! Many workers at once: each connects, registers, and reports its host again and again, and every answer is timed.
//!
//! With `--period-s` each worker reports once in that period, the workers spread evenly over it, as in service. With
//! `--period-s 0` each reports again as soon as the last report was answered: as fast as miner and bench together can.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use byteleap_daemon::cli::Failure;
use byteleap_protocol::{
    Object,
    frame::{MinerFrame, Register, WorkerFrame, WorkerHeartbeat},
    id::WorkerId,
};
use clap::Args;
use futures_util::{SinkExt, StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::watch,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, Utf8Bytes, protocol::WebSocketConfig},
};
use tokio_util::either::Either;

use super::{latency::Latencies, miner::Started, process::Process, tls};

/// Bytes of one report, about what a host with two disks and a graphics card sends.
const HEARTBEAT_BYTES: usize = 3 * 1024;

/// Read buffer of one connection of the bench, in bytes: answers have a few dozen.
const READ_BUFFER_BYTES: usize = 512;

/// Connections that are being opened at once.
const OPENING: usize = 64;

/// How long a connection may take from the first packet to the acknowledgement, and a report to its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Args)]
pub struct ConnectionsArgs {
    /// Workers that connect.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    workers: u32,
    /// Seconds of measuring, once all are connected.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds between two reports of one worker; 0 reports again as soon as the last report is answered.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    period_s: u64,
    /// Connect by wss:// instead of ws://.
    #[arg(long)]
    tls: bool,
    /// A miner that runs already, as ws://HOST:PORT or wss://HOST:PORT; its memory and processor time are then not measured.
    #[arg(long, conflicts_with = "tls")]
    url: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was seen. Times in milliseconds, memory in MiB and KiB, processor time in percent of one core.
#[derive(Debug, Serialize)]
struct Report {
    workers: u32,
    heartbeats_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    rss_mb: Option<f64>,
    rss_kb_per_worker: Option<f64>,
    dropped: u64,
    heartbeats: u64,
    seconds: f64,
    /// How much the miner's memory grew from the first full period to the end.
    rss_growth_kb: Option<i64>,
    miner_cpu_percent: Option<f64>,
    bench_cpu_percent: f64,
}

/// What all workers share.
#[derive(Debug)]
struct Shared {
    latencies: Latencies,
    /// Connections that ended, and reports that were not answered.
    dropped: AtomicU64,
    heartbeat: Utf8Bytes,
    period: Duration,
    /// Becomes true when time is up.
    ended: watch::Receiver<bool>,
}

/// Measures and prints.
pub(super) async fn run(arguments: ConnectionsArgs) -> Result<(), Failure> {
    let own = match &arguments.url {
        Some(_) => None,
        None => Some(Own::start(arguments.workers, arguments.tls).await?),
    };
    let url = match (&arguments.url, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(own)) => own.url.clone(),
        (None, None) => return Err(Failure::usage("no miner to measure")),
    };
    let report = measure(&arguments, &url, own.as_ref().map(|own| own.process)).await;
    if let Some(own) = own {
        own.stop().await;
    }
    let report = report?;
    if arguments.json {
        return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?);
    }
    Ok(report.print(io::stdout())?)
}

async fn measure(arguments: &ConnectionsArgs, url: &str, miner: Option<Process>) -> Result<Report, Failure> {
    let target = Target::parse(url)?;
    let (end, ended) = watch::channel(false);
    let shared = Arc::new(Shared {
        latencies: Latencies::default(),
        dropped: AtomicU64::new(0),
        heartbeat: heartbeat().into(),
        period: Duration::from_secs(arguments.period_s),
        ended,
    });
    let rss = |process: Option<Process>| process.map(Process::rss_kb).transpose();
    let rss_idle_kb = rss(miner)?;
    let opened: Vec<_> = stream::iter(0..arguments.workers)
        .map(|number| tokio::spawn(open(target.clone(), number)))
        .buffer_unordered(OPENING)
        .collect()
        .await;
    let mut workers = Vec::with_capacity(opened.len());
    for socket in opened {
        match socket? {
            Ok(socket) => {
                let first = shared.period.mul_f64(workers.len() as f64 / f64::from(arguments.workers));
                workers.push(tokio::spawn(report_until_end(socket, Arc::clone(&shared), first)));
            }
            Err(error) => {
                tracing::warn!(error, "a worker was not taken");
                shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let (bench, started) = (Process::own(), Instant::now());
    let cpu = |process: Option<Process>| process.map(Process::cpu_time).transpose();
    let before = (cpu(miner)?, bench.cpu_time()?);
    // After one period every worker has reported once: from then on memory must not grow.
    let time = Duration::from_secs(arguments.seconds);
    tokio::time::sleep(shared.period.min(time)).await;
    let rss_full_kb = rss(miner)?;
    tokio::time::sleep_until(started + time).await;
    let (heartbeats, elapsed) = (shared.latencies.count(), started.elapsed());
    let after = (cpu(miner)?, bench.cpu_time()?);
    let rss_kb = rss(miner)?;
    // Nobody listens only if every connection has ended already.
    let _ = end.send(true);
    for worker in workers {
        worker.await?;
    }
    let percent = |before: Duration, after: Duration| 100.0 * (after - before).as_secs_f64() / elapsed.as_secs_f64();
    Ok(Report {
        workers: arguments.workers,
        heartbeats_per_s: heartbeats as f64 / elapsed.as_secs_f64(),
        p50_ms: shared.latencies.quantile_ms(0.5),
        p99_ms: shared.latencies.quantile_ms(0.99),
        rss_mb: rss_kb.map(|kb| kb as f64 / 1024.0),
        rss_kb_per_worker: rss_kb
            .zip(rss_idle_kb)
            .map(|(full, idle)| full.saturating_sub(idle) as f64 / f64::from(arguments.workers)),
        dropped: shared.dropped.load(Ordering::Relaxed),
        heartbeats,
        seconds: elapsed.as_secs_f64(),
        rss_growth_kb: rss_kb.zip(rss_full_kb).map(|(last, first)| last.cast_signed() - first.cast_signed()),
        miner_cpu_percent: before.0.zip(after.0).map(|(before, after)| percent(before, after)),
        bench_cpu_percent: percent(before.1, after.1),
    })
}

/// Where the workers dial, and how.
#[derive(Clone)]
struct Target {
    address: String,
    tls: Option<TlsConnector>,
}

impl Target {
    fn parse(url: &str) -> Result<Self, Failure> {
        let (address, tls) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(address), _) => (address, None),
            (None, Some(address)) => (address, Some(tls::connector()?)),
            (None, None) => return Err(Failure::usage(format!("{url} is no ws://HOST:PORT or wss://HOST:PORT"))),
        };
        Ok(Self { address: address.trim_end_matches('/').to_owned(), tls })
    }

    async fn dial(&self) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Either::Left(stream)),
            Some(tls) => {
                let name = ServerName::from(stream.peer_addr()?.ip());
                Ok(Either::Right(tls.connect(name, stream).await?))
            }
        }
    }
}

/// A miner of our own, as a process.
struct Own {
    child: Child,
    process: Process,
    url: String,
    state_dir: PathBuf,
}

impl Own {
    /// Starts it and waits until it serves.
    async fn start(workers: u32, tls: bool) -> Result<Self, Failure> {
        let state_dir = std::env::temp_dir().join(format!("byteleap-miner-bench-{}", std::process::id()));
        let settings = [
            "worker_management.host=127.0.0.1".to_owned(),
            "worker_management.port=0".to_owned(),
            format!("worker_management.max_workers={workers}"),
            "http.listen=127.0.0.1:0".to_owned(),
            format!("worker_management.tls.mode={}", if tls { "required" } else { "off" }),
            format!("state_dir={}", state_dir.display()),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "miner"]).args(settings.iter().flat_map(|setting| ["--with", setting]));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take().ok_or_else(|| Failure::runtime("the miner has no output"))?;
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await??;
        let started: Started = serde_json::from_str(&line)?;
        let process = Process(child.id().ok_or_else(|| Failure::runtime("the miner has ended"))?);
        Ok(Self { child, process, state_dir, url: format!("{}://{}", if tls { "wss" } else { "ws" }, started.workers) })
    }

    /// Ends it with its standard input; one that does not end is killed with this process's end.
    async fn stop(mut self) {
        drop(self.child.stdin.take());
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        // Of no use to anybody; a system cleans its folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.state_dir);
    }
}

type Socket = WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>;

/// Connects one worker and waits until it is registered.
async fn open(target: Target, number: u32) -> Result<Socket, String> {
    let opening = async {
        let stream = target.dial().await.map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let (mut socket, _) = client_async_with_config(format!("ws://{}/ws", target.address), stream, Some(config))
            .await
            .map_err(|error| error.to_string())?;
        let register = WorkerFrame::Register(Register {
            worker_id: WorkerId::new(&format!("bench-{number:05}")).map_err(|error| error.to_string())?,
            worker_name: None,
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: vec!["cpu_matrix".to_owned()],
            system_info: Object::new(),
            identity: None,
        });
        socket.send(Message::text(register.encode())).await.map_err(|error| error.to_string())?;
        match answer(&mut socket).await {
            Some(MinerFrame::RegistrationAck { .. }) => Ok(socket),
            other => Err(format!("the miner does not register a worker: {other:?}")),
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.unwrap_or_else(|_| Err("the miner does not answer".to_owned()))
}

/// One worker: reports, waits for the answer, and again, until time is up.
async fn report_until_end(mut socket: Socket, shared: Arc<Shared>, first: Duration) {
    let mut ended = shared.ended.clone();
    let mut due = Instant::now() + first;
    let is_lost = loop {
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => break false,
            is_open = wait(&mut socket, due) => if !is_open { break true },
        }
        let sent = Instant::now();
        let exchange = async {
            socket.send(Message::Text(shared.heartbeat.clone())).await.ok()?;
            match answer(&mut socket).await? {
                MinerFrame::HeartbeatAck => Some(()),
                _ => None,
            }
        };
        let answered = tokio::select! {
            _ = ended.wait_for(|ended| *ended) => break false,
            answered = tokio::time::timeout(PATIENCE, exchange) => answered,
        };
        if !matches!(answered, Ok(Some(()))) {
            break true;
        }
        shared.latencies.record(sent.elapsed());
        due += shared.period;
    };
    if is_lost {
        shared.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits for the next report's time and answers pings meanwhile; false if the connection ends.
async fn wait(socket: &mut Socket, due: Instant) -> bool {
    while Instant::now() < due {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            message = socket.next() => if !matches!(message, Some(Ok(Message::Ping(_)))) { return false },
        }
    }
    true
}

/// The miner's next frame; none if the connection ends.
async fn answer(socket: &mut Socket) -> Option<MinerFrame> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return MinerFrame::decode(text.as_bytes()).ok(),
            Ok(Message::Ping(_)) | Err(tungstenite::Error::WriteBufferFull(_)) => {}
            Ok(_) | Err(_) => return None,
        }
    }
}

/// A report of [`HEARTBEAT_BYTES`], of the form that workers send (worker-miner spec 2.5 and 6).
fn heartbeat() -> String {
    let disk = |number: u32| {
        json!({
            "device": format!("/dev/nvme{number}n1"), "type": "SSD", "model": "SAMSUNG MZQL23T8HCLS-00A07",
            "serial": format!("S64HNE0T{number:06}"), "bus": "nvme", "total_gb": 3576.98, "free_gb": 1833.25,
            "filesystem": [{"mount": format!("/data{number}"), "fs": "ext4", "size_gb": 3520.4, "free_gb": 1833.25}],
            "notes": "",
        })
    };
    let report = |disks: u32, padding: usize| {
        let system_info = json!({
            "cpu_count": 64, "cpu_usage": 3.1, "memory_total": 515_804, "memory_available": 489_002, "memory_usage": 5.2,
            "disk_total": 3520, "disk_free": 1833, "public_ip": "203.0.113.7", "uptime_seconds": 1_184_022.5,
            "cpu_info": {"logical_cores": 64, "physical_cores": 32, "architecture": "x86_64", "processor": "x86_64",
                "frequency_mhz": {"current": 2794.7, "min": 1500.0, "max": 3700.0}, "brand": "AuthenticAMD",
                "model_name": "AMD EPYC 7543 32-Core Processor", "model": "1", "family": "25"},
            "memory_info": {"total": 515_804, "available": 489_002, "used": 23_004, "percent": 5.2, "swap_total": 0,
                "swap_used": 0, "swap_percent": 0.0},
            "system_info": {"system": "Linux", "release": "6.8.0-45-generic", "machine": "x86_64",
                "version": "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024", "processor": "x86_64"},
            "motherboard_info": {"manufacturer": "Supermicro", "product_name": "H12SSL-i", "serial_number": "x".repeat(padding)},
            "gpu_info": [{"id": 0, "name": "NVIDIA GeForce RTX 4090", "memory_total": 24_564, "memory_used": 12,
                "memory_free": 24_552, "memory_util": 0.0, "gpu_util": 0, "temperature": 31, "vendor": "NVIDIA",
                "type": "discrete", "uuid": "GPU-5a1e6f1c-0000-1111-2222-333344445555"}],
            "gpu_plugin": [],
            "storage_info": {"storage": (0..disks).map(disk).collect::<Vec<_>>()},
        });
        let data = WorkerHeartbeat {
            status: Some("online".to_owned()),
            active_tasks: Some(0),
            system_info: match system_info {
                serde_json::Value::Object(system_info) => system_info,
                _ => Object::new(),
            },
            gpu_info: Some(Object::new()),
            capabilities: Some(vec!["cpu_matrix".to_owned()]),
        };
        WorkerFrame::Heartbeat { data }.encode()
    };
    let disks = (0..).take_while(|disks| report(*disks, 0).len() <= HEARTBEAT_BYTES).last().unwrap_or_default();
    report(disks, HEARTBEAT_BYTES - report(disks, 0).len())
}

impl Report {
    fn print(&self, mut out: impl Write) -> io::Result<()> {
        let Self { workers, heartbeats_per_s, p50_ms, p99_ms, dropped, seconds, .. } = self;
        writeln!(out, "{workers} workers for {seconds:.0} s, reports of {HEARTBEAT_BYTES} bytes")?;
        writeln!(out, "reports answered   {heartbeats_per_s:10.1} a second ({} in all)", self.heartbeats)?;
        writeln!(out, "half within        {p50_ms:10.2} ms")?;
        writeln!(out, "99 % within        {p99_ms:10.2} ms")?;
        writeln!(out, "dropped            {dropped:10}")?;
        if let (Some(rss_mb), Some(each_kb)) = (self.rss_mb, self.rss_kb_per_worker) {
            writeln!(out, "miner's memory     {rss_mb:10.1} MiB, {each_kb:.1} KiB for each worker")?;
        }
        if let Some(percent) = self.miner_cpu_percent {
            writeln!(out, "miner's processor  {percent:10.1} % of one core")?;
        }
        writeln!(out, "bench's processor  {:10.1} % of one core", self.bench_cpu_percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_three_kibibytes_and_passes_a_validators_typed_check() {
        let text = heartbeat();
        assert_eq!(text.len(), HEARTBEAT_BYTES);
        let Ok(WorkerFrame::Heartbeat { data }) = WorkerFrame::decode(text.as_bytes()) else { panic!("{text}") };
        let info = byteleap_protocol::payload::SystemInfo::parse(&data.system_info).expect("host data");
        assert_eq!((info.cpu_count, info.gpu_info.len()), (64, 1));
    }
}
