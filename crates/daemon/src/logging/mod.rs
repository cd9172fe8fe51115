//! The log of a daemon: events as text or JSON lines, on standard output and in a rotated file.
//!
//! Lines pass through a bounded queue to one writer thread, so that a slow disk or terminal never delays the work: when
//! the queue is full, lines are dropped and their number is logged as soon as there is room. [`Log`], which [`start`]
//! returns, flushes the queue when it is dropped at the end of `main`. Times are UTC.

mod file;
mod queue;
mod rotation;

use std::path::PathBuf;
use std::sync::Arc;

use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

use crate::{
    cli::LogFormat,
    config::{Config, Key},
};

pub use self::{
    file::FileOptions,
    rotation::{Retention, Rotation},
};

/// Libraries whose events below a warning say nothing to an operator.
const QUIET: &[&str] = &["h2", "hyper", "jsonrpsee", "reqwest", "rustls", "soketto", "sqlx", "subxt", "tungstenite"];

/// The key `logging.log_level` of validator and miner.
pub const LOG_LEVEL: Key =
    Key::text("logging.log_level", "TRACE, DEBUG, INFO, WARNING or ERROR").check(level_check).default("INFO").live();
/// The key `logging.log_dir` of validator and miner.
pub const LOG_DIR: Key =
    Key::text("logging.log_dir", "folder of the log file; files of the last 3 days are kept").default("./logs");
/// The key `logging.level` of the worker.
pub const LEVEL: Key =
    Key::text("logging.level", "TRACE, DEBUG, INFO, WARNING or ERROR").check(level_check).default("INFO").live();
/// The key `logging.filepath` of the worker.
pub const FILEPATH: Key = Key::text("logging.filepath", "log file").default("logs/worker.log");
/// The key `logging.rotation` of the worker.
pub const ROTATION: Key = Key::text("logging.rotation", "age or size at which a new file begins, as 1 day or 500 MB")
    .parsed::<Rotation>()
    .default("1 day");
/// The key `logging.retention` of the worker.
pub const RETENTION: Key = Key::text("logging.retention", "age of deleted files as 3 days, or how many are kept")
    .parsed::<Retention>()
    .default("3 days");
/// The key `logging.format` of the worker.
pub const FORMAT: Key =
    Key::text("logging.format", "template of the former logger: accepted and of no effect (see --log-format)");

/// What to log, how, and where besides standard output.
#[derive(Debug, Clone)]
pub struct Options {
    /// Least severe level: one of the names that the keys accept.
    pub level: String,
    /// Form of a line.
    pub format: LogFormat,
    /// The file, if any.
    pub file: Option<FileOptions>,
}

impl Options {
    /// The log of a daemon with the keys [`LOG_LEVEL`] and [`LOG_DIR`], in the file `file_name` of that folder.
    ///
    /// # Panics
    ///
    /// If the table of the daemon lacks these keys.
    #[must_use]
    pub fn in_directory(config: &Config, format: LogFormat, file_name: &str) -> Self {
        let path = config.get::<PathBuf>(LOG_DIR.name).join(file_name);
        let file = FileOptions { path, rotation: Rotation::daily(), retention: Retention::Files(3) };
        Self { level: config.get(LOG_LEVEL.name), format, file: Some(file) }
    }

    /// The log of a daemon with the keys [`LEVEL`], [`FILEPATH`], [`ROTATION`] and [`RETENTION`].
    ///
    /// # Panics
    ///
    /// If the table of the daemon lacks these keys.
    #[must_use]
    pub fn in_file(config: &Config, format: LogFormat) -> Self {
        let file = FileOptions {
            path: config.get(FILEPATH.name),
            rotation: config.parsed(ROTATION.name),
            retention: config.parsed(RETENTION.name),
        };
        Self { level: config.get(LEVEL.name), format, file: Some(file) }
    }
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its folder cannot be made.
    #[error("the log file {path} cannot be opened")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The writer's thread cannot be started.
    #[error("the log writer cannot be started")]
    Thread(#[source] std::io::Error),
    /// The process logs already.
    #[error("the process logs already")]
    Twice,
}

/// The running log. Dropping it writes what is queued and closes the file.
#[derive(Debug)]
#[must_use = "the log ends when this is dropped"]
pub struct Log {
    _queue: queue::Writer,
    level: LevelSwitch,
}

/// Changes the least severe level of the running log; cheap to clone.
#[derive(Clone)]
pub struct LevelSwitch(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl Log {
    /// The switch of this log's level.
    #[must_use]
    pub fn level(&self) -> LevelSwitch {
        self.level.clone()
    }
}

impl LevelSwitch {
    /// Logs from this level up: one of the names that the keys accept.
    pub fn set(&self, level: &str) {
        (self.0)(filter(level));
    }
}

impl std::fmt::Debug for LevelSwitch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("LevelSwitch")
    }
}

