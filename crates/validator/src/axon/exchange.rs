//! Inside the session: a sealed request is opened, handed to the desk, and its answer sealed
//! (miner-validator spec 3.6).
//!
//! What is wrong with the package itself is answered in the clear, with a code; what the desk says, refusals included,
//! travels sealed.

use std::sync::Arc;

use byteleap_protocol::canonical;
use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::payload::ErrorAnswer;
use byteleap_protocol::session::{OpenError, Plaintext, ReceivedPackage, Session, SessionInitRequest};
use byteleap_protocol::synapse::SynapseKind;
use rand_core::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::capture::Chosen;

use super::{Axon, Desk, Failed, on_blocking_thread};

/// Answers a handshake with the text of the field `response`.
pub(super) async fn open_session<D: Desk>(
    axon: &Arc<Axon<D>>,
    caller: Hotkey,
    request: String,
) -> Result<String, Failed> {
    let axon = Arc::clone(axon);
    on_blocking_thread(move || {
        let request = SessionInitRequest::parse(&request);
        let (now, unix_s) = (axon.clock.monotonic(), axon.clock.unix_ms() as f64 / 1000.0);
        let own = axon.signer.hotkey();
        let opened = axon.sessions.lock().open(&mut OsRng, request, caller, own, now, unix_s);
        match opened {
            Ok(response) => {
                tracing::debug!(peer = %caller, session_id = %response.session_id, "session opened");
                response.to_text()
            }
            Err(refusal) => {
                tracing::info!(peer = %caller, %refusal, "handshake refused");
                canonical::ascii(&refusal.answer())
            }
        }
    })
    .await
}

/// Answers a sealed request with the text of the field `response`.
pub(super) async fn answer<D: Desk>(
    axon: &Arc<Axon<D>>,
    kind: SynapseKind,
    caller: Hotkey,
    request: String,
) -> Result<String, Failed> {
    let opened = {
        let axon = Arc::clone(axon);
        on_blocking_thread(move || open(&axon, kind, caller, &request)).await?
    };
    let Opened { session, payload, chosen } = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            tracing::info!(peer = %caller, synapse = kind.name(), error = refusal.error, "package refused");
            axon.desk.refused(caller, package_code(&refusal), format!("{}: {}", kind.name(), refusal.error)).await;
            return Ok(canonical::ascii(&refusal));
        }
    };
    let desk = Arc::clone(&axon.desk);
    let exchange = Exchange { axon, kind, caller, session, chosen };
    match kind {
        SynapseKind::Heartbeat => {
            exchange.serve(payload, move |data| async move { desk.heartbeat(caller, data).await }).await
        }
        SynapseKind::Task => {
            let axon = Arc::clone(axon);
            let poll = move |request| async move {
                let response = desk.tasks(caller, request).await?;
                axon.requests.lock().handed_out(caller, response.challenges.len(), axon.clock.monotonic());
                Ok(response)
            };
            exchange.serve(payload, poll).await
        }
        SynapseKind::Challenge => {
            exchange.serve(payload, move |data| async move { desk.commit(caller, data).await }).await
        }
        SynapseKind::ChallengeProof => {
            exchange.serve(payload, move |data| async move { desk.prove(caller, data).await }).await
        }
        SynapseKind::GetVmgwEnrollToken => {
            exchange.serve(payload, move |request| async move { desk.token(caller, request).await }).await
        }
        SynapseKind::SessionInit => {
            let refusal = ErrorAnswer::new(ErrorCode::SessionRequired, "No processor for SESSION_INIT_V1");
            Ok(canonical::ascii(&refusal))
        }
    }
}

/// The lasting short name of why a package was refused.
fn package_code(refusal: &ErrorAnswer) -> &'static str {
    match refusal.code() {
        Some(ErrorCode::SequenceError) => "replayed_package",
        Some(ErrorCode::SessionExpired) => "unknown_session",
        _ => "unreadable_package",
    }
}

/// A request out of its package, not yet read.
struct Opened {
    session: Arc<Session>,
    payload: Plaintext,
    chosen: Option<Chosen>,
}

/// Opens the package: the session, its owner, and all that [`Session::open`] checks.
fn open<D: Desk>(axon: &Axon<D>, kind: SynapseKind, caller: Hotkey, request: &str) -> Result<Opened, ErrorAnswer> {
    if request.is_empty() {
        let error = "Session decryption failed: Empty synapse request data";
        return Err(ErrorAnswer::new(ErrorCode::BadAad, error));
    }
    let package = ReceivedPackage::parse(request).map_err(|error| error.answer())?;
    let id = package.session_id();
    let session = axon.sessions.lock().find(id, caller, axon.clock.monotonic());
    let session = session.ok_or_else(|| OpenError::UnknownSession(id.clone()).answer())?;
    let payload = session.open(&package, kind.protocol_type()).map_err(|error| error.answer())?;
    axon.sessions.lock().touch(id, axon.clock.monotonic());
    if !payload.is_object() {
        let error = "Decryption failed: payload is not an object";
        return Err(ErrorAnswer::new(ErrorCode::SessionUnknown, error));
    }
    // What cannot be shown is left out.
    let shown = || payload.read().unwrap_or_default();
    let chosen = axon.capture.as_ref().and_then(|capture| capture.choose(caller, kind, shown));
    Ok(Opened { session, payload, chosen })
}

/// An opened request on its way to the desk and back.
struct Exchange<'a, D> {
    axon: &'a Axon<D>,
    kind: SynapseKind,
    caller: Hotkey,
    session: Arc<Session>,
    /// Where an operator looks at this request.
    chosen: Option<Chosen>,
}

impl<D: Desk> Exchange<'_, D> {
    /// Reads the payload, lets `work` answer it and seals the answer.
    ///
    /// The work is a task of its own: a caller that hangs up does not stop it halfway.
    async fn serve<P, A, W, F>(self, payload: Plaintext, work: W) -> Result<String, Failed>
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        W: FnOnce(P) -> F,
        F: Future<Output = Result<A, ErrorAnswer>> + Send + 'static,
    {
        let Self { axon, kind, caller, session, chosen } = self;
        let read = on_blocking_thread(move || payload.read::<P>()).await?;
        let payload = match read {
            Ok(payload) => payload,
            Err(misfit) => {
                axon.desk.refused(caller, "unfit_payload", format!("{}: {misfit}", kind.name())).await;
                let error = format!("Session decryption failed: payload does not fit {}", kind.protocol_type());
                return Ok(canonical::ascii(&ErrorAnswer::new(ErrorCode::BadAad, error)));
            }
        };
        let answer = axon.work.spawn(work(payload)).await?;
        on_blocking_thread(move || {
            if let Some(chosen) = chosen {
                // An answer that cannot be shown is left out.
                chosen.answered(
                    &answer.as_ref().map_or_else(serde_json::to_value, serde_json::to_value).unwrap_or_default(),
                );
            }
            seal(&session, kind, &answer)
        })
        .await
    }
}

/// Seals an answer, refusals of the desk included.
fn seal<A: Serialize>(session: &Session, kind: SynapseKind, answer: &Result<A, ErrorAnswer>) -> String {
    let sealed = match answer {
        Ok(answer) => session.seal(kind.protocol_type(), answer),
        Err(refusal) => session.seal(kind.protocol_type(), refusal),
    };
    match sealed {
        Ok(package) => package.to_text(),
        // The text tells the miner that the request has been processed.
        Err(error) => {
            let error = format!("Response encryption failed: {error}");
            canonical::ascii(&ErrorAnswer::new(ErrorCode::SessionUnknown, error))
        }
    }
}
