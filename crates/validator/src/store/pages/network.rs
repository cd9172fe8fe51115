//! Who takes part: miners, their workers and the GPUs of these, page by page; one worker whole.

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{GpuUuid, WorkerId};
use serde::Serialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;
use utoipa::ToSchema;

use super::super::heartbeat::MINER_DEADLINE_MS;
use super::super::{Store, StoreError, WorkerKey, parsed, texts_of};
use super::{Page, one_more, tristate};

/// Days of presence that one worker's page shows.
const PRESENCE_DAYS: i64 = 8;
/// Address runs that one worker's page shows.
const ADDRESSES: i64 = 50;

/// A miner that was ever heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MinerLine {
    /// Its hotkey (SS58).
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its version, as it says.
    pub version: Option<String>,
    /// Its public address, as it says.
    pub public_ip: Option<String>,
    /// First heartbeat, unix milliseconds UTC.
    pub first_seen_at_ms: i64,
    /// Latest heartbeat, unix milliseconds UTC; null when it is known by other means only.
    pub last_heartbeat_at_ms: Option<i64>,
    /// Whether it was heard of lately.
    pub online: bool,
    /// Workers that are not retired.
    pub workers: i64,
    /// Those of them that are online.
    pub workers_online: i64,
    /// Those of them that are leased.
    pub workers_leased: i64,
}

/// A worker that is not retired.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerLine {
    /// Its miner's hotkey (SS58).
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its own id.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// A name for people.
    pub name: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// What it can compute: `cpu_matrix`, `gpu_matrix`.
    pub capabilities: Vec<String>,
    /// Whether it was heard of lately.
    pub online: bool,
    /// Beyond the limit of active workers of its miner: neither challenged nor scored.
    pub over_limit: bool,
    /// First heartbeat, unix milliseconds UTC.
    pub first_seen_at_ms: i64,
    /// Latest heartbeat, unix milliseconds UTC.
    pub last_heartbeat_at_ms: i64,
    /// What its lease is worth; null or 0 when it is not leased.
    pub lease_score: Option<f64>,
    /// GPUs that it holds.
    pub gpus: i64,
    /// Name of its processor.
    pub cpu_model: Option<String>,
    /// Logical processors.
    pub cpu_count: Option<i64>,
    /// Memory in MiB.
    pub memory_mb: Option<i64>,
}

/// Which workers are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerFilter {
    /// Of this miner.
    pub hotkey: Option<Hotkey>,
    /// Heard of lately, or not.
    pub online: Option<bool>,
    /// Leased, or not.
    pub leased: Option<bool>,
}

/// One worker with all that is known of its machine.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerWhole {
    /// What the list of workers shows.
    pub worker: WorkerLine,
    /// The machine as its heartbeats describe it; null before the first that does.
    #[schema(value_type = Option<Object>)]
    pub specs: Option<Value>,
    /// When that last changed, unix milliseconds UTC.
    pub specs_changed_at_ms: Option<i64>,
    /// How busy it was at its latest heartbeat.
    pub usage: Option<UsageNow>,
    /// When it was heard, the newest day first.
    pub presence: Vec<PresenceDay>,
    /// From which public addresses, the newest first. A change of address lowers availability.
    pub addresses: Vec<AddressRun>,
    /// The GPUs that it holds.
    pub gpus: Vec<GpuLine>,
}

/// How busy a machine is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UsageNow {
    /// Processor load in percent.
    pub cpu_percent: Option<f64>,
    /// Used memory in percent.
    pub memory_percent: Option<f64>,
    /// Free memory in MiB.
    pub memory_free_mb: Option<i64>,
    /// Free space of `/` in GiB.
    pub disk_free_gb: Option<i64>,
    /// Seconds since the machine started.
    pub uptime_s: Option<i64>,
    /// Its public address.
    pub public_ip: Option<String>,
    /// When that was, unix milliseconds UTC.
    pub at_ms: i64,
}

