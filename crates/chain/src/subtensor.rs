//! The real chain: a client of a subtensor node over JSON-RPC, on subxt with dynamic addresses, so that a runtime upgrade
//! needs no new build (chain spec, chapters 2 to 4).
//!
//! A reading goes through `connection` (a live connection to one [`endpoint`] of the same chain) to `read` (all values at
//! one finalised block) and takes its shapes from `wire`; a writing checks the chain's rules first and goes through `submit`
//! (signed, watched until finalised, its event decoded). `fault` sorts every error into "dial again" and "the chain's answer".

mod connection;
mod endpoint;
mod fault;
mod read;
mod submit;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parity_scale_codec::Encode;
use subxt::transactions::Payload;
use subxt::utils::AccountId32;
use subxt::{OnlineClient, OnlineClientAtBlock, SubstrateConfig};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio::try_join;

pub use endpoint::{EndpointError, resolve};

use crate::rules::{check_axon, check_rate, check_weights};
use crate::schedule::reveal_round;
use crate::timelock::{Beacon, Commitment};
use crate::{Block, Chain, ChainError, Epoch, Head, Hotkey, Metagraph, Receipt, Rules, Signer, WeightMatrix, Weights};
use connection::{Connection, Endpoints};
use fault::Fault;
use submit::{Fate, Sent};

/// A connection.
type Client = OnlineClient<SubstrateConfig>;

/// A connection pinned to one finalised block.
type At = OnlineClientAtBlock<SubstrateConfig>;

/// How long the client waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// One dial; a dead host must not hold up the next in the list.
    pub dial: Duration,
    /// One composite reading, and each step of a submission.
    pub call: Duration,
    /// A new finalised block; an endpoint that shows none for so long is taken for dead.
    pub stall: Duration,
    /// After the first round over all endpoints that led nowhere; doubled with each further one, up to 30 s.
    pub pause: Duration,
}

impl Default for Patience {
    /// For a chain with a block every 12 seconds (chain spec 4.5).
    fn default() -> Self {
        let [dial, call, stall, pause] = [3, 10, 120, 1].map(Duration::from_secs);
        Self { dial, call, stall, pause }
    }
}

/// Tries of a reading: on the current connection, then once on a new one.
const READ_TRIES: usize = 2;

/// A client of one chain over a list of endpoints. It connects on first use, and anew whenever a connection fails.
#[derive(Debug)]
pub struct Subtensor {
    endpoints: Endpoints,
    /// Whose rounds reveal timelocked weights.
    beacon: Beacon,
}

