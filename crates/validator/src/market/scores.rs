//! Reports of what a scoring round gave (validator spec 7.9), made from the stored round, so that a round that was not told
//! yet can be told whenever the marketplace is back.

use byteleap_protocol::meshhub::report::{
    Factors, GlobalStats, MinerShare, SCORE_REPORT_VERSION, ScoreReport, WORKER_CAP, WorkerShare,
};
use byteleap_protocol::meshhub::{MAX_WORKERS_PER_FRAME, MeshWorker};
use byteleap_scoring::{Round, WorkerScore};

use super::iso;

const MINUTE_MS: i64 = 60_000;

/// The frames of a round: one for miners and totals, and one for each 50 workers.
pub fn frames(round: &Round) -> Vec<ScoreReport> {
    let timestamp = iso(round.at_ms);
    let frame = || ScoreReport {
        timestamp: timestamp.clone(),
        version: SCORE_REPORT_VERSION.to_owned(),
        ..ScoreReport::default()
    };
    let shares = round.miners.iter().map(|miner| MinerShare { hotkey: miner.hotkey, weight: decimals(miner.weight) });
    let first =
        ScoreReport { miner_scores: Some(shares.collect()), global_stats: Some(global_stats(round)), ..frame() };
    let best = round.workers.iter().map(|worker| worker.performance).fold(0.0, f64::max);
    let workers = round.workers.chunks(MAX_WORKERS_PER_FRAME).map(|workers| ScoreReport {
        worker_scores: Some(workers.iter().map(|worker| worker_share(round, worker, best)).collect()),
        ..frame()
    });
    std::iter::once(first).chain(workers).collect()
}

fn global_stats(round: &Round) -> GlobalStats {
    let windows = round.rules.windows();
    let total: f64 = round.miners.iter().map(|miner| miner.weight).sum();
    GlobalStats {
        total_workers: round.workers.len() as u64,
        average_score: if round.miners.is_empty() { 0.0 } else { total / round.miners.len() as f64 },
        average_challenge_norm: round.mean_norm,
        window_start: iso(round.at_ms - i64::from(windows.ranking_minutes) * MINUTE_MS),
        window_end: iso(round.at_ms),
        participation_threshold: windows.participation_threshold,
        worker_cap: WORKER_CAP,
    }
}

fn worker_share(round: &Round, worker: &WorkerScore, best: f64) -> WorkerShare {
    let share = if best > 0.0 { decimals(worker.performance / best) } else { 0.0 };
    WorkerShare {
        worker_key: MeshWorker { hotkey: worker.hotkey, worker_id: worker.worker_id.clone() },
        calculated_at: iso(round.at_ms),
        score: share,
        perf_score: share,
        lease_score: worker.lease.get(),
        factors: Factors {
            availability: worker.availability.value,
            participation_baseline: round.baseline,
            participation_count: worker.successes,
            avg_exec_ms: worker.mean_ms,
            avg_exec_gpus: worker.mean_units,
            raw_perf_score: worker.performance,
        },
    }
}

/// Six decimals, as the marketplace expects them.
fn decimals(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
