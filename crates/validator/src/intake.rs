//! A heartbeat becomes facts: each worker's entry is checked, cut to size and handed to the store in one transaction.
//!
//! What a miner claims is bounded here (validator spec 3.3): so many workers, so many cards, so much text. What does
//! not fit is left out and named in the answer; the rest is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use byteleap_protocol::Object;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::gpu_signature::HOST_KEY_FIELD;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::payload::{
    HeartbeatData, HeartbeatResponse, SCHEMA_VERSION, SystemInfo, UnreadableWorker, WorkerInfo, WorkerStatus,
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::store::Store;
use crate::store::gpu::SeenGpu;
use crate::store::heartbeat::{Heartbeat, Recorded, Specs, Usage, WorkerBeat};
use crate::store::presence::{MAX_GPUS, gpu_set};

/// Workers of one heartbeat beyond this are left out.
const MAX_WORKERS: usize = 256;
/// A longer machine description is not kept; with those of its cards a worker has 64 KiB.
pub(crate) const MAX_MACHINE_BYTES: usize = 32 * 1024;
/// A longer description of one card is not kept.
const MAX_CARD_BYTES: usize = 2 * 1024;
/// A host's key is a point of P-256 in hexadecimal.
const MAX_HOST_KEY_CHARS: usize = 130;
/// So many names stand in an answer at most.
const MAX_NAMED: usize = 10;
/// So much is said of an entry that cannot be read.
const MAX_ERROR_CHARS: usize = 120;

/// What a heartbeat said and was not taken, for the answer.
#[derive(Debug, Default)]
struct LeftOut {
    /// Entries that describe no worker, each with the reason.
    unreadable: Vec<String>,
    /// Workers beyond [`MAX_WORKERS`].
    workers: usize,
    /// Workers that have cards beyond [`MAX_GPUS`].
    cards: Vec<WorkerId>,
    /// Workers whose description is too long.
    descriptions: Vec<WorkerId>,
    /// Workers that report an amount below nothing, or a share beyond all or below nothing.
    numbers: Vec<WorkerId>,
}

/// Stores a heartbeat and answers it. A failure of ours is code 1004 without any detail.
pub async fn heartbeat(store: &Store, caller: Hotkey, data: HeartbeatData, now_ms: i64) -> HeartbeatResponse {
    let (heartbeat, left_out) = read(caller, data, now_ms);
    let count = heartbeat.workers.len();
    let (code, workers_processed, message) = match store.record_heartbeat(&heartbeat).await {
        Ok(recorded) => {
            tracing::debug!(peer = %caller, workers = count, "heartbeat stored");
            if let [first, ..] = left_out.unreadable.as_slice() {
                let note = format!("{} entries of a heartbeat skipped: {first}", left_out.unreadable.len());
                count_refusal(store, caller, "unreadable_worker", &note, now_ms).await;
            }
            if let [first, ..] = left_out.numbers.as_slice() {
                let note = format!("{} workers with impossible numbers, {first} among them", left_out.numbers.len());
                count_refusal(store, caller, "impossible_number", &note, now_ms).await;
            }
            if let [first, ..] = recorded.contested_gpus.as_slice() {
                let note = format!("{} GPUs held by another worker, {first} among them", recorded.contested_gpus.len());
                count_refusal(store, caller, "gpu_of_another", &note, now_ms).await;
            }
            (ErrorCode::Success, count as u64, summary(count, &left_out, &recorded))
        }
        Err(error) => {
            tracing::error!(peer = %caller, %error, "heartbeat lost: check the database");
            (ErrorCode::HeartbeatProcessingFailed, 0, "Heartbeat processing failed".to_owned())
        }
    };
    HeartbeatResponse {
        error_code: code.number(),
        message,
        workers_processed,
        timestamp: now_ms as f64 / 1000.0,
        request_id: None,
        schema_version: SCHEMA_VERSION,
        feedback: None,
    }
}

/// Counts what was not taken, for the miner's explanation; the heartbeat stands without it.
async fn count_refusal(store: &Store, caller: Hotkey, code: &str, note: &str, now_ms: i64) {
    if let Err(error) = store.record_refusal(caller, code, note, now_ms).await {
        tracing::error!(%error, "refusal not counted: check the database");
    }
}

