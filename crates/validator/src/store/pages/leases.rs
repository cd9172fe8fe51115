//! What is rented, and how that came to be, page by page.

use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;

use super::super::{Store, StoreError, parsed};
use super::{Page, one_more};

/// The lease of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LeaseLine {
    /// Its miner's hotkey (SS58).
    #[schema(value_type = String)]
    pub hotkey: Hotkey,
    /// Its own id; no worker of this name need have been heard of.
    #[schema(value_type = String)]
    pub worker_id: WorkerId,
    /// What the lease is worth; 0 is "not leased".
    pub score: f64,
    /// Who said so.
    pub source: String,
    /// When it was last said, unix milliseconds UTC.
    pub received_at_ms: i64,
    /// When the score last changed.
    pub changed_at_ms: i64,
    /// Whether it was not repeated for so long that it is no longer sure.
    pub stale: bool,
}

/// A change of a lease.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LeaseChange {
    /// The score before; null for the first.
    pub old: Option<f64>,
    /// The score after.
    pub new: f64,
    /// When, unix milliseconds UTC.
    pub at_ms: i64,
}

impl Store {
    /// Leases by hotkey and worker, those of 0 only when `ended`, from behind `after` on. One that was last said before `stale_before_ms`
    /// is stale.
    pub async fn lease_page(
        &self,
        ended: bool,
        after: (&str, &str),
        limit: u32,
        stale_before_ms: i64,
    ) -> Result<Page<LeaseLine>, StoreError> {
        let rows = sqlx::query(
            "SELECT hotkey, worker_id, score, source, received_at, changed_at FROM leases
             WHERE (hotkey > $1 OR (hotkey = $1 AND worker_id > $2)) AND ($3 = 1 OR score > 0)
             ORDER BY hotkey, worker_id LIMIT $4",
        )
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(ended))
        .bind(one_more(limit))
        .fetch_all(&self.reader)
        .await?;
        let leases = rows.iter().map(|row| {
            let (score, received_at_ms): (f64, i64) = (row.try_get("score")?, row.try_get("received_at")?);
            Ok(LeaseLine {
                hotkey: parsed("leases", row, "hotkey")?,
                worker_id: parsed("leases", row, "worker_id")?,
                score,
                source: row.try_get("source")?,
                received_at_ms,
                changed_at_ms: row.try_get("changed_at")?,
                stale: score > 0.0 && received_at_ms < stale_before_ms,
            })
        });
        let leases = leases.collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Page::of(leases, limit, |lease| format!("{}:{}", lease.hotkey, lease.worker_id)))
    }

    /// The changes of one worker's lease, the newest first, from before row `before` on.
    pub async fn lease_history(
        &self,
        hotkey: Hotkey,
        worker_id: &WorkerId,
        before: i64,
        limit: u32,
    ) -> Result<Page<LeaseChange>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, old, new, at FROM lease_events WHERE hotkey = $1 AND worker_id = $2 AND id < $3
             ORDER BY id DESC LIMIT $4",
        )
        .bind(hotkey.to_string())
        .bind(worker_id.as_str())
        .bind(before)
        .bind(one_more(limit))
        .fetch_all(&self.reader)
        .await?;
        let changes = rows.iter().map(|row| {
            let change = LeaseChange { old: row.try_get("old")?, new: row.try_get("new")?, at_ms: row.try_get("at")? };
            Ok((row.try_get::<i64, _>("id")?, change))
        });
        let changes = changes.collect::<Result<Vec<_>, StoreError>>()?;
        let Page { items, next } = Page::of(changes, limit, |(id, _)| id.to_string());
        Ok(Page { items: items.into_iter().map(|(_, change)| change).collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lease::LeaseScore;
    use super::super::super::testing::{on_both_engines, store};
    use super::*;

    async fn leases_and_their_changes_are_told_in_pages() {
        let store = store().await;
        let names = ["a", "b", "c"].map(|name| name.parse::<WorkerId>().unwrap());
        for (hotkey, at_ms) in [(Hotkey([1; 32]), 1), (Hotkey([2; 32]), 2)] {
            for worker_id in &names {
                for score in [1.0, 2.0] {
                    let score = LeaseScore::new(score).unwrap();
                    store.set_lease(hotkey, worker_id, score, "test", at_ms).await.unwrap();
                }
            }
        }
        let ended = LeaseScore::new(0.0).unwrap();
        store.set_lease(Hotkey([1; 32]), &names[0], ended, "test", 3).await.unwrap();
        let mut told = Vec::new();
        let mut after = (String::new(), String::new());
        loop {
            let page = store.lease_page(false, (&after.0, &after.1), 2, 2).await.unwrap();
            told.extend(page.items.into_iter().map(|lease| (lease.score, lease.stale)));
            let Some(next) = page.next else { break };
            let (hotkey, worker_id) = next.split_once(':').unwrap();
            after = (hotkey.to_owned(), worker_id.to_owned());
        }
        told.sort_by_key(|(_, stale)| *stale);
        assert_eq!(told, [(2.0, false), (2.0, false), (2.0, false), (2.0, true), (2.0, true)]);
        assert_eq!(store.lease_page(true, ("", ""), 9, 2).await.unwrap().items.len(), 6);
        let first = store.lease_history(Hotkey([1; 32]), &names[0], i64::MAX, 2).await.unwrap();
        let scores: Vec<_> = first.items.iter().map(|change| (change.old, change.new)).collect();
        assert_eq!(scores, [(Some(2.0), 0.0), (Some(1.0), 2.0)]);
        let before = first.next.unwrap().parse().unwrap();
        let last = store.lease_history(Hotkey([1; 32]), &names[0], before, 2).await.unwrap();
        assert_eq!((last.items[0].old, last.items.len(), last.next), (None, 1, None));
    }

    on_both_engines!(leases_and_their_changes_are_told_in_pages,);
}
