//! A value that a reload may replace while the daemon runs.

use std::sync::{Arc, PoisonError, RwLock};

/// A setting that can change; clones share it. A part asks for it whenever it uses it, and keeps what it got for as long
/// as one piece of work takes, so that no piece of work sees two values.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// A setting with this value.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(RwLock::new(value.into())))
    }

    /// The value of now.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value, for whoever asks next.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> From<Arc<T>> for Live<T> {
    fn from(value: Arc<T>) -> Self {
        Self::new(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_value_is_seen_by_every_clone_and_not_by_work_under_way() {
        let (setting, under_way) = (Live::from(1), Live::from(1).get());
        let shared = setting.clone();
        setting.set(2);
        assert_eq!((*shared.get(), *under_way), (2, 1));
    }
}
