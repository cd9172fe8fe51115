//! One validator and the five things that a miner asks of it, each sealed by a session.
//!
//! What a failed exchange calls for is decided by [`remedy`], a pure function: a new session or a pause, and whether the
//! same request may be sent once more. A commitment or a proof is repeated only where the refusal proves that it was
//! not processed (miner-validator spec 3.7).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use byteleap_protocol::{
    code::ErrorCode,
    hotkey::Hotkey,
    payload::{
        AnswerError, CommitmentData, CommitmentResponse, ErrorAnswer, HeartbeatData, HeartbeatResponse, ProofData,
        ProofReceipt, TaskRequest, TaskResponse, TokenRecord, TokenRequest, read_answer,
    },
    session::{
        ClientHandshake, HandshakeError, OpenError, Plaintext, ReceivedPackage, SequenceExhausted, Session,
        SessionInitResponse,
    },
    synapse::SynapseKind,
};
use rand_core::OsRng;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    blacklist::Blacklist,
    dendrite::{Dendrite, Lanes, TransportError},
    pace::{Pace, Urgency},
    select::Axon,
    session::{Held, SessionSlot},
};

/// What waits where a validator may not be asked any faster.
fn urgency(kind: SynapseKind) -> Urgency {
    match kind {
        SynapseKind::Challenge => Urgency::Timed,
        SynapseKind::ChallengeProof => Urgency::Patient,
        SynapseKind::SessionInit | SynapseKind::Heartbeat | SynapseKind::Task | SynapseKind::GetVmgwEnrollToken => {
            Urgency::Routine
        }
    }
}

/// Why a validator gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing came back, or no synapse.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No session came about.
    #[error("no session: {0}")]
    Handshake(#[from] HandshakeError),
    /// No session, and it is too early to try again.
    #[error("no session: the next handshake may be tried in {} s", .0.as_secs() + 1)]
    BackingOff(Duration),
    /// The validator understood the request and refuses it.
    #[error("the validator refuses{}: {}", code(.0), .0.error)]
    Refused(ErrorAnswer),
    /// The validator could not or would not take the request in; said outside the session, by whoever answered.
    #[error("the validator does not take the request{}: {}", code(.0), .0.error)]
    NotTaken(ErrorAnswer),
    /// The reply is none of this session's.
    #[error("the reply cannot be opened: {0}")]
    Unreadable(#[from] OpenError),
    /// The reply is not what was asked for.
    #[error("the reply does not fit: {0}")]
    Malformed(serde_json::Error),
    /// The session has no numbers left.
    #[error(transparent)]
    Exhausted(#[from] SequenceExhausted),
    /// The process stops.
    #[error("the miner stops")]
    Stopping,
}

impl CallError {
    /// Whether the validator has not even heard the request, or is not there to say that it has.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Transport(error) => error.means_unreachable(),
            Self::BackingOff(_) | Self::Handshake(_) => true,
            Self::Refused(_)
            | Self::NotTaken(_)
            | Self::Unreadable(_)
            | Self::Malformed(_)
            | Self::Exhausted(_)
            | Self::Stopping => false,
        }
    }

    /// Logs that `what` failed at a validator: a warning, unless it only waits after a failure that was logged.
    pub(crate) fn log(&self, what: &str, validator: Hotkey) {
        match self {
            Self::BackingOff(_) => tracing::debug!(%validator, reason = %self, "{what} failed"),
            _ => tracing::warn!(%validator, reason = %self, "{what} failed"),
        }
    }
}

fn code(answer: &ErrorAnswer) -> String {
    answer.error_code.map_or_else(String::new, |code| format!(" with code {code}"))
}

/// A validator in use.
#[derive(Debug)]
pub(crate) struct Validator {
    axon: Axon,
    dendrite: Arc<Dendrite>,
    blacklist: Arc<Blacklist>,
    lanes: Lanes,
    pace: Pace,
    session: SessionSlot,
    /// How the last task poll ended, for people.
    last_poll: Mutex<Option<String>>,
}

impl Validator {
    pub(super) fn new(axon: Axon, dendrite: Arc<Dendrite>, blacklist: Arc<Blacklist>) -> Self {
        let (lanes, pace, session) = (Lanes::new(), Pace::default(), SessionSlot::default());
        Self { axon, dendrite, blacklist, lanes, pace, session, last_poll: Mutex::default() }
    }

    /// Who it is.
    #[must_use]
    pub(crate) fn hotkey(&self) -> Hotkey {
        self.axon.hotkey
    }

    /// Who and where it is.
    #[must_use]
    pub(crate) fn axon(&self) -> Axon {
        self.axon
    }

    /// Fetches the challenges that it has for this miner.
    pub(crate) async fn poll(&self) -> Result<TaskResponse, CallError> {
        let request = TaskRequest::new(self.dendrite.own(), self.dendrite.now_seconds());
        let answer: Result<TaskResponse, _> = self.call(SynapseKind::Task, Arc::new(request)).await;
        let told = match &answer {
            Ok(response) => format!("handed out {} challenge(s)", response.challenges.len()),
            Err(error) => error.to_string(),
        };
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        answer
    }

