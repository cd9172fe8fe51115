//! Reports of who serves (validator spec 7.5): everybody once in a session, and then what changed.
//!
//! What was told is remembered for one session alone ([`Told`]); a new one begins with everybody, so nothing that changed
//! while there was none is lost. Load and uptime change always and by themselves make no news, but for steps of 10 %.

use std::collections::HashMap;

use byteleap_protocol::Object;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::meshhub::report::{
    Hardware, MinerReport, Presence, ReportMode, ResourceReport, Usage, WorkerReport,
};
use byteleap_protocol::meshhub::{MAX_WORKERS_PER_FRAME, MeshWorker};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::iso;
use crate::store::heartbeat::{MINER_DEADLINE_MS, MinerRow};
use crate::store::resource::{MachineRow, ResourceRow};
use crate::store::{Store, StoreError, WorkerKey};

/// Percent of load by which a worker's state differs.
const LOAD_STEP: f64 = 10.0;

/// Descriptions of machines in one frame, bytes: sealed and encoded they stay below the largest frame.
const MAX_REPORT_BYTES: usize = 4 * 1024 * 1024;

/// What the marketplace has been told in this session.
#[derive(Debug, Default)]
pub struct Told {
    /// When the last report was made; none: nothing was told yet.
    since_ms: Option<i64>,
    workers: HashMap<WorkerKey, Digests>,
}

/// What a worker looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Digests {
    state: [u8; 32],
    machine: Vec<u8>,
}

/// A worker that is news.
struct News {
    row: ResourceRow,
    /// Whether its machine is news too.
    machine: bool,
}

impl Told {
    /// The frames of the next report, none when there is nothing to tell. They count as told: whoever cannot send them has
    /// lost the session, and this with it.
    ///
    /// # Errors
    /// The store does not answer; then nothing counts as told.
    pub async fn next_report(&mut self, store: &Store, now_ms: i64) -> Result<Vec<ResourceReport>, StoreError> {
        let rows = store.resources().await?;
        let miners: HashMap<Hotkey, MinerRow> =
            store.miners().await?.into_iter().map(|miner| (miner.hotkey, miner)).collect();
        let mut workers = HashMap::with_capacity(rows.len());
        let mut news = Vec::new();
        for row in rows {
            let digests = Digests { state: state_of(&row, now_ms), machine: row.machine.clone() };
            let told = self.workers.get(&row.key);
            let machine = told.is_none_or(|told| told.machine != digests.machine);
            if told != Some(&digests) {
                news.push(News { machine, row: row.clone() });
            }
            workers.insert(row.key, digests);
        }
        let (mode, since) = match self.since_ms {
            None => (ReportMode::Full, None),
            Some(since_ms) => (ReportMode::Delta, Some(iso(since_ms))),
        };
        let mut reports: Vec<ResourceReport> = Vec::new();
        // Of the report under way: its workers, and about how many bytes they take.
        let (mut count, mut bytes) = (MAX_WORKERS_PER_FRAME, 0);
        for News { row, machine } in &news {
            let machine = if *machine { Some(store.machine_of(row.key).await?) } else { None };
            let size = machine.as_ref().map_or(0, MachineRow::bytes);
            if count == MAX_WORKERS_PER_FRAME || bytes + size > MAX_REPORT_BYTES {
                reports.push(ResourceReport { mode, since: since.clone(), miners: Vec::new() });
                (count, bytes) = (0, 0);
            }
            (count, bytes) = (count + 1, bytes + size);
            let Some(report) = reports.last_mut() else { continue };
            let worker = worker_report(row, machine, now_ms);
            match report.miners.last_mut().filter(|miner| miner.hotkey == row.hotkey) {
                Some(miner) => miner.workers.push(worker),
                None => report.miners.push(miner_report(row.hotkey, miners.get(&row.hotkey), worker, now_ms)),
            }
        }
        // As long as there is nobody, everybody is still to be told.
        let since_ms = if workers.is_empty() { self.since_ms } else { Some(now_ms) };
        *self = Self { since_ms, workers };
        Ok(reports)
    }
}

/// A digest of what makes a worker news.
fn state_of(row: &ResourceRow, now_ms: i64) -> [u8; 32] {
    let step = |percent: Option<f64>| percent.map(|percent| (percent / LOAD_STEP).round());
    let mut capabilities = row.capabilities.clone();
    capabilities.sort_unstable();
    let state = json!([
        row.name,
        row.deadline_at_ms >= now_ms,
        row.version,
        capabilities,
        row.public_ip,
        row.lease,
        step(row.cpu_percent),
        step(row.memory_percent),
    ]);
    Sha256::digest(state.to_string()).into()
}

fn miner_report(hotkey: Hotkey, miner: Option<&MinerRow>, worker: WorkerReport, now_ms: i64) -> MinerReport {
    let heard_at_ms = miner.and_then(|miner| miner.last_heartbeat_at_ms);
    MinerReport {
        hotkey,
        status: Presence::of(heard_at_ms.is_some_and(|at_ms| at_ms >= now_ms - MINER_DEADLINE_MS)),
        version: miner.and_then(|miner| miner.version.clone()),
        workers: vec![worker],
    }
}

