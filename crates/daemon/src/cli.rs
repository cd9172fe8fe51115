//! The part of the command line that all daemons share, and how a command ends.
//!
//! A daemon flattens [`CommonArgs`] and [`CommonCommand`] into its own parser and ends with [`exit`]:
//!
//! ```no_run
//! use byteleap_daemon::{cli::{self, CommonArgs, CommonCommand, Failure}, config::Key};
//! use clap::{Parser, Subcommand};
//!
//! const KEYS: &[Key] = &[];
//!
//! #[derive(Parser)]
//! #[command(version)]
//! struct Arguments {
//!     #[command(flatten)]
//!     common: CommonArgs,
//!     #[command(subcommand)]
//!     command: Option<Command>,
//! }
//!
//! #[derive(Subcommand)]
//! enum Command {
//!     #[command(flatten)]
//!     Common(CommonCommand),
//!     /// Show the workers.
//!     Workers,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     cli::exit(command(Arguments::parse()))
//! }
//!
//! fn command(arguments: Arguments) -> Result<(), Failure> {
//!     match arguments.command.unwrap_or(Command::Common(CommonCommand::Run)) {
//!         Command::Common(CommonCommand::Config { example: true }) => cli::print_example(KEYS),
//!         Command::Common(CommonCommand::Config { example: false }) => cli::print_effective(&arguments.common.load(KEYS)?),
//!         Command::Common(CommonCommand::Check(_)) => Ok(()),
//!         Command::Common(CommonCommand::Run) => cli::block_on(async { Ok(()) }),
//!         Command::Workers => Ok(()),
//!     }
//! }
//! ```

use std::{
    error::Error as StdError,
    fmt::{self, Display},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};

use crate::config::{self, Config, Key, Sources};
use crate::failpoint::ArmError;

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Configuration file (YAML).
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Set one key over the file and the environment, as `--set section.key=value`; repeatable.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Commands that every daemon has; `C` are its own flags of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CommonCommand<C: Args = NoFlags> {
    /// Run until a signal (the default).
    Run,
    /// Check configuration and surroundings, and print every problem at once.
    Check(C),
    /// Print the effective configuration with the source of each value, secrets hidden.
    Config {
        /// Print an example file instead: every key with its default.
        #[arg(long)]
        example: bool,
    },
}

/// A command without flags of its own.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NoFlags {}

impl CommonArgs {
    /// Loads the configuration that the flags, the environment and the file describe, and prints its warnings to
    /// standard error.
    ///
    /// # Errors
    ///
    /// All problems at once, as a failure of exit code 2.
    pub fn load(&self, keys: &[Key]) -> Result<Config, Failure> {
        let config = Config::load(keys, &self.sources())?;
        for warning in config.warnings() {
            // Standard error may be closed; a warning that nobody can read is no reason to stop.
            let _ = writeln!(io::stderr(), "warning: {warning}");
        }
        Ok(config)
    }

    /// The sources that the flags and this process's environment describe.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Sources { file: self.config.clone(), environment: environment.collect(), arguments: self.set.clone() }
    }
}

/// Why a command failed, with its exit code: 1 for what went wrong while it ran, 2 for usage and configuration.
///
/// Every error converts into a failure of code 1, but [`config::Error`] and [`ArmError`], which are of code 2.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: Box<dyn StdError + Send + Sync>,
}

impl Failure {
    /// What went wrong while the command ran (exit code 1). Takes `anyhow::Error` too.
    pub fn runtime(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { code: 1, error: error.into() }
    }

    /// Wrong usage or configuration (exit code 2).
    pub fn usage(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { code: 2, error: error.into() }
    }

    /// A failure with the exit code that a command's own specification names.
    pub fn with_code(code: u8, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { code, error: error.into() }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: Box<dyn StdError + Send + Sync> = Box::new(error);
        let code = if error.is::<config::Error>() || error.is::<ArmError>() { 2 } else { 1 };
        Self { code, error }
    }
}

/// The whole chain of causes, each once: a cause whose text its parent already ends with is not repeated.
impl Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.error.to_string();
        out.write_str(&shown)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !shown.ends_with(&text) {
                write!(out, "\n  caused by: {text}")?;
                shown = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

/// Prints a failure, if there is one, to standard error, and yields the exit code for `main`.
#[must_use]
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a future on a multi-threaded runtime. When it ends, nothing is waited for any more: what had to be drained was
/// drained by [`crate::tasks`], and a blocking call that hangs must not keep the process.
///
/// # Errors
///
/// The future's failure, or that no runtime could be started.
pub fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Prints the effective configuration: the body of `config`.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print_effective(config: &Config) -> Result<(), Failure> {
    Ok(io::stdout().write_all(config.effective().as_bytes())?)
}

/// Prints the example file: the body of `config --example`.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn print_example(keys: &[Key]) -> Result<(), Failure> {
    Ok(io::stdout().write_all(config::example(keys).as_bytes())?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        common: CommonArgs,
        #[command(subcommand)]
        command: Option<Command>,
    }

    #[derive(Debug, PartialEq, Subcommand)]
    enum Command {
        #[command(flatten)]
        Common(CommonCommand),
        Status,
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for line in [
            vec!["d", "--config", "a.yaml", "--set", "a=1", "--set", "b=2", "config", "--example"],
            vec!["d", "config", "--example", "--config", "a.yaml", "--set", "a=1", "--set", "b=2"],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert_eq!(arguments.common.config, Some(PathBuf::from("a.yaml")));
            assert_eq!(arguments.common.set, ["a=1", "b=2"]);
            assert_eq!(arguments.command, Some(Command::Common(CommonCommand::Config { example: true })));
        }
        let arguments = Arguments::try_parse_from(["d", "--log-format", "json"]).unwrap();
        assert_eq!((arguments.command, arguments.common.log_format), (None, LogFormat::Json));
        assert_eq!(Arguments::try_parse_from(["d", "status"]).unwrap().command, Some(Command::Status));
    }

    #[test]
    fn configuration_errors_exit_with_2_and_others_with_1() {
        let arguments = CommonArgs { config: None, set: vec!["nonsense".into()], log_format: LogFormat::Text };
        assert_eq!(arguments.load(&[]).unwrap_err().code(), 2);
        assert_eq!(Failure::from(io::Error::other("broken")).code(), 1);
        assert_eq!(Failure::usage("no such worker").code(), 2);
    }

    #[test]
    fn a_failure_prints_the_whole_chain_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the wallet cannot be read")]
        struct Wallet(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("/keys/hotkey: {0}")]
        struct Inner(#[source] io::Error);

        let failure = Failure::from(Wallet(Inner(io::Error::other("permission denied"))));
        assert_eq!(failure.to_string(), "the wallet cannot be read\n  caused by: /keys/hotkey: permission denied");
    }

    #[test]
    fn a_blocking_call_that_hangs_does_not_keep_the_process() {
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let result = block_on(async move {
            tokio::task::spawn_blocking(move || {
                let _ = started.send(());
                hung.recv()
            });
            Ok(has_started.await?)
        });
        assert!(result.is_ok());
        assert!(release.send(()).is_ok(), "the blocking call was still waiting");
    }
}
