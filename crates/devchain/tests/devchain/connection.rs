//! The client when its connection fails: it dials again, takes the next endpoint, refuses a stranger's chain, and never
//! sends twice what it lost sight of.

use std::{net::SocketAddr, sync::Arc};

use byteleap_chain::{Chain, ChainError, Subtensor, Weights};
use byteleap_devchain::DevChain;
use subxt::rpcs::rpc_params;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::{self, NETUID, World};

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

fn client(wires: &[&Wire]) -> Arc<Subtensor> {
    let urls: Vec<_> = wires.iter().map(|wire| &wire.url).collect();
    Arc::new(Subtensor::new(&urls, false).unwrap())
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
async fn weights_lost_from_sight_have_an_unknown_fate_and_are_sent_once() {
    let world = World::under(world::unhurried()).await;
    let wire = Wire::to(&world.chain).await;
    let client = client(&[&wire]);
    let weights = Weights::emit(&[(1, 1.0), (2, 1.0)], 0).unwrap().unwrap();
    let setting = tokio::spawn({
        let client = client.clone();
        async move { client.set_weights(NETUID, &weights, &world::validator()).await }
    });
    let pending =
        async || -> Vec<String> { world.rpc.request("author_pendingExtrinsics", rpc_params![]).await.unwrap() };
    while pending().await.is_empty() {
        tokio::task::yield_now().await;
    }
    wire.lead(Some(&world.chain));
    assert_eq!(setting.await.unwrap(), Err(ChainError::Unknown { nonce: 0 }));
    assert_eq!(pending().await.len(), 1);

    world.produce_blocks(1);
    assert_eq!(client.weights(NETUID, 0).await.unwrap(), [(1, 65535), (2, 65535)]);
}
