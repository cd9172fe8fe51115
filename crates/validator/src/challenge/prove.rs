//! Phase 2: what was asked for arrives; it is on disk before the miner hears that they have.
//!
//! The checks run in the order of miner-validator spec 5.6, with exact lengths for a processor. A refused proof may be sent again until
//! the deadline. Whether the proof holds is not decided here: see [`super::verify`].

use std::collections::BTreeSet;

use byteleap_daemon::failpoint;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::Unit;
use byteleap_protocol::payload::{ProofData, ProofReceipt, ProofResponse};

use super::state::{Status, Step};
use super::stored_proof;
use super::units::CommittedUnit;
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::challenge::ChallengeRow;

/// Takes a proof in.
pub async fn prove(store: &Store, caller: Hotkey, data: &ProofData, now_ms: i64) -> Result<ProofReceipt, Refusal> {
    let challenge = store.challenge(caller, &data.challenge_id).await?.ok_or(Refusal::UnknownChallenge)?;
    check(&challenge, now_ms)?;
    match challenge.kind {
        ChallengeKind::CpuMatrix => check_cpu(&challenge, data)?,
        ChallengeKind::GpuMatrix => check_gpus(&store.committed_units(challenge.key).await?, data)?,
    }
    let body = stored_proof::pack(&data.proofs).map_err(|_| Refusal::Internal)?;
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

fn check(challenge: &ChallengeRow, now_ms: i64) -> Result<(), Refusal> {
    match challenge.status {
        status if status == Step::PROVE.from => {}
        Status::Created | Status::Sent => return Err(Refusal::NotCommitted),
        _ => return Err(Refusal::AlreadyProcessed),
    }
    if challenge.expires_at_ms.is_none_or(|expires_at_ms| now_ms > expires_at_ms) {
        return Err(Refusal::Expired);
    }
    Ok(())
}

/// The processor shows exactly what was asked for.
fn check_cpu(challenge: &ChallengeRow, data: &ProofData) -> Result<(), Refusal> {
    let [ProofResponse { uuid: Unit::Cpu, row_hashes, merkle_proofs, coordinate_values }] = data.proofs.as_slice()
    else {
        return Err(Refusal::Proofs);
    };
    let rows = challenge.targets.rows.len();
    if row_hashes.len() != rows || merkle_proofs.len() != rows || !coordinate_values.is_empty() {
        return Err(Refusal::Lengths { rows });
    }
    Ok(())
}

/// Each GPU that is to be opened shows something, once. One that is left out, or that shows too little, fails alone.
fn check_gpus(units: &[CommittedUnit], data: &ProofData) -> Result<(), Refusal> {
    let asked = |unit: &Unit| units.iter().any(|asked| asked.unit == *unit && asked.fault.is_none());
    let shown: BTreeSet<&Unit> = data.proofs.iter().map(|proof| &proof.uuid).collect();
    if shown.is_empty() || shown.len() < data.proofs.len() || !shown.into_iter().all(asked) {
        return Err(Refusal::GpuProofs);
    }
    Ok(())
}
