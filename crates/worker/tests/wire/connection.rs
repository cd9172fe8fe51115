//! How connections begin and end, and what a worker carries from one to the next.

use std::time::Duration;

use byteleap_protocol::frame::{MinerFrame, WorkerFrame};
use byteleap_worker::link::Timing;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::bench::{Bench, calm};
use crate::miner::{Miner, WorkerEnd};

#[tokio::test]
async fn a_close_is_noticed_at_once_and_answered_by_a_new_registration() {
    let miner = Miner::start().await;
    let mut bench = Bench::start(&miner, calm());
    for (code, text) in [(1000, ""), (1001, "Connection replaced"), (1011, "oops"), (4003, "Heartbeat timeout")] {
        let connection = miner.registered().await;
        connection.close(code, text).await;
        bench.away_because(&code.to_string()).await;
    }
    miner.registered().await;
}

#[tokio::test]
async fn a_refused_registration_is_reported_with_code_and_text_and_tried_again() {
    let miner = Miner::start().await;
    let mut bench = Bench::start(&miner, calm());
    let (connection, _) = miner.connection().await;
    connection.close(4000, "Invalid registration").await;
    let reason = bench.away_because("4000").await;
    assert!(reason.contains("Invalid registration"), "{reason}");
    miner.registered().await;
}

#[tokio::test]
async fn a_registration_without_an_answer_is_closed_and_tried_again() {
    let miner = Miner::start().await;
    let timing = Timing { registration_timeout: Duration::from_millis(30), ..calm() };
    let mut bench = Bench::start(&miner, timing);
    let (connection, _) = miner.connection().await;
    assert_eq!(connection.end().await, WorkerEnd::Closed(1011));
    bench.away_because("no answer").await;
    miner.connection().await;
}

#[tokio::test]
async fn after_a_loss_without_a_close_the_worker_registers_twice() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    drop(miner.registered().await);
    let first = miner.registered().await;
    assert_eq!(first.end().await, WorkerEnd::Closed(1000));
    let second = miner.registered().await;
    second.close(1001, "").await;
    // This end was clean: one registration is enough.
    let mut third = miner.registered().await;
    third.assign("c", "quantum", json!({})).await;
    third.result().await;
}

#[tokio::test]
async fn a_challenge_that_was_under_way_survives_the_loss_of_its_connection() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    connection.assign_cpu("c1").await;
    connection.close(1001, "").await;
    let mut next = miner.registered().await;
    let result = next.result().await;
    assert_eq!(result.task_id.as_str(), "c1");
    assert!(result.data.success);
    next.ask_for_rows("m1", "c1", &[5]).await;
    assert!(next.proof().await.1.success);
}

#[tokio::test]
async fn a_result_goes_out_again_until_its_arrival_is_proved() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut first = miner.registered().await;
    first.assign("c1", "quantum", json!({})).await;
    assert_eq!(first.result().await.task_id.as_str(), "c1");
    // The ping behind the result is never answered.
    drop(first);
    miner.registered().await.end().await;

    let mut second = miner.registered().await;
    assert_eq!(second.result().await.task_id.as_str(), "c1");
    second.answer_ping().await;
    // The pong reaches the worker before the close does.
    second.close(1001, "").await;

    let mut third = miner.registered().await;
    third.assign("c2", "quantum", json!({})).await;
    assert_eq!(third.result().await.task_id.as_str(), "c2", "c1 had arrived");
}

#[tokio::test]
async fn a_result_that_the_miner_closes_over_is_not_sent_again() {
    let miner = Miner::start().await;
    let _bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    connection.assign("a", "quantum", json!({})).await;
    assert_eq!(connection.result().await.task_id.as_str(), "a");
    connection.close(4008, "Task of another worker").await;
    let mut connection = miner.registered().await;
    connection.assign("b", "quantum", json!({})).await;
    assert_eq!(connection.result().await.task_id.as_str(), "b", "not a again");
}

#[tokio::test]
async fn a_miner_that_answers_no_ping_is_given_up() {
    let miner = Miner::start().await;
    let timing = Timing { ping_interval: Duration::from_millis(10), ping_timeout: Duration::from_millis(50), ..calm() };
    let mut bench = Bench::start(&miner, timing);
    let connection = miner.registered().await;
    // Nobody reads this connection, so that no ping is answered.
    bench.away_because("no answer").await;
    drop(connection);
}

#[tokio::test]
async fn a_live_connection_outlasts_many_pings() {
    let miner = Miner::start().await;
    let timing = Timing { ping_interval: Duration::from_millis(1), ..calm() };
    let _bench = Bench::start(&miner, timing);
    let mut connection = miner.registered().await;
    for _ in 0..50 {
        connection.answer_ping().await;
    }
    connection.assign_cpu("c1").await;
    assert!(connection.result().await.data.success);
}

#[tokio::test]
async fn a_message_above_1_mib_is_closed_with_1009() {
    let miner = Miner::start().await;
    let mut bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    connection.send_raw(Message::text(" ".repeat((1 << 20) + 1))).await;
    assert_eq!(connection.end().await, WorkerEnd::Closed(1009));
    bench.away_because("1 MiB").await;
    miner.registered().await;
}

#[tokio::test]
async fn a_stopping_worker_computes_and_proves_what_it_holds_and_closes_with_1000() {
    let miner = Miner::start().await;
    let bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    let data = json!({"matrix_size": 700, "seed": "07"});
    connection.assign("c1", "cpu_matrix", data).await;
    // The answer to this request shows that the worker holds the task.
    connection.ask_for_rows("m1", "none", &[0]).await;
    connection.proof().await;
    bench.stop();
    let result = connection.result().await;
    assert!(result.data.success, "{result:?}");
    connection.ask_for_rows("m2", "c1", &[0, 699]).await;
    assert!(connection.proof().await.1.success);
    assert_eq!(connection.end().await, WorkerEnd::Closed(1000));
    bench.ended().await;
}

#[tokio::test]
async fn a_stopping_worker_does_not_wait_long_for_a_proof_request() {
    let miner = Miner::start().await;
    let bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    connection.assign_cpu("c1").await;
    assert!(connection.result().await.data.success);
    bench.stop();
    assert_eq!(connection.end().await, WorkerEnd::Closed(1000));
    bench.ended().await;
}

#[tokio::test]
async fn a_worker_without_a_connection_stops_at_once() {
    let miner = Miner::start().await;
    let bench = Bench::start(&miner, calm());
    bench.stop();
    bench.ended().await;
}

#[tokio::test]
async fn what_validators_say_is_kept_for_the_status_whatever_the_miner_sends_in_its_place() {
    let miner = Miner::start().await;
    let bench = Bench::start(&miner, calm());
    let mut connection = miner.registered().await;
    let told = json!({
        "validator": crate::miner::VALIDATOR,
        "at_ms": 1,
        "feedback": {"worker_id": "w", "no_challenge": "it is leased"},
    });
    for (data, told) in [
        (json!({"idle_because": "drained", "validators": [told, 7]}), 1),
        (json!({"validators": "none"}), 0),
        (json!(null), 0),
    ] {
        let frame = json!({"type": "feedback", "data": data}).to_string();
        connection.send_raw(Message::text(frame)).await;
        // Answered in order, so what came before it has been taken in.
        connection.send(MinerFrame::HeartbeatRequest { message_id: None }).await;
        while !matches!(connection.frame().await, WorkerFrame::HeartbeatResponse { .. }) {}
        let kept = bench.told.get();
        assert_eq!(kept.validators.len(), told, "{data}");
        assert_eq!(kept.idle_because.as_deref(), data["idle_because"].as_str());
    }
}
