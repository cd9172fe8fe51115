//! One subnet in memory behind the [`Chain`] trait, for unit tests and benches: its owner decides what the metagraph says
//! and when a block passes, and reads back what daemons sent. It keeps the rules that need no runtime.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::rules::{check_axon, check_rate, check_weights};
use crate::{Block, Chain, ChainError, Epoch, Head, Hotkey, Metagraph, Receipt, Rules, Signer, Weights};

/// Pace that [`FixedChain`] reports; its blocks pass only when told to.
const SLOT: Duration = Duration::from_millis(250);

/// A chain of one subnet whose every change is made by hand.
#[derive(Debug)]
pub struct FixedChain {
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    metagraph: Metagraph,
    rules: Rules,
    /// When each uid last published its axon.
    served: Vec<(u16, Block)>,
    submitted: Vec<(Hotkey, Weights)>,
}

impl FixedChain {
    /// A chain that stands at the metagraph's block.
    #[must_use]
    pub fn new(metagraph: Metagraph, rules: Rules) -> Self {
        let state = State { metagraph, rules, served: Vec::new(), submitted: Vec::new() };
        Self { state: watch::Sender::new(state) }
    }

    /// Lets `blocks` blocks pass and wakes whoever waits for one.
    pub fn advance(&self, blocks: u64) {
        self.state.send_modify(|state| state.metagraph.block += blocks);
    }

    /// Changes what the metagraph says, as a registration or a stake would.
    pub fn change_metagraph(&self, change: impl FnOnce(&mut Metagraph)) {
        self.state.send_modify(|state| change(&mut state.metagraph));
    }

    /// Changes a hyperparameter, as the subnet's owner would.
    pub fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        self.state.send_modify(|state| change(&mut state.rules));
    }

    /// Every vector accepted so far, oldest first, with who sent it.
    #[must_use]
    pub fn submitted(&self) -> Vec<(Hotkey, Weights)> {
        self.state.borrow().submitted.clone()
    }

    /// Applies `change` to the subnet's state if `netuid` is the one that exists.
    fn dispatch<T>(
        &self,
        netuid: u16,
        change: impl FnOnce(&mut State) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        let mut outcome = Err(ChainError::refused("SubnetNotExists"));
        self.state.send_if_modified(|state| {
            if state.metagraph.netuid == netuid {
                outcome = change(state);
            }
            outcome.is_ok()
        });
        outcome
    }

    fn read<T>(&self, netuid: u16, view: impl FnOnce(&State) -> T) -> Result<T, ChainError> {
        let state = self.state.borrow();
        if state.metagraph.netuid == netuid { Ok(view(&state)) } else { Err(ChainError::refused("SubnetNotExists")) }
    }
}

impl State {
    fn head(&self) -> Head {
        Head { block: self.metagraph.block, hash: block_hash(self.metagraph.block), spec: 0, slot: SLOT }
    }

    fn receipt(&self) -> Receipt {
        Receipt { block: self.metagraph.block, hash: block_hash(self.metagraph.block), reveal_round: None }
    }

    fn serve(&mut self, address: SocketAddr, version: u32, by: &Hotkey) -> Result<Option<Receipt>, ChainError> {
        let (now, limit) = (self.metagraph.block, self.rules.serving_rate_limit);
        let receipt = self.receipt();
        let netuid = self.metagraph.netuid;
        let neuron = self
            .metagraph
            .neurons
            .iter_mut()
            .find(|neuron| neuron.hotkey == *by)
            .ok_or(ChainError::NotRegistered(netuid))?;
        if neuron.axon == Some(address) && neuron.axon_version == version {
            return Ok(None);
        }
        if let Some((_, last)) = self.served.iter().find(|(uid, _)| *uid == neuron.uid) {
            check_rate(*last, limit, now)?;
        }
        check_axon(address)?;
        self.served.retain(|(uid, _)| *uid != neuron.uid);
        self.served.push((neuron.uid, now));
        neuron.axon = Some(address);
        neuron.axon_version = version;
        Ok(Some(receipt))
    }

    fn set(&mut self, weights: &Weights, by: &Hotkey) -> Result<Receipt, ChainError> {
        check_weights(weights, by, &self.metagraph, &self.rules)?;
        let now = self.metagraph.block;
        for neuron in self.metagraph.neurons.iter_mut().filter(|neuron| neuron.hotkey == *by) {
            neuron.last_update = now;
        }
        self.submitted.push((*by, weights.clone()));
        Ok(self.receipt())
    }
}

/// A stand-in that differs from block to block.
fn block_hash(block: Block) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&block.to_le_bytes());
    hash
}

#[async_trait]
impl Chain for FixedChain {
    async fn head(&self) -> Result<Head, ChainError> {
        Ok(self.state.borrow().head())
    }

    async fn next_block(&self, after: Block) -> Result<Head, ChainError> {
        let mut changes = self.state.subscribe();
        let state = changes
            .wait_for(|state| state.metagraph.block > after)
            .await
            .map_err(|_| ChainError::Unreachable("the fixed chain is gone".to_owned()))?;
        Ok(state.head())
    }

    async fn metagraph(&self, netuid: u16) -> Result<Metagraph, ChainError> {
        self.read(netuid, |state| state.metagraph.clone())
    }

    async fn rules(&self, netuid: u16) -> Result<Rules, ChainError> {
        self.read(netuid, |state| state.rules)
    }

    async fn epoch(&self, netuid: u16) -> Result<Epoch, ChainError> {
        self.read(netuid, |state| {
            let tempo = u64::from(state.rules.tempo.max(1));
            let block = state.metagraph.block;
            Epoch {
                index: block / tempo,
                last_block: block - block % tempo,
                pending_at: None,
                since_step: block % tempo,
            }
        })
    }

    async fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, ChainError> {
        self.read(netuid, |state| state.metagraph.by_hotkey(hotkey).map(|neuron| neuron.uid))
    }

    async fn serve_axon(
        &self,
        netuid: u16,
        address: SocketAddr,
        version: u32,
        by: &dyn Signer,
    ) -> Result<Option<Receipt>, ChainError> {
        self.dispatch(netuid, |state| state.serve(address, version, &by.hotkey()))
    }

    async fn set_weights(&self, netuid: u16, weights: &Weights, by: &dyn Signer) -> Result<Receipt, ChainError> {
        self.dispatch(netuid, |state| state.set(weights, &by.hotkey()))
    }
}
