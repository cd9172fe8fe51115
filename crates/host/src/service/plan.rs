//! What installing and uninstalling do, step by step: written down first, then taken.
//!
//! Every step may be taken again without harm. Files are put in place whole (written beside, then renamed), so that a
//! machine that loses power in between holds the old one or the new one.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Daemon, InstallArgs, unit};

/// Releases that are kept beside the current one for a way back.
const KEPT_VERSIONS: usize = 3;
/// Groups through which a worker reaches virtual machines, where the machine has them.
const WORKER_GROUPS: &[&str] = &["libvirt", "kvm"];

/// Whom a file belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The system.
    Root,
    /// The system, and the service's group may read.
    Group(String),
    /// The service's user.
    User(String),
}

/// One step; paths are those of the machine, as `/opt/byteleap-worker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a folder, or give it its mode and owner again.
    Folder {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: Owner,
    },
    /// Copy a program there.
    Program {
        /// From this file.
        from: PathBuf,
        /// To this one.
        to: PathBuf,
    },
    /// Write a file.
    Text {
        /// Where.
        path: PathBuf,
        /// What.
        text: String,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: Owner,
        /// Leave a file that is there as it is.
        keeps_existing: bool,
    },
    /// Let a symbolic link point there.
    Link {
        /// The link.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Remove all but the newest releases and the one in use.
    Thin {
        /// Folder of releases.
        versions: PathBuf,
    },
    /// Remove a file, a link, or a folder with what is in it.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// Run a program of the system.
    Run {
        /// It and its arguments.
        command: Vec<String>,
        /// Whether the plan goes on when it fails.
        may_fail: bool,
    },
}

/// A step that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("could not {step}; those before it are done, and the command may be repeated")]
pub struct StepError {
    /// Which.
    step: String,
    /// Why not.
    source: io::Error,
}

/// The machine that steps are taken on.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
    is_live: bool,
}

impl Machine {
    /// The one that this process runs on.
    #[must_use]
    pub fn this() -> Self {
        Self { root: PathBuf::from("/"), is_live: true }
    }

    /// A file system below a folder, as of a machine that is off.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), is_live: false }
    }

    /// Whether programs are run on it.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Where a path of the machine is for us.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The number that a file of the form of `/etc/passwd` gives a name.
    fn id_of(&self, file: &str, name: &str) -> Option<u32> {
        let text = fs::read_to_string(self.root.join(file)).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }

    /// Prints the steps, and takes them unless they are only to be seen; whether they were taken.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn carry_out(&self, steps: &[Step], only_print: bool) -> Result<bool, StepError> {
        let mut out = io::stdout();
        for step in steps {
            let taken = writeln!(out, "{step}").and_then(|()| if only_print { Ok(()) } else { self.take(step) });
            taken.map_err(|source| StepError { step: step.to_string(), source })?;
        }
        Ok(!only_print)
    }

    fn take(&self, step: &Step) -> io::Result<()> {
        match step {
            Step::Folder { path, mode, owner } => {
                let path = self.at(path);
                fs::create_dir_all(&path)?;
                self.give(&path, *mode, owner)
            }
            Step::Program { from, to } => {
                let to = self.at(to);
                if same_file(from, &to) {
                    return Ok(());
                }
                place(&to, |file| io::copy(&mut File::open(from)?, file).map(drop))?;
                self.give(&to, 0o755, &Owner::Root)
            }
            Step::Text { path, text, mode, owner, keeps_existing } => {
                let path = self.at(path);
                if !(*keeps_existing && path.exists()) {
                    place(&path, |file| file.write_all(text.as_bytes()))?;
                }
                self.give(&path, *mode, owner)
            }
            Step::Link { path, target } => {
                let path = self.at(path);
                let parent = path.parent().unwrap_or(Path::new("/"));
                fs::create_dir_all(parent)?;
                let beside = beside(&path);
                remove(&beside)?;
                symlink(target, &beside)?;
                fs::rename(&beside, &path)?;
                File::open(parent)?.sync_all()
            }
            Step::Thin { versions } => thin(&self.at(versions)),
            Step::Remove { path } => remove(&self.at(path)),
            Step::Run { command, may_fail } if self.is_live => match run(command) {
                Err(error) if !may_fail => Err(error),
                _ => Ok(()),
            },
            Step::Run { .. } => Ok(()),
        }
    }

    /// Gives a path its mode, and its owner where the machine knows him and we may.
    fn give(&self, path: &Path, mode: u32, owner: &Owner) -> io::Result<()> {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let (user, group) = match owner {
            Owner::Root => (Some(0), Some(0)),
            Owner::Group(name) => (Some(0), self.id_of("etc/group", name)),
            Owner::User(name) => (self.id_of("etc/passwd", name), self.id_of("etc/group", name)),
        };
        chown(path, user, group)?;
        // A change of owner takes the set-group bit away.
        fs::set_permissions(path, Permissions::from_mode(mode))
    }
}