impl Subtensor {
    /// A client of the chain behind `networks`, each a name (`finney`, `test`, `archive`, `local`) or a URL, tried in
    /// order. Plain `ws://` beyond loopback needs `allow_insecure`. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`EndpointError`] for an empty list, an unknown name or an insecure URL.
    pub fn new(networks: &[impl AsRef<str>], allow_insecure: bool) -> Result<Self, EndpointError> {
        let urls =
            networks.iter().map(|network| resolve(network.as_ref(), allow_insecure)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints: Endpoints::new(urls, Patience::default())?, beacon: Beacon::QUICKNET })
    }

    /// The same client for a chain that follows another beacon, as the development chain does its own.
    #[must_use]
    pub fn with_beacon(self, beacon: Beacon) -> Self {
        Self { beacon, ..self }
    }

    /// The same client with other limits of waiting.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { endpoints: self.endpoints.with_patience(patience), ..self }
    }

    /// The weights that the chain holds for `uid` on `netuid`, as `(uid, value)` pairs; empty when none were set.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] or [`ChainError::Unsupported`].
    pub async fn weights(&self, netuid: u16, uid: u16) -> Result<Vec<(u16, u16)>, ChainError> {
        self.read(move |at| async move { read::weights(&at, netuid, uid).await }).await
    }

    /// Runs `reading` on a finalised block, and once more on a new connection if this one fails.
    async fn read<T, F>(&self, reading: impl Fn(At) -> F + Send + Sync) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        self.ask(|_, at| reading(at)).await
    }

    /// As [`read`](Self::read), for what also needs the connection itself.
    async fn ask<T, F>(&self, asking: impl Fn(Arc<Connection>, At) -> F + Send + Sync) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let mut why = String::new();
        for _ in 0..READ_TRIES {
            let connection = self.endpoints.connection().await?;
            let outcome = within(self.patience().call, async {
                let at = connection.client.at_current_block().await?;
                self.endpoints.check(&at)?;
                asking(Arc::clone(&connection), at).await
            });
            match outcome.await {
                Ok(value) => return Ok(value),
                Err(Fault::Chain(error)) => return Err(error),
                Err(Fault::Lost(reason)) => {
                    self.endpoints.discard(&connection, &reason).await;
                    why = reason;
                }
            }
        }
        Err(ChainError::Unreachable(why))
    }

    fn patience(&self) -> &Patience {
        self.endpoints.patience()
    }

    /// Seals `weights` until the reveal that the schedule foretells, and commits to them (chain spec, chapter 6). The schedule
    /// is that of the finalised block, a few blocks behind the one that takes the commit: where an epoch lies between, the
    /// round is out early, never late.
    async fn commit_weights(
        &self,
        at: At,
        netuid: u16,
        weights: &Weights,
        rules: &Rules,
        by: &dyn Signer,
    ) -> Result<Receipt, ChainError> {
        if !wire::has_call(&at, wire::CommitTimelocked::NAME) {
            return Err(ChainError::Unsupported(format!("this runtime has no call {}", wire::CommitTimelocked::NAME)));
        }
        let state =
            within(self.patience().call, read::commit_state(&at, netuid)).await.map_err(Fault::before_sending)?;
        let (head, slot) = (at.block_number(), read::slot(&at).map_err(Fault::before_sending)?);
        let round = reveal_round(&self.beacon, rules, &state.epoch, (head, state.now_ms), slot)?;
        let (beacon, payload) = (self.beacon, Commitment::of(&by.hotkey(), weights).encode());
        let sealed = spawn_blocking(move || beacon.seal(round, &payload)).await;
        let commit = sealed
            .map_err(|error| error.to_string())
            .and_then(|sealed| sealed.map_err(|error| error.to_string()))
            .map_err(|why| ChainError::Unsupported(format!("the weights cannot be sealed: {why}")))?;
        let call = wire::CommitTimelocked::new(netuid, commit, round, state.version);
        let receipt = self.submit(at, wire::call(wire::CommitTimelocked::NAME, call), by).await?;
        Ok(Receipt { reveal_round: Some(round), ..receipt })
    }

    /// Signs `call` at the block of the preflight, submits it once, and finds out what became of it.
    async fn submit(&self, at: At, call: impl Payload, by: &dyn Signer) -> Result<Receipt, ChainError> {
        let account = AccountId32(by.hotkey().0);
        let limit = self.patience().call;
        let nonce = within(limit, async { Ok(at.tx().account_nonce(&account).await?) }).await;
        let nonce = nonce.map_err(Fault::before_sending)?;
        let (extrinsic, sent) = submit::sign(&at, &call, nonce, by).map_err(Fault::before_sending)?;
        let slot = read::slot(&at).map_err(Fault::before_sending)?;
        let patience = submit::patience(limit, slot);
        let deadline = Instant::now() + patience;
        let refused = submit::send(&extrinsic, limit, patience).await?;
        self.fate(sent, refused, deadline).await
    }

    /// Follows the finalised chain, over whichever endpoint answers, until it tells what became of an extrinsic. An
    /// extrinsic that the node dropped for good is looked for once.
    async fn fate(&self, sent: Sent, dropped: Option<String>, deadline: Instant) -> Result<Receipt, ChainError> {
        let look = async || self.ask(|connection, at| async move { submit::look(&connection, &at, &sent).await }).await;
        loop {
            let open = match look().await {
                Ok(Fate::Decided(outcome)) => return outcome,
                Ok(Fate::Open(head)) => Some(head),
                Err(error) if error.is_temporary() => None,
                Err(_) => return Err(ChainError::Unknown { nonce: sent.nonce }),
            };
            if let (Some(why), Some(_)) = (&dropped, open) {
                return Err(ChainError::Pool(why.clone()));
            }
            let next = async {
                match open {
                    Some(head) => drop(self.next_block(head).await),
                    None => sleep(self.patience().pause).await,
                }
            };
            if timeout_at(deadline, next).await.is_err() {
                return Err(ChainError::Unknown { nonce: sent.nonce });
            }
        }
    }
}

