//! The inventory of cards: who holds which UUID, and who else says so.
//!
//! A card stays with the worker that reported it first while that worker reports it at least every half hour; other
//! claims are kept beside it and mark it contested (validator spec 3.3). Only real GPU UUIDs come here: PCI addresses
//! repeat across machines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use byteleap_protocol::Object;
use byteleap_protocol::gpu_signature::{CommitmentKey, HOST_KEY_FIELD};
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{GpuUuid, WorkerId};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Any, Row, Transaction};

use super::bulk::{bulk, chunks, list, rows};
use super::heartbeat::WorkerBeat;
use super::{Store, StoreError, WorkerKey, double_or_null, parsed};

/// A holder that has been silent about a card for so long loses it to the next claim.
pub const OWNERSHIP_LAPSE_MS: i64 = 30 * 60_000;

/// Who holds a card that several workers report (`gpu.ownership`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// `sticky`: who reported it first, until silence or a proof by another.
    #[default]
    Sticky,
    /// `last_writer`: who reported it last, as the Python validator has it. Two that report the same card take turns.
    LastWriter,
}

/// A text that names no [`Ownership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sticky or last_writer")]
pub struct UnknownOwnership;

impl FromStr for Ownership {
    type Err = UnknownOwnership;

    fn from_str(text: &str) -> Result<Self, UnknownOwnership> {
        match text {
            "sticky" => Ok(Self::Sticky),
            "last_writer" => Ok(Self::LastWriter),
            _ => Err(UnknownOwnership),
        }
    }
}

impl Ownership {
    /// A holder last heard of before this moment loses the card to a claim.
    fn lapses_before_ms(self, at_ms: i64) -> i64 {
        match self {
            Self::Sticky => at_ms - OWNERSHIP_LAPSE_MS,
            Self::LastWriter => i64::MAX,
        }
    }
}

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
    /// The key that its host says it signs with, unread.
    pub host_key: Option<String>,
    /// The whole entry as JSON text, for display.
    pub raw: String,
}

/// A card that a miner holds, and how it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuRow {
    /// Its UUID.
    pub uuid: GpuUuid,
    /// The worker that holds it.
    pub worker_id: WorkerId,
    /// Its model, where it is named.
    pub model: Option<String>,
    /// When it was last reported, unix milliseconds UTC.
    pub last_seen_at_ms: i64,
    /// When another worker last reported it too.
    pub contested_at_ms: Option<i64>,
    /// Challenges that it passed.
    pub passed: i64,
    /// Challenges that it failed.
    pub failed: i64,
}

/// A card of a worker's inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryGpu {
    /// The key that its host says it signs with, if it names one.
    pub host_key: Option<CommitmentKey>,
}

/// The host's key in a card's description.
fn host_key(raw: &str) -> Option<CommitmentKey> {
    let card: Object = serde_json::from_str(raw).ok()?;
    card.get(HOST_KEY_FIELD)?.as_str()?.parse().ok()
}

impl Store {
    /// The cards that a worker reported since `since_ms`, held or claimed, with what is needed to believe their commitments.
    pub async fn inventory_of(
        &self,
        worker: WorkerKey,
        since_ms: i64,
    ) -> Result<BTreeMap<GpuUuid, InventoryGpu>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.uuid, g.raw FROM gpus g WHERE g.worker = $1 AND g.last_seen_at >= $2 AND g.uuid IS NOT NULL
             UNION ALL
             SELECT g.uuid, k.raw FROM gpu_claims k JOIN gpus g ON g.id = k.gpu
             WHERE k.worker = $1 AND k.last_at >= $2 AND g.worker <> $1",
        )
        .bind(worker.0)
        .bind(since_ms)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                let raw: Option<String> = row.try_get("raw")?;
                Ok((parsed("gpus", row, "uuid")?, InventoryGpu { host_key: raw.as_deref().and_then(host_key) }))
            })
            .collect()
    }

    /// The cards that a miner holds, by worker and UUID.
    pub async fn gpus_of(&self, hotkey: Hotkey) -> Result<Vec<GpuRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT g.uuid, w.worker_id, g.model, g.last_seen_at, g.contested_at, COALESCE(s.ok, 0) AS ok,
                    COALESCE(s.failed, 0) AS failed
             FROM workers w JOIN gpus g ON g.worker = w.id LEFT JOIN gpu_stats s ON s.gpu = g.id
             WHERE w.hotkey = $1 AND g.uuid IS NOT NULL ORDER BY w.worker_id, g.uuid",
        )
        .bind(hotkey.to_string())
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(GpuRow {
                    uuid: parsed("gpus", row, "uuid")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    model: row.try_get("model")?,
                    last_seen_at_ms: row.try_get("last_seen_at")?,
                    contested_at_ms: row.try_get("contested_at")?,
                    passed: row.try_get("ok")?,
                    failed: row.try_get("failed")?,
                })
            })
            .collect()
    }

    /// The models of the cards that workers claim from others since `since_ms`.
    pub(super) async fn claimed_models(
        &self,
        since_ms: i64,
    ) -> Result<HashMap<WorkerKey, BTreeSet<Option<String>>>, StoreError> {
        let rows = sqlx::query(
            "SELECT k.worker, g.model FROM gpu_claims k JOIN gpus g ON g.id = k.gpu
             WHERE k.last_at >= $1 AND g.worker <> k.worker",
        )
        .bind(since_ms)
        .fetch_all(&self.reader)
        .await?;
        let mut models: HashMap<WorkerKey, BTreeSet<Option<String>>> = HashMap::new();
        for row in &rows {
            models.entry(WorkerKey(row.try_get("worker")?)).or_default().insert(row.try_get("model")?);
        }
        Ok(models)
    }
}

