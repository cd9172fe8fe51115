//! Since when, and from where: presence bitmaps and address runs, the inputs of availability.
//!
//! A day of a worker is 288 bits, one for every five minutes (UTC) in which a heartbeat named it, kept apart by the
//! set of GPUs it reported. An address run lasts until another address is seen; an empty address breaks nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use byteleap_protocol::Object;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_scoring::facts::GpuSet;
use byteleap_scoring::presence::{Bucket, DayBits};
use sha2::{Digest, Sha256};
use sqlx::{Any, Row, Transaction};

use super::bulk::{bulk, chunks, list, rows};
use super::heartbeat::WorkerBeat;
use super::{StoreError, WorkerKey, json_of};

/// Cards of one worker beyond this are left out.
pub const MAX_GPUS: usize = 16;
/// A card's name is cut to this length.
const MAX_NAME_CHARS: usize = 64;

/// One worker on one day with one set of GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRow {
    /// Whose.
    pub worker: WorkerKey,
    /// Days since 1970-01-01.
    pub day: i64,
    /// The GPUs it reported then.
    pub gpus: GpuSet,
    /// When.
    pub bits: DayBits,
}

/// The set of cards that a heartbeat's list shows, sorted: of each the first non-empty of `uuid`, `gpu_uuid` and `id`
/// (validator spec 5.3). Cards beyond [`MAX_GPUS`] are left out.
pub fn gpu_set(cards: &[Object]) -> Vec<String> {
    let name = |card: &Object| ["uuid", "gpu_uuid", "id"].iter().find_map(|key| printable(card.get(*key)?.as_str()?));
    let names = cards.iter().take(MAX_GPUS).filter_map(name);
    names.filter(|name| name != "-1").collect::<BTreeSet<_>>().into_iter().collect()
}

/// A card's name without what is not printable; none if nothing is left.
fn printable(name: &str) -> Option<String> {
    let kept = name.trim().chars().filter(|character| !character.is_control());
    let kept: String = kept.take(MAX_NAME_CHARS).collect();
    (!kept.is_empty()).then_some(kept)
}

/// Presence of the workers of the miner `$1` on the day `$2`.
pub(super) const TODAY: &str = "SELECT p.worker, p.gpu_set, p.bits, s.hash FROM workers w
     JOIN presence_days p ON p.worker = w.id JOIN gpu_sets s ON s.id = p.gpu_set
     WHERE w.hotkey = $1 AND p.day = $2";

