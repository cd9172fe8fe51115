//! What is remembered of the marketplace: who it is and which rounds it has ([`HubFact`]), what it ordered (tasks,
//! configuration), and what was odd about what it said.

use sqlx::Row;

use super::round::{RoundKey, RoundRow};
use super::{Store, StoreError, commit, retrying};

/// Longest note of an event, in characters.
const MAX_NOTE_CHARS: usize = 512;

/// One thing that is known of the marketplace across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubFact {
    /// Its hotkey, as it was at first use.
    ServerHotkey,
    /// That it proved its hotkey once, and has to from then on.
    ServerSigns,
    /// The newest scoring round that it has read.
    ReportedRound,
}

impl HubFact {
    fn name(self) -> &'static str {
        match self {
            Self::ServerHotkey => "server_hotkey",
            Self::ServerSigns => "server_signs",
            Self::ReportedRound => "reported_round",
        }
    }
}

/// A task as it is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// Its name.
    pub key: String,
    /// The worker, as text.
    pub worker: Option<String>,
    /// What is to be done.
    pub kind: String,
    /// How, as JSON text.
    pub payload: String,
    /// The higher, the sooner.
    pub priority: i64,
    /// When it is too late.
    pub expires_at_ms: Option<i64>,
}

impl Store {
    /// What is known.
    pub async fn hub_fact(&self, fact: HubFact) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT value FROM hub_facts WHERE name = $1")
            .bind(fact.name())
            .fetch_optional(&self.reader)
            .await?;
        row.map_or(Ok(None), |row| Ok(row.try_get("value")?))
    }

    /// Remembers it.
    pub async fn set_hub_fact(&self, fact: HubFact, value: &str, at_ms: i64) -> Result<(), StoreError> {
        retrying(|| async {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "INSERT INTO hub_facts (name, value, at) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at",
            )
            .bind(fact.name())
            .bind(value)
            .bind(at_ms)
            .execute(&mut *transaction)
            .await?;
            commit(transaction).await
        })
        .await
    }

    /// The oldest round after another.
    pub async fn round_after(&self, key: RoundKey) -> Result<Option<RoundRow>, StoreError> {
        let row = sqlx::query("SELECT MIN(id) AS next FROM scoring_rounds WHERE id > $1")
            .bind(key.0)
            .fetch_one(&self.reader)
            .await?;
        match row.try_get::<Option<i64>, _>("next")? {
            Some(next) => self.round(RoundKey(next)).await,
            None => Ok(None),
        }
    }

    /// How many rounds there are after another.
    pub async fn rounds_after(&self, key: RoundKey) -> Result<i64, StoreError> {
        self.count("SELECT COUNT(*) AS found FROM scoring_rounds WHERE id > $1", key.0).await
    }

    /// Writes a task down; false when it is known already.
    pub async fn record_task(&self, task: &NewTask, at_ms: i64) -> Result<bool, StoreError> {
        retrying(|| async {
            let mut transaction = self.begin().await?;
            let written = sqlx::query(
                "INSERT INTO hub_tasks (task_key, worker_key, kind, payload, priority, status, received_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, 'pending', $6, CAST($7 AS BIGINT)) ON CONFLICT (task_key) DO NOTHING",
            )
            .bind(task.key.as_str())
            .bind(task.worker.as_deref())
            .bind(task.kind.as_str())
            .bind(task.payload.as_str())
            .bind(task.priority)
            .bind(at_ms)
            .bind(task.expires_at_ms.map(|at_ms| at_ms.to_string()))
            .execute(&mut *transaction)
            .await?
            .rows_affected();
            commit(transaction).await?;
            Ok(written > 0)
        })
        .await
    }

    /// Marks the tasks whose time is over; returns how many those were.
    pub async fn expire_tasks(&self, now_ms: i64) -> Result<u64, StoreError> {
        retrying(|| async {
            let mut transaction = self.begin().await?;
            let expired =
                sqlx::query("UPDATE hub_tasks SET status = 'expired' WHERE status = 'pending' AND expires_at < $1")
                    .bind(now_ms)
                    .execute(&mut *transaction)
                    .await?
                    .rows_affected();
            commit(transaction).await?;
            Ok(expired)
        })
        .await
    }

    /// How many tasks wait.
    pub async fn pending_tasks(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS found FROM hub_tasks WHERE status = 'pending'")
            .fetch_one(&self.reader)
            .await?;
        Ok(row.try_get("found")?)
    }

    /// Remembers that a message of some kind was not taken, or not as it was said, and why.
    pub async fn record_hub_event(&self, kind: &str, result: &str, note: &str, at_ms: i64) -> Result<(), StoreError> {
        let note: String = note.chars().filter(|char| !char.is_control()).take(MAX_NOTE_CHARS).collect();
        retrying(|| async {
            let mut transaction = self.begin().await?;
            sqlx::query("INSERT INTO hub_events (at, kind, result, note) VALUES ($1, $2, $3, $4)")
                .bind(at_ms)
                .bind(kind)
                .bind(result)
                .bind(note.as_str())
                .execute(&mut *transaction)
                .await?;
            commit(transaction).await
        })
        .await
    }

    /// The newest odd messages, newest first: when, which kind, what became of it, why.
    pub async fn last_hub_events(&self, most: i64) -> Result<Vec<(i64, String, String, String)>, StoreError> {
        let rows = sqlx::query("SELECT at, kind, result, note FROM hub_events ORDER BY id DESC LIMIT $1")
            .bind(most)
            .fetch_all(&self.reader)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("at")?, row.try_get("kind")?, row.try_get("result")?, row.try_get("note")?)))
            .collect()
    }

    /// Remembers that somebody set keys otherwise, or tried to; `diff` holds JSON.
    pub async fn record_config_change(
        &self,
        source: &str,
        diff: &str,
        accepted: bool,
        reason: &str,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let reason: String = reason.chars().filter(|char| !char.is_control()).take(MAX_NOTE_CHARS).collect();
        retrying(|| async {
            let mut transaction = self.begin().await?;
            sqlx::query("INSERT INTO config_changes (at, source, diff, accepted, reason) VALUES ($1, $2, $3, $4, $5)")
                .bind(at_ms)
                .bind(source)
                .bind(diff)
                .bind(i64::from(accepted))
                .bind(reason.as_str())
                .execute(&mut *transaction)
                .await?;
            commit(transaction).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_both_engines, store};
    use super::*;

    async fn facts_outlive_the_process_and_the_newest_counts() {
        let store = store().await;
        assert_eq!(store.hub_fact(HubFact::ServerHotkey).await.unwrap(), None);
        for value in ["one", "two"] {
            store.set_hub_fact(HubFact::ServerHotkey, value, 1).await.unwrap();
        }
        let reopened = super::super::testing::store().await;
        assert_eq!(reopened.hub_fact(HubFact::ServerHotkey).await.unwrap().as_deref(), Some("two"));
        assert_eq!(reopened.hub_fact(HubFact::ReportedRound).await.unwrap(), None);
    }

    async fn a_task_is_written_once_and_ends_with_its_time() {
        let store = store().await;
        let task = |key: &str, expires_at_ms| NewTask {
            key: key.to_owned(),
            worker: None,
            kind: "vm_creation".to_owned(),
            payload: "{}".to_owned(),
            priority: 5,
            expires_at_ms,
        };
        assert!(store.record_task(&task("a", Some(100)), 1).await.unwrap());
        assert!(!store.record_task(&task("a", Some(200)), 2).await.unwrap());
        assert!(store.record_task(&task("b", None), 3).await.unwrap());
        assert_eq!((store.expire_tasks(100).await.unwrap(), store.expire_tasks(101).await.unwrap()), (0, 1));
        assert_eq!(store.pending_tasks().await.unwrap(), 1);
    }

    async fn what_was_odd_is_told_newest_first() {
        let store = store().await;
        store.record_hub_event("MESH_LEASE_PUBLISH_V1", "refused", &"x\n".repeat(600), 1).await.unwrap();
        store.record_hub_event("MESH_TASK_PUBLISH_V1", "duplicate", "task a", 2).await.unwrap();
        store.record_config_change("meshhub", "{}", false, "no_allowed_root", 3).await.unwrap();
        let events = store.last_hub_events(10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(events[1].3.len(), MAX_NOTE_CHARS);
    }

    on_both_engines!(
        facts_outlive_the_process_and_the_newest_counts,
        a_task_is_written_once_and_ends_with_its_time,
        what_was_odd_is_told_newest_first,
    );
}