/// What installs `program` as the service of `daemon`.
#[must_use]
pub fn install(
    daemon: &Daemon,
    machine: &Machine,
    program: &Path,
    args: &InstallArgs,
    default_config: &str,
) -> Vec<Step> {
    let Daemon { name, version, config_file, is_worker, .. } = daemon;
    let path = |text: String| PathBuf::from(text);
    let (user, group) = (|| Owner::User(args.user.clone()), || Owner::Group(args.user.clone()));
    let groups: Vec<&str> = WORKER_GROUPS
        .iter()
        .filter(|group| *is_worker && machine.id_of("etc/group", group).is_some())
        .copied()
        .collect();
    let release = path(format!("/opt/{name}/versions/{version}"));
    let mut steps = Vec::new();
    if machine.id_of("etc/passwd", &args.user).is_none() {
        let shell = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell"];
        let mut command = vec!["useradd"];
        command.extend(shell.into_iter().chain(["/usr/sbin/nologin", args.user.as_str()]));
        steps.push(command_step(&command, false));
    }
    let folder = |path: PathBuf, mode, owner| Step::Folder { path, mode, owner };
    steps.push(folder(path(format!("/opt/{name}")), 0o755, Owner::Root));
    steps.push(folder(path(format!("/opt/{name}/versions")), 0o755, Owner::Root));
    steps.push(folder(release.clone(), 0o755, Owner::Root));
    // A worker keeps the state of its VM gateway beside the configuration; the others only read there.
    steps.push(folder(path(format!("/opt/{name}/config")), if *is_worker { 0o2770 } else { 0o750 }, group()));
    steps.push(folder(path(format!("/var/lib/{name}")), 0o700, user()));
    steps.push(Step::Program { from: program.to_owned(), to: release.join(name) });
    let companion = program.with_file_name("byteleap-vm");
    if *is_worker && companion.is_file() {
        steps.push(Step::Program { from: companion, to: release.join("byteleap-vm") });
    }
    steps.push(Step::Link { path: path(format!("/opt/{name}/current")), target: path(format!("versions/{version}")) });
    steps.push(Step::Link {
        path: path(format!("/usr/local/bin/{name}")),
        target: path(format!("/opt/{name}/current/{name}")),
    });
    steps.push(Step::Thin { versions: path(format!("/opt/{name}/versions")) });
    steps.push(Step::Text {
        path: path(format!("/opt/{name}/config/{config_file}")),
        text: default_config.to_owned(),
        mode: 0o640,
        owner: group(),
        keeps_existing: true,
    });
    steps.push(Step::Text {
        path: unit_path(daemon),
        text: unit::text(daemon, &args.user, &groups),
        mode: 0o644,
        owner: Owner::Root,
        keeps_existing: false,
    });
    steps.push(command_step(&["systemctl", "daemon-reload"], false));
    if !args.no_enable {
        steps.push(command_step(&["systemctl", "enable", name], false));
    }
    steps
}

/// What removes the service of `daemon`, and with `purge` whatever it left.
#[must_use]
pub fn uninstall(daemon: &Daemon, machine: &Machine, purge: bool) -> Vec<Step> {
    let Daemon { name, .. } = daemon;
    let remove = |path: String| Step::Remove { path: PathBuf::from(path) };
    let mut steps = Vec::new();
    if machine.at(&unit_path(daemon)).exists() {
        steps.push(command_step(&["systemctl", "disable", "--now", name], true));
    }
    steps.push(Step::Remove { path: unit_path(daemon) });
    let link = machine.at(&PathBuf::from(format!("/usr/local/bin/{name}")));
    if fs::read_link(link).is_ok_and(|target| target.starts_with(format!("/opt/{name}"))) {
        steps.push(remove(format!("/usr/local/bin/{name}")));
    }
    steps.push(remove(format!("/opt/{name}/current")));
    steps.push(remove(format!("/opt/{name}/versions")));
    steps.push(command_step(&["systemctl", "daemon-reload"], true));
    if purge {
        steps.extend(["/opt", "/var/lib", "/var/log"].map(|folder| remove(format!("{folder}/{name}"))));
    }
    steps
}

