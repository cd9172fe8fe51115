//! What `service-status` shows: what systemd knows of the unit, readable without root.

use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::Daemon;

/// Whether the service does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It runs.
    Active,
    /// It is installed and does not run.
    Inactive,
    /// There is no unit.
    NotInstalled,
}

/// The state of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The unit.
    pub unit: String,
    /// Whether it runs.
    pub activity: Activity,
    /// The version that `current` points to.
    pub version: Option<String>,
    /// systemd's word for the state, as `active (running)`.
    pub state: Option<String>,
    /// Since when.
    pub since: Option<String>,
    /// Whether it starts at boot.
    pub at_boot: Option<String>,
    /// The process.
    pub pid: Option<u32>,
    /// How often systemd started it again.
    pub restarts: Option<u32>,
    /// What the daemon says about itself, as `waiting for miner: not connected yet`.
    pub says: Option<String>,
    /// How the last run ended, if it did not end well.
    pub last_error: Option<String>,
}

/// The properties of a unit that are asked for.
const PROPERTIES: &str =
    "ActiveState,SubState,StateChangeTimestamp,UnitFileState,MainPID,NRestarts,StatusText,Result,ExecMainStatus";

impl Status {
    /// Looks below `root`, and asks systemd if it runs this machine.
    #[must_use]
    pub fn read(daemon: &Daemon, root: &Path, asks_systemd: bool) -> Self {
        let unit = format!("{}.service", daemon.name);
        let current = std::fs::read_link(root.join(format!("opt/{}/current", daemon.name))).ok();
        let version = current.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
        let is_installed = root.join("etc/systemd/system").join(&unit).is_file();
        let activity = if is_installed { Activity::Inactive } else { Activity::NotInstalled };
        let mut status = Self {
            unit,
            activity,
            version,
            state: None,
            since: None,
            at_boot: None,
            pid: None,
            restarts: None,
            says: None,
            last_error: None,
        };
        if is_installed && asks_systemd {
            let shown = Command::new("systemctl")
                .args(["show", &status.unit, "--no-pager", "--property", PROPERTIES])
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            status.take_in(&shown.unwrap_or_default());
        }
        status
    }

    /// Reads the lines `Property=value` of `systemctl show`.
    fn take_in(&mut self, shown: &str) {
        let value = |name: &str| {
            let line = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).filter(|value| !value.is_empty())
        };
        if value("ActiveState").is_some_and(|state| ["active", "reloading"].contains(&state.as_str())) {
            self.activity = Activity::Active;
        }
        self.state = value("ActiveState")
            .map(|state| format!("{state} ({})", value("SubState").unwrap_or_else(|| "unknown".to_owned())));
        self.since = value("StateChangeTimestamp");
        self.at_boot = value("UnitFileState");
        self.pid = value("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0);
        self.restarts = value("NRestarts").and_then(|restarts| restarts.parse().ok());
        self.says = value("StatusText");
        self.last_error = value("Result").filter(|result| result != "success").map(|result| {
            format!("{result}, exit {}", value("ExecMainStatus").unwrap_or_else(|| "unknown".to_owned()))
        });
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.state, self.activity) {
            (Some(state), _) => state.as_str(),
            (None, Activity::NotInstalled) => "not installed",
            (None, _) => "inactive",
        };
        write!(out, "{}: {state}", self.unit)?;
        let pid = self.pid.map(|pid| pid.to_string());
        let restarts = self.restarts.map(|restarts| restarts.to_string());
        for (name, value) in [
            ("version", &self.version),
            ("since", &self.since),
            ("at boot", &self.at_boot),
            ("process", &pid),
            ("restarts", &restarts),
            ("says", &self.says),
            ("last error", &self.last_error),
        ] {
            if let Some(value) = value {
                write!(out, "\n  {name:<11} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::plan::tests::WORKER;

    #[test]
    fn what_systemd_shows_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut status = Status::read(&WORKER, folder.path(), false);
        assert_eq!(status.activity, Activity::NotInstalled);
        status.take_in(
            "ActiveState=active\nSubState=running\nStateChangeTimestamp=Tue 2026-11-24 17:00:00 UTC\nUnitFileState=enabled\n\
             MainPID=412\nNRestarts=1\nStatusText=waiting for miner: not connected yet\nResult=success\nExecMainStatus=0\n",
        );
        assert_eq!(status.activity, Activity::Active);
        assert_eq!((status.pid, status.restarts, &status.last_error), (Some(412), Some(1), &None));
        let text = status.to_string();
        assert!(text.contains("active (running)") && text.contains("waiting for miner"), "{text}");
        status.take_in("ActiveState=failed\nSubState=failed\nMainPID=0\nResult=exit-code\nExecMainStatus=2\n");
        assert_eq!((status.pid, status.last_error.as_deref()), (None, Some("exit-code, exit 2")));
    }
}
