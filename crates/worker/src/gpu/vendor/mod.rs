//! The vendor's compute server as an engine: a closed program that multiplies on all GPUs and signs what comes out.
//!
//! [`exchange`] asks it one thing, [`process`] starts and stops it; [`VendorServer`] holds both together. Before every command
//! the server must answer a ping; one that does not is started, where that is allowed, and each start that follows soon after
//! another waits twice as long. A server that was there already is used and never ended.

pub mod exchange;
pub mod process;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use byteleap_compute::engine::{Committed, Device, EngineError, GpuEngine};
use byteleap_compute::gpu::GpuChallenge;
use byteleap_protocol::gpu_server::{Cleared, Command, Coordinates, GpuInfo, Pong, Rows, Submitted, Task, UnitResult};
use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::{Commitment, SignatureVersion};
use serde::de::DeserializeOwned;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::exchange::{ExchangeError, ask};

/// How often a running command looks whether it is still wanted.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// Where the server is, and whether the worker may start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its socket.
    pub socket: PathBuf,
    /// Its program; none if it is somebody else's to start.
    pub binary: Option<PathBuf>,
}

/// Deadlines and pauses.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a command may take.
    pub command: Duration,
    /// How long a ping may take.
    pub ping: Duration,
    /// How long a started server may take to answer its first ping.
    pub start: Duration,
    /// Pause between the pings meanwhile.
    pub start_ping: Duration,
    /// Least time from one start to the next; doubled each time.
    pub restart_first: Duration,
    /// Longest such time; a server that lived for longer counts as a good one.
    pub restart_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            ping: Duration::from_secs(5),
            start: Duration::from_secs(30),
            start_ping: Duration::from_secs(1),
            restart_first: Duration::from_secs(5),
            restart_max: Duration::from_secs(300),
        }
    }
}

/// The server behind a socket. Its calls must come from outside the runtime.
#[derive(Debug)]
pub struct VendorServer {
    place: Place,
    timing: Timing,
    runtime: Handle,
    /// Held from an operation's first command to its last: a server that computes may answer nobody else, which is no reason to
    /// start it anew.
    turn: Mutex<()>,
    life: Mutex<Life>,
}

/// The process, as far as it is ours.
#[derive(Debug, Default)]
struct Life {
    child: Option<Child>,
    /// Starts of which each came soon after the one before.
    starts: u32,
    /// When it may be started again.
    not_before: Option<Instant>,
}

impl Life {
    /// A start begins now: the next may follow after a pause, which is doubled each time, and as short as ever again once
    /// the server has lived for the longest.
    fn count_start(&mut self, now: Instant, timing: &Timing) {
        if self.not_before.is_some_and(|moment| now > moment + timing.restart_max) {
            self.starts = 0;
        }
        let pause = timing.restart_first.saturating_mul(2_u32.saturating_pow(self.starts)).min(timing.restart_max);
        self.starts = self.starts.saturating_add(1);
        self.not_before = Some(now + pause);
    }
}

impl VendorServer {
    /// A server that is asked on `runtime`.
    #[must_use]
    pub fn new(place: Place, timing: Timing, runtime: Handle) -> Self {
        Self { place, timing, runtime, turn: Mutex::default(), life: Mutex::default() }
    }

    /// Ends the server if this worker started it.
    pub async fn stop(&self) {
        if let Some(child) = self.life.lock().await.child.take() {
            process::stop(child).await;
        }
    }

    /// Does one operation at a time.
    fn in_turn<T>(&self, operation: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        self.runtime.block_on(async {
            let _turn = self.turn.lock().await;
            operation.await
        })
    }

