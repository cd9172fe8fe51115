//! The link to the miner: one connection at a time, dialled again whenever it ends, until the worker stops.
//!
//! [`url`] says where, [`dial`] opens the WebSocket, over TLS as [`tls`] wants the miner to be known, [`key`] is what the
//! worker proves there, [`session`] registers and serves one connection and keeps in [`told`] what
//! validators say, [`backoff`] paces the attempts. [`Link`] ties them together.

pub mod backoff;
pub mod dial;
pub mod key;
pub mod session;
pub mod tls;
pub mod told;
pub mod url;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::admin::Gate;
use byteleap_daemon::clock::Clock;
use byteleap_daemon::tasks::chain;
use byteleap_protocol::Object;
use byteleap_protocol::code::CloseCode;
use byteleap_protocol::frame::Register;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::join::CertificateFingerprint;
use byteleap_protocol::worker_key::{Channel, KeyProof, WorkerSecret};
use rand_core::OsRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::backoff::Backoff;
use self::key::KeyError;
use self::session::{End, Session};
use self::told::LastRelayed;
use self::url::MinerUrl;
use crate::challenge::cache::ResultCache;
use crate::challenge::run::Runner;
use crate::gpu::Gpus;
use crate::outbox::Outbox;

/// A connection that lived this long was a good one: the next attempts are paced from the start again.
const GOOD_CONNECTION: Duration = Duration::from_secs(60);

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name within the miner.
    pub worker_id: WorkerId,
    /// Its display name.
    pub worker_name: Option<String>,
    /// The key that proves it.
    pub secret: Arc<WorkerSecret>,
    /// Where a join secret waits for the first registration.
    pub state_dir: PathBuf,
}

/// Intervals and deadlines of the link.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// First pause between attempts.
    pub reconnect_interval: Duration,
    /// Longest pause between attempts.
    pub reconnect_max: Duration,
    /// Pause between heartbeats.
    pub heartbeat_interval: Duration,
    /// Pause between pings.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub ping_timeout: Duration,
    /// How long the miner may take to acknowledge a registration: 10.5 s are normal when it replaces a dead connection.
    pub registration_timeout: Duration,
    /// How long the miner may take to open the connection and to accept one message.
    pub peer_timeout: Duration,
    /// Pause between the two registrations after a connection was lost without a close (worker-miner spec 11).
    pub second_registration_pause: Duration,
}

impl Timing {
    /// The fixed intervals of the protocol with these configured ones.
    #[must_use]
    pub fn new(
        reconnect_interval: Duration,
        heartbeat_interval: Duration,
        ping_interval: Duration,
        ping_timeout: Duration,
    ) -> Self {
        Self {
            reconnect_interval,
            reconnect_max: Duration::from_secs(60).max(reconnect_interval),
            heartbeat_interval,
            ping_interval,
            ping_timeout,
            registration_timeout: Duration::from_secs(30),
            peer_timeout: Duration::from_secs(10),
            second_registration_pause: Duration::from_secs(1),
        }
    }
}

/// Whether the worker is connected, for `/status`.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkState {
    /// Registered with the miner.
    Registered {
        /// Since when, ms since 1970.
        since_ms: i64,
        /// Whether the miner asked for a proof of the worker's key.
        key_proved: bool,
    },
    /// Not registered.
    Away {
        /// Why: the last attempt's or connection's end.
        reason: String,
    },
}

/// The link and everything that it connects.
#[derive(Debug)]
pub struct Link {
    /// Who registers.
    pub identity: Identity,
    /// Where the miner listens.
    pub url: MinerUrl,
    /// The certificate by which it is known; without it by its name, on a `wss://` URL.
    pub pinned: Option<CertificateFingerprint>,
    /// Intervals and deadlines.
    pub timing: Timing,
    /// Takes assignments.
    pub runner: Runner,
    /// Answers proof requests.
    pub cache: ResultCache,
    /// Shows numbers of GPUs' results.
    pub gpus: Gpus,
    /// Gives results.
    pub outbox: Arc<Outbox>,
    /// The latest sample of this machine.
    pub system_info: watch::Receiver<Object>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keeps what the miner passes on of validators.
    pub told: LastRelayed,
    /// Told about every change.
    pub state: watch::Sender<LinkState>,
    /// Open while registered.
    pub gate: Gate,
}

