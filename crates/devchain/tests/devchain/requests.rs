//! Requests that no honest client sends: each is answered or refused, and none is the chain's own failure.

use byteleap_devchain::{DevChain, Options, Pace, genesis::Hyperparameters};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::world;

/// What JSON-RPC calls a failure of the server.
const INTERNAL_ERROR: i64 = -32_603;

/// A chain without a server, and the runtime that it lives in.
fn chain() -> (tokio::runtime::Runtime, DevChain) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let options = Options { listen: None, pace: Pace::OnCommand, ..Options::default() };
    let chain = runtime.block_on(DevChain::start(world::genesis(Hyperparameters::default()), options)).unwrap();
    (runtime, chain)
}

/// Every method that the chain lists.
fn methods() -> Vec<String> {
    let (runtime, chain) = chain();
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"rpc_methods"}"#;
    let list: Value = serde_json::from_str(&runtime.block_on(chain.answer(list)).unwrap()).unwrap();
    serde_json::from_value(list["result"]["methods"].clone()).unwrap()
}

/// Parameters of the kinds that some method takes, and some that none does.
fn parameter() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(0x)?[0-9a-f]{0,80}".prop_map(Value::from),
        "(SubnetInfoRuntimeApi|AccountNonceApi|Metadata)_[a-z_]{0,24}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec("0x[0-9a-f]{0,8}".prop_map(Value::from), 0..3).prop_map(Value::from),
    ]
}

#[test]
fn no_request_is_a_failure_of_the_chain() {
    let ((runtime, chain), methods) = (chain(), methods());
    assert!(methods.len() > 10);
    let parameters = prop::collection::vec(parameter(), 0..4);
    let request = (prop::sample::select(methods), parameters, any::<u32>());
    proptest!(|((method, params, id) in request)| {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let answer: Value = serde_json::from_str(&runtime.block_on(chain.answer(&request)).unwrap()).unwrap();
        prop_assert_eq!(&answer["id"], id);
        prop_assert_ne!(&answer["error"]["code"], INTERNAL_ERROR);
        prop_assert!(answer.get("error").is_some() != answer.get("result").is_some());
    });
}

#[test]
fn what_is_no_request_has_no_answer() {
    let (runtime, chain) = chain();
    for text in
        ["", "{}", "[]", "null", r#"{"jsonrpc":"2.0","id":1}"#, r#"{"jsonrpc":"1.0","id":1,"method":"rpc_methods"}"#]
    {
        assert_eq!(runtime.block_on(chain.answer(text)), None, "{text}");
    }
}
