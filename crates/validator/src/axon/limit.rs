//! How often somebody may come: exact sliding windows over the recent past.
//!
//! [`RequestLimit`] counts the sealed requests of a verified hotkey, with an allowance for the challenges it
//! was just given (miner-validator spec 3.8); [`SlidingWindow`] alone counts handshakes and refused requests.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use byteleap_protocol::hotkey::Hotkey;

use crate::config::RateLimit;

/// Events of each key within the last `length`; times are those of a monotonic clock.
#[derive(Debug)]
pub(super) struct SlidingWindow<K> {
    length: Duration,
    events: HashMap<K, VecDeque<Duration>>,
}

impl<K: Hash + Eq> SlidingWindow<K> {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, events: HashMap::new() }
    }

    /// How many events of `key` are within the window that ends `now`.
    pub(super) fn count(&mut self, key: &K, now: Duration) -> usize {
        let Some(events) = self.events.get_mut(key) else { return 0 };
        drop_before(events, now.saturating_sub(self.length), now >= self.length);
        events.len()
    }

    /// Adds an event.
    pub(super) fn record(&mut self, key: K, now: Duration) {
        self.events.entry(key).or_default().push_back(now);
    }

    /// Forgets the keys without an event in the window; to be called now and then.
    pub(super) fn prune(&mut self, now: Duration) {
        let (start, has_start) = (now.saturating_sub(self.length), now >= self.length);
        self.events.retain(|_, events| {
            drop_before(events, start, has_start);
            !events.is_empty()
        });
    }
}

/// Drops what is at or before `start`, if the clock has run long enough for the window to have a start.
fn drop_before(events: &mut VecDeque<Duration>, start: Duration, has_start: bool) {
    while has_start && events.front().is_some_and(|at| *at <= start) {
        events.pop_front();
    }
}

/// How long a challenge that was handed out counts as open here: no deadline of a challenge is longer.
const OPEN_CHALLENGE_LIFE: Duration = Duration::from_secs(600);

/// Requests that each open challenge allows beyond the limit: commitment, proof, and one to spare.
const REQUESTS_PER_CHALLENGE: usize = 3;

/// The rate limit of sealed requests, by verified hotkey.
#[derive(Debug)]
pub(super) struct RequestLimit {
    requests: SlidingWindow<Hotkey>,
    handed_out: SlidingWindow<Hotkey>,
}

impl RequestLimit {
    pub(super) fn new() -> Self {
        Self { requests: SlidingWindow::new(Duration::ZERO), handed_out: SlidingWindow::new(OPEN_CHALLENGE_LIFE) }
    }

    /// Whether one more request is allowed by the limit of now, which is then counted; a refused one is not.
    pub(super) fn allow(&mut self, limit: &RateLimit, caller: Hotkey, now: Duration) -> bool {
        self.requests.length = limit.window;
        let max_requests = usize::try_from(limit.max_requests).unwrap_or(usize::MAX);
        let allowance = REQUESTS_PER_CHALLENGE * self.handed_out.count(&caller, now);
        if self.requests.count(&caller, now) >= max_requests.saturating_add(allowance) {
            return false;
        }
        self.requests.record(caller, now);
        true
    }

    /// The caller was given so many challenges.
    pub(super) fn handed_out(&mut self, caller: Hotkey, challenges: usize, now: Duration) {
        for _ in 0..challenges {
            self.handed_out.record(caller, now);
        }
    }

    pub(super) fn prune(&mut self, limit: &RateLimit, now: Duration) {
        self.requests.length = limit.window;
        self.requests.prune(now);
        self.handed_out.prune(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINER: Hotkey = Hotkey([1; 32]);
    const LIMIT: RateLimit = RateLimit { window: Duration::from_secs(30), max_requests: 150 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_151st_request_within_the_window_is_refused_and_not_counted() {
        let mut limit = RequestLimit::new();
        assert!((0..150).all(|_| limit.allow(&LIMIT, MINER, seconds(100))));
        assert!(!limit.allow(&LIMIT, MINER, seconds(129)));
        assert!(limit.allow(&LIMIT, Hotkey([2; 32]), seconds(129)));
        assert!((0..150).all(|_| limit.allow(&LIMIT, MINER, seconds(130))));
        assert!(!limit.allow(&LIMIT, MINER, seconds(130)));
    }

    #[test]
    fn an_idle_hour_allows_no_more_than_the_limit() {
        let mut limit = RequestLimit::new();
        assert!(limit.allow(&LIMIT, MINER, seconds(0)));
        assert_eq!((0..300).filter(|_| limit.allow(&LIMIT, MINER, seconds(3600))).count(), 150);
    }

    #[test]
    fn each_challenge_handed_out_allows_three_more() {
        let (mut limit, few) = (RequestLimit::new(), RateLimit { max_requests: 2, ..LIMIT });
        limit.handed_out(MINER, 2, seconds(0));
        assert_eq!((0..20).filter(|_| limit.allow(&few, MINER, seconds(1))).count(), 2 + 2 * 3);
        // Long after, the challenges are over.
        assert_eq!((0..20).filter(|_| limit.allow(&few, MINER, seconds(601))).count(), 2);
    }

    #[test]
    fn a_limit_that_changes_holds_for_the_next_request() {
        let mut limit = RequestLimit::new();
        assert!((0..150).all(|_| limit.allow(&LIMIT, MINER, seconds(100))));
        assert!(limit.allow(&RateLimit { max_requests: 151, ..LIMIT }, MINER, seconds(100)));
        assert!(!limit.allow(&LIMIT, MINER, seconds(100)));
    }

    #[test]
    fn pruning_forgets_only_what_is_past() {
        let mut window = SlidingWindow::new(seconds(10));
        window.record("old", seconds(1));
        window.record("new", seconds(9));
        window.prune(seconds(12));
        assert_eq!(window.events.len(), 1);
        assert_eq!(window.count(&"new", seconds(12)), 1);
    }
}
