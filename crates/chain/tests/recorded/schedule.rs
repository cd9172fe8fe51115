//! Epochs and reveals against the tables recorded from the official library (chain spec 5.1 and 6.2).

use std::time::Duration;

use byteleap_chain::schedule::{reveal_block, reveal_round};
use byteleap_chain::timelock::Beacon;
use byteleap_chain::{Epoch, Rules};
use serde_json::Value;

fn cases(table: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/weights_emit.json")).unwrap();
    vectors[table].as_array().unwrap().clone()
}

fn number(case: &Value, field: &str) -> u64 {
    case[field].as_u64().unwrap()
}

fn tempo(case: &Value) -> u16 {
    number(case, "tempo").try_into().unwrap()
}

/// The schedule of a case, where it states one.
fn epoch(case: &Value) -> Epoch {
    let field = |name: &str| case[name].as_u64().unwrap_or(0);
    let pending = field("pending_epoch_at");
    Epoch {
        index: field("subnet_epoch_index"),
        last_block: field("last_epoch_block"),
        pending_at: (pending > 0).then_some(pending),
        since_step: field("blocks_since_last_step"),
    }
}

fn rules(tempo: u16, reveal_period: u64) -> Rules {
    Rules {
        tempo,
        immunity_period: 0,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version: 0,
        weights_rate_limit: 0,
        serving_rate_limit: 0,
        admin_freeze_window: 10,
        stake_threshold: 0,
        commit_reveal: true,
        reveal_period,
        max_uids: 256,
    }
}

#[test]
fn a_commit_is_revealed_at_the_block_that_the_official_library_foretells() {
    for case in cases("reveal_schedule") {
        let (head, period) = (number(&case, "current_block"), number(&case, "reveal_period_epochs"));
        let reveal = reveal_block(epoch(&case), tempo(&case), period, head);
        assert_eq!(reveal, Some(number(&case, "first_reveal_block")), "{case}");

        // The round is the last one before the reveal block and its margin, in blocks of 12 seconds.
        let (now_s, beacon) = (1_700_000_000, Beacon::QUICKNET);
        let round = reveal_round(
            &beacon,
            &rules(tempo(&case), period),
            &epoch(&case),
            (head, now_s * 1000),
            Duration::from_secs(12),
        );
        let due_s = now_s + number(&case, "blocks_until_target") * 12;
        assert_eq!(round, Ok((due_s - beacon.genesis_s) / beacon.period_s), "{case}");
    }
}

#[test]
fn the_next_epoch_comes_when_the_official_library_says() {
    for case in cases("next_auto_epoch") {
        let next = epoch(&case).next(tempo(&case)).unwrap();
        let left = next.saturating_sub(number(&case, "block_number"));
        assert_eq!(left, number(&case, "blocks_until_next_auto_epoch"), "{case}");
    }
}

#[test]
fn a_subnet_without_epochs_reveals_nothing() {
    let epoch = Epoch { index: 0, last_block: 0, pending_at: None, since_step: 0 };
    assert_eq!(reveal_block(epoch, 0, 1, 100), None);
    assert!(reveal_round(&Beacon::QUICKNET, &rules(0, 1), &epoch, (100, 0), Duration::from_secs(12)).is_err());
}

#[test]
fn the_rules_are_frozen_when_the_official_library_says_so() {
    for case in cases("admin_freeze_window") {
        let window = number(&case, "admin_freeze_window").try_into().unwrap();
        let frozen = epoch(&case).freezes_rules(tempo(&case), window, number(&case, "block_number"));
        assert_eq!(Some(frozen), case["frozen"].as_bool(), "{case}");
    }
}
