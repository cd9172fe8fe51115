//! Where a miner's requests arrive: five entry points, each with the authenticated caller and a typed payload in, a
//! typed payload or a refusal out.
//!
//! Signatures, sessions, membership and rates are behind us (the axon's work); what is decided here depends on the
//! database, the clock and the rules alone, so a test drives a whole round through it.

use std::sync::Arc;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::ChallengeId;
use byteleap_protocol::payload::{
    CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt, TaskRequest,
    TaskResponse, TokenRecord, TokenRequest,
};
use tokio::sync::Notify;

use crate::challenge::{Rules, commit, deliver, prove};
use crate::feedback::Feedback;
use crate::intake;
use crate::market::tokens::{Tokens, code};
use crate::refusal::Refusal;
use crate::store::Store;

/// The entry points. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    store: Store,
    rules: Live<Rules>,
    clock: Arc<dyn Clock>,
    proof_arrived: Arc<Notify>,
    feedback: Option<Feedback>,
    tokens: Tokens,
}

impl Desk {
    /// A desk over a store. `proof_arrived` is rung for the verifier whenever a proof was stored.
    pub fn new(store: Store, rules: impl Into<Live<Rules>>, clock: Arc<dyn Clock>, proof_arrived: Arc<Notify>) -> Self {
        Self { store, rules: rules.into(), clock, proof_arrived, feedback: None, tokens: Tokens::off() }
    }

    /// This desk, telling miners how their workers stand.
    #[must_use]
    pub fn telling(self, feedback: Feedback) -> Self {
        Self { feedback: Some(feedback), ..self }
    }

    /// This desk, with somebody who issues enrolment tokens.
    #[must_use]
    pub fn issuing(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    /// A miner reports itself and its workers. Always an answer: its code says whether anything was stored.
    pub async fn heartbeat(&self, caller: Hotkey, data: HeartbeatData) -> HeartbeatResponse {
        let mut answer = intake::heartbeat(&self.store, caller, data, self.clock.unix_ms()).await;
        if let Some(feedback) = &self.feedback {
            match feedback.for_miner(caller).await {
                Ok(told) => answer.feedback = Some(told),
                Err(error) => tracing::error!(%error, "miner not told how its workers stand: check the database"),
            }
        }
        answer
    }

    /// A miner asks for challenges.
    pub async fn tasks(&self, caller: Hotkey, _request: TaskRequest) -> Result<TaskResponse, Refusal> {
        Ok(deliver::deliver(&self.store, &self.rules.get(), caller, self.clock.unix_ms()).await?)
    }

    /// Phase 1: a worker commits to its result and learns what to open.
    pub async fn commit(&self, caller: Hotkey, data: CommitmentData) -> Result<CommitmentResponse, Refusal> {
        let answer = commit::commit(&self.store, &self.rules.get(), caller, &data, self.clock.unix_ms()).await;
        self.note_refusal(caller, "commitment", &data.challenge_id, answer.as_ref().err()).await;
        answer
    }

    /// Phase 2: a worker opens what was asked.
    pub async fn prove(&self, caller: Hotkey, data: ProofData) -> Result<ProofReceipt, Refusal> {
        let answer = prove::prove(&self.store, caller, &data, self.clock.unix_ms()).await;
        if answer.is_ok() {
            self.proof_arrived.notify_one();
        }
        self.note_refusal(caller, "proof", &data.challenge_id, answer.as_ref().err()).await;
        answer
    }

    /// Counts what a caller whose signature held was refused, so that metrics and `explain` can tell. A database that fails costs the
    /// count alone.
    pub async fn refused(&self, caller: Hotkey, code: &'static str, note: &str) {
        metrics::counter!("requests_refused_total", "code" => code).increment(1);
        if let Err(error) = self.store.record_refusal(caller, code, note, self.clock.unix_ms()).await {
            tracing::error!(%error, "refusal not counted: check the database");
        }
    }

    async fn note_refusal(&self, caller: Hotkey, what: &str, challenge_id: &ChallengeId, refusal: Option<&Refusal>) {
        let Some(refusal) = refusal else { return };
        tracing::info!(peer = %caller, %challenge_id, %refusal, "{what} refused");
        if let Some(code) = refusal.code() {
            self.refused(caller, code, &format!("{what} of challenge {challenge_id}: {refusal}")).await;
        }
    }

    /// A miner asks for an enrolment token of one of its live workers.
    pub async fn token(&self, caller: Hotkey, request: TokenRequest) -> Result<TokenRecord, Refusal> {
        let now_ms = self.clock.unix_ms();
        if self.store.is_live_worker(caller, &request.worker_id, now_ms).await? {
            return Ok(self.tokens.token(caller, &request.worker_id, now_ms).await);
        }
        Ok(TokenRecord {
            worker_id: request.worker_id.to_string(),
            code: code::NO_WORKER,
            error_message: Some("No live worker of this id".to_owned()),
            ..TokenRecord::default()
        })
    }
}
