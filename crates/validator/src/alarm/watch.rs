//! Looks at the validator every few seconds: gathers the facts, and carries every change to log, metrics and webhook.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::live::Live;
use byteleap_protocol::hotkey::Hotkey;
use tokio_util::sync::CancellationToken;

use super::facts::{CONTEST_MS, Facts, Standing, judge};
use super::peers::PeerClocks;
use super::webhook::Courier;
use super::{Alarm, Alarms, Change, Limits};
use crate::market::status::Board;
use crate::metagraph::Members;
use crate::store::{Store, StoreError};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Debug)]
pub struct Watch {
    /// Proofs, leases and cards.
    pub store: Store,
    /// Our place on the chain.
    pub members: Members,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Our hotkey.
    pub own: Hotkey,
    /// Blocks between submissions; none: we send none.
    pub tempo_blocks: Option<u64>,
    /// The block at which this process started.
    pub started_at_block: u64,
    /// When it started.
    pub started_at_ms: i64,
    /// From when on a round is too old to be paid.
    pub max_round_age: Duration,
    /// Folders whose disks we write to.
    pub folders: Vec<PathBuf>,
    /// Our miners' clocks.
    pub peers: PeerClocks,
    /// The marketplace's connection.
    pub marketplace: Board,
    /// From where on something is wrong.
    pub limits: Live<Limits>,
    /// What is raised.
    pub alarms: Alarms,
    /// Tells a person.
    pub courier: Courier,
}

impl Watch {
    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            self.look().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Looks once.
    pub async fn look(&self) {
        let limits = self.limits.get();
        let now_ms = self.clock.unix_ms();
        let facts = self.facts(&limits, now_ms).await;
        for change in self.alarms.take_in(judge(&facts, &limits), now_ms) {
            self.tell(&change);
        }
        let raised = self.alarms.raised();
        for alarm in Alarm::ALL {
            let is_raised = raised.iter().any(|raised| raised.alarm == alarm);
            metrics::gauge!("alarm_raised", "alarm" => alarm.name()).set(f64::from(u8::from(is_raised)));
        }
    }

    fn tell(&self, change: &Change) {
        let (alarm, text) = (change.alarm.name(), &change.text);
        match change.is_raised {
            true => tracing::error!(alarm, "alarm: {text}"),
            false => tracing::info!(alarm, "alarm is over: {text}"),
        }
        self.courier.send(change, self.clock.unix_ms());
    }

    async fn facts(&self, limits: &Limits, now_ms: i64) -> Facts {
        let stale_before_ms = now_ms - i64::try_from(limits.lease_stale_after.as_millis()).unwrap_or(i64::MAX);
        let queue = known(self.store.verification_queue(now_ms).await);
        let clock_ahead_ms = self.peers.ahead_ms(now_ms);
        if let Some(ahead_ms) = clock_ahead_ms {
            metrics::gauge!("clock_ahead_seconds").set(ahead_ms as f64 / 1000.0);
        }
        // A start finds an old round where the process was down, and makes a new one at once.
        let round = known(self.store.latest_round().await);
        let scored_at_ms = round.map(|round| round.map_or(0, |round| round.at_ms).max(self.started_at_ms));
        Facts {
            standing: self.standing(),
            tempo_blocks: self.tempo_blocks,
            round_age_ms: scored_at_ms.map(|at_ms| now_ms - at_ms),
            max_round_age: self.max_round_age,
            oldest_proof_ms: queue.map(|queue| queue.oldest_at_ms.map_or(0, |at_ms| now_ms - at_ms)),
            stale_leases: known(self.store.stale_leases(stale_before_ms).await),
            marketplace_gone_ms: self.marketplace.silent_ms(now_ms),
            contested_gpus: known(self.store.contested_gpus(now_ms - CONTEST_MS).await),
            free_disk_bytes: self.free_disk_bytes(),
            clock_ahead_ms,
        }
    }

    fn standing(&self) -> Option<Option<Standing>> {
        let snapshot = self.members.snapshot()?;
        let block = snapshot.metagraph.block;
        let Some(neuron) = snapshot.metagraph.by_hotkey(&self.own) else { return Some(None) };
        metrics::gauge!("weights_blocks_since_update").set(block.saturating_sub(neuron.last_update) as f64);
        let silent_blocks = block.saturating_sub(neuron.last_update.max(self.started_at_block));
        Some(Some(Standing { has_permit: neuron.validator_permit, silent_blocks }))
    }

    /// The least free space; a disk that does not answer is left out.
    fn free_disk_bytes(&self) -> Option<u64> {
        let free = |folder: &PathBuf| {
            let disk = nix::sys::statvfs::statvfs(folder).ok()?;
            Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
        };
        let free = self.folders.iter().filter_map(free).min()?;
        metrics::gauge!("disk_free_bytes").set(free as f64);
        Some(free)
    }
}

/// What the store answers; a store that does not answer shows in `/readyz` already.
fn known<T>(answer: Result<T, StoreError>) -> Option<T> {
    answer.inspect_err(|error| tracing::debug!(%error, "alarms: the database does not tell")).ok()
}
