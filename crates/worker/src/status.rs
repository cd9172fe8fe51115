//! What the worker shows of itself: the admin endpoint's `/status`, and the page that `byteleap-worker status` prints
//! from it.

use std::fmt::Write as _;

use byteleap_daemon::view::table;
use byteleap_protocol::feedback::Told;
use byteleap_protocol::id::{ChallengeId, WorkerId};
use byteleap_protocol::join::CertificateFingerprint;
use byteleap_protocol::worker_key::WorkerKey;
use serde::{Deserialize, Serialize};

use crate::challenge::record::LastChallenge;
use crate::link::LinkState;

/// The answer of `GET /status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its identity within its miner.
    pub worker_id: WorkerId,
    /// The key that proves it, for `byteleap-miner workers enroll`.
    pub public_key: WorkerKey,
    /// Its display name.
    pub worker_name: Option<String>,
    /// Its software version.
    pub version: String,
    /// Where its miner listens.
    pub miner_url: String,
    /// The miner's certificate, where it is pinned.
    pub miner_fingerprint: Option<CertificateFingerprint>,
    /// The connection to the miner.
    pub connection: Connection,
    /// Whether it takes no new challenges: see `byteleap-worker drain`.
    pub draining: bool,
    /// Its machine.
    pub host: Host,
    /// Its GPUs.
    pub gpu: Gpu,
    /// The challenges that it offers to compute.
    pub capabilities: Vec<String>,
    /// The challenges that it computes.
    pub tasks: Vec<ChallengeId>,
    /// Results that the miner has not certainly received.
    pub unsent_results: usize,
    /// The challenge that came last; none since its start.
    pub last_challenge: Option<LastChallenge>,
    /// Why it has no work; none while it computes.
    pub idle_because: Option<String>,
    /// What each validator told of it by way of the miner: lease, verdict, score and next challenge.
    #[serde(default)]
    pub validators: Vec<Told>,
}

/// The connection in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Whether the miner has acknowledged this worker.
    pub registered: bool,
    /// Since when, in ms since 1970.
    pub since_ms: Option<i64>,
    /// Whether the miner asked for a proof of the worker's key and got it; a former miner does not ask.
    pub key_proved: bool,
    /// Why it is not registered.
    pub reason: Option<String>,
}

/// The machine in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Logical processors.
    pub cpus: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// The GPUs in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// What computes on them; none without `gpu.enable`.
    pub engine: Option<String>,
    /// Those that compute, by UUID.
    pub gpus: Vec<String>,
    /// Why there are none.
    pub reason: Option<String>,
}

impl From<&LinkState> for Connection {
    fn from(state: &LinkState) -> Self {
        match state {
            LinkState::Registered { since_ms, key_proved } => {
                Self { registered: true, since_ms: Some(*since_ms), key_proved: *key_proved, reason: None }
            }
            LinkState::Away { reason } => {
                Self { registered: false, since_ms: None, key_proved: false, reason: Some(reason.clone()) }
            }
        }
    }
}

impl Connection {
    fn line(&self, now_ms: i64) -> String {
        match (self.since_ms, &self.reason) {
            (Some(since_ms), _) => {
                let proof = if self.key_proved { "its key proved" } else { "not authenticated: the miner asks no key" };
                format!("registered {} s ago, {proof}", (now_ms - since_ms) / 1000)
            }
            (None, reason) => format!("not registered: {}", reason.as_deref().unwrap_or("unknown")),
        }
    }
}

impl Gpu {
    fn line(&self) -> String {
        match &self.engine {
            None => "none: gpu.enable is not set".to_owned(),
            Some(engine) if self.gpus.is_empty() => {
                format!("none ({engine}): {}", self.reason.as_deref().unwrap_or("not looked for yet"))
            }
            Some(engine) => format!("{} ({engine}): {}", self.gpus.len(), self.gpus.join(", ")),
        }
    }
}

