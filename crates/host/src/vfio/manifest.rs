//! The backup that goes before every change, and the way back from it (vm-and-gpu-host spec 4.5, point 4, and 4.6).
//!
//! A run of `bind` makes one folder: a copy of each file as it was and as it becomes, and a manifest that says which is
//! which. Copies and manifest are on the disk before the first change, so that an interrupted run can always be undone.
//! Undoing looks at each file as it is now: what is already as it was stays, what we wrote is put back, and of what others
//! changed since only our lines are taken out. It may itself be interrupted and taken up again. A folder without a manifest
//! stems from a run that was interrupted before its first change, or after its undoing: it holds nothing that is needed.

use std::io;

use serde::{Deserialize, Serialize};

use super::edit::{Edit, Print, without_ours};
use super::live::Moved;
use super::plan::Plan;
use crate::host_fs::{HostFs, Node};

/// Where backups lie. Only root may write there: what lies there is put back as root.
pub const BACKUPS: &str = "/var/lib/byteleap-gpu";

/// The file in a backup that tells the rest.
const MANIFEST: &str = "manifest.json";

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has begun and not ended: it was interrupted, if it does not run now.
    Pending,
    /// All its changes are made.
    Done,
    /// A copy of files that were removed for good: never put back.
    Kept,
}

/// What one run changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// How far it came.
    pub state: State,
    /// The files, in the order of their changes.
    pub edits: Vec<Entry>,
    /// Folders that it made, outermost first.
    pub folders: Vec<String>,
    /// Parameters that it gave to grubby.
    pub grubby: Vec<String>,
    /// Programs that make its changes take effect.
    pub commands: Vec<Vec<String>>,
    /// Functions that it moved to vfio-pci while the machine ran.
    pub moved: Vec<Moved>,
}

/// One file of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub path: String,
    /// As it was.
    pub before: Option<Print>,
    /// As the run left it.
    pub after: Option<Print>,
}

/// A backup on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its folder.
    pub folder: String,
    /// What it says.
    pub manifest: Manifest,
}

/// All backups, the newest first, and with them the folders that hold none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backups {
    /// Those with a manifest.
    pub all: Vec<Backup>,
    /// Folders without one.
    pub leftovers: Vec<String>,
}

impl Backups {
    /// Reads the folder of backups.
    ///
    /// # Errors
    /// It cannot be listed or a manifest cannot be read, as without root.
    pub fn read(host: &HostFs) -> io::Result<Self> {
        let mut backups = Self::default();
        for name in host.list(BACKUPS).into_iter().rev() {
            let folder = format!("{BACKUPS}/{name}");
            match host.read(format!("{folder}/{MANIFEST}")) {
                Ok(text) => backups.all.push(Backup { folder, manifest: serde_json::from_slice(&text)? }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => backups.leftovers.push(folder),
                Err(error) => return Err(error),
            }
        }
        Ok(backups)
    }

    /// The newest that has not ended.
    #[must_use]
    pub fn pending(&self) -> Option<&Backup> {
        self.all.iter().find(|backup| backup.manifest.state == State::Pending)
    }

    /// Those that can be undone, the newest first.
    pub fn undoable(&self) -> impl Iterator<Item = &Backup> {
        self.all.iter().filter(|backup| backup.manifest.state != State::Kept)
    }

    /// Removes the folders that hold nothing of use.
    ///
    /// # Errors
    /// One is still there.
    pub fn sweep(&self, host: &HostFs) -> io::Result<()> {
        for folder in &self.leftovers {
            remove_folder(host, folder)?;
        }
        host.remove_empty_folder(BACKUPS)
    }
}

impl Backup {
    /// Copies everything that `plan` changes. `name` is that of its folder, the time of the run.
    ///
    /// # Errors
    /// Nothing of the machine is changed then.
    pub fn make(host: &HostFs, name: &str, plan: &Plan, moved: Vec<Moved>) -> io::Result<Self> {
        let mut folders: Vec<String> = Vec::new();
        for edit in &plan.edits {
            let parent = edit.path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            folders.extend(
                host.missing_folders(parent).into_iter().filter(|folder| !folders.contains(folder)).collect::<Vec<_>>(),
            );
        }
        let entry = |edit: &Edit| Entry {
            path: edit.path.clone(),
            before: edit.before.as_ref().map(Print::of),
            after: edit.after.as_ref().map(Print::of),
        };
        let manifest = Manifest {
            state: State::Pending,
            edits: plan.edits.iter().map(entry).collect(),
            folders,
            grubby: plan.grubby.clone(),
            commands: plan.commands.clone(),
            moved,
        };
        Self { folder: free_name(host, name), manifest }.write(host, &plan.edits)
    }

    /// Copies files that will be removed for good.
    ///
    /// # Errors
    /// Nothing of the machine is changed then.
    pub fn keep(host: &HostFs, name: &str, edits: &[Edit]) -> io::Result<Self> {
        let plan = Plan { units: Vec::new(), edits: edits.to_vec(), grubby: Vec::new(), commands: Vec::new() };
        let mut backup = Self::make(host, name, &plan, Vec::new())?;
        backup.set_state(host, State::Kept)?;
        Ok(backup)
    }

