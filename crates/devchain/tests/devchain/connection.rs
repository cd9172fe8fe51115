//! The client when its connection fails or its node lies: it dials again, takes the next endpoint, refuses a stranger's
//! chain, finds what it lost sight of, and never sends it twice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use byteleap_chain::{Chain, ChainError, Patience, Receipt, Subtensor, Weights};
use byteleap_devchain::{DevChain, Options, Pace};
use byteleap_protocol::hotkey::Signer;
use subxt::rpcs::{RpcClient, rpc_params};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    handmade::{Handmade, set_weights},
    world::{self, NETUID, Outcome, World},
};

/// A wire between client and chain that a test can cut, or lead to another chain.
struct Wire {
    url: String,
    end: watch::Sender<Option<SocketAddr>>,
}

impl Wire {
    async fn to(chain: &DevChain) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (end, ends) = watch::channel(chain.local_addr());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, ends.clone()));
            }
        });
        Self { url, end }
    }

    /// Cuts every connection; new ones are led to `chain`, or nowhere.
    fn lead(&self, chain: Option<&DevChain>) {
        self.end.send_replace(chain.and_then(DevChain::local_addr));
    }
}

/// Carries one connection until the wire is cut.
async fn carry(mut client: TcpStream, mut ends: watch::Receiver<Option<SocketAddr>>) {
    let Some(end) = *ends.borrow_and_update() else { return };
    let mut chain = TcpStream::connect(end).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut chain) => {}
        _ = ends.changed() => {}
    }
}

/// A client that dials again at once, whatever failed before.
fn client(wires: &[&Wire]) -> Arc<Subtensor> {
    patient_client(wires, Patience { pause: Duration::ZERO, ..Patience::default() })
}

fn patient_client(wires: &[&Wire], patience: Patience) -> Arc<Subtensor> {
    let urls: Vec<_> = wires.iter().map(|wire| &wire.url).collect();
    Arc::new(Subtensor::new(&urls, false).unwrap().with_patience(patience))
}

/// Everything that waits for a block.
async fn pending(world: &World) -> Vec<String> {
    world.rpc.request("author_pendingExtrinsics", rpc_params![]).await.unwrap()
}

/// The validator's weights, sent and waiting for a block.
async fn weights_under_way(world: &World, client: &Arc<Subtensor>) -> JoinHandle<Result<Receipt, ChainError>> {
    let before = pending(world).await.len();
    let client = client.clone();
    let setting = tokio::spawn(async move { client.set_weights(NETUID, &weights(), &world::validator()).await });
    while pending(world).await.len() == before {
        tokio::task::yield_now().await;
    }
    setting
}

fn weights() -> Weights {
    Weights::emit(&[(1, 1.0), (2, 1.0)], 0).unwrap().unwrap()
}

fn unreachable<T>(answer: Result<T, ChainError>) -> String {
    match answer {
        Err(ChainError::Unreachable(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the chain was reached"),
    }
}

#[tokio::test]
async fn a_cut_connection_is_dialled_again() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    assert_eq!(client.head().await.unwrap().block, 0);
    world.produce_blocks(1);
    wire.lead(Some(&world.chain));
    assert_eq!(client.head().await.unwrap().block, 1);
}

#[tokio::test]
async fn a_chain_that_is_away_is_unreachable_until_it_is_back() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    assert_eq!(client.head().await.unwrap().block, 0);
    wire.lead(None);
    assert!(unreachable(client.head().await).contains(&wire.url));
    wire.lead(Some(&world.chain));
    assert_eq!(client.head().await.unwrap().block, 0);
}

#[tokio::test]
async fn a_dead_endpoint_yields_to_the_next() {
    let world = World::under(world::unhurried()).await;
    let (dead, alive) = (Wire::to(&world.chain).await, Wire::to(&world.chain).await);
    dead.lead(None);
    let client = client(&[&dead, &alive]);
    assert_eq!(client.head().await.unwrap().block, 0);
    alive.lead(None);
    dead.lead(Some(&world.chain));
    assert_eq!(client.head().await.unwrap().block, 0);
}

#[tokio::test]
async fn another_chain_behind_the_same_address_is_refused() {
    let world = World::under(world::unhurried()).await;
    let stranger =
        World::of(byteleap_devchain::Genesis { stake_threshold_rao: 1, ..world::genesis(world::unhurried()) }).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    client.head().await.unwrap();
    wire.lead(Some(&stranger.chain));
    assert!(unreachable(client.head().await).contains("another chain"));
    wire.lead(Some(&world.chain));
    client.head().await.unwrap();
}

