//! What the runner shows while a network runs, on standard error: a live table on a terminal, else a line per event.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use byteleap_daemon::admin;

use crate::{
    network::{Network, Plan},
    progress::{Progress, Stage},
};

/// Shows the progress of one network.
#[derive(Debug)]
pub struct Display {
    form: Form,
    drawn_lines: usize,
    last: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Silent,
    Events,
    Table,
}

/// A daemon as the table shows it.
#[derive(Debug)]
struct Row {
    name: String,
    state: String,
    admin: String,
}

impl Display {
    /// A display for this process's standard error.
    #[must_use]
    pub fn new() -> Self {
        Self::of(if io::stderr().is_terminal() { Form::Table } else { Form::Events })
    }

    /// A display that shows nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::of(Form::Silent)
    }

    fn of(form: Form) -> Self {
        Self { form, drawn_lines: 0, last: Progress::default() }
    }

    /// Shows a look at the network.
    pub async fn show(&mut self, network: &Network, progress: &Progress) {
        let text = match self.form {
            Form::Silent => return,
            Form::Events => events(&self.last, progress, network.uptime()),
            Form::Table => {
                let table = table(network.plan(), network.uptime(), progress, &rows(network.plan()).await);
                // Back to the first line of the last table, and over it.
                let back =
                    if self.drawn_lines == 0 { String::new() } else { format!("\x1b[{}A\x1b[J", self.drawn_lines) };
                self.drawn_lines = table.lines().count();
                back + &table
            }
        };
        self.last = progress.clone();
        // A display that nobody sees is no reason to stop.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

async fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::with_capacity(plan.daemons.len());
    for daemon in &plan.daemons {
        let state = match admin::get(daemon.admin, "/readyz").await {
            Ok(_) => "ready".to_owned(),
            Err(admin::ClientError::Status { body, .. }) => waits_for(&body),
            Err(_) => "starting".to_owned(),
        };
        rows.push(Row { name: daemon.name.clone(), state, admin: daemon.admin.to_string() });
    }
    rows
}

/// The closed gates out of the answer of `/readyz`.
fn waits_for(body: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let gates: Vec<&str> =
        answer["reasons"].as_object().into_iter().flat_map(|reasons| reasons.keys().map(String::as_str)).collect();
    format!("waits for {}", gates.join(", "))
}

fn table(plan: &Plan, uptime: Duration, progress: &Progress, rows: &[Row]) -> String {
    let facts = &progress.facts;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "block {}   {} s   {}   subnet {}",
        progress.block,
        uptime.as_secs(),
        plan.chain_url,
        plan.netuid
    );
    let _ = writeln!(out, "{:<12} {:<32} ADMIN", "DAEMON", "STATE");
    for row in rows {
        let _ = writeln!(out, "{:<12} {:<32} http://{}/status", row.name, row.state, row.admin);
    }
    let way: Vec<String> = Stage::ALL
        .into_iter()
        .map(|stage| format!("{} {stage}", if progress.has(stage) { "✓" } else { "·" }))
        .collect();
    let _ = writeln!(out, "{}", way.join("  "));
    let _ = writeln!(
        out,
        "challenges: {} created, {} committed, {} proved, {} verified, {} failed, {} void   weights {:?}",
        facts.created,
        facts.committed,
        facts.proved,
        facts.verified.len(),
        facts.failed,
        facts.voided,
        progress.weights
    );
    out
}

/// What is new since the last look, a line each.
fn events(last: &Progress, now: &Progress, uptime: Duration) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{:>6.1} s  {text}", uptime.as_secs_f64());
    };
    for stage in Stage::ALL {
        if now.has(stage) && !last.has(stage) {
            line(format!("first {stage}"));
        }
    }
    let known = last.facts.verified.len().min(now.facts.verified.len());
    for verified in &now.facts.verified[known..] {
        line(format!("challenge {} verified", verified.challenge_id));
    }
    if now.facts.failed > last.facts.failed {
        line(format!("{} challenges failed so far", now.facts.failed));
    }
    if !now.weights.is_empty() && now.weights != last.weights {
        line(format!("weights on chain at block {}: {:?}", now.block, now.weights));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Verified;

    #[test]
    fn an_event_is_told_once() {
        let mut now = Progress::default();
        now.facts.workers_heard = 2;
        now.facts.verified.push(Verified { challenge_id: "c-1".into(), finished_at_ms: 5 });
        let told = events(&Progress::default(), &now, Duration::from_millis(1500));
        assert_eq!(told, "   1.5 s  first heartbeat\n   1.5 s  first verdict\n   1.5 s  challenge c-1 verified\n");
        assert_eq!(events(&now, &now, Duration::from_secs(2)), "");
    }

    #[test]
    fn the_table_shows_each_daemon_and_each_stage() {
        let plan = Plan {
            pid: 1,
            started_at_ms: 0,
            chain_url: "ws://127.0.0.1:1".into(),
            netuid: 128,
            market_url: "ws://127.0.0.1:2".into(),
            market: ([127, 0, 0, 1], 3).into(),
            database: "v.db".into(),
            daemons: Vec::new(),
        };
        let rows = [Row { name: "miner-1".into(), state: "ready".into(), admin: "127.0.0.1:7798".into() }];
        let text = table(&plan, Duration::from_secs(9), &Progress::default(), &rows);
        assert!(text.contains("miner-1      ready") && text.contains("· weights"), "{text}");
    }

    #[test]
    fn a_daemon_that_is_not_ready_says_what_it_waits_for() {
        assert_eq!(waits_for(r#"{"ready":false,"reasons":{"chain":"no","miner":"no"}}"#), "waits for chain, miner");
    }
}
