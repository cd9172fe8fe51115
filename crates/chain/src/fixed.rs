//! One subnet in memory behind the [`Chain`] trait, for unit tests and benches: its owner decides what the metagraph says
//! and when a block passes, and reads back what daemons sent. It keeps the rules that need no runtime.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::rules::{check_axon, check_rate, check_weights};
use crate::{
    Block, Chain, ChainError, Epoch, Head, Hotkey, Metagraph, Neuron, Receipt, Rules, Signer, WeightMatrix, Weights,
    consensus,
};

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

    /// A subnet at block 1 whose rules let everything through: `hotkeys` take the uids from 0, the first of them owns the
    /// subnet, and each is its own coldkey and holds stake and a permit.
    #[must_use]
    pub fn of(netuid: u16, hotkeys: &[Hotkey]) -> Self {
        let neurons = (0..).zip(hotkeys).map(|(uid, hotkey)| unremarkable(uid, *hotkey)).collect();
        let owner_hotkey = hotkeys.first().copied().unwrap_or(Hotkey([0; 32]));
        let rules = Rules {
            tempo: 10,
            immunity_period: 0,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            weights_version: 0,
            weights_rate_limit: 0,
            serving_rate_limit: 0,
            admin_freeze_window: 10,
            stake_threshold: 0,
            commit_reveal: false,
            reveal_period: 1,
            max_uids: 256,
        };
        Self::new(Metagraph { netuid, block: 1, owner_hotkey, neurons }, rules)
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
        check_axon(address)?;
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
        self.served.retain(|(uid, _)| *uid != neuron.uid);
        self.served.push((neuron.uid, now));
        neuron.axon = Some(address);
        neuron.axon_version = version;
        Ok(Some(receipt))
    }

    fn set(&mut self, weights: &Weights, by: &Hotkey) -> Result<Receipt, ChainError> {
        if self.rules.commit_reveal {
            return Err(ChainError::Unsupported("the fixed chain has no beacon that would reveal weights".to_owned()));
        }
        check_weights(weights, by, &self.metagraph, &self.rules)?;
        let now = self.metagraph.block;
        for neuron in self.metagraph.neurons.iter_mut().filter(|neuron| neuron.hotkey == *by) {
            neuron.last_update = now;
        }
        self.submitted.push((*by, weights.clone()));
        Ok(self.receipt())
    }
}

/// A neuron with nothing special about it.
fn unremarkable(uid: u16, hotkey: Hotkey) -> Neuron {
    Neuron {
        uid,
        hotkey,
        coldkey: hotkey.0,
        axon: None,
        axon_version: 0,
        alpha_stake: 1_000_000_000,
        total_stake: 1_000_000_000,
        validator_permit: true,
        active: true,
        last_update: 0,
        registered_at: 0,
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

    async fn weight_matrix(&self, netuid: u16) -> Result<WeightMatrix, ChainError> {
        self.read(netuid, |state| {
            let sent = state.submitted.iter().filter_map(|(hotkey, weights)| {
                Some((state.metagraph.by_hotkey(hotkey)?.uid, weights.pairs().collect()))
            });
            let rows = sent.collect();
            let consensus = consensus(&state.metagraph.neurons, &rows);
            WeightMatrix { block: state.metagraph.block, rows, consensus }
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::keypair_from_uri;
    use crate::{Keypair, Weights};

    const NETUID: u16 = 128;

    fn alice() -> Keypair {
        keypair_from_uri("//Alice").unwrap()
    }

    fn bob() -> Keypair {
        keypair_from_uri("//Bob").unwrap()
    }

    fn chain() -> FixedChain {
        FixedChain::of(NETUID, &[alice().hotkey(), bob().hotkey()])
    }

    fn weights() -> Weights {
        Weights::emit(&[(0, 1.0), (1, 3.0)], 0).unwrap().unwrap()
    }

    #[tokio::test]
    async fn accepted_weights_are_kept_with_their_sender() {
        let chain = chain();
        chain.set_weights(NETUID, &weights(), &bob()).await.unwrap();
        assert_eq!(chain.submitted(), [(bob().hotkey(), weights())]);
        assert_eq!(chain.metagraph(NETUID).await.unwrap().neurons[1].last_update, 1);
    }

    #[tokio::test]
    async fn the_rate_limit_runs_in_blocks() {
        let chain = chain();
        chain.change_rules(|rules| rules.weights_rate_limit = 5);
        chain.set_weights(NETUID, &weights(), &bob()).await.unwrap();
        chain.advance(2);
        assert_eq!(chain.set_weights(NETUID, &weights(), &bob()).await, Err(ChainError::TooSoon(4)));
        chain.advance(4);
        chain.set_weights(NETUID, &weights(), &bob()).await.unwrap();
        assert_eq!(chain.submitted().len(), 2);
    }

    #[tokio::test]
    async fn refused_weights_leave_no_trace() {
        let chain = chain();
        chain.change_metagraph(|metagraph| metagraph.neurons[1].validator_permit = false);
        let refused = chain.set_weights(NETUID, &weights(), &bob()).await;
        assert_eq!(refused, Err(ChainError::refused("NeuronNoValidatorPermit")));
        assert!(chain.submitted().is_empty());
    }

    #[tokio::test]
    async fn a_block_wakes_whoever_waits_for_it() {
        let chain = chain();
        assert_eq!(chain.next_block(0).await.unwrap().block, 1);
        let (head, ()) = tokio::join!(chain.next_block(1), async { chain.advance(2) });
        assert_eq!(head.unwrap().block, 3);
    }

    #[tokio::test]
    async fn an_axon_appears_in_the_metagraph_and_is_not_sent_twice() {
        let chain = chain();
        let address = "10.0.0.1:8091".parse().unwrap();
        assert!(chain.serve_axon(NETUID, address, 1, &alice()).await.unwrap().is_some());
        assert_eq!(chain.metagraph(NETUID).await.unwrap().neurons[0].axon, Some(address));
        assert_eq!(chain.serve_axon(NETUID, address, 1, &alice()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn another_subnet_does_not_exist() {
        assert_eq!(chain().metagraph(1).await, Err(ChainError::refused("SubnetNotExists")));
        assert_eq!(chain().uid(NETUID, &bob().hotkey()).await, Ok(Some(1)));
    }
}