/// One day of a worker with one set of GPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PresenceDay {
    /// Days since 1970, UTC.
    pub day: i64,
    /// 288 bits as 72 hexadecimal digits, one for every five minutes; the lowest bit of the first byte is midnight.
    pub bits: String,
    /// How many of them are set.
    pub heard: u32,
    /// The GPUs that it reported meanwhile.
    pub gpus: Vec<String>,
}

/// A time with one public address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AddressRun {
    /// The address.
    pub ip: String,
    /// Since when, unix milliseconds UTC.
    pub from_at_ms: i64,
    /// Until when it was last seen.
    pub to_at_ms: i64,
}

/// A card in the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GpuLine {
    /// Its UUID.
    #[schema(value_type = String)]
    pub uuid: GpuUuid,
    /// The miner that holds it.
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// The worker that holds it.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// Its model, where it is named.
    pub model: Option<String>,
    /// Its memory in MiB.
    pub memory_mb: Option<i64>,
    /// First report, unix milliseconds UTC.
    pub first_seen_at_ms: i64,
    /// Latest report of its holder.
    pub last_seen_at_ms: i64,
    /// Since when its holder holds it.
    pub owner_since_ms: i64,
    /// When another worker last reported it too; null when none did.
    pub contested_at_ms: Option<i64>,
    /// Challenges that it passed.
    pub passed: i64,
    /// Challenges that it failed.
    pub failed: i64,
}

/// A card that more than one worker reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ContestedGpu {
    /// The card and its holder.
    pub gpu: GpuLine,
    /// The others.
    pub claims: Vec<GpuClaim>,
}

/// A worker that reports a card which another holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GpuClaim {
    /// Its miner.
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its own id.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// First report, unix milliseconds UTC.
    pub first_at_ms: i64,
    /// Latest report.
    pub last_at_ms: i64,
    /// How many reports.
    pub beats: i64,
}

/// All that [`MinerLine`] holds; `$1` is now.
macro_rules! miner_columns {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT m.hotkey, m.version, m.public_ip, m.first_seen_at, m.last_heartbeat_at, COUNT(w.id) AS workers,
                    COUNT(CASE WHEN w.deadline_at >= $1 THEN 1 END) AS workers_online,
                    COUNT(CASE WHEN l.score > 0 THEN 1 END) AS workers_leased
             FROM miners m
             LEFT JOIN workers w ON w.hotkey = m.hotkey AND w.state <> 'retired'
             LEFT JOIN leases l ON l.hotkey = w.hotkey AND l.worker_id = w.worker_id
             WHERE ",
            $which,
            " GROUP BY m.hotkey, m.version, m.public_ip, m.first_seen_at, m.last_heartbeat_at ",
            $order
        )
    };
}

/// All that [`WorkerLine`] holds.
macro_rules! worker_columns {
    ($rest:literal) => {
        concat!(
            "SELECT w.id, w.hotkey, w.worker_id, w.name, w.version, w.capabilities, w.first_seen_at,
                    w.last_heartbeat_at, w.deadline_at, w.over_limit, l.score, s.cpu_model, s.cpu_count, s.memory_mb,
                    (SELECT COUNT(*) FROM gpus g WHERE g.worker = w.id) AS gpus
             FROM workers w
             LEFT JOIN leases l ON l.hotkey = w.hotkey AND l.worker_id = w.worker_id
             LEFT JOIN worker_specs s ON s.worker = w.id
             WHERE w.state <> 'retired' AND ",
            $rest
        )
    };
}

/// All that [`GpuLine`] holds.
macro_rules! gpu_columns {
    ($rest:literal) => {
        concat!(
            "SELECT g.id, g.uuid, w.hotkey, w.worker_id, g.model, g.memory_mb, g.first_seen_at, g.last_seen_at,
                    g.owner_since, g.contested_at, COALESCE(s.ok, 0) AS ok, COALESCE(s.failed, 0) AS failed
             FROM gpus g JOIN workers w ON w.id = g.worker LEFT JOIN gpu_stats s ON s.gpu = g.id
             WHERE g.uuid IS NOT NULL AND ",
            $rest
        )
    };
}

