//! One challenge on its way through the miner (worker-miner spec 3.5, miner-validator spec 4.4):
//!
//! ```text
//! validator         miner             worker
//!     |-- task ------>|-- assignment ---->|   compute   until the challenge's timeout
//!     |<- commitment -|<----- result -----|   commit    15 s
//!     |-- requests -->|-- proof request ->|   open      30 s
//!     |<---- proof ---|<-- proof answer --|   prove     40 s
//! ```
//!
//! Each step returns what the next one needs, so none can be skipped; the seat is dropped at the end of every path,
//! which frees the worker. The miner is never told the verdict.

use std::{sync::Arc, time::Duration};

use byteleap_daemon::clock::Clock;
use byteleap_protocol::{
    challenge::ChallengeItem,
    frame::{ChallengeResult, ProofAnswer, ProofQuery, TaskAssignment, TaskOutcome},
    payload::{ChallengeTimestamps, CommitmentData, ProofData, ProofRequest, ProofResponse, SCHEMA_VERSION},
};
use tokio::time::Instant;

use crate::{
    validators::{CallError, Validator},
    workers::dispatch::{NoAnswer, Seat},
};

/// How long a worker may take to open what the validator asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A challenge that a validator handed out.
#[derive(Debug, Clone)]
pub(crate) struct Challenge {
    /// As it came.
    pub(crate) item: ChallengeItem,
    /// Who handed it out, at the address known then; both submissions go there.
    pub(crate) validator: Arc<Validator>,
    /// When it came, in milliseconds since 1970.
    pub(crate) received_ts: i64,
    /// Until when the worker may compute: receipt and the challenge's timeout.
    pub(crate) deadline: Instant,
}

/// How a challenge ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The validator has the proof and will verify it.
    Proved,
    /// The validator asked for nothing.
    NothingToProve,
}

/// Where a challenge ended, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowError {
    #[error("no result: {0}")]
    NoResult(NoAnswer),
    #[error("no result: {0}")]
    ComputeFailed(String),
    #[error("commitment not taken: {0}")]
    Commitment(CallError),
    #[error("no proof: {0}")]
    NoProof(NoAnswer),
    #[error("no proof: {0}")]
    OpenFailed(String),
    #[error("proof not taken: {0}")]
    Proof(CallError),
}

/// Carries a challenge from the assignment to the proof, and logs the end.
pub(crate) async fn run(challenge: Challenge, seat: Seat, clock: Arc<dyn Clock>) {
    let (challenge_id, worker_id) = (&challenge.item.challenge_id, seat.worker_id());
    let validator = challenge.validator.hotkey();
    match carry(&challenge, &seat, &*clock).await {
        Ok(done) => {
            tracing::info!(%challenge_id, %worker_id, %validator, ?done, "challenge done");
            metrics::counter!("challenges_total", "end" => "done").increment(1);
        }
        Err(error) => {
            tracing::warn!(%challenge_id, %worker_id, %validator, %error, "challenge failed");
            metrics::counter!("challenges_total", "end" => "failed").increment(1);
        }
    }
}

async fn carry(challenge: &Challenge, seat: &Seat, clock: &dyn Clock) -> Result<Done, FlowError> {
    let mut times =
        ChallengeTimestamps { miner_task_received_ts: Some(challenge.received_ts), ..ChallengeTimestamps::default() };
    let result = compute(challenge, seat, &mut times).await?;
    let requests = commit(challenge, seat, result, &times).await?;
    times.miner_task_response_ts = Some(clock.unix_ms());
    if requests.is_empty() {
        return Ok(Done::NothingToProve);
    }
    let proofs = open(challenge, seat, requests, &mut times, clock).await?;
    prove(challenge, proofs, &times).await?;
    Ok(Done::Proved)
}

/// The worker computes.
async fn compute(
    challenge: &Challenge,
    seat: &Seat,
    times: &mut ChallengeTimestamps,
) -> Result<ChallengeResult, FlowError> {
    let outcome = seat.compute(assignment(challenge), challenge.deadline).await.map_err(FlowError::NoResult)?;
    note_computation(&outcome, times);
    outcome.challenge_result().map_err(FlowError::ComputeFailed)
}

/// Phase 1: the validator gets the roots and draws what to open.
async fn commit(
    challenge: &Challenge,
    seat: &Seat,
    result: ChallengeResult,
    times: &ChallengeTimestamps,
) -> Result<Vec<ProofRequest>, FlowError> {
    let data = CommitmentData {
        challenge_id: challenge.item.challenge_id.clone(),
        worker_id: seat.worker_id().clone(),
        commitments: result.commitments,
        debug_info: times.to_debug_info(),
        schema_version: SCHEMA_VERSION,
    };
    let response = challenge.validator.commit(data).await.map_err(FlowError::Commitment)?;
    Ok(response.proof_requests)
}