fn summary(count: usize, left_out: &LeftOut, recorded: &Recorded) -> String {
    fn ids(workers: &[WorkerId]) -> Vec<&str> {
        workers.iter().map(WorkerId::as_str).collect()
    }
    let mut message = format!("Processed heartbeat for {count} workers");
    if left_out.workers > 0 {
        message.push_str(&format!("; {} beyond {MAX_WORKERS} ignored", left_out.workers));
    }
    let mut name = |what: &str, names: Vec<&str>| {
        if !names.is_empty() {
            let first = names[..names.len().min(MAX_NAMED)].join(", ");
            message.push_str(&format!("; {} {what}: {first}", names.len()));
        }
    };
    name("entries skipped", left_out.unreadable.iter().map(String::as_str).collect());
    name("with more GPUs than are counted", ids(&left_out.cards));
    name("with a description too long to keep", ids(&left_out.descriptions));
    name("with impossible numbers", ids(&left_out.numbers));
    name("over the limit of active workers", ids(&recorded.over_limit));
    name("GPUs held by another worker", recorded.contested_gpus.iter().map(String::as_str).collect());
    message
}

/// The facts of a heartbeat, and what of it is none. Of entries with one worker id the last counts.
fn read(caller: Hotkey, data: HeartbeatData, now_ms: i64) -> (Heartbeat, LeftOut) {
    let mut left_out = LeftOut {
        unreadable: data.workers.unreadable.iter().map(complaint).collect(),
        workers: data.workers.readable.len().saturating_sub(MAX_WORKERS),
        ..LeftOut::default()
    };
    let mut workers = BTreeMap::new();
    for worker in data.workers.readable.into_iter().take(MAX_WORKERS) {
        workers.insert(worker.worker_id.clone(), worker);
    }
    let heartbeat = Heartbeat {
        hotkey: caller,
        version: data.miner_info.as_ref().and_then(|info| text(info.miner_version.as_deref(), 32)),
        public_ip: data.miner_info.as_ref().and_then(public_ip),
        workers: workers.into_values().map(|worker| worker_beat(worker, &mut left_out)).collect(),
        at_ms: now_ms,
    };
    (heartbeat, left_out)
}

/// An entry that cannot be read, by what may be its name, with the reason.
fn complaint(entry: &UnreadableWorker) -> String {
    let name = entry.raw.get("worker_id").and_then(Value::as_str);
    let name = text(name, 64).unwrap_or_else(|| "without a name".to_owned());
    format!("{name} ({})", text(Some(&entry.error), MAX_ERROR_CHARS).unwrap_or_default())
}

fn worker_beat(worker: WorkerInfo, left_out: &mut LeftOut) -> WorkerBeat {
    let info = &worker.system_info;
    if info.gpu_info.len().max(info.gpu_plugin.len()) > MAX_GPUS {
        left_out.cards.push(worker.worker_id.clone());
    }
    let gpu_set = gpu_set(&info.gpu_info);
    let specs = specs(info, &gpu_set);
    if has_impossible_numbers(info) {
        left_out.numbers.push(worker.worker_id.clone());
    }
    if specs.raw == NOT_KEPT {
        left_out.descriptions.push(worker.worker_id.clone());
    }
    WorkerBeat {
        name: text(worker.worker_name.as_deref(), 128),
        version: text(worker.worker_version.as_deref(), 32),
        capabilities: capabilities(&worker.capabilities),
        reported_status: Some(status_text(worker.status).to_owned()),
        specs,
        usage: usage(info),
        gpu_set,
        gpus: info.gpu_plugin.iter().take(MAX_GPUS).filter_map(seen_gpu).collect(),
        worker_id: worker.worker_id,
    }
}

/// The known ones among what a worker says it can do, in the order of the kinds.
fn capabilities(claimed: &[String]) -> Vec<String> {
    let known: BTreeSet<_> = claimed.iter().filter_map(|text| ChallengeKind::from_text(text)).collect();
    known.into_iter().map(|kind| kind.as_str().to_owned()).collect()
}

fn status_text(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Online => "online",
        WorkerStatus::Busy => "busy",
        WorkerStatus::Offline => "offline",
    }
}

