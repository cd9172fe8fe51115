//! A look at real requests, for an operator who hunts a fault: an explicit switch that turns itself off.
//!
//! Nothing is captured until somebody on this machine asks for it (`capture start`), and then only a share of the
//! requests, for so many seconds, up to a size, into a new file of mode 0600 in the folder of the log. The level of the log
//! has nothing to do with it. A line is one sealed request as it was after opening, with its answer:
//! `{"at_ms", "peer", "synapse", "request", "answer"}`.
//!
//! What must stay secret never gets there: sealed packages and session keys are not looked at, values under names that
//! mean a secret are replaced, and long texts and lists are cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::synapse::SynapseKind;
use parking_lot::Mutex;
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest time of one capture.
pub const MAX_SECONDS: u64 = 3600;
/// Size at which a capture ends.
const MAX_BYTES: u64 = 64 << 20;
/// Longest text that is kept whole, in characters.
const MAX_TEXT: usize = 256;
/// Longest list that is kept whole.
const MAX_ITEMS: usize = 8;
/// Parts of a name that mean a secret.
const SECRET_NAMES: &[&str] =
    &["token", "secret", "password", "private", "signature", "session", "key", "nonce", "cert"];
/// What stands for a secret.
const HIDDEN: &str = "(hidden)";

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// How long, 1 to [`MAX_SECONDS`].
    pub seconds: u64,
    /// Share of the requests, above 0, at most 1.
    pub share: f64,
}

/// Why nothing is captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The order asks for too much or nothing.
    #[error("allowed: 1 to {MAX_SECONDS} seconds, and a share above 0, at most 1")]
    Order,
    /// One runs already.
    #[error("a capture runs already, into {0}")]
    Running(PathBuf),
    /// The file cannot be made.
    #[error("the file {path} cannot be made")]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The switch; cheap to clone, off at the start.
#[derive(Debug, Clone)]
pub struct Capture {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Debug)]
struct Running {
    path: PathBuf,
    file: File,
    bytes: u64,
    captured: u64,
    share: f64,
    until: Duration,
}

/// A request that was chosen; its answer completes the line.
#[derive(Debug)]
pub struct Chosen {
    capture: Capture,
    at_ms: i64,
    peer: Hotkey,
    kind: SynapseKind,
    request: Value,
}

impl Capture {
    /// A switch that writes into `folder`.
    pub fn new(folder: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { folder: folder.to_owned(), clock, running: Arc::default() }
    }

