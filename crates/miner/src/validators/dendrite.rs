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
use reqwest::{
    StatusCode,
    dns::{Name, Resolve, Resolving},
    header::CONTENT_TYPE,
    redirect,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::select::Axon;
use crate::time::seconds;

/// Requests under way to one validator at the same time.
const LANES: usize = 16;

/// A validator closes idle connections after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Largest reply, in bytes, besides the echo of the request that a reference validator puts into it.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

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
    /// The validator has not finished enough of our own requests in time to be sent another.
    #[error("{LANES} requests under way, none of which ended within {} s", .0.as_secs())]
    Crowded(Duration),
    /// The reply exceeds the limit.
    #[error("reply larger than {0} bytes")]
    TooLarge(usize),
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
        matches!(self, Self::Unreachable(_) | Self::Late(_) | Self::Crowded(_))
    }

    /// Whether it may be the validator's fault: not if our own queue took up the time.
    pub(super) fn is_suspicious(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Late(_))
    }
}

impl Dendrite {
    pub(super) fn new(signer: Arc<dyn Signer>, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(Arc::new(NoNames))
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

    /// Sends one synapse and gives the text of its field `response`. The validator has the kind's whole time, whatever our
    /// own queue and signature took before.
    pub(super) async fn post(
        &self,
        axon: &Axon,
        lanes: &Lanes,
        kind: SynapseKind,
        payload: String,
    ) -> Result<String, TransportError> {
        let timeout = kind.timeout();
        let lane = lanes.take(timeout).await?;
        let request = {
            let dendrite = Arc::clone(&self.lanes[lane.index]);
            let nonce = self.nonces.next(u64::try_from(self.clock.unix_ms()).unwrap_or_default() * 1_000_000);
            let Axon { hotkey, address } = *axon;
            let axon = AxonAddress { hotkey, ip: address.ip().to_string(), port: address.port() };
            // A proof has megabytes.
            tokio::task::spawn_blocking(move || dendrite.request(kind, &axon, timeout, nonce, payload))
        };
        let request = request.await.map_err(|_| TransportError::Stopping)?;
        let reply = tokio::time::timeout(timeout, self.exchange(axon, request)).await;
        reply.unwrap_or(Err(TransportError::Late(timeout)))
    }

    async fn exchange(&self, axon: &Axon, request: synapse::Request) -> Result<String, TransportError> {
        let mut post = self.http.post(format!("http://{}/{}", axon.address, request.path));
        for (name, value) in request.headers {
            post = post.header(name, value);
        }
        let limit = MAX_ANSWER_BYTES + 2 * request.body.len();
        let sent = post.header(CONTENT_TYPE, "application/json").body(request.body).send().await;
        let (status, content_type, body) = receive(sent.map_err(unreachable)?, limit).await?;
        Ok(read_reply(status.as_u16(), content_type.as_deref(), &body)?)
    }
}

/// Reads a reply up to the limit.
async fn receive(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<(StatusCode, Option<String>, Vec<u8>), TransportError> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > limit {
            return Err(TransportError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, content_type, body))
}

fn unreachable(error: reqwest::Error) -> TransportError {
    TransportError::Unreachable(chain(&error))
}

/// Validators are dialled by address, so no name is ever looked up on the way of a request: not theirs, and not ours.
struct NoNames;

impl Resolve for NoNames {
    fn resolve(&self, name: Name) -> Resolving {
        let refusal = format!("{} is a name: validators have addresses", name.as_str());
        Box::pin(std::future::ready(Err(refusal.into())))
    }
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

    /// A lane, as soon as there is one and no later than that.
    async fn take(&self, patience: Duration) -> Result<Lane<'_>, TransportError> {
        let permit = tokio::time::timeout(patience, self.permits.acquire()).await;
        let permit = permit.map_err(|_| TransportError::Crowded(patience))?.map_err(|_| TransportError::Stopping)?;
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
    use byteleap_daemon::clock::SystemClock;
    use byteleap_protocol::hotkey::Keypair;

    use super::*;

    #[tokio::test]
    async fn no_two_requests_under_way_share_a_lane_and_the_wait_for_one_is_not_the_validators_fault() {
        let lanes = Lanes::new();
        let mut taken = Vec::new();
        for _ in 0..LANES {
            taken.push(lanes.take(Duration::MAX).await.expect("a lane"));
        }
        let mut indices: Vec<_> = taken.iter().map(|lane| lane.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..LANES).collect::<Vec<_>>());
        let crowded = lanes.take(Duration::ZERO).await.expect_err("no lane is free");
        assert!(matches!(crowded, TransportError::Crowded(_)), "{crowded}");
        assert!(crowded.means_unreachable() && !crowded.is_suspicious());
        drop(taken.pop());
        assert!(lanes.take(Duration::ZERO).await.is_ok());
    }

    #[tokio::test]
    async fn no_name_is_ever_looked_up() {
        let signer = Arc::new(Keypair::from_seed(&[7; 32]));
        let dendrite = Dendrite::new(signer, Arc::new(SystemClock::new())).expect("a client");
        let refused = dendrite.http.get("http://localhost:1/").send().await.expect_err("a name");
        assert!(chain(&refused).contains("is a name"), "{}", chain(&refused));
    }
}