    fn write(self, host: &HostFs, edits: &[Edit]) -> io::Result<Self> {
        host.make_folder("/var/lib", 0o755)?;
        host.make_folder(&self.folder, 0o700)?;
        for (number, edit) in edits.iter().enumerate() {
            for (side, node) in [("before", &edit.before), ("after", &edit.after)] {
                if let Some(Node::File { content, .. }) = node {
                    let copy = Node::File { content: content.clone(), mode: 0o600, owner: None };
                    host.put(&format!("{}/{number}.{side}", self.folder), &copy)?;
                }
            }
        }
        self.write_manifest(host)?;
        Ok(self)
    }

    fn write_manifest(&self, host: &HostFs) -> io::Result<()> {
        let mut content = serde_json::to_vec_pretty(&self.manifest)?;
        content.push(b'\n');
        host.put(&format!("{}/{MANIFEST}", self.folder), &Node::File { content, mode: 0o600, owner: None })
    }

    /// Writes down how far the run came.
    ///
    /// # Errors
    /// The old state stands.
    pub fn set_state(&mut self, host: &HostFs, state: State) -> io::Result<()> {
        self.manifest.state = state;
        self.write_manifest(host)
    }

    /// What undoing this run changes now, where `current` tells what is at a path, and the paths that others changed since.
    ///
    /// # Errors
    /// A copy or a file cannot be read.
    pub fn undo(
        &self,
        host: &HostFs,
        current: impl Fn(&str) -> io::Result<Option<Node>>,
    ) -> io::Result<(Vec<Edit>, Vec<String>)> {
        let (mut edits, mut changed_by_others) = (Vec::new(), Vec::new());
        for (number, entry) in self.manifest.edits.iter().enumerate().rev() {
            let now = current(&entry.path)?;
            if now.as_ref().map(Print::of) == entry.before {
                continue;
            }
            let copy = |side: &str, print: &Option<Print>| self.copy(host, number, side, print.as_ref());
            let is_ours = match (&now, &entry.after) {
                (Some(node), Some(print)) => print.has_content_of(node),
                (now, after) => now.is_none() && after.is_none(),
            };
            let before = copy("before", &entry.before)?;
            let target = match &now {
                Some(node) if !is_ours => {
                    changed_by_others.push(entry.path.clone());
                    without_ours(node, before.as_ref(), copy("after", &entry.after)?.as_ref())
                }
                // What others removed stays removed.
                None if !is_ours => {
                    changed_by_others.push(entry.path.clone());
                    None
                }
                _ => before,
            };
            if now != target {
                edits.push(Edit { path: entry.path.clone(), before: now, after: target });
            }
        }
        Ok((edits, changed_by_others))
    }

    /// One copy with what the manifest knows of it.
    fn copy(&self, host: &HostFs, number: usize, side: &str, print: Option<&Print>) -> io::Result<Option<Node>> {
        Ok(match print {
            None => None,
            Some(Print::Link { target }) => Some(Node::Link { target: target.into() }),
            Some(print @ Print::File { mode, owner, .. }) => {
                let content = host.read(format!("{}/{number}.{side}", self.folder))?;
                let node = Node::File { content, mode: *mode, owner: *owner };
                if !print.has_content_of(&node) {
                    return Err(io::Error::other(format!("the copy {}/{number}.{side} was changed", self.folder)));
                }
                Some(node)
            }
        })
    }

    /// Removes what interrupted writes of this run left beside its files.
    ///
    /// # Errors
    /// Something is still there.
    pub fn remove_unfinished(&self, host: &HostFs) -> io::Result<()> {
        self.manifest.edits.iter().try_for_each(|entry| host.remove_unfinished(&entry.path))
    }

    /// Removes the folders that the run made, as far as they are empty, and then the backup itself.
    ///
    /// # Errors
    /// The backup may still be there, or its folder without a manifest.
    pub fn discard(&self, host: &HostFs) -> io::Result<()> {
        self.manifest.folders.iter().rev().try_for_each(|folder| host.remove_empty_folder(folder))?;
        host.remove(&format!("{}/{MANIFEST}", self.folder))?;
        remove_folder(host, &self.folder)?;
        host.remove_empty_folder(BACKUPS)
    }
}

/// A folder of backups that is not there yet.
fn free_name(host: &HostFs, name: &str) -> String {
    let taken = host.list(BACKUPS).iter().filter(|other| other.starts_with(name)).count();
    if taken == 0 { format!("{BACKUPS}/{name}") } else { format!("{BACKUPS}/{name}-{taken}") }
}

/// Removes a folder of files.
fn remove_folder(host: &HostFs, folder: &str) -> io::Result<()> {
    host.list(folder).iter().try_for_each(|name| host.remove(&format!("{folder}/{name}")))?;
    host.remove_empty_folder(folder)
}
