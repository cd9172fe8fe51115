//! Phase 2: the opened rows arrive; they are on disk before the miner hears that they have.
//!
//! The checks run in the order of miner-validator spec 5.6, with exact lengths. A refused proof may be sent again until
//! the deadline. Whether the proof holds is not decided here: see [`super::verify`].

use byteleap_daemon::failpoint;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::Unit;
use byteleap_protocol::payload::{ProofData, ProofReceipt, ProofResponse};

use super::state::{Status, Step};
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::challenge::ChallengeRow;

/// Takes a proof in.
pub async fn prove(store: &Store, caller: Hotkey, data: &ProofData, now_ms: i64) -> Result<ProofReceipt, Refusal> {
    let challenge = store.challenge(caller, &data.challenge_id).await?.ok_or(Refusal::UnknownChallenge)?;
    check(&challenge, data, now_ms)?;
    let body = serde_json::to_vec(&data.proofs).map_err(|_| Refusal::Internal)?;
    failpoint::reach("validator.prove.before");
    if !store.accept_proof(challenge.key, &body, now_ms).await? {
        return Err(Refusal::NotCommitted);
    }
    failpoint::reach("validator.prove.after");
    tracing::info!(peer = %caller, worker_id = %challenge.worker_id, challenge_id = %challenge.id, "proof stored");
    Ok(ProofReceipt {
        challenge_status: "queued".to_owned(),
        message: "Proof stored, verification follows".to_owned(),
        challenge_id: challenge.id,
    })
}

fn check(challenge: &ChallengeRow, data: &ProofData, now_ms: i64) -> Result<(), Refusal> {
    match challenge.status {
        status if status == Step::PROVE.from => {}
        Status::Created | Status::Sent => return Err(Refusal::NotCommitted),
        _ => return Err(Refusal::AlreadyProcessed),
    }
    if challenge.expires_at_ms.is_none_or(|expires_at_ms| now_ms > expires_at_ms) {
        return Err(Refusal::Expired);
    }
    let [ProofResponse { uuid: Unit::Cpu, row_hashes, merkle_proofs, coordinate_values }] = data.proofs.as_slice()
    else {
        return Err(Refusal::Proofs);
    };
    if row_hashes.len() != challenge.rows.len()
        || merkle_proofs.len() != challenge.rows.len()
        || !coordinate_values.is_empty()
    {
        return Err(Refusal::Lengths { rows: challenge.rows.len() });
    }
    Ok(())
}
