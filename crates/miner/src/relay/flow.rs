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
//!
//! Each of the three may die and come back. A worker that comes back is given its task again, or asked for its proof
//! again. To a validator that does not answer, a commitment is sent again for [`OUTAGE`] and a proof until it is due: one
//! that had taken it in answers the same again (ours) or refuses the repetition (the reference), and neither costs the
//! challenge. And after a death of the miner itself a challenge goes on from its page in the [`logbook`](super::logbook).

use std::{sync::Arc, time::Duration};

use byteleap_daemon::{clock::Clock, failpoint};
use byteleap_protocol::{
    frame::{ChallengeResult, ProofAnswer, ProofQuery, TaskAssignment, TaskOutcome},
    payload::{ChallengeTimestamps, CommitmentData, ProofData, ProofRequest, ProofResponse, SCHEMA_VERSION},
};
use tokio::time::Instant;

use super::{
    hops::{self, Hops, LastChallenge, Record},
    logbook::{Committed, Logbook, Page},
};
use crate::{
    validators::{CallError, Validator},
    workers::dispatch::{NoAnswer, Seat},
};

/// How long a worker may take to open what the validator asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after its commitment a challenge can still be proved (validator spec 4.6).
const PROOF_TIME: Duration = Duration::from_secs(60);

/// How long a validator may be away before a challenge without a commitment is given up; the worker is busy meanwhile.
const OUTAGE: Duration = Duration::from_secs(30);

/// Pause between attempts to reach a validator.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What all flows share.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    /// Where progress is written.
    pub(crate) logbook: Logbook,
    /// Where the times of each hop are kept.
    pub(crate) record: Record,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
}

/// A challenge that a validator handed out, and how far it has come.
#[derive(Debug, Clone)]
pub(crate) struct Challenge {
    /// What is known of it.
    pub(crate) page: Page,
    /// Who handed it out, at the address known then; both submissions go there.
    pub(crate) validator: Arc<Validator>,
    /// Whether a former process began with it.
    pub(crate) is_resumed: bool,
}

/// How a challenge ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// The validator has the proof and will verify it.
    Proved,
    /// The validator refuses a proof that it may have got before.
    ProvedBefore,
    /// The validator asked for nothing.
    NothingToProve,
}

impl Done {
    /// In a few words, for people.
    fn text(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::ProvedBefore => "proved before",
            Self::NothingToProve => "nothing to prove",
        }
    }
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

impl Challenge {
    /// Until when the worker may compute: receipt and the challenge's timeout. None once that has passed.
    pub(crate) fn compute_deadline(&self, clock: &dyn Clock) -> Option<Instant> {
        deadline(self.page.received_at_ms, self.page.item.timeout.as_duration(), clock)
    }

    /// Until when the challenge can go on, from where it is. None once that has passed.
    pub(crate) fn deadline(&self, clock: &dyn Clock) -> Option<Instant> {
        match &self.page.committed {
            Some(committed) => deadline(committed.at_ms, PROOF_TIME, clock),
            None => self.compute_deadline(clock),
        }
    }
}

/// The moment so long after a time of the wall clock, if it is still to come.
fn deadline(since_ms: i64, time: Duration, clock: &dyn Clock) -> Option<Instant> {
    // A wall clock that was set back cannot give more time than there was.
    let passed = Duration::from_millis(clock.unix_ms().saturating_sub(since_ms).try_into().unwrap_or(0));
    time.checked_sub(passed).filter(|left| !left.is_zero()).map(|left| Instant::now() + left)
}