impl Store {
    /// Miners by hotkey, from behind `after` on.
    pub async fn miner_page(
        &self,
        online: Option<bool>,
        after: &str,
        limit: u32,
        now_ms: i64,
    ) -> Result<Page<MinerLine>, StoreError> {
        let heard_since_ms = now_ms - MINER_DEADLINE_MS;
        let rows = sqlx::query(miner_columns!(
            "m.hotkey > $2
               AND ($3 = -1 OR ($3 = 1 AND m.last_heartbeat_at >= $4)
                    OR ($3 = 0 AND COALESCE(m.last_heartbeat_at, 0) < $4))",
            "ORDER BY m.hotkey LIMIT $5"
        ))
        .bind(now_ms)
        .bind(after)
        .bind(tristate(online))
        .bind(heard_since_ms)
        .bind(one_more(limit))
        .fetch_all(&self.reader)
        .await?;
        let miners = rows.iter().map(|row| miner_line(row, heard_since_ms)).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::of(miners, limit, |miner| miner.hotkey.to_string()))
    }

    /// One miner; none when it was never heard of.
    pub async fn miner_line(&self, hotkey: Hotkey, now_ms: i64) -> Result<Option<MinerLine>, StoreError> {
        let heard_since_ms = now_ms - MINER_DEADLINE_MS;
        let row = sqlx::query(miner_columns!("m.hotkey = $2", ""))
            .bind(now_ms)
            .bind(hotkey.to_string())
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| miner_line(&row, heard_since_ms)).transpose()
    }

    /// Workers in the order in which they first came, from behind row `after` on.
    pub async fn worker_page(
        &self,
        filter: WorkerFilter,
        after: i64,
        limit: u32,
        now_ms: i64,
    ) -> Result<Page<WorkerLine>, StoreError> {
        let rows = sqlx::query(worker_columns!(
            "w.id > $1 AND ($2 = '' OR w.hotkey = $2)
               AND ($3 = -1 OR ($3 = 1 AND w.deadline_at >= $4) OR ($3 = 0 AND w.deadline_at < $4))
               AND ($5 = -1 OR ($5 = 1 AND l.score > 0) OR ($5 = 0 AND COALESCE(l.score, 0) <= 0))
             ORDER BY w.id LIMIT $6"
        ))
        .bind(after)
        .bind(filter.hotkey.map(|hotkey| hotkey.to_string()).unwrap_or_default())
        .bind(tristate(filter.online))
        .bind(now_ms)
        .bind(tristate(filter.leased))
        .bind(one_more(limit))
        .fetch_all(&self.reader)
        .await?;
        let workers = rows.iter().map(|row| keyed_worker(row, now_ms)).collect::<Result<Vec<_>, _>>()?;
        let Page { items, next } = Page::of(workers, limit, |(key, _)| key.0.to_string());
        Ok(Page { items: items.into_iter().map(|(_, worker)| worker).collect(), next })
    }

    /// One worker whole; none when it was never heard of, or is retired.
    pub async fn worker_whole(
        &self,
        hotkey: Hotkey,
        worker_id: &WorkerId,
        now_ms: i64,
    ) -> Result<Option<WorkerWhole>, StoreError> {
        let row = sqlx::query(worker_columns!("w.hotkey = $1 AND w.worker_id = $2"))
            .bind(hotkey.to_string())
            .bind(worker_id.as_str())
            .fetch_optional(&self.reader)
            .await?;
        let Some((key, worker)) = row.map(|row| keyed_worker(&row, now_ms)).transpose()? else { return Ok(None) };
        let (specs, specs_changed_at_ms) = self.specs_of(key).await?.unzip();
        Ok(Some(WorkerWhole {
            worker,
            specs,
            specs_changed_at_ms,
            usage: self.usage_of(key).await?,
            presence: self.presence_of(key).await?,
            addresses: self.addresses_of(key).await?,
            gpus: self.gpus_held_by(key).await?,
        }))
    }

    async fn specs_of(&self, key: WorkerKey) -> Result<Option<(Value, i64)>, StoreError> {
        let row = sqlx::query("SELECT raw, changed_at FROM worker_specs WHERE worker = $1")
            .bind(key.0)
            .fetch_optional(&self.reader)
            .await?;
        row.map(|row| {
            let raw: String = row.try_get("raw")?;
            let specs = serde_json::from_str(&raw);
            let specs = specs.map_err(|_| StoreError::Corrupt { table: "worker_specs", what: "raw", value: raw })?;
            Ok((specs, row.try_get("changed_at")?))
        })
        .transpose()
    }

    async fn usage_of(&self, key: WorkerKey) -> Result<Option<UsageNow>, StoreError> {
        let row = sqlx::query(
            "SELECT cpu_pct, mem_pct, mem_free_mb, disk_free_gb, uptime_s, public_ip, at FROM worker_usage
             WHERE worker = $1",
        )
        .bind(key.0)
        .fetch_optional(&self.reader)
        .await?;
        row.map(|row| {
            Ok(UsageNow {
                cpu_percent: row.try_get("cpu_pct")?,
                memory_percent: row.try_get("mem_pct")?,
                memory_free_mb: row.try_get("mem_free_mb")?,
                disk_free_gb: row.try_get("disk_free_gb")?,
                uptime_s: row.try_get("uptime_s")?,
                public_ip: row.try_get("public_ip")?,
                at_ms: row.try_get("at")?,
            })
        })
        .transpose()
    }

    async fn presence_of(&self, key: WorkerKey) -> Result<Vec<PresenceDay>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.day, p.bits, s.uuids FROM presence_days p JOIN gpu_sets s ON s.id = p.gpu_set
             WHERE p.worker = $1
               AND p.day > (SELECT MAX(day) FROM presence_days WHERE worker = $1) - $2
             ORDER BY p.day DESC, p.gpu_set",
        )
        .bind(key.0)
        .bind(PRESENCE_DAYS)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                let bits: Vec<u8> = row.try_get("bits")?;
                Ok(PresenceDay {
                    day: row.try_get("day")?,
                    heard: bits.iter().map(|byte| byte.count_ones()).sum(),
                    bits: hex::encode(bits),
                    gpus: texts_of("gpu_sets", "uuids", row.try_get("uuids")?)?,
                })
            })
            .collect()
    }

    async fn addresses_of(&self, key: WorkerKey) -> Result<Vec<AddressRun>, StoreError> {
        let rows = sqlx::query(
            "SELECT ip, from_at, to_at FROM worker_addresses WHERE worker = $1 ORDER BY from_at DESC LIMIT $2",
        )
        .bind(key.0)
        .bind(ADDRESSES)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(AddressRun {
                    ip: row.try_get("ip")?,
                    from_at_ms: row.try_get("from_at")?,
                    to_at_ms: row.try_get("to_at")?,
                })
            })
            .collect()
    }

    async fn gpus_held_by(&self, key: WorkerKey) -> Result<Vec<GpuLine>, StoreError> {
        let rows = sqlx::query(gpu_columns!("g.worker = $1 ORDER BY g.id")).bind(key.0).fetch_all(&self.reader).await?;
        rows.iter().map(|row| Ok(keyed_gpu(row)?.1)).collect()
    }

    /// Cards in the order in which they were first seen, from behind row `after` on.
    pub async fn gpu_page(&self, hotkey: Option<Hotkey>, after: i64, limit: u32) -> Result<Page<GpuLine>, StoreError> {
        let rows = sqlx::query(gpu_columns!("g.id > $1 AND ($2 = '' OR w.hotkey = $2) ORDER BY g.id LIMIT $3"))
            .bind(after)
            .bind(hotkey.map(|hotkey| hotkey.to_string()).unwrap_or_default())
            .bind(one_more(limit))
            .fetch_all(&self.reader)
            .await?;
        let gpus = rows.iter().map(keyed_gpu).collect::<Result<Vec<_>, _>>()?;
        let Page { items, next } = Page::of(gpus, limit, |(id, _)| id.to_string());
        Ok(Page { items: items.into_iter().map(|(_, gpu)| gpu).collect(), next })
    }

    /// Cards that somebody else than their holder reported since `since_ms`, from behind row `after` on.
    pub async fn contested_page(
        &self,
        since_ms: i64,
        after: i64,
        limit: u32,
    ) -> Result<Page<ContestedGpu>, StoreError> {
        let rows = sqlx::query(gpu_columns!("g.id > $1 AND g.contested_at >= $2 ORDER BY g.id LIMIT $3"))
            .bind(after)
            .bind(since_ms)
            .bind(one_more(limit))
            .fetch_all(&self.reader)
            .await?;
        let gpus = rows.iter().map(keyed_gpu).collect::<Result<Vec<_>, _>>()?;
        let Page { items, next } = Page::of(gpus, limit, |(id, _)| id.to_string());
        let mut contested = Vec::with_capacity(items.len());
        for (id, gpu) in items {
            contested.push(ContestedGpu { claims: self.claims_on(id).await?, gpu });
        }
        Ok(Page { items: contested, next })
    }

    async fn claims_on(&self, gpu: i64) -> Result<Vec<GpuClaim>, StoreError> {
        let rows = sqlx::query(
            "SELECT w.hotkey, w.worker_id, k.first_at, k.last_at, k.beats
             FROM gpu_claims k JOIN workers w ON w.id = k.worker JOIN gpus g ON g.id = k.gpu
             WHERE k.gpu = $1 AND k.worker <> g.worker ORDER BY k.last_at DESC, k.worker LIMIT 50",
        )
        .bind(gpu)
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(GpuClaim {
                    hotkey: parsed("workers", row, "hotkey")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    first_at_ms: row.try_get("first_at")?,
                    last_at_ms: row.try_get("last_at")?,
                    beats: row.try_get("beats")?,
                })
            })
            .collect()
    }
}

