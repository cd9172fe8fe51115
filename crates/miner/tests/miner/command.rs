//! The program as an operator meets it: exit codes and what is printed.

use std::{path::Path, process::Output};

use tokio::process::Command;

use crate::support::{StubValidator, TestMiner, Worker, challenge};

async fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_byteleap-miner")).args(arguments).output().await.expect("the program")
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_wrong_configuration_exits_with_2_and_names_every_problem() {
    let output = run(&["check", "--set", "netuid=0", "--set", "heartbeat_interval=soon"]).await;
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("netuid") && message.contains("heartbeat_interval"), "{message}");
}

#[tokio::test]
async fn a_check_names_the_missing_wallet_and_the_dead_chain_at_once() {
    let wallets = tempfile::tempdir().expect("a folder");
    let path = format!("wallet.path={}", wallets.path().display());
    let arguments =
        ["check", "--set", &path, "--set", "subtensor.network=ws://127.0.0.1:1", "--set", "worker_management.port=0"];
    let output = run(&arguments).await;
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.contains("2 problem(s)"), "{message}");
    assert!(message.contains("keyfile") && message.contains("chain unreachable"), "{message}");
}

#[tokio::test]
async fn the_workers_of_a_running_miner_are_listed() {
    let miner = TestMiner::start(&[]).await;
    let _worker = Worker::register(miner.workers, "rack2-node7").await;
    let listen = format!("http.listen={}", miner.admin);
    let output = run(&["workers", "list", "--set", &listen]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert!(lines[0].starts_with("WORKER") && lines[1].starts_with("rack2-node7"), "{lines:?}");
    let output = run(&["status", "--set", &listen]).await;
    assert!(text(&output.stdout).contains(&miner.workers.to_string()));
}

#[tokio::test]
async fn a_worker_is_enrolled_in_the_book_of_the_running_miner_or_not_at_all() {
    let miner = TestMiner::start(&[]).await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    let key = "07".repeat(32);
    let listen = format!("http.listen={}", miner.admin);
    let state_dir = |folder: &Path| format!("state_dir={}", folder.display());
    let run_in = async |folder: &Path, arguments: &[&str]| {
        let settings = ["--set", &listen, "--set", &state_dir(folder)];
        run(&[arguments, &settings].concat()).await
    };
    let output = run_in(elsewhere.path(), &["workers", "enroll", &key]).await;
    assert_eq!(output.status.code(), Some(1));
    let advice = format!("--set {}", state_dir(&miner.settings.state_dir));
    assert!(text(&output.stderr).contains(&advice), "{}", text(&output.stderr));
    let output = run_in(&miner.settings.state_dir, &["workers", "enroll", &key]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run_in(&miner.settings.state_dir, &["workers", "list", "--enrolled"]).await;
    assert!(text(&output.stdout).starts_with(&key), "{}", text(&output.stdout));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_miner_that_does_not_run_is_said_so() {
    let output = run(&["workers", "list", "--set", "http.listen=127.0.0.1:1"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is the daemon running"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_bench_measures_a_miner_of_its_own_over_either_link_and_loses_nobody() {
    const BENCH: [&str; 9] = ["bench", "connections", "--workers", "20", "--seconds", "1", "--period-s", "0", "--json"];
    for more in [&[][..], &["--tls"]] {
        let output = run(&[&BENCH[..], more].concat()).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!((&report["workers"], &report["dropped"]), (&20.into(), &0.into()));
        for name in ["heartbeats_per_s", "p50_ms", "p99_ms", "rss_mb", "rss_kb_per_worker"] {
            assert!(report[name].as_f64().is_some_and(|figure| figure > 0.0), "{name}: {report}");
        }
    }
}

#[tokio::test]
async fn a_drained_miner_finishes_what_it_has_takes_nothing_new_and_says_when_it_may_be_stopped() {
    let validator = StubValidator::start(0x22).await;
    validator.hand_out([challenge("c1", "w1")]);
    let miner = TestMiner::start(&[&validator]).await;
    let mut worker = Worker::register(miner.workers, "w1").await;
    let task = worker.hear_task().await;
    let listen = format!("http.listen={}", miner.admin);

    let output = run(&["drain", "--timeout", "0", "--set", &listen]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("1 challenge(s)"), "{}", text(&output.stderr));
    validator.hand_out([challenge("c2", "w1")]);
    worker.complete(&task.task_id, '1').await;
    let (message_id, _) = worker.hear_query().await;
    worker.prove(message_id).await;
    let output = run(&["drain", "--set", &listen]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("safe to stop"));
    assert_eq!(validator.unfetched(), 1, "it asked for nothing more");

    let status = miner.status().await;
    let last = status.workers[0].last_challenge.as_ref().expect("a last challenge");
    assert_eq!((last.challenge_id.as_str(), last.end.as_deref()), ("c1", Some("proved")));
    let passed: Vec<_> = last.hops.named().map(|(hop, _)| hop).collect();
    assert_eq!(passed, ["queue", "task_network", "compute", "commit", "proof_network", "open", "prove"]);
    assert!(status.draining && status.workers[0].idle_because.as_ref().is_some_and(|why| why.contains("drain")));

    let output = run(&["drain", "--cancel", "--set", &listen]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    worker.do_round().await;
    validator.next_proof().await;
}

#[tokio::test]
async fn status_and_workers_are_printed_as_json_too() {
    let miner = TestMiner::start(&[]).await;
    let _worker = Worker::register(miner.workers, "rack2-node7").await;
    let listen = format!("http.listen={}", miner.admin);
    let json = async |arguments: &[&str]| -> serde_json::Value {
        let output = run(&[arguments, &["--json", "--set", &listen]].concat()).await;
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    assert_eq!(json(&["status"]).await["workers"][0]["worker_id"], "rack2-node7");
    let workers = json(&["workers", "list"]).await;
    assert!(workers[0]["idle_because"].as_str().is_some_and(|why| why.contains("no validator")), "{workers}");
}
