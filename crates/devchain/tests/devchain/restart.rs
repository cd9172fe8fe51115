//! A chain on disk: it goes on where it ended.

use std::path::Path;

use byteleap_chain::{Chain, Subtensor, Weights};
use byteleap_devchain::{DevChain, Options, Pace, StartError, StoreError};
use byteleap_protocol::hotkey::Signer;

use crate::world::{self, NETUID, TAO};

fn options(file: &Path) -> Options {
    let listen = Some(([127, 0, 0, 1], 0).into());
    Options { listen, pace: Pace::OnCommand, file: Some(file.to_owned()), ..Options::default() }
}

async fn start(file: &Path) -> DevChain {
    DevChain::start(world::genesis(world::unhurried()), options(file)).await.unwrap()
}

#[tokio::test]
async fn a_restarted_chain_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.sqlite");
    let chain = start(&file).await;
    let weights = Weights::emit(&[(1, 1.0), (2, 3.0)], 0).unwrap().unwrap();
    let validator = world::validator();
    let setting = chain.set_weights(NETUID, &weights, &validator);
    let (receipt, _) = tokio::join!(setting, async {
        tokio::task::yield_now().await;
        chain.advance(25)
    });
    let receipt = receipt.unwrap();
    chain.set_stake(NETUID, world::miner().hotkey(), 5 * TAO);
    chain.advance(5);
    let (head, metagraph, epoch) =
        (chain.head().await.unwrap(), chain.metagraph(NETUID).await.unwrap(), chain.epoch(NETUID).await.unwrap());
    assert_eq!(epoch.index, 1);
    chain.stop().await;

    let chain = start(&file).await;
    assert_eq!(chain.head().await.unwrap(), head);
    assert_eq!(chain.metagraph(NETUID).await.unwrap(), metagraph);
    assert_eq!(chain.epoch(NETUID).await.unwrap(), epoch);
    let client = Subtensor::new(&[chain.url().unwrap()], false).unwrap();
    assert_eq!(client.weights(NETUID, 0).await.unwrap(), [(1, 21_845), (2, 65_535)]);
    assert_eq!(chain.advance(10), 40);
    let later = chain.epoch(NETUID).await.unwrap();
    assert_eq!((later.index, later.last_block), (2, 40));
    assert!(receipt.block < 26);
    assert!(chain.metagraph(NETUID).await.unwrap().neurons[1].validator_permit, "the epoch saw the stake");
}

#[tokio::test]
async fn a_long_chain_keeps_its_newest_blocks_and_every_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.sqlite");
    let chain = start(&file).await;
    chain.advance(4_200);
    let (head, metagraph) = (chain.head().await.unwrap(), chain.metagraph(NETUID).await.unwrap());
    chain.stop().await;
    let chain = start(&file).await;
    assert_eq!(chain.head().await.unwrap(), head);
    assert_eq!(chain.metagraph(NETUID).await.unwrap(), metagraph);
    let client = Subtensor::new(&[chain.url().unwrap()], false).unwrap();
    assert_eq!(client.head().await.unwrap().block, 4_200);
}

#[tokio::test]
async fn the_file_of_another_chain_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.sqlite");
    start(&file).await.stop().await;
    let mut other = world::genesis(world::unhurried());
    other.stake_threshold_rao = 1;
    let refused = DevChain::start(other, options(&file)).await;
    assert!(matches!(refused, Err(StartError::Store(StoreError::OtherGenesis(_)))));
}

#[tokio::test]
async fn a_file_that_is_no_chain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.sqlite");
    std::fs::write(&file, "not a database, but long enough to be looked at as if it were one".repeat(99)).unwrap();
    let refused = DevChain::start(world::genesis(world::unhurried()), options(&file)).await;
    let Err(StartError::Store(error)) = refused else { panic!("it is no database") };
    assert!(error.to_string().contains("chain.sqlite"), "{error}");
}
