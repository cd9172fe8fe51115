//! What validators tell of workers: it round-trips as it is, and nothing in its place costs the message that it came in.

use byteleap_protocol::feedback::{
    Lease, MAX_NOTE_CHARS, MinerFeedback, MinerScore, Outcome, Relayed, Told, Verdict, WorkerFeedback, WorkerScore, cut,
};
use byteleap_protocol::frame::MinerFrame;
use byteleap_protocol::payload::HeartbeatResponse;
use byteleap_protocol::{canonical, lenient};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::messages::{hotkey, name};

fn instant() -> impl Strategy<Value = i64> {
    0..4_000_000_000_000_i64
}

fn note() -> impl Strategy<Value = Option<String>> {
    "\\PC{0,300}".prop_map(|text| cut(&text))
}

fn lease() -> impl Strategy<Value = Lease> {
    (any::<bool>(), instant(), instant(), any::<bool>()).prop_map(
        |(leased, changed_at_ms, confirmed_at_ms, is_stale)| Lease { leased, changed_at_ms, confirmed_at_ms, is_stale },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let outcome = prop_oneof![Just(Outcome::Verified), Just(Outcome::Failed), Just(Outcome::Void)];
    let times = (option::of(0.0..1e9), option::of(0.0..1e9));
    (name(), "[a-z_]{1,12}", outcome, note(), instant(), any::<(u32, u32)>(), times).prop_map(
        |(challenge_id, kind, outcome, reason, ended_at_ms, (units_ok, units), (compute_ms, verify_ms))| Verdict {
            challenge_id,
            kind,
            outcome,
            reason,
            ended_at_ms,
            units_ok,
            units,
            compute_ms,
            verify_ms,
        },
    )
}

fn worker_score() -> impl Strategy<Value = WorkerScore> {
    (any::<u32>(), instant(), 0.0..1e3, any::<(u32, u32)>(), note()).prop_map(
        |(round, at_ms, performance, (attempts, successes), zero)| WorkerScore {
            round: round.into(),
            at_ms,
            performance,
            attempts,
            successes,
            zero,
        },
    )
}

fn worker() -> impl Strategy<Value = WorkerFeedback> {
    let parts = (option::of(lease()), option::of(verdict()), option::of(worker_score()));
    (name(), parts, note(), option::of(instant())).prop_map(
        |(worker_id, (lease, verdict, score), no_challenge, next_challenge_at_ms)| WorkerFeedback {
            worker_id,
            lease,
            verdict,
            score,
            no_challenge,
            next_challenge_at_ms,
        },
    )
}

/// What a miner passes on to a worker.
pub(crate) fn relayed() -> impl Strategy<Value = Relayed> {
    let told =
        (hotkey(), instant(), worker()).prop_map(|(validator, at_ms, feedback)| Told { validator, at_ms, feedback });
    (note(), prop::collection::vec(told, 0..3))
        .prop_map(|(idle_because, validators)| Relayed { idle_because, validators })
}

/// What a validator puts into its answer to a heartbeat.
pub(crate) fn miner_feedback() -> impl Strategy<Value = MinerFeedback> {
    let score = (any::<u32>(), instant(), 0.0..1.0, 0.0..1.0, note())
        .prop_map(|(round, at_ms, score, weight, zero)| MinerScore { round: round.into(), at_ms, score, weight, zero });
    (option::of(score), prop::collection::vec(worker(), 0..3))
        .prop_map(|(score, workers)| MinerFeedback { score, workers })
}

/// Any JSON, with the keys of feedback at every level.
fn strange() -> impl Strategy<Value = Value> {
    const KEYS: &str = "workers|validators|score|worker_id|lease|leased|verdict|outcome|kind|no_challenge|round|at_ms|feedback|idle_because";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,300}".prop_map(Value::from),
        Just(json!("NaN")),
        Just(json!("verified")),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let entries = prop::collection::hash_map(KEYS, inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn strange_feedback_never_costs_the_answer_and_what_is_read_of_it_round_trips(feedback in strange()) {
        let answer = json!({ "error_code": 0, "workers_processed": 3, "feedback": feedback });
        let answer: HeartbeatResponse = serde_json::from_value(answer).unwrap();
        prop_assert_eq!(answer.workers_processed, 3);
        let again: HeartbeatResponse =
            serde_json::from_value(lenient::parse(&canonical::sorted(&answer)).unwrap()).unwrap();
        prop_assert_eq!(&again, &answer);
        for worker in answer.feedback.iter().flat_map(|feedback| &feedback.workers) {
            for note in [&worker.no_challenge, &worker.verdict.clone().and_then(|verdict| verdict.reason)] {
                let is_fit = |note: &String| note.chars().count() <= MAX_NOTE_CHARS && !note.contains(char::is_control);
                prop_assert!(note.as_ref().is_none_or(is_fit));
            }
            let lines = [worker.lease_line(0), worker.verdict_line(0), worker.score_line(0), worker.turn_line(0)];
            prop_assert!(lines.iter().all(|line| !line.is_empty()));
        }
    }

    #[test]
    fn a_frame_of_strange_feedback_is_one_of_what_can_be_read(data in strange()) {
        let frame = MinerFrame::decode(json!({ "type": "feedback", "data": data }).to_string().as_bytes()).unwrap();
        prop_assert_eq!(MinerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
    }
}
