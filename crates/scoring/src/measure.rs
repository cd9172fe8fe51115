//! From facts to measures: everything counted that scoring needs to know, and nothing that depends on a profile.
//!
//! [`measure`] counts challenges within the ranking window and presence within the availability window. What it answers
//! is small, is stored with each round, and is all that the second half of scoring ([`crate::round::weigh`]) reads: so a
//! stored round can be replayed under another profile ([`Measures::of`]), and a changed measure shows what it is worth.

use std::collections::BTreeMap;

use byteleap_protocol::{
    hotkey::Hotkey,
    id::{GpuUuid, WorkerId},
};
use serde::{Deserialize, Serialize};

use crate::{
    facts::{Facts, LeaseScore, MinerFacts, WorkerFacts},
    performance::{LEAST_MEAN_MS, Tally, tally},
    presence::{Buckets, Window},
    round::Round,
    rules::Windows,
};

/// Everything that a round is scored by, besides its rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// The instant of the facts, unix milliseconds UTC.
    pub at_ms: i64,
    /// Over which time challenges and presence were counted.
    pub windows: Windows,
    /// The time that could have been spent present.
    pub span: Span,
    /// Every hotkey, registered or not.
    pub miners: BTreeMap<Hotkey, MinerMeasures>,
}

/// The availability window, in five-minute buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// All of the window: twelve an hour.
    pub window: u32,
    /// Those in which this validator can tell presence from absence: somebody was seen, or, where there is but one miner
    /// that could be seen, this validator was scoring.
    pub observed: u32,
}

/// One miner, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinerMeasures {
    /// Its uid in the metagraph of the facts; none when it is not registered.
    pub uid: Option<u16>,
    /// Whether it was online.
    pub online: bool,
    /// Buckets in which any of its workers was seen.
    pub present: u32,
    /// Its workers.
    pub workers: BTreeMap<WorkerId, WorkerMeasures>,
}

/// One worker, counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerMeasures {
    /// Its newest heartbeat, unix milliseconds UTC.
    pub last_seen_ms: Option<i64>,
    /// Beyond the miner's 100 oldest live workers.
    pub over_limit: bool,
    /// What the marketplace says it earns.
    pub lease: LeaseScore,
    /// Challenges with a verdict in the ranking window that count.
    pub attempts: u32,
    /// Challenges ignored because they name a GPU that the miner does not hold.
    pub foreign: u32,
    /// Attempts that passed and took a known time.
    pub successes: u32,
    /// Mean milliseconds per unit over the successes.
    pub mean_ms: Option<f64>,
    /// Mean units over the successes.
    pub mean_units: Option<f64>,
    /// Buckets in which it counts as present: its own for CPU work, those in which its miner reported every GPU that it
    /// was challenged on for GPU work; none when it was itself never seen.
    pub present: u32,
    /// How often its public address changed within the availability window.
    pub address_changes: u32,
}

impl WorkerMeasures {
    /// The mean time, if it is one that work can take.
    pub(crate) fn plausible_mean_ms(&self) -> Option<f64> {
        self.mean_ms.filter(|ms| *ms >= LEAST_MEAN_MS)
    }

    /// Share of the baseline that was reached, 0 to 1.
    pub(crate) fn participation(&self, baseline: f64) -> f64 {
        (f64::from(self.successes) / baseline).min(1.0)
    }
}

/// Counts what happened within the windows.
#[must_use]
pub fn measure(windows: &Windows, facts: &Facts) -> Measures {
    let window = Window::ending(facts.now_ms, windows.availability_hours);
    let span = Span { window: window.expected(), observed: observed(&window, facts) };
    let since_ms = facts.now_ms - i64::from(windows.ranking_minutes) * 60_000;
    let miner = |(hotkey, miner): (&Hotkey, &MinerFacts)| {
        let reported = reported(&window, miner);
        let workers = miner.workers.iter().map(|(id, worker)| {
            let tally = tally(&worker.challenges, hotkey, &facts.gpus, since_ms);
            (id.clone(), count(worker, &tally, present(&window, &reported, worker, &tally)))
        });
        let measures = MinerMeasures {
            uid: miner.uid,
            online: miner.online,
            present: seen(&window, miner.workers.values()).count(),
            workers: workers.collect(),
        };
        (*hotkey, measures)
    };
    Measures { at_ms: facts.now_ms, windows: windows.clone(), span, miners: facts.miners.iter().map(miner).collect() }
}

