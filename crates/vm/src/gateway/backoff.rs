//! How long to wait before trying again (vm-and-gpu-host spec 1.7 and 1.11).

use std::time::Duration;

/// A rule for waiting: somewhere between `least` and a bound that doubles with each failure, from `first` to `most`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    least: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// After a connection that failed or ended.
    pub(super) const DIAL: Self = Self::seconds(0, 2, 300);
    /// After an enrolment that did not come off.
    pub(super) const ENROLMENT: Self = Self::seconds(30, 60, 900);
    /// After a plain no, to a token or to a session.
    pub(super) const REFUSAL: Self = Self::seconds(60, 120, 900);
    /// After a renewal that failed.
    pub(super) const RENEWAL: Self = Self::seconds(60, 120, 3600);

    const fn seconds(least: u64, first: u64, most: u64) -> Self {
        Self { least: Duration::from_secs(least), first: Duration::from_secs(first), most: Duration::from_secs(most) }
    }

    /// The wait after `failures` earlier ones in a row; `chance` from 0 to 1.
    pub(super) fn wait(self, failures: u32, chance: f64) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(failures)).min(self.most);
        self.least + (bound - self.least).mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_dial_waits_two_seconds_at_most_and_the_bound_doubles_to_five_minutes() {
        let bounds = [0, 1, 2, 7, 8, u32::MAX].map(|failures| Backoff::DIAL.wait(failures, 1.0).as_secs());
        assert_eq!(bounds, [2, 4, 8, 256, 300, 300]);
        assert_eq!(Backoff::DIAL.wait(5, 0.0), Duration::ZERO);
        assert_eq!(Backoff::DIAL.wait(1, 0.5).as_secs(), 2);
    }

    #[test]
    fn every_other_wait_has_a_least_and_a_most() {
        let range = |rule: Backoff| (rule.wait(0, 0.0).as_secs(), rule.wait(u32::MAX, 9.0).as_secs());
        assert_eq!(range(Backoff::ENROLMENT), (30, 900));
        assert_eq!(range(Backoff::REFUSAL), (60, 900));
        assert_eq!(range(Backoff::RENEWAL), (60, 3600));
    }
}