    /// How the last task poll ended, for people; none before the first.
    #[must_use]
    pub(crate) fn last_poll(&self) -> Option<String> {
        self.last_poll.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Phase 1: hands in a commitment, and gets what to open.
    pub(crate) async fn commit(&self, data: CommitmentData) -> Result<CommitmentResponse, CallError> {
        self.call(SynapseKind::Challenge, Arc::new(data)).await
    }

    /// Phase 2: hands in the openings.
    pub(crate) async fn prove(&self, data: ProofData) -> Result<ProofReceipt, CallError> {
        self.call(SynapseKind::ChallengeProof, Arc::new(data)).await
    }

    /// Reports the workers.
    pub(crate) async fn report(&self, data: Arc<HeartbeatData>) -> Result<HeartbeatResponse, CallError> {
        self.call(SynapseKind::Heartbeat, data).await
    }

    /// Asks for an enrolment token of a worker.
    pub(crate) async fn token(&self, request: TokenRequest) -> Result<TokenRecord, CallError> {
        self.call(SynapseKind::GetVmgwEnrollToken, Arc::new(request)).await
    }

    /// One call, with at most one repetition for each remedy.
    async fn call<Request, Answer>(&self, kind: SynapseKind, request: Arc<Request>) -> Result<Answer, CallError>
    where
        Request: Serialize + Send + Sync + 'static,
        Answer: DeserializeOwned,
    {
        let mut used = Vec::new();
        loop {
            let held = self.session.obtain(async || self.handshake().await).await?;
            let queued = Instant::now();
            self.pace.admit(urgency(kind)).await;
            let sent = Instant::now();
            metrics::histogram!("validator_queue_seconds", "call" => kind.name()).record(sent - queued);
            let answer = self.exchange(kind, &held, Arc::clone(&request)).await;
            metrics::histogram!("validator_exchange_seconds", "call" => kind.name()).record(sent.elapsed());
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(remedy) = remedy(kind, &error) else { return Err(error) };
            match remedy.action {
                Action::LostSession => self.session.lost(&held).await,
                Action::NewSession => self.session.forget(&held),
                Action::Pause => self.pace.exhausted(),
            }
            if !remedy.repeat || used.contains(&remedy.action) {
                return Err(error);
            }
            tracing::debug!(validator = %self.hotkey(), ?kind, %error, "request is repeated");
            used.push(remedy.action);
        }
    }

    /// Sends a request sealed by this session and reads the answer.
    async fn exchange<Request, Answer>(
        &self,
        kind: SynapseKind,
        held: &Arc<Held>,
        request: Arc<Request>,
    ) -> Result<Answer, CallError>
    where
        Request: Serialize + Send + Sync + 'static,
        Answer: DeserializeOwned,
    {
        let sealing = {
            let held = Arc::clone(held);
            // A proof has megabytes.
            tokio::task::spawn_blocking(move || held.session.seal(kind.protocol_type(), &*request))
        };
        let package = sealing.await.map_err(|_| CallError::Stopping)??;
        let reply = self.post(kind, package.to_text()).await?;
        match read_reply(&held.session, kind, &reply)? {
            Reply::Plain(refusal) => Err(CallError::NotTaken(refusal)),
            Reply::Opened(answer) => {
                read_answer(answer.read().map_err(CallError::Malformed)?).map_err(|error| match error {
                    AnswerError::Refused(refusal) => CallError::Refused(refusal),
                    AnswerError::Schema(error) => CallError::Malformed(error),
                })
            }
        }
    }

    async fn handshake(&self) -> Result<Held, CallError> {
        let now = self.dendrite.now_seconds();
        let handshake = ClientHandshake::new(&mut OsRng, now);
        let reply = self.post(SynapseKind::SessionInit, handshake.request().to_text()).await?;
        let response = SessionInitResponse::parse(&reply)?;
        let session = handshake.finish(&response, self.dendrite.own(), self.axon.hotkey)?;
        tracing::debug!(validator = %self.hotkey(), session_id = %session.id(), "session opened");
        Ok(Held::new(session, response.expires_at, self.dendrite.now_seconds()))
    }

    /// Sends one synapse. Only whether the validator can be reached matters to the blacklist, not what it says.
    async fn post(&self, kind: SynapseKind, request: String) -> Result<String, CallError> {
        match self.dendrite.post(&self.axon, &self.lanes, kind, request).await {
            Ok(reply) => {
                self.blacklist.succeeded(self.axon.address, Instant::now());
                Ok(reply)
            }
            Err(error) => {
                if error.is_suspicious() {
                    self.blacklist.failed(self.axon.address, Instant::now());
                }
                Err(error.into())
            }
        }
    }
}

/// A reply's text, as far as its session can tell.
#[derive(Debug)]
enum Reply {
    /// Sealed by the validator.
    Opened(Plaintext),
    /// An error in place of a package, which nothing proves to be the validator's.
    Plain(ErrorAnswer),
}

fn read_reply(session: &Session, kind: SynapseKind, text: &str) -> Result<Reply, OpenError> {
    let package = ReceivedPackage::parse(text);
    if package.is_err()
        && let Ok(refusal) = serde_json::from_str(text)
    {
        return Ok(Reply::Plain(refusal));
    }
    session.open(&package?, kind.protocol_type()).map(Reply::Opened)
}

/// What to do after a failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remedy {
    action: Action,
    /// Whether the same request may then be sent once more.
    repeat: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The validator does not know the session any more.
    LostSession,
    /// The session is of no more use.
    NewSession,
    /// The validator is over its limit of requests.
    Pause,
}