fn worker_report(row: &ResourceRow, machine: Option<MachineRow>, now_ms: i64) -> WorkerReport {
    let mut network = Object::new();
    network.insert("public_ip".to_owned(), json!(row.public_ip));
    let raw: Option<Value> = machine.as_ref().and_then(|machine| serde_json::from_str(machine.raw.as_deref()?).ok());
    let part = |name: &str| raw.as_ref().and_then(|raw| raw.get(name)).filter(|part| !part.is_null()).cloned();
    let hardware = machine.as_ref().map(|machine| Hardware {
        cpu: part("cpu_info").unwrap_or_else(|| json!({})),
        memory: part("memory_info").unwrap_or_else(|| json!({})),
        storage: part("storage_info").unwrap_or_else(|| json!([])),
        gpus: machine.gpus.iter().filter_map(|card| serde_json::from_str(card).ok()).collect(),
        mb_info: part("motherboard_info").unwrap_or_else(|| json!({})),
    });
    let os_info = part("system_info").and_then(|system| match system {
        Value::Object(system) => Some(system),
        _ => None,
    });
    WorkerReport {
        worker_key: MeshWorker { hotkey: row.hotkey, worker_id: row.worker_id.clone() },
        worker_id: row.worker_id.clone(),
        worker_name: row.name.clone(),
        status: Presence::of(row.deadline_at_ms >= now_ms),
        version: row.version.clone(),
        capabilities: row.capabilities.clone(),
        lease_score: row.lease,
        last_seen_at: iso(row.last_heartbeat_at_ms),
        stats: Usage { avg_cpu_usage: row.cpu_percent, avg_memory_usage: row.memory_percent, avg_storage_usage: None },
        uptime_seconds: row.uptime_s,
        network,
        os_info: os_info.unwrap_or_default(),
        hardware,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::heartbeat::Heartbeat;
    use crate::store::lease::LeaseScore;
    use crate::store::testing::{beat, on_both_engines, store};

    const MINER: Hotkey = Hotkey([7; 32]);

    async fn hear(store: &Store, workers: &[&str], cpu_percent: f64, at_ms: i64) {
        let workers = workers.iter().map(|id| {
            let mut worker = beat(id);
            worker.usage.cpu_percent = cpu_percent;
            worker
        });
        let heartbeat = Heartbeat { hotkey: MINER, version: None, public_ip: None, workers: workers.collect(), at_ms };
        store.record_heartbeat(&heartbeat).await.unwrap();
    }

    fn ids(reports: &[ResourceReport]) -> Vec<String> {
        let workers = reports.iter().flat_map(|report| &report.miners).flat_map(|miner| &miner.workers);
        workers.map(|worker| worker.worker_id.to_string()).collect()
    }

    async fn everybody_is_told_once_and_then_only_what_changed() {
        let store = store().await;
        let mut told = Told::default();
        assert!(told.next_report(&store, 0).await.unwrap().is_empty());
        hear(&store, &["a", "b"], 1.0, 1_000).await;
        let full = told.next_report(&store, 1_000).await.unwrap();
        assert_eq!((full.len(), full[0].mode, ids(&full)), (1, ReportMode::Full, vec!["a".to_owned(), "b".to_owned()]));
        assert!(full[0].miners[0].workers[0].hardware.is_some());
        assert!(told.next_report(&store, 2_000).await.unwrap().is_empty(), "nothing changed");
        hear(&store, &["a", "b"], 2.0, 3_000).await;
        assert!(told.next_report(&store, 3_000).await.unwrap().is_empty(), "a little more load is no news");

        store.set_lease(MINER, &"b".parse().unwrap(), LeaseScore::new(0.5).unwrap(), "meshhub", 4).await.unwrap();
        let delta = told.next_report(&store, 4_000).await.unwrap();
        assert_eq!((delta[0].mode, ids(&delta)), (ReportMode::Delta, vec!["b".to_owned()]));
        let worker = &delta[0].miners[0].workers[0];
        assert_eq!((worker.lease_score, &worker.hardware, worker.status), (0.5, &None, Presence::Active));
        assert_eq!(delta[0].since.as_deref(), Some("1970-01-01T00:00:03Z"));

        // Both have fallen silent.
        let silent = told.next_report(&store, 200_000).await.unwrap();
        assert_eq!(ids(&silent), ["a", "b"]);
        assert_eq!(silent[0].miners[0].workers[0].status, Presence::Offline);
        // A new session knows nothing.
        assert_eq!(ids(&Told::default().next_report(&store, 200_000).await.unwrap()).len(), 2);
    }

    async fn a_frame_has_at_most_fifty_workers() {
        let store = store().await;
        let names: Vec<String> = (0..120).map(|number| format!("w{number:03}")).collect();
        hear(&store, &names.iter().map(String::as_str).collect::<Vec<_>>(), 1.0, 1_000).await;
        let reports = Told::default().next_report(&store, 1_000).await.unwrap();
        let sizes: Vec<usize> = reports.iter().map(|report| report.miners[0].workers.len()).collect();
        assert_eq!(sizes, [50, 50, 20]);
        assert_eq!(ids(&reports), names);
    }

    on_both_engines!(everybody_is_told_once_and_then_only_what_changed, a_frame_has_at_most_fifty_workers);
}
