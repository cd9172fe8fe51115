//! Phase 1: a worker commits to its whole result before it knows what it must open.
//!
//! The checks run in the order of miner-validator spec 5.5. A refusal leaves the challenge as it was, so an honest worker can
//! still answer; only the deadline ends it, and a GPU commitment of which nothing can be believed ([`super::units`]). The targets
//! are drawn after the last check and stored with the commitment, in one transaction, before the answer names them.
//!
//! The same commitment again gets the same answer again: the first may have died with a process, ours or the miner's.
//! Another one for the same challenge is refused.

use byteleap_daemon::failpoint;
use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::Unit;
use byteleap_protocol::merkle::NodeHash;
use byteleap_protocol::payload::{CommitmentData, CommitmentResponse, ProofRequest};
use rand_core::OsRng;

use super::Rules;
use super::state::{Failure, Step};
use super::targets::Targets;
use super::units::{CommittedUnit, cpu_unit, gpu_units};
use crate::refusal::Refusal;
use crate::store::Store;
use crate::store::challenge::{ChallengeRow, NewCommitment};
use crate::store::gpu::OWNERSHIP_LAPSE_MS;

/// Takes a commitment in and says what to open.
pub async fn commit(
    store: &Store,
    rules: &Rules,
    caller: Hotkey,
    data: &CommitmentData,
    now_ms: i64,
) -> Result<CommitmentResponse, Refusal> {
    let challenge = store.challenge(caller, &data.challenge_id).await?.ok_or(Refusal::UnknownChallenge)?;
    if let Some(units) = repeated(store, &challenge, data).await? {
        tracing::info!(peer = %caller, challenge_id = %challenge.id, "commitment repeated: the same targets are named");
        return Ok(to_open(&units, &challenge.targets));
    }
    check(&challenge, rules, data, now_ms)?;
    let units = match challenge.kind {
        ChallengeKind::CpuMatrix => vec![cpu_unit(&data.commitments, challenge.size)?],
        ChallengeKind::GpuMatrix => weigh_gpus(store, rules, &challenge, data, now_ms).await?,
    };
    let targets = Targets::draw(&mut OsRng, challenge.kind, challenge.size, rules);
    let answer = to_open(&units, &targets);
    let commitment =
        NewCommitment { units, targets, at_ms: now_ms, proof_deadline_at_ms: now_ms + rules.proof_timeout_ms };
    failpoint::reach("validator.commit.before");
    if let (true, [CommittedUnit { unit, fault: Some(fault), .. }, ..]) =
        (answer.proof_requests.is_empty(), commitment.units.as_slice())
    {
        let (unit, fault) = (unit.clone(), *fault);
        store.refuse_commitment(challenge.key, &commitment, Failure::Units(fault)).await?;
        return Err(Refusal::Units { unit, fault });
    }
    if !store.commit_challenge(challenge.key, &commitment).await? {
        return Err(Refusal::AlreadyProcessed);
    }
    failpoint::reach("validator.commit.after");
    tracing::info!(
        peer = %caller,
        worker_id = %challenge.worker_id,
        challenge_id = %challenge.id,
        kind = %challenge.kind,
        units = answer.proof_requests.len(),
        units_refused = commitment.units.len() - answer.proof_requests.len(),
        rows = commitment.targets.rows.len(),
        coordinates = commitment.targets.coordinates.len(),
        compute_ms = challenge.sent_at_ms.map(|sent_at_ms| now_ms - sent_at_ms),
        "commitment stored"
    );
    Ok(answer)
}

/// The units that are stored, if they are exactly those of this commitment and their proof is still awaited.
async fn repeated(
    store: &Store,
    challenge: &ChallengeRow,
    data: &CommitmentData,
) -> Result<Option<Vec<CommittedUnit>>, Refusal> {
    if challenge.status != Step::COMMIT.to || data.worker_id != challenge.worker_id {
        return Ok(None);
    }
    let units = store.committed_units(challenge.key).await?;
    let mut stored: Vec<(&Unit, NodeHash)> = units.iter().map(|unit| (&unit.unit, unit.root)).collect();
    let mut sent: Vec<(&Unit, NodeHash)> = data.commitments.iter().map(|sent| (&sent.uuid, sent.merkle_root)).collect();
    stored.sort_unstable_by_key(|(unit, _)| *unit);
    sent.sort_unstable_by_key(|(unit, _)| *unit);
    Ok((stored == sent).then_some(units))
}

/// The units that are believed, each with the targets that all share.
fn to_open(units: &[CommittedUnit], targets: &Targets) -> CommitmentResponse {
    let request = |unit: &CommittedUnit| ProofRequest {
        uuid: unit.unit.clone(),
        rows: targets.rows.clone(),
        coordinates: targets.coordinates.clone(),
    };
    let believed = units.iter().filter(|unit| unit.fault.is_none());
    CommitmentResponse { proof_requests: believed.map(request).collect() }
}

/// What can be said against a commitment before its units are looked at, first things first.
fn check(challenge: &ChallengeRow, rules: &Rules, data: &CommitmentData, now_ms: i64) -> Result<(), Refusal> {
    if challenge.status != Step::COMMIT.from {
        return Err(Refusal::AlreadyProcessed);
    }
    if challenge.expires_at_ms.is_none_or(|expires_at_ms| now_ms > expires_at_ms + rules.commitment_grace_ms) {
        return Err(Refusal::Expired);
    }
    if data.worker_id != challenge.worker_id {
        return Err(Refusal::OtherWorker);
    }
    Ok(())
}

/// Weighs GPUs against what their worker reports of them.
async fn weigh_gpus(
    store: &Store,
    rules: &Rules,
    challenge: &ChallengeRow,
    data: &CommitmentData,
    now_ms: i64,
) -> Result<Vec<CommittedUnit>, Refusal> {
    let inventory = store.inventory_of(challenge.worker, now_ms - OWNERSHIP_LAPSE_MS).await?;
    let (rules, commitments) = (rules.gpu.clone(), data.commitments.clone());
    let (size, seed) = (challenge.size, challenge.seed.clone());
    // Some tenths of a millisecond for each signature and key.
    let weighed = tokio::task::spawn_blocking(move || gpu_units(&commitments, size, &seed, &inventory, &rules)).await;
    weighed.unwrap_or_else(|error| {
        tracing::error!(%error, "the check of a GPU commitment died");
        Err(Refusal::Internal)
    })
}
