//! The way to a node: network names, the list of endpoints, and one connection at a time that is dropped when it fails
//! and dialled anew (chain spec 4.5). Every connection must show the chain that the first one showed.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use subxt::SubstrateConfig;
use subxt::rpcs::utils::url_is_secure;
use subxt::utils::H256;
use tokio::sync::Mutex;

use super::fault::Fault;
use super::{CALL_LIMIT, Client, within};
use crate::{Block, ChainError};

/// Limit of one dial; a dead host must not hold up the next in the list.
const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// A node further behind the highest finalised block seen is not used.
const LARGEST_LAG_BLOCKS: u64 = 20;

/// Network names as in the official tools.
const NETWORKS: [(&str, &str); 3] = [
    ("finney", "wss://entrypoint-finney.opentensor.ai:443"),
    ("test", "wss://test.finney.opentensor.ai:443"),
    ("archive", "wss://archive.chain.opentensor.ai:443"),
];

/// Environment variable that moves the network `local` elsewhere.
const LOCAL_ENDPOINT: &str = "BT_SUBTENSOR_CHAIN_ENDPOINT";

/// Where the network `local` is otherwise.
const LOCAL_URL: &str = "ws://127.0.0.1:9944";

/// A configured network that names no usable endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither a known name nor a URL.
    #[error("unknown network {0:?}: use finney, test, archive, local, or a URL as wss://host:port")]
    UnknownNetwork(String),
    /// A text with a scheme that is no WebSocket URL.
    #[error("{0} is no WebSocket URL: write wss://host:port, or ws:// for this machine")]
    BadUrl(String),
    /// Plain text to another machine.
    #[error("{0} is not encrypted and not on this machine: use wss://, or set allow_insecure")]
    Insecure(String),
    /// No endpoint at all.
    #[error("no network is configured")]
    NoNetwork,
}

/// The URL behind a network name or URL. `ws://` is accepted for loopback only, unless `allow_insecure`.
///
/// # Errors
/// [`EndpointError`] for an unknown name, a malformed or an insecure URL.
pub fn resolve(network: &str, allow_insecure: bool) -> Result<String, EndpointError> {
    let url = match NETWORKS.iter().find(|(name, _)| *name == network) {
        Some((_, url)) => (*url).to_owned(),
        None if network == "local" => env::var(LOCAL_ENDPOINT).unwrap_or_else(|_| LOCAL_URL.to_owned()),
        None if network.contains("://") => network.to_owned(),
        None => return Err(EndpointError::UnknownNetwork(network.to_owned())),
    };
    if !(url.starts_with("wss://") || url.starts_with("ws://")) {
        return Err(EndpointError::BadUrl(shown(&url)));
    }
    match url_is_secure(&url) {
        Err(_) => Err(EndpointError::BadUrl(shown(&url))),
        Ok(false) if !allow_insecure => Err(EndpointError::Insecure(shown(&url))),
        Ok(_) => Ok(url),
    }
}

/// What logs and errors show of a URL: scheme, host and port. User parts, paths and queries carry access keys.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}")
}

/// The endpoints of one chain and the connection in use.
pub(super) struct Endpoints {
    urls: Vec<String>,
    /// Shared by all connections: it caches the metadata of each runtime version, so that a redial need not fetch it.
    config: SubstrateConfig,
    line: Mutex<Line>,
    /// Highest finalised block seen on any connection.
    highest: AtomicU64,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(|url| shown(url)).collect();
        f.debug_struct("Endpoints").field("urls", &urls).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Line {
    client: Option<Arc<Client>>,
    /// Index of the endpoint to dial next.
    next: usize,
    /// The chain's identity, fixed by the first connection.
    genesis: Option<H256>,
}

impl Endpoints {
    pub(super) fn new(urls: Vec<String>) -> Result<Self, EndpointError> {
        if urls.is_empty() {
            return Err(EndpointError::NoNetwork);
        }
        Ok(Self { urls, config: SubstrateConfig::new(), line: Mutex::default(), highest: AtomicU64::new(0) })
    }