/// The worker opens what was drawn.
async fn open(
    challenge: &Challenge,
    seat: &Seat,
    requests: Vec<ProofRequest>,
    times: &mut ChallengeTimestamps,
    clock: &dyn Clock,
) -> Result<Vec<ProofResponse>, FlowError> {
    let query = ProofQuery {
        validator_hotkey: challenge.validator.hotkey(),
        challenge_id: challenge.item.challenge_id.clone(),
        requests: requests.clone(),
    };
    let answer = seat.prove(query, Instant::now() + OPEN_TIMEOUT).await.map_err(FlowError::NoProof)?;
    times.worker_proof_response_ts = Some(clock.unix_ms());
    times.worker_proof_request_received_ts = answer.phase2_timestamp("worker_proof_request_received_ts");
    times.worker_proof_completed_ts = answer.phase2_timestamp("worker_proof_completed_ts");
    opened(&requests, answer).map_err(FlowError::OpenFailed)
}

/// Phase 2: the validator gets the openings.
async fn prove(
    challenge: &Challenge,
    proofs: Vec<ProofResponse>,
    times: &ChallengeTimestamps,
) -> Result<(), FlowError> {
    let data = ProofData {
        challenge_id: challenge.item.challenge_id.clone(),
        proofs,
        debug_info: times.to_debug_info(),
        schema_version: SCHEMA_VERSION,
    };
    challenge.validator.prove(data).await.map_err(FlowError::Proof)?;
    Ok(())
}

fn assignment(challenge: &Challenge) -> TaskAssignment {
    let item = &challenge.item;
    TaskAssignment {
        task_id: item.challenge_id.clone(),
        task_type: item.challenge_type.to_string(),
        challenge_id: Some(item.challenge_id.clone()),
        data: item.data.clone(),
        timeout: Some(item.timeout),
        validator_hotkey: Some(challenge.validator.hotkey()),
    }
}

fn note_computation(outcome: &TaskOutcome, times: &mut ChallengeTimestamps) {
    if let Some(stamps) = outcome.timestamps {
        times.worker_task_received_ts = Some(stamps.worker_task_received_ts);
        times.worker_task_completed_ts = Some(stamps.worker_task_completed_ts);
    }
}

/// The openings of a worker's answer, if they cover every unit that was asked for: a validator refuses less.
fn opened(requests: &[ProofRequest], answer: ProofAnswer) -> Result<Vec<ProofResponse>, String> {
    if !answer.success {
        return Err(answer.error.unwrap_or_else(|| "the worker gives no reason".to_owned()));
    }
    match requests.iter().find(|request| !answer.proofs.iter().any(|proof| proof.uuid == request.uuid)) {
        Some(missing) => Err(format!(
            "the worker left out unit {}: {}",
            missing.uuid,
            answer.error.as_deref().unwrap_or("no reason given")
        )),
        None => Ok(answer.proofs),
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::id::Unit;
    use serde_json::json;

    use super::*;

    fn request(unit: &str) -> ProofRequest {
        ProofRequest { uuid: unit.parse().expect("a unit"), rows: vec![0], coordinates: vec![] }
    }

    fn proof(unit: Unit) -> ProofResponse {
        ProofResponse { uuid: unit, row_hashes: vec![], merkle_proofs: vec![], coordinate_values: vec![] }
    }

    #[test]
    fn an_answer_must_cover_every_unit_that_was_asked_for() {
        let answer = || ProofAnswer::opened(vec![proof(Unit::Cpu)], 1, 2);
        assert_eq!(opened(&[request("-1")], answer()).map(|proofs| proofs.len()), Ok(1));
        let error = opened(&[request("-1"), request("GPU-1")], answer()).expect_err("GPU-1 is missing");
        assert!(error.contains("GPU-1"), "{error}");
    }

    #[test]
    fn a_failed_answer_keeps_the_workers_reason() {
        assert_eq!(opened(&[request("-1")], ProofAnswer::failed("no result")), Err("no result".to_owned()));
    }

    #[test]
    fn an_answer_without_debug_costs_only_the_timestamps() {
        let answer: ProofAnswer = serde_json::from_value(json!({"success": true, "proofs": []})).expect("an answer");
        assert_eq!(answer.phase2_timestamp("worker_proof_completed_ts"), None);
    }
}
