//! A miner asks for work: everything that waits for its workers becomes `sent`, and the clock starts.

use byteleap_daemon::failpoint;
use byteleap_protocol::challenge::{ChallengeData, ChallengeItem, ChallengeKind};
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::payload::TaskResponse;

use super::Rules;
use crate::store::challenge::ChallengeRow;
use crate::store::heartbeat::ACTIVE_WORKERS;
use crate::store::{Store, StoreError};

/// Challenges in one answer: one for each active worker.
const MAX_BATCH: i64 = ACTIVE_WORKERS as i64;
/// What `target_gpu_id` is.
const EVERY_GPU: i64 = -1;

/// Answers a poll. The batch is on disk as `sent` before it leaves, so a lost answer costs the miner its turn and
/// never gives it a second try at the same challenge.
pub async fn deliver(store: &Store, rules: &Rules, caller: Hotkey, now_ms: i64) -> Result<TaskResponse, StoreError> {
    let expires_at_ms = now_ms + rules.timeout_ms();
    failpoint::reach("validator.deliver.before");
    let sent = store.send_challenges(caller, MAX_BATCH, now_ms, expires_at_ms).await?;
    failpoint::reach("validator.deliver.after");
    if !sent.is_empty() {
        tracing::info!(peer = %caller, challenges = sent.len(), "challenges sent");
    }
    let challenges = sent.into_iter().map(|challenge| item(challenge, rules)).collect();
    Ok(TaskResponse { challenges, refused_items: 0, timestamp: now_ms as f64 / 1000.0 })
}

fn item(challenge: ChallengeRow, rules: &Rules) -> ChallengeItem {
    let is_gpu = challenge.kind == ChallengeKind::GpuMatrix;
    let data = ChallengeData {
        challenge_type: Some(challenge.kind),
        matrix_size: challenge.size,
        seed: challenge.seed,
        iterations: challenge.iterations,
        mode: is_gpu.then_some(0),
        target_gpu_id: is_gpu.then_some(EVERY_GPU),
        challenge_id: Some(challenge.id.clone()),
        worker_id: Some(challenge.worker_id.clone()),
        miner_hotkey: Some(challenge.hotkey),
        round_id: Some(challenge.round_id),
    };
    ChallengeItem {
        challenge_id: challenge.id,
        challenge_type: challenge.kind,
        data: data.to_object(),
        timeout: rules.timeout,
        target_worker_id: Some(challenge.worker_id),
    }
}
