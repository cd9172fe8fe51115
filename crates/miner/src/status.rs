//! What the miner shows of itself: the admin endpoint's `/status`, and the tables that `status` and `workers list`
//! print from it.

use std::{fmt::Write as _, net::SocketAddr};

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{ChallengeId, WorkerId},
    join::CertificateFingerprint,
};
use serde::{Deserialize, Serialize};

use crate::{
    validators::Validators,
    workers::{door::Standing, registry::Registry},
};

/// The answer of `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The miner's hotkey.
    pub hotkey: Hotkey,
    /// Its number on the subnet, as of the start.
    pub uid: u16,
    /// Where workers dial.
    pub listen: SocketAddr,
    /// The certificate of that port, for `miner_fingerprint` in a worker's configuration; none without TLS.
    #[serde(default)]
    pub fingerprint: Option<CertificateFingerprint>,
    /// The workers that are connected.
    pub workers: Vec<WorkerStatus>,
    /// The validators in use.
    pub validators: Vec<ValidatorStatus>,
}

/// A worker in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its identity within this miner.
    pub worker_id: WorkerId,
    /// Its display name.
    pub name: String,
    /// Its software version.
    pub version: String,
    /// What it has proved.
    pub standing: Standing,
    /// Whether its link is encrypted.
    pub is_tls: bool,
    /// The challenges that it takes.
    pub capabilities: Vec<String>,
    /// The challenge that it works on; none when idle.
    pub task: Option<ChallengeId>,
    /// When its connection registered, in milliseconds since 1970.
    pub connected_at_ms: i64,
    /// When it last sent a heartbeat, in milliseconds since 1970.
    pub last_heartbeat_at_ms: Option<i64>,
}

/// A validator in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidatorStatus {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Where it is called.
    pub address: SocketAddr,
}

impl WorkerStatus {
    /// How the worker is connected and what it has proved, in a few words.
    fn link(&self) -> String {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        match self.standing {
            Standing::Enrolled(_) => format!("{scheme} enrolled"),
            // The key in full, for `workers enroll`.
            Standing::Unenrolled(key) => format!("{scheme} not enrolled: {key}"),
            Standing::Unproved => format!("{scheme} not authenticated"),
        }
    }
}

impl Status {
    pub(crate) fn collect(
        hotkey: Hotkey,
        uid: u16,
        listen: SocketAddr,
        fingerprint: Option<CertificateFingerprint>,
        registry: &Registry,
        validators: &Validators,
    ) -> Self {
        let workers = registry.snapshot().into_iter().map(|worker| WorkerStatus {
            worker_id: worker.worker_id,
            name: worker.name,
            version: worker.version,
            standing: worker.standing,
            is_tls: worker.is_tls,
            capabilities: worker.capabilities,
            task: worker.task,
            connected_at_ms: worker.connected_at_ms,
            last_heartbeat_at_ms: worker.last_heartbeat_at_ms,
        });
        let validators = validators.current().into_iter().map(|validator| {
            let axon = validator.axon();
            ValidatorStatus { hotkey: axon.hotkey, address: axon.address }
        });
        Self { hotkey, uid, listen, fingerprint, workers: workers.collect(), validators: validators.collect() }
    }

    /// The whole status for people.
    #[must_use]
    pub fn page(&self, now_ms: i64) -> String {
        let mut page = format!("hotkey   {}\nuid      {}\nworkers  {}\n", self.hotkey, self.uid, self.listen);
        if let Some(fingerprint) = self.fingerprint {
            let _ = writeln!(page, "tls      {fingerprint}");
        }
        let unproved = self.workers.iter().filter(|worker| !matches!(worker.standing, Standing::Enrolled(_))).count();
        if unproved > 0 {
            let _ = writeln!(page, "\n{unproved} of {} workers are not authenticated: see LINK", self.workers.len());
        }
        page.push('\n');
        page.push_str(&self.workers_table(now_ms));
        page.push('\n');
        let rows =
            self.validators.iter().map(|validator| [validator.hotkey.to_string(), validator.address.to_string()]);
        page.push_str(&table(["VALIDATOR", "ADDRESS"], rows.collect()));
        page
    }

    /// The workers for people.
    #[must_use]
    pub fn workers_table(&self, now_ms: i64) -> String {
        let rows = self.workers.iter().map(|worker| {
            [
                worker.worker_id.to_string(),
                worker.name.clone(),
                worker.task.as_ref().map_or_else(|| "online".to_owned(), |task| format!("busy {task}")),
                worker.link(),
                worker.version.clone(),
                worker.capabilities.join(","),
                worker
                    .last_heartbeat_at_ms
                    .map_or_else(|| "never".to_owned(), |at| format!("{} s ago", (now_ms - at) / 1000)),
            ]
        });
        table(["WORKER", "NAME", "STATUS", "LINK", "VERSION", "CAPABILITIES", "HEARTBEAT"], rows.collect())
    }
}

/// Columns wide enough for their content; control characters of a peer are not printed.
fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<[String; N]> =
        rows.into_iter().map(|row| row.map(|cell| cell.replace(char::is_control, "?"))).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(&rows) {
        let line = row.iter().zip(widths).fold(String::new(), |mut line, (cell, width)| {
            let _ = write!(line, "{cell:width$}  ");
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::worker_key::WorkerKey;

    use super::*;

    #[test]
    fn the_workers_table_shows_who_is_busy_and_when_each_was_heard_of() {
        let worker = |id: &str, task: Option<&str>| WorkerStatus {
            worker_id: WorkerId::new(id).expect("an id"),
            name: "rack\u{1b}[2J".to_owned(),
            version: "0.1.0".to_owned(),
            standing: task.map_or(Standing::Unproved, |_| Standing::Enrolled(WorkerKey([7; 32]))),
            is_tls: task.is_some(),
            capabilities: vec!["cpu_matrix".to_owned()],
            task: task.map(|task| ChallengeId::new(task).expect("an id")),
            connected_at_ms: 0,
            last_heartbeat_at_ms: task.map(|_| 5_000),
        };
        let status = Status {
            hotkey: Hotkey([1; 32]),
            uid: 7,
            listen: "127.0.0.1:7799".parse().expect("an address"),
            fingerprint: None,
            workers: vec![worker("w1", Some("c1")), worker("worker-2", None)],
            validators: vec![],
        };
        assert_eq!(
            status.workers_table(12_000),
            "WORKER    NAME      STATUS   LINK                  VERSION  CAPABILITIES  HEARTBEAT\n\
             w1        rack?[2J  busy c1  wss enrolled          0.1.0    cpu_matrix    7 s ago\n\
             worker-2  rack?[2J  online   ws not authenticated  0.1.0    cpu_matrix    never\n"
        );
    }
}