    /// Sends a command to a server that answers pings.
    async fn command<T: DeserializeOwned + Send + 'static>(&self, command: &Command) -> Result<T, EngineError> {
        self.reach().await?;
        ask(&self.place.socket, command, self.timing.command)
            .await
            .map_err(|error| EngineError::Failed(error.to_string()))
    }

    /// As [`Self::command`], until it is no longer wanted.
    async fn command_while_wanted<T: DeserializeOwned + Send + 'static>(
        &self,
        command: &Command,
        is_cancelled: &AtomicBool,
    ) -> Result<T, EngineError> {
        let mut checks = tokio::time::interval(CANCEL_CHECK);
        let mut answer = std::pin::pin!(self.command(command));
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                _ = checks.tick() => if is_cancelled.load(Ordering::Relaxed) {
                    return Err(EngineError::Cancelled);
                },
            }
        }
    }

    /// Returns once the server answers a ping, after starting it if need be.
    async fn reach(&self) -> Result<(), EngineError> {
        let Err(error) = self.ping().await else { return Ok(()) };
        let mut life = self.life.lock().await;
        // Another command may have started it meanwhile.
        if self.ping().await.is_ok() {
            return Ok(());
        }
        let socket = self.place.socket.display();
        let Some(binary) = &self.place.binary else {
            return Err(EngineError::Unavailable(format!("{error} ({socket}; gpu.auto_start is off)")));
        };
        if let Some(pause) = life.not_before.and_then(|moment| moment.checked_duration_since(Instant::now())) {
            let seconds = pause.as_secs() + 1;
            return Err(EngineError::Unavailable(format!("{error} ({socket}); it is started again in {seconds} s")));
        }
        if let Some(child) = life.child.take() {
            tracing::warn!(%error, "the compute server answers no more and is started anew");
            process::stop(child).await;
        }
        life.count_start(Instant::now(), &self.timing);
        life.child = Some(self.start(binary).await.map_err(EngineError::Unavailable)?);
        Ok(())
    }

    /// Starts the server and waits until it answers.
    async fn start(&self, binary: &std::path::Path) -> Result<Child, String> {
        tracing::info!(binary = %binary.display(), "starting the GPU compute server");
        let mut child = process::start(binary, &self.place.socket).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + self.timing.start;
        let last_error = loop {
            let error = match self.ping().await {
                Ok(()) => return Ok(child),
                Err(error) => error,
            };
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the compute server ended at once with {status}"));
            }
            if Instant::now() >= deadline {
                break error;
            }
            tokio::time::sleep(self.timing.start_ping).await;
        };
        process::stop(child).await;
        Err(format!("the compute server was started and does not answer: {last_error}"))
    }

    async fn ping(&self) -> Result<(), ExchangeError> {
        let pong: Pong = ask(&self.place.socket, &Command::Ping, self.timing.ping).await?;
        let refused = || ExchangeError::Io(std::io::Error::other("it answers a ping with no pong"));
        pong.pong.then_some(()).ok_or_else(refused)
    }

    async fn compute(
        &self,
        challenge: &GpuChallenge,
        is_cancelled: &AtomicBool,
    ) -> Result<Vec<Committed>, EngineError> {
        // What former results hold is needed for this one. A server that has nothing to clear may say so as it likes.
        let _: Result<Cleared, _> = self.command(&Command::ClearResultCache { gpu_uuid: None }).await;
        let task = Task::on_all_gpus(challenge.seed.clone(), challenge.size, challenge.iterations);
        let submitted: Submitted = self.command_while_wanted(&Command::SubmitChallenge { task }, is_cancelled).await?;
        succeeded(submitted.success, submitted.error)?;
        let usable = submitted.results.into_iter().filter_map(|result| match committed(result, challenge) {
            Ok(committed) => Some(committed),
            Err(reason) => {
                tracing::warn!(reason, "a GPU's result cannot be used");
                None
            }
        });
        let usable: Vec<Committed> = usable.collect();
        if usable.is_empty() {
            return Err(EngineError::Failed("no GPU gave a result that can be used".to_owned()));
        }
        Ok(usable)
    }

    async fn show(
        &self,
        size: usize,
        gpu: &GpuUuid,
        rows: &[u32],
        coordinates: &[(u32, u32)],
    ) -> Result<Vec<Half>, EngineError> {
        let mut numbers = Vec::new();
        if !coordinates.is_empty() {
            let query = Command::GetResultCoords { gpu_uuid: gpu.clone(), queries: coordinates.to_vec() };
            let shown: Coordinates = self.command(&query).await?;
            succeeded(shown.success, shown.error)?;
            expect_numbers("coordinates", coordinates.len(), shown.values.len())?;
            numbers = shown.values;
        }
        if !rows.is_empty() {
            let query = Command::GetResultRows { gpu_uuid: gpu.clone(), row_indices: rows.to_vec() };
            let mut shown: Rows = self.command(&query).await?;
            succeeded(shown.success, shown.error)?;
            for row in rows {
                let row = shown.rows.remove(&row.to_string()).map(|row| row.numbers).unwrap_or_default();
                expect_numbers("a row", size, row.len())?;
                numbers.extend(row);
            }
        }
        Ok(numbers)
    }
}

