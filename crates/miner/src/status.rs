//! What the miner shows of itself: the admin endpoint's `/status`, and the tables that `status` and `workers list`
//! print from it.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use byteleap_daemon::view::table;

use byteleap_protocol::{
    feedback::{MinerScore, Told},
    frame::HostData,
    hotkey::Hotkey,
    id::{ChallengeId, WorkerId},
    join::CertificateFingerprint,
    payload::SystemInfo,
};
use serde::{Deserialize, Serialize};

use crate::{
    relay::{hops::Record, told::Answers},
    validators::Validators,
    workers::{
        door::Standing,
        registry::{Registry, WorkerView},
    },
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
    /// Where it keeps its book of workers, for the commands that change it.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Whether it takes no new challenges: see `byteleap-miner drain`.
    #[serde(default)]
    pub draining: bool,
    /// Why no validator may give work; none where one may.
    #[serde(default)]
    pub trouble: Option<String>,
    /// The workers that are connected.
    pub workers: Vec<WorkerStatus>,
    /// The validators in use.
    pub validators: Vec<ValidatorStatus>,
}

pub use crate::relay::hops::{Hops, LastChallenge};

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
    /// Its processors, memory and graphics cards, in a few words.
    #[serde(default)]
    pub host: String,
    /// Its last challenge, and how long each hop took; none since the start of the miner.
    #[serde(default)]
    pub last_challenge: Option<LastChallenge>,
    /// Why it has no work; none while it works.
    #[serde(default)]
    pub idle_because: Option<String>,
    /// What each validator told of it: lease, verdict, score and next challenge.
    #[serde(default)]
    pub validators: Vec<Told>,
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
    /// What came of asking it for challenges last.
    #[serde(default)]
    pub last_poll: Option<String>,
    /// What came of the last report to it.
    #[serde(default)]
    pub last_report: Option<String>,
    /// What its last scoring round gave to this miner, where it tells.
    #[serde(default)]
    pub score: Option<MinerScore>,
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

#[expect(clippy::too_many_arguments, reason = "one for each part of the miner that has something to show")]
impl Status {
    pub(crate) fn collect(
        hotkey: Hotkey,
        uid: u16,
        listen: SocketAddr,
        fingerprint: Option<CertificateFingerprint>,
        registry: &Registry,
        validators: &Validators,
        record: &Record,
        answers: &Answers,
        draining: bool,
    ) -> Self {
        let (trouble, validators) = (validators.trouble(), validators.current());
        let mut last_challenges = record.all();
        let mut told = answers.by_worker();
        let workers = registry.snapshot().into_iter().map(|worker| {
            let told = told.remove(&worker.worker_id).unwrap_or_default();
            WorkerStatus {
                idle_because: idle_because(&worker, draining, trouble.as_deref(), &told),
                validators: told,
                host: host(&worker.system_info),
                last_challenge: last_challenges.remove(&worker.worker_id),
                worker_id: worker.worker_id,
                name: worker.name,
                version: worker.version,
                standing: worker.standing,
                is_tls: worker.is_tls,
                capabilities: worker.capabilities,
                task: worker.task,
                connected_at_ms: worker.connected_at_ms,
                last_heartbeat_at_ms: worker.last_heartbeat_at_ms,
            }
        });
        let workers: Vec<_> = workers.collect();
        let validators = validators.iter().map(|validator| {
            let axon = validator.axon();
            let (last_report, score) = answers.of_validator(&axon.hotkey).unzip();
            ValidatorStatus {
                hotkey: axon.hotkey,
                address: axon.address,
                last_poll: validator.last_poll(),
                last_report,
                score: score.flatten(),
            }
        });
        Self {
            hotkey,
            uid,
            listen,
            fingerprint,
            state_dir: None,
            draining,
            trouble,
            workers,
            validators: validators.collect(),
        }
    }