/// The lasting description. Its digest leaves out what moves with every heartbeat: clock rates, free memory and space.
fn specs(info: &SystemInfo, gpu_set: &[String]) -> Specs {
    let SystemInfo { cpu_info, memory_info, system_info, motherboard_info, storage_info, gpu_info, .. } = info;
    let (cpu, system) = (cpu_info.as_ref(), system_info.as_ref());
    let mut specs = Specs {
        hash: Vec::new(),
        cpu_model: find(cpu, &["model_name", "brand", "processor"], 256),
        cpu_count: positive(info.cpu_count),
        memory_mb: positive(info.memory_total),
        disk_gb: positive(info.disk_total),
        gpu_count: Some(gpu_info.len() as i64),
        os: find(system, &["system"], 128),
        kernel: find(system, &["release"], 128),
        raw: bounded_json(
            &Description { cpu_info, gpu_info, memory_info, motherboard_info, storage_info, system_info },
            MAX_MACHINE_BYTES,
        ),
    };
    let lasting = (
        &specs.cpu_model,
        specs.cpu_count,
        specs.memory_mb,
        specs.disk_gb,
        specs.gpu_count,
        &specs.os,
        &specs.kernel,
        motherboard_info,
        gpu_set,
    );
    specs.hash = Sha256::digest(json_text(&lasting).unwrap_or_default()).to_vec();
    specs
}

/// A machine as it is shown to people.
#[derive(Serialize)]
struct Description<'a> {
    cpu_info: &'a Option<Object>,
    gpu_info: &'a [Object],
    memory_info: &'a Option<Object>,
    motherboard_info: &'a Option<Object>,
    storage_info: &'a Option<Object>,
    system_info: &'a Option<Object>,
}

/// What no machine can be: an amount below nothing, or a share that is none. Numbers that are not finite do not come so far.
fn has_impossible_numbers(info: &SystemInfo) -> bool {
    let amounts = [info.cpu_count, info.memory_total, info.memory_available, info.disk_total, info.disk_free];
    let cards = info.gpu_plugin.iter().take(MAX_GPUS);
    let mut cards = cards.flat_map(|card| CARD_AMOUNTS.iter().filter_map(|key| card.get(*key)?.as_f64()));
    amounts.iter().any(|amount| *amount < 0)
        || info.uptime_seconds.is_some_and(|seconds| seconds < 0.0)
        || [info.cpu_usage, info.memory_usage].iter().any(|share| percent(*share) != *share)
        || cards.any(|amount| amount < 0.0)
}

/// How busy a machine is; impossible amounts are left out, and impossible shares cut to possible ones.
fn usage(info: &SystemInfo) -> Usage {
    let uptime_s = info.uptime_seconds.filter(|seconds| *seconds >= 0.0 && seconds.is_finite());
    Usage {
        cpu_percent: percent(info.cpu_usage),
        memory_percent: percent(info.memory_usage),
        memory_free_mb: Some(info.memory_available).filter(|free| *free >= 0),
        disk_free_gb: Some(info.disk_free).filter(|free| *free >= 0),
        uptime_s: uptime_s.map(|seconds| seconds as i64),
        public_ip: public_ip(info),
    }
}

fn percent(share: f64) -> f64 {
    if share.is_finite() { share.clamp(0.0, 100.0) } else { 0.0 }
}

/// Under which keys a card of the compute plugin says how much it has.
const CARD_AMOUNTS: [&str; 5] = ["total_memory", "gpu_cores", "multiprocessor_count", "gpu_clock_mhz", "clock_rate"];

/// A card of the compute plugin; none without a GPU UUID, since nothing else names a card across machines.
fn seen_gpu(card: &Object) -> Option<SeenGpu> {
    let number = |keys: &[&str]| keys.iter().find_map(|key| card.get(*key).and_then(Value::as_i64).and_then(positive));
    Some(SeenGpu {
        uuid: find(Some(card), &["uuid"], 64).filter(|uuid| uuid.starts_with("GPU-"))?,
        model: find(Some(card), &["name"], 256),
        memory_mb: number(&["total_memory"]).map(|bytes| bytes / (1024 * 1024)),
        compute_capability: compute_capability(card),
        sm_count: number(&["gpu_cores", "multiprocessor_count"]),
        clock_mhz: number(&["gpu_clock_mhz", "clock_rate"]),
        architecture: find(Some(card), &["architecture"], 64),
        host_key: find(Some(card), &[HOST_KEY_FIELD], MAX_HOST_KEY_CHARS),
        raw: bounded_json(card, MAX_CARD_BYTES),
    })
}

