//! How long to wait before the next attempt: twice as long each time, and never all workers at once.

use std::time::Duration;

use rand_core::RngCore;

/// Pauses between attempts, from `first` up to `longest`, with jitter.
#[derive(Debug)]
pub struct Backoff<R> {
    first: Duration,
    longest: Duration,
    failures: u32,
    random: R,
}

impl<R: RngCore> Backoff<R> {
    /// Paces attempts from the start.
    pub fn new(first: Duration, longest: Duration, random: R) -> Self {
        Self { first, longest, failures: 0, random }
    }

    /// The pause before the next attempt: `first` doubled for each pause since the start, up to half as much added at
    /// random, and at most `longest`.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        let pause = doubled.min(self.longest);
        (pause + pause.mul_f64(0.5 * share)).min(self.longest)
    }

    /// The last connection was a good one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;
    use rand_core::impls::{fill_bytes_via_next, next_u64_via_u32};

    use super::*;

    /// Always yields the same word.
    struct Constant(u32);

    impl RngCore for Constant {
        fn next_u32(&mut self) -> u32 {
            self.0
        }
        fn next_u64(&mut self) -> u64 {
            next_u64_via_u32(self)
        }
        fn fill_bytes(&mut self, bytes: &mut [u8]) {
            fill_bytes_via_next(self, bytes);
        }
        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
            self.fill_bytes(bytes);
            Ok(())
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_good_connection() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(5), seconds(60), Constant(0));
        let pauses: Vec<u64> = (0..6).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next_pause(), seconds(5));
    }

    #[test]
    fn jitter_adds_up_to_half_and_never_passes_the_longest() {
        let mut most = Backoff::new(Duration::from_secs(4), Duration::from_secs(60), Constant(u32::MAX));
        let pauses: Vec<u64> = (0..5).map(|_| most.next_pause().as_secs()).collect();
        assert_eq!(pauses, [6, 12, 24, 48, 60]);
        let mut random = Backoff::new(Duration::from_secs(5), Duration::from_secs(60), OsRng);
        for _ in 0..100 {
            let pause = random.next_pause();
            assert!((Duration::from_secs(5)..=Duration::from_secs(60)).contains(&pause));
        }
    }
}
