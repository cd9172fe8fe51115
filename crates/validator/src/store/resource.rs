//! What the marketplace is told of workers: who they are, how busy, what machine, which cards, in a few statements for all
//! of them; the long descriptions are read for those alone that changed.

use std::collections::HashMap;

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use sqlx::Row;

use super::{Store, StoreError, WorkerKey, parsed, texts_of};

/// A worker that is not retired, without the description of its machine.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceRow {
    /// Its row.
    pub key: WorkerKey,
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// A name for people.
    pub name: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// What it can compute.
    pub capabilities: Vec<String>,
    /// Latest heartbeat.
    pub last_heartbeat_at_ms: i64,
    /// Online until then.
    pub deadline_at_ms: i64,
    /// Processor load in percent.
    pub cpu_percent: Option<f64>,
    /// Used memory in percent.
    pub memory_percent: Option<f64>,
    /// Seconds since the machine started.
    pub uptime_s: Option<i64>,
    /// Its public address.
    pub public_ip: Option<String>,
    /// Its lease; 0 for none.
    pub lease: f64,
    /// Digest of its machine and its cards: another one when either changed.
    pub machine: Vec<u8>,
}

/// The description of a machine, as JSON texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineRow {
    /// Processor, memory, board, storage, system.
    pub raw: Option<String>,
    /// Each card of the inventory.
    pub gpus: Vec<String>,
}

impl MachineRow {
    /// How long the texts are together.
    pub fn bytes(&self) -> usize {
        self.raw.as_deref().map_or(0, str::len) + self.gpus.iter().map(String::len).sum::<usize>()
    }
}

impl Store {
    /// Every worker that is not retired, by hotkey and id.
    pub async fn resources(&self) -> Result<Vec<ResourceRow>, StoreError> {
        let mut cards = self.card_digests().await?;
        let rows = sqlx::query(
            "SELECT w.id, w.hotkey, w.worker_id, w.name, w.version, w.capabilities, w.last_heartbeat_at, w.deadline_at,
                    u.cpu_pct, u.mem_pct, u.uptime_s, u.public_ip, COALESCE(l.score, 0.0) AS lease, s.hash
             FROM workers w
             LEFT JOIN worker_usage u ON u.worker = w.id
             LEFT JOIN worker_specs s ON s.worker = w.id
             LEFT JOIN leases l ON l.hotkey = w.hotkey AND l.worker_id = w.worker_id
             WHERE w.state <> 'retired' ORDER BY w.hotkey, w.worker_id",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                let key = WorkerKey(row.try_get("id")?);
                let mut machine: Vec<u8> = row.try_get::<Option<Vec<u8>>, _>("hash")?.unwrap_or_default();
                machine.extend(cards.remove(&key).unwrap_or_default());
                Ok(ResourceRow {
                    key,
                    hotkey: parsed("workers", row, "hotkey")?,
                    worker_id: parsed("workers", row, "worker_id")?,
                    name: row.try_get("name")?,
                    version: row.try_get("version")?,
                    capabilities: texts_of("workers", "capabilities", row.try_get("capabilities")?)?,
                    last_heartbeat_at_ms: row.try_get("last_heartbeat_at")?,
                    deadline_at_ms: row.try_get("deadline_at")?,
                    cpu_percent: row.try_get("cpu_pct")?,
                    memory_percent: row.try_get("mem_pct")?,
                    uptime_s: row.try_get("uptime_s")?,
                    public_ip: row.try_get("public_ip")?,
                    lease: row.try_get("lease")?,
                    machine,
                })
            })
            .collect()
    }

    /// Whether this miner ever reported a worker of this name.
    pub async fn is_known_worker(&self, hotkey: Hotkey, worker: &WorkerId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM workers WHERE hotkey = $1 AND worker_id = $2")
            .bind(hotkey.to_string())
            .bind(worker.as_str())
            .fetch_optional(&self.reader)
            .await?;
        Ok(row.is_some())
    }

    /// What a worker's machine is made of.
    pub async fn machine_of(&self, worker: WorkerKey) -> Result<MachineRow, StoreError> {
        let specs = sqlx::query("SELECT raw FROM worker_specs WHERE worker = $1")
            .bind(worker.0)
            .fetch_optional(&self.reader)
            .await?;
        let cards = sqlx::query("SELECT raw FROM gpus WHERE worker = $1 AND uuid IS NOT NULL ORDER BY uuid")
            .bind(worker.0)
            .fetch_all(&self.reader)
            .await?;
        let gpus = cards.iter().map(|row| row.try_get::<Option<String>, _>("raw")).collect::<Result<Vec<_>, _>>()?;
        Ok(MachineRow {
            raw: specs.map(|row| row.try_get("raw")).transpose()?,
            gpus: gpus.into_iter().flatten().collect(),
        })
    }

    async fn card_digests(&self) -> Result<HashMap<WorkerKey, Vec<u8>>, StoreError> {
        let rows = sqlx::query(
            "SELECT worker, uuid, hash FROM gpus WHERE worker IS NOT NULL AND uuid IS NOT NULL ORDER BY worker, uuid",
        )
        .fetch_all(&self.reader)
        .await?;
        let mut digests: HashMap<WorkerKey, Vec<u8>> = HashMap::new();
        for row in &rows {
            let digest = digests.entry(WorkerKey(row.try_get("worker")?)).or_default();
            digest.extend(row.try_get::<String, _>("uuid")?.into_bytes());
            digest.extend(row.try_get::<Option<Vec<u8>>, _>("hash")?.unwrap_or_default());
        }
        Ok(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::super::heartbeat::{Heartbeat, Usage};
    use super::super::lease::LeaseScore;
    use super::super::testing::{beat, on_both_engines, store};
    use super::*;

    async fn a_worker_is_told_with_its_lease_and_its_machine() {
        let store = store().await;
        let miner = Hotkey([7; 32]);
        let mut worker = beat("w");
        worker.specs.raw = r#"{"cpu_info":{"name":"x"}}"#.to_owned();
        worker.usage = Usage { cpu_percent: 12.5, uptime_s: Some(60), ..Usage::default() };
        let heartbeat = Heartbeat { hotkey: miner, version: None, public_ip: None, workers: vec![worker], at_ms: 5 };
        store.record_heartbeat(&heartbeat).await.unwrap();
        let without = store.resources().await.unwrap();
        assert_eq!((without[0].lease, without[0].cpu_percent, without[0].uptime_s), (0.0, Some(12.5), Some(60)));
        assert_eq!(without[0].machine, [1]);
        store.set_lease(miner, &"w".parse().unwrap(), LeaseScore::new(0.5).unwrap(), "meshhub", 6).await.unwrap();
        let with = store.resources().await.unwrap();
        assert_eq!(with[0], ResourceRow { lease: 0.5, ..without[0].clone() });
        let machine = store.machine_of(with[0].key).await.unwrap();
        assert_eq!(machine.raw.as_deref(), Some(r#"{"cpu_info":{"name":"x"}}"#));
        assert!(machine.gpus.is_empty());
    }

    on_both_engines!(a_worker_is_told_with_its_lease_and_its_machine,);
}