/// `[8, 9]` and `"8.9"` alike.
fn compute_capability(card: &Object) -> Option<String> {
    match card.get("compute_capability")? {
        Value::Array(parts) => {
            let parts: Vec<String> = parts.iter().filter_map(Value::as_i64).map(|part| part.to_string()).collect();
            text(Some(&parts.join(".")), 16)
        }
        Value::String(joined) => text(Some(joined), 16),
        _ => None,
    }
}

fn public_ip(info: &SystemInfo) -> Option<IpAddr> {
    info.public_ip.as_deref()?.trim().parse().ok()
}

fn positive(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

/// The first of these keys that holds a non-empty text.
fn find(object: Option<&Object>, keys: &[&str], max_chars: usize) -> Option<String> {
    keys.iter().find_map(|key| text(object?.get(*key)?.as_str(), max_chars))
}

/// A text without control characters, cut to a column's length; none if nothing is left.
fn text(claimed: Option<&str>, max_chars: usize) -> Option<String> {
    let kept: String = claimed?.trim().chars().filter(|character| !character.is_control()).take(max_chars).collect();
    (!kept.is_empty()).then_some(kept)
}

/// What stands for a description that is too long.
const NOT_KEPT: &str = "{}";

/// JSON text, or [`NOT_KEPT`] where it would be too long. A NUL is written as an escape, which PostgreSQL refuses only in
/// its own JSON types, and this column is text.
pub(crate) fn bounded_json(value: &impl Serialize, max_bytes: usize) -> String {
    json_text(value).filter(|json| json.len() <= max_bytes).unwrap_or_else(|| NOT_KEPT.to_owned())
}

/// What was read as JSON is JSON again.
fn json_text(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::lenient;
    use serde_json::json;

    use super::*;
    use crate::store::testing::{self, on_both_engines};

    const MINER: Hotkey = Hotkey([1; 32]);

    fn data(workers: &Value) -> HeartbeatData {
        serde_json::from_value(json!({ "hotkey": "ignored", "workers": workers })).unwrap()
    }

    fn first(worker: Value) -> WorkerBeat {
        read(MINER, data(&json!([worker])), 0).0.workers.remove(0)
    }

    #[test]
    fn of_entries_with_one_id_the_last_counts() {
        let twice = json!([{ "worker_id": "w", "worker_name": "a" }, { "worker_id": " w ", "worker_name": "b" }]);
        let (heartbeat, _) = read(MINER, data(&twice), 0);
        assert_eq!(heartbeat.workers.len(), 1);
        assert_eq!(heartbeat.workers[0].name.as_deref(), Some("b"));
    }

    #[test]
    fn only_known_capabilities_are_kept() {
        let worker = first(json!({ "worker_id": "w", "capabilities": ["gpu_matrix", "mining", "cpu_matrix"] }));
        assert_eq!(worker.capabilities, ["cpu_matrix", "gpu_matrix"]);
    }

    #[test]
    fn texts_are_cut_to_their_columns_and_lose_what_is_not_printable() {
        let worker = first(json!({ "worker_id": "w", "worker_name": format!("a\u{0}{}", "é".repeat(200)) }));
        let name = worker.name.unwrap();
        assert!(name.starts_with("aé") && name.chars().count() == 128);
    }

    #[test]
    fn the_digest_of_a_machine_ignores_what_moves() {
        let machine = |used: i64, total: i64| {
            let info = json!({ "memory_total": total, "memory_available": used, "uptime_seconds": used,
                               "memory_info": { "available": used }, "cpu_info": { "model_name": "cpu" } });
            first(json!({ "worker_id": "w", "system_info": info })).specs.hash
        };
        assert_eq!(machine(1, 64), machine(2, 64));
        assert_ne!(machine(1, 64), machine(1, 128));
    }

    #[test]
    fn presence_is_for_driver_cards_and_inventory_for_real_uuids() {
        let cards = json!({
            "gpu_info": [{ "uuid": "GPU-b" }, { "uuid": "", "gpu_uuid": "GPU-a" }, { "id": "-1" }, { "id": 3 }],
            "gpu_plugin": [
                { "uuid": "GPU-a", "name": "RTX", "total_memory": 25757220864_i64, "compute_capability": [8, 9] },
                { "uuid": "0000:01:00.0" }
            ]
        });
        let worker = first(json!({ "worker_id": "w", "system_info": cards }));
        assert_eq!(worker.gpu_set, ["GPU-a", "GPU-b"]);
        assert_eq!(worker.gpus.len(), 1);
        assert_eq!(
            (worker.gpus[0].memory_mb, worker.gpus[0].compute_capability.as_deref()),
            (Some(24564), Some("8.9"))
        );
    }

    async fn workers_beyond_the_limits_are_named_in_the_answer() {
        let store = testing::store().await;
        let many: Vec<_> = (0..300).map(|number| json!({ "worker_id": format!("w{number:03}") })).collect();
        let answer = heartbeat(&store, MINER, data(&many.into()), 0).await;
        assert_eq!((answer.error_code, answer.workers_processed), (0, 256));
        assert!(
            answer.message.starts_with(
                "Processed heartbeat for 256 workers; 44 beyond 256 ignored; \
                 156 over the limit of active workers: w100, w101"
            ),
            "{}",
            answer.message
        );
        assert_eq!(store.workers().await.unwrap().len(), 256);
    }

    async fn a_bad_entry_is_skipped_and_named_and_the_others_are_stored() {
        let store = testing::store().await;
        let workers = json!([
            { "worker_id": "good" },
            { "worker_id": "bad", "system_info": { "memory_total": "'; DROP TABLE workers; --" } },
            { "worker_id": "x".repeat(257) },
            { "worker_name": "nobody" },
            7,
            { "worker_id": "crowded", "system_info": { "gpu_info": vec![json!({ "uuid": "GPU-a" }); 17] } },
            { "worker_id": "verbose", "system_info": { "cpu_info": { "flags": "f".repeat(MAX_MACHINE_BYTES) } } },
        ]);
        let answer = heartbeat(&store, MINER, data(&workers), 0).await;
        assert_eq!((answer.error_code, answer.workers_processed), (0, 3));
        for said in [
            "Processed heartbeat for 3 workers; 4 entries skipped: bad (",
            "1 with more GPUs than are counted: crowded",
            "1 with a description too long to keep: verbose",
        ] {
            assert!(answer.message.contains(said), "{said}\n{}", answer.message);
        }
        assert!(!answer.message.contains("DROP"), "{}", answer.message);
        let stored: Vec<_> = store.workers().await.unwrap().into_iter().map(|worker| worker.worker_id).collect();
        let refusals = store.refusals_of(MINER).await.unwrap();
        assert_eq!(refusals.iter().map(|refusal| refusal.code.as_str()).collect::<Vec<_>>(), ["unreadable_worker"]);
        assert_eq!(stored, ["crowded", "good", "verbose"].map(|id| id.parse().unwrap()));
    }

    async fn numbers_that_are_not_finite_cost_their_worker_and_no_other() {
        let store = testing::store().await;
        let named =
            [("nan", "NaN"), ("above", "Infinity"), ("below", "-Infinity"), ("text", r#""1e999""#), ("good", "12.5")];
        let workers = named.map(|(name, number)| {
            format!(r#"{{ "worker_id": "{name}", "system_info": {{ "cpu_usage": {number} }} }}"#)
        });
        let text = format!(r#"{{ "hotkey": "", "workers": [{}] }}"#, workers.join(", "));
        let answer = heartbeat(&store, MINER, lenient::from_str(&text).unwrap(), 0).await;
        assert_eq!((answer.error_code, answer.workers_processed), (0, 1));
        assert!(answer.message.contains("4 entries skipped: nan (expected a finite number"), "{}", answer.message);
        let stored: Vec<_> = store.workers().await.unwrap().into_iter().map(|worker| worker.worker_id).collect();
        assert_eq!(stored, ["good".parse().unwrap()]);
        assert_eq!(refused(&store, MINER).await, [("unreadable_worker".to_owned(), 1)]);
    }

    async fn impossible_numbers_are_left_out_named_and_counted() {
        let store = testing::store().await;
        let liar = json!({ "worker_id": "liar", "system_info": {
            "cpu_count": -8, "cpu_usage": -5, "memory_usage": 1e300, "memory_total": -1, "memory_available": i64::MIN,
            "disk_total": -1, "disk_free": -2, "uptime_seconds": -1e300,
            "gpu_plugin": [{ "uuid": "GPU-1", "total_memory": -25757220864_i64, "gpu_cores": -128, "clock_rate": -1 }]
        } });
        let honest = json!({ "worker_id": "honest", "system_info": { "cpu_usage": 100, "uptime_seconds": 1e12 } });
        let beat = first(liar.clone());
        assert_eq!((beat.usage.cpu_percent, beat.usage.memory_percent), (0.0, 100.0));
        assert_eq!((beat.usage.memory_free_mb, beat.usage.disk_free_gb, beat.usage.uptime_s), (None, None, None));
        assert_eq!((beat.specs.cpu_count, beat.specs.memory_mb, beat.specs.disk_gb), (None, None, None));
        assert_eq!((beat.gpus[0].memory_mb, beat.gpus[0].sm_count, beat.gpus[0].clock_mhz), (None, None, None));
        let answer = heartbeat(&store, MINER, data(&json!([liar, honest])), 0).await;
        assert_eq!((answer.error_code, answer.workers_processed), (0, 2));
        assert!(answer.message.ends_with("; 1 with impossible numbers: liar"), "{}", answer.message);
        assert_eq!(refused(&store, MINER).await, [("impossible_number".to_owned(), 1)]);
    }

    async fn statements_in_names_are_kept_as_names() {
        let store = testing::store().await;
        let bystander = Hotkey([2; 32]);
        heartbeat(&store, bystander, data(&json!([{ "worker_id": "bystander" }])), 0).await;
        let names =
            ["w'); DROP TABLE workers; --", "\" OR 1=1; --", "$1", "100% \\ ` ; /* */", "'; DELETE FROM gpus; --"];
        let workers: Vec<_> = names
            .iter()
            .map(|name| {
                let card = json!({ "uuid": format!("GPU-{name}"), "name": name, "architecture": name });
                let info = json!({ "cpu_info": { "model_name": name }, "system_info": { "system": name, "release": name },
                                   "gpu_info": [card], "gpu_plugin": [card] });
                json!({ "worker_id": name, "worker_name": name, "worker_version": name, "system_info": info })
            })
            .collect();
        // Twice: what is new and what is known take different statements.
        for at_ms in [0, 60_000] {
            let answer = heartbeat(&store, MINER, data(&workers.clone().into()), at_ms).await;
            assert_eq!((answer.error_code, answer.workers_processed), (0, 5), "{}", answer.message);
        }
        let stored = store.workers().await.unwrap();
        let (own, others): (Vec<_>, Vec<_>) = stored.into_iter().partition(|worker| worker.hotkey == MINER);
        let own: BTreeSet<_> = own.iter().map(|worker| (worker.worker_id.as_str(), worker.name.as_deref())).collect();
        assert_eq!(own, names.map(|name| (name, Some(name))).into());
        assert_eq!(others.len(), 1);
        // A claim by the same names finds each card as it was written.
        let answer = heartbeat(&store, bystander, data(&workers.into()), 60_000).await;
        assert!(answer.message.contains("5 GPUs held by another worker: "), "{}", answer.message);
        assert!(names.iter().all(|name| answer.message.contains(&format!("GPU-{name}"))), "{}", answer.message);
        assert_eq!(refused(&store, MINER).await, []);
    }

    async fn refused(store: &Store, hotkey: Hotkey) -> Vec<(String, i64)> {
        store.refusals_of(hotkey).await.unwrap().into_iter().map(|refusal| (refusal.code, refusal.times)).collect()
    }

    async fn a_failure_of_ours_is_code_1004_without_detail() {
        let store = testing::store().await;
        store.close().await;
        let answer = heartbeat(&store, MINER, data(&json!([{ "worker_id": "w" }])), 0).await;
        assert_eq!((answer.error_code, answer.workers_processed), (1004, 0));
        assert_eq!(answer.message, "Heartbeat processing failed");
    }

    on_both_engines!(
        a_bad_entry_is_skipped_and_named_and_the_others_are_stored,
        workers_beyond_the_limits_are_named_in_the_answer,
        numbers_that_are_not_finite_cost_their_worker_and_no_other,
        impossible_numbers_are_left_out_named_and_counted,
        statements_in_names_are_kept_as_names,
        a_failure_of_ours_is_code_1004_without_detail,
    );
}
