//! What must not cost anybody anything: workers that all drop at once, strangers at the port, validators that fail.

use byteleap_protocol::id::ChallengeId;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::support::{Script, StubValidator, TestMiner, Worker, challenge};

/// A connection to the miner from another loopback address than the workers'.
async fn stranger(miner: std::net::SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
    socket.connect(miner).await.ok()
}

#[tokio::test]
async fn a_storm_of_reconnections_loses_no_result_that_was_in_time() {
    const WORKERS: usize = 10;
    let name = |number: usize| format!("w{number}");
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(Worker::register(miner.workers, &name(number)).await);
    }
    validator.hand_out((0..WORKERS).map(|number| challenge(&format!("c{number}"), &name(number))));
    for worker in &mut workers {
        worker.hear_task().await;
    }
    for _ in 0..3 {
        // Nobody says goodbye.
        workers.clear();
        for number in 0..WORKERS {
            workers.push(Worker::register(miner.workers, &name(number)).await);
        }
    }
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.complete(&ChallengeId::new(&format!("c{number}")).expect("an id"), '1').await;
        let (message_id, _) = worker.hear_query().await;
        worker.prove(message_id).await;
    }
    let mut proved = Vec::new();
    for _ in 0..WORKERS {
        proved.push(validator.next_proof().await.challenge_id.to_string());
    }
    proved.sort();
    assert_eq!(proved, (0..WORKERS).map(|number| format!("c{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_thousand_half_open_sockets_of_one_address_keep_no_worker_out() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.extend(stranger(miner.workers).await);
    }
    validator.hand_out([challenge("c1", "w1")]);
    Worker::register(miner.workers, "w1").await.do_round().await;
    validator.next_proof().await;
    assert!(miner.counted("worker_upgrades_refused_total") >= 1000 - 256);
}

#[tokio::test]
async fn a_slow_loris_keeps_no_worker_out() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut slow = stranger(miner.workers).await.expect("a connection");
        slow.write_all(b"GET /ws HTTP/1.1\r\nHost:").await.expect("sent");
        held.push(slow);
    }
    validator.hand_out([challenge("c1", "w1")]);
    let mut worker = Worker::register(miner.workers, "w1").await;
    for slow in &mut held {
        slow.write_all(b" ").await.expect("one byte more");
    }
    worker.do_round().await;
    validator.next_proof().await;
}

#[tokio::test]
async fn a_frame_of_17_mib_closes_its_own_connection_alone() {
    let validator = StubValidator::start(0x22).await;
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let mut hostile = Worker::register(miner.workers, "w2").await;
    hostile.declare_frame_of(17 << 20).await;
    assert_eq!(hostile.hear_close().await.0, 1009);
    validator.hand_out([challenge("c1", "w1")]);
    worker.do_round().await;
    validator.next_proof().await;
}

/// One of two validators gets this script for its first polls; the other's challenges are served meanwhile, and the first
/// one's once it has recovered.
async fn the_other_is_served_and_it_is_taken_back(failures: Vec<Script>) {
    let (failing, sound) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    failing.script("TaskSynapse", failures);
    sound.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&failing, &sound]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.do_round().await;
    assert_eq!(sound.next_proof().await.challenge_id.as_str(), "c1");
    failing.has_failed("TaskSynapse").await;
    failing.hand_out([challenge("c2", "w1")]);
    worker.do_round().await;
    assert_eq!(failing.next_proof().await.challenge_id.as_str(), "c2");
}

const JSON: &str = "application/json";

#[tokio::test]
async fn a_validator_whose_replies_are_no_replies_costs_the_others_nothing_and_is_taken_back() {
    let failures = vec![
        Script::Http(200, JSON, b"\xff\xfe\x00{{{"),
        Script::Http(200, "text/html", b"<html>It works!</html>"),
        Script::Http(200, JSON, br#"{"response": 7}"#),
        Script::Http(502, "text/plain", b"Bad Gateway"),
        Script::Truncated,
        Script::Oversized(9 << 20),
        Script::Endless,
    ];
    the_other_is_served_and_it_is_taken_back(failures).await;
}

#[tokio::test]
async fn a_validator_whose_answers_open_in_no_session_costs_the_others_nothing_and_is_taken_back() {
    let no_package = Script::Http(200, JSON, br#"{"response": "\ufffd"}"#);
    the_other_is_served_and_it_is_taken_back(vec![Script::Foreign, Script::Garbage, no_package]).await;
}

#[tokio::test]
async fn a_validator_that_fails_at_everything_costs_the_others_nothing_and_is_taken_back() {
    let failures = vec![Script::Plain("Processing failed", 5000), Script::Plain("\u{fffd}", 4015)];
    the_other_is_served_and_it_is_taken_back(failures).await;
}

#[tokio::test]
async fn a_validator_that_forgets_its_sessions_costs_the_others_nothing_and_is_taken_back() {
    let forgot = || Script::Plain("Session not found or expired: x", 4012);
    the_other_is_served_and_it_is_taken_back(vec![forgot(), forgot()]).await;
}

#[tokio::test]
async fn a_validator_that_is_down_costs_the_others_nothing_and_is_taken_back() {
    let ((down, recover), sound) = (StubValidator::start_down(0x22), StubValidator::start(0x33).await);
    down.hand_out([challenge("c2", "w1")]);
    sound.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&down, &sound]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    worker.do_round().await;
    assert_eq!(sound.next_proof().await.challenge_id.as_str(), "c1");
    recover();
    worker.do_round().await;
    assert_eq!(down.next_proof().await.challenge_id.as_str(), "c2");
}

#[tokio::test]
async fn a_validator_that_is_slow_costs_the_others_nothing() {
    let (slow, sound) = (StubValidator::start(0x22).await, StubValidator::start(0x33).await);
    slow.hang(true);
    slow.hand_out([challenge("c3", "w2")]);
    let miner = TestMiner::start(&[&slow, &sound]).await;
    let mut first = Worker::register(miner.workers, "w1").await;
    let mut second = Worker::register(miner.workers, "w2").await;
    for round in ["c1", "c2"] {
        sound.hand_out([challenge(round, "w1")]);
        first.do_round().await;
        assert_eq!(sound.next_proof().await.challenge_id.as_str(), round);
    }
    // Reports go on too, though the slow one has answered none.
    for _ in 0..3 {
        sound.next_heartbeat().await;
    }
    slow.hang(false);
    second.do_round().await;
    assert_eq!(slow.next_proof().await.challenge_id.as_str(), "c3");
}
