//! The program as an operator meets it: exit codes and what is printed.

use std::process::Output;

use tokio::process::Command;

use crate::support::{TestMiner, Worker};

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
