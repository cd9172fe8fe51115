//! How fast one validator may be asked: at most [`MAX_REQUESTS`] sealed requests in any [`WINDOW`].
//!
//! A reference validator refuses the 151st request of a hotkey within 30 s (miner-validator spec 3.8). Staying below
//! that ourselves, a miner of a hundred workers decides what waits: commitments are measured by the second and go
//! first, proofs have time and go last (4.5).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Sealed requests that one validator gets in any [`WINDOW`].
pub(crate) const MAX_REQUESTS: usize = 145;

/// The sliding window that [`MAX_REQUESTS`] refers to.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// What a request is for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// The validator's clock is running: a commitment.
    Timed,
    /// Task polls, tokens, heartbeats.
    Routine,
    /// Proofs, which have an hour.
    Patient,
}

/// One validator's budget of requests.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    window: Mutex<Window>,
    changed: Notify,
}

impl Pace {
    /// Waits until a request of this urgency may be sent, and counts it as sent.
    pub(crate) async fn admit(&self, urgency: Urgency) {
        let _turn = Turn::take(self, urgency);
        loop {
            let changed = self.changed.notified();
            let verdict = self.window().admit(Instant::now(), urgency);
            match verdict {
                Verdict::Go => return,
                Verdict::WaitFor(delay) => tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = changed => {}
                },
                Verdict::AfterOthers => changed.await,
            }
        }
    }

    /// The validator says that it is over its limit: nothing more goes out for one window.
    pub(crate) fn exhausted(&self) {
        self.window().sent = std::iter::repeat_n(Instant::now(), MAX_REQUESTS).collect();
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue; leaving it, admitted or given up, lets the others look again.
struct Turn<'pace> {
    pace: &'pace Pace,
    urgency: Urgency,
}

impl<'pace> Turn<'pace> {
    fn take(pace: &'pace Pace, urgency: Urgency) -> Self {
        pace.window().waiting[urgency as usize] += 1;
        Self { pace, urgency }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pace.window().waiting[self.urgency as usize] -= 1;
        self.pace.changed.notify_waiters();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Go,
    /// The window is full for so long.
    WaitFor(Duration),
    /// Something more urgent waits.
    AfterOthers,
}

#[derive(Debug, Default)]
struct Window {
    /// When the requests of the last [`WINDOW`] went out, oldest first.
    sent: VecDeque<Instant>,
    /// How many wait, by [`Urgency`].
    waiting: [usize; 3],
}

impl Window {
    fn admit(&mut self, now: Instant, urgency: Urgency) -> Verdict {
        while self.sent.front().is_some_and(|&sent| now.saturating_duration_since(sent) >= WINDOW) {
            self.sent.pop_front();
        }
        if self.waiting[..urgency as usize].iter().any(|&waiting| waiting > 0) {
            return Verdict::AfterOthers;
        }
        match self.sent.front() {
            Some(&oldest) if self.sent.len() >= MAX_REQUESTS => {
                Verdict::WaitFor(WINDOW - now.saturating_duration_since(oldest))
            }
            _ => {
                self.sent.push_back(now);
                Verdict::Go
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_in_every_window() {
        let (start, mut window) = (Instant::now(), Window::default());
        for index in 0..MAX_REQUESTS {
            let now = start + Duration::from_millis(index as u64);
            assert_eq!(window.admit(now, Urgency::Routine), Verdict::Go);
        }
        let full = start + Duration::from_secs(1);
        assert_eq!(window.admit(full, Urgency::Timed), Verdict::WaitFor(Duration::from_secs(29)));
        assert_eq!(window.admit(start + WINDOW, Urgency::Timed), Verdict::Go);
        assert_eq!(window.admit(start + WINDOW, Urgency::Timed), Verdict::WaitFor(Duration::from_millis(1)));
    }

    #[test]
    fn a_proof_lets_a_waiting_commitment_go_first() {
        let (now, mut window) = (Instant::now(), Window::default());
        window.waiting[Urgency::Timed as usize] = 1;
        assert_eq!(window.admit(now, Urgency::Patient), Verdict::AfterOthers);
        assert_eq!(window.admit(now, Urgency::Timed), Verdict::Go);
    }

    #[tokio::test]
    async fn a_request_that_gives_up_does_not_hold_up_the_rest() {
        let pace = Pace::default();
        pace.exhausted();
        let given_up = tokio::time::timeout(Duration::ZERO, pace.admit(Urgency::Timed)).await;
        assert!(given_up.is_err());
        assert_eq!(pace.window().waiting, [0; 3]);
    }
}
