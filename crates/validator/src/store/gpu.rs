//! The inventory of cards: who holds which UUID, and who else says so.
//!
//! A card stays with the worker that reported it first while that worker reports it at least every half hour; other
//! claims are kept beside it and mark it contested (validator spec 3.3). Only real GPU UUIDs come here: PCI addresses
//! repeat across machines.

use sqlx::{Any, Row, Transaction};

use super::{StoreError, WorkerKey};

/// A holder that has been silent about a card for so long loses it to the next claim.
pub const OWNERSHIP_LAPSE_MS: i64 = 30 * 60_000;

/// A card as a heartbeat describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenGpu {
    /// Its UUID (`GPU-…`), global.
    pub uuid: String,
    /// Its model name.
    pub model: Option<String>,
    /// Its memory in MiB.
    pub memory_mb: Option<i64>,
    /// Compute capability, as `8.9`.
    pub compute_capability: Option<String>,
    /// Streaming multiprocessors.
    pub sm_count: Option<i64>,
    /// Clock in MHz.
    pub clock_mhz: Option<i64>,
    /// Architecture name.
    pub architecture: Option<String>,
    /// The whole entry as JSON text, for display.
    pub raw: String,
}

/// Records that `worker` reports a card; false when another worker holds it.
pub(super) async fn claim(
    transaction: &mut Transaction<'_, Any>,
    worker: WorkerKey,
    gpu: &SeenGpu,
    at_ms: i64,
) -> Result<bool, StoreError> {
    // One statement decides: insert, refresh by the holder, or take over after silence; else no row comes back.
    let held = sqlx::query(
        "INSERT INTO gpus (uuid, worker, model, memory_mb, cc, sm_count, clock_mhz, arch, raw, first_seen_at,
                           last_seen_at, owner_since)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $10)
         ON CONFLICT (uuid) DO UPDATE SET
             owner_since = CASE WHEN gpus.worker = excluded.worker THEN gpus.owner_since
                                ELSE excluded.owner_since END,
             worker = excluded.worker, model = excluded.model, memory_mb = excluded.memory_mb, cc = excluded.cc,
             sm_count = excluded.sm_count, clock_mhz = excluded.clock_mhz, arch = excluded.arch, raw = excluded.raw,
             last_seen_at = excluded.last_seen_at
         WHERE gpus.worker = excluded.worker OR gpus.last_seen_at < $11
         RETURNING id",
    )
    .bind(gpu.uuid.as_str())
    .bind(worker.0)
    .bind(gpu.model.clone())
    .bind(gpu.memory_mb)
    .bind(gpu.compute_capability.clone())
    .bind(gpu.sm_count)
    .bind(gpu.clock_mhz)
    .bind(gpu.architecture.clone())
    .bind(gpu.raw.as_str())
    .bind(at_ms)
    .bind(at_ms - OWNERSHIP_LAPSE_MS)
    .fetch_optional(&mut **transaction)
    .await?;
    if held.is_some() {
        return Ok(true);
    }
    let contested = sqlx::query("UPDATE gpus SET contested_at = $1 WHERE uuid = $2 RETURNING id")
        .bind(at_ms)
        .bind(gpu.uuid.as_str())
        .fetch_one(&mut **transaction)
        .await?;
    sqlx::query(
        "INSERT INTO gpu_claims (gpu, worker, first_at, last_at, beats) VALUES ($1, $2, $3, $3, 1)
         ON CONFLICT (gpu, worker) DO UPDATE SET last_at = excluded.last_at, beats = gpu_claims.beats + 1",
    )
    .bind(contested.try_get::<i64, _>("id")?)
    .bind(worker.0)
    .bind(at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::hotkey::Hotkey;

    use super::super::Store;
    use super::super::heartbeat::{Heartbeat, WorkerBeat};
    use super::super::testing::{beat, on_both_engines, store};
    use super::*;

    async fn report(store: &Store, miner: u8, at_ms: i64) -> Vec<String> {
        let gpu = SeenGpu { uuid: "GPU-1".to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        let worker = WorkerBeat { gpus: vec![gpu], ..beat("w") };
        let hotkey = Hotkey([miner; 32]);
        let heartbeat = Heartbeat { hotkey, version: None, public_ip: None, workers: vec![worker], at_ms };
        store.record_heartbeat(&heartbeat).await.unwrap().contested_gpus
    }

    async fn the_first_reporter_keeps_a_card_until_it_falls_silent() {
        let store = store().await;
        let none: [&str; 0] = [];
        assert_eq!(report(&store, 1, 0).await, none);
        assert_eq!(report(&store, 2, 60_000).await, ["GPU-1"]);
        assert_eq!(report(&store, 1, OWNERSHIP_LAPSE_MS).await, none);
        assert_eq!(report(&store, 2, 2 * OWNERSHIP_LAPSE_MS).await, ["GPU-1"]);
        assert_eq!(report(&store, 2, 2 * OWNERSHIP_LAPSE_MS + 1).await, none);
        assert_eq!(report(&store, 1, 2 * OWNERSHIP_LAPSE_MS + 2).await, ["GPU-1"]);
    }

    on_both_engines!(the_first_reporter_keeps_a_card_until_it_falls_silent,);
}