    /// The whole status for people.
    #[must_use]
    pub fn page(&self, now_ms: i64) -> String {
        let mut page = format!("hotkey   {}\nuid      {}\nworkers  {}\n", self.hotkey, self.uid, self.listen);
        if let Some(fingerprint) = self.fingerprint {
            let _ = writeln!(page, "tls      {fingerprint}");
        }
        if self.draining {
            page.push_str("drain    on: no new challenges are taken\n");
        }
        if let Some(trouble) = &self.trouble {
            let _ = writeln!(page, "trouble  {trouble}");
        }
        let unproved = self.workers.iter().filter(|worker| !matches!(worker.standing, Standing::Enrolled(_))).count();
        if unproved > 0 {
            let _ = writeln!(page, "\n{unproved} of {} workers are not authenticated: see LINK", self.workers.len());
        }
        page.push('\n');
        page.push_str(&self.workers_page(now_ms));
        page.push('\n');
        let rows = self.validators.iter().map(|validator| {
            [
                validator.hotkey.to_string(),
                validator.address.to_string(),
                validator.last_poll.clone().unwrap_or_else(|| "not asked yet".to_owned()),
                validator.last_report.clone().unwrap_or_else(|| "none yet".to_owned()),
                validator.score.as_ref().map_or_else(|| "not told".to_owned(), |score| score.line(now_ms)),
            ]
        });
        page.push_str(&table(["VALIDATOR", "ADDRESS", "LAST ASKED", "LAST REPORT", "SCORE"], rows.collect()));
        page
    }

    /// All that is known of the workers, for people.
    #[must_use]
    pub fn workers_page(&self, now_ms: i64) -> String {
        let tables = [self.workers_table(now_ms), self.challenges_table(now_ms), self.feedback_table(now_ms)];
        tables.join("\n")
    }

    /// What validators told of each worker, for people.
    fn feedback_table(&self, now_ms: i64) -> String {
        let rows = self.workers.iter().flat_map(|worker| {
            worker.validators.iter().map(|told| {
                let feedback = &told.feedback;
                [
                    worker.worker_id.to_string(),
                    told.teller(now_ms),
                    feedback.lease_line(now_ms),
                    feedback.verdict_line(now_ms),
                    feedback.score_line(now_ms),
                    feedback.turn_line(now_ms),
                ]
            })
        });
        table(["WORKER", "TOLD BY VALIDATOR", "LEASED", "LAST VERDICT", "SCORE", "NEXT CHALLENGE"], rows.collect())
    }

    /// Each worker's machine, last challenge and why it has no work, for people.
    fn challenges_table(&self, now_ms: i64) -> String {
        let rows = self.workers.iter().map(|worker| {
            let last = worker.last_challenge.as_ref();
            let hops = last
                .map(|last| last.hops.named().map(|(hop, ms)| format!("{hop} {ms}")).collect::<Vec<_>>().join(", "));
            [
                worker.worker_id.to_string(),
                worker.host.clone(),
                last.map_or_else(String::new, |last| {
                    let end = last.end.as_deref().unwrap_or("under way");
                    format!("{} {} s ago: {end}", last.challenge_id, (now_ms - last.received_at_ms) / 1000)
                }),
                hops.unwrap_or_default(),
                worker.idle_because.clone().unwrap_or_default(),
            ]
        });
        table(["WORKER", "MACHINE", "LAST CHALLENGE", "HOPS (ms)", "NO WORK BECAUSE"], rows.collect())
    }