fn miner_line(row: &AnyRow, heard_since_ms: i64) -> Result<MinerLine, StoreError> {
    let last_heartbeat_at_ms: Option<i64> = row.try_get("last_heartbeat_at")?;
    Ok(MinerLine {
        hotkey: parsed("miners", row, "hotkey")?,
        version: row.try_get("version")?,
        public_ip: row.try_get("public_ip")?,
        first_seen_at_ms: row.try_get("first_seen_at")?,
        last_heartbeat_at_ms,
        online: last_heartbeat_at_ms.is_some_and(|at_ms| at_ms >= heard_since_ms),
        workers: row.try_get("workers")?,
        workers_online: row.try_get("workers_online")?,
        workers_leased: row.try_get("workers_leased")?,
    })
}

fn keyed_worker(row: &AnyRow, now_ms: i64) -> Result<(WorkerKey, WorkerLine), StoreError> {
    let worker = WorkerLine {
        hotkey: parsed("workers", row, "hotkey")?,
        worker_id: parsed("workers", row, "worker_id")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        capabilities: texts_of("workers", "capabilities", row.try_get("capabilities")?)?,
        online: row.try_get::<i64, _>("deadline_at")? >= now_ms,
        over_limit: row.try_get::<i64, _>("over_limit")? != 0,
        first_seen_at_ms: row.try_get("first_seen_at")?,
        last_heartbeat_at_ms: row.try_get("last_heartbeat_at")?,
        lease_score: row.try_get("score")?,
        gpus: row.try_get("gpus")?,
        cpu_model: row.try_get("cpu_model")?,
        cpu_count: row.try_get("cpu_count")?,
        memory_mb: row.try_get("memory_mb")?,
    };
    Ok((WorkerKey(row.try_get("id")?), worker))
}

