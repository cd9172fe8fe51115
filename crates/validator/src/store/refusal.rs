//! What was refused to whom, counted by reason: where a miner reads why its lies, or its faults, came to nothing.
//!
//! Only a caller whose signature held is counted, so that nobody can fill another's account; reasons are a fixed set of
//! codes, so a hotkey has few rows.

use byteleap_protocol::hotkey::Hotkey;
use serde::Serialize;
use sqlx::Row;

use super::{Store, StoreError, retrying};

/// A longer note is cut to the column's length. It may quote the caller, so what is not printable is left out: PostgreSQL
/// takes no NUL.
const MAX_NOTE_CHARS: usize = 256;

/// One reason for which a hotkey was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalRow {
    /// The lasting short name of the reason.
    pub code: String,
    /// How often.
    pub times: i64,
    /// The last time, in words.
    pub note: String,
    /// When that was, unix milliseconds UTC.
    pub last_at_ms: i64,
}

impl Store {
    /// Counts a refusal.
    pub async fn record_refusal(&self, hotkey: Hotkey, code: &str, note: &str, at_ms: i64) -> Result<(), StoreError> {
        retrying(|| self.try_record_refusal(hotkey, code, note, at_ms)).await
    }

    async fn try_record_refusal(&self, hotkey: Hotkey, code: &str, note: &str, at_ms: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO refusals (hotkey, code, times, note, last_at) VALUES ($1, $2, 1, $3, $4)
             ON CONFLICT (hotkey, code) DO UPDATE SET
                 times = refusals.times + 1, note = excluded.note, last_at = excluded.last_at",
        )
        .bind(hotkey.to_string())
        .bind(code)
        .bind(note.chars().filter(|character| !character.is_control()).take(MAX_NOTE_CHARS).collect::<String>())
        .bind(at_ms)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// What a hotkey was refused, the latest reason first.
    pub async fn refusals_of(&self, hotkey: Hotkey) -> Result<Vec<RefusalRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT code, times, note, last_at FROM refusals WHERE hotkey = $1 ORDER BY last_at DESC, code",
        )
        .bind(hotkey.to_string())
        .fetch_all(&self.reader)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(RefusalRow {
                    code: row.try_get("code")?,
                    times: row.try_get("times")?,
                    note: row.try_get("note")?,
                    last_at_ms: row.try_get("last_at")?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_both_engines, store};
    use super::*;

    async fn refusals_are_counted_by_hotkey_and_reason_with_the_last_note() {
        let store = store().await;
        let (liar, other) = (Hotkey([1; 32]), Hotkey([2; 32]));
        for (hotkey, code, at_ms) in
            [(liar, "expired", 1), (liar, "expired", 2), (liar, "wrong_root", 3), (other, "expired", 4)]
        {
            store.record_refusal(hotkey, code, &format!("\0{}", "x".repeat(300)), at_ms).await.unwrap();
        }
        let told: Vec<_> = store.refusals_of(liar).await.unwrap();
        let told: Vec<_> =
            told.iter().map(|row| (row.code.as_str(), row.times, row.note.len(), row.last_at_ms)).collect();
        assert_eq!(told, [("wrong_root", 1, 256, 3), ("expired", 2, 256, 2)]);
    }

    on_both_engines!(refusals_are_counted_by_hotkey_and_reason_with_the_last_note);
}
