//! What changed for a miner from one stored round to the next, factor by factor, with the facts behind it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use byteleap_protocol::id::WorkerId;
use byteleap_scoring::presence::Availability;
use byteleap_scoring::{MinerScore, WorkerScore};
use serde::Serialize;

/// One factor that is no longer what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The worker concerned; none when it is the miner as a whole.
    pub worker_id: Option<WorkerId>,
    /// The factor, as its field of the score is named.
    pub factor: &'static str,
    /// What it was.
    pub from: f64,
    /// What it is.
    pub to: f64,
    /// The facts behind it.
    pub because: String,
}

/// A miner's part of a round: its own score, when it was registered, and those of its workers, by id.
pub type Part = (Option<MinerScore>, Vec<WorkerScore>);

/// What differs between two parts of the same miner.
pub fn changes((old, old_workers): &Part, (new, new_workers): &Part) -> Vec<Change> {
    let mut changes = Vec::new();
    match (old, new) {
        (Some(old), Some(new)) => miner(old, new, &mut changes),
        (None, Some(new)) => {
            add(&mut changes, None, "weight", 0.0, new.weight, format!("registered as uid {}", new.uid))
        }
        (Some(old), None) => add(&mut changes, None, "weight", old.weight, 0.0, "no longer registered".to_owned()),
        (None, None) => {}
    }
    let by_id = |workers: &[WorkerScore]| -> BTreeMap<WorkerId, WorkerScore> {
        workers.iter().map(|worker| (worker.worker_id.clone(), worker.clone())).collect()
    };
    let (old_workers, new_workers) = (by_id(old_workers), by_id(new_workers));
    for (id, new) in &new_workers {
        match old_workers.get(id) {
            Some(old) => worker(old, new, &mut changes),
            None => add(&mut changes, Some(id), "performance", 0.0, new.performance, "a new worker".to_owned()),
        }
    }
    for (id, old) in old_workers.iter().filter(|(id, _)| !new_workers.contains_key(id)) {
        add(&mut changes, Some(id), "performance", old.performance, 0.0, "this worker is gone".to_owned());
    }
    changes
}

fn miner(old: &MinerScore, new: &MinerScore, changes: &mut Vec<Change>) {
    let mut factor = |name, from: f64, to: f64, because: String| {
        if from != to {
            add(changes, None, name, from, to, because);
        }
    };
    let others = "its share of all scores, those of others included".to_owned();
    factor("weight", old.weight, new.weight, others);
    factor("score", old.score, new.score, reason(&new.zero, "composite and availability follow"));
    factor("online", f64::from(u8::from(old.online)), f64::from(u8::from(new.online)), "1 is online".to_owned());
    factor("availability", old.availability, new.availability, presence(&old.presence, &new.presence));
    let lease = format!(
        "its leases add up to {} (were {}), over {} (was {})",
        new.lease.sum, old.lease.sum, new.lease.divisor, old.lease.divisor
    );
    factor("lease", old.lease.value, new.lease.value, reason(&new.lease.zero, &lease));
    let challenge = format!("its workers add up to {:.6} (were {:.6})", new.raw, old.raw);
    factor("challenge", old.challenge, new.challenge, reason(&new.challenge_zero, &challenge));
}

fn worker(old: &WorkerScore, new: &WorkerScore, changes: &mut Vec<Change>) {
    let id = Some(&new.worker_id);
    if old.lease != new.lease {
        let because = if new.lease.get() > 0.0 { "the marketplace leases it" } else { "its lease ended" };
        add(changes, id, "lease", old.lease.get(), new.lease.get(), because.to_owned());
    }
    if old.performance != new.performance {
        let rank = |worker: &WorkerScore| {
            worker
                .rank
                .map_or_else(String::new, |rank| format!(", rank {} of {}", rank.better.saturating_add(1), rank.of))
        };
        let because = format!(
            "{} of {} challenges passed{} (were {} of {}{})",
            new.successes,
            new.attempts,
            rank(new),
            old.successes,
            old.attempts,
            rank(old)
        );
        add(changes, id, "performance", old.performance, new.performance, reason(&new.zero, &because));
    }
    if old.availability.address_changes != new.availability.address_changes {
        let [from, to] = [old, new].map(|worker| f64::from(worker.availability.address_changes));
        add(changes, id, "address_changes", from, to, "changes of public address within the window".to_owned());
    }
}

fn presence(old: &Availability, new: &Availability) -> String {
    let absent = |seen: &Availability| f64::from(seen.expected.saturating_sub(seen.present)) / 12.0;
    format!(
        "{:.1} of {:.1} hours absent (were {:.1}), {} address changes (were {})",
        absent(new),
        f64::from(new.expected) / 12.0,
        absent(old),
        new.address_changes,
        old.address_changes
    )
}

/// The reason of a zero, else what stands behind the number.
fn reason(zero: &Option<impl Display>, because: &str) -> String {
    zero.as_ref().map_or_else(|| because.to_owned(), |zero| format!("{zero}; {because}"))
}

fn add(
    changes: &mut Vec<Change>,
    worker_id: Option<&WorkerId>,
    factor: &'static str,
    from: f64,
    to: f64,
    because: String,
) {
    changes.push(Change { worker_id: worker_id.cloned(), factor, from, to, because });
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(worker_id) = &self.worker_id {
            write!(f, "{worker_id}: ")?;
        }
        write!(f, "{} {:.6} -> {:.6}: {}", self.factor, self.from, self.to, self.because)
    }
}
