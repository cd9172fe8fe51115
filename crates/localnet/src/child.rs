//! One daemon as a child process: started, watched, and ended in every case.
//!
//! A child is a process group of its own, so that an interrupt typed at the terminal reaches it only through us and only
//! once. Should this process die without ending it, the kernel tells the child to stop, where `setpriv` can ask for that.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child as Process, Command},
    time::timeout,
};

/// How long a child has from SIGTERM to its end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long a command of a daemon's executable may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// How much of the end of a log is looked at for the last lines.
const TAIL_BYTES: u64 = 4096;
/// How many of its lines are shown.
const TAIL_LINES: usize = 6;

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    launch: Launch,
    process: Process,
    group: Option<Pid>,
}

/// How a daemon is started.
#[derive(Debug)]
struct Launch {
    binary: PathBuf,
    config: PathBuf,
    assignments: Vec<String>,
}

/// A daemon that cannot be started, or that ended.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It cannot be started.
    #[error("{name} cannot be started ({binary}): {source}")]
    Spawn {
        /// Which one.
        name: String,
        /// Its executable.
        binary: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A command of it failed.
    #[error("{binary} {command} failed: {told}")]
    Command {
        /// Its executable.
        binary: PathBuf,
        /// The command.
        command: &'static str,
        /// What it said.
        told: String,
    },
    /// It ended though nobody asked it to.
    #[error("{name} ended with {status}; its log {log} ends:\n{tail}")]
    Ended {
        /// Which one.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
}

/// Runs one command of a daemon's executable with a configuration to its end; gives what it printed.
pub(crate) async fn run(
    binary: &Path,
    command: &'static str,
    arguments: &[&str],
    config: &Path,
) -> Result<String, ChildError> {
    let failed = |told: String| ChildError::Command { binary: binary.to_owned(), command, told };
    let mut process = Command::new(binary);
    process.args(command.split(' ')).args(arguments).arg("--config").arg(config);
    let output = process.stdin(Stdio::null()).kill_on_drop(true).output();
    let late = |_| failed(format!("no answer after {} s", COMMAND_DEADLINE.as_secs()));
    let output = timeout(COMMAND_DEADLINE, output).await.map_err(late)?.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Child {
    /// Starts `binary --config config`, each of `assignments` behind a `--set`, its output going to `log`.
    pub(crate) fn start(
        name: &str,
        binary: &Path,
        config: &Path,
        assignments: &[String],
        log: PathBuf,
    ) -> Result<Self, ChildError> {
        let launch = Launch { binary: binary.to_owned(), config: config.to_owned(), assignments: assignments.to_vec() };
        let failed = |source| ChildError::Spawn { name: name.to_owned(), binary: binary.to_owned(), source };
        let process = File::create(&log).and_then(|output| launch.spawn(output, &[])).map_err(failed)?;
        Ok(Self { name: name.to_owned(), log, launch, group: group(&process), process })
    }

    /// Starts a child that has ended again, with these environment variables besides, and its output behind the former.
    pub(crate) fn start_again(&mut self, environment: &[(&str, &str)]) -> Result<(), ChildError> {
        let output = OpenOptions::new().create(true).append(true).open(&self.log);
        let spawned = output.and_then(|output| self.launch.spawn(output, environment));
        self.process = spawned.map_err(|source| ChildError::Spawn {
            name: self.name.clone(),
            binary: self.launch.binary.clone(),
            source,
        })?;
        self.group = group(&self.process);
        Ok(())
    }

    /// How the child ended, if it has.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Ends the child and whatever it started, without asking, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.process.wait().await;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The error of a child that has ended.
    pub(crate) fn check(&mut self) -> Result<(), ChildError> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(ChildError::Ended {
                name: self.name.clone(),
                status,
                tail: tail(&self.log).unwrap_or_default(),
                log: self.log.clone(),
            }),
            // A child whose state cannot be asked is met again at the next check.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Asks the child to stop.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits for the end of a child that was asked to stop; kills it, and whatever it started, at the deadline.
    pub(crate) async fn ended(mut self) {
        if tokio::time::timeout(STOP_DEADLINE, self.process.wait()).await.is_err() {
            tracing::warn!(child = self.name, "does not stop: killed");
        }
        self.signal(Signal::SIGKILL);
        // Reaps the child; it is gone by now in every case.
        let _ = self.process.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error means that nobody of the group lives.
            let _ = killpg(group, signal);
        }
    }
}

/// The last resort, for a network that is dropped instead of stopped.
impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.signal(Signal::SIGKILL);
        }
    }
}

impl Launch {
    fn spawn(&self, output: File, environment: &[(&str, &str)]) -> io::Result<Process> {
        let errors = output.try_clone()?;
        command(&self.binary)
            .arg("--config")
            .arg(&self.config)
            .args(self.assignments.iter().flat_map(|assignment| ["--set", assignment]))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .current_dir(self.config.parent().unwrap_or(Path::new("/")))
            .kill_on_drop(true)
            .spawn()
    }
}

fn group(process: &Process) -> Option<Pid> {
    process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}

/// The command that runs `binary` and, where the system has `setpriv`, ends it with this process.
fn command(binary: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|folder| folder.join("setpriv")).find(|setpriv| setpriv.is_file()) {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.arg("--pdeathsig").arg("TERM").arg(binary);
            command
        }
        None => Command::new(binary),
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let length = fs::metadata(log)?.len();
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(shown.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A daemon in shell: `$1` is `--config`, `$2` its path.
    fn child(folder: &Path, script: &str) -> Child {
        let binary = folder.join("daemon");
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o700)).unwrap();
        Child::start("daemon", &binary, &folder.join("config.yaml"), &[], folder.join("daemon.log")).unwrap()
    }

    async fn logged(folder: &Path, line: &str) {
        while !fs::read_to_string(folder.join("daemon.log")).unwrap_or_default().contains(line) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_child_that_ends_by_itself_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child(folder.path(), "echo no wallet for $2 >&2; exit 2");
        let status = child.process.wait().await.unwrap();
        assert_eq!(status.code(), Some(2));
        let error = child.check().unwrap_err().to_string();
        assert!(
            error.contains("daemon ended with") && error.contains("no wallet for /") && error.contains("config.yaml"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_child_is_asked_to_stop_before_it_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let child = child(folder.path(), "trap 'echo drained; exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        logged(folder.path(), "ready").await;
        child.terminate();
        child.ended().await;
        logged(folder.path(), "drained").await;
    }

    #[tokio::test]
    async fn a_killed_child_starts_again_with_its_arguments_and_a_log_that_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = child(folder.path(), "echo $2 $POINT ready; exec sleep 1000");
        logged(folder.path(), "config.yaml ready").await;
        assert_eq!(child.end(), None);
        child.kill().await;
        assert!(child.end().is_some());
        child.start_again(&[("POINT", "second")]).unwrap();
        logged(folder.path(), "config.yaml second ready").await;
        logged(folder.path(), "config.yaml ready").await;
        assert_eq!(child.end(), None);
    }

    #[tokio::test]
    async fn a_dropped_child_leaves_nobody_of_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let child = child(folder.path(), "sleep 1000 & echo $! > grandchild; echo ready; wait");
        logged(folder.path(), "ready").await;
        let grandchild = fs::read_to_string(folder.path().join("grandchild")).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", grandchild.trim()));
        assert!(stat.exists());
        drop(child);
        // Gone, or dead and waiting for whoever inherited it.
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            tokio::task::yield_now().await;
        }
    }
}
