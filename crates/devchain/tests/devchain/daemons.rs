//! The chain as daemons hold it. Every promise is kept twice: by the real client over the RPC, and by the chain in process.

use std::{sync::Arc, time::Duration};

use byteleap_chain::{Chain, ChainError, Keypair, Signer, Subtensor, Weights};
use byteleap_devchain::{DevChain, Pace, genesis::Hyperparameters};

use crate::world::{self, NETUID, TAO};

/// Fast enough for tests, and slow enough that an era of the client, 64 blocks, outlasts the stalls of a busy machine.
const BLOCK_TIME: Duration = Duration::from_millis(100);

/// A running network, and the two ways to hold it.
struct Network {
    chain: Arc<dyn Chain>,
    /// Reads back what was set, whoever set it.
    client: Subtensor,
    _running: Arc<DevChain>,
}

impl Network {
    async fn start(hyperparameters: Hyperparameters, over_the_wire: bool) -> Self {
        let running = Arc::new(world::start(world::genesis(hyperparameters), Pace::Every(BLOCK_TIME)).await);
        let client = || {
            let client = Subtensor::new(&[running.url().expect("it serves")], false).expect("a loopback URL");
            client.with_beacon(DevChain::beacon())
        };
        let chain: Arc<dyn Chain> = if over_the_wire { Arc::new(client()) } else { running.clone() };
        Self { chain, client: client(), _running: running }
    }
}

fn weights(pairs: &[(u16, f64)], version_key: u64) -> Weights {
    Weights::emit(pairs, version_key).expect("finite").expect("positive")
}

fn refused(name: &str) -> ChainError {
    ChainError::Refused { pallet: "SubtensorModule".into(), name: name.into() }
}

/// Makes of each function `promise(network)` two tests.
macro_rules! kept_by_both {
    ($($promise:ident under $rules:expr;)+) => {
        mod by_the_client {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Network::start($rules, true).await).await;
            })+
        }
        mod in_process {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Network::start($rules, false).await).await;
            })+
        }
    };
}

kept_by_both! {
    blocks_are_followed under crate::world::unhurried();
    the_metagraph_lists_every_neuron under crate::world::unhurried();
    the_rules_are_those_of_the_genesis under crate::world::unhurried();
    epochs_are_counted under byteleap_devchain::genesis::Hyperparameters { tempo_blocks: 3, ..crate::world::unhurried() };
    a_uid_is_found_by_its_hotkey under crate::world::unhurried();
    weights_land_and_are_read_back under crate::world::unhurried();
    sealed_weights_are_revealed_with_their_epoch under
        byteleap_devchain::genesis::Hyperparameters { commit_reveal: true, tempo_blocks: 40, ..crate::world::unhurried() };
    sealed_weights_too_soon_tell_the_wait under
        byteleap_devchain::genesis::Hyperparameters {
            commit_reveal: true,
            weights_rate_limit_blocks: 1000,
            ..crate::world::unhurried()
        };
    sealed_weights_keep_the_same_rules under
        byteleap_devchain::genesis::Hyperparameters { commit_reveal: true, ..crate::world::unhurried() };
    weights_are_set_again_and_again under crate::world::unhurried();
    an_axon_is_served_once under crate::world::unhurried();
    an_unknown_subnet_is_refused under crate::world::unhurried();
    a_stranger_is_not_registered under crate::world::unhurried();
    a_miner_has_no_permit under crate::world::unhurried();
    weights_too_soon_tell_the_wait under
        byteleap_devchain::genesis::Hyperparameters { weights_rate_limit_blocks: 1000, ..crate::world::unhurried() };
    an_old_version_key_is_refused under
        byteleap_devchain::genesis::Hyperparameters { weights_version: 7, ..crate::world::unhurried() };
    too_few_weights_are_refused under
        byteleap_devchain::genesis::Hyperparameters { min_allowed_weights: 3, ..crate::world::unhurried() };
    a_uid_that_nobody_holds_is_refused under crate::world::unhurried();
}

async fn blocks_are_followed(network: Network) {
    let head = network.chain.head().await.unwrap();
    assert_eq!(head.slot, BLOCK_TIME);
    let next = network.chain.next_block(head.block + 2).await.unwrap();
    assert!(next.block > head.block + 2);
    assert_ne!(next.hash, head.hash);
}

