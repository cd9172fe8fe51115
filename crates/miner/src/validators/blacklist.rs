//! Addresses that failed too often in a row are left alone for a while (miner-validator spec 4.1).
//!
//! Only failures of the transport count: a validator that answers, even with a refusal, is up (4.5).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The failures of every validator address.
#[derive(Debug)]
pub(crate) struct Blacklist {
    threshold: u32,
    ttl: Duration,
    failures: Mutex<HashMap<SocketAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    in_a_row: u32,
    last: Instant,
}

impl Blacklist {
    /// Addresses with `threshold` failures in a row are avoided for `ttl` after the last one.
    pub(crate) fn new(threshold: u32, ttl: Duration) -> Self {
        Self { threshold, ttl, failures: Mutex::default() }
    }

    pub(crate) fn failed(&self, address: SocketAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, entry| now.saturating_duration_since(entry.last) < self.ttl);
        let entry = failures.entry(address).or_insert(Failures { in_a_row: 0, last: now });
        *entry = Failures { in_a_row: entry.in_a_row.saturating_add(1), last: now };
        if entry.in_a_row == self.threshold {
            tracing::warn!(%address, failures = self.threshold, "validator does not answer: left alone for a while");
        }
    }

    pub(crate) fn succeeded(&self, address: SocketAddr) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    pub(crate) fn lists(&self, address: &SocketAddr, now: Instant) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(address).is_some_and(|entry| {
            entry.in_a_row >= self.threshold && now.saturating_duration_since(entry.last) < self.ttl
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn address() -> SocketAddr {
        "192.0.2.1:9091".parse().expect("an address")
    }

    #[test]
    fn the_threshold_lists_an_address_and_time_frees_it() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        list.failed(address(), start);
        assert!(!list.lists(&address(), start));
        list.failed(address(), start);
        assert!(list.lists(&address(), start));
        assert!(!list.lists(&address(), start + TTL));
    }

    #[test]
    fn a_success_starts_the_count_again() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        list.failed(address(), start);
        list.succeeded(address());
        list.failed(address(), start);
        assert!(!list.lists(&address(), start));
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let (list, start) = (Blacklist::new(2, TTL), Instant::now());
        list.failed(address(), start);
        list.failed(address(), start + TTL);
        assert!(!list.lists(&address(), start + TTL));
    }
}
