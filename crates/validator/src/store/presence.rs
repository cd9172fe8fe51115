//! Since when, and from where: presence bitmaps and address runs, the inputs of availability.
//!
//! A day of a worker is 288 bits, one for every five minutes (UTC) in which a heartbeat named it, kept apart by the
//! set of GPUs it reported. An address run lasts until another address is seen; an empty address breaks nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use byteleap_protocol::Object;
use byteleap_scoring::facts::GpuSet;
use byteleap_scoring::presence::{Bucket, DayBits};
use sha2::{Digest, Sha256};
use sqlx::{Any, Row, Transaction};

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

/// Sets the bit of now.
pub(super) async fn mark(
    transaction: &mut Transaction<'_, Any>,
    worker: WorkerKey,
    gpus: &[String],
    at_ms: i64,
) -> Result<(), StoreError> {
    let bucket = Bucket::at(at_ms);
    let set = gpu_set_row(transaction, gpus).await?;
    let row = sqlx::query("SELECT bits FROM presence_days WHERE worker = $1 AND day = $2 AND gpu_set = $3")
        .bind(worker.0)
        .bind(bucket.day())
        .bind(set)
        .fetch_optional(&mut **transaction)
        .await?;
    let mut bits = row.map_or(Ok(DayBits::EMPTY), |row| bits_of(row.try_get("bits")?))?;
    if bits.contains(bucket) {
        return Ok(());
    }
    bits.insert(bucket);
    sqlx::query(
        "INSERT INTO presence_days (worker, day, gpu_set, bits) VALUES ($1, $2, $3, $4)
         ON CONFLICT (worker, day, gpu_set) DO UPDATE SET bits = excluded.bits",
    )
    .bind(worker.0)
    .bind(bucket.day())
    .bind(set)
    .bind(bits.as_bytes().to_vec())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Prolongs the run of this address, or begins one.
pub(super) async fn note_address(
    transaction: &mut Transaction<'_, Any>,
    worker: WorkerKey,
    ip: IpAddr,
    at_ms: i64,
) -> Result<(), StoreError> {
    let prolonged = sqlx::query(
        "UPDATE worker_addresses SET to_at = $1 WHERE worker = $2 AND ip = $3
         AND from_at = (SELECT MAX(from_at) FROM worker_addresses WHERE worker = $2)",
    )
    .bind(at_ms)
    .bind(worker.0)
    .bind(ip.to_string())
    .execute(&mut **transaction)
    .await?
    .rows_affected();
    if prolonged == 0 {
        sqlx::query(
            "INSERT INTO worker_addresses (worker, from_at, to_at, ip) VALUES ($1, $2, $2, $3)
             ON CONFLICT (worker, from_at) DO UPDATE SET ip = excluded.ip",
        )
        .bind(worker.0)
        .bind(at_ms)
        .bind(ip.to_string())
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// The row of a set of GPUs, made on first sight. One that is there is only read: many heartbeats share the empty set, and
/// none shall wait for another's end.
pub(super) async fn gpu_set_row(transaction: &mut Transaction<'_, Any>, gpus: &[String]) -> Result<i64, StoreError> {
    let distinct: Vec<String> = gpus.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let uuids = json_of(&distinct);
    let hash = Sha256::digest(&uuids).to_vec();
    if let Some(id) = find_gpu_set(transaction, &hash).await? {
        return Ok(id);
    }
    sqlx::query("INSERT INTO gpu_sets (hash, uuids) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING")
        .bind(hash.clone())
        .bind(uuids)
        .execute(&mut **transaction)
        .await?;
    find_gpu_set(transaction, &hash).await?.ok_or(StoreError::Engine(sqlx::Error::RowNotFound))
}

async fn find_gpu_set(transaction: &mut Transaction<'_, Any>, hash: &[u8]) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query("SELECT id FROM gpu_sets WHERE hash = $1")
        .bind(hash.to_vec())
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|row| row.try_get("id")).transpose()?)
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
    use byteleap_protocol::hotkey::Hotkey;
    use byteleap_scoring::presence::{BUCKET_MS, BUCKETS_PER_DAY};

    use super::super::Store;
    use super::super::heartbeat::{Heartbeat, Usage, WorkerBeat};
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
