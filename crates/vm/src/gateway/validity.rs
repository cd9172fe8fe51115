//! When a certificate may be used, and when it is to be renewed (vm-and-gpu-host spec 1.7).

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How far the gateway's clock may be ahead of ours (vm-and-gpu-host spec 1.5).
const ALLOWED_SKEW_MS: i64 = 5 * 60 * 1000;

/// The longest time before its end at which a certificate is renewed.
const LONGEST_WINDOW_MS: i64 = 30 * DAY_MS;

/// When a renewal that keeps failing becomes a new enrolment.
const NEAR_END_MS: i64 = 7 * DAY_MS;

/// From when to when a certificate may be used, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before_ms: i64,
    /// The last.
    pub not_after_ms: i64,
}

impl Validity {
    /// Whether the certificate may be used at `unix_ms`.
    #[must_use]
    pub fn is_usable(&self, unix_ms: i64) -> bool {
        (self.not_before_ms.saturating_sub(ALLOWED_SKEW_MS)..=self.not_after_ms).contains(&unix_ms)
    }

    /// When to renew: 30 days or a third of the lifetime before the end, whichever is later, and by `chance` (0 to 1) up
    /// to a tenth of that window later still, so that not all workers come at once.
    #[must_use]
    pub fn renew_at_ms(&self, chance: f64) -> i64 {
        let lifetime_ms = self.not_after_ms.saturating_sub(self.not_before_ms).max(0);
        let window_ms = LONGEST_WINDOW_MS.min(lifetime_ms / 3);
        self.not_after_ms.saturating_sub(window_ms - share(window_ms / 10, chance))
    }

    /// Whether less than seven days are left.
    #[must_use]
    pub fn is_near_its_end(&self, unix_ms: i64) -> bool {
        self.not_after_ms.saturating_sub(unix_ms) < NEAR_END_MS
    }
}

/// That share of a span of time.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most three days in milliseconds")]
fn share(span_ms: i64, chance: f64) -> i64 {
    (span_ms as f64 * chance.clamp(0.0, 1.0)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Validity = Validity { not_before_ms: 0, not_after_ms: 365 * DAY_MS };
    const NINE_MINUTES: Validity = Validity { not_before_ms: 0, not_after_ms: 9 * 60_000 };

    #[test]
    fn a_certificate_is_usable_from_five_minutes_before_its_start_to_its_end() {
        let usable = |unix_ms| YEAR.is_usable(unix_ms);
        assert!(usable(0) && usable(-ALLOWED_SKEW_MS) && usable(365 * DAY_MS));
        assert!(!usable(-ALLOWED_SKEW_MS - 1) && !usable(365 * DAY_MS + 1));
    }

    #[test]
    fn a_long_certificate_is_renewed_thirty_days_before_its_end_a_short_one_in_its_last_third() {
        assert_eq!(YEAR.renew_at_ms(0.0), 335 * DAY_MS);
        assert_eq!(NINE_MINUTES.renew_at_ms(0.0), 6 * 60_000);
    }

    #[test]
    fn chance_moves_a_renewal_by_a_tenth_of_its_window_at_most() {
        assert_eq!(YEAR.renew_at_ms(1.0), 338 * DAY_MS);
        assert_eq!(YEAR.renew_at_ms(0.5), 336 * DAY_MS + DAY_MS / 2);
        assert_eq!(YEAR.renew_at_ms(7.0), YEAR.renew_at_ms(1.0));
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_never_usable_and_due_at_once() {
        let backwards = Validity { not_before_ms: 10 * DAY_MS, not_after_ms: 0 };
        assert!(!backwards.is_usable(5 * DAY_MS));
        assert_eq!(backwards.renew_at_ms(0.5), 0);
    }

    #[test]
    fn the_last_seven_days_are_near_the_end() {
        assert!(!YEAR.is_near_its_end(358 * DAY_MS));
        assert!(YEAR.is_near_its_end(358 * DAY_MS + 1));
        assert!(YEAR.is_near_its_end(400 * DAY_MS));
    }
}