    /// The connection in use, or a new one: the list is walked once from the endpoint after the last.
    pub(super) async fn client(&self) -> Result<Arc<Client>, ChainError> {
        let mut line = self.line.lock().await;
        if let Some(client) = &line.client {
            return Ok(Arc::clone(client));
        }
        let mut reasons = Vec::new();
        for _ in 0..self.urls.len() {
            let url = &self.urls[line.next];
            line.next = (line.next + 1) % self.urls.len();
            match self.dial(url, line.genesis).await {
                Ok(client) => {
                    tracing::info!(endpoint = shown(url), "connected to the chain");
                    line.genesis = Some(client.genesis_hash());
                    let client = Arc::new(client);
                    line.client = Some(Arc::clone(&client));
                    return Ok(client);
                }
                Err(Fault::Chain(error)) => return Err(error),
                Err(Fault::Lost(reason)) => reasons.push(format!("{}: {reason}", shown(url))),
            }
        }
        Err(ChainError::Unreachable(reasons.join("; ")))
    }

    /// Drops a connection that failed, unless another caller has done so already.
    pub(super) async fn discard(&self, failed: &Arc<Client>, reason: &str) {
        let mut line = self.line.lock().await;
        if line.client.as_ref().is_some_and(|client| Arc::ptr_eq(client, failed)) {
            tracing::warn!(reason, "lost the connection to the chain");
            line.client = None;
        }
    }

    /// Remembers the height of the chain.
    pub(super) fn saw(&self, block: Block) {
        self.highest.fetch_max(block, Ordering::Relaxed);
    }

    /// Connects to `url`, and checks that it is the chain of `genesis` and keeps up with it.
    async fn dial(&self, url: &str, genesis: Option<H256>) -> Result<Client, Fault> {
        let connect = Client::from_insecure_url_with_config(self.config.clone(), url);
        let client = within(DIAL_LIMIT, async { Ok(connect.await?) }).await?;
        if genesis.is_some_and(|genesis| genesis != client.genesis_hash()) {
            return Err(Fault::Lost(format!("another chain (genesis {:?})", client.genesis_hash())));
        }
        let block = within(CALL_LIMIT, async { Ok(client.at_current_block().await?.block_number()) }).await?;
        let behind = self.highest.load(Ordering::Relaxed).saturating_sub(block);
        if behind > LARGEST_LAG_BLOCKS {
            return Err(Fault::Lost(format!("stands at block {block}, {behind} blocks behind")));
        }
        self.saw(block);
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_official_tools() {
        assert_eq!(resolve("finney", false).unwrap(), "wss://entrypoint-finney.opentensor.ai:443");
        assert_eq!(resolve("test", false).unwrap(), "wss://test.finney.opentensor.ai:443");
        assert_eq!(resolve("archive", false).unwrap(), "wss://archive.chain.opentensor.ai:443");
        assert!(matches!(resolve("mainnet", false), Err(EndpointError::UnknownNetwork(_))));
    }

    #[test]
    fn a_url_is_taken_as_it_is() {
        for url in ["wss://node.example:9944", "ws://127.0.0.1:1", "ws://localhost:9944", "ws://[::1]:9944"] {
            assert_eq!(resolve(url, false).unwrap(), url);
        }
    }

    #[test]
    fn plain_text_leaves_this_machine_only_when_allowed() {
        let url = "ws://node.example:9944";
        assert_eq!(resolve(url, false), Err(EndpointError::Insecure(url.to_owned())));
        assert_eq!(resolve(url, true).unwrap(), url);
    }

    #[test]
    fn other_schemes_are_refused() {
        for url in ["http://127.0.0.1:9944", "ws://", "ftp://node"] {
            assert!(matches!(resolve(url, true), Err(EndpointError::BadUrl(_))), "{url}");
        }
    }

    #[test]
    fn access_keys_in_a_url_are_never_shown() {
        let url = "ws://user:key@node.example:9944/key?key=key#key";
        assert_eq!(resolve(url, false), Err(EndpointError::Insecure("ws://node.example:9944".to_owned())));
        let endpoints = Endpoints::new(vec![resolve(url, true).unwrap()]).unwrap();
        assert!(!format!("{endpoints:?}").contains("key"), "{endpoints:?}");
    }

    #[test]
    fn an_empty_list_is_refused() {
        assert_eq!(Endpoints::new(Vec::new()).err(), Some(EndpointError::NoNetwork));
    }
}