impl SeenGpu {
    /// Digest over what a card is; what moves with every heartbeat, its clock and what its driver says besides, is left out.
    fn digest(&self) -> [u8; 32] {
        let Self { model, memory_mb, compute_capability, sm_count, architecture, host_key, .. } = self;
        let lasting = (model, memory_mb, compute_capability, sm_count, architecture, host_key);
        Sha256::digest(format!("{lasting:?}")).into()
    }
}

/// The cards that the workers of the miner `$1` hold.
pub(super) const HELD: &str = "SELECT g.uuid, g.worker, g.hash, g.contested_at FROM workers w
     JOIN gpus g ON g.worker = w.id WHERE w.hotkey = $1 AND g.uuid IS NOT NULL";

/// A card that is held.
struct HeldGpu {
    worker: WorkerKey,
    hash: Option<Vec<u8>>,
    contested_at_ms: Option<i64>,
}

/// Records which cards these workers report, and returns those that another worker holds.
///
/// Most workers report the cards that they hold, as they were, and nobody else claims them: that is one statement for many
/// workers. All others claim card by card, in one order in every heartbeat: two miners that claim the same ones take
/// turns and never block each other. Where one heartbeat names a card several times, its claims follow one another.
pub(super) async fn claim(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
    beats: &[(WorkerKey, &WorkerBeat)],
    ownership: Ownership,
    at_ms: i64,
) -> Result<Vec<String>, StoreError> {
    let held = held_gpus(transaction, hotkey).await?;
    let mut counts: HashMap<WorkerKey, usize> = HashMap::new();
    held.values().for_each(|gpu| *counts.entry(gpu.worker).or_default() += 1);
    let is_same = |worker: WorkerKey, gpu: &SeenGpu| {
        held.get(&gpu.uuid).is_some_and(|held| {
            held.worker == worker
                && held.hash.as_deref() == Some(gpu.digest().as_slice())
                && held.contested_at_ms.is_none_or(|contested| contested < at_ms - OWNERSHIP_LAPSE_MS)
        })
    };
    let (same, changed): (Vec<_>, Vec<_>) = beats.iter().copied().partition(|(worker, beat)| {
        let uuids: BTreeSet<&str> = beat.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
        counts.get(worker).copied().unwrap_or(0) == uuids.len() && beat.gpus.iter().all(|gpu| is_same(*worker, gpu))
    });
    let holders: Vec<i64> = same.iter().filter(|(_, beat)| !beat.gpus.is_empty()).map(|(worker, _)| worker.0).collect();
    for workers in chunks(&holders) {
        let list = list(workers.len(), 2);
        let mut query = bulk(format!("UPDATE gpus SET last_seen_at = $1 WHERE worker IN ({list})")).bind(at_ms);
        for worker in workers {
            query = query.bind(*worker);
        }
        query.execute(&mut **transaction).await?;
    }
    claim_each(transaction, &changed, ownership, at_ms).await
}

