//! Taking a daemon out of work without losing any: it takes nothing new, finishes what it has, and says when it is safe to
//! stop.
//!
//! The daemon holds a [`Drain`], adds [`routes`] to its admin endpoint and looks at [`Drain::is_on`] before it takes work;
//! the command [`run`] switches it and waits. A drain lasts until it is cancelled or the process ends.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, routing};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{admin, cli::Failure};

/// Pause between two looks at what is still under way.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The switch, as a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    is_on: AtomicBool,
    changed: Notify,
}

impl Drain {
    /// Whether nothing new is taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::SeqCst)
    }

    /// Switches; wakes whoever waits in [`Self::changed`].
    pub fn set(&self, is_on: bool) {
        self.0.is_on.store(is_on, Ordering::SeqCst);
        self.0.changed.notify_one();
    }

    /// Waits until it was switched since the last wait. For one waiter.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainState {
    /// Whether nothing new is taken.
    pub draining: bool,
    /// What is not finished, one line each, for people.
    pub under_way: Vec<String>,
    /// Whether the daemon can be stopped without losing work.
    pub safe_to_stop: bool,
}

impl DrainState {
    /// The state of a switch with these lines of work.
    #[must_use]
    pub fn new(drain: &Drain, under_way: Vec<String>) -> Self {
        let draining = drain.is_on();
        Self { draining, safe_to_stop: draining && under_way.is_empty(), under_way }
    }
}

/// `GET /drain`, `POST /drain` and `POST /resume`: each answers with the [`DrainState`]. `under_way` lists what is not finished.
pub fn routes(drain: &Drain, under_way: impl Fn() -> Vec<String> + Clone + Send + Sync + 'static) -> Router {
    let answer = |switch: Option<bool>| {
        let (drain, under_way) = (drain.clone(), under_way.clone());
        move || {
            if let Some(is_on) = switch {
                drain.set(is_on);
                tracing::info!(draining = is_on, "drain switched");
            }
            std::future::ready(Json(DrainState::new(&drain, under_way())))
        }
    };
    Router::new()
        .route("/drain", routing::get(answer(None)).post(answer(Some(true))))
        .route("/resume", routing::post(answer(Some(false))))
}

/// The command `drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Take work again.
    #[arg(long)]
    pub cancel: bool,
    /// Seconds to wait until it is safe to stop; the drain goes on if that passes.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, conflicts_with = "cancel")]
    pub timeout: u64,
}

/// Drains the daemon whose admin endpoint is at `address` and returns once it is safe to stop it.
///
/// # Errors
/// No daemon there, or work is still under way at the end of the time.
pub async fn run(address: SocketAddr, arguments: DrainArgs) -> Result<(), Failure> {
    let mut out = io::stdout();
    if arguments.cancel {
        admin::post(address, "/resume", &Value::Null).await?;
        return Ok(writeln!(out, "takes work again")?);
    }
    let until = Instant::now() + Duration::from_secs(arguments.timeout);
    let mut state: DrainState = serde_json::from_value(admin::post(address, "/drain", &Value::Null).await?)?;
    let mut told = Vec::new();
    loop {
        if state.safe_to_stop {
            return Ok(writeln!(out, "safe to stop: nothing is under way, and nothing new is taken")?);
        }
        if !state.draining {
            return Err(Failure::runtime("the drain was cancelled"));
        }
        if state.under_way != told {
            writeln!(out, "still under way: {}", state.under_way.join("; "))?;
            told.clone_from(&state.under_way);
        }
        if Instant::now() >= until {
            let seconds = arguments.timeout;
            let rest = told.join("; ");
            return Err(Failure::runtime(format!(
                "not yet safe to stop after {seconds} s (the drain goes on): {rest}"
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        state = serde_json::from_value(admin::get(address, "/drain").await?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drained_daemon_without_work_is_safe_to_stop() {
        let drain = Drain::default();
        let is_safe = |under_way: &[&str]| {
            DrainState::new(&drain, under_way.iter().map(|line| (*line).to_owned()).collect()).safe_to_stop
        };
        assert!(!is_safe(&[]), "it may take work at any time");
        drain.set(true);
        assert!(is_safe(&[]) && !is_safe(&["challenge c1"]));
        drain.set(false);
        assert!(!is_safe(&[]));
    }
}
