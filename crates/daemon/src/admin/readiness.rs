//! Whether the daemon does its work: a gate for each thing it waits for.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// The gates of one process, as a cheap handle. Ready when none is closed.
#[derive(Debug, Clone)]
pub struct Readiness {
    closed: Arc<watch::Sender<BTreeMap<&'static str, String>>>,
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
        Self { closed: Arc::new(watch::Sender::new(BTreeMap::new())) }
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
        self.closed.borrow().is_empty()
    }

    /// The closed gates with their reasons.
    #[must_use]
    pub fn closed(&self) -> BTreeMap<&'static str, String> {
        self.closed.borrow().clone()
    }

    /// The closed gates, now and at each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.closed.subscribe()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// The thing is there.
    pub fn open(&self) {
        self.readiness.closed.send_if_modified(|closed| closed.remove(self.name).is_some());
    }

    /// The thing is missing, for this reason.
    pub fn close(&self, reason: impl Into<String>) {
        self.readiness.closed.send_modify(|closed| {
            closed.insert(self.name, reason.into());
        });
    }
}
