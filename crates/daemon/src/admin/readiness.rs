//! Whether the daemon does its work: a gate for each thing it waits for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The gates of one process, as a cheap handle. Ready when none is closed.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    closed: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// One thing the daemon waits for. Its owner opens it, and closes it again when the thing is lost.
#[derive(Debug, Clone)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// No gates: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new gate, closed for this reason.
    #[must_use]
    pub fn gate(&self, name: &'static str, reason: impl Into<String>) -> Gate {
        let gate = Gate { name, readiness: self.clone() };
        gate.close(reason);
        gate
    }

    /// Whether every gate is open.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// The closed gates with their reasons.
    #[must_use]
    pub fn closed(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// The thing is there.
    pub fn open(&self) {
        self.readiness.lock().remove(self.name);
    }

    /// The thing is missing, for this reason.
    pub fn close(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name, reason.into());
    }
}