/// Where the unit of `daemon` lies.
#[must_use]
pub fn unit_path(daemon: &Daemon) -> PathBuf {
    PathBuf::from(format!("/etc/systemd/system/{}.service", daemon.name))
}

fn command_step(command: &[&str], may_fail: bool) -> Step {
    Step::Run { command: command.iter().map(|&word| word.to_owned()).collect(), may_fail }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, mode, owner } => write!(out, "folder {} ({mode:04o} {owner})", path.display()),
            Self::Program { from, to } => write!(out, "copy {} to {}", from.display(), to.display()),
            Self::Text { path, mode, owner, keeps_existing: true, .. } => {
                write!(out, "write {} unless it is there ({mode:04o} {owner})", path.display())
            }
            Self::Text { path, mode, owner, .. } => write!(out, "write {} ({mode:04o} {owner})", path.display()),
            Self::Link { path, target } => write!(out, "link {} to {}", path.display(), target.display()),
            Self::Thin { versions } => write!(out, "keep the newest {KEPT_VERSIONS} of {}", versions.display()),
            Self::Remove { path } => write!(out, "remove {}", path.display()),
            Self::Run { command, .. } => write!(out, "run {}", command.join(" ")),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => out.write_str("root:root"),
            Self::Group(name) => write!(out, "root:{name}"),
            Self::User(name) => write!(out, "{name}:{name}"),
        }
    }
}