#[tokio::test]
async fn a_node_far_behind_is_not_used() {
    let world = World::under(world::unhurried()).await;
    let behind = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    world.produce_blocks(21);
    assert_eq!(client.head().await.unwrap().block, 21);
    wire.lead(Some(&behind.chain));
    assert!(unreachable(client.head().await).contains("21 blocks behind"));
    behind.produce_blocks(1);
    assert_eq!(client.head().await.unwrap().block, 1);
}

#[tokio::test]
async fn waiting_for_a_block_survives_a_cut() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    let now = client.head().await.unwrap().block;
    let (next, ()) = tokio::join!(client.next_block(now), async {
        wire.lead(Some(&world.chain));
        world.produce_blocks(1);
    });
    assert_eq!(next.unwrap().block, now + 1);
}

#[tokio::test]
async fn after_a_round_that_led_nowhere_nobody_dials_until_the_pause_is_over() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = patient_client(&[&wire], Patience { pause: Duration::from_secs(3600), ..Patience::default() });
    wire.lead(None);
    let why = unreachable(client.head().await);
    wire.lead(Some(&world.chain));
    assert_eq!(unreachable(client.head().await), why);
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_within_five_seconds() {
    let world = World::under(world::unhurried()).await;
    let (first, second) = (Wire::to(&world.chain).await, Wire::to(&world.chain).await);
    let client = patient_client(&[&first, &second], Patience::default());
    client.head().await.unwrap();
    first.lead(None);
    timeout(Duration::from_secs(5), client.head()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_that_hangs_is_left_after_the_limit_of_a_call() {
    let hanging = World::under(world::unhurried()).await;
    let wire = Wire::to(&hanging.chain).await;
    let client = patient_client(
        &[&wire],
        Patience { call: Duration::from_millis(300), dial: Duration::from_millis(300), ..Patience::default() },
    );
    client.head().await.unwrap();
    hanging.chain.silence(true);
    assert!(unreachable(client.head().await).contains("no answer within"));
    hanging.chain.silence(false);
}

#[tokio::test]
async fn only_what_is_final_is_read() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    world.chain.lag_finality(2);
    let setting = weights_under_way(&world, &client).await;
    world.produce_blocks(2);
    assert_eq!(client.head().await.unwrap().block, 0);
    assert_eq!(client.weights(NETUID, 0).await.unwrap(), []);
    world.produce_blocks(1);
    assert_eq!(setting.await.unwrap().unwrap().block, 1);
    assert_eq!(client.weights(NETUID, 0).await.unwrap(), [(1, 65535), (2, 65535)]);
}

#[tokio::test]
async fn a_node_whose_finality_stands_still_is_left() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = patient_client(
        &[&wire],
        Patience { stall: Duration::from_millis(200), pause: Duration::ZERO, ..Patience::default() },
    );
    world.chain.stop_finality(true);
    world.produce_blocks(3);
    assert!(unreachable(client.next_block(0).await).contains("no finalised block within"));
    world.chain.stop_finality(false);
    assert_eq!(client.next_block(0).await.unwrap().block, 3);
}

#[tokio::test]
async fn a_node_that_shows_another_final_block_than_before_is_refused() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    world.produce_blocks(2);
    assert_eq!(client.head().await.unwrap().block, 2);
    world.chain.replace_head();
    assert!(unreachable(client.head().await).contains("on a fork, or lying: its block 2"));
    // Nor does it help that the fork goes on.
    world.produce_blocks(1);
    assert!(unreachable(client.head().await).contains("on a fork, or lying: its block 2"));
}

#[tokio::test]
async fn weights_lost_from_sight_are_found_and_sent_once() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    let setting = weights_under_way(&world, &client).await;
    wire.lead(None);
    world.produce_blocks(3);
    wire.lead(Some(&world.chain));
    let receipt = setting.await.unwrap().unwrap();
    assert_eq!((receipt.block, receipt.reveal_round), (1, None));
    assert_eq!(pending(&world).await, [] as [String; 0]);
    assert_eq!(client.weights(NETUID, 0).await.unwrap(), [(1, 65535), (2, 65535)]);
}

