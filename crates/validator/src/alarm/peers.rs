//! What our miners' clocks say about ours.
//!
//! A signed request carries the time at which its sender made it. One sender may be wrong or lie; the median of several is
//! wrong only if we are. A finalised block would be no measure: it is tens of seconds old when we see it.

use std::collections::HashMap;
use std::sync::Arc;

use byteleap_protocol::hotkey::Hotkey;
use parking_lot::Mutex;

/// Miners that must have spoken before their clocks say anything.
const MIN_PEERS: usize = 3;
/// How long a miner's last request counts.
const FRESH_MS: i64 = 10 * 60_000;
/// Miners that are remembered at most; more than a subnet has.
const MAX_PEERS: usize = 4096;

/// The last request of each miner against our clock; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PeerClocks(Arc<Mutex<HashMap<Hotkey, Seen>>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    at_ms: i64,
    ahead_ms: i64,
}

impl PeerClocks {
    /// A request that `sender` made at `sent_at_ms` by its clock came in at `now_ms` by ours.
    pub fn saw(&self, sender: Hotkey, sent_at_ms: i64, now_ms: i64) {
        let mut seen = self.0.lock();
        if seen.len() >= MAX_PEERS && !seen.contains_key(&sender) {
            seen.retain(|_, seen| now_ms - seen.at_ms < FRESH_MS);
        }
        if seen.len() < MAX_PEERS || seen.contains_key(&sender) {
            seen.insert(sender, Seen { at_ms: now_ms, ahead_ms: now_ms - sent_at_ms });
        }
    }

    /// By how many milliseconds our clock is ahead of the median miner's, the way here included.
    pub fn ahead_ms(&self, now_ms: i64) -> Option<i64> {
        let seen = self.0.lock();
        let mut ahead: Vec<i64> =
            seen.values().filter(|seen| now_ms - seen.at_ms < FRESH_MS).map(|seen| seen.ahead_ms).collect();
        ahead.sort_unstable();
        (ahead.len() >= MIN_PEERS).then(|| ahead[ahead.len() / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_three_miners_decides_and_a_liar_changes_nothing() {
        let clocks = PeerClocks::default();
        clocks.saw(Hotkey([1; 32]), 1_000, 1_040);
        clocks.saw(Hotkey([2; 32]), 9_000_000, 1_050);
        assert_eq!(clocks.ahead_ms(1_050), None, "two are too few");
        clocks.saw(Hotkey([3; 32]), 1_000, 1_060);
        assert_eq!(clocks.ahead_ms(1_060), Some(40));
        for (miner, way) in [(1, 30), (2, 40), (3, 50)] {
            clocks.saw(Hotkey([miner; 32]), 2_000, 5_000 + way);
        }
        assert_eq!(clocks.ahead_ms(5_050), Some(3_040));
        assert_eq!(clocks.ahead_ms(5_050 + FRESH_MS), None, "nobody spoke lately");
    }
}
