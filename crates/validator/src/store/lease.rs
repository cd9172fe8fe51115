//! Which workers are rented: the score the marketplace gave each, and how it came to be.
//!
//! A lease may name a worker not heard of yet; it is kept. A score of 0 is "not leased". A lease that nobody repeats grows
//! stale, and where the configuration says so it ends by itself ([`Store::expire_leases`]).

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use super::{Store, StoreError, commit, parsed, retrying};

/// Leases written in one transaction.
const BATCH: usize = 500;

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
    /// When it ended because nobody repeated it; none while it stands.
    pub expired_at_ms: Option<i64>,
}

/// A lease as it comes in: the score is finite and not negative, since nothing else can be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseScore(f64);

impl LeaseScore {
    /// No lease.
    pub const NONE: Self = Self(0.0);

    /// Takes a score in: `None` when it is not finite, 0 when it is negative.
    pub fn new(score: f64) -> Option<Self> {
        score.is_finite().then_some(Self(score.max(0.0)))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The leases that count now, as one look sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseAges {
    /// How many are above 0.
    pub active: i64,
    /// When the one that was repeated longest ago was repeated.
    pub oldest_at_ms: Option<i64>,
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
        let lease = (hotkey, worker_id.clone(), score);
        Ok(self.set_leases(std::slice::from_ref(&lease), source, at_ms).await? > 0)
    }

    /// Sets the leases of these workers and remembers the changes; returns how many scores changed.
    pub async fn set_leases(
        &self,
        leases: &[(Hotkey, WorkerId, LeaseScore)],
        source: &str,
        at_ms: i64,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        for batch in leases.chunks(BATCH) {
            changed += retrying(|| self.try_set_leases(batch, source, at_ms)).await?;
        }
        Ok(changed)
    }

    async fn try_set_leases(
        &self,
        leases: &[(Hotkey, WorkerId, LeaseScore)],
        source: &str,
        at_ms: i64,
    ) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        let mut changed = 0;
        for (hotkey, worker_id, score) in leases {
            changed += set(&mut transaction, *hotkey, worker_id, *score, source, at_ms).await?;
        }
        commit(transaction).await?;
        Ok(changed)
    }

    /// Ends every lease that was last repeated before `before_ms`; returns those that ended, with what they were worth.
    pub async fn expire_leases(&self, before_ms: i64, at_ms: i64) -> Result<Vec<LeaseRow>, StoreError> {
        retrying(|| self.try_expire_leases(before_ms, at_ms)).await
    }

    async fn try_expire_leases(&self, before_ms: i64, at_ms: i64) -> Result<Vec<LeaseRow>, StoreError> {
        let mut transaction = self.begin().await?;
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, score, source, received_at, expired_at FROM leases
             WHERE score > 0 AND received_at < $1 ORDER BY hotkey, worker_id LIMIT $2",
        )
        .bind(before_ms)
        .bind(BATCH as i64)
        .fetch_all(&mut *transaction)
        .await?;
        let overdue: Vec<LeaseRow> = rows.iter().map(lease_of).collect::<Result<_, _>>()?;
        for lease in &overdue {
            sqlx::query(
                "INSERT INTO lease_events (hotkey, worker_id, old, new, at)
                 SELECT hotkey, worker_id, score, 0, $3 FROM leases WHERE hotkey = $1 AND worker_id = $2",
            )
            .bind(lease.hotkey.to_string())
            .bind(lease.worker_id.as_str())
            .bind(at_ms)
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "UPDATE leases SET score = 0, changed_at = $3, expired_at = $3 WHERE hotkey = $1 AND worker_id = $2",
            )
            .bind(lease.hotkey.to_string())
            .bind(lease.worker_id.as_str())
            .bind(at_ms)
            .execute(&mut *transaction)
            .await?;
        }
        commit(transaction).await?;
        Ok(overdue)
    }

    /// Every lease, those of 0 too, by hotkey and worker.
    pub async fn leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, score, source, received_at, expired_at FROM leases ORDER BY hotkey, worker_id",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(lease_of).collect()
    }

    /// The leases of a miner's workers, those of 0 too, by worker.
    pub async fn leases_of(&self, hotkey: Hotkey) -> Result<Vec<LeaseRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, score, source, received_at, expired_at FROM leases WHERE hotkey = $1
             ORDER BY worker_id",
        )
        .bind(hotkey.to_string())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(lease_of).collect()
    }

    /// How many leases count, and how old the oldest is.
    pub async fn lease_ages(&self) -> Result<LeaseAges, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS active, MIN(received_at) AS oldest FROM leases WHERE score > 0")
            .fetch_one(&self.reader)
            .await?;
        Ok(LeaseAges { active: row.try_get("active")?, oldest_at_ms: row.try_get("oldest")? })
    }

    /// What the lease of a worker was worth before its last change; none when it never changed.
    pub async fn lease_before(&self, hotkey: Hotkey, worker_id: &WorkerId) -> Result<Option<f64>, StoreError> {
        let row =
            sqlx::query("SELECT old FROM lease_events WHERE hotkey = $1 AND worker_id = $2 ORDER BY id DESC LIMIT 1")
                .bind(hotkey.to_string())
                .bind(worker_id.as_str())
                .fetch_optional(&self.reader)
                .await?;
        row.map_or(Ok(None), |row| Ok(row.try_get("old")?))
    }
}

