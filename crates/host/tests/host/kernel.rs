//! What stands between the code and a laid-out machine: a kernel that moves drivers, writes that fail or end the process,
//! programs that only note that they ran.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use byteleap_host::host_fs::{Change, HostFs, Interception};
use byteleap_host::pci;
use byteleap_host::program::Programs;

/// How a change goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It alone fails.
    Fails,
    /// The process ends there: nothing after it happens either.
    Kills,
}

/// A kernel that does what is asked, until the change at which a fault waits.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    drivers: Arc<BTreeMap<String, Option<String>>>,
    fault: Option<(usize, Fault)>,
    changes: AtomicUsize,
    /// A function that vfio-pci does not take.
    refused: Option<String>,
}

impl Kernel {
    /// One that gives functions back to the drivers that have them now.
    pub(crate) fn of(root: &Path) -> Self {
        let functions = pci::functions(&HostFs::new(root)).into_iter();
        let native = |driver: Option<String>| driver.filter(|name| name != pci::VFIO_PCI);
        let drivers = functions.map(|function| (function.address.to_string(), native(function.driver)));
        Self { drivers: Arc::new(drivers.collect()), ..Self::default() }
    }

    /// The same machine's, as if started anew.
    pub(crate) fn again(&self) -> Self {
        Self { drivers: self.drivers.clone(), ..Self::default() }
    }

    pub(crate) fn with_fault(mut self, at: usize, fault: Fault) -> Self {
        self.fault = Some((at, fault));
        self
    }

    pub(crate) fn refusing(mut self, address: &str) -> Self {
        self.refused = Some(address.to_owned());
        self
    }

    /// How many changes there were.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    fn probe(&self, root: &Path, address: &str) -> io::Result<()> {
        let folder = root.join(format!("sys/bus/pci/devices/{address}"));
        let only = fs::read_to_string(folder.join("driver_override"))?.trim().to_owned();
        let driver = if only == "(null)" { self.drivers.get(address).cloned().flatten() } else { Some(only) };
        let refuses = |driver: &String| driver == pci::VFIO_PCI && self.refused.as_deref() == Some(address);
        if let Some(driver) = driver.filter(|driver| !refuses(driver)) {
            symlink(format!("../../drivers/{driver}"), folder.join("driver"))?;
        }
        Ok(())
    }
}

impl Interception for Kernel {
    fn before(&self, _change: Change<'_>) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fault {
            Some((at, Fault::Fails)) if number == at => Err(io::Error::other("this change fails")),
            Some((at, Fault::Kills)) if number >= at => Err(io::Error::other("the process has ended")),
            _ => Ok(()),
        }
    }

    fn attribute(&self, root: &Path, path: &str, text: &str) -> Option<io::Result<()>> {
        let at = root.join(path.trim_start_matches('/'));
        Some(match Path::new(path).file_name()?.to_str()? {
            "unbind" => fs::remove_file(at.parent()?),
            "driver_override" => {
                fs::write(at, if text.trim().is_empty() { "(null)\n".to_owned() } else { format!("{text}\n") })
            }
            "drivers_probe" => self.probe(root, text),
            other => Err(io::Error::other(format!("the kernel has no {other}"))),
        })
    }
}

/// Programs that note that they ran. grubby does its work; one of them may fail.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    pub(crate) root: PathBuf,
    pub(crate) ran: Mutex<Vec<String>>,
    pub(crate) failing: Option<String>,
}

impl Noted {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }
}

impl Programs for Noted {
    fn run(&self, command: &[String]) -> io::Result<()> {
        let line = command.join(" ");
        self.ran.lock().unwrap().push(line.clone());
        if self.failing.as_ref().is_some_and(|word| line.contains(word.as_str())) {
            return Err(io::Error::other("this program fails"));
        }
        if command[0] == "grubby" {
            let (change, words) = command[2].split_once('=').unwrap();
            for entry in fs::read_dir(self.root.join("boot/loader/entries"))? {
                let path = entry?.path();
                let line = |line: &str| match (line.strip_prefix("options "), change) {
                    (Some(_), "--args") => format!("{line} {words}\n"),
                    (Some(_), _) => format!("{}\n", line.replace(&format!(" {words}"), "")),
                    (None, _) => format!("{line}\n"),
                };
                let text: String = fs::read_to_string(&path)?.lines().map(line).collect();
                fs::write(path, text)?;
            }
        }
        Ok(())
    }
}

/// Everything below a folder: what it is, its permissions, what it holds.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let holds = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), (metadata.permissions().mode(), holds));
        }
    }
    found
}

/// The paths in which two trees differ.
pub(crate) fn differences(
    one: &BTreeMap<PathBuf, (u32, String)>,
    other: &BTreeMap<PathBuf, (u32, String)>,
) -> Vec<PathBuf> {
    let paths = one.keys().chain(other.keys());
    let mut paths: Vec<_> = paths.filter(|path| one.get(*path) != other.get(*path)).cloned().collect();
    paths.sort();
    paths.dedup();
    paths
}