    /// Turns it on, and tells into which file. Blocks for a moment.
    ///
    /// # Errors
    /// As [`CaptureError`]; then nothing is captured that was not before.
    pub fn start(&self, order: Order) -> Result<PathBuf, CaptureError> {
        if !((1..=MAX_SECONDS).contains(&order.seconds) && order.share > 0.0 && order.share <= 1.0) {
            return Err(CaptureError::Order);
        }
        let now = self.clock.monotonic();
        let mut running = self.running.lock();
        if let Some(running) = running.as_ref().filter(|running| now < running.until) {
            return Err(CaptureError::Running(running.path.clone()));
        }
        let path = self.folder.join(format!("capture-{}.jsonl", self.clock.unix_ms()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| CaptureError::File { path: path.clone(), source })?;
        tracing::warn!(path = %path.display(), seconds = order.seconds, share = order.share, "requests are captured");
        let until = now + Duration::from_secs(order.seconds);
        *running = Some(Running { path: path.clone(), file, bytes: 0, captured: 0, share: order.share, until });
        Ok(path)
    }

    /// Turns it off; the file and how many requests are in it, if it was on.
    pub fn stop(&self) -> Option<(PathBuf, u64)> {
        self.end(&mut self.running.lock())
    }

    fn end(&self, running: &mut Option<Running>) -> Option<(PathBuf, u64)> {
        let Running { path, captured, .. } = running.take()?;
        tracing::info!(path = %path.display(), captured, "requests are captured no more");
        Some((path, captured))
    }

    /// For `/status`: the file, and how long it goes on; nothing while it is off.
    pub fn status(&self) -> Value {
        let mut running = self.running.lock();
        self.end_if_due(&mut running);
        running.as_ref().map_or(Value::Null, |running| {
            let left = running.until.saturating_sub(self.clock.monotonic());
            json!({ "path": running.path, "captured": running.captured, "seconds_left": left.as_secs() })
        })
    }

    fn end_if_due(&self, running: &mut Option<Running>) {
        if running.as_ref().is_some_and(|running| self.clock.monotonic() >= running.until) {
            self.end(running);
        }
    }

    /// Whether this request is one of the share, and what is kept of it; only then is it read.
    pub fn choose(&self, peer: Hotkey, kind: SynapseKind, request: impl FnOnce() -> Value) -> Option<Chosen> {
        {
            let mut running = self.running.lock();
            self.end_if_due(&mut running);
            let share = running.as_ref()?.share;
            if f64::from(OsRng.next_u32()) >= share * (f64::from(u32::MAX) + 1.0) {
                return None;
            }
        }
        let request = redacted(&request());
        Some(Chosen { capture: self.clone(), at_ms: self.clock.unix_ms(), peer, kind, request })
    }
}

impl Chosen {
    /// Writes the line. Blocks for as long as the disk does, so call it where that holds nobody up.
    pub fn answered(self, answer: &Value) {
        let Self { capture, at_ms, peer, kind, request } = self;
        let line = json!({
            "at_ms": at_ms,
            "peer": peer,
            "synapse": kind.name(),
            "request": request,
            "answer": redacted(answer),
        });
        let line = format!("{line}\n");
        let mut running = capture.running.lock();
        let Some(open) = running.as_mut() else { return };
        let is_full = open.bytes + line.len() as u64 > MAX_BYTES;
        let written = if is_full { Ok(()) } else { open.file.write_all(line.as_bytes()) };
        open.bytes += line.len() as u64;
        open.captured += 1;
        if let Err(error) = &written {
            tracing::warn!(%error, path = %open.path.display(), "the capture cannot be written");
        }
        if is_full || written.is_err() {
            capture.end(&mut running);
        }
    }
}

/// A value without its secrets, and of bounded size.
fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.char_indices().nth(MAX_TEXT) {
            Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()).into(),
            None => value.clone(),
        },
        Value::Array(items) => {
            let mut kept: Vec<Value> = items.iter().take(MAX_ITEMS).map(redacted).collect();
            if items.len() > MAX_ITEMS {
                kept.push(format!("… ({} items)", items.len()).into());
            }
            kept.into()
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), field(name, value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn field(name: &str, value: &Value) -> Value {
    let name = name.to_ascii_lowercase();
    let is_secret = name != "hotkey" && SECRET_NAMES.iter().any(|secret| name.contains(secret));
    if is_secret && !value.is_null() { HIDDEN.into() } else { redacted(value) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use byteleap_daemon::clock::ManualClock;

    use super::*;

    const PEER: Hotkey = Hotkey([7; 32]);

    fn lines(path: &Path) -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn it_is_off_until_asked_for_and_turns_itself_off() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(1_000)));
        let capture = Capture::new(folder.path(), clock.clone());
        let request = json!({ "worker_id": "w" });
        assert!(capture.choose(PEER, SynapseKind::Task, || request.clone()).is_none());
        let path = capture.start(Order { seconds: 60, share: 1.0 }).unwrap();
        assert!(matches!(capture.start(Order { seconds: 60, share: 1.0 }), Err(CaptureError::Running(_))));
        capture.choose(PEER, SynapseKind::Task, || request.clone()).unwrap().answered(&json!({ "tasks": [] }));
        let late = capture.choose(PEER, SynapseKind::Task, || request.clone()).unwrap();
        assert_eq!(capture.status()["captured"], 1);
        clock.advance(Duration::from_secs(60));
        assert!(capture.choose(PEER, SynapseKind::Task, || request.clone()).is_none());
        assert_eq!(capture.status(), Value::Null);
        late.answered(&Value::Null);
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&path)[0]["request"], request);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(capture.stop(), None);
    }

    #[test]
    fn only_the_share_that_was_asked_for_is_captured() {
        let folder = tempfile::tempdir().unwrap();
        let capture = Capture::new(folder.path(), Arc::new(ManualClock::new(0)));
        capture.start(Order { seconds: 1, share: 0.1 }).unwrap();
        let chosen = (0..2000).filter(|_| capture.choose(PEER, SynapseKind::Task, || Value::Null).is_some()).count();
        // Ten standard deviations around 200.
        assert!((66..334).contains(&chosen), "{chosen}");
        for wrong in [
            Order { seconds: 0, share: 1.0 },
            Order { seconds: 3601, share: 1.0 },
            Order { seconds: 1, share: 0.0 },
            Order { seconds: 1, share: f64::NAN },
        ] {
            assert!(matches!(
                Capture::new(folder.path(), Arc::new(ManualClock::new(1))).start(wrong),
                Err(CaptureError::Order)
            ));
        }
    }

    #[test]
    fn secrets_are_replaced_and_what_is_long_is_cut() {
        let value = json!({
            "hotkey": "5F", "enroll_token": "hunter2", "nested": [{ "private_key": "hunter2", "session_id": "hunter2" }],
            "proof": "é".repeat(10_000), "rows": vec![1; 500],
        });
        let kept = redacted(&value);
        assert!(!kept.to_string().contains("hunter2") && kept["hotkey"] == "5F");
        assert!(kept.to_string().len() < 2_000, "{}", kept.to_string().len());
    }
}
