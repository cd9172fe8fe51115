//! Phase 1: a worker commits to its whole result before it knows which rows it must open.
//!
//! The checks run in the order of miner-validator spec 5.5. Any refusal leaves the challenge as it was, so an honest
//! worker can still answer; only the deadline ends it. The rows are drawn after the last check and stored with the
//! commitment, in one transaction, before the answer names them.
//!
//! The same commitment again gets the same answer again: the first may have died with a process, ours or the miner's.
//! Another one for the same challenge is refused.

use byteleap_daemon::failpoint;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::Unit;
use byteleap_protocol::merkle::NodeHash;
use byteleap_protocol::payload::{Commitment, CommitmentData, CommitmentResponse, ProofRequest};
use rand_core::OsRng;

use super::Rules;
use super::state::Step;
use super::targets::draw_rows;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::challenge::{ChallengeRow, NewCommitment};

/// Takes a commitment in and says what to open.
pub async fn commit(
    store: &Store,
    rules: &Rules,
    caller: Hotkey,
    data: &CommitmentData,
    now_ms: i64,
) -> Result<CommitmentResponse, Refusal> {
    let challenge = store.challenge(caller, &data.challenge_id).await?.ok_or(Refusal::UnknownChallenge)?;
    if is_repeated(store, &challenge, data).await? {
        tracing::info!(peer = %caller, challenge_id = %challenge.id, "commitment repeated: the same rows are named");
        return Ok(to_open(challenge.rows));
    }
    let root = check(&challenge, rules, data, now_ms)?;
    let rows = draw_rows(&mut OsRng, challenge.size, rules.row_count, rules.row_count_variance);
    let commitment = NewCommitment {
        root,
        rows: rows.clone(),
        at_ms: now_ms,
        proof_deadline_at_ms: now_ms + rules.proof_timeout_ms,
    };
    failpoint::reach("validator.commit.before");
    if !store.commit_challenge(challenge.key, &commitment).await? {
        return Err(Refusal::AlreadyProcessed);
    }
    failpoint::reach("validator.commit.after");
    tracing::info!(
        peer = %caller,
        worker_id = %challenge.worker_id,
        challenge_id = %challenge.id,
        rows = rows.len(),
        compute_ms = challenge.sent_at_ms.map(|sent_at_ms| now_ms - sent_at_ms),
        "commitment stored"
    );
    Ok(to_open(rows))
}

/// Whether exactly this commitment is stored and its proof still awaited.
async fn is_repeated(store: &Store, challenge: &ChallengeRow, data: &CommitmentData) -> Result<bool, Refusal> {
    let [Commitment { uuid: Unit::Cpu, merkle_root, .. }] = data.commitments.as_slice() else { return Ok(false) };
    if challenge.status != Step::COMMIT.to || data.worker_id != challenge.worker_id {
        return Ok(false);
    }
    Ok(store.committed_root(challenge.key).await? == Some(*merkle_root))
}

fn to_open(rows: Vec<u32>) -> CommitmentResponse {
    CommitmentResponse { proof_requests: vec![ProofRequest { uuid: Unit::Cpu, rows, coordinates: Vec::new() }] }
}

/// Everything that can be said against a commitment, first things first; the root if there is nothing.
fn check(challenge: &ChallengeRow, rules: &Rules, data: &CommitmentData, now_ms: i64) -> Result<NodeHash, Refusal> {
    if challenge.status != Step::COMMIT.from {
        return Err(Refusal::AlreadyProcessed);
    }
    if challenge.expires_at_ms.is_none_or(|expires_at_ms| now_ms > expires_at_ms + rules.commitment_grace_ms) {
        return Err(Refusal::Expired);
    }
    if data.worker_id != challenge.worker_id {
        return Err(Refusal::OtherWorker);
    }
    let [commitment] = data.commitments.as_slice() else { return Err(Refusal::Commitments) };
    if commitment.uuid != Unit::Cpu {
        return Err(Refusal::Commitments);
    }
    // The root of one row is that row's hash; every other root is a whole SHA-256.
    match (commitment.merkle_root, challenge.size.get()) {
        (root @ NodeHash::Row(_), 1) => Ok(root),
        (root @ NodeHash::Inner(_), 2..) => Ok(root),
        _ => Err(Refusal::Root),
    }
}
