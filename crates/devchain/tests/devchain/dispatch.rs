//! The rules of weights, axons and registrations, each broken alone (chain spec 4.3 and 5.2). Names are decoded by
//! `subxt` from the chain's own metadata.

use std::net::Ipv4Addr;

use byteleap_devchain::genesis::Hyperparameters;
use byteleap_protocol::hotkey::{Keypair, Signer};
use parity_scale_codec::Encode;

use crate::{
    handmade::{Handmade, set_weights},
    world::{self, NETUID, Outcome, TAO, World, failed, refused},
};

/// The outcome of the sender's first call on a fresh network.
async fn first(hyperparameters: Hyperparameters, sender: Keypair, call: Vec<u8>) -> Outcome {
    let world = World::under(hyperparameters).await;
    let extrinsic = Handmade::new(&world, call, sender);
    world.send(extrinsic.bytes()).await
}

async fn validator_sets(uids: &[u16], values: &[u16]) -> Outcome {
    first(world::unhurried(), world::validator(), set_weights(uids, values, 0)).await
}

#[tokio::test]
async fn weights_are_stored_scaled_to_the_top() {
    let world = World::under(world::unhurried()).await;
    let extrinsic = Handmade::new(&world, set_weights(&[2, 1], &[2, 1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
    assert_eq!(world.weights(0).await, [(2, 65_535), (1, 32_767)]);
}

#[tokio::test]
async fn weights_in_the_clear_are_refused_under_commit_reveal() {
    let rules = Hyperparameters { commit_reveal: true, ..world::unhurried() };
    let outcome = first(rules, world::validator(), set_weights(&[1], &[1], 0)).await;
    assert_eq!(outcome, failed("CommitRevealEnabled"));
}

#[tokio::test]
async fn an_unknown_subnet_answers_as_one_under_commit_reveal() {
    // As on the chain: commit-reveal is checked first, and is on wherever nobody turned it off.
    let call = (7_u8, 0_u8, NETUID + 1, vec![1_u16], vec![1_u16], 0_u64).encode();
    assert_eq!(first(world::unhurried(), world::validator(), call).await, failed("CommitRevealEnabled"));
}

#[tokio::test]
async fn an_unknown_mechanism_is_refused() {
    let call = (7_u8, 119_u8, NETUID, 1_u8, vec![1_u16], vec![1_u16], 0_u64).encode();
    assert_eq!(first(world::unhurried(), world::validator(), call).await, failed("MechanismDoesNotExist"));
}

#[tokio::test]
async fn uids_without_values_are_refused() {
    assert_eq!(validator_sets(&[1, 2], &[1]).await, failed("WeightVecNotEqualSize"));
}

#[tokio::test]
async fn more_uids_than_neurons_are_refused() {
    assert_eq!(validator_sets(&[0, 1, 2, 3], &[1, 1, 1, 1]).await, failed("UidsLengthExceedUidsInSubNet"));
}

#[tokio::test]
async fn a_stranger_is_refused() {
    let outcome = first(world::unhurried(), world::stranger(), set_weights(&[1], &[1], 0)).await;
    assert_eq!(outcome, failed("HotKeyNotRegisteredInSubNet"));
}

#[tokio::test]
async fn stake_below_the_threshold_is_refused_except_the_owners() {
    let mut genesis = world::genesis(world::unhurried());
    genesis.stake_threshold_rao = 1001 * TAO;
    let world = World::of(genesis.clone()).await;
    let extrinsic = Handmade::new(&world, set_weights(&[1], &[1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, failed("NotEnoughStakeToSetWeights"));

    genesis.subnets[0].owner_hotkey = world::validator().hotkey();
    let world = World::of(genesis).await;
    let extrinsic = Handmade::new(&world, set_weights(&[1], &[1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
}

#[tokio::test]
async fn a_version_key_below_the_subnets_is_refused() {
    let rules = Hyperparameters { weights_version: 7, ..world::unhurried() };
    for (key, expected) in [(6, failed("IncorrectWeightVersionKey")), (7, Outcome::Applied)] {
        assert_eq!(first(rules, world::validator(), set_weights(&[1], &[1], key)).await, expected);
    }
}

#[tokio::test]
async fn weights_are_refused_until_the_rate_limit_has_passed() {
    let world = World::under(Hyperparameters { weights_rate_limit_blocks: 3, ..world::unhurried() }).await;
    let mut extrinsic = Handmade::new(&world, set_weights(&[1], &[1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
    // Set at block 1: blocks 2 and 3 come too soon, block 4 does not.
    for (nonce, expected) in
        [(1, failed("SettingWeightsTooFast")), (2, failed("SettingWeightsTooFast")), (3, Outcome::Applied)]
    {
        extrinsic.nonce = nonce;
        assert_eq!(world.send(extrinsic.bytes()).await, expected);
    }
}

#[tokio::test]
async fn without_a_permit_only_ones_own_weight_is_accepted() {
    let rules = world::unhurried;
    let outcome = first(rules(), world::miner(), set_weights(&[0], &[1], 0)).await;
    assert_eq!(outcome, failed("NeuronNoValidatorPermit"));
    let outcome = first(rules(), world::miner(), set_weights(&[1], &[1], 0)).await;
    assert_eq!(outcome, Outcome::Applied);
}

#[tokio::test]
async fn a_uid_that_stands_twice_is_refused() {
    assert_eq!(validator_sets(&[1, 1], &[1, 2]).await, failed("DuplicateUids"));
}

#[tokio::test]
async fn a_uid_that_nobody_holds_is_refused() {
    assert_eq!(validator_sets(&[1, 3], &[1, 2]).await, failed("UidVecContainInvalidOne"));
}

#[tokio::test]
async fn fewer_weights_than_the_minimum_are_refused_unless_the_subnet_is_smaller() {
    let rules = Hyperparameters { min_allowed_weights: 1000, ..world::unhurried() };
    let outcome = first(rules, world::validator(), set_weights(&[1, 2], &[1, 1], 0)).await;
    assert_eq!(outcome, failed("WeightVecLengthIsLow"));
    let outcome = first(rules, world::validator(), set_weights(&[0, 1, 2], &[1, 1, 1], 0)).await;
    assert_eq!(outcome, Outcome::Applied);
}

#[tokio::test]
async fn a_share_above_the_limit_is_refused() {
    let rules = Hyperparameters { max_weight_limit: u16::MAX / 2, ..world::unhurried() };
    let outcome = first(rules, world::validator(), set_weights(&[1, 2], &[1, 2], 0)).await;
    assert_eq!(outcome, failed("MaxWeightExceeded"));
    let outcome = first(rules, world::validator(), set_weights(&[1, 2], &[1, 1], 0)).await;
    assert_eq!(outcome, Outcome::Applied);
}

#[tokio::test]
async fn a_refused_call_still_uses_up_its_nonce() {
    let world = World::under(world::unhurried()).await;
    let mut extrinsic = Handmade::new(&world, set_weights(&[1, 1], &[1, 1], 0), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, failed("DuplicateUids"));
    assert_eq!(world.send(extrinsic.bytes()).await, refused("Transaction is outdated"));
    extrinsic.nonce = 1;
    extrinsic.call = set_weights(&[1, 2], &[1, 1], 0);
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
}

fn serve_axon(ip: u128, port: u16, ip_type: u8) -> Vec<u8> {
    (7_u8, 4_u8, NETUID, 1_u32, ip, port, ip_type, 4_u8, 0_u8, 0_u8).encode()
}

#[tokio::test]
async fn an_axon_that_the_chain_would_not_store_is_refused_by_number() {
    let address = u128::from(u32::from(Ipv4Addr::new(192, 0, 2, 1)));
    let loopback = u128::from(u32::from(Ipv4Addr::LOCALHOST));
    for (sender, call, number) in [
        (world::stranger(), serve_axon(address, 8091, 4), 10),
        (world::miner(), serve_axon(loopback, 8091, 4), 11),
        (world::miner(), serve_axon(address, 0, 4), 13),
        (world::miner(), serve_axon(address, 8091, 5), 255),
    ] {
        assert_eq!(first(world::unhurried(), sender, call).await, refused(&format!("Custom error: {number}")));
    }
}

#[tokio::test]
async fn an_axon_is_refused_until_the_rate_limit_has_passed() {
    let world = World::under(Hyperparameters { serving_rate_limit_blocks: 2, ..world::unhurried() }).await;
    let mut extrinsic = Handmade::new(&world, serve_axon(1 << 100, 8091, 6), world::miner());
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
    extrinsic.nonce = 1;
    assert_eq!(world.send(extrinsic.bytes()).await, refused("Custom error: 12"));
    world.produce_blocks(1);
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
}

fn burned_register(netuid: u16, hotkey: &Keypair) -> Vec<u8> {
    (7_u8, 7_u8, netuid, hotkey.hotkey().0).encode()
}

#[tokio::test]
async fn a_hotkey_registers_against_the_burn_price_and_waits_one_rate_limit() {
    let world = World::under(Hyperparameters { weights_rate_limit_blocks: 2, ..world::unhurried() }).await;
    let call = burned_register(NETUID, &world::stranger());
    assert_eq!(world.send(Handmade::new(&world, call, world::coldkey()).bytes()).await, Outcome::Applied);

    // Registered at block 1 as uid 3: block 2 comes too soon, block 3 does not.
    let mut extrinsic = Handmade::new(&world, set_weights(&[3], &[1], 0), world::stranger());
    assert_eq!(world.send(extrinsic.bytes()).await, failed("SettingWeightsTooFast"));
    extrinsic.nonce = 1;
    assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
}

#[tokio::test]
async fn a_registration_that_cannot_be_is_refused() {
    let dear = Hyperparameters { burn_rao: 101 * TAO, ..world::unhurried() };
    let full = Hyperparameters { max_neurons: 3, ..world::unhurried() };
    for (rules, sender, netuid, hotkey, name) in [
        (world::unhurried(), world::coldkey(), NETUID + 1, world::stranger(), "SubnetNotExists"),
        (world::unhurried(), world::coldkey(), NETUID, world::miner(), "HotKeyAlreadyRegisteredInSubNet"),
        (world::unhurried(), world::stranger(), NETUID, world::stranger(), "NotEnoughBalanceToStake"),
        (dear, world::coldkey(), NETUID, world::stranger(), "NotEnoughBalanceToStake"),
        (full, world::coldkey(), NETUID, world::stranger(), "NoNeuronIdAvailable"),
    ] {
        assert_eq!(first(rules, sender, burned_register(netuid, &hotkey)).await, failed(name));
    }
}

#[tokio::test]
async fn a_full_subnet_gives_up_its_oldest_neuron_of_least_stake_and_all_that_was_its_own() {
    let rules = Hyperparameters { max_neurons: 3, immunity_period_blocks: 1, ..world::unhurried() };
    let world = World::under(rules).await;
    let own_weight = Handmade::new(&world, set_weights(&[1], &[1], 0), world::miner());
    assert_eq!(world.send(own_weight.bytes()).await, Outcome::Applied);
    let call = burned_register(NETUID, &world::stranger());
    assert_eq!(world.send(Handmade::new(&world, call, world::coldkey()).bytes()).await, Outcome::Applied);

    assert_eq!(world.weights(1).await, []);
    let mut replaced = Handmade::new(&world, set_weights(&[1], &[1], 0), world::miner());
    replaced.nonce = 1;
    assert_eq!(world.send(replaced.bytes()).await, failed("HotKeyNotRegisteredInSubNet"));
    let successor = Handmade::new(&world, set_weights(&[1], &[1], 0), world::stranger());
    assert_eq!(world.send(successor.bytes()).await, Outcome::Applied);
}

/// A commit of `sealed` for a round far ahead.
fn commit(sealed: &[u8], round: u64, version: u16) -> Vec<u8> {
    (7_u8, 118_u8, NETUID, 0_u8, sealed.to_vec(), round, version).encode()
}

const FAR_AHEAD: u64 = u64::MAX;
const VERSION: u16 = 4;

fn sealed_rules() -> Hyperparameters {
    Hyperparameters { commit_reveal: true, ..world::unhurried() }
}

#[tokio::test]
async fn weights_in_the_clear_and_sealed_ones_exclude_each_other() {
    let outcome = first(sealed_rules(), world::validator(), set_weights(&[1], &[1], 0)).await;
    assert_eq!(outcome, failed("CommitRevealEnabled"));
    let outcome = first(world::unhurried(), world::validator(), commit(b"sealed", FAR_AHEAD, VERSION)).await;
    assert_eq!(outcome, failed("CommitRevealDisabled"));
}

#[tokio::test]
async fn a_commit_that_the_chain_would_not_store_is_refused() {
    let hurried = Hyperparameters { weights_rate_limit_blocks: 9, ..sealed_rules() };
    let sealed = |round, version| commit(b"sealed", round, version);
    for (rules, sender, call, expected) in [
        (sealed_rules(), world::validator(), sealed(FAR_AHEAD, 3), failed("IncorrectCommitRevealVersion")),
        (sealed_rules(), world::stranger(), sealed(FAR_AHEAD, VERSION), failed("HotKeyNotRegisteredInSubNet")),
        (hurried, world::validator(), sealed(FAR_AHEAD, VERSION), Outcome::Applied),
    ] {
        assert_eq!(first(rules, sender, call).await, expected);
    }
    let too_long = first(sealed_rules(), world::validator(), commit(&[0; 5001], FAR_AHEAD, VERSION)).await;
    assert!(matches!(too_long, Outcome::Refused(..)), "{too_long:?}");
}

#[tokio::test]
async fn commits_are_refused_until_the_rate_limit_has_passed() {
    let world = World::under(Hyperparameters { weights_rate_limit_blocks: 2, ..sealed_rules() }).await;
    let mut extrinsic = Handmade::new(&world, commit(b"sealed", FAR_AHEAD, VERSION), world::validator());
    for (nonce, expected) in [(0, Outcome::Applied), (1, failed("CommittingWeightsTooFast")), (2, Outcome::Applied)] {
        extrinsic.nonce = nonce;
        assert_eq!(world.send(extrinsic.bytes()).await, expected);
    }
}

#[tokio::test]
async fn a_round_that_is_out_is_refused_by_number() {
    let world = World::under(sealed_rules()).await;
    world.produce_blocks(1);
    let extrinsic = Handmade::new(&world, commit(b"sealed", 1000, VERSION), world::validator());
    assert_eq!(world.send(extrinsic.bytes()).await, refused("Custom error: 15"));
}

#[tokio::test]
async fn ten_commits_of_a_hotkey_wait_in_an_epoch_and_no_more() {
    let world = World::under(sealed_rules()).await;
    let mut extrinsic = Handmade::new(&world, commit(b"sealed", FAR_AHEAD, VERSION), world::validator());
    for nonce in 0..10 {
        extrinsic.nonce = nonce;
        assert_eq!(world.send(extrinsic.bytes()).await, Outcome::Applied);
    }
    extrinsic.nonce = 10;
    assert_eq!(world.send(extrinsic.bytes()).await, failed("TooManyUnrevealedCommits"));
}