/// How many buckets tell presence from absence. Several miners that are silent at once tell of this validator; the
/// silence of the only one is its own while this validator was scoring.
fn observed(window: &Window, facts: &Facts) -> u32 {
    let mut observed = window.never();
    let mut heard = 0;
    for miner in facts.miners.values() {
        let seen = seen(window, miner.workers.values());
        heard += u32::from(seen.count() > 0);
        observed.extend(&seen);
    }
    if heard <= 1 {
        facts.scoring.iter().for_each(|(day, buckets)| window.add(&mut observed, *day, *buckets));
    }
    observed.count()
}

/// The buckets in which any of `workers` was seen.
fn seen<'a>(window: &Window, workers: impl Iterator<Item = &'a WorkerFacts>) -> Buckets {
    let mut buckets = window.never();
    for day in workers.flat_map(|worker| &worker.presence) {
        window.add(&mut buckets, day.day, day.buckets);
    }
    buckets
}

/// The buckets in which any worker of a miner reported each GPU.
fn reported<'a>(window: &Window, miner: &'a MinerFacts) -> BTreeMap<&'a GpuUuid, Buckets> {
    let mut reported = BTreeMap::new();
    for day in miner.workers.values().flat_map(|worker| &worker.presence) {
        for gpu in day.gpus.iter() {
            window.add(reported.entry(gpu).or_insert_with(|| window.never()), day.day, day.buckets);
        }
    }
    reported
}

/// How many buckets count as presence of one worker (validator spec 5.3).
fn present(window: &Window, reported: &BTreeMap<&GpuUuid, Buckets>, worker: &WorkerFacts, tally: &Tally<'_>) -> u32 {
    let own = seen(window, std::iter::once(worker)).count();
    if own == 0 || tally.required_gpus.is_empty() {
        return own;
    }
    let of = |gpu: &&GpuUuid| reported.get(gpu).cloned().unwrap_or_else(|| window.never());
    window.in_all(tally.required_gpus.iter().map(of)).count()
}

fn count(worker: &WorkerFacts, tally: &Tally<'_>, present: u32) -> WorkerMeasures {
    WorkerMeasures {
        last_seen_ms: worker.last_seen_ms,
        over_limit: worker.over_limit,
        lease: worker.lease,
        attempts: tally.attempts,
        foreign: tally.foreign,
        successes: tally.successes,
        mean_ms: tally.mean_ms,
        mean_units: tally.mean_units,
        present,
        address_changes: worker.address_changes,
    }
}

impl Measures {
    /// The measures that a round was scored by. [`crate::round::weigh`] makes the same round of them again.
    #[must_use]
    pub fn of(round: &Round) -> Self {
        let mut miners: BTreeMap<Hotkey, MinerMeasures> = round
            .miners
            .iter()
            .map(|miner| {
                let present = miner.presence.present;
                (
                    miner.hotkey,
                    MinerMeasures { uid: Some(miner.uid), online: miner.online, present, ..Default::default() },
                )
            })
            .collect();
        for worker in &round.workers {
            let measures = WorkerMeasures {
                last_seen_ms: worker.last_seen_ms,
                over_limit: worker.over_limit,
                lease: worker.lease,
                attempts: worker.attempts,
                foreign: worker.foreign,
                successes: worker.successes,
                mean_ms: worker.mean_ms,
                mean_units: worker.mean_units,
                present: worker.availability.present,
                address_changes: worker.availability.address_changes,
            };
            // One that is not registered is neither scored nor measured as a miner: its workers are all that counts.
            miners.entry(worker.hotkey).or_default().workers.insert(worker.worker_id.clone(), measures);
        }
        Self { at_ms: round.at_ms, windows: round.rules.windows().clone(), span: round.span, miners }
    }
}
