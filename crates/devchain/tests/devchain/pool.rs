//! What the pool takes and what it refuses, with the codes and words of a real node (chain spec 4.4).

use subxt::rpcs::rpc_params;

use crate::{
    handmade::{Handmade, set_weights},
    world::{self, Outcome, World, refused},
};

const BAD_SIGNATURE: &str = "Transaction has a bad signature";

fn weights() -> Vec<u8> {
    set_weights(&[1, 2], &[21_845, 65_535], 0)
}

/// A right extrinsic of the validator after `change`, sent to a fresh network.
async fn sent_after(change: impl FnOnce(&mut Handmade)) -> Outcome {
    let world = World::under(world::unhurried()).await;
    let mut extrinsic = Handmade::new(&world, weights(), world::validator());
    change(&mut extrinsic);
    world.send(extrinsic.bytes()).await
}

#[tokio::test]
async fn a_right_extrinsic_is_applied() {
    assert_eq!(sent_after(|_| ()).await, Outcome::Applied);
}

#[tokio::test]
async fn a_signature_by_another_key_is_refused() {
    assert_eq!(sent_after(|extrinsic| extrinsic.signer = world::miner()).await, refused(BAD_SIGNATURE));
}

#[tokio::test]
async fn a_signature_for_another_chain_is_refused() {
    let outcome = sent_after(|extrinsic| {
        extrinsic.genesis = [1; 32];
        extrinsic.birth = [1; 32];
    });
    assert_eq!(outcome.await, refused(BAD_SIGNATURE));
}

#[tokio::test]
async fn a_signature_for_another_runtime_is_refused() {
    assert_eq!(sent_after(|extrinsic| extrinsic.spec_version -= 1).await, refused(BAD_SIGNATURE));
    assert_eq!(sent_after(|extrinsic| extrinsic.transaction_version += 1).await, refused(BAD_SIGNATURE));
}

#[tokio::test]
async fn a_signature_over_a_metadata_hash_is_refused() {
    let outcome = sent_after(|extrinsic| extrinsic.mode = 1).await;
    assert_eq!(outcome, Outcome::Refused(1011, "CannotLookup".into()));
}

#[tokio::test]
async fn bytes_that_are_no_extrinsic_are_refused() {
    let world = World::under(world::unhurried()).await;
    let right = Handmade::new(&world, weights(), world::validator()).bytes();
    let call_with_more = [weights(), vec![0]].concat();
    for bytes in [
        Vec::new(),
        right[..right.len() - 1].to_vec(),
        [&right[..], &[0]].concat(),
        Handmade::new(&world, call_with_more, world::validator()).bytes(),
        Handmade::new(&world, vec![99, 0], world::validator()).bytes(),
    ] {
        let outcome = world.send(bytes).await;
        assert!(matches!(outcome, Outcome::Refused(1001, _)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_used_nonce_is_refused() {
    let world = World::under(world::unhurried()).await;
    let extrinsic = Handmade::new(&world, weights(), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
    assert_eq!(world.send(extrinsic.bytes()).await, refused("Transaction is outdated"));
}

#[tokio::test]
async fn a_nonce_ahead_waits_until_the_gap_is_filled() {
    let world = World::under(world::unhurried()).await;
    let mut second = Handmade::new(&world, set_weights(&[2], &[65_535], 0), world::validator());
    second.nonce = 1;
    submit(&world, &second).await.unwrap();
    world.produce_blocks(1);
    assert_eq!(world.weights(0).await, []);

    let first = Handmade::new(&world, weights(), world::validator());
    submit(&world, &first).await.unwrap();
    world.produce_blocks(1);
    assert_eq!(world.weights(0).await, [(2, 65_535)], "both are applied, in the order of their nonces");
}

#[tokio::test]
async fn an_era_holds_to_its_last_block_and_no_longer() {
    // Born at block 2 for 4 blocks, it may be in block 5 at the latest. After that its bytes read as the next era's, whose
    // first block is first not there yet and then not the one that was signed.
    for (head, expected) in
        [(4, Outcome::Applied), (5, refused("Transaction has an ancient birth block")), (6, refused(BAD_SIGNATURE))]
    {
        let world = World::under(world::unhurried()).await;
        world.produce_blocks(2);
        let extrinsic = Handmade::new(&world, weights(), world::validator()).born(&world, 2, 4).await;
        world.produce_blocks(head - 2);
        assert_eq!(world.send(extrinsic.bytes()).await, expected);
    }
}

#[tokio::test]
async fn an_era_that_has_not_begun_is_refused() {
    let world = World::under(world::unhurried()).await;
    let extrinsic = Handmade::new(&world, weights(), world::validator()).born(&world, 10, 64).await;
    assert_eq!(world.send(extrinsic.bytes()).await, refused("Transaction has an ancient birth block"));
}

#[tokio::test]
async fn an_extrinsic_whose_era_passes_while_it_waits_leaves_the_pool() {
    let world = World::under(world::unhurried()).await;
    let mut extrinsic = Handmade::new(&world, weights(), world::validator()).born(&world, 0, 4).await;
    extrinsic.nonce = 1;
    submit(&world, &extrinsic).await.unwrap();
    world.produce_blocks(3);
    assert_eq!(pending(&world).await, 1);
    world.produce_blocks(1);
    assert_eq!(pending(&world).await, 0);
}

#[tokio::test]
async fn an_extrinsic_that_waits_already_is_refused_and_so_is_another_of_its_nonce() {
    let world = World::under(world::unhurried()).await;
    let extrinsic = Handmade::new(&world, weights(), world::validator());
    submit(&world, &extrinsic).await.unwrap();
    let mut other = Handmade::new(&world, set_weights(&[2], &[65_535], 0), world::validator());
    assert_eq!(submit(&world, &other).await, Err(1014));

    // sr25519 signs with fresh randomness: the same bytes are needed to be the same extrinsic.
    let bytes = Handmade::new(&world, weights(), world::miner()).bytes();
    submit_bytes(&world, &bytes).await.unwrap();
    assert_eq!(submit_bytes(&world, &bytes).await, Err(1013));

    let next: u32 = next_nonce(&world).await;
    assert_eq!(next, 1, "the next nonce counts what waits");
    other.nonce = next;
    submit(&world, &other).await.unwrap();
}

/// Submits without watching; the JSON-RPC code of a refusal.
async fn submit(world: &World, extrinsic: &Handmade) -> Result<(), i32> {
    submit_bytes(world, &extrinsic.bytes()).await
}

async fn submit_bytes(world: &World, extrinsic: &[u8]) -> Result<(), i32> {
    let parameters = rpc_params![hex::encode(extrinsic)];
    match world.rpc.request::<String>("author_submitExtrinsic", parameters).await {
        Ok(_) => Ok(()),
        Err(subxt::rpcs::Error::User(error)) => Err(error.code),
        Err(error) => panic!("{error:?}"),
    }
}

/// How many extrinsics wait.
async fn pending(world: &World) -> usize {
    let waiting: Vec<String> = world.rpc.request("author_pendingExtrinsics", rpc_params![]).await.unwrap();
    waiting.len()
}

async fn next_nonce(world: &World) -> u32 {
    use byteleap_protocol::hotkey::Signer;
    let address = world::validator().hotkey().to_string();
    world.rpc.request("account_nextIndex", rpc_params![address]).await.unwrap()
}