async fn the_metagraph_lists_every_neuron(network: Network) {
    let metagraph = network.chain.metagraph(NETUID).await.unwrap();
    let hotkeys: Vec<_> = metagraph.neurons.iter().map(|neuron| neuron.hotkey).collect();
    assert_eq!(hotkeys, [world::validator(), world::miner(), world::other_miner()].map(|key| key.hotkey()));
    let columns: Vec<_> = metagraph
        .neurons
        .iter()
        .map(|neuron| (neuron.uid, neuron.total_stake, neuron.validator_permit, neuron.active, neuron.axon))
        .collect();
    assert_eq!(columns, [(0, 1000 * TAO, true, true, None), (1, 0, false, true, None), (2, 0, false, true, None)]);
    assert!(metagraph.neurons.iter().all(|neuron| neuron.coldkey == world::coldkey().hotkey().0));
}

async fn the_rules_are_those_of_the_genesis(network: Network) {
    let rules = network.chain.rules(NETUID).await.unwrap();
    let genesis = world::unhurried();
    assert_eq!(rules.tempo, genesis.tempo_blocks);
    assert_eq!(rules.immunity_period, genesis.immunity_period_blocks);
    assert_eq!(rules.min_allowed_weights, genesis.min_allowed_weights);
    assert_eq!(rules.max_weight_limit, genesis.max_weight_limit);
    assert_eq!(rules.weights_version, genesis.weights_version);
    assert_eq!(rules.weights_rate_limit, genesis.weights_rate_limit_blocks);
    assert_eq!(rules.serving_rate_limit, genesis.serving_rate_limit_blocks);
    assert_eq!(rules.commit_reveal, genesis.commit_reveal);
    assert_eq!(rules.max_uids, genesis.max_neurons);
}

async fn epochs_are_counted(network: Network) {
    network.chain.next_block(6).await.unwrap();
    let epoch = network.chain.epoch(NETUID).await.unwrap();
    assert!(epoch.index >= 2);
    assert_eq!(epoch.last_block, 3 * epoch.index);
    assert!(epoch.since_step < 3);
    assert_eq!(epoch.pending_at, None);
}

async fn a_uid_is_found_by_its_hotkey(network: Network) {
    assert_eq!(network.chain.uid(NETUID, &world::miner().hotkey()).await.unwrap(), Some(1));
    assert_eq!(network.chain.uid(NETUID, &world::stranger().hotkey()).await.unwrap(), None);
}

async fn weights_land_and_are_read_back(network: Network) {
    let before = network.chain.head().await.unwrap();
    let receipt =
        network.chain.set_weights(NETUID, &weights(&[(1, 1.0), (2, 3.0)], 0), &world::validator()).await.unwrap();
    assert!(receipt.block > before.block);
    assert_eq!(receipt.reveal_round, None);
    assert_eq!(network.client.weights(NETUID, 0).await.unwrap(), [(1, 21_845), (2, 65_535)]);
    let metagraph = network.chain.metagraph(NETUID).await.unwrap();
    assert_eq!(metagraph.neurons[0].last_update, receipt.block);
}

async fn sealed_weights_are_revealed_with_their_epoch(network: Network) {
    network.chain.next_block(0).await.unwrap();
    let vector = weights(&[(1, 1.0), (2, 3.0)], 0);
    let receipt = network.chain.set_weights(NETUID, &vector, &world::validator()).await.unwrap();
    assert!(receipt.reveal_round.is_some());
    assert_eq!(network.client.weights(NETUID, 0).await.unwrap(), [], "nothing is read before the reveal");
    let metagraph = network.chain.metagraph(NETUID).await.unwrap();
    assert_eq!(metagraph.neurons[0].last_update, receipt.block, "the commit counts as the update");

    // The commit's epoch ends within 40 blocks. The next one lasts 4 seconds, within which a round of 3 seconds is out.
    let mut head = network.chain.head().await.unwrap();
    while head.block < receipt.block + 80 && network.client.weights(NETUID, 0).await.unwrap().is_empty() {
        head = network.chain.next_block(head.block).await.unwrap();
    }
    assert_eq!(network.client.weights(NETUID, 0).await.unwrap(), [(1, 21_845), (2, 65_535)]);
    let metagraph = network.chain.metagraph(NETUID).await.unwrap();
    assert_eq!(metagraph.neurons[0].last_update, receipt.block, "the reveal does not");
}

async fn sealed_weights_too_soon_tell_the_wait(network: Network) {
    network.chain.next_block(0).await.unwrap();
    let set = async || network.chain.set_weights(NETUID, &weights(&[(1, 1.0)], 0), &world::validator()).await;
    set().await.unwrap();
    assert!(matches!(set().await, Err(ChainError::TooSoon(900..=1001))));
}

