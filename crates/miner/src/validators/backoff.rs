//! When a handshake with one validator may be tried (miner-validator spec 3.7).
//!
//! After a failure 5 s, doubling to 60 s, with jitter; and never more than four in a minute, so that a validator's own
//! limit of five is not hit even by a second process with the same hotkey that just started.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const HANDSHAKES_PER_MINUTE: usize = 4;

/// The memory of earlier handshakes.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: VecDeque<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// Counts a try, or says how long to wait before one.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        while self.tries.front().is_some_and(|&tried| now.saturating_duration_since(tried) >= MINUTE) {
            self.tries.pop_front();
        }
        if let Some(pause) =
            self.not_before.map(|at| at.saturating_duration_since(now)).filter(|pause| !pause.is_zero())
        {
            return Err(pause);
        }
        match self.tries.front() {
            Some(&oldest) if self.tries.len() >= HANDSHAKES_PER_MINUTE => {
                Err(MINUTE - now.saturating_duration_since(oldest))
            }
            _ => {
                self.tries.push_back(now);
                Ok(())
            }
        }
    }

    pub(crate) fn succeeded(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    /// `jitter` is from 0 to 1 and stretches the pause by up to a half.
    pub(crate) fn failed(&mut self, now: Instant, jitter: f64) {
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.failures)).min(LONGEST_PAUSE);
        self.failures = (self.failures + 1).min(16);
        self.not_before = Some(now + pause.mul_f64(1.0 + jitter / 2.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_five_seconds_to_a_minute() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for expected in [5, 10, 20, 40, 60, 60] {
            assert_eq!(backoff.admit(now), Ok(()));
            backoff.failed(now, 0.0);
            assert_eq!(backoff.admit(now), Err(Duration::from_secs(expected)));
            now += MINUTE;
        }
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now, 1.0);
        backoff.succeeded();
        assert_eq!(backoff.admit(now), Ok(()));
    }

    #[test]
    fn four_handshakes_a_minute_and_no_more() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..4 {
            assert_eq!(backoff.admit(now), Ok(()));
        }
        assert_eq!(backoff.admit(now + Duration::from_secs(20)), Err(Duration::from_secs(40)));
        assert_eq!(backoff.admit(now + MINUTE), Ok(()));
    }
}
