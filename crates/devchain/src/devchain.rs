//! A running chain: the block clock, the server, and the handle that stops both.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonrpsee::server::ServerHandle;
use parking_lot::RwLock;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use byteleap_chain::timelock::Beacon;

use crate::{
    Genesis,
    dispatch::commit,
    genesis::GenesisError,
    node::Node,
    rpc::{self, Drops},
    store::{Store, StoreError},
};

/// The port of a subtensor node.
const DEFAULT_PORT: u16 = 9944;
/// The time between two blocks of the real chain.
const DEFAULT_BLOCK_TIME: Duration = Duration::from_secs(12);

/// How a chain runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it serves, on loopback; port 0 takes any free port. `None` serves nobody: the chain is reached through its
    /// handle alone.
    pub listen: Option<SocketAddr>,
    /// When blocks are made.
    pub pace: Pace,
    /// Whether the methods `dev_*` are served, with which anyone on this machine rules the chain.
    pub dev_methods: bool,
    /// Whether metadata describes numbers as runtimes did before they had names; their bytes are the same.
    pub old_shape: bool,
    /// The file that keeps the chain from one start to the next; without one it lives in memory alone.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    /// As a real node on this machine: port 9944, a block every 12 seconds.
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))),
            pace: Pace::Every(DEFAULT_BLOCK_TIME),
            dev_methods: false,
            old_shape: false,
            file: None,
        }
    }
}

/// When blocks are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// One after each interval, whether an extrinsic waits or not.
    Every(Duration),
    /// One for each call of [`DevChain::produce_block`]; clients are told a block time of 12 seconds.
    OnCommand,
}

impl Pace {
    fn slot(self) -> Duration {
        match self {
            Self::Every(interval) => interval,
            Self::OnCommand => DEFAULT_BLOCK_TIME,
        }
    }
}

/// Why a chain did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its keys are public and its rules lax: it must not be reached from other machines.
    #[error("the development chain listens on loopback only, not on {0}: use an address such as 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// No time between blocks.
    #[error("the block time must be at least one millisecond")]
    NoBlockTime,
    /// The genesis contradicts itself.
    #[error("the genesis is invalid: {0}")]
    Genesis(#[from] GenesisError),
    /// The file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}; choose another port, or stop what holds this one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A running chain. Dropping it ends its tasks and connections; [`stop`](Self::stop) also waits for their end.
pub struct DevChain {
    pub(crate) node: Arc<RwLock<Node>>,
    pub(crate) slot: Duration,
    address: Option<SocketAddr>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl DevChain {
    /// Makes block 0, or goes on with the chain of the file, and starts the block clock and the server.
    ///
    /// # Errors
    /// The options or the genesis are invalid, the file holds another chain, or the address cannot be bound.
    pub async fn start(genesis: Genesis, options: Options) -> Result<Self, StartError> {
        genesis.check()?;
        let slot = options.pace.slot();
        if slot < Duration::from_millis(1) {
            return Err(StartError::NoBlockTime);
        }
        let mut node = Node::new(&genesis, slot, options.old_shape);
        if let Some(file) = options.file {
            let (store, saved) = Store::open(file, node.blocks().genesis()).await?;
            node.keep_in(store, saved);
        }
        let node = Arc::new(RwLock::new(node));
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut address = None;
        if let Some(wanted) = options.listen {
            let (drops, dropped) = mpsc::channel(1);
            let drops = options.dev_methods.then_some(drops);
            let (bound, server) = listen(node.clone(), wanted, drops.clone()).await?;
            tasks.spawn(keep_serving(node.clone(), bound, server, drops, dropped, cancel.clone()));
            address = Some(bound);
        }
        if let Pace::Every(interval) = options.pace {
            tasks.spawn(cancel.clone().run_until_cancelled_owned(make_blocks(node.clone(), interval)));
        }
        tasks.close();
        Ok(Self { node, slot, address, cancel, tasks })
    }

    /// The address that the chain serves; `None` if it serves nobody.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The URL for clients, as `ws://127.0.0.1:9944`; `None` if the chain serves nobody.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        self.local_addr().map(|address| format!("ws://{address}"))
    }

    /// The chain's own beacon, whose rounds reveal timelocked weights here.
    #[must_use]
    pub fn beacon() -> Beacon {
        commit::beacon()
    }

    /// Makes the next block now, from everything that waits.
    pub fn produce_block(&self) {
        self.node.write().produce_block(now_ms());
    }

    /// Answers one JSON-RPC request with no wire between, as a client would read it; a subscription ends with its answer.
    /// `None` if the text is no request.
    pub async fn answer(&self, request: &str) -> Option<String> {
        rpc::answer(self.node.clone(), request).await
    }

    /// Ends the block clock and the server, and waits until both are gone.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for DevChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevChain").field("url", &self.url()).field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl Drop for DevChain {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn listen(
    node: Arc<RwLock<Node>>,
    address: SocketAddr,
    drops: Option<Drops>,
) -> Result<(SocketAddr, ServerHandle), StartError> {
    if !address.ip().is_loopback() {
        return Err(StartError::NotLoopback(address));
    }
    rpc::serve(node, address, drops).await.map_err(|source| StartError::Listen { address, source })
}

/// Keeps the server up until the chain ends. When a test wants the connections dropped, it stops the server, stays away as
/// long as asked, and serves the same address again.
async fn keep_serving(
    node: Arc<RwLock<Node>>,
    address: SocketAddr,
    mut server: ServerHandle,
    drops: Option<Drops>,
    mut dropped: mpsc::Receiver<Duration>,
    cancel: CancellationToken,
) {
    loop {
        let away = tokio::select! {
            () = cancel.cancelled() => None,
            away = async {
                match &drops {
                    Some(_) => dropped.recv().await,
                    None => std::future::pending().await,
                }
            } => away,
        };
        // An error means that it has already stopped.
        let _ = server.stop();
        server.stopped().await;
        let Some(away) = away else { return };
        if cancel.run_until_cancelled(tokio::time::sleep(away)).await.is_none() {
            return;
        }
        server = match rpc::serve(node.clone(), address, drops.clone()).await {
            Ok((_, server)) => server,
            Err(error) => {
                tracing::error!(%error, %address, "the development chain cannot serve its address again");
                return;
            }
        };
    }
}

/// The block clock. A block that comes late is not made up for.
async fn make_blocks(node: Arc<RwLock<Node>>, interval: Duration) {
    let mut clock = tokio::time::interval(interval);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once; block 0 is there already.
    clock.tick().await;
    loop {
        clock.tick().await;
        let node = node.clone();
        // Dispatch is plain work under the lock: not on a thread that serves clients.
        if let Err(error) = tokio::task::spawn_blocking(move || node.write().produce_block(now_ms())).await {
            tracing::error!(%error, "block production failed, the development chain stands still");
            return;
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