async fn sealed_weights_keep_the_same_rules(network: Network) {
    network.chain.next_block(0).await.unwrap();
    let set = async |key: Keypair, pairs: &[_]| network.chain.set_weights(NETUID, &weights(pairs, 0), &key).await;
    assert_eq!(set(world::stranger(), &[(1, 1.0)]).await, Err(ChainError::NotRegistered(NETUID)));
    assert_eq!(set(world::miner(), &[(0, 1.0)]).await, Err(refused("NeuronNoValidatorPermit")));
    assert_eq!(set(world::validator(), &[(1, 1.0), (3, 1.0)]).await, Err(refused("UidVecContainInvalidOne")));
}

async fn weights_are_set_again_and_again(network: Network) {
    for uid in [1, 2, 1] {
        network.chain.set_weights(NETUID, &weights(&[(uid, 1.0)], 0), &world::validator()).await.unwrap();
        assert_eq!(network.client.weights(NETUID, 0).await.unwrap(), [(uid, 65_535)]);
        // The client waits one block more than the chain demands.
        let head = network.chain.head().await.unwrap();
        network.chain.next_block(head.block).await.unwrap();
    }
}

async fn an_axon_is_served_once(network: Network) {
    let address = "192.0.2.1:8091".parse().unwrap();
    let receipt = network.chain.serve_axon(NETUID, address, 9_010_000, &world::miner()).await.unwrap();
    assert!(receipt.is_some());
    let neuron = network.chain.metagraph(NETUID).await.unwrap().neurons[1].clone();
    assert_eq!((neuron.axon, neuron.axon_version), (Some(address), 9_010_000));
    let again = network.chain.serve_axon(NETUID, address, 9_010_000, &world::miner()).await.unwrap();
    assert_eq!(again, None, "the chain holds it already");
}

async fn an_unknown_subnet_is_refused(network: Network) {
    assert_eq!(network.chain.metagraph(NETUID + 1).await, Err(refused("SubnetNotExists")));
    let set = network.chain.set_weights(NETUID + 1, &weights(&[(1, 1.0)], 0), &world::validator()).await;
    assert_eq!(set, Err(refused("SubnetNotExists")));
}

async fn a_stranger_is_not_registered(network: Network) {
    let set = network.chain.set_weights(NETUID, &weights(&[(1, 1.0)], 0), &world::stranger()).await;
    assert_eq!(set, Err(ChainError::NotRegistered(NETUID)));
    let address = "192.0.2.1:8091".parse().unwrap();
    let served = network.chain.serve_axon(NETUID, address, 1, &world::stranger()).await;
    assert_eq!(served, Err(ChainError::NotRegistered(NETUID)));
}

async fn a_miner_has_no_permit(network: Network) {
    let set = network.chain.set_weights(NETUID, &weights(&[(0, 1.0)], 0), &world::miner()).await;
    assert_eq!(set, Err(refused("NeuronNoValidatorPermit")));
}

async fn weights_too_soon_tell_the_wait(network: Network) {
    let set = async || network.chain.set_weights(NETUID, &weights(&[(1, 1.0)], 0), &world::validator()).await;
    set().await.unwrap();
    assert!(matches!(set().await, Err(ChainError::TooSoon(900..=1001))));
}

async fn an_old_version_key_is_refused(network: Network) {
    let set = async |key| network.chain.set_weights(NETUID, &weights(&[(1, 1.0)], key), &world::validator()).await;
    assert_eq!(set(6).await, Err(refused("IncorrectWeightVersionKey")));
    set(7).await.unwrap();
}

async fn too_few_weights_are_refused(network: Network) {
    let set = async |pairs: &[_]| network.chain.set_weights(NETUID, &weights(pairs, 0), &world::validator()).await;
    assert_eq!(set(&[(1, 1.0), (2, 1.0)]).await, Err(refused("WeightVecLengthIsLow")));
    set(&[(0, 1.0), (1, 1.0), (2, 1.0)]).await.unwrap();
}

async fn a_uid_that_nobody_holds_is_refused(network: Network) {
    let set = network.chain.set_weights(NETUID, &weights(&[(1, 1.0), (3, 1.0)], 0), &world::validator()).await;
    assert_eq!(set, Err(refused("UidVecContainInvalidOne")));
}
