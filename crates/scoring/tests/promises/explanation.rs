//! A round is its own explanation: whoever holds its JSON, and neither the facts nor this program, gets every score,
//! weight and 16-bit value again (validator spec 5.4, 5.5; chain spec 5.3).

use byteleap_chain::Weights;
use byteleap_scoring::score;
use proptest::prelude::*;
use serde_json::Value;

use super::properties::{facts, rules};

/// What a reader of the JSON makes of one miner.
#[derive(Debug, PartialEq)]
struct Recomputed {
    uid: u64,
    composite: f64,
    score: f64,
    weight: f64,
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// A worker's performance: what its rank or its speed is worth, times its presence where the profile says so.
fn performance(profile: &Value, worker: &Value) -> f64 {
    if !worker["zero"].is_null() {
        return 0.0;
    }
    let base = if profile["performance_mode"] == "ranked" {
        let (better, of) = (number(&worker["rank"]["better"]), number(&worker["rank"]["of"]));
        if of <= 1.0 { 1.0 } else { (-3.5 * (better / (of - 1.0)).powf(1.8)).exp().clamp(0.03, 1.0) }
    } else {
        number(&worker["participation"]) / number(&worker["mean_ms"])
    };
    if profile["availability_scope"] == "worker_challenge" {
        base * availability(&worker["availability"])
    } else {
        base
    }
}

fn availability(seen: &Value) -> f64 {
    let changes = number(&seen["address_changes"]);
    let factor = if changes > 3.0 { 0.0 } else { 0.5_f64.powf(changes) };
    (number(&seen["present"]) / number(&seen["expected"])).min(1.0) * factor
}

/// The sum of a miner's hundred best performances.
fn raw(round: &Value, hotkey: &Value) -> f64 {
    let workers = round["workers"].as_array().into_iter().flatten().filter(|worker| worker["hotkey"] == *hotkey);
    let mut best: Vec<f64> = workers.map(|worker| performance(&round["rules"]["profile"], worker)).collect();
    best.sort_by(|left, right| right.total_cmp(left));
    best.iter().take(100).sum()
}

fn lease(profile: &Value, lease: &Value) -> f64 {
    let (sum, divisor) = (number(&lease["sum"]), number(&lease["divisor"]));
    let dividend = if profile["lease_aggregate"] == "sum" { sum.min(100.0) } else { sum };
    if lease["zero"].is_null() { (dividend / divisor).min(1.0) } else { 0.0 }
}

fn recompute(round: &Value) -> Vec<Recomputed> {
    let profile = &round["rules"]["profile"];
    let miners = round["miners"].as_array().expect("a list of miners");
    let max_raw = number(&round["max_raw"]);
    let norm = |miner: &Value| if max_raw > 0.0 { (raw(round, &miner["hotkey"]) / max_raw).min(1.0) } else { 0.0 };
    let mean_norm = miners.iter().map(norm).sum::<f64>() / miners.len().max(1) as f64;
    let mut recomputed: Vec<Recomputed> = miners
        .iter()
        .map(|miner| {
            let (is_online, lease) = (miner["online"] == true, lease(profile, &miner["lease"]));
            let challenge = match profile["leased_challenge"].as_str() {
                _ if !is_online => 0.0,
                Some("average") if lease > 0.0 => mean_norm,
                Some("zero") if lease > 0.0 => 0.0,
                _ => norm(miner),
            };
            let composite = number(&profile["challenge_weight"]) * challenge + number(&profile["lease_weight"]) * lease;
            let by_miner = profile["availability_scope"] == "miner_composite";
            let factor = if by_miner { availability(&miner["presence"]) } else { 1.0 };
            let score = if is_online { composite * factor } else { 0.0 };
            Recomputed { uid: miner["uid"].as_u64().expect("a uid"), composite, score, weight: 0.0 }
        })
        .collect();
    let sum: f64 = recomputed.iter().map(|miner| miner.score).sum();
    let share = 1.0 / recomputed.len() as f64;
    for miner in &mut recomputed {
        miner.weight = match round["outcome"].as_str() {
            Some("scored") => miner.score / sum,
            Some("uniform") => share,
            _ => 0.0,
        };
    }
    recomputed
}

/// The 16-bit values of the online miners, by uid.
fn values(round: &Value, miners: &[Recomputed]) -> Vec<(u64, u64)> {
    let is_online = round["miners"].as_array().into_iter().flatten().map(|miner| miner["online"] == true);
    let mut paid: Vec<&Recomputed> =
        miners.iter().zip(is_online).filter(|(_, is_online)| *is_online).map(|(miner, _)| miner).collect();
    paid.sort_by_key(|miner| miner.uid);
    let top = paid.iter().map(|miner| miner.weight).fold(0.0, f64::max);
    let value = |weight: f64| (weight / top * 65_535.0).round_ties_even() as u64;
    paid.iter().map(|miner| (miner.uid, value(miner.weight))).filter(|(_, value)| *value > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn composite_weight_and_u16_follow_from_the_json_alone(rules in rules(), facts in facts()) {
        let round = score(&rules, &facts);
        let json: Value = serde_json::from_str(&serde_json::to_string(&round).expect("plain data")).expect("JSON");

        let miners = recompute(&json);

        let told: Vec<Recomputed> = round
            .miners
            .iter()
            .map(|miner| Recomputed {
                uid: miner.uid.into(),
                composite: miner.composite,
                score: miner.score,
                weight: miner.weight,
            })
            .collect();
        prop_assert_eq!(&miners, &told);
        let emitted = Weights::emit(&round.payable(), 0).expect("weights");
        let emitted: Vec<(u64, u64)> =
            emitted.iter().flat_map(Weights::pairs).map(|(uid, value)| (uid.into(), value.into())).collect();
        prop_assert_eq!(values(&json, &miners), emitted);
    }
}
