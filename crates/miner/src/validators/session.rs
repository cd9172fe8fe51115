//! The session with one validator: kept while it is good, renewed by one handshake at a time.
//!
//! Callers that hold a session never wait for a handshake; those that need one wait for the same (miner-validator spec
//! 3.7). A session is renewed [`RENEW_BEFORE_END`] before its end on the monotonic clock, so that a skewed wall clock on
//! either side costs nothing.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use byteleap_protocol::session::{SESSION_LIFE_SECONDS, Session};
use rand_core::{OsRng, RngCore};

use super::{CallError, backoff::Backoff};

/// How long before its end a session is no longer used.
const RENEW_BEFORE_END: Duration = Duration::from_secs(300);

/// Least life given to a session whose stated end has almost come or passed: the peer's clock is wrong, not the session.
const LEAST_LIFE: Duration = Duration::from_secs(60);

/// A session and when to renew it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: Session,
    renew_at: Instant,
}

impl Held {
    /// A session made now, that ends at `expires_at` by a clock that shows `now` (both in seconds since 1970).
    pub(super) fn new(session: Session, expires_at: f64, now: f64) -> Self {
        Self { session, renew_at: Instant::now() + useful_life(expires_at - now) }
    }
}

/// How long to use a session that ends in so many seconds.
fn useful_life(ends_in: f64) -> Duration {
    // NaN and whatever is negative or endless become a bound.
    let seconds = ends_in.max(0.0).min(SESSION_LIFE_SECONDS as f64);
    let life = Duration::from_secs_f64(seconds);
    if life > RENEW_BEFORE_END { life - RENEW_BEFORE_END } else { life.max(LEAST_LIFE) }
}

/// The place of the session with one validator.
#[derive(Debug, Default)]
pub(super) struct SessionSlot {
    held: Mutex<Option<Arc<Held>>>,
    /// Held during a handshake.
    handshakes: tokio::sync::Mutex<Backoff>,
}

impl SessionSlot {
    /// The session, made by `handshake` if there is none.
    pub(super) async fn obtain(
        &self,
        handshake: impl AsyncFnOnce() -> Result<Held, CallError>,
    ) -> Result<Arc<Held>, CallError> {
        if let Some(held) = self.current() {
            return Ok(held);
        }
        let mut backoff = self.handshakes.lock().await;
        // Another caller may have made one meanwhile.
        if let Some(held) = self.current() {
            return Ok(held);
        }
        backoff.admit(Instant::now()).map_err(CallError::BackingOff)?;
        match handshake().await {
            Ok(held) => {
                backoff.succeeded();
                let held = Arc::new(held);
                *self.lock() = Some(Arc::clone(&held));
                Ok(held)
            }
            Err(error) => {
                match &error {
                    CallError::Transport(error) if error.means_unreachable() => backoff.unreachable(Instant::now()),
                    _ => backoff.refused(Instant::now(), f64::from(OsRng.next_u32()) / f64::from(u32::MAX)),
                }
                Err(error)
            }
        }
    }

    /// Forgets `held`, unless another session has taken its place already.
    pub(super) fn forget(&self, held: &Arc<Held>) {
        self.lock().take_if(|current| Arc::ptr_eq(current, held));
    }

    /// The validator lost `held` though its time is not over: it started anew, and has forgotten the handshakes that it
    /// counted. So they are not counted here either.
    pub(super) async fn lost(&self, held: &Arc<Held>) {
        if self.lock().take_if(|current| Arc::ptr_eq(current, held)).is_some() {
            self.handshakes.lock().await.restarted();
        }
    }

    fn current(&self) -> Option<Arc<Held>> {
        self.lock().as_ref().filter(|held| Instant::now() < held.renew_at).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_five_minutes_before_its_end() {
        assert_eq!(useful_life(21_600.0), Duration::from_secs(21_300));
        assert_eq!(useful_life(600.0), Duration::from_secs(300));
    }

    #[test]
    fn a_skewed_clock_neither_loops_nor_prolongs_a_session() {
        assert_eq!(useful_life(-40_000.0), LEAST_LIFE);
        assert_eq!(useful_life(200.0), Duration::from_secs(200));
        assert_eq!(useful_life(f64::NAN), LEAST_LIFE);
        assert_eq!(useful_life(1e300), Duration::from_secs(21_300));
    }
}
