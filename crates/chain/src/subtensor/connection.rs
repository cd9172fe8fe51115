//! The line to the chain: one connection at a time over the list of endpoints, dropped when it fails and dialled anew from
//! the next in the list (chain spec 4.5). A connection is taken only if it shows the chain that the first one showed, and
//! kept only as long as its finalised blocks move on and fit those seen before.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex as BriefMutex;
use rand_core::{OsRng, RngCore};
use subxt::SubstrateConfig;
use subxt::rpcs::{RpcClient, rpc_params};
use subxt::utils::H256;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoint::shown;
use super::fault::Fault;
use super::{At, Client, EndpointError, Patience, within};
use crate::{Block, ChainError};

/// A node further behind the highest finalised block seen is not used.
const LARGEST_LAG_BLOCKS: u64 = 20;

/// Longest pause between two rounds over the list.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A live connection to a node.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The same connection, for what reads no state.
    pub(super) rpc: RpcClient,
}

impl Connection {
    /// The hash that this node gives the block of that number; `None` if it knows of none.
    pub(super) async fn block_hash(&self, number: Block) -> Result<Option<H256>, Fault> {
        Ok(self.rpc.request("chain_getBlockHash", rpc_params![number]).await?)
    }
}

/// The endpoints of one chain and the connection in use.
pub(super) struct Endpoints {
    urls: Vec<String>,
    patience: Patience,
    /// Shared by all connections: it caches the metadata of each runtime version, so that a redial need not fetch it.
    config: SubstrateConfig,
    line: Mutex<Line>,
    seen: BriefMutex<Seen>,
}

/// Which endpoint is in use, or when to dial again.
#[derive(Default)]
struct Line {
    connection: Option<Arc<Connection>>,
    /// Index of the endpoint to dial next.
    next: usize,
    /// The chain's identity, fixed by the first connection.
    genesis: Option<H256>,
    /// The last round over the list, if it led nowhere.
    away: Option<Away>,
}

/// A round over the list in which no endpoint would do.
struct Away {
    /// Such rounds in a row.
    rounds: u32,
    why: String,
    /// When the next round may begin.
    until: Instant,
}

/// The highest finalised block seen on any connection, and when it, or the present connection, was new.
#[derive(Clone, Copy)]
struct Seen {
    block: Block,
    hash: H256,
    since: Instant,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(|url| shown(url)).collect();
        f.debug_struct("Endpoints").field("urls", &urls).finish_non_exhaustive()
    }
}

impl Endpoints {
    pub(super) fn new(urls: Vec<String>, patience: Patience) -> Result<Self, EndpointError> {
        if urls.is_empty() {
            return Err(EndpointError::NoNetwork);
        }
        let seen = Seen { block: 0, hash: H256::zero(), since: Instant::now() };
        Ok(Self { urls, patience, config: SubstrateConfig::new(), line: Mutex::default(), seen: BriefMutex::new(seen) })
    }

    /// The same endpoints, with nothing dialled yet, for a caller of other patience.
    pub(super) fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// How long the client waits for what.
    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// The connection in use, or a new one: the list is walked once from the endpoint after the last. Where no endpoint
    /// would do, later calls fail at once until it is time for the next round, so that many callers make no storm.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, ChainError> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok(Arc::clone(connection));
        }
        if let Some(away) = line.away.as_ref().filter(|away| Instant::now() < away.until) {
            return Err(ChainError::Unreachable(away.why.clone()));
        }
        let mut reasons = Vec::new();
        for _ in 0..self.urls.len() {
            let url = &self.urls[line.next];
            line.next = (line.next + 1) % self.urls.len();
            match self.dial(url, line.genesis).await {
                Ok(connection) => {
                    tracing::info!(endpoint = shown(url), "connected to the chain");
                    line.genesis = Some(connection.client.genesis_hash());
                    line.away = None;
                    let connection = Arc::new(connection);
                    line.connection = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(Fault::Chain(error)) => return Err(error),
                Err(Fault::Lost(reason)) => reasons.push(format!("{}: {reason}", shown(url))),
            }
        }
        let (rounds, why) = (line.away.as_ref().map_or(0, |away| away.rounds), reasons.join("; "));
        let until = Instant::now() + pause(self.patience.pause, rounds, OsRng.next_u32());
        line.away = Some(Away { rounds: rounds.saturating_add(1), why: why.clone(), until });
        Err(ChainError::Unreachable(why))
    }

    /// Drops a connection that failed, unless another caller has done so already.
    pub(super) async fn discard(&self, failed: &Arc<Connection>, reason: &str) {
        let mut line = self.line.lock().await;
        if line.connection.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, failed)) {
            tracing::warn!(reason, "lost the connection to the chain");
            line.connection = None;
        }
    }

    /// Compares the finalised block of the present connection with what was seen before, and remembers it.
    pub(super) fn check(&self, at: &At) -> Result<(), Fault> {
        self.see(at.block_number(), at.block_hash(), Instant::now())
    }

    fn see(&self, block: Block, hash: H256, now: Instant) -> Result<(), Fault> {
        let mut seen = self.seen.lock();
        if block > seen.block {
            *seen = Seen { block, hash, since: now };
            return Ok(());
        }
        let behind = seen.block - block;
        let stands = now.saturating_duration_since(seen.since);
        if behind > LARGEST_LAG_BLOCKS {
            Err(Fault::Lost(format!("stands at block {block}, {behind} blocks behind")))
        } else if behind == 0 && seen.hash != H256::zero() && seen.hash != hash {
            Err(Fault::Lost(another_block(block, hash, seen.hash)))
        } else if stands > self.patience.stall {
            Err(Fault::Lost(format!("nothing was finalised after block {block} for {} s", stands.as_secs())))
        } else {
            Ok(())
        }
    }

    /// Connects to `url`, and checks that it is the chain of `genesis`, keeps up with it, and shows the block seen last.
    async fn dial(&self, url: &str, genesis: Option<H256>) -> Result<Connection, Fault> {
        let connection = within(self.patience.dial, async {
            let rpc = RpcClient::from_insecure_url(url).await?;
            let client = Client::from_rpc_client_with_config(self.config.clone(), rpc.clone()).await?;
            Ok(Connection { client, rpc })
        });
        let connection = connection.await?;
        let shown = connection.client.genesis_hash();
        if genesis.is_some_and(|genesis| genesis != shown) {
            return Err(Fault::Lost(format!("another chain (genesis {shown:?})")));
        }
        within(self.patience.call, async {
            let at = connection.client.at_current_block().await?;
            // A new connection is given the time of a new block.
            let seen = {
                let mut seen = self.seen.lock();
                seen.since = Instant::now();
                *seen
            };
            if seen.hash != H256::zero()
                && at.block_number() > seen.block
                && let Some(hash) = connection.block_hash(seen.block).await?
                && hash != seen.hash
            {
                return Err(Fault::Lost(another_block(seen.block, hash, seen.hash)));
            }
            self.check(&at)
        })
        .await?;
        Ok(connection)
    }
}