/// Starts the log of this process.
///
/// # Errors
///
/// The file cannot be opened, or the process logs already.
pub fn start(options: &Options) -> Result<Log, Error> {
    let file = options.file.as_ref().map(file::RotatedFile::open).transpose().map_err(|source| Error::File {
        path: options.file.as_ref().map(|file| file.path.clone()).unwrap_or_default(),
        source,
    })?;
    let (queue, sender) = queue::start(options.format, std::io::stdout(), file).map_err(Error::Thread)?;
    let (subscriber, level) = subscriber(options, sender);
    subscriber.try_init().map_err(|_| Error::Twice)?;
    Ok(Log { _queue: queue, level })
}

fn subscriber<W>(options: &Options, writer: W) -> (Box<dyn tracing::Subscriber + Send + Sync>, LevelSwitch)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(&options.level)).with_writer(writer).with_ansi(false);
    // The handle fails only once its subscriber is gone, and then there is nothing to set.
    match options.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let switch = LevelSwitch(Arc::new(move |filter| drop(handle.reload(filter))));
            (Box::new(builder.finish()), switch)
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let switch = LevelSwitch(Arc::new(move |filter| drop(handle.reload(filter))));
            (Box::new(builder.finish()), switch)
        }
    }
}

/// Our events from this level up, those of libraries from warnings up.
fn filter(name: &str) -> EnvFilter {
    let quiet: String = QUIET.iter().map(|library| format!(",{library}=warn")).collect();
    EnvFilter::new(format!("{}{quiet}", level(name).unwrap_or("info")))
}

/// The level that a name means, with the names of the Python loggers.
fn level(name: &str) -> Option<&'static str> {
    Some(match name.trim().to_ascii_uppercase().as_str() {
        "TRACE" => "trace",
        "DEBUG" => "debug",
        "INFO" | "SUCCESS" => "info",
        "WARNING" | "WARN" => "warn",
        "ERROR" | "CRITICAL" => "error",
        _ => return None,
    })
}

fn level_check(name: &str) -> Result<(), String> {
    level(name).map(drop).ok_or_else(|| "TRACE, DEBUG, INFO, WARNING or ERROR".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use crate::config::Sources;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let options = Options { level: level.into(), format, file: None };
        tracing::subscriber::with_default(subscriber(&options, move || writer.clone()).0, events);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_carries_utc_time_level_message_and_fields() {
        let text = logged("INFO", LogFormat::Json, || tracing::info!(worker_id = "w-1", "worker joined"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["worker_id"]),
            (&"INFO".into(), &"worker joined".into(), &"w-1".into())
        );
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_text_line_has_no_colours_and_lower_levels_are_dropped() {
        let text = logged("WARNING", LogFormat::Text, || {
            tracing::info!("too quiet");
            tracing::warn!(peer = "1.2.3.4", "refused");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(
            text.contains("WARN") && text.contains("refused") && text.contains("peer=") && !text.contains('\u{1b}'),
            "{text}"
        );
    }

    #[test]
    fn the_level_changes_while_the_log_runs() {
        let lines = Lines::default();
        let writer = lines.clone();
        let options = Options { level: "INFO".into(), format: LogFormat::Json, file: None };
        let (subscriber, level) = subscriber(&options, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("before");
            level.set("DEBUG");
            tracing::debug!("between");
            level.set("WARNING");
            tracing::info!("after");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("between") && !text.contains("before") && !text.contains("after"), "{text}");
    }

    #[test]
    fn libraries_log_from_warnings_up() {
        let text = logged("DEBUG", LogFormat::Text, || {
            tracing::debug!(target: "sqlx::query", "SELECT");
            tracing::warn!(target: "sqlx::query", "slow");
            tracing::debug!("ours");
        });
        assert!(!text.contains("SELECT") && text.contains("slow") && text.contains("ours"), "{text}");
    }

    #[test]
    fn old_keys_of_all_daemons_give_the_options() {
        const OLD: &[Key] = &[LOG_LEVEL, LOG_DIR];
        const WORKER: &[Key] = &[LEVEL, FILEPATH, ROTATION, RETENTION, FORMAT];
        let config = Config::load(OLD, &Sources::default()).unwrap();
        let options = Options::in_directory(&config, LogFormat::Text, "miner.log");
        assert_eq!(options.file.unwrap().path, PathBuf::from("./logs/miner.log"));
        let arguments = vec!["logging.level=SUCCESS".into(), "logging.rotation=500 MB".into()];
        let config = Config::load(WORKER, &Sources { arguments, ..Sources::default() }).unwrap();
        let options = Options::in_file(&config, LogFormat::Json);
        assert_eq!(options.file.unwrap().rotation, "500 MB".parse().unwrap());
        let wrong = Sources { arguments: vec!["logging.level=loud".into()], ..Sources::default() };
        assert!(Config::load(WORKER, &wrong).unwrap_err().to_string().contains("loud"));
    }
}
