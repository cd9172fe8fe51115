//! Blocks, state and subscriptions over the RPC.

use byteleap_chain::{Chain, Subtensor};
use byteleap_devchain::{DevChain, Options, Pace, StartError};
use byteleap_protocol::hotkey::{Keypair, Signer};
use serde_json::{Value, json};
use subxt::{
    SubstrateConfig, dynamic,
    rpcs::{Error as ClientError, rpc_params},
    utils::{AccountId32, MultiSignature},
};

use crate::{
    handmade::{Handmade, set_weights},
    world::{self, NETUID, Outcome, World},
};

/// Lets `subxt` sign with our key pair.
struct By(Keypair);

impl subxt::transactions::Signer<SubstrateConfig> for By {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.hotkey().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload).0)
    }
}

#[tokio::test]
async fn subxt_alone_sets_weights_and_reads_them_back() {
    let world = World::under(world::unhurried()).await;
    let call = dynamic::tx(
        "SubtensorModule",
        "set_mechanism_weights",
        (NETUID, 0_u8, vec![1_u16, 2], vec![21_845_u16, 65_535], 0_u64),
    );
    let mut transactions = world.client.tx().await.unwrap();
    let progress = transactions.sign_and_submit_then_watch_default(&call, &By(world::validator())).await.unwrap();
    world.produce_blocks(1);
    progress.wait_for_finalized_success().await.unwrap();
    assert_eq!(world.weights(0).await, [(1, 21_845), (2, 65_535)]);
    let client = Subtensor::new(&[world.chain.url().unwrap()], false).unwrap();
    let matrix = client.weight_matrix(NETUID).await.unwrap();
    assert_eq!(matrix.rows, [(0, vec![(1, 21_845), (2, 65_535)])].into());
    assert_eq!(matrix.consensus[..3], [0, 16_384, 49_151], "the only validator's shares");
}

#[tokio::test]
async fn state_at_an_earlier_block_is_what_it_was() {
    let world = World::under(world::unhurried()).await;
    let before = world.client.at_current_block().await.unwrap();
    let extrinsic = Handmade::new(&world, set_weights(&[1], &[1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);

    let address = dynamic::storage::<(u16, u16), Vec<(u16, u16)>>("SubtensorModule", "Weights");
    let then = before.storage().fetch(address, (NETUID, 0)).await.unwrap().decode().unwrap();
    assert_eq!(then, []);
    assert_eq!(world.weights(0).await, [(1, 65_535)]);
}

#[tokio::test]
async fn a_header_hashes_to_the_hash_that_names_it() {
    let world = World::under(world::unhurried()).await;
    world.produce_blocks(3);
    let at = world.client.at_current_block().await.unwrap();
    // subxt hashes the header by itself.
    let header = at.block_header().await.unwrap();
    assert_eq!(header.number, 3);
    let parent: String = world.rpc.request("chain_getBlockHash", rpc_params![2]).await.unwrap();
    assert_eq!(json!(header.parent_hash), json!(parent));
    let future: Option<String> = world.rpc.request("chain_getBlockHash", rpc_params![4]).await.unwrap();
    assert_eq!(future, None);
}

#[tokio::test]
async fn heads_come_one_by_one_from_the_present_on() {
    let world = World::under(world::unhurried()).await;
    world.produce_blocks(2);
    let mut heads = world
        .rpc
        .subscribe::<Value>("chain_subscribeFinalizedHeads", rpc_params![], "chain_unsubscribeFinalizedHeads")
        .await
        .unwrap();
    let mut numbers = vec![heads.next().await.unwrap().unwrap()["number"].clone()];
    world.produce_blocks(3);
    for _ in 0..3 {
        numbers.push(heads.next().await.unwrap().unwrap()["number"].clone());
    }
    assert_eq!(numbers, ["0x2", "0x3", "0x4", "0x5"]);
}

#[tokio::test]
async fn an_unknown_block_or_runtime_call_is_an_error_of_the_client() {
    let world = World::under(world::unhurried()).await;
    let unknown = format!("0x{}", "11".repeat(32));
    for (method, parameters, message) in [
        ("state_getStorage", rpc_params!["0x00", unknown], "UnknownBlock"),
        ("state_call", rpc_params!["NoApi_no_method", "0x"], "Exported method NoApi_no_method is not found"),
        ("state_call", rpc_params!["AccountNonceApi_account_nonce", "0x00"], "Bad input data"),
    ] {
        match world.rpc.request::<Value>(method, parameters).await {
            Err(ClientError::User(error)) => {
                assert_eq!(error.code, 4003);
                assert!(error.message.contains(message), "{}", error.message);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_the_plain_methods_are_offered() {
    let world = World::under(world::unhurried()).await;
    let offered: Value = world.rpc.request("rpc_methods", rpc_params![]).await.unwrap();
    let methods: Vec<&str> = offered["methods"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(methods.contains(&"author_submitAndWatchExtrinsic"));
    assert!(!methods.iter().any(|name| name.starts_with("chainHead_") || name.starts_with("archive_")));
}

#[tokio::test]
async fn the_keys_of_a_map_come_in_pages() {
    let world = World::under(world::unhurried()).await;
    let at = world.client.at_current_block().await.unwrap();
    let uids = dynamic::storage::<(u16, AccountId32), u16>("SubtensorModule", "Uids");
    let mut entries = at.storage().iter(uids, ()).await.unwrap();
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        found.push(entry.unwrap().value().decode().unwrap());
    }
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
}

#[tokio::test]
async fn the_chain_is_not_served_beyond_this_machine() {
    let options = Options { listen: Some(([0, 0, 0, 0], 0).into()), pace: Pace::OnCommand, ..Options::default() };
    let refused = DevChain::start(world::genesis(world::unhurried()), options).await;
    assert!(matches!(refused, Err(StartError::NotLoopback(_))));
}

#[tokio::test]
async fn a_genesis_that_no_calls_could_have_made_is_refused() {
    let mut genesis = world::genesis(world::unhurried());
    genesis.subnets[0].neurons[2].hotkey = world::miner().hotkey();
    let options = Options { listen: None, pace: Pace::OnCommand, ..Options::default() };
    let refused = DevChain::start(genesis, options).await;
    assert!(matches!(refused, Err(StartError::Genesis(_))));
}

#[tokio::test]
async fn a_stopped_chain_gives_back_its_port() {
    let world = World::under(world::unhurried()).await;
    let address = world.chain.local_addr();
    world.chain.stop().await;
    let options = Options { listen: address, pace: Pace::OnCommand, ..Options::default() };
    DevChain::start(world::genesis(world::unhurried()), options).await.unwrap();
}