impl Link {
    /// Keeps the worker connected until `stop`; then finishes what is under way and closes with 1000.
    ///
    /// # Errors
    /// None; the type suits a supervised task.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut backoff = Backoff::new(self.timing.reconnect_interval, self.timing.reconnect_max, OsRng);
        // Whether a Python miner may still hold an entry of a connection whose end it has not noticed.
        let mut may_be_remembered = false;
        loop {
            let started = self.clock.monotonic();
            let connected = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                connected = self.connect(may_be_remembered) => connected,
            };
            match connected {
                Ok(session) => {
                    let end = self.serve(session, &stop).await;
                    if end == End::Stopped {
                        return Ok(());
                    }
                    may_be_remembered = end.is_unclean();
                    // A lost miner says nothing against the connection; one that ends it may do so again.
                    if may_be_remembered || self.clock.monotonic() - started >= GOOD_CONNECTION {
                        backoff.reset();
                    }
                }
                Err(reason) => self.is_away(reason),
            }
            let pause = backoff.next_pause();
            tracing::info!(pause_ms = pause.as_millis(), "connecting again");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Dials and registers; twice where the miner may remember a connection that it has not seen end.
    ///
    /// The clean-up of such a connection would later delete the entry of the one that replaced it (fault F1). The first
    /// registration forces that clean-up, and is closed; the second finds no predecessor.
    async fn connect(&self, may_be_remembered: bool) -> Result<Session<'_>, String> {
        if may_be_remembered {
            tracing::info!("registering twice, since the last connection was lost without a close");
            self.register().await?.close().await;
            tokio::time::sleep(self.timing.second_registration_pause).await;
        }
        self.register().await
    }

    async fn register(&self) -> Result<Session<'_>, String> {
        let dialled =
            dial::dial(&self.url, self.pinned, self.timing.peer_timeout).await.map_err(|error| chain(&error))?;
        let identity = match dialled.channel {
            Some(channel) => Some(self.proof(channel).await?),
            None => None,
        };
        let is_joining = identity.as_ref().is_some_and(|proof| proof.join_secret.is_some());
        let register = Register {
            worker_id: self.identity.worker_id.clone(),
            worker_name: self.identity.worker_name.clone(),
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: self.capabilities(),
            system_info: self.gpus.put_into(self.system_info.borrow().clone()),
            identity,
        };
        let registered = Session::register(self, dialled.socket, register).await;
        let session = registered.map_err(|end| format!("not registered: {end}"))?;
        if is_joining {
            tracing::info!("the join token has enrolled this worker");
            let state_dir = self.identity.state_dir.clone();
            off_the_runtime(move || key::forget_join_secret(&state_dir)).await?;
        }
        Ok(session)
    }

    /// Proves this worker's key on a connection; with the secret of a join token, where one waits and nobody can read it.
    async fn proof(&self, channel: Channel) -> Result<KeyProof, String> {
        let mut proof = self.identity.secret.prove(&channel, &self.identity.worker_id);
        if channel.exported.is_some() {
            let state_dir = self.identity.state_dir.clone();
            proof.join_secret = off_the_runtime(move || key::join_secret(&state_dir)).await?;
        }
        Ok(proof)
    }

    async fn serve(&self, session: Session<'_>, stop: &CancellationToken) -> End {
        tracing::info!(worker_id = %self.identity.worker_id, miner_url = %self.url, "registered with the miner");
        metrics::counter!("worker_registrations_total").increment(1);
        let registered = LinkState::Registered { since_ms: self.clock.unix_ms(), key_proved: session.is_key_proved() };
        self.state.send_replace(registered);
        self.gate.open();
        let end = session.serve(stop).await;
        if end.is_close(CloseCode::ForeignTask)
            && let Some(challenge_id) = self.outbox.refused()
        {
            tracing::warn!(%challenge_id, "the miner refuses this result: dropped");
        }
        self.outbox.disconnected();
        if end == End::Stopped {
            tracing::info!("closed the connection to the miner");
        } else {
            self.is_away(format!("connection ended: {end}"));
        }
        end
    }

    /// What is offered: nothing by a worker that drains.
    fn capabilities(&self) -> Vec<String> {
        if self.runner.drain().is_on() { Vec::new() } else { self.gpus.capabilities() }
    }

    fn is_away(&self, reason: String) {
        tracing::warn!(miner_url = %self.url, reason, "not connected to the miner");
        self.gate.close(reason.clone());
        self.state.send_replace(LinkState::Away { reason });
    }
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(panic) => Err(panic.to_string()),
    }
}
