//! `byteleap-validator bench`: the measurements still measure.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn heartbeats_are_measured_at_a_validator_of_their_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"))
        .args(["bench", "heartbeats", "--miners", "1", "--workers", "2", "--gpus", "1", "--seconds", "1", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for figure in ["heartbeats_per_s", "workers_per_s", "p50_ms", "p99_ms", "rss_mb"] {
        assert!(report[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {report}");
    }
    assert_eq!(report["errors"], 0, "{report}");
}

#[test]
fn the_bench_of_rounds_prints_one_json_object_and_leaves_no_database() {
    let folder = tempfile::tempdir().unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_byteleap-validator"))
        .args(["bench", "round", "--miners", "2", "--workers", "2", "--rounds", "1", "--json"])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    for key in ["median_ms", "first_ms", "miners", "workers", "challenges", "rounds"] {
        assert!(keys.contains(&key), "{key} is not among {keys:?}");
    }
    assert_eq!((&report["miners"], &report["workers"], &report["rounds"]), (&2.into(), &2.into(), &1.into()));
    assert!(report["median_ms"].as_f64().unwrap() > 0.0 && report["challenges"].as_i64().unwrap() > 0);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "its database is gone");
}
