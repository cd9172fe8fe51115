//! Time as a parameter: the system's clock in the daemons, a clock that tests move by hand.

use std::{
    fmt::Debug,
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock. It is asked, never waited on: waiting is the runtime's.
pub trait Clock: Debug + Send + Sync {
    /// Wall clock, in milliseconds since 1970 (UTC). It may jump when the system's time is set.
    fn unix_ms(&self) -> i64;

    /// Time since an arbitrary moment of this process. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> i64 {
        // A clock set before 1970 counts as 1970; one beyond the range of i64 does not exist.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Now>,
}

#[derive(Debug, Clone, Copy)]
struct Now {
    unix_ms: i64,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock that shows this wall time, and zero as monotonic time.
    #[must_use]
    pub fn new(unix_ms: i64) -> Self {
        Self { now: Mutex::new(Now { unix_ms, monotonic: Duration::ZERO }) }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.lock();
        now.monotonic += by;
        now.unix_ms = now.unix_ms.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_unix_ms(&self, unix_ms: i64) {
        self.lock().unix_ms = unix_ms;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> i64 {
        self.lock().unix_ms
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_until_it_is_moved() {
        let clock = ManualClock::new(1_000);
        assert_eq!((clock.unix_ms(), clock.monotonic()), (1_000, Duration::ZERO));
        clock.advance(Duration::from_millis(250));
        assert_eq!((clock.unix_ms(), clock.monotonic()), (1_250, Duration::from_millis(250)));
    }

    #[test]
    fn setting_the_wall_clock_leaves_monotonic_time_alone() {
        let clock = ManualClock::new(1_000);
        clock.advance(Duration::from_secs(1));
        clock.set_unix_ms(5);
        assert_eq!((clock.unix_ms(), clock.monotonic()), (5, Duration::from_secs(1)));
    }

    #[test]
    fn the_system_clock_shows_this_century_and_never_goes_back() {
        let clock = SystemClock::new();
        let (first, second) = (clock.monotonic(), clock.monotonic());
        assert!(second >= first);
        assert!(clock.unix_ms() > 1_700_000_000_000);
    }
}
