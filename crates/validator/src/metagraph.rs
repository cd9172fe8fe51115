//! Who is on the subnet: the chain's metagraph, refreshed at intervals, for everyone who must know.
//!
//! [`Members`] fails closed: before the first snapshot, and for a hotkey that the latest does not hold, the answer is
//! no. A chain that cannot be reached leaves the last snapshot in place and makes it old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use byteleap_chain::{Chain, ChainError, Metagraph};
use byteleap_daemon::clock::Clock;
use byteleap_protocol::hotkey::Hotkey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One reading of the chain.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// As the chain gave it.
    pub metagraph: Metagraph,
    /// When it was read.
    pub at_ms: i64,
    uids: HashMap<Hotkey, u16>,
}

/// The latest snapshot; cheap to clone.
#[derive(Debug, Clone)]
pub struct Members(watch::Receiver<Option<Arc<Snapshot>>>);

impl Members {
    /// Members that never change, for tests of what stands behind them.
    pub fn fixed(metagraph: Metagraph) -> Self {
        Self(watch::Sender::new(Some(Arc::new(Snapshot::new(metagraph, 0)))).subscribe())
    }

    /// The latest snapshot; none before the first.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.0.borrow().clone()
    }

    /// Whether the hotkey is registered, as far as we know.
    pub fn contains(&self, hotkey: &Hotkey) -> bool {
        self.uid(hotkey).is_some()
    }

    /// The uid of a hotkey, as far as we know.
    pub fn uid(&self, hotkey: &Hotkey) -> Option<u16> {
        self.0.borrow().as_ref()?.uids.get(hotkey).copied()
    }
}

impl Snapshot {
    fn new(metagraph: Metagraph, at_ms: i64) -> Self {
        let uids = metagraph.neurons.iter().map(|neuron| (neuron.hotkey, neuron.uid)).collect();
        Self { metagraph, at_ms, uids }
    }
}

/// Keeps [`Members`] current.
#[derive(Clone)]
pub struct MetagraphCache {
    chain: Arc<dyn Chain>,
    netuid: u16,
    clock: Arc<dyn Clock>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
}

impl MetagraphCache {
    /// A cache without a snapshot.
    pub fn new(chain: Arc<dyn Chain>, netuid: u16, clock: Arc<dyn Clock>) -> Self {
        Self { chain, netuid, clock, snapshots: watch::Sender::new(None) }
    }

    /// The handle that others hold.
    pub fn members(&self) -> Members {
        Members(self.snapshots.subscribe())
    }

    /// Reads the chain once.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, ChainError> {
        let asked = self.clock.monotonic();
        let metagraph = self.chain.metagraph(self.netuid).await?;
        let answered_in = self.clock.monotonic().saturating_sub(asked);
        metrics::histogram!("chain_request_seconds").record(answered_in.as_secs_f64());
        let snapshot = Arc::new(Snapshot::new(metagraph, self.clock.unix_ms()));
        self.snapshots.send_replace(Some(Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// Reads the chain every `interval` until `stop`.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                refreshed = self.refresh() => match refreshed {
                    Ok(snapshot) => tracing::debug!(
                        block = snapshot.metagraph.block,
                        neurons = snapshot.metagraph.neurons.len(),
                        "metagraph refreshed"
                    ),
                    Err(error) => tracing::warn!(%error, "metagraph not refreshed: the last one stays in use"),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use byteleap_chain::FixedChain;
    use byteleap_daemon::clock::ManualClock;

    use super::*;

    const MINER: Hotkey = Hotkey([1; 32]);

    #[tokio::test]
    async fn nobody_is_a_member_before_the_first_snapshot_or_after_deregistration() {
        let chain = Arc::new(FixedChain::of(128, &[MINER]));
        let cache = MetagraphCache::new(chain.clone(), 128, Arc::new(ManualClock::new(0)));
        let members = cache.members();
        assert!(!members.contains(&MINER));
        cache.refresh().await.unwrap();
        assert_eq!(members.uid(&MINER), Some(0));
        chain.change_metagraph(|metagraph| metagraph.neurons[0].hotkey = Hotkey([2; 32]));
        cache.refresh().await.unwrap();
        assert!(!members.contains(&MINER));
    }

    #[tokio::test]
    async fn an_unreachable_chain_leaves_the_last_snapshot() {
        let chain = Arc::new(FixedChain::of(128, &[MINER]));
        let cache = MetagraphCache::new(chain.clone(), 128, Arc::new(ManualClock::new(0)));
        cache.refresh().await.unwrap();
        chain.change_metagraph(|metagraph| metagraph.netuid = 1);
        cache.refresh().await.unwrap_err();
        assert!(cache.members().contains(&MINER));
    }
}
