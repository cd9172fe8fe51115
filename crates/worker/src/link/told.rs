//! What the miner passed on last: why it has no work for this worker, and what validators told of it.
//!
//! For `byteleap-worker status` alone; nothing is decided by it. Each frame replaces the one before, and is bounded by its
//! reading (`byteleap_protocol::feedback`).

use std::sync::{Arc, Mutex, PoisonError};

use byteleap_protocol::feedback::Relayed;

/// The last of it, as a cheap handle; empty until the first, which a former miner never sends.
#[derive(Clone, Debug, Default)]
pub struct LastRelayed(Arc<Mutex<Relayed>>);

impl LastRelayed {
    /// Replaces what was passed on before.
    pub(super) fn keep(&self, relayed: Relayed) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = relayed;
    }

    /// What was passed on last.
    #[must_use]
    pub fn get(&self) -> Relayed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
