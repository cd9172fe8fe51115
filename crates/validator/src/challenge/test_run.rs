//! An operator's own test: one worker challenged now, out of turn, with a verdict that counts for nothing.

use byteleap_daemon::clock::Clock;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, IdError, WorkerId};

use super::Rules;
use super::schedule::challenge;
use crate::store::{Store, StoreError};

/// Why a worker is not challenged out of turn.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// No such worker, or it was not heard of lately.
    #[error("the miner has no worker of this name that is online")]
    NotOnline,
    /// It is somebody's machine now.
    #[error("the worker is leased: a challenge would take its tenant's time")]
    Leased,
    /// One at a time.
    #[error("the worker has a challenge without a verdict: wait for it")]
    Busy,
    /// Not what it says that it computes.
    #[error("the worker does not offer {0}")]
    Incapable(&'static str),
    /// The configured sizes cannot be drawn from.
    #[error("no challenge can be made: check matrix_size and size_variance of validation.cpu and gpu")]
    Rules(#[from] IdError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a test of a worker, which its miner fetches at its next poll, and returns its name.
///
/// # Errors
/// See [`TestError`].
pub async fn test_worker(
    store: &Store,
    rules: &Rules,
    clock: &dyn Clock,
    hotkey: Hotkey,
    worker_id: &WorkerId,
    kind: ChallengeKind,
) -> Result<ChallengeId, TestError> {
    let now_ms = clock.unix_ms();
    let Some(state) = store.testable(hotkey, worker_id, now_ms).await? else { return Err(TestError::NotOnline) };
    if state.is_leased {
        return Err(TestError::Leased);
    }
    if state.has_open {
        return Err(TestError::Busy);
    }
    if !state.capabilities.contains(&kind) {
        return Err(TestError::Incapable(kind.as_str()));
    }
    let mut challenge = challenge(rules, state.key, kind, &format!("test_{}", now_ms.div_euclid(1000)))?;
    challenge.is_test = true;
    let id = challenge.id.clone();
    store.create_challenges(&[challenge], now_ms, now_ms + rules.interval_ms).await?;
    tracing::info!(peer = %hotkey, %worker_id, challenge_id = %id, kind = kind.as_str(), "an operator's test created");
    Ok(id)
}