/// The remedy for a failed exchange, if there is one (miner-validator spec 3.7 and 6).
fn remedy(kind: SynapseKind, error: &CallError) -> Option<Remedy> {
    let new_session = |repeat| Some(Remedy { action: Action::NewSession, repeat });
    match error {
        CallError::NotTaken(refusal) => match refusal.code()? {
            // Said after the request was processed, if the answer could not be sealed.
            ErrorCode::SessionUnknown => {
                new_session(kind.is_idempotent() || !refusal.error.starts_with("Response encryption failed"))
            }
            ErrorCode::SessionExpired => Some(Remedy { action: Action::LostSession, repeat: true }),
            ErrorCode::RehandshakeRequired | ErrorCode::SequenceError => new_session(true),
            ErrorCode::ReplayDetected | ErrorCode::BadNonce | ErrorCode::SeqWindowExceeded => {
                new_session(kind.is_idempotent())
            }
            ErrorCode::NetworkError => Some(Remedy { action: Action::Pause, repeat: true }),
            _ => None,
        },
        // The request may have been processed.
        CallError::Unreadable(_) => new_session(kind.is_idempotent()),
        // It was not even sent.
        CallError::Exhausted(_) => new_session(true),
        CallError::Transport(_)
        | CallError::Handshake(_)
        | CallError::BackingOff(_)
        | CallError::Refused(_)
        | CallError::Malformed(_)
        | CallError::Stopping => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_taken(code: i64, text: &str) -> CallError {
        CallError::NotTaken(ErrorAnswer { error: text.to_owned(), error_code: Some(code) })
    }

    const NEW_SESSION_AND_REPEAT: Option<Remedy> = Some(Remedy { action: Action::NewSession, repeat: true });
    const NEW_SESSION_ONLY: Option<Remedy> = Some(Remedy { action: Action::NewSession, repeat: false });

    #[test]
    fn an_unknown_session_or_sequence_is_repeated_in_a_new_session() {
        for kind in SynapseKind::ALL {
            for code in [4013, 4020] {
                assert_eq!(remedy(kind, &not_taken(code, "")), NEW_SESSION_AND_REPEAT);
            }
            let lost = Some(Remedy { action: Action::LostSession, repeat: true });
            assert_eq!(remedy(kind, &not_taken(4012, "")), lost);
        }
    }

    #[test]
    fn what_may_have_been_processed_is_repeated_only_if_that_does_no_harm() {
        let processed = not_taken(4011, "Response encryption failed: x");
        assert_eq!(remedy(SynapseKind::Challenge, &processed), NEW_SESSION_ONLY);
        assert_eq!(remedy(SynapseKind::Task, &processed), NEW_SESSION_AND_REPEAT);
        assert_eq!(
            remedy(SynapseKind::ChallengeProof, &not_taken(4011, "Decryption failed: x")),
            NEW_SESSION_AND_REPEAT
        );
        for unreadable in [OpenError::Tag, OpenError::Sequence] {
            assert_eq!(
                remedy(SynapseKind::ChallengeProof, &CallError::Unreadable(unreadable.clone())),
                NEW_SESSION_ONLY
            );
            assert_eq!(remedy(SynapseKind::Heartbeat, &CallError::Unreadable(unreadable)), NEW_SESSION_AND_REPEAT);
        }
    }

    #[test]
    fn a_rate_limited_request_was_not_processed_and_waits() {
        assert_eq!(
            remedy(SynapseKind::Challenge, &not_taken(1003, "rate_limited")),
            Some(Remedy { action: Action::Pause, repeat: true })
        );
    }

    #[test]
    fn refusals_are_final_even_if_they_name_a_session_code_inside_the_session() {
        for code in [0, 1, 1001, 3000, 4010, 4015, 4018, 4019, 5000, 9999] {
            assert_eq!(remedy(SynapseKind::Task, &not_taken(code, "")), None);
        }
        let inside = ErrorAnswer { error: "no".to_owned(), error_code: Some(4012) };
        assert_eq!(remedy(SynapseKind::Task, &CallError::Refused(inside)), None);
    }
}