#[async_trait]
impl Chain for Subtensor {
    async fn head(&self) -> Result<Head, ChainError> {
        self.read(|at| async move { read::head(&at) }).await
    }

    async fn next_block(&self, after: Block) -> Result<Head, ChainError> {
        let mut why = String::new();
        for _ in 0..READ_TRIES {
            let connection = self.endpoints.connection().await?;
            match read::next_block(&connection.client, after, self.patience()).await {
                Ok(head) => return Ok(head),
                Err(Fault::Chain(error)) => return Err(error),
                Err(Fault::Lost(reason)) => {
                    self.endpoints.discard(&connection, &reason).await;
                    why = reason;
                }
            }
        }
        Err(ChainError::Unreachable(why))
    }

    async fn metagraph(&self, netuid: u16) -> Result<Metagraph, ChainError> {
        self.read(move |at| async move { read::metagraph(&at, netuid).await }).await
    }

    async fn weight_matrix(&self, netuid: u16) -> Result<WeightMatrix, ChainError> {
        self.read(move |at| async move { read::weight_matrix(&at, netuid).await }).await
    }

    async fn rules(&self, netuid: u16) -> Result<Rules, ChainError> {
        self.read(move |at| async move { read::rules(&at, netuid).await }).await
    }

    async fn epoch(&self, netuid: u16) -> Result<Epoch, ChainError> {
        self.read(move |at| async move { read::epoch(&at, netuid).await }).await
    }

    async fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, ChainError> {
        let hotkey = *hotkey;
        self.read(move |at| async move { read::uid(&at, netuid, hotkey).await }).await
    }

    async fn serve_axon(
        &self,
        netuid: u16,
        address: SocketAddr,
        version: u32,
        by: &dyn Signer,
    ) -> Result<Option<Receipt>, ChainError> {
        check_axon(address)?;
        let hotkey = by.hotkey();
        let call = wire::ServeAxon::new(netuid, address, version);
        let preflight = move |at: At| async move {
            read::uid(&at, netuid, hotkey).await?.ok_or(ChainError::NotRegistered(netuid))?;
            let (axon, limit) = read::axon(&at, netuid, hotkey).await?;
            Ok((at, axon, limit))
        };
        let (at, axon, limit) = self.read(preflight).await?;
        if let Some(axon) = axon {
            if axon.is(address, version) {
                return Ok(None);
            }
            check_rate(axon.block, limit, at.block_number())?;
        }
        self.submit(at, wire::call("serve_axon", call), by).await.map(Some)
    }

    async fn set_weights(&self, netuid: u16, weights: &Weights, by: &dyn Signer) -> Result<Receipt, ChainError> {
        let preflight = move |at: At| async move {
            let (metagraph, rules) = try_join!(read::metagraph(&at, netuid), read::rules(&at, netuid))?;
            Ok((at, metagraph, rules))
        };
        let (at, metagraph, rules) = self.read(preflight).await?;
        check_weights(weights, &by.hotkey(), &metagraph, &rules)?;
        if rules.commit_reveal {
            self.commit_weights(at, netuid, weights, &rules, by).await
        } else if wire::has_call(&at, wire::SetMechanismWeights::NAME) {
            let call = wire::SetMechanismWeights::new(netuid, weights);
            self.submit(at, wire::call(wire::SetMechanismWeights::NAME, call), by).await
        } else {
            let call = wire::SetWeights::new(netuid, weights);
            self.submit(at, wire::call(wire::SetWeights::NAME, call), by).await
        }
    }
}

/// Runs `step` within `limit`; a step that takes longer means that the connection is dead.
async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, step).await.unwrap_or_else(|_| Err(Fault::Lost(format!("no answer within {limit:?}"))))
}