/// Carries a challenge from the assignment, or from where a former process left it, to the proof, and logs the end.
pub(crate) async fn run(mut challenge: Challenge, seat: Seat, relay: Relay) {
    let mut hops = Hops::default();
    if !challenge.is_resumed {
        hops.queue_ms = Some((relay.clock.unix_ms() - challenge.page.received_at_ms).max(0));
    }
    let remember = |page: &Page, hops: Hops, end: Option<String>| {
        let last = LastChallenge {
            challenge_id: page.item.challenge_id.clone(),
            validator: page.validator,
            received_at_ms: page.received_at_ms,
            hops,
            end,
        };
        relay.record.write(seat.worker_id(), last);
    };
    remember(&challenge.page, hops, None);
    let result = carry(&mut challenge, &seat, &relay, &mut hops).await;
    let end = result.as_ref().map_or_else(ToString::to_string, |done| done.text().to_owned());
    remember(&challenge.page, hops, Some(end));
    hops::observe(&hops);
    relay.logbook.tear_out(&challenge.page).await;
    let (challenge_id, worker_id) = (&challenge.page.item.challenge_id, seat.worker_id());
    let validator = challenge.validator.hotkey();
    match result {
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

async fn carry(challenge: &mut Challenge, seat: &Seat, relay: &Relay, hops: &mut Hops) -> Result<Done, FlowError> {
    let clock = &*relay.clock;
    let received_ts = challenge.page.received_at_ms;
    let mut times = ChallengeTimestamps { miner_task_received_ts: Some(received_ts), ..ChallengeTimestamps::default() };
    let committed = match challenge.page.committed.clone() {
        Some(committed) => committed,
        None => {
            failpoint::reach("miner.task.before");
            relay.logbook.write(&challenge.page).await;
            failpoint::reach("miner.task.after");
            let result = compute(challenge, seat, &mut times, hops, clock).await?;
            let asked = Instant::now();
            let requests = commit(challenge, seat, result, &times).await;
            hops.commit_ms = Some(ms_since(asked));
            let requests = requests?;
            let committed = Committed { at_ms: clock.unix_ms(), requests };
            challenge.page.committed = Some(committed.clone());
            relay.logbook.write(&challenge.page).await;
            failpoint::reach("miner.rows.after");
            committed
        }
    };
    times.miner_task_response_ts = Some(committed.at_ms);
    if committed.requests.is_empty() {
        return Ok(Done::NothingToProve);
    }
    let due = challenge.deadline(clock).ok_or(FlowError::NoProof(NoAnswer::Late))?;
    let proofs = open(challenge, seat, committed.requests, &mut times, hops, due, clock).await?;
    let asked = Instant::now();
    let done = prove(challenge, proofs, &times, due).await;
    hops.prove_ms = Some(ms_since(asked));
    done
}

/// The worker computes.
async fn compute(
    challenge: &Challenge,
    seat: &Seat,
    times: &mut ChallengeTimestamps,
    hops: &mut Hops,
    clock: &dyn Clock,
) -> Result<ChallengeResult, FlowError> {
    let deadline = challenge.compute_deadline(clock).ok_or(FlowError::NoResult(NoAnswer::Late))?;
    let assignment = assignment(challenge);
    let asked = Instant::now();
    let outcome = match challenge.is_resumed {
        false => seat.compute(assignment, deadline).await,
        true => seat.recover(assignment, deadline).await,
    };
    let outcome = outcome.map_err(FlowError::NoResult)?;
    note_computation(&outcome, times);
    if !challenge.is_resumed {
        let (network_ms, compute_ms) =
            hops::split(ms_since(asked), times.worker_task_received_ts, times.worker_task_completed_ts);
        (hops.task_network_ms, hops.compute_ms) = (Some(network_ms), compute_ms);
    }
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
        challenge_id: challenge.page.item.challenge_id.clone(),
        worker_id: seat.worker_id().clone(),
        commitments: result.commitments,
        debug_info: times.to_debug_info(),
        schema_version: SCHEMA_VERSION,
    };
    failpoint::reach("miner.commitment.before");
    let (response, _) = through_outages(Instant::now() + OUTAGE, || challenge.validator.commit(data.clone())).await;
    let response = response.map_err(FlowError::Commitment)?;
    failpoint::reach("miner.commitment.after");
    Ok(response.proof_requests)
}

/// The worker opens what was drawn; one that goes meanwhile is asked again when it is back.
async fn open(
    challenge: &Challenge,
    seat: &Seat,
    requests: Vec<ProofRequest>,
    times: &mut ChallengeTimestamps,
    hops: &mut Hops,
    due: Instant,
    clock: &dyn Clock,
) -> Result<Vec<ProofResponse>, FlowError> {
    let query = ProofQuery {
        validator_hotkey: challenge.validator.hotkey(),
        challenge_id: challenge.page.item.challenge_id.clone(),
        requests: requests.clone(),
    };
    let asked = Instant::now();
    let answer = loop {
        match seat.prove(query.clone(), due.min(Instant::now() + OPEN_TIMEOUT)).await {
            Err(NoAnswer::Disconnected) => seat.connected(due).await.map_err(FlowError::NoProof)?,
            answer => break answer.map_err(FlowError::NoProof)?,
        }
    };
    times.worker_proof_response_ts = Some(clock.unix_ms());
    times.worker_proof_request_received_ts = answer.phase2_timestamp("worker_proof_request_received_ts");
    times.worker_proof_completed_ts = answer.phase2_timestamp("worker_proof_completed_ts");
    let (network_ms, open_ms) =
        hops::split(ms_since(asked), times.worker_proof_request_received_ts, times.worker_proof_completed_ts);
    (hops.proof_network_ms, hops.open_ms) = (Some(network_ms), open_ms);
    opened(&requests, answer).map_err(FlowError::OpenFailed)
}

fn ms_since(began: Instant) -> i64 {
    began.elapsed().as_millis().try_into().unwrap_or(i64::MAX)
}

/// Phase 2: the validator gets the openings.
async fn prove(
    challenge: &Challenge,
    proofs: Vec<ProofResponse>,
    times: &ChallengeTimestamps,
    due: Instant,
) -> Result<Done, FlowError> {
    let data = ProofData {
        challenge_id: challenge.page.item.challenge_id.clone(),
        proofs,
        debug_info: times.to_debug_info(),
        schema_version: SCHEMA_VERSION,
    };
    failpoint::reach("miner.proof.before");
    let (receipt, is_repeated) = through_outages(due, || challenge.validator.prove(data.clone())).await;
    failpoint::reach("miner.proof.after");
    match receipt {
        Ok(_) => Ok(Done::Proved),
        Err(CallError::Refused(_)) if is_repeated || challenge.is_resumed => Ok(Done::ProvedBefore),
        Err(error) => Err(FlowError::Proof(error)),
    }
}

/// Tries until the validator answers, whatever it says, or `until` has come; and whether it was more than one attempt.
async fn through_outages<T, Attempt>(
    until: Instant,
    mut attempt: impl FnMut() -> Attempt,
) -> (Result<T, CallError>, bool)
where
    Attempt: Future<Output = Result<T, CallError>>,
{
    let mut is_repeated = false;
    loop {
        match attempt().await {
            Err(error) if error.is_outage() && Instant::now() + RETRY_PAUSE < until => {
                tracing::debug!(%error, "the validator is tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
                is_repeated = true;
            }
            answer => return (answer, is_repeated),
        }
    }
}

fn assignment(challenge: &Challenge) -> TaskAssignment {
    let item = &challenge.page.item;
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

/// The openings of a worker's answer, one for each unit that was asked for and opened. Units are judged one by one, so one
/// that was left out costs the others nothing.
fn opened(requests: &[ProofRequest], answer: ProofAnswer) -> Result<Vec<ProofResponse>, String> {
    let ProofAnswer { success, mut proofs, error, .. } = answer;
    let reason = error.unwrap_or_else(|| "the worker gives no reason".to_owned());
    let mut opened = Vec::with_capacity(requests.len());
    if success {
        for ProofRequest { uuid, .. } in requests {
            match proofs.iter().position(|proof| proof.uuid == *uuid) {
                Some(index) => opened.push(proofs.swap_remove(index)),
                None => tracing::warn!(unit = %uuid, reason, "the worker left out a unit"),
            }
        }
    }
    if opened.is_empty() { Err(reason) } else { Ok(opened) }
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::clock::ManualClock;
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
    fn a_unit_that_is_left_out_or_was_not_asked_for_costs_the_others_nothing() {
        let gpu = |name: &str| proof(name.parse().expect("a unit"));
        let answer = || ProofAnswer::opened(vec![gpu("GPU-3"), gpu("GPU-2"), gpu("GPU-2"), gpu("GPU-1")], 1, 2);
        let of = |units: &[&str]| opened(&units.iter().map(|unit| request(unit)).collect::<Vec<_>>(), answer());
        assert_eq!(of(&["GPU-1", "GPU-2"]), Ok(vec![gpu("GPU-1"), gpu("GPU-2")]));
        assert_eq!(of(&["GPU-1", "GPU-4"]), Ok(vec![gpu("GPU-1")]));
        assert!(of(&["GPU-4"]).is_err());
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

    #[test]
    fn a_deadline_counts_from_the_receipt_whichever_process_that_was() {
        let clock = ManualClock::new(100_000);
        let left = |since_ms| deadline(since_ms, Duration::from_secs(60), &clock).map(|at| at - Instant::now());
        assert!(left(40_000).is_none() && left(0).is_none());
        assert!(left(60_000).is_some_and(|left| left <= Duration::from_secs(20)));
        assert!(left(900_000).is_some_and(|left| left <= Duration::from_secs(60)), "a clock set back gives nothing");
    }
}
