//! SIGHUP: the configuration is read again from all its sources, and what is live takes effect.
//!
//! All or nothing: with one problem anywhere nothing changes, and the log names every problem. Keys that are not live
//! keep the value that the daemon started with; the log names those that differ, since they wait for a restart.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Changes, Config, Key, Problem, Sources};

/// The configuration of a running daemon.
#[derive(Debug)]
pub struct Reload {
    keys: &'static [Key],
    sources: Sources,
    config: Config,
}

/// SIGHUP of this process, or what a test raises.
#[derive(Debug)]
pub struct Hangups {
    raised: mpsc::Receiver<()>,
}

impl Hangups {
    /// From now on SIGHUP no longer ends the process. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// The process cannot listen to signals.
    pub fn of_process() -> std::io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (raise, raised) = mpsc::channel(1);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // One that waits already stands for this one too.
                if let Err(mpsc::error::TrySendError::Closed(())) = raise.try_send(()) {
                    break;
                }
            }
        });
        Ok(Self { raised })
    }

    /// Hangups that the holder of the sender raises.
    #[must_use]
    pub fn manual() -> (mpsc::Sender<()>, Self) {
        let (raise, raised) = mpsc::channel(1);
        (raise, Self { raised })
    }
}

impl Reload {
    /// The daemon started with `config`, which came from `sources`.
    #[must_use]
    pub fn new(keys: &'static [Key], sources: Sources, config: Config) -> Self {
        Self { keys, sources, config }
    }

    /// Reads the sources again, and hands `apply` the configuration that is to hold: the new one, with the old value of
    /// each key that is not live. What `apply` refuses does not hold either.
    ///
    /// # Errors
    ///
    /// Every problem of the sources or of `apply`; then the old configuration holds on.
    pub fn again(
        &mut self,
        apply: impl FnOnce(&Config) -> Result<(), config::Error>,
    ) -> Result<(Changes, Vec<Problem>), config::Error> {
        let fresh = Config::load(self.keys, &self.sources)?;
        let warnings = fresh.warnings().to_vec();
        let (next, changes) = self.config.reloaded(fresh);
        apply(&next)?;
        self.config = next;
        Ok((changes, warnings))
    }

    /// Reloads at each hangup until `stop`, and logs what came of it.
    pub async fn run(
        mut self,
        mut hangups: Hangups,
        mut apply: impl FnMut(&Config) -> Result<(), config::Error>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                raised = hangups.raised.recv() => if raised.is_none() {
                    stop.cancelled().await;
                    return;
                },
            }
            // A file of a megabyte at most, read at a person's command: the runtime's other threads go on.
            match self.again(&mut apply) {
                Ok((changes, warnings)) => report(&changes, &warnings),
                Err(config::Error { problems }) => {
                    for problem in problems {
                        tracing::error!(%problem, "configuration not reloaded, nothing has changed");
                    }
                }
            }
        }
    }
}

fn report(changes: &Changes, warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!(%warning, "in the configuration");
    }
    tracing::info!(changed = changes.live.join(" "), "configuration reloaded");
    if !changes.waiting.is_empty() {
        tracing::warn!(keys = changes.waiting.join(" "), "these keys have changed and wait for a restart");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEYS: &[Key] = &[
        Key::integer("port", 1, 65535, "port").default("9091"),
        Key::integer("interval", 1, 3600, "seconds").default("240").live(),
        Key::text("level", "how much is logged").default("INFO").live(),
    ];

    #[test]
    fn live_keys_change_others_wait_and_a_problem_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let sources = Sources { file: Some(file.clone()), ..Sources::default() };
        fs::write(&file, "port: 9091\n").unwrap();
        let mut reload = Reload::new(KEYS, sources.clone(), Config::load(KEYS, &sources).unwrap());
        let seen = |config: &Config| (config.get::<u16>("port"), config.get::<u64>("interval"));

        fs::write(&file, "port: 9092\ninterval: 60\nlevle: DEBUG\n").unwrap();
        let mut applied = None;
        let (changes, warnings) = reload
            .again(|config| {
                applied = Some(seen(config));
                Ok(())
            })
            .unwrap();
        assert_eq!(applied, Some((9091, 60)));
        assert_eq!(changes, Changes { live: vec!["interval"], waiting: vec!["port"] });
        assert_eq!(warnings.len(), 1);

        for wrong in ["port: 9091\ninterval: 0\n", "interval: [", "port: none\ninterval: 30\n"] {
            fs::write(&file, wrong).unwrap();
            reload.again(|_| panic!("never applied")).unwrap_err();
        }
        fs::write(&file, "interval: 30\n").unwrap();
        reload.again(|config| Err(config.problem("interval", "too short for the rest").into())).unwrap_err();
        assert_eq!(seen(&reload.config), (9091, 60));
    }

    #[tokio::test]
    async fn each_hangup_reloads_until_the_stop() {
        let (raise, hangups) = Hangups::manual();
        let (applied, mut seen) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let reload = Reload::new(KEYS, Sources::default(), Config::load(KEYS, &Sources::default()).unwrap());
        let apply = move |_: &Config| {
            let _ = applied.try_send(());
            Ok(())
        };
        let running = tokio::spawn(reload.run(hangups, apply, stop.clone()));
        for _ in 0..2 {
            raise.send(()).await.unwrap();
            seen.recv().await.unwrap();
        }
        stop.cancel();
        running.await.unwrap();
    }
}
