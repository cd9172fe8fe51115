//! Which workers are rented: the score the marketplace gave each, and how it came to be.
//!
//! A lease may name a worker not heard of yet; it is kept. A score of 0 is "not leased".

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use sqlx::Row;

use super::{Store, StoreError, commit, parsed, retrying};

/// The lease of one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseRow {
    /// Its miner.
    pub hotkey: Hotkey,
    /// Its own id.
    pub worker_id: WorkerId,
    /// What the lease is worth; finite and not negative.
    pub score: f64,
    /// Who said so.
    pub source: String,
    /// When it was last said.
    pub received_at_ms: i64,
}

/// A lease as it comes in: the score is finite and not negative, since nothing else can be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseScore(f64);

impl LeaseScore {
    /// Takes a score in: `None` when it is not finite, 0 when it is negative.
    pub fn new(score: f64) -> Option<Self> {
        score.is_finite().then_some(Self(score.max(0.0)))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Store {
    /// Sets the lease of a worker and remembers a change; true when the score changed.
    pub async fn set_lease(
        &self,
        hotkey: Hotkey,
        worker_id: &WorkerId,
        score: LeaseScore,
        source: &str,
        at_ms: i64,
    ) -> Result<bool, StoreError> {
        retrying(|| self.try_set_lease(hotkey, worker_id, score, source, at_ms)).await
    }

    async fn try_set_lease(
        &self,
        hotkey: Hotkey,
        worker_id: &WorkerId,
        score: LeaseScore,
        source: &str,
        at_ms: i64,
    ) -> Result<bool, StoreError> {
        let hotkey = hotkey.to_string();
        let mut transaction = self.begin().await?;
        let changed = sqlx::query(
            "INSERT INTO lease_events (hotkey, worker_id, old, new, at)
             SELECT $1, $2, (SELECT score FROM leases WHERE hotkey = $1 AND worker_id = $2), $3, $4
             WHERE NOT EXISTS (SELECT 1 FROM leases WHERE hotkey = $1 AND worker_id = $2 AND score = $3)",
        )
        .bind(hotkey.as_str())
        .bind(worker_id.as_str())
        .bind(score.get())
        .bind(at_ms)
        .execute(&mut *transaction)
        .await?
        .rows_affected()
            > 0;
        sqlx::query(
            "INSERT INTO leases (hotkey, worker_id, score, source, received_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, $5)
             ON CONFLICT (hotkey, worker_id) DO UPDATE SET
                 changed_at = CASE WHEN leases.score = excluded.score THEN leases.changed_at
                                   ELSE excluded.changed_at END,
                 score = excluded.score, source = excluded.source, received_at = excluded.received_at",
        )
        .bind(hotkey.as_str())
        .bind(worker_id.as_str())
        .bind(score.get())
        .bind(source)
        .bind(at_ms)
        .execute(&mut *transaction)
        .await?;
        commit(transaction).await?;
        Ok(changed)
    }

    /// Every lease, those of 0 too, by hotkey and worker.
    pub async fn leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let rows =
            sqlx::query("SELECT hotkey, worker_id, score, source, received_at FROM leases ORDER BY hotkey, worker_id")
                .fetch_all(&self.reader)
                .await?;
        rows.iter()
            .map(|row| {
                Ok(LeaseRow {
                    hotkey: parsed("leases", row, "hotkey")?,
                    worker_id: parsed("leases", row, "worker_id")?,
                    score: row.try_get("score")?,
                    source: row.try_get("source")?,
                    received_at_ms: row.try_get("received_at")?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_both_engines, store};
    use super::*;

    #[test]
    fn a_score_is_finite_and_not_negative() {
        assert_eq!(LeaseScore::new(f64::NAN), None);
        assert_eq!(LeaseScore::new(f64::INFINITY), None);
        assert_eq!(LeaseScore::new(-3.0).map(LeaseScore::get), Some(0.0));
        assert_eq!(LeaseScore::new(1.5).map(LeaseScore::get), Some(1.5));
    }

    async fn a_lease_for_an_unknown_worker_is_kept_and_only_changes_are_events() {
        let store = store().await;
        let (miner, worker) = (Hotkey([7; 32]), "w".parse().unwrap());
        let one = LeaseScore::new(1.0).unwrap();
        assert!(store.set_lease(miner, &worker, one, "market", 10).await.unwrap());
        assert!(!store.set_lease(miner, &worker, one, "market", 20).await.unwrap());
        assert!(store.set_lease(miner, &worker, LeaseScore::new(0.0).unwrap(), "market", 30).await.unwrap());
        let leases = store.leases().await.unwrap();
        assert_eq!(leases.len(), 1);
        assert_eq!((leases[0].score, leases[0].received_at_ms), (0.0, 30));
        let events =
            sqlx::query("SELECT old, new, at FROM lease_events ORDER BY id").fetch_all(&store.reader).await.unwrap();
        let events: Vec<(Option<f64>, f64, i64)> =
            events.iter().map(|row| (row.get("old"), row.get("new"), row.get("at"))).collect();
        assert_eq!(events, [(None, 1.0, 10), (Some(1.0), 0.0, 30)]);
    }

    on_both_engines!(a_lease_for_an_unknown_worker_is_kept_and_only_changes_are_events,);
}