    /// Who is connected, for people.
    fn workers_table(&self, now_ms: i64) -> String {
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

/// Why a worker has no work, as far as this miner knows and validators told it; none while it works.
pub(crate) fn idle_because(
    worker: &WorkerView,
    draining: bool,
    trouble: Option<&str>,
    told: &[Told],
) -> Option<String> {
    if worker.task.is_some() {
        return None;
    }
    let reason = if draining {
        "this miner takes no new challenges: byteleap-miner drain --cancel ends that"
    } else if let Some(trouble) = trouble {
        trouble
    } else if worker.last_heartbeat_at_ms.is_none() {
        "the worker has sent no heartbeat yet"
    } else if let Err(error) = machine(&worker.system_info) {
        return Some(format!("its machine is reported to nobody, since its system_info cannot be read: {error}"));
    } else if worker.capabilities.is_empty() {
        "the worker offers nothing: it drains, or has no unit that can compute"
    } else if let Some(reasons) = validators_reasons(told) {
        return Some(reasons);
    } else {
        "no validator has handed one out: byteleap-miner status shows what each said last"
    };
    Some(reason.to_owned())
}

/// What keeps every validator that told something from challenging a worker; none if one of them may.
fn validators_reasons(told: &[Told]) -> Option<String> {
    let reasons: Option<Vec<_>> =
        told.iter().map(|told| Some((told.validator, told.feedback.no_challenge.as_ref()?))).collect();
    let reasons = reasons.filter(|reasons| !reasons.is_empty())?;
    Some(
        reasons
            .iter()
            .map(|(validator, reason)| format!("validator {validator}: {reason}"))
            .collect::<Vec<_>>()
            .join("; "),
    )
}

/// A machine, as its worker reports it.
fn machine(data: &HostData) -> Result<SystemInfo, serde_json::Error> {
    SystemInfo::parse(&data.read()?)
}

/// A machine in a few words; empty before its first heartbeat, or where its data cannot be read.
fn host(data: &HostData) -> String {
    let Ok(info) = machine(data) else { return String::new() };
    let mut text = match info.cpu_count {
        0 => return String::new(),
        cpus => format!("{cpus} CPUs, {} GiB", info.memory_total / 1024),
    };
    for card in &info.gpu_info {
        let name = card.get("name").and_then(serde_json::Value::as_str).unwrap_or("graphics card");
        let _ = write!(text, ", {name}");
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
            host: String::new(),
            last_challenge: None,
            idle_because: None,
            validators: Vec::new(),
            task: task.map(|task| ChallengeId::new(task).expect("an id")),
            connected_at_ms: 0,
            last_heartbeat_at_ms: task.map(|_| 5_000),
        };
        let status = Status {
            hotkey: Hotkey([1; 32]),
            uid: 7,
            listen: "127.0.0.1:7799".parse().expect("an address"),
            fingerprint: None,
            state_dir: None,
            draining: false,
            trouble: None,
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

    #[test]
    fn the_nearest_reason_for_no_work_is_told_first() {
        let told = |no_challenge: Option<&str>| Told {
            validator: Hotkey([2; 32]),
            at_ms: 0,
            feedback: serde_json::from_value(serde_json::json!({"worker_id": "w1", "no_challenge": no_challenge}))
                .expect("feedback"),
        };
        let mut worker = WorkerView {
            worker_id: WorkerId::new("w1").expect("an id"),
            name: String::new(),
            version: String::new(),
            standing: Standing::Unproved,
            is_tls: false,
            capabilities: Vec::new(),
            system_info: HostData::from(&serde_json::Map::from_iter([("cpu_count".to_owned(), "many".into())])),
            connected_at_ms: 0,
            last_heartbeat_at_ms: None,
            task: Some(ChallengeId::new("c1").expect("an id")),
        };
        assert_eq!(idle_because(&worker, true, Some("no validator"), &[]), None);
        worker.task = None;
        let why = |worker: &WorkerView, draining, trouble, told: &[Told]| {
            idle_because(worker, draining, trouble, told).expect("a reason")
        };
        assert!(why(&worker, true, Some("no validator"), &[]).contains("drain --cancel"));
        assert_eq!(why(&worker, false, Some("no validator"), &[]), "no validator");
        assert!(why(&worker, false, None, &[]).contains("no heartbeat yet"));
        worker.last_heartbeat_at_ms = Some(1);
        assert!(why(&worker, false, None, &[]).contains("system_info cannot be read"));
        worker.system_info = HostData::default();
        assert!(why(&worker, false, None, &[]).contains("offers nothing"));
        worker.capabilities = vec!["cpu_matrix".to_owned()];
        let (leased, free) = (told(Some("it is leased")), told(None));
        assert!(why(&worker, false, None, std::slice::from_ref(&leased)).ends_with(": it is leased"));
        // One validator that may challenge it is enough.
        assert!(why(&worker, false, None, &[leased, free]).contains("has handed one out"));
    }
}
