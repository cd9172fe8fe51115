//! What alarms and metrics ask of the database: a few numbers, each by one short statement.

use sqlx::Row;

use super::{Store, StoreError};

impl Store {
    /// Leases above zero that were last said before `before_ms`.
    pub async fn stale_leases(&self, before_ms: i64) -> Result<i64, StoreError> {
        self.count("SELECT COUNT(*) AS found FROM leases WHERE score > 0 AND received_at < $1", before_ms).await
    }

    /// Cards that another than their holder claimed since `since_ms`.
    pub async fn contested_gpus(&self, since_ms: i64) -> Result<i64, StoreError> {
        self.count("SELECT COUNT(*) AS found FROM gpus WHERE contested_at >= $1", since_ms).await
    }

    /// Miners that sent a heartbeat since `since_ms`.
    pub async fn miners_since(&self, since_ms: i64) -> Result<i64, StoreError> {
        self.count("SELECT COUNT(*) AS found FROM miners WHERE last_heartbeat_at >= $1", since_ms).await
    }

    /// Cards of the inventory that were reported since `since_ms`.
    pub async fn gpus_since(&self, since_ms: i64) -> Result<i64, StoreError> {
        self.count("SELECT COUNT(*) AS found FROM gpus WHERE last_seen_at >= $1", since_ms).await
    }

    /// Size of the database in bytes.
    pub async fn size_bytes(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query(self.engine.size()).fetch_one(&self.reader).await?.try_get("bytes")?)
    }

    pub(super) async fn count(&self, statement: &'static str, at_ms: i64) -> Result<i64, StoreError> {
        Ok(sqlx::query(statement).bind(at_ms).fetch_one(&self.reader).await?.try_get("found")?)
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::hotkey::Hotkey;

    use super::super::gpu::SeenGpu;
    use super::super::heartbeat::{Heartbeat, WorkerBeat};
    use super::super::lease::LeaseScore;
    use super::super::testing::{beat, on_both_engines, store};

    async fn a_lease_is_stale_when_it_is_above_zero_and_was_not_repeated() {
        let store = store().await;
        let (miner, worker) = (Hotkey([7; 32]), "w".parse().unwrap());
        for (score, at_ms) in [(1.0, 10), (1.0, 20)] {
            store.set_lease(miner, &worker, LeaseScore::new(score).unwrap(), "market", at_ms).await.unwrap();
        }
        assert_eq!(store.stale_leases(20).await.unwrap(), 0);
        assert_eq!(store.stale_leases(21).await.unwrap(), 1);
        store.set_lease(miner, &worker, LeaseScore::new(0.0).unwrap(), "market", 20).await.unwrap();
        assert_eq!(store.stale_leases(21).await.unwrap(), 0);
    }

    async fn who_takes_part_is_counted_by_when_it_was_last_heard() {
        let store = store().await;
        let gpu = SeenGpu { uuid: "GPU-1".to_owned(), raw: "{}".to_owned(), ..SeenGpu::default() };
        for (miner, gpus, at_ms) in [(1, vec![gpu], 10), (2, Vec::new(), 20)] {
            let workers = vec![WorkerBeat { gpus, ..beat("w") }];
            let heartbeat = Heartbeat { hotkey: Hotkey([miner; 32]), version: None, public_ip: None, workers, at_ms };
            store.record_heartbeat(&heartbeat).await.unwrap();
        }
        let counted =
            async |since_ms| (store.miners_since(since_ms).await.unwrap(), store.gpus_since(since_ms).await.unwrap());
        assert_eq!([counted(0).await, counted(11).await, counted(21).await], [(2, 1), (1, 0), (0, 0)]);
    }

    async fn an_empty_database_has_a_size_and_no_contest() {
        let store = store().await;
        assert_eq!(store.contested_gpus(0).await.unwrap(), 0);
        assert!(store.size_bytes().await.unwrap() > 10_000);
    }

    on_both_engines!(
        who_takes_part_is_counted_by_when_it_was_last_heard,
        a_lease_is_stale_when_it_is_above_zero_and_was_not_repeated,
        an_empty_database_has_a_size_and_no_contest,
    );
}
