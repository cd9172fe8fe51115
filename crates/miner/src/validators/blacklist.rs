//! Addresses that failed too often in a row are left alone for a while (miner-validator spec 4.1).
//!
//! Only failures of the transport count: a validator that answers, even with a refusal, is up (4.5). And a failure may be
//! our own: when our network is out, everyone seems down. So a failure is at first only suspected. It counts once another
//! validator, reached the same way, answers soon after and had not failed itself; many failures before one such answer
//! are one. When nobody answers nothing counts, so after an outage of ours everyone is called again at once.
//!
//! A listed address gets another chance after a pause that doubles each time it fails again, and is free of all that
//! with its first answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How soon after a failure another's answer must come to prove that it was not our own: a sound validator answers a
/// heartbeat each minute and a poll more often.
const PROOF_WINDOW: Duration = Duration::from_secs(60);

/// How long an address is left alone the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The failures of every validator address.
#[derive(Debug)]
pub(crate) struct Blacklist {
    threshold: u32,
    longest_pause: Duration,
    failures: Mutex<HashMap<SocketAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    /// Those that counted, since its last answer.
    in_a_row: u32,
    /// The latest that has not counted yet.
    suspected: Option<Instant>,
    last: Instant,
    /// How often it was listed, and until when.
    listed: Option<(u32, Instant)>,
}

impl Blacklist {
    /// Addresses with `threshold` failures in a row are avoided, for `longest_pause` at most at a time.
    pub(crate) fn new(threshold: u32, longest_pause: Duration) -> Self {
        Self { threshold, longest_pause, failures: Mutex::default() }
    }

    /// The validator there was not reached, or did not answer in time.
    pub(crate) fn failed(&self, address: SocketAddr, now: Instant) {
        let mut failures = self.lock();
        // One that has just come back from its longest pause is still remembered.
        let memory = 2 * self.longest_pause.max(PROOF_WINDOW);
        failures.retain(|_, entry| now.saturating_duration_since(entry.last) < memory);
        let entry =
            failures.entry(address).or_insert(Failures { in_a_row: 0, suspected: None, last: now, listed: None });
        (entry.suspected, entry.last) = (Some(now), now);
    }

    /// The validator there answered.
    pub(crate) fn succeeded(&self, address: SocketAddr, now: Instant) {
        let mut failures = self.lock();
        // Who failed and now answers tells that an outage has ended, which may have been everyone's.
        let is_outage_over = failures.remove(&address).is_some_and(|own| own.suspected.is_some());
        for (other, entry) in failures.iter_mut().filter(|(other, _)| same_way(other, &address)) {
            let suspected = entry.suspected.take();
            let is_recent = suspected.is_some_and(|at| now.saturating_duration_since(at) < PROOF_WINDOW);
            if is_recent && !is_outage_over {
                entry.count(self.threshold, self.longest_pause, *other, now);
            }
        }
    }

    /// Whether the address is to be left alone.
    pub(crate) fn lists(&self, address: &SocketAddr, now: Instant) -> bool {
        let listed = self.lock().get(address).and_then(|entry| entry.listed);
        listed.is_some_and(|(_, until)| now < until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn count(&mut self, threshold: u32, longest_pause: Duration, address: SocketAddr, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let is_listed = self.listed.is_some_and(|(_, until)| now < until);
        if self.in_a_row < threshold || is_listed {
            return;
        }
        let times = self.listed.map_or(0, |(times, _)| times);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(times)).min(longest_pause);
        self.listed = Some((times.saturating_add(1), now + pause));
        let pause_s = pause.as_secs();
        tracing::warn!(%address, failures = self.in_a_row, pause_s, "validator does not answer while others do: left alone");
    }
}

/// Whether what reaches one reaches the other, as far as our own network goes: an answer over IPv4 or from this very host
/// says nothing of IPv6 or of the internet.
fn same_way(one: &SocketAddr, other: &SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && one.ip().is_loopback() == other.ip().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);
    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn down() -> SocketAddr {
        address("192.0.2.1:9091")
    }

    fn sound() -> SocketAddr {
        address("192.0.2.2:9091")
    }

    /// A failure that is proved to be the validator's own.
    fn fail(list: &Blacklist, now: Instant) {
        list.failed(down(), now);
        list.succeeded(sound(), now);
    }

    #[test]
    fn the_threshold_lists_an_address_and_time_frees_it() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        fail(&list, start);
        assert!(!list.lists(&down(), start));
        fail(&list, start);
        assert!(list.lists(&down(), start));
        assert!(!list.lists(&down(), start + FIRST_PAUSE));
    }

    #[test]
    fn a_success_starts_the_count_again_and_lifts_the_entry() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        fail(&list, start);
        list.succeeded(down(), start);
        fail(&list, start);
        assert!(!list.lists(&down(), start));
        fail(&list, start);
        assert!(list.lists(&down(), start));
        list.succeeded(down(), start);
        assert!(!list.lists(&down(), start));
    }

    #[test]
    fn each_further_failure_doubles_the_pause_up_to_the_longest() {
        let (list, mut now) = (Blacklist::new(2, TTL), Instant::now());
        fail(&list, now);
        for pause_s in [60, 120, 240, 480, 600, 600] {
            let pause = Duration::from_secs(pause_s);
            fail(&list, now);
            assert!(list.lists(&down(), now + pause - SECOND), "{pause_s}");
            now += pause;
            assert!(!list.lists(&down(), now), "{pause_s}");
        }
    }

    #[test]
    fn while_nobody_answers_nothing_counts_and_the_first_to_come_back_charges_nobody() {
        let (list, start) = (Blacklist::new(1, TTL), Instant::now());
        let everyone = [down(), sound(), address("192.0.2.3:9091")];
        for second in 0..300 {
            for address in everyone {
                list.failed(address, start + second * SECOND);
            }
        }
        let back = start + 300 * SECOND;
        list.succeeded(sound(), back);
        list.succeeded(sound(), back);
        assert!(everyone.iter().all(|address| !list.lists(address, back)));
        fail(&list, back);
        assert!(list.lists(&down(), back), "from then on its own failures count again");
    }

    #[test]
    fn many_failures_before_one_answer_are_one_and_old_ones_none() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        for _ in 0..10 {
            list.failed(down(), start);
        }
        list.succeeded(sound(), start);
        list.failed(down(), start);
        list.succeeded(sound(), start + PROOF_WINDOW);
        assert!(!list.lists(&down(), start));
        fail(&list, start + PROOF_WINDOW);
        assert!(list.lists(&down(), start + PROOF_WINDOW));
    }

    #[test]
    fn an_answer_by_another_way_proves_nothing() {
        let (list, now) = (Blacklist::new(1, TTL), Instant::now());
        for elsewhere in ["[2001:db8::1]:9091", "127.0.0.1:9091"] {
            list.failed(down(), now);
            list.succeeded(address(elsewhere), now);
            assert!(!list.lists(&down(), now), "{elsewhere}");
        }
    }
}