fn keyed_gpu(row: &AnyRow) -> Result<(i64, GpuLine), StoreError> {
    let gpu = GpuLine {
        uuid: parsed("gpus", row, "uuid")?,
        hotkey: parsed("workers", row, "hotkey")?,
        worker_id: parsed("workers", row, "worker_id")?,
        model: row.try_get("model")?,
        memory_mb: row.try_get("memory_mb")?,
        first_seen_at_ms: row.try_get("first_seen_at")?,
        last_seen_at_ms: row.try_get("last_seen_at")?,
        owner_since_ms: row.try_get("owner_since")?,
        contested_at_ms: row.try_get("contested_at")?,
        passed: row.try_get("ok")?,
        failed: row.try_get("failed")?,
    };
    Ok((row.try_get("id")?, gpu))
}

#[cfg(test)]
mod tests {
    use super::super::super::gpu::SeenGpu;
    use super::super::super::heartbeat::Heartbeat;
    use super::super::super::lease::LeaseScore;
    use super::super::super::testing::{beat, on_both_engines, store};
    use super::*;

    const MINERS: [Hotkey; 3] = [Hotkey([1; 32]), Hotkey([2; 32]), Hotkey([3; 32])];
    const CARD: &str = "GPU-11111111-2222-3333-4444-555555555555";

