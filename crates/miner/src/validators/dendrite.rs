//! Sends synapses: signed HTTP POSTs over pooled connections (miner-validator spec 1).
//!
//! A validator accepts a nonce only if it is above the last one it accepted under the same UUID. Requests that are under
//! way at the same time may overtake each other, so each takes a lane for itself: a UUID under which requests follow
//! one another. The lanes are made once per process, so that a validator's table of nonces stays small.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use byteleap_daemon::{clock::Clock, tasks::chain};
use byteleap_protocol::{
    hotkey::{Hotkey, Signature, Signer},
    synapse::{self, AxonAddress, NonceSource, ReplyError, SynapseKind, read_reply},
};
use reqwest::{StatusCode, header::CONTENT_TYPE, redirect};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::select::Axon;
use crate::time::seconds;

/// Requests under way to one validator at the same time.
const LANES: usize = 16;

/// A validator closes idle connections after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Largest reply, in bytes: a reference validator's echo of a request of proofs.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

/// What a validator's log shows as our address. It sees the real one on the socket.
const OWN_IP: &str = "0.0.0.0";

/// The miner's client towards all validators.
pub(super) struct Dendrite {
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    nonces: NonceSource,
    own: Hotkey,
    lanes: [Arc<synapse::Dendrite<SharedSigner>>; LANES],
}

/// The lanes towards one validator that are free.
#[derive(Debug)]
pub(super) struct Lanes {
    permits: Semaphore,
    free: Mutex<Vec<usize>>,
}

/// Why no synapse came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// The validator cannot be reached, or the connection broke.
    #[error("validator unreachable: {0}")]
    Unreachable(String),
    /// No complete reply in time.
    #[error("no reply within {} s", .0.as_secs())]
    Late(Duration),
    /// The reply exceeds the limit.
    #[error("reply larger than {MAX_REPLY_BYTES} bytes")]
    TooLarge,
    /// What answers is no validator, or it refuses before any session.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The process stops.
    #[error("the miner stops")]
    Stopping,
}

impl TransportError {
    /// Whether nothing answered at all.
    pub(super) fn means_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Late(_))
    }
}

impl Dendrite {
    pub(super) fn new(signer: Arc<dyn Signer>, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .build()?;
        let lane = |_| {
            let signer = SharedSigner(Arc::clone(&signer));
            Arc::new(synapse::Dendrite::new(signer, Uuid::new_v4().to_string(), OWN_IP.to_owned()))
        };
        let lanes = std::array::from_fn(lane);
        Ok(Self { http, clock, nonces: NonceSource::default(), own: signer.hotkey(), lanes })
    }

    /// The miner's hotkey.
    pub(super) fn own(&self) -> Hotkey {
        self.own
    }

    /// Seconds since 1970.
    pub(super) fn now_seconds(&self) -> f64 {
        seconds(self.clock.unix_ms())
    }

    /// Sends one synapse and gives the text of its field `response`. The time that it waits for a lane counts too.
    pub(super) async fn post(
        &self,
        axon: &Axon,
        lanes: &Lanes,
        kind: SynapseKind,
        payload: String,
    ) -> Result<String, TransportError> {
        let timeout = kind.timeout();
        match tokio::time::timeout(timeout, self.exchange(axon, lanes, kind, payload)).await {
            Ok(reply) => reply,
            Err(_) => Err(TransportError::Late(timeout)),
        }
    }

    async fn exchange(
        &self,
        axon: &Axon,
        lanes: &Lanes,
        kind: SynapseKind,
        payload: String,
    ) -> Result<String, TransportError> {
        let lane = lanes.take().await?;
        let request = {
            let dendrite = Arc::clone(&self.lanes[lane.index]);
            let nonce = self.nonces.next(u64::try_from(self.clock.unix_ms()).unwrap_or_default() * 1_000_000);
            let Axon { hotkey, address } = *axon;
            let axon = AxonAddress { hotkey, ip: address.ip().to_string(), port: address.port() };
            // A proof has megabytes.
            tokio::task::spawn_blocking(move || dendrite.request(kind, &axon, kind.timeout(), nonce, payload))
        };
        let request = request.await.map_err(|_| TransportError::Stopping)?;
        let mut post = self.http.post(format!("http://{}/{}", axon.address, request.path));
        for (name, value) in request.headers {
            post = post.header(name, value);
        }
        let sent = post.header(CONTENT_TYPE, "application/json").body(request.body).send().await;
        let (status, content_type, body) = receive(sent.map_err(unreachable)?).await?;
        Ok(read_reply(status.as_u16(), content_type.as_deref(), &body)?)
    }
}

/// Reads a reply up to the limit.
async fn receive(mut response: reqwest::Response) -> Result<(StatusCode, Option<String>, Vec<u8>), TransportError> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_REPLY_BYTES {
            return Err(TransportError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, content_type, body))
}

fn unreachable(error: reqwest::Error) -> TransportError {
    TransportError::Unreachable(chain(&error))
}

impl std::fmt::Debug for Dendrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dendrite").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Lanes {
    /// All lanes free.
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(LANES), free: Mutex::new((0..LANES).collect()) }
    }

    async fn take(&self) -> Result<Lane<'_>, TransportError> {
        let permit = self.permits.acquire().await.map_err(|_| TransportError::Stopping)?;
        // As many permits as lanes: whoever holds one finds the other.
        let index = self.free().pop().ok_or(TransportError::Stopping)?;
        Ok(Lane { lanes: self, index, _permit: permit })
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane in use, given back on drop.
#[derive(Debug)]
struct Lane<'lanes> {
    lanes: &'lanes Lanes,
    index: usize,
    _permit: SemaphorePermit<'lanes>,
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // Before the permit is: fields are dropped after this.
        self.lanes.free().push(self.index);
    }
}

/// The one signer of the process, for each of its lanes.
struct SharedSigner(Arc<dyn Signer>);

impl Signer for SharedSigner {
    fn hotkey(&self) -> Hotkey {
        self.0.hotkey()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_two_requests_under_way_share_a_lane() {
        let lanes = Lanes::new();
        let mut taken = Vec::new();
        for _ in 0..LANES {
            taken.push(lanes.take().await.expect("a lane"));
        }
        let mut indices: Vec<_> = taken.iter().map(|lane| lane.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..LANES).collect::<Vec<_>>());
        assert!(lanes.permits.try_acquire().is_err());
        drop(taken.pop());
        assert!(lanes.take().await.is_ok());
    }
}
