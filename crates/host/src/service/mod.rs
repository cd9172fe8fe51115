//! A daemon as a systemd service of this machine: `install-service`, `uninstall-service` and `service-status`, one
//! implementation for all three (vm-and-gpu-host spec 6.2 and 6.3).
//!
//! [`Daemon`] says what differs between them. A command first writes down its [`plan::Step`]s, which `--dry-run` prints and
//! tests read, and only then takes them. With `--root DIR` everything happens in that folder and nothing is started.

pub mod plan;
pub mod status;
pub mod unit;

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::plan::{Machine, StepError};
use self::status::{Activity, Status};

/// Where systemd shows that it runs this machine.
const SYSTEMD_RUNS: &str = "run/systemd/system";

/// What differs between the services of the three daemons.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// Name of program, unit and folders, as `byteleap-worker`.
    pub name: &'static str,
    /// The unit's description.
    pub description: &'static str,
    /// The version that runs this command and is installed by it.
    pub version: &'static str,
    /// Name of the configuration file.
    pub config_file: &'static str,
    /// Memory beyond which the service is killed, as systemd writes it.
    pub memory_max: &'static str,
    /// Seconds that the start may take.
    pub start_timeout_s: u32,
    /// Whether the service deals with GPUs and virtual machines.
    pub is_worker: bool,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum ServiceCommand {
    /// Install this program as a systemd service: folders, default configuration, unit. May be repeated.
    InstallService(InstallArgs),
    /// Stop and remove the service; configuration and state stay.
    UninstallService(UninstallArgs),
    /// Tell whether the service runs: exit 0 active, 3 inactive, 4 not installed.
    ServiceStatus(StatusArgs),
}

/// Flags of `install-service`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct InstallArgs {
    /// The user that the service runs as; made if it does not exist.
    #[arg(long, value_name = "NAME", default_value = "byteleap", value_parser = user_name)]
    pub user: String,
    /// Install below this folder instead of `/`, and start nothing.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Do not start the service at boot.
    #[arg(long)]
    pub no_enable: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `uninstall-service`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UninstallArgs {
    /// Remove configuration, state and logs too, after a question.
    #[arg(long)]
    pub purge: bool,
    /// Answer the question of --purge with yes.
    #[arg(long, requires = "purge")]
    pub yes: bool,
    /// Uninstall below this folder instead of `/`.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Flags of `service-status`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StatusArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Look below this folder instead of `/`.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step could not be taken; those before it were.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Only root may do this.
    #[error("this needs root: run it with sudo, or with --dry-run to see what it would do")]
    NotRoot,
    /// The machine is not run by systemd.
    #[error(
        "systemd does not run this machine (there is no /{SYSTEMD_RUNS}): install below a folder with --root DIR, or keep \
         the program running with PM2 (ecosystem.config.js)"
    )]
    NoSystemd,
    /// The question was not answered with yes.
    #[error("nothing was removed: confirm with yes, or by --purge --yes")]
    NotConfirmed,
    /// The own program file cannot be found.
    #[error("the program's own file cannot be found")]
    OwnFile(#[source] io::Error),
    /// Standard output or input is broken.
    #[error("the terminal cannot be used")]
    Terminal(#[from] io::Error),
    /// The service is installed and does not run (exit code 3).
    #[error("{0} is not active")]
    Inactive(&'static str),
    /// The service is not installed (exit code 4).
    #[error("{0} is not installed: install-service does it")]
    NotInstalled(&'static str),
}

impl Error {
    /// The exit code of the command (vm-and-gpu-host spec 6.3).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Inactive(_) => 3,
            Self::NotInstalled(_) => 4,
            _ => 1,
        }
    }
}

impl Daemon {
    /// Runs one command; `default_config` is the file for a machine that has none.
    ///
    /// # Errors
    /// As [`Error`], which knows its exit code.
    pub fn execute(&self, command: &ServiceCommand, default_config: &str) -> Result<(), Error> {
        match command {
            ServiceCommand::InstallService(args) => self.install(args, default_config),
            ServiceCommand::UninstallService(args) => self.uninstall(args),
            ServiceCommand::ServiceStatus(args) => self.status(args),
        }
    }

    fn install(&self, args: &InstallArgs, default_config: &str) -> Result<(), Error> {
        let machine = machine(args.root.as_deref(), args.dry_run)?;
        let program = std::env::current_exe().map_err(Error::OwnFile)?;
        let steps = plan::install(self, &machine, &program, args, default_config);
        if machine.carry_out(&steps, args.dry_run)? && machine.is_live() {
            write!(io::stdout(), "{}", self.next_steps(args))?;
        }
        Ok(())
    }

    fn uninstall(&self, args: &UninstallArgs) -> Result<(), Error> {
        let machine = machine(args.root.as_deref(), args.dry_run)?;
        if args.purge && !args.yes && !args.dry_run {
            confirm(&format!("Remove configuration, state and logs of {} for ever?", self.name))?;
        }
        machine.carry_out(&plan::uninstall(self, &machine, args.purge), args.dry_run)?;
        Ok(())
    }

    fn status(&self, args: &StatusArgs) -> Result<(), Error> {
        let root = args.root.as_deref().unwrap_or(Path::new("/"));
        let status = Status::read(self, root, args.root.is_none() && root.join(SYSTEMD_RUNS).is_dir());
        let mut out = io::stdout();
        match args.json {
            true => writeln!(out, "{}", status.json())?,
            false => writeln!(out, "{status}")?,
        }
        match status.activity {
            Activity::Active => Ok(()),
            Activity::Inactive => Err(Error::Inactive(self.name)),
            Activity::NotInstalled => Err(Error::NotInstalled(self.name)),
        }
    }

    /// What is left to do for a person.
    fn next_steps(&self, args: &InstallArgs) -> String {
        let Self { name, config_file, .. } = self;
        let user = &args.user;
        let mut text = format!("\n{name} is installed. Next:\n  1. edit /opt/{name}/config/{config_file}\n");
        let mut number = 2;
        let mut step = |line: String| {
            let _ = writeln!(text, "  {number}. {line}");
            number += 1;
        };
        if !self.is_worker {
            step(format!(
                "give it the hotkey, and only that: copy ~/.bittensor/wallets/WALLET/hotkeys/HOTKEY to \
                 /var/lib/{name}/.bittensor/wallets/WALLET/hotkeys/, owner {user}, mode 0600"
            ));
        }
        step(format!("sudo -u {user} env HOME=/var/lib/{name} {name} check --config /opt/{name}/config/{config_file}"));
        step(format!("sudo systemctl start {name}; journalctl -fu {name}"));
        text
    }
}

/// The machine to work on, if this process may.
fn machine(root: Option<&Path>, only_print: bool) -> Result<Machine, Error> {
    if let Some(root) = root {
        return Ok(Machine::below(root));
    }
    if only_print {
        return Ok(Machine::this());
    }
    if !Path::new("/").join(SYSTEMD_RUNS).is_dir() {
        return Err(Error::NoSystemd);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    Ok(Machine::this())
}

/// Asks on the terminal; without one nobody can say yes.
fn confirm(question: &str) -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NotConfirmed);
    }
    write!(io::stdout(), "{question} Type yes: ")?;
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Error::NotConfirmed) }
}

/// A name that useradd and a unit take as it is.
fn user_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 31
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if is_name { Ok(text.to_owned()) } else { Err("a name of lower-case letters, digits, - and _".to_owned()) }
}