async fn held_gpus(
    transaction: &mut Transaction<'_, Any>,
    hotkey: Hotkey,
) -> Result<HashMap<String, HeldGpu>, StoreError> {
    let rows = sqlx::query(HELD).bind(hotkey.to_string()).fetch_all(&mut **transaction).await?;
    rows.iter()
        .map(|row| {
            let held = HeldGpu {
                worker: WorkerKey(row.try_get("worker")?),
                hash: row.try_get("hash")?,
                contested_at_ms: row.try_get("contested_at")?,
            };
            Ok((row.try_get("uuid")?, held))
        })
        .collect()
}

/// [`claim`], card by card.
async fn claim_each(
    transaction: &mut Transaction<'_, Any>,
    beats: &[(WorkerKey, &WorkerBeat)],
    ownership: Ownership,
    at_ms: i64,
) -> Result<Vec<String>, StoreError> {
    let mut claims: Vec<_> =
        beats.iter().flat_map(|(worker, beat)| beat.gpus.iter().map(|gpu| (gpu, *worker))).collect();
    claims.sort_by(|(one, _), (other, _)| one.uuid.cmp(&other.uuid));
    let mut contested = Vec::new();
    while !claims.is_empty() {
        let mut again = Vec::new();
        let mut last = None;
        claims.retain(|(gpu, worker)| {
            let first = last != Some(&gpu.uuid);
            last = Some(&gpu.uuid);
            if !first {
                again.push((*gpu, *worker));
            }
            first
        });
        for claims in chunks(&claims) {
            contested.extend(claim_distinct(transaction, claims, ownership, at_ms).await?);
        }
        claims = again;
    }
    contested.sort();
    Ok(contested)
}

/// [`claim`] for cards of which none is named twice.
async fn claim_distinct(
    transaction: &mut Transaction<'_, Any>,
    claims: &[(&SeenGpu, WorkerKey)],
    ownership: Ownership,
    at_ms: i64,
) -> Result<Vec<String>, StoreError> {
    // One statement decides: insert, refresh by the holder, or take over from a silent one; else no row comes back. Who
    // loses a card though it was not silent contests it.
    let rows = rows(claims.len(), 2, 4, ", $1, $1, $1");
    let mut query = bulk(format!(
        "INSERT INTO gpus (uuid, worker, first_seen_at, last_seen_at, owner_since) VALUES {rows}
         ON CONFLICT (uuid) DO UPDATE SET
             owner_since = CASE WHEN gpus.worker = excluded.worker THEN gpus.owner_since
                                ELSE excluded.owner_since END,
             contested_at = CASE WHEN gpus.worker <> excluded.worker AND gpus.last_seen_at >= $3
                                 THEN excluded.last_seen_at ELSE gpus.contested_at END,
             worker = excluded.worker, last_seen_at = excluded.last_seen_at
         WHERE gpus.worker = excluded.worker OR gpus.last_seen_at < $2
         RETURNING uuid, hash"
    ))
    .bind(at_ms)
    .bind(ownership.lapses_before_ms(at_ms))
    .bind(at_ms - OWNERSHIP_LAPSE_MS);
    for (gpu, worker) in claims {
        query = query.bind(gpu.uuid.clone()).bind(worker.0);
    }
    let mut held = HashMap::new();
    for row in query.fetch_all(&mut **transaction).await? {
        held.insert(row.try_get::<String, _>("uuid")?, row.try_get::<Option<Vec<u8>>, _>("hash")?);
    }
    let mut changed = Vec::new();
    let mut contested = Vec::new();
    for (gpu, worker) in claims {
        match held.get(&gpu.uuid) {
            None => contested.push((*gpu, *worker)),
            Some(hash) if hash.as_deref() == Some(gpu.digest().as_slice()) => {}
            Some(_) => changed.push((*gpu, *worker)),
        }
    }
    describe(transaction, &changed, at_ms).await?;
    contest(transaction, &contested, at_ms).await?;
    Ok(contested.iter().map(|(gpu, _)| gpu.uuid.clone()).collect())
}