/// Sets the bit of now for each of a miner's workers.
pub(super) async fn mark(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
    beats: &[(WorkerKey, &WorkerBeat)],
    at_ms: i64,
) -> Result<(), StoreError> {
    let bucket = Bucket::at(at_ms);
    let found = sqlx::query(TODAY).bind(hotkey.to_string()).bind(bucket.day()).fetch_all(&mut **transaction).await?;
    let mut days: HashMap<(i64, Vec<u8>), (i64, DayBits)> = HashMap::with_capacity(found.len());
    for row in &found {
        let set = (row.try_get("gpu_set")?, bits_of(row.try_get("bits")?)?);
        days.insert((row.try_get("worker")?, row.try_get("hash")?), set);
    }
    let (mut marked, mut first) = (Vec::new(), Vec::new());
    for (worker, beat) in beats {
        let (hash, _) = gpu_set_text(&beat.gpu_set);
        match days.get(&(worker.0, hash)) {
            Some((set, bits)) => marked.push((worker.0, *set, *bits)),
            None => first.push((worker.0, beat.gpu_set.as_slice())),
        }
    }
    marked.retain(|(_, _, bits)| !bits.contains(bucket));
    let sets = gpu_set_rows(transaction, first.iter().map(|(_, gpus)| *gpus)).await?;
    marked.extend(first.iter().zip(sets).map(|((worker, _), set)| (*worker, set, DayBits::EMPTY)));
    marked.iter_mut().for_each(|(_, _, bits)| bits.insert(bucket));
    for marked in chunks(&marked) {
        let rows = rows(marked.len(), 3, 2, ", $1");
        let mut query = bulk(format!(
            "INSERT INTO presence_days (worker, gpu_set, bits, day) VALUES {rows}
             ON CONFLICT (worker, day, gpu_set) DO UPDATE SET bits = excluded.bits"
        ))
        .bind(bucket.day());
        for (worker, set, bits) in marked {
            query = query.bind(*worker).bind(*set).bind(bits.as_bytes().to_vec());
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// The latest address of each worker of the miner `$1`, with the begin of its run.
pub(super) const LATEST_ADDRESSES: &str = "SELECT a.worker, a.from_at, a.ip FROM workers w
     JOIN worker_addresses a ON a.worker = w.id
     WHERE w.hotkey = $1 AND a.from_at = (SELECT MAX(b.from_at) FROM worker_addresses b WHERE b.worker = w.id)";

/// Prolongs the runs of these workers' addresses, or begins new ones.
pub(super) async fn note_addresses(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
    beats: &[(WorkerKey, &WorkerBeat)],
    at_ms: i64,
) -> Result<(), StoreError> {
    let seen: Vec<(i64, String)> =
        beats.iter().filter_map(|(worker, beat)| Some((worker.0, beat.usage.public_ip?.to_string()))).collect();
    if seen.is_empty() {
        return Ok(());
    }
    let latest = sqlx::query(LATEST_ADDRESSES).bind(hotkey.to_string()).fetch_all(&mut **transaction).await?;
    let mut runs: HashMap<i64, (i64, String)> = HashMap::with_capacity(latest.len());
    for row in &latest {
        runs.insert(row.try_get("worker")?, (row.try_get("from_at")?, row.try_get("ip")?));
    }
    let (same, moved): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|(worker, ip)| runs.get(worker).is_some_and(|(_, last)| last == ip));
    for workers in chunks(&same) {
        let list = list(workers.len(), 2);
        let mut query = bulk(format!(
            "UPDATE worker_addresses SET to_at = $1 WHERE worker IN ({list})
             AND from_at = (SELECT MAX(b.from_at) FROM worker_addresses b WHERE b.worker = worker_addresses.worker)"
        ))
        .bind(at_ms);
        for (worker, _) in workers {
            query = query.bind(*worker);
        }
        query.execute(&mut **transaction).await?;
    }
    for moved in chunks(&moved) {
        let rows = rows(moved.len(), 2, 2, ", $1, $1");
        let mut query = bulk(format!(
            "INSERT INTO worker_addresses (worker, ip, from_at, to_at) VALUES {rows}
             ON CONFLICT (worker, from_at) DO UPDATE SET to_at = excluded.to_at, ip = excluded.ip"
        ))
        .bind(at_ms);
        for (worker, ip) in moved {
            query = query.bind(*worker).bind(ip.clone());
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// The row of a set of GPUs, made on first sight.
pub(super) async fn gpu_set_row(transaction: &mut Transaction<'_, Any>, gpus: &[String]) -> Result<i64, StoreError> {
    let rows = gpu_set_rows(transaction, [gpus].into_iter()).await?;
    rows.first().copied().ok_or(StoreError::Engine(sqlx::Error::RowNotFound))
}

/// The rows of sets of GPUs, made on first sight. One that is there is only read: many heartbeats share the empty set, and
/// none shall wait for another's end.
async fn gpu_set_rows<'a>(
    transaction: &mut Transaction<'_, Any>,
    sets: impl Iterator<Item = &'a [String]>,
) -> Result<Vec<i64>, StoreError> {
    let hashes: Vec<(Vec<u8>, String)> = sets.map(gpu_set_text).collect();
    let distinct: BTreeMap<&Vec<u8>, &String> = hashes.iter().map(|(hash, uuids)| (hash, uuids)).collect();
    let mut found = find_gpu_sets(transaction, &distinct.keys().copied().collect::<Vec<_>>()).await?;
    let missing: Vec<_> = distinct.into_iter().filter(|(hash, _)| !found.contains_key(*hash)).collect();
    for sets in chunks(&missing) {
        let rows = rows(sets.len(), 2, 1, "");
        let text = format!("INSERT INTO gpu_sets (hash, uuids) VALUES {rows} ON CONFLICT (hash) DO NOTHING");
        let mut query = bulk(text);
        for (hash, uuids) in sets {
            query = query.bind((*hash).clone()).bind((*uuids).clone());
        }
        query.execute(&mut **transaction).await?;
    }
    found.extend(find_gpu_sets(transaction, &missing.iter().map(|(hash, _)| *hash).collect::<Vec<_>>()).await?);
    let row_of = |hash: &Vec<u8>| found.get(hash).copied().ok_or(StoreError::Engine(sqlx::Error::RowNotFound));
    hashes.iter().map(|(hash, _)| row_of(hash)).collect()
}

/// A set of GPUs as it is stored: its digest and its JSON.
fn gpu_set_text(gpus: &[String]) -> (Vec<u8>, String) {
    let distinct: Vec<String> = gpus.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let uuids = json_of(&distinct);
    (Sha256::digest(&uuids).to_vec(), uuids)
}

async fn find_gpu_sets(
    transaction: &mut Transaction<'_, Any>,
    hashes: &[&Vec<u8>],
) -> Result<HashMap<Vec<u8>, i64>, StoreError> {
    let mut found = HashMap::with_capacity(hashes.len());
    for hashes in chunks(hashes) {
        let list = list(hashes.len(), 1);
        let mut query = bulk(format!("SELECT id, hash FROM gpu_sets WHERE hash IN ({list})"));
        for hash in hashes {
            query = query.bind((*hash).clone());
        }
        for row in query.fetch_all(&mut **transaction).await? {
            found.insert(row.try_get("hash")?, row.try_get("id")?);
        }
    }
    Ok(found)
}

pub(super) fn bits_of(bytes: Vec<u8>) -> Result<DayBits, StoreError> {
    let length = bytes.len();
    bytes.try_into().map(DayBits::from_bytes).map_err(|_| StoreError::Corrupt {
        table: "presence_days",
        what: "bitmap length",
        value: length.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use byteleap_scoring::presence::{BUCKET_MS, BUCKETS_PER_DAY};

    use super::super::Store;
    use super::super::heartbeat::{Heartbeat, Usage};
    use super::super::snapshot::Snapshot;
    use super::super::testing::{self, on_both_engines, store};
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    /// The buckets of some rows, as `unix seconds / 300`.
    fn buckets(rows: &[PresenceRow]) -> Vec<i64> {
        let of = |row: &PresenceRow| {
            let (first, bits) = (row.day * BUCKETS_PER_DAY, row.bits);
            (first..first + BUCKETS_PER_DAY).filter(move |index| bits.contains(Bucket::at(index * BUCKET_MS)))
        };
        rows.iter().flat_map(of).collect()
    }

    async fn beat(store: &Store, at_ms: i64, gpus: &[&str], ip: Option<&str>) {
        let worker = WorkerBeat {
            gpu_set: gpus.iter().map(|uuid| (*uuid).to_owned()).collect(),
            usage: Usage { public_ip: ip.map(|ip| ip.parse().unwrap()), ..Usage::default() },
            ..testing::beat("w")
        };
        let heartbeat =
            Heartbeat { hotkey: Hotkey([1; 32]), version: None, public_ip: None, workers: vec![worker], at_ms };
        store.record_heartbeat(&heartbeat).await.unwrap();
    }

    async fn a_bucket_is_set_once_and_days_begin_at_midnight_utc() {
        let store = store().await;
        for at_ms in [10 * DAY_MS - 1, 10 * DAY_MS, 10 * DAY_MS + 60_000, 10 * DAY_MS + BUCKET_MS] {
            beat(&store, at_ms, &[], None).await;
        }
        let mut snapshot = store.snapshot().await.unwrap();
        assert_eq!(buckets(&snapshot.presence_on(9).await.unwrap()), [10 * 288 - 1]);
        assert_eq!(buckets(&snapshot.presence_on(10).await.unwrap()), [10 * 288, 10 * 288 + 1]);
    }

    async fn presence_is_kept_apart_by_gpu_set() {
        let store = store().await;
        beat(&store, 0, &["GPU-b", "GPU-a", "GPU-a"], None).await;
        beat(&store, BUCKET_MS, &["GPU-a", "GPU-b"], None).await;
        beat(&store, BUCKET_MS, &["GPU-a"], None).await;
        let rows = store.snapshot().await.unwrap().presence_on(0).await.unwrap();
        let names = |row: &PresenceRow| row.gpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let seen: Vec<_> = rows.iter().map(|row| (names(row), buckets(std::slice::from_ref(row)))).collect();
        assert_eq!(seen, [("GPU-a GPU-b".to_owned(), vec![0, 1]), ("GPU-a".to_owned(), vec![1])]);
    }

    async fn an_empty_address_does_not_break_a_run() {
        let store = store().await;
        let addresses = [Some("192.0.2.1"), None, Some("192.0.2.1"), Some("192.0.2.2"), Some("192.0.2.1")];
        for (minute, ip) in addresses.into_iter().enumerate() {
            beat(&store, minute as i64 * 60_000, &[], ip).await;
        }
        let mut snapshot = store.snapshot().await.unwrap();
        let changes = async |snapshot: &mut Snapshot, minute: i64| {
            snapshot.address_changes(minute * 60_000).await.unwrap().first().map_or(0, |(_, changes)| *changes)
        };
        assert_eq!(changes(&mut snapshot, 2).await, 2, "the first run reaches to minute 2");
        assert_eq!(changes(&mut snapshot, 3).await, 1);
        assert_eq!(changes(&mut snapshot, 4).await, 0);
    }

    on_both_engines!(
        a_bucket_is_set_once_and_days_begin_at_midnight_utc,
        presence_is_kept_apart_by_gpu_set,
        an_empty_address_does_not_break_a_run,
    );
}
