//! The development chain against a published runtime: every item that its metadata tells of has the real one's name,
//! shape and number. The client's own tests run on this chain, so that what the client uses of the real chain is among them.
//!
//! The real metadata comes from a package of the official SDK, which `scripts/test` fetches and names in an environment
//! variable; it is not part of this repository.

use std::{collections::BTreeSet, env, fs};

use parity_scale_codec::Decode;
use serde_json::Value;
use subxt::metadata::Metadata;

use crate::world::{self, World};

/// The file of the SDK's recordings, `golden.json`.
const RECORDINGS: &str = "DEVCHAIN_SDK_RECORDINGS";

/// What the development chain only stands in for, with the reason.
const STAND_INS: [(&str, &str); 6] = [
    ("SubtensorModule.SubnetEpochConsensus", "newer than the published runtime, and asked for by its own SDK"),
    ("System.Events", "the type lists every event of the runtime; those that exist here are compared one by one"),
    ("Commitments.CommitmentOf", "nobody commits to metadata here: the map is there to be found empty"),
    ("Commitments.RevealedCommitments", "as above"),
    ("TransactionPaymentApi.query_info", "an extrinsic is bytes here, and some SDKs want another path for it"),
    ("Aura.SlotDuration", "the block time is that of the test"),
];

fn recordings() -> Value {
    let path = env::var_os(RECORDINGS).unwrap_or_else(|| panic!("set {RECORDINGS}, or run scripts/test"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn bytes(hexadecimal: &Value) -> Vec<u8> {
    hex::decode(hexadecimal.as_str().unwrap().trim_start_matches("0x")).unwrap()
}

/// The real runtime's metadata, in the form that a runtime call answers.
fn published() -> Metadata {
    let answer = bytes(&recordings()["metadata"]["v15_hex"]);
    let metadata = Option::<Vec<u8>>::decode(&mut &answer[..]).unwrap().unwrap();
    Metadata::decode_from(&metadata).unwrap()
}

/// Collects what differs, so that one run shows all of it.
#[derive(Default)]
struct Differences(BTreeSet<String>);

impl Differences {
    fn expect<T: PartialEq>(&mut self, item: String, ours: Option<T>, real: Option<T>) {
        if ours.is_none() || ours != real {
            self.0.insert(item);
        }
    }
}

#[tokio::test]
#[ignore = "needs a published runtime's metadata: scripts/test fetches it"]
async fn every_item_of_the_development_chain_is_one_of_the_real_chain() {
    let real = published();
    let world = World::under(world::unhurried()).await;
    let at = world.client.at_current_block().await.unwrap();
    let ours = at.metadata();
    let mut differences = Differences::default();
    for pallet in ours.pallets() {
        let Some(counterpart) = real.pallet_by_name(pallet.name()) else {
            differences.0.insert(pallet.name().to_owned());
            continue;
        };
        let item = |name: &str| format!("{}.{name}", pallet.name());
        differences.expect(item("index"), Some(pallet.call_index()), Some(counterpart.call_index()));
        for entry in pallet.storage().into_iter().flat_map(|storage| storage.entries()) {
            let (ours, real) = (pallet.storage_hash(entry.name()), counterpart.storage_hash(entry.name()));
            differences.expect(item(entry.name()), ours, real);
        }
        for call in pallet.call_variants().unwrap_or_default() {
            let number = |found: Option<&scale_info::Variant<_>>| found.map(|variant| variant.index);
            differences.expect(item(&call.name), pallet.call_hash(&call.name), counterpart.call_hash(&call.name));
            let real = number(counterpart.call_variant_by_name(&call.name));
            differences.expect(item(&format!("{} (number)", call.name)), Some(call.index), real);
        }
        for constant in pallet.constants() {
            let (ours, real) = (pallet.constant_hash(constant.name()), counterpart.constant_hash(constant.name()));
            differences.expect(item(constant.name()), ours, real);
        }
        for (kind, ours, real) in [
            ("error", pallet.error_variants(), counterpart.error_variants()),
            ("event", pallet.event_variants(), counterpart.event_variants()),
        ] {
            for variant in ours.unwrap_or_default() {
                let same = real.unwrap_or_default().iter().find(|other| other.name == variant.name);
                let found = same.map(|other| (other.index, other.fields.len()));
                differences.expect(
                    item(&format!("{} ({kind})", variant.name)),
                    Some((variant.index, variant.fields.len())),
                    found,
                );
            }
        }
    }
    for api in ours.runtime_api_traits() {
        for method in api.methods() {
            let counterpart = real.runtime_api_trait_by_name(api.name());
            let real = counterpart.and_then(|api| api.method_by_name(method.name())).map(|method| method.hash());
            differences.expect(format!("{}.{}", api.name(), method.name()), Some(method.hash()), real);
        }
    }
    let known: BTreeSet<String> = STAND_INS.iter().map(|(item, _)| (*item).to_owned()).collect();
    let unknown: Vec<_> = differences.0.difference(&known).collect();
    assert!(unknown.is_empty(), "not as on the real chain: {unknown:#?}");
}

#[tokio::test]
#[ignore = "needs a published runtime's metadata: scripts/test fetches it"]
async fn the_extensions_of_an_extrinsic_are_those_of_the_real_chain_in_their_order() {
    let real = published();
    let world = World::under(world::unhurried()).await;
    let at = world.client.at_current_block().await.unwrap();
    let listed = |metadata: &Metadata| -> Vec<String> {
        let extrinsic = metadata.extrinsic();
        extrinsic
            .transaction_extensions_to_use_for_encoding()
            .map(|extension| extension.identifier().to_owned())
            .collect()
    };
    assert_eq!(listed(&at.metadata()), listed(&real));
}

#[tokio::test]
#[ignore = "needs a published runtime's metadata: scripts/test fetches it"]
async fn storage_keys_are_those_that_a_real_node_was_asked_for() {
    let world = World::under(world::unhurried()).await;
    let at = world.client.at_current_block().await.unwrap();
    let mut compared = 0;
    for recorded in recordings()["storage_keys"].as_array().unwrap() {
        let (pallet, entry) = (recorded["pallet"].as_str().unwrap(), recorded["storage_function"].as_str().unwrap());
        let known = at.metadata().pallet_by_name(pallet).is_some_and(|pallet| pallet.storage_hash(entry).is_some());
        let parts: Option<Vec<_>> = recorded["params"].as_array().unwrap().iter().map(part).collect();
        let (true, Some(parts)) = (known, parts) else { continue };
        let address = subxt::dynamic::storage::<Vec<subxt::dynamic::Value>, subxt::dynamic::Value>(pallet, entry);
        let key = at.storage().entry(address).unwrap().fetch_key(parts).unwrap();
        assert_eq!(hex::encode(key), hex::encode(bytes(&recorded["key_hex"])), "{pallet}.{entry}");
        compared += 1;
    }
    assert!(compared > 3, "{compared} keys compared");
}

/// A part of a recorded key.
fn part(recorded: &Value) -> Option<subxt::dynamic::Value> {
    match recorded {
        Value::Number(number) => Some(subxt::dynamic::Value::u128(number.as_u64()?.into())),
        Value::String(address) => {
            let key: byteleap_protocol::hotkey::Hotkey = address.parse().ok()?;
            Some(subxt::dynamic::Value::from_bytes(key.0))
        }
        _ => None,
    }
}