/// The name under which a file is written before it takes its place.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Puts a file in place whole.
fn place(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let beside = beside(path);
    remove(&beside)?;
    let mut file = File::create_new(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(parent)?.sync_all()
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}

/// Removes whatever is at `path`, never what a link there points to; nothing there is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the oldest releases beyond [`KEPT_VERSIONS`], but never the one in use.
fn thin(versions: &Path) -> io::Result<()> {
    let current = versions.parent().and_then(|folder| fs::canonicalize(folder.join("current")).ok());
    let mut releases = Vec::new();
    for entry in fs::read_dir(versions)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            releases.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    releases.sort();
    let excess = releases.len().saturating_sub(KEPT_VERSIONS);
    for (_, release) in releases.into_iter().take(excess) {
        if fs::canonicalize(&release).ok() != current {
            remove(&release)?;
        }
    }
    Ok(())
}

fn run(command: &[String]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let status = Command::new(program).args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{program} ended with {status}"))) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::service) const WORKER: Daemon = Daemon {
        name: "byteleap-worker",
        description: "ByteLeap compute worker",
        version: "1.2.3",
        config_file: "worker_config.yaml",
        memory_max: "4G",
        start_timeout_s: 90,
        is_worker: true,
    };

    struct Root {
        folder: tempfile::TempDir,
        program: PathBuf,
    }

    impl Root {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let program = folder.path().join("byteleap-worker");
            fs::write(&program, "#!/bin/sh\n").unwrap();
            fs::create_dir_all(folder.path().join("machine/etc")).unwrap();
            Self { folder, program }
        }

        fn machine(&self) -> Machine {
            Machine::below(&self.folder.path().join("machine"))
        }

        fn install(&self, daemon: &Daemon) -> Vec<Step> {
            let args = InstallArgs { user: "byteleap".into(), root: None, no_enable: false, dry_run: false };
            let steps = install(daemon, &self.machine(), &self.program, &args, "worker_name: null\n");
            self.machine().carry_out(&steps, false).unwrap();
            steps
        }

        fn path(&self, path: &str) -> PathBuf {
            self.machine().at(Path::new(path))
        }
    }

    #[test]
    fn an_installed_service_has_its_layout_and_a_second_installation_changes_nothing() {
        let root = Root::new();
        root.install(&WORKER);
        let config = root.path("/opt/byteleap-worker/config/worker_config.yaml");
        fs::write(&config, "worker_name: mine\n").unwrap();
        root.install(&WORKER);
        assert_eq!(fs::read_to_string(&config).unwrap(), "worker_name: mine\n", "never overwritten");
        let mode = |path: &str| fs::metadata(root.path(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("/opt/byteleap-worker/config"), 0o2770);
        assert_eq!(mode("/opt/byteleap-worker/config/worker_config.yaml"), 0o640);
        assert_eq!(mode("/opt/byteleap-worker/versions/1.2.3/byteleap-worker"), 0o755);
        assert_eq!(mode("/var/lib/byteleap-worker"), 0o700);
        let link = |path: &str| fs::read_link(root.path(path)).unwrap();
        assert_eq!(link("/opt/byteleap-worker/current"), Path::new("versions/1.2.3"));
        assert_eq!(link("/usr/local/bin/byteleap-worker"), Path::new("/opt/byteleap-worker/current/byteleap-worker"));
        let unit = fs::read_to_string(root.path("/etc/systemd/system/byteleap-worker.service")).unwrap();
        assert!(unit.contains("Type=notify") && unit.contains("WatchdogSec=60s"), "{unit}");
        assert!(!unit.contains("SupplementaryGroups"), "the machine has no such group: {unit}");
    }

    #[test]
    fn a_new_version_takes_over_and_the_three_newest_stay() {
        let root = Root::new();
        for version in ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"] {
            root.install(&Daemon { version, ..WORKER });
        }
        let mut kept: Vec<_> = fs::read_dir(root.path("/opt/byteleap-worker/versions"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        kept.sort();
        assert_eq!(kept, ["1.2.0", "1.3.0", "1.4.0"]);
        assert_eq!(fs::read_link(root.path("/opt/byteleap-worker/current")).unwrap(), Path::new("versions/1.4.0"));
    }

    #[test]
    fn a_worker_joins_the_groups_that_the_machine_has_and_a_known_user_is_not_made_again() {
        let root = Root::new();
        let makes_user = |steps: &[Step]| steps.iter().any(|step| step.to_string().contains("useradd"));
        assert!(makes_user(&root.install(&WORKER)));
        fs::write(root.path("/etc/passwd"), "root:x:0:0::/:\nbyteleap:x:990:990::/:\n").unwrap();
        fs::write(root.path("/etc/group"), "byteleap:x:990:\nlibvirt:x:108:\n").unwrap();
        assert!(!makes_user(&root.install(&WORKER)));
        let unit = fs::read_to_string(root.path("/etc/systemd/system/byteleap-worker.service")).unwrap();
        assert!(unit.contains("SupplementaryGroups=libvirt\n"), "{unit}");
    }

    #[test]
    fn uninstalling_leaves_configuration_and_state_and_purging_leaves_nothing() {
        let root = Root::new();
        root.install(&WORKER);
        let uninstalled = |purge| {
            root.machine().carry_out(&uninstall(&WORKER, &root.machine(), purge), false).unwrap();
        };
        uninstalled(false);
        for gone in ["/etc/systemd/system/byteleap-worker.service", "/opt/byteleap-worker/versions"] {
            assert!(!root.path(gone).exists(), "{gone}");
        }
        for gone in ["/usr/local/bin/byteleap-worker", "/opt/byteleap-worker/current"] {
            assert!(fs::symlink_metadata(root.path(gone)).is_err(), "{gone}");
        }
        assert!(root.path("/opt/byteleap-worker/config/worker_config.yaml").exists());
        assert!(root.path("/var/lib/byteleap-worker").exists());
        uninstalled(true);
        assert!(!root.path("/opt/byteleap-worker").exists() && !root.path("/var/lib/byteleap-worker").exists());
        uninstalled(true);
    }

    #[test]
    fn a_dry_run_only_tells() {
        let root = Root::new();
        let args = InstallArgs { user: "byteleap".into(), root: None, no_enable: true, dry_run: true };
        let steps = install(&WORKER, &root.machine(), &root.program, &args, "");
        assert!(!root.machine().carry_out(&steps, true).unwrap());
        assert!(!root.path("/opt").exists());
        assert!(!steps.iter().any(|step| step.to_string().contains("enable")));
    }
}
