//! The development chain's RPC, on a chain of one subnet that never makes a block.

use std::sync::LazyLock;

use byteleap_devchain::genesis::{Hyperparameters, Neuron, Subnet};
use byteleap_devchain::{DevChain, Genesis, Options, Pace};
use byteleap_protocol::hotkey::Hotkey;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// What JSON-RPC calls a failure that is the server's own.
const INTERNAL_ERROR: i64 = -32_603;

static CHAIN: LazyLock<(Runtime, DevChain)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = |byte| Hotkey([byte; 32]);
    let neuron = |hotkey| Neuron { hotkey, coldkey: key(9), stake_rao: 1_000_000_000, axon: None };
    let subnet = Subnet {
        netuid: 128,
        owner_hotkey: key(1),
        owner_coldkey: key(9),
        hyperparameters: Hyperparameters::default(),
        neurons: vec![neuron(key(1)), neuron(key(2)), neuron(key(3))],
    };
    let genesis =
        Genesis { balances_rao: vec![(key(9), 1_000_000_000)], stake_threshold_rao: 0, subnets: vec![subnet] };
    let options = Options { listen: None, pace: Pace::OnCommand, ..Options::default() };
    let chain = runtime.block_on(DevChain::start(genesis, options)).unwrap();
    (runtime, chain)
});

/// A JSON-RPC request; whatever it asks for, the chain does not fail.
pub fn devchain_request(bytes: &[u8]) {
    if let Ok(request) = std::str::from_utf8(bytes) {
        answer(request);
    }
}

/// An extrinsic's bytes, then the same as those of a storage key and of a runtime call's arguments. None is a signed
/// extrinsic of this chain.
pub fn devchain_extrinsic(bytes: &[u8]) {
    let hexadecimal = format!("0x{}", hex::encode(bytes));
    let refused = answer(&request("author_submitExtrinsic", json!([hexadecimal]))).unwrap();
    assert!(refused.get("error").is_some(), "{refused}");
    answer(&request("state_getStorage", json!([hexadecimal])));
    answer(&request("state_getKeysPaged", json!([hexadecimal, 3, hexadecimal])));
    answer(&request("state_queryStorageAt", json!([[hexadecimal]])));
    for method in ["SubnetInfoRuntimeApi_get_selective_metagraph", "AccountNonceApi_account_nonce"] {
        answer(&request("state_call", json!([method, hexadecimal])));
    }
}

fn request(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn answer(request: &str) -> Option<Value> {
    let (runtime, chain) = &*CHAIN;
    let answer: Value = serde_json::from_str(&runtime.block_on(chain.answer(request))?).unwrap();
    assert_ne!(answer["error"]["code"], INTERNAL_ERROR, "{request}: {answer}");
    assert!(answer.get("error").is_some() != answer.get("result").is_some(), "{request}: {answer}");
    Some(answer)
}