    /// Three miners with two workers each; all workers report the same card, and the first of the first miner is leased.
    async fn network() -> Store {
        let store = store().await;
        for (hotkey, at_ms) in MINERS.into_iter().zip(1..) {
            let workers = ["a", "b"].map(|name| {
                let card = SeenGpu { uuid: CARD.to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
                let mut beat = beat(name);
                beat.gpus = vec![card];
                beat.gpu_set = vec![CARD.to_owned()];
                beat.usage.public_ip = Some("192.0.2.7".parse().unwrap());
                beat
            });
            let heartbeat =
                Heartbeat { hotkey, version: Some("1".to_owned()), public_ip: None, workers: workers.into(), at_ms };
            store.record_heartbeat(&heartbeat).await.unwrap();
        }
        let lease = LeaseScore::new(1.5).unwrap();
        store.set_lease(MINERS[0], &"a".parse().unwrap(), lease, "test", 5).await.unwrap();
        store
    }

    async fn a_list_is_the_same_whatever_the_size_of_its_pages() {
        let store = network().await;
        let (mut miners, mut workers) = (Vec::new(), Vec::new());
        let mut after = String::new();
        loop {
            let page = store.miner_page(None, &after, 2, 10).await.unwrap();
            assert!(page.items.len() <= 2);
            miners.extend(page.items);
            let Some(next) = page.next else { break };
            after = next;
        }
        let mut after = 0;
        loop {
            let page = store.worker_page(WorkerFilter::default(), after, 4, 10).await.unwrap();
            workers.extend(page.items);
            let Some(next) = page.next else { break };
            after = next.parse().unwrap();
        }
        assert_eq!(Page { items: miners, next: None }, store.miner_page(None, "", 500, 10).await.unwrap());
        let whole = store.worker_page(WorkerFilter::default(), 0, 500, 10).await.unwrap();
        assert_eq!((Page { items: workers, next: None }, whole.items.len()), (whole.clone(), 6));
    }

    async fn miners_count_their_workers_and_their_leases() {
        let store = network().await;
        let mut miners = store.miner_page(Some(true), "", 9, 10).await.unwrap().items;
        miners.sort_by_key(|miner| miner.first_seen_at_ms);
        let told: Vec<_> =
            miners.iter().map(|miner| (miner.workers, miner.workers_online, miner.workers_leased)).collect();
        assert_eq!(told, [(2, 2, 1), (2, 2, 0), (2, 2, 0)]);
        let later_ms = 10 + MINER_DEADLINE_MS;
        assert_eq!(store.miner_page(Some(true), "", 9, later_ms).await.unwrap().items, []);
        let offline = store.miner_page(Some(false), "", 9, later_ms).await.unwrap().items;
        assert_eq!((offline.len(), offline[0].online, offline[0].workers_online), (3, false, 0));
        assert_eq!(store.miner_line(MINERS[0], 10).await.unwrap().unwrap().workers_leased, 1);
        assert_eq!(store.miner_line(Hotkey([9; 32]), 10).await.unwrap(), None);
    }

    async fn workers_are_found_by_miner_by_state_and_by_lease() {
        let store = network().await;
        let count = async |filter, now_ms| store.worker_page(filter, 0, 99, now_ms).await.unwrap().items.len();
        let all = WorkerFilter::default();
        assert_eq!(count(WorkerFilter { hotkey: Some(MINERS[1]), ..all }, 10).await, 2);
        assert_eq!(count(WorkerFilter { online: Some(true), ..all }, 10).await, 6);
        assert_eq!(count(WorkerFilter { online: Some(false), ..all }, 10).await, 0);
        assert_eq!(count(WorkerFilter { online: Some(false), ..all }, 10_000_000).await, 6);
        assert_eq!(count(WorkerFilter { leased: Some(true), ..all }, 10).await, 1);
        assert_eq!(count(WorkerFilter { leased: Some(false), ..all }, 10).await, 5);
    }

    async fn one_worker_is_told_whole() {
        let store = network().await;
        let whole = store.worker_whole(MINERS[0], &"a".parse().unwrap(), 10).await.unwrap().unwrap();
        assert_eq!((whole.worker.lease_score, whole.worker.gpus, whole.gpus.len()), (Some(1.5), 1, 1));
        assert_eq!((whole.specs, whole.specs_changed_at_ms), (Some(serde_json::json!({})), Some(1)));
        assert_eq!(whole.addresses, [AddressRun { ip: "192.0.2.7".to_owned(), from_at_ms: 1, to_at_ms: 1 }]);
        let [day] = &whole.presence[..] else { panic!("{:?}", whole.presence) };
        assert_eq!((day.day, day.heard, &day.bits[..2], day.bits.len(), day.gpus.len()), (0, 1, "01", 72, 1));
        assert_eq!(store.worker_whole(MINERS[0], &"c".parse().unwrap(), 10).await.unwrap(), None);
    }

    async fn a_contested_card_names_everyone_who_claims_it() {
        let store = network().await;
        let page = store.contested_page(0, 0, 9).await.unwrap();
        let [contested] = &page.items[..] else { panic!("{page:?}") };
        assert_eq!((contested.gpu.hotkey, contested.gpu.worker_id.as_str()), (MINERS[0], "a"));
        let mut claimants: Vec<_> =
            contested.claims.iter().map(|claim| (claim.hotkey, claim.worker_id.as_str())).collect();
        claimants.sort();
        let others = [(MINERS[0], "b"), (MINERS[1], "a"), (MINERS[1], "b"), (MINERS[2], "a"), (MINERS[2], "b")];
        assert_eq!(claimants, others);
        assert_eq!(store.gpu_page(Some(MINERS[0]), 0, 9).await.unwrap().items.len(), 1);
        assert_eq!(store.gpu_page(Some(MINERS[1]), 0, 9).await.unwrap().items, []);
    }

    on_both_engines!(
        a_list_is_the_same_whatever_the_size_of_its_pages,
        miners_count_their_workers_and_their_leases,
        workers_are_found_by_miner_by_state_and_by_lease,
        one_worker_is_told_whole,
        a_contested_card_names_everyone_who_claims_it,
    );
}
