//! Named points at which a test lets this process die the way it dies when the power goes: at once, nothing flushed.
//!
//! A daemon lists its points, arms one at start from the environment, and marks their places with [`reach`], on both
//! sides of each write that must survive. In a build without debug assertions [`reach`] is nothing at all.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that arms a point: `name`, or `name:count` to die when it is reached for the count-th time.
pub const VARIABLE: &str = "BYTELEAP_FAILPOINT";

/// The point at which this process dies, if any.
static ARMED: OnceLock<Armed> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    point: &'static str,
    known: &'static [&'static str],
    /// How often it is still passed, the last time included.
    left: AtomicU32,
}

/// A value of the variable that arms nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// No such point in this program.
    #[error("{VARIABLE}: no point is named {0:?}; known are {known}", known = .1.join(", "))]
    Unknown(String, &'static [&'static str]),
    /// Not a number from 1.
    #[error("{VARIABLE}: {0:?} is no count: allowed are numbers from 1")]
    Count(String),
    /// This build has no points.
    #[error(
        "{VARIABLE} is set, but this build has no points at which it could die: it was built without debug assertions"
    )]
    Absent,
}

/// Arms the point that the environment names, out of those of this program. Without the variable nothing happens.
///
/// # Errors
/// The variable names no point of this program, or this build has none.
pub fn arm(known: &'static [&'static str]) -> Result<(), ArmError> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
    if !cfg!(debug_assertions) {
        return Err(ArmError::Absent);
    }
    let armed = Armed::parse(&value.to_string_lossy(), known)?;
    tracing::warn!(point = armed.point, "this process kills itself at a failpoint");
    // A second call finds the same variable.
    let _ = ARMED.set(armed);
    Ok(())
}

/// Passes a point: kills this process if it is the armed one and its time has come.
#[cfg(debug_assertions)]
pub fn reach(point: &'static str) {
    if ARMED.get().is_some_and(|armed| armed.is_due(point)) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        // The signal may take this thread last: it must not go on meanwhile.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in this build.
#[cfg(not(debug_assertions))]
pub fn reach(_point: &'static str) {}

impl Armed {
    fn parse(value: &str, known: &'static [&'static str]) -> Result<Self, ArmError> {
        let (name, count) = value.split_once(':').unwrap_or((value, "1"));
        let point = known.iter().find(|point| **point == name);
        let point = point.ok_or_else(|| ArmError::Unknown(name.to_owned(), known))?;
        let left = count.parse().ok().filter(|count| *count > 0);
        let left = left.ok_or_else(|| ArmError::Count(count.to_owned()))?;
        Ok(Self { point, known, left: AtomicU32::new(left) })
    }

    fn is_due(&self, point: &'static str) -> bool {
        assert!(self.known.contains(&point), "failpoint {point} is missing in this program's list");
        point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["a.before", "a.after"];

    #[test]
    fn a_point_is_due_at_the_named_passage_and_only_then() {
        let armed = Armed::parse("a.after:2", KNOWN).unwrap();
        let due: Vec<bool> =
            ["a.after", "a.before", "a.after", "a.after"].map(|point| armed.is_due(point)).into_iter().collect();
        assert_eq!(due, [false, false, true, false]);
        assert!(Armed::parse("a.before", KNOWN).unwrap().is_due("a.before"));
    }

    #[test]
    fn an_unknown_point_is_refused_with_the_known_ones() {
        let error = Armed::parse("b", KNOWN).unwrap_err();
        assert!(error.to_string().contains("known are a.before, a.after"), "{error}");
        assert_eq!(Armed::parse("a.after:0", KNOWN).unwrap_err(), ArmError::Count("0".to_owned()));
    }

    #[test]
    #[should_panic(expected = "missing in this program's list")]
    fn a_place_that_is_not_listed_is_a_fault() {
        Armed::parse("a.after", KNOWN).unwrap().is_due("c");
    }
}