fn another_block(block: Block, hash: H256, seen: H256) -> String {
    format!("on a fork, or lying: its block {block} is {hash:?}, and {seen:?} was final; restart if you trust it")
}

/// The pause after so many rounds over the list that led nowhere: doubled each time, up to the longest, and spread by a
/// quarter each way, so that the clients of a node that comes back do not all come at once.
fn pause(first: Duration, rounds: u32, random: u32) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(rounds)).min(LONGEST_PAUSE.max(first));
    doubled.mul_f64(0.75 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Endpoints {
        Endpoints::new(vec!["ws://user:key@127.0.0.1:1/key?key".to_owned()], Patience::default()).unwrap()
    }

    #[test]
    fn an_empty_list_is_refused() {
        assert_eq!(Endpoints::new(Vec::new(), Patience::default()).err(), Some(EndpointError::NoNetwork));
    }

    #[test]
    fn access_keys_are_never_shown() {
        assert!(!format!("{:?}", endpoints()).contains("key"));
    }

    #[test]
    fn pauses_double_up_to_half_a_minute_and_differ() {
        let seconds = |rounds, random| pause(Duration::from_secs(1), rounds, random).as_secs_f64();
        assert_eq!([0, 1, 2, 3].map(|rounds| seconds(rounds, 0)), [0.75, 1.5, 3.0, 6.0]);
        assert_eq!([5, 40].map(|rounds| seconds(rounds, u32::MAX)), [37.5, 37.5]);
    }

    #[test]
    fn a_node_that_finalises_nothing_is_left() {
        let (endpoints, start, stall) = (endpoints(), Instant::now(), Patience::default().stall);
        let see = |block: u8, now| endpoints.see(block.into(), H256::repeat_byte(block), now);
        see(7, start).unwrap();
        see(7, start + stall).unwrap();
        let late = start + stall + Duration::from_secs(1);
        let Err(Fault::Lost(why)) = see(7, late) else { panic!("it stood too long") };
        assert_eq!(why, "nothing was finalised after block 7 for 121 s");
        see(8, late).unwrap();
        see(8, late + stall).unwrap();
    }

    #[test]
    fn a_finalised_block_has_one_hash() {
        let (endpoints, now) = (endpoints(), Instant::now());
        endpoints.see(7, H256::repeat_byte(7), now).unwrap();
        let Err(Fault::Lost(why)) = endpoints.see(7, H256::repeat_byte(1), now) else { panic!("another block 7") };
        assert!(why.starts_with("on a fork, or lying: its block 7"), "{why}");
    }

    #[test]
    fn a_node_may_lag_a_little_but_not_much() {
        let (endpoints, now) = (endpoints(), Instant::now());
        endpoints.see(100, H256::repeat_byte(1), now).unwrap();
        endpoints.see(80, H256::repeat_byte(2), now).unwrap();
        assert!(matches!(endpoints.see(79, H256::repeat_byte(3), now), Err(Fault::Lost(_))));
    }
}