#[tokio::test]
async fn weights_that_were_refused_out_of_sight_are_refused_by_name() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    let setting = weights_under_way(&world, &client).await;
    wire.lead(None);
    world.chain.fail_next("NeuronNoValidatorPermit").unwrap();
    world.produce_blocks(1);
    wire.lead(Some(&world.chain));
    let refused = ChainError::Refused { pallet: "SubtensorModule".into(), name: "NeuronNoValidatorPermit".into() };
    assert_eq!(setting.await.unwrap(), Err(refused));
}

#[tokio::test]
async fn an_extrinsic_that_no_block_took_in_its_era_is_over_and_may_be_sent_again() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    world.chain.keep_blocks_empty(true);
    let setting = weights_under_way(&world, &client).await;
    wire.lead(None);
    world.chain.advance(64);
    wire.lead(Some(&world.chain));
    let expired = setting.await.unwrap();
    assert_eq!(expired, Err(ChainError::Expired { nonce: 0 }));
    assert_eq!(pending(&world).await, [] as [String; 0], "it is gone for good");

    world.chain.keep_blocks_empty(false);
    let again = weights_under_way(&world, &client).await;
    world.produce_blocks(1);
    assert_eq!(again.await.unwrap().unwrap().block, 65);
}

#[tokio::test]
async fn an_extrinsic_whose_nonce_another_took_is_in_no_block() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    let setting = weights_under_way(&world, &client).await;
    wire.lead(None);
    world.chain.forget_pending();
    let other = Handmade::new(&world, set_weights(&[1], &[1], 0), world::validator());
    assert_eq!(world.send(other.bytes()).await, Outcome::Applied);
    wire.lead(Some(&world.chain));
    let Err(ChainError::Pool(why)) = setting.await.unwrap() else { panic!("it is in no block") };
    assert!(why.contains("another extrinsic of this key took nonce 0"), "{why}");
}

#[tokio::test]
async fn the_controls_work_over_the_wire_and_drop_connections() {
    let listen = Some(([127, 0, 0, 1], 0).into());
    let options = Options { listen, pace: Pace::OnCommand, dev_methods: true, ..Options::default() };
    let chain = DevChain::start(world::genesis(world::unhurried()), options).await.unwrap();
    let url = chain.url().unwrap();
    let rpc = RpcClient::from_insecure_url(&url).await.unwrap();
    let client = Subtensor::new(&[&url], false).unwrap();

    assert_eq!(rpc.request::<u32>("dev_advance", rpc_params![3]).await.unwrap(), 3);
    let _: () = rpc.request("dev_setHyperparameter", rpc_params![NETUID, "tempo_blocks", 50]).await.unwrap();
    let _: () = rpc.request("dev_setStake", rpc_params![NETUID, world::miner().hotkey().to_string(), 7]).await.unwrap();
    assert_eq!(rpc.request::<u32>("dev_advanceEpoch", rpc_params![NETUID]).await.unwrap(), 50);
    assert_eq!(client.rules(NETUID).await.unwrap().tempo, 50);
    let neurons = client.metagraph(NETUID).await.unwrap().neurons;
    assert_eq!((neurons[1].total_stake, neurons[1].validator_permit), (7, true), "the epoch gave the permit");
    for wrong in
        [rpc_params![NETUID, "tempo", 50], rpc_params![NETUID, "tempo_blocks", -1], rpc_params![1, "tempo_blocks", 5]]
    {
        rpc.request::<()>("dev_setHyperparameter", wrong).await.unwrap_err();
    }

    let _: () = rpc.request("dev_dropConnections", rpc_params![0]).await.unwrap();
    while rpc.request::<u32>("dev_advance", rpc_params![0]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // The client was cut off as well, and comes back by itself.
    while client.head().await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_chain_offers_no_controls_unless_it_was_started_for_it() {
    let world = World::under(world::unhurried()).await;
    world.rpc.request::<u32>("dev_advance", rpc_params![1]).await.unwrap_err();
}

#[tokio::test]
async fn an_hour_passes_by_the_chains_clock_alone() {
    let world = World::under(world::unhurried()).await;
    let time = async || -> u64 {
        let at = world.client.at_current_block().await.unwrap();
        let address = subxt::dynamic::storage::<(), u64>("Timestamp", "Now");
        at.storage().fetch(address, ()).await.unwrap().decode().unwrap()
    };
    world.chain.set_time(1_700_000_000_000);
    world.produce_blocks(1);
    let before = time().await;
    assert!((1_700_000_000_000..1_700_000_060_000).contains(&before));
    assert_eq!(world.chain.advance(300), 301);
    let passed = time().await - before;
    assert!((3_600_000..3_660_000).contains(&passed), "{passed}");
}