/// Writes what these cards are; each has its row.
async fn describe(
    transaction: &mut Transaction<'_, Any>,
    changed: &[(&SeenGpu, WorkerKey)],
    at_ms: i64,
) -> Result<(), StoreError> {
    for cards in chunks(changed) {
        let rows = rows(cards.len(), 10, 2, ", $1, $1, $1");
        let mut query = bulk(format!(
            "INSERT INTO gpus (uuid, worker, hash, model, memory_mb, cc, sm_count, clock_mhz, arch, raw, first_seen_at,
                               last_seen_at, owner_since)
             VALUES {rows}
             ON CONFLICT (uuid) DO UPDATE SET
                 hash = excluded.hash, model = excluded.model, memory_mb = excluded.memory_mb, cc = excluded.cc,
                 sm_count = excluded.sm_count, clock_mhz = excluded.clock_mhz, arch = excluded.arch, raw = excluded.raw"
        ))
        .bind(at_ms);
        for (gpu, worker) in cards {
            query = query
                .bind(gpu.uuid.clone())
                .bind(worker.0)
                .bind(gpu.digest().to_vec())
                .bind(gpu.model.clone())
                .bind(gpu.memory_mb)
                .bind(gpu.compute_capability.clone())
                .bind(gpu.sm_count)
                .bind(gpu.clock_mhz)
                .bind(gpu.architecture.clone())
                .bind(gpu.raw.clone());
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Writes that these workers claim cards that others hold.
async fn contest(
    transaction: &mut Transaction<'_, Any>,
    contested: &[(&SeenGpu, WorkerKey)],
    at_ms: i64,
) -> Result<(), StoreError> {
    for contested in chunks(contested) {
        let list = list(contested.len(), 2);
        let mut query =
            bulk(format!("UPDATE gpus SET contested_at = $1 WHERE uuid IN ({list}) RETURNING id, uuid")).bind(at_ms);
        for (gpu, _) in contested {
            query = query.bind(gpu.uuid.clone());
        }
        let mut keys: HashMap<String, i64> = HashMap::new();
        for row in query.fetch_all(&mut **transaction).await? {
            keys.insert(row.try_get("uuid")?, row.try_get("id")?);
        }
        let claims: Vec<_> =
            contested.iter().filter_map(|(gpu, worker)| Some((*keys.get(&gpu.uuid)?, worker.0, &gpu.raw))).collect();
        note_claims(transaction, &claims, at_ms).await?;
    }
    Ok(())
}

/// Writes claims on cards: the card, the worker, and how that describes it.
async fn note_claims(
    transaction: &mut Transaction<'_, Any>,
    claims: &[(i64, i64, &String)],
    at_ms: i64,
) -> Result<(), StoreError> {
    for claims in chunks(claims) {
        let rows = rows(claims.len(), 3, 2, ", $1, $1, 1");
        let mut query = bulk(format!(
            "INSERT INTO gpu_claims (gpu, worker, raw, first_at, last_at, beats) VALUES {rows}
             ON CONFLICT (gpu, worker) DO UPDATE SET last_at = excluded.last_at, beats = gpu_claims.beats + 1,
                                                     raw = excluded.raw"
        ))
        .bind(at_ms);
        for (gpu, worker, raw) in claims {
            query = query.bind(*gpu).bind(*worker).bind((*raw).clone());
        }
        query.execute(&mut **transaction).await?;
    }
    Ok(())
}

/// What a card's part in a challenge came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnitOutcome<'a> {
    /// Whose challenge it was.
    pub(super) worker: WorkerKey,
    /// The card.
    pub(super) gpu: &'a GpuUuid,
    /// Whether its proof held.
    pub(super) passed: bool,
    /// How long the challenge took.
    pub(super) took_ms: Option<f64>,
    /// When it was judged.
    pub(super) at_ms: i64,
}

/// Counts an outcome for a card. A worker that only claims it, and passes while its holder has not passed for as long as would
/// lose it by silence, becomes the holder: what is signed and proved weighs more than who spoke first (validator spec 3.3).
pub(super) async fn credit(transaction: &mut Transaction<'_, Any>, outcome: UnitOutcome<'_>) -> Result<(), StoreError> {
    let UnitOutcome { worker, gpu, passed, took_ms, at_ms } = outcome;
    if passed {
        sqlx::query(
            "UPDATE gpus SET worker = $1, owner_since = $2, last_seen_at = $2
             WHERE uuid = $3 AND worker <> $1
               AND EXISTS (SELECT 1 FROM gpu_claims k WHERE k.gpu = gpus.id AND k.worker = $1 AND k.last_at >= $4)
               AND NOT EXISTS (SELECT 1 FROM challenge_units u JOIN challenges c ON c.id = u.challenge
                               WHERE c.worker = gpus.worker AND c.created_at >= $4 AND u.unit = $3 AND u.ok = 1)",
        )
        .bind(worker.0)
        .bind(at_ms)
        .bind(gpu.as_str())
        .bind(at_ms - OWNERSHIP_LAPSE_MS)
        .execute(&mut **transaction)
        .await?;
    }
    // Only the holder's outcomes are the card's; a mean over some ten successes.
    sqlx::query(
        "INSERT INTO gpu_stats (gpu, ok, failed, ewma_ms, last_at)
         SELECT id, $1, $2, CAST($3 AS DOUBLE PRECISION), $4 FROM gpus WHERE uuid = $5 AND worker = $6
         ON CONFLICT (gpu) DO UPDATE SET ok = gpu_stats.ok + excluded.ok, failed = gpu_stats.failed + excluded.failed,
             ewma_ms = COALESCE(0.9 * gpu_stats.ewma_ms + 0.1 * excluded.ewma_ms, excluded.ewma_ms, gpu_stats.ewma_ms),
             last_at = excluded.last_at",
    )
    .bind(i64::from(passed))
    .bind(i64::from(!passed))
    .bind(double_or_null(took_ms.filter(|_| passed)))
    .bind(at_ms)
    .bind(gpu.as_str())
    .bind(worker.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
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

    async fn a_card_named_by_two_workers_of_a_heartbeat_stays_with_its_holder_and_counts_the_other_claims() {
        let store = store().await;
        let gpu = SeenGpu { uuid: "GPU-1".to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        let with_card = |worker_id: &str| WorkerBeat { gpus: vec![gpu.clone()], ..beat(worker_id) };
        let mut at_ms = 0;
        for workers in [vec!["b"], vec!["a", "b"], vec!["b", "a"]] {
            let workers = workers.into_iter().map(with_card).collect();
            let heartbeat = Heartbeat { hotkey: Hotkey([1; 32]), version: None, public_ip: None, workers, at_ms };
            store.record_heartbeat(&heartbeat).await.unwrap();
            at_ms += 60_000;
        }
        let row = sqlx::query(
            "SELECT h.worker_id AS holder, c.worker_id AS claimant, g.contested_at, k.beats FROM gpus g
             JOIN workers h ON h.id = g.worker JOIN gpu_claims k ON k.gpu = g.id JOIN workers c ON c.id = k.worker",
        )
        .fetch_one(&store.reader)
        .await
        .unwrap();
        let text = |column| row.get::<String, _>(column);
        let number = |column| row.get::<i64, _>(column);
        assert_eq!((text("holder").as_str(), text("claimant").as_str()), ("b", "a"));
        assert_eq!((number("contested_at"), number("beats")), (120_000, 2));
    }

    async fn the_last_reporter_holds_a_card_where_the_option_says_so() {
        let store = store().await.with_gpu_ownership(Ownership::LastWriter);
        let none: [&str; 0] = [];
        let held = async || [1, 2].map(|miner| Hotkey([miner; 32])).map(|hotkey| store.gpus_of(hotkey));
        for (turn, miner) in (0..).zip([1, 2, 1, 1, 2]) {
            assert_eq!(report(&store, miner, turn * 60_000).await, none);
            let [one, two] = held().await;
            let (one, two) = (one.await.unwrap(), two.await.unwrap());
            assert_eq!((one.len(), two.len()), if miner == 1 { (1, 0) } else { (0, 1) });
            let contested = one.iter().chain(&two).next().unwrap().contested_at_ms;
            assert_eq!(contested, [None, Some(60_000), Some(120_000), Some(120_000), Some(240_000)][turn as usize]);
        }
        let gpu = SeenGpu { uuid: "GPU-1".to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        let with_card = |worker_id: &str| WorkerBeat { gpus: vec![gpu.clone()], ..beat(worker_id) };
        let workers = ["b", "a"].map(with_card).to_vec();
        let heartbeat = Heartbeat { hotkey: Hotkey([3; 32]), version: None, public_ip: None, workers, at_ms: 300_000 };
        store.record_heartbeat(&heartbeat).await.unwrap();
        let holder = store.gpus_of(Hotkey([3; 32])).await.unwrap().remove(0).worker_id;
        assert_eq!(holder.to_string(), "a", "the last worker of a heartbeat that names it");
    }

    #[test]
    fn ownership_is_named_as_in_the_configuration() {
        assert_eq!("sticky".parse(), Ok(Ownership::default()));
        assert_eq!("last_writer".parse(), Ok(Ownership::LastWriter));
        assert_eq!("first".parse::<Ownership>(), Err(UnknownOwnership));
    }

    on_both_engines!(
        the_last_reporter_holds_a_card_where_the_option_says_so,
        the_first_reporter_keeps_a_card_until_it_falls_silent,
        a_card_named_by_two_workers_of_a_heartbeat_stays_with_its_holder_and_counts_the_other_claims,
    );
}
