//! Weight arithmetic against the tables recorded from the official SDK (chain spec 5.3).

use blake2::Digest;
use byteleap_chain::{Hotkey, Limits, Weights, WeightsError, cap_largest_share};
use parity_scale_codec::Encode;
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/weights_emit.json")).unwrap()
}

fn cases(table: &str) -> Vec<Value> {
    vectors()[table].as_array().unwrap().clone()
}

fn u16s(list: &Value) -> Vec<u16> {
    list.as_array().unwrap().iter().map(|number| u16::try_from(number.as_u64().unwrap()).unwrap()).collect()
}

fn f64s(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The pairs of a case; `None` where the case cannot even be written as pairs of `u16` and `f64`.
fn pairs(case: &Value) -> Option<Vec<(u16, f64)>> {
    let uids: Option<Vec<u16>> = case["uids"].as_array()?.iter().map(|uid| u16::try_from(uid.as_u64()?).ok()).collect();
    let (uids, weights) = (uids?, f64s(&case["weights"]));
    (uids.len() == weights.len()).then(|| uids.into_iter().zip(weights).collect())
}

fn parts(weights: Option<Weights>) -> (Vec<u16>, Vec<u16>) {
    weights.map(|weights| (weights.uids().to_vec(), weights.values().to_vec())).unwrap_or_default()
}

#[test]
fn emission_equals_the_reference_without_its_cast_to_f32() {
    let expected = cases("f64_normalize");
    let given = cases("emit");
    assert_eq!(given.len(), 20);
    for (case, expected) in given.iter().zip(expected) {
        let name = case["name"].as_str().unwrap();
        assert_eq!(name, expected["name"]);
        let emitted = pairs(case).map(|pairs| Weights::emit(&pairs, 0));
        if expected.get("error").is_some() {
            assert!(matches!(emitted, None | Some(Err(WeightsError::NotAWeight { .. }))), "{name}");
            continue;
        }
        let emitted = parts(emitted.unwrap().unwrap());
        assert_eq!(emitted, (u16s(&expected["out_uids"]), u16s(&expected["out_weights"])), "{name}");
        if name != "random_256" {
            assert_eq!(emitted, (u16s(&case["out_uids"]), u16s(&case["out_weights"])), "{name}");
        }
    }
}

#[test]
fn the_largest_share_is_capped_as_in_the_reference() {
    for case in cases("f64_clip") {
        let pairs: Vec<_> = (0..).zip(f64s(&case["weights"])).collect();
        if case.get("error").is_some() {
            assert_eq!(Weights::emit(&pairs, 0), Ok(None), "nothing to set: {case}");
            continue;
        }
        let shares: Vec<f64> =
            cap_largest_share(&pairs, case["limit"].as_f64().unwrap()).into_iter().map(|(_, share)| share).collect();
        assert_eq!(shares, f64s(&case["out"]), "{case}");
    }
}

#[test]
fn the_cap_keeps_to_the_older_reference_within_its_single_precision() {
    let given = cases("max_weight");
    assert_eq!(given.len(), 7);
    for case in given {
        let pairs: Vec<_> = (0..).zip(f64s(&case["x"])).collect();
        let shares = cap_largest_share(&pairs, case["limit"].as_f64().unwrap());
        for ((_, share), expected) in shares.iter().zip(f64s(&case["out"])) {
            assert!((share - expected).abs() < 1e-6, "{share}, not {expected}: {case}");
        }
        assert_eq!(shares.len(), case["out"].as_array().unwrap().len());
    }
}

#[test]
fn the_older_reference_is_followed_where_it_scores_and_not_where_it_pays_the_unscored() {
    let given = cases("process");
    assert_eq!(given.len(), 12);
    for case in given {
        let limits = Limits {
            min_allowed: u16::try_from(case["min_allowed_weights"].as_u64().unwrap()).unwrap(),
            max_share: (case["max_weight_limit"].as_f64().unwrap() * 65535.0).round() as u16,
            neurons: u16::try_from(case["num_neurons"].as_u64().unwrap()).unwrap(),
            owner: None,
            own: None,
        };
        let (uids, values) = parts(Weights::emit_within(&pairs(&case).unwrap(), 0, &limits).unwrap());
        match case["name"].as_str().unwrap() {
            // It pays everybody the same; ours sends nothing, or what was scored.
            "no_weight_at_all" => assert_eq!((uids, values), (vec![], vec![])),
            "subnet_smaller_than_minimum" => assert_eq!((uids, values), (vec![0, 1], vec![32768, 65535])),
            // Its fillers round to zero and the chain refuses the vector; ours are the least that counts.
            "fewer_nonzero_than_minimum" => {
                assert_eq!((uids, values), (vec![2, 5, 0, 1], vec![21845, 65535, 1, 1]));
            }
            // It drops the lowest scores; ours pays each its share.
            "quantile" => assert_eq!((uids.len(), values[0], values[9]), (10, 3277, 65535)),
            "quantile_capped_by_minimum" => assert_eq!((uids.len(), values[0], values[5]), (6, 10922, 65535)),
            name => {
                // The chain's limit is a number of 65,535 parts, which 0.1 is not: here the cap takes it as it is.
                let scored: Vec<_> = pairs(&case).unwrap().into_iter().filter(|(_, weight)| *weight > 0.0).collect();
                let capped = cap_largest_share(&scored, case["max_weight_limit"].as_f64().unwrap());
                let (exact_uids, values) = parts(Weights::emit(&capped, 0).unwrap());
                assert_eq!((&uids, &exact_uids), (&u16s(&case["emit_uids"]), &u16s(&case["emit_uids"])), "{name}");
                for (value, expected) in values.iter().zip(u16s(&case["emit_weights"])) {
                    assert!(value.abs_diff(expected) <= 1, "{name}: {value}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn the_older_commit_hashes_what_the_chain_hashed() {
    type Blake2b256 = blake2::Blake2b<blake2::digest::consts::U32>;
    let given = cases("commit_hash_v2");
    assert_eq!(given.len(), 3);
    for case in given {
        let account: Hotkey = case["address"].as_str().unwrap().parse().unwrap();
        let index = u16::try_from(case["netuid"].as_u64().unwrap()).unwrap();
        let [uids, values, salt] = ["uids", "values", "salt"].map(|field| u16s(&case[field]));
        let version_key = case["version_key"].as_u64().unwrap();
        let hash = Blake2b256::digest((account.0, index, uids, values, salt, version_key).encode());
        assert_eq!(format!("0x{}", hex::encode(hash)), case["hash"], "{case}");
    }
}

#[test]
fn vectors_conform_to_the_limits_and_short_ones_are_filled_instead_of_refused() {
    for case in cases("f64_conform") {
        let number = |field: &str| u16::try_from(case[field].as_u64().unwrap()).unwrap();
        let pairs = pairs(&case).unwrap();
        // A lone weight on oneself is exempt from the limits; who may send it calls `emit`.
        let emitted = if pairs.len() == 1 && pairs[0].0 == number("own_uid") {
            Weights::emit(&pairs, 0)
        } else {
            let limits = Limits {
                min_allowed: number("min_allowed_weights"),
                max_share: number("max_weight_limit"),
                neurons: 10,
                owner: None,
                own: None,
            };
            Weights::emit_within(&pairs, 0, &limits)
        };
        let emitted = parts(emitted.unwrap());
        match case["name"].as_str().unwrap() {
            "too_few" => assert_eq!(emitted, (vec![0, 1, 2], vec![65535, 65535, 1])),
            "rounded_away_then_too_few" => assert_eq!(emitted, (vec![0, 2, 1], vec![65535, 65535, 1])),
            "all_zero" | "all_zero_limited" => assert_eq!(emitted, (vec![], vec![])),
            name => assert_eq!(emitted, (u16s(&case["out"][0]), u16s(&case["out"][1])), "{name}"),
        }
    }
}

#[test]
fn a_short_vector_is_filled_with_the_owner_first_then_the_lowest_uids_and_oneself_last() {
    let mut limits = Limits { min_allowed: 4, max_share: u16::MAX, neurons: 6, owner: Some(5), own: Some(0) };
    let weights = Weights::emit_within(&[(1, 0.5)], 0, &limits).unwrap().unwrap();
    assert_eq!(weights.pairs().collect::<Vec<_>>(), [(1, 65535), (5, 1), (2, 1), (3, 1)]);
    limits.min_allowed = 6;
    let weights = Weights::emit_within(&[(1, 0.5)], 0, &limits).unwrap().unwrap();
    assert_eq!(weights.uids(), [1, 5, 2, 3, 4, 0]);
}

#[test]
fn a_small_subnet_is_never_asked_for_more_than_it_has() {
    let limits = Limits { min_allowed: 1024, max_share: u16::MAX, neurons: 3, owner: None, own: None };
    let weights = Weights::emit_within(&[(2, 1.0)], 0, &limits).unwrap().unwrap();
    assert_eq!(weights.uids(), [2, 0, 1]);
}

#[test]
fn nothing_scored_is_nothing_sent_whatever_the_minimum() {
    let limits = Limits { min_allowed: 2, max_share: u16::MAX, neurons: 3, owner: Some(0), own: None };
    assert_eq!(Weights::emit_within(&[(0, 0.0), (1, 0.0)], 0, &limits), Ok(None));
    assert_eq!(Weights::emit_within(&[], 0, &limits), Ok(None));
}

#[test]
fn a_uid_given_twice_is_refused() {
    assert_eq!(Weights::emit(&[(3, 1.0), (3, 0.5)], 0), Err(WeightsError::DuplicateUid(3)));
}

#[test]
fn what_is_no_number_is_refused() {
    for weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5] {
        let refused = Weights::emit(&[(0, 1.0), (1, weight)], 0);
        assert!(matches!(refused, Err(WeightsError::NotAWeight { uid: 1, .. })), "{weight}");
    }
}

proptest! {
    #[test]
    fn emitted_weights_are_ready_for_the_wire(given in prop::collection::btree_map(any::<u16>(), 0.0..1e300_f64, 0..300)) {
        let pairs: Vec<_> = given.into_iter().collect();
        if let Some(weights) = Weights::emit(&pairs, 7).unwrap() {
            prop_assert_eq!(weights.uids().len(), weights.values().len());
            prop_assert_eq!(weights.values().iter().max(), Some(&u16::MAX));
            prop_assert!(weights.values().iter().all(|value| *value > 0));
            prop_assert!(weights.uids().is_sorted());
        } else {
            prop_assert!(pairs.iter().all(|(_, weight)| *weight == 0.0));
        }
    }

    #[test]
    fn no_share_stays_above_the_limit_when_enough_weights_carry_it(
        weights in prop::collection::vec(0.01..1e6_f64, 12..100),
        limit in 0.1..1.0_f64,
    ) {
        let pairs: Vec<_> = (0..).zip(weights).collect();
        let shares = cap_largest_share(&pairs, limit);
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        prop_assert!(shares.iter().all(|(_, share)| *share <= limit + 1e-9));
    }
}