impl GpuEngine for VendorServer {
    fn name(&self) -> &'static str {
        "vendor"
    }

    fn devices(&self) -> Result<Vec<Device>, EngineError> {
        let info: GpuInfo = self.in_turn(self.command(&Command::GetGpuInfo))?;
        succeeded(info.success, info.error)?;
        let device = |details: byteleap_protocol::Object| {
            let uuid = details.get("uuid")?.as_str()?.parse().ok()?;
            Some(Device { uuid, details })
        };
        Ok(info.gpus.into_iter().filter_map(device).collect())
    }

    fn submit(&self, challenge: &GpuChallenge, is_cancelled: &AtomicBool) -> Result<Vec<Committed>, EngineError> {
        self.in_turn(self.compute(challenge, is_cancelled))
    }

    fn open(
        &self,
        challenge: &GpuChallenge,
        gpu: &GpuUuid,
        rows: &[u32],
        coordinates: &[(u32, u32)],
    ) -> Result<Vec<Half>, EngineError> {
        self.in_turn(self.show(challenge.size.as_usize(), gpu, rows, coordinates))
    }

    fn release(&self, gpu: &GpuUuid) -> Result<(), EngineError> {
        let command = Command::ClearResultCache { gpu_uuid: Some(gpu.clone()) };
        let cleared: Cleared = self.in_turn(self.command(&command))?;
        succeeded(cleared.success, cleared.error)
    }
}

fn succeeded(success: bool, error: Option<String>) -> Result<(), EngineError> {
    if success { Ok(()) } else { Err(EngineError::Failed(error.unwrap_or_else(|| "it gives no reason".to_owned()))) }
}

fn expect_numbers(what: &str, expected: usize, found: usize) -> Result<(), EngineError> {
    match expected == found {
        true => Ok(()),
        false => Err(EngineError::Failed(format!("{found} numbers for {what}, where {expected} belong"))),
    }
}

/// A GPU's result, if it is one that can be opened later: a root over as many rows as there are.
fn committed(result: UnitResult, challenge: &GpuChallenge) -> Result<Committed, String> {
    let UnitResult { gpu_uuid, merkle_root, sig_ver, sig_val, row_hashes } = result;
    let gpu = gpu_uuid.ok_or("it names no GPU")?;
    let faulty = |reason: &str| format!("{gpu}: {reason}");
    if row_hashes.len() != challenge.size.as_usize() {
        return Err(faulty("it has not one hash per row"));
    }
    let merkle_root = merkle_root.parse().map_err(|_| faulty("its root is no hash"))?;
    if MerkleTree::from_rows(&row_hashes).map(|tree| tree.root()) != Some(merkle_root) {
        return Err(faulty("its root is not the one over its row hashes"));
    }
    if sig_ver != u8::from(SignatureVersion::P256) {
        return Err(faulty("its signature is of an unknown version"));
    }
    let uuid = Unit::Gpu(gpu);
    let commitment = Commitment { uuid, merkle_root, sig_ver: SignatureVersion::P256, sig_val: Some(sig_val) };
    Ok(Committed { commitment, row_hashes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_starts_doubles_up_to_its_most_and_a_long_life_is_a_new_beginning() {
        let (timing, mut life, mut now) = (Timing::default(), Life::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            life.count_start(now, &timing);
            let next = life.not_before.unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        now += timing.restart_max + Duration::from_secs(1);
        life.count_start(now, &timing);
        assert_eq!(life.not_before.unwrap() - now, timing.restart_first);
    }
}
