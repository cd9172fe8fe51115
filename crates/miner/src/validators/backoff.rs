//! When a handshake with one validator may be tried (miner-validator spec 3.7).
//!
//! After a refusal 5 s, doubling to 60 s, with jitter; and never more than four in a minute, so that a validator's own
//! limit of five is not hit. A validator that cannot be reached counts nothing, so it is tried again soon; whether it
//! is worth trying at all is for the blacklist to say.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
const HANDSHAKES_PER_MINUTE: usize = 4;

/// The memory of earlier handshakes.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: VecDeque<Instant>,
    refusals: u32,
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
        (self.refusals, self.not_before) = (0, None);
    }

    /// The validator started anew, and so does its count. Its refusals still pause us, should that be wrong.
    pub(crate) fn restarted(&mut self) {
        self.tries.clear();
    }

    /// The validator was not even reached.
    pub(crate) fn unreachable(&mut self, now: Instant) {
        self.tries.pop_back();
        self.not_before = Some(now + UNREACHABLE_PAUSE);
    }

    /// The validator refused. `jitter` is from 0 to 1 and stretches the pause by up to a half.
    pub(crate) fn refused(&mut self, now: Instant, jitter: f64) {
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(self.refusals)).min(LONGEST_PAUSE);
        self.refusals = (self.refusals + 1).min(16);
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
            backoff.refused(now, 0.0);
            assert_eq!(backoff.admit(now), Err(Duration::from_secs(expected)));
            now += MINUTE;
        }
    }

    #[test]
    fn a_success_forgets_the_refusals() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.refused(now, 1.0);
        backoff.succeeded();
        assert_eq!(backoff.admit(now), Ok(()));
    }

    #[test]
    fn a_validator_that_was_not_reached_is_tried_again_soon_and_as_often_as_it_takes() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(backoff.admit(now), Ok(()));
            backoff.unreachable(now);
            assert_eq!(backoff.admit(now), Err(UNREACHABLE_PAUSE));
            now += UNREACHABLE_PAUSE;
        }
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
