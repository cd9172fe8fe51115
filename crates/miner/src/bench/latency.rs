//! Waiting times of millions of requests in constant memory: a histogram whose buckets are 1/64 of an octave wide, so that
//! what is read from it exceeds the truth by at most 1.6 %.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Buckets of one octave; a power of two.
const STEPS: u64 = 64;

/// Octaves: the last one ends at 2^40 µs, which is 12 days.
const OCTAVES: u64 = 40;

/// A histogram that many tasks fill at once.
#[derive(Debug)]
pub(super) struct Latencies(Vec<AtomicU64>);

impl Default for Latencies {
    fn default() -> Self {
        Self((0..STEPS * OCTAVES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Latencies {
    /// Counts one waiting time.
    pub(super) fn record(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.0.get(bucket_of(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The time, in milliseconds, within which this share of the requests were answered; 0 if there were none.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = share * self.count() as f64;
        let mut seen = 0;
        for (index, bucket) in (0..).zip(&self.0) {
            let counted = bucket.load(Ordering::Relaxed);
            seen += counted;
            if counted > 0 && seen as f64 >= wanted {
                return end_of(index) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// The bucket of a time in microseconds: exact below 64, then by octave and step.
fn bucket_of(us: u64) -> usize {
    let octave = u64::from(us.max(STEPS).ilog2() - STEPS.ilog2());
    (octave * STEPS + (us >> octave)) as usize
}

/// The longest time of a bucket, in microseconds.
fn end_of(bucket: u64) -> u64 {
    let octave = (bucket / STEPS).saturating_sub(1);
    ((bucket - octave * STEPS + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        assert_eq!(latencies.count(), 1000);
        for (share, truth) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let read = latencies.quantile_ms(share);
            assert!(read >= truth && read < truth * 1.017, "{share}: {read}");
        }
        assert_eq!(Latencies::default().quantile_ms(0.99), 0.0);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_a_time_and_is_narrow(us in 0_u64..1 << 39) {
            let end = end_of(bucket_of(us) as u64);
            prop_assert!(end >= us && end - us <= us / STEPS);
            prop_assert_eq!(bucket_of(end), bucket_of(us));
            prop_assert!(bucket_of(us) < (STEPS * OCTAVES) as usize);
        }
    }
}
