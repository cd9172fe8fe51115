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
