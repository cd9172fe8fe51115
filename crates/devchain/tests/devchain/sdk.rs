//! The official Python SDKs against the development chain and the client: what they write is read here, and what is written
//! here is read by them. `scripts/drive-sdk` is their side; `scripts/test` installs each version and names its Python in an
//! environment variable.

use std::{
    env,
    process::{Command, Stdio},
    time::Duration,
};

use byteleap_chain::{Chain, Keypair, Signer, Subtensor, Weights, wallet::keypair_from_uri};
use byteleap_devchain::{
    DevChain, Genesis, Options, Pace,
    genesis::{Hyperparameters, Neuron, Subnet},
};
use serde_json::Value;
use subxt::{OnlineClient, SubstrateConfig};

use crate::world::{NETUID, TAO};

fn key(uri: &str) -> Keypair {
    keypair_from_uri(uri).unwrap()
}

/// Alice, who sets weights, and the miners Bob, Charlie and Dave.
fn genesis() -> Genesis {
    let neuron = |uri: &str, stake_rao| Neuron {
        hotkey: key(uri).hotkey(),
        coldkey: key("//Alice").hotkey(),
        stake_rao,
        axon: None,
    };
    let rules = Hyperparameters {
        weights_rate_limit_blocks: 0,
        serving_rate_limit_blocks: 0,
        tempo_blocks: 100,
        ..Hyperparameters::default()
    };
    Genesis {
        balances_rao: ["//Alice", "//Charlie"].map(|uri| (key(uri).hotkey(), 100 * TAO)).to_vec(),
        stake_threshold_rao: 0,
        subnets: vec![Subnet {
            netuid: NETUID,
            owner_hotkey: key("//Owner").hotkey(),
            owner_coldkey: key("//Alice").hotkey(),
            hyperparameters: rules,
            neurons: vec![
                neuron("//Alice", 1000 * TAO),
                neuron("//Bob", 0),
                neuron("//Charlie", 0),
                neuron("//Dave", 0),
            ],
        }],
    }
}

/// Runs one step of the driver beside the chain; what it printed.
async fn drive(python: &str, url: &str, step: &[&str]) -> Value {
    let mut command = Command::new(env::var_os(python).unwrap_or_else(|| panic!("set {python}, or run scripts/test")));
    let home = tempfile::tempdir().unwrap();
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/drive-sdk"))
        .args([url, &NETUID.to_string()])
        .args(step)
        // An SDK keeps metadata and wallets at home; each run finds none.
        .env("HOME", home.path())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    drop(home);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let told = out.lines().find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object));
    told.unwrap_or_else(|| panic!("{step:?}: {out}\n{err}"))
}

async fn sealed_commits(client: &OnlineClient<SubstrateConfig>, epoch: u64) -> usize {
    type Commit = (subxt::utils::AccountId32, u64, Vec<u8>, u64);
    let address = subxt::dynamic::storage::<(u16, u64), Vec<Commit>>("SubtensorModule", "TimelockedWeightCommits");
    let at = client.at_current_block().await.unwrap();
    at.storage().fetch(address, (NETUID, epoch)).await.unwrap().decode().unwrap().len()
}

/// Everything that a validator and a miner do, by the SDK and by our client in turn.
async fn an_sdk_and_our_client_understand_each_other(python: &str, old_shape: bool) {
    let options = Options {
        listen: Some(([127, 0, 0, 1], 0).into()),
        pace: Pace::Every(Duration::from_millis(250)),
        old_shape,
        ..Options::default()
    };
    let chain = DevChain::start(genesis(), options).await.unwrap();
    let url = chain.url().unwrap();
    let client = Subtensor::new(&[&url], false).unwrap().with_beacon(DevChain::beacon());

    // Ours first: the SDK reads it.
    let weights = Weights::emit(&[(1, 1.0), (2, 3.0)], 0).unwrap().unwrap();
    client.set_weights(NETUID, &weights, &key("//Alice")).await.unwrap();
    client.serve_axon(NETUID, "192.0.2.7:8091".parse().unwrap(), 9_010_000, &key("//Bob")).await.unwrap().unwrap();
    let seen = drive(python, &url, &["read"]).await;
    assert_eq!(seen["weights"], serde_json::json!({ "0": [[1, 21_845], [2, 65_535]] }), "{seen}");
    assert_eq!(seen["tempo"], 100);
    assert!(seen["block"].as_u64().unwrap() > 0);
    let metagraph = client.metagraph(NETUID).await.unwrap();
    for (neuron, told) in metagraph.neurons.iter().zip(seen["neurons"].as_array().unwrap()) {
        assert_eq!(told["uid"], neuron.uid);
        assert_eq!(told["hotkey"], neuron.hotkey.to_string());
        assert_eq!(told["permit"], neuron.validator_permit);
        assert_eq!(told["axon"].as_str().map(|axon| axon.parse().unwrap()), neuron.axon, "{told}");
        assert!((told["stake"].as_f64().unwrap() - neuron.total_stake as f64 / 1e9).abs() < 0.01, "{told}");
    }
    assert_eq!(seen["neurons"].as_array().unwrap().len(), 4);

    // Then the SDK's: the client reads it.
    let told = drive(python, &url, &["weights", "1:0.5", "3:1.0"]).await;
    assert_eq!(told["success"], true, "{told}");
    let set = client.weights(NETUID, 0).await.unwrap();
    assert_eq!(set.iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [1, 3]);
    assert!((32_766..=32_769).contains(&set[0].1) && set[1].1 == 65_535, "{set:?}");
    let told = drive(python, &url, &["axon", "192.0.2.9:9191"]).await;
    assert_eq!(told["success"], true, "{told}");
    let metagraph = client.metagraph(NETUID).await.unwrap();
    assert_eq!(metagraph.neurons[2].axon, Some("192.0.2.9:9191".parse().unwrap()));

    // Commit-reveal on: the SDK seals for the public beacon; the chain keeps what it cannot open here.
    chain.set_hyperparameter(NETUID, "commit_reveal", true.into()).unwrap();
    let head = chain.advance(1);
    client.next_block(u64::from(head) - 1).await.unwrap();
    let told = drive(python, &url, &["weights", "1:1.0", "2:1.0"]).await;
    assert_eq!(told["success"], true, "{told}");
    let subxt = OnlineClient::from_insecure_url(&url).await.unwrap();
    let epoch = client.epoch(NETUID).await.unwrap().index;
    let mut commits = 0;
    for epoch in epoch.saturating_sub(1)..=epoch {
        commits += sealed_commits(&subxt, epoch).await;
    }
    assert_eq!(commits, 1);
    chain.stop().await;
}

#[tokio::test]
#[ignore = "needs the Python SDK: scripts/test installs it"]
async fn sdk_10_and_our_client_understand_each_other() {
    an_sdk_and_our_client_understand_each_other("DEVCHAIN_SDK_10_PYTHON", false).await;
}

#[tokio::test]
#[ignore = "needs the Python SDK: scripts/test installs it"]
async fn sdk_11_and_our_client_understand_each_other() {
    an_sdk_and_our_client_understand_each_other("DEVCHAIN_SDK_11_PYTHON", false).await;
}

#[tokio::test]
#[ignore = "needs the Python SDK: scripts/test installs it"]
async fn sdk_9_and_our_client_understand_each_other_in_the_old_shape() {
    an_sdk_and_our_client_understand_each_other("DEVCHAIN_SDK_9_PYTHON", true).await;
}