/// Why a worker in this state computes nothing; none while it does. `miner_says` is why the miner has nothing for it.
#[must_use]
pub fn idle_because(
    connection: &Connection,
    draining: bool,
    tasks: &[ChallengeId],
    miner_says: Option<String>,
    last: Option<&LastChallenge>,
) -> Option<String> {
    if !tasks.is_empty() {
        return None;
    }
    Some(if draining {
        "it takes no new challenges: byteleap-worker drain --cancel ends that".to_owned()
    } else if let Some(reason) = &connection.reason {
        format!("it is not connected to the miner: {reason}")
    } else if let Some(reason) = miner_says {
        reason
    } else if let Some(last) = last {
        format!("the miner has assigned nothing since {}; byteleap-miner status shows why", last.challenge_id)
    } else {
        "the miner has assigned nothing yet; byteleap-miner status shows why".to_owned()
    })
}

impl Status {
    /// The status for people.
    #[must_use]
    pub fn page(&self, now_ms: i64) -> String {
        let name = self.worker_name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        let gpu = self.gpu.line();
        let mut rows = vec![
            ["worker".to_owned(), format!("{}{name}, version {}", self.worker_id, self.version)],
            ["key".to_owned(), self.public_key.to_string()],
            ["miner".to_owned(), self.miner_url.clone()],
            ["connection".to_owned(), self.connection.line(now_ms)],
            ["machine".to_owned(), format!("{} CPUs, {} MiB", self.host.cpus, self.host.memory_mib)],
            ["GPUs".to_owned(), gpu],
            ["computes".to_owned(), self.capabilities.join(", ")],
        ];
        if self.draining {
            rows.push(["drain".to_owned(), "on: no new challenges are taken".to_owned()]);
        }
        for task in &self.tasks {
            rows.push(["busy".to_owned(), task.to_string()]);
        }
        if self.unsent_results > 0 {
            rows.push(["unsent".to_owned(), format!("{} results", self.unsent_results)]);
        }
        rows.extend(self.idle_because.clone().map(|reason| ["no work".to_owned(), reason]));
        let mut page = table(["", ""], rows);
        page = page.trim_start().to_owned();
        if let Some(last) = &self.last_challenge {
            let row = [
                last.challenge_id.to_string(),
                last.task_type.clone(),
                format!("{} s ago", (now_ms - last.received_at_ms) / 1000),
                last.outcome(),
                last.timings(),
            ];
            let _ =
                write!(page, "\n{}", table(["LAST CHALLENGE", "KIND", "RECEIVED", "OUTCOME", "TIMINGS"], vec![row]));
        }
        let rows = self.validators.iter().map(|told| {
            let feedback = &told.feedback;
            [
                told.teller(now_ms),
                feedback.lease_line(now_ms),
                feedback.verdict_line(now_ms),
                feedback.score_line(now_ms),
                feedback.turn_line(now_ms),
            ]
        });
        if !self.validators.is_empty() {
            let heads = ["TOLD BY VALIDATOR", "LEASED", "LAST VERDICT", "SCORE", "NEXT CHALLENGE"];
            let _ = write!(page, "\n{}", table(heads, rows.collect()));
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_work_says_why_and_one_at_work_says_nothing() {
        let connected = Connection::from(&LinkState::Registered { since_ms: 0, key_proved: true });
        let away = Connection::from(&LinkState::Away { reason: "the miner is full".to_owned() });
        let reason = |connection, draining| idle_because(connection, draining, &[], None, None).unwrap();
        assert!(reason(&connected, true).contains("drain --cancel"));
        assert!(reason(&away, false).contains("the miner is full"));
        assert!(reason(&connected, false).contains("assigned nothing yet"));
        let says = || Some("no validator is in use".to_owned());
        assert_eq!(idle_because(&connected, false, &[], says(), None), says());
        assert!(idle_because(&away, false, &[], says(), None).unwrap().contains("the miner is full"));
        assert_eq!(idle_because(&connected, true, &[ChallengeId::new("c1").unwrap()], says(), None), None);
    }
}