/// Sets one lease; 1 when its score changed.
async fn set(
    transaction: &mut Transaction<'static, Any>,
    hotkey: Hotkey,
    worker_id: &WorkerId,
    score: LeaseScore,
    source: &str,
    at_ms: i64,
) -> Result<u64, StoreError> {
    let hotkey = hotkey.to_string();
    let changed = sqlx::query(
        "INSERT INTO lease_events (hotkey, worker_id, old, new, at)
         SELECT $1, $2, (SELECT score FROM leases WHERE hotkey = $1 AND worker_id = $2), $3, $4
         WHERE NOT EXISTS (SELECT 1 FROM leases WHERE hotkey = $1 AND worker_id = $2 AND score = $3)",
    )
    .bind(hotkey.as_str())
    .bind(worker_id.as_str())
    .bind(score.get())
    .bind(at_ms)
    .execute(&mut **transaction)
    .await?
    .rows_affected();
    sqlx::query(
        "INSERT INTO leases (hotkey, worker_id, score, source, received_at, changed_at)
         VALUES ($1, $2, $3, $4, $5, $5)
         ON CONFLICT (hotkey, worker_id) DO UPDATE SET
             changed_at = CASE WHEN leases.score = excluded.score THEN leases.changed_at
                               ELSE excluded.changed_at END,
             score = excluded.score, source = excluded.source, received_at = excluded.received_at, expired_at = NULL",
    )
    .bind(hotkey.as_str())
    .bind(worker_id.as_str())
    .bind(score.get())
    .bind(source)
    .bind(at_ms)
    .execute(&mut **transaction)
    .await?;
    Ok(changed)
}

fn lease_of(row: &AnyRow) -> Result<LeaseRow, StoreError> {
    Ok(LeaseRow {
        hotkey: parsed("leases", row, "hotkey")?,
        worker_id: parsed("leases", row, "worker_id")?,
        score: row.try_get("score")?,
        source: row.try_get("source")?,
        received_at_ms: row.try_get("received_at")?,
        expired_at_ms: row.try_get("expired_at")?,
    })
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
        assert!(store.set_lease(miner, &worker, LeaseScore::NONE, "market", 30).await.unwrap());
        let leases = store.leases().await.unwrap();
        assert_eq!(leases.len(), 1);
        assert_eq!((leases[0].score, leases[0].received_at_ms), (0.0, 30));
        let events =
            sqlx::query("SELECT old, new, at FROM lease_events ORDER BY id").fetch_all(&store.reader).await.unwrap();
        let events: Vec<(Option<f64>, f64, i64)> =
            events.iter().map(|row| (row.get("old"), row.get("new"), row.get("at"))).collect();
        assert_eq!(events, [(None, 1.0, 10), (Some(1.0), 0.0, 30)]);
    }

    async fn a_lease_that_nobody_repeats_ends_and_comes_back_when_somebody_does() {
        let store = store().await;
        let (miner, old, kept) = (Hotkey([7; 32]), "old".parse().unwrap(), "kept".parse().unwrap());
        let half = LeaseScore::new(0.5).unwrap();
        store.set_lease(miner, &old, half, "meshhub", 10).await.unwrap();
        store.set_lease(miner, &kept, half, "meshhub", 20).await.unwrap();
        assert_eq!(store.lease_ages().await.unwrap(), LeaseAges { active: 2, oldest_at_ms: Some(10) });
        let ended = store.expire_leases(20, 50).await.unwrap();
        assert_eq!(ended.iter().map(|lease| (&lease.worker_id, lease.score)).collect::<Vec<_>>(), [(&old, 0.5)]);
        assert!(store.expire_leases(20, 60).await.unwrap().is_empty(), "it ends once");
        let leases = store.leases_of(miner).await.unwrap();
        let seen: Vec<_> = leases.iter().map(|lease| (lease.score, lease.expired_at_ms)).collect();
        assert_eq!(seen, [(0.5, None), (0.0, Some(50))]);
        assert_eq!(store.lease_before(miner, &old).await.unwrap(), Some(0.5));
        assert_eq!(store.lease_ages().await.unwrap(), LeaseAges { active: 1, oldest_at_ms: Some(20) });

        assert!(store.set_lease(miner, &old, half, "meshhub", 70).await.unwrap());
        assert_eq!(store.leases_of(miner).await.unwrap()[1].expired_at_ms, None);
        assert!(store.leases_of(Hotkey([8; 32])).await.unwrap().is_empty());
    }

    on_both_engines!(
        a_lease_for_an_unknown_worker_is_kept_and_only_changes_are_events,
        a_lease_that_nobody_repeats_ends_and_comes_back_when_somebody_does,
    );
}
