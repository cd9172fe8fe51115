//! Handing GPUs to vfio-pci and taking them back: `bind` and `unbind` (vm-and-gpu-host spec 4.5 and 4.6).
//!
//! [`select`] chooses the units and [`obstacles`] says what stands against binding them; [`plan`] writes down every change
//! as an [`edit`], out of the texts of [`files`] and what [`boot`] knows of this machine; [`Binder`] backs up by
//! [`manifest`], changes, and puts everything back if anything fails. [`live`] moves drivers without a reboot, [`former`]
//! knows what the old helper left.

pub mod boot;
pub mod edit;
pub mod files;
pub mod former;
pub mod live;
pub mod manifest;
pub mod obstacles;
pub mod plan;

use std::io;

use self::edit::Edit;
use self::manifest::{Backup, Backups, State};
use self::plan::Plan;
use crate::gpu::Unit;
use crate::host_fs::HostFs;
use crate::pci::{Address, VFIO_PCI};
use crate::program::{Programs, command};

/// Why binding or unbinding did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no such GPUs.
    #[error("{0}")]
    NoSuchGpu(String),
    /// The way that this machine boots is not known.
    #[error(
        "this machine has neither GRUB, grubby nor /etc/kernel/cmdline, so its kernel parameters cannot be set: add \
         `{parameters}` to them yourself, and nothing was changed"
    )]
    UnknownLoader {
        /// What is missing.
        parameters: String,
    },
    /// The maker of initial RAM disks is not known.
    #[error("this machine has none of update-initramfs, dracut and mkinitcpio: nothing was changed")]
    UnknownInitramfs,
    /// A file cannot be read.
    #[error("cannot read {path}: nothing was changed")]
    Read {
        /// Which.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Backups cannot be read.
    #[error("cannot read the backups in {}: run it as root", manifest::BACKUPS)]
    Backups(#[source] io::Error),
    /// An earlier run was interrupted.
    #[error("an earlier run was interrupted: `sudo byteleap-worker unbind` puts back what it changed, then bind again")]
    Interrupted,
    /// Something failed, and all is as it was.
    #[error("{step} failed: everything was put back as it was")]
    PutBack {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something failed, and so did putting everything back.
    #[error(
        "{step} failed, and what was changed before could not all be put back ({undoing}): `sudo byteleap-worker unbind` \
         does it, the backup lies in {}",
        manifest::BACKUPS
    )]
    Stuck {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
        /// Why putting back failed.
        undoing: String,
    },
    /// Undoing stopped half-way.
    #[error("{step} failed: run unbind again, the backup in {} is still there", manifest::BACKUPS)]
    Undo {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The first `count` of the units or all, or those at the named addresses.
///
/// # Errors
/// There are fewer, or none at an address.
pub fn select(units: &[Unit], count: Option<usize>, addresses: &[Address]) -> Result<Vec<Unit>, Error> {
    if !addresses.is_empty() {
        let at = |address: &Address| {
            let unit = units.iter().find(|unit| unit.functions().any(|function| function.address == *address));
            unit.cloned().ok_or_else(|| {
                Error::NoSuchGpu(format!("there is no GPU at {address}: `byteleap-worker list` shows all"))
            })
        };
        let mut selected = addresses.iter().map(at).collect::<Result<Vec<_>, _>>()?;
        selected.sort_by_key(|unit| unit.gpu.address);
        selected.dedup();
        return Ok(selected);
    }
    if units.is_empty() {
        return Err(Error::NoSuchGpu("there is no such GPU in this machine".to_owned()));
    }
    match count {
        Some(count) if count > units.len() => {
            Err(Error::NoSuchGpu(format!("{count} GPUs were asked for, and this machine has {}", units.len())))
        }
        count => Ok(units[..count.unwrap_or(units.len())].to_vec()),
    }
}

/// What undoing all of our runs changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undoing {
    /// The files.
    pub edits: Vec<Edit>,
    /// Paths that others changed since, of which only our lines are taken out.
    pub changed_by_others: Vec<String>,
    /// Programs that run afterwards.
    pub commands: Vec<Vec<String>>,
    /// Runs that are undone.
    pub runs: usize,
    /// Whether a run ended before its manifest was written, and so before its first change.
    pub has_leftovers: bool,
}

/// Changes one machine by plan.
#[derive(Debug)]
pub struct Binder<'a> {
    /// Its files.
    pub host: &'a HostFs,
    /// Its programs.
    pub programs: &'a dyn Programs,
}

impl Binder<'_> {
    /// Carries out a plan, named by the time of the run; with `now` the functions move to vfio-pci at once. Whatever fails,
    /// everything is put back.
    ///
    /// # Errors
    /// As [`Error`]; [`Error::PutBack`] says that the machine is as it was.
    pub fn bind(&self, plan: &Plan, name: &str, now: bool) -> Result<(), Error> {
        let backups = Backups::read(self.host).map_err(Error::Backups)?;
        if backups.pending().is_some() {
            return Err(Error::Interrupted);
        }
        let put_back = |step: &str| {
            let step = step.to_owned();
            move |source| Error::PutBack { step, source }
        };
        backups.sweep(self.host).map_err(put_back("removing what an earlier run left"))?;
        let moved = if now { live::to_move(&plan.units) } else { Vec::new() };
        let backup = Backup::make(self.host, name, plan, moved);
        let mut backup = backup.map_err(|source| {
            // Nothing is changed but the backup's own folder, which the next run sweeps if this cannot.
            let _ = Backups::read(self.host).and_then(|backups| backups.sweep(self.host));
            Error::PutBack { step: "making the backup".to_owned(), source }
        })?;
        let done = self.carry_out(plan, &backup).and_then(|()| {
            let finished = backup.set_state(self.host, State::Done);
            finished.map_err(|source| ("finishing the backup".to_owned(), source))
        });
        done.map_err(|(step, source)| match self.undo_run(&backup) {
            Ok(()) => Error::PutBack { step, source },
            Err(error) => Error::Stuck { step, source, undoing: chain(&error) },
        })
    }

    fn carry_out(&self, plan: &Plan, backup: &Backup) -> Result<(), (String, io::Error)> {
        for edit in &plan.edits {
            self.make(edit).map_err(|source| (format!("writing {}", edit.path), source))?;
        }
        for command in &plan.commands {
            self.programs.run(command).map_err(|source| (command.join(" "), source))?;
        }
        if backup.manifest.moved.is_empty() {
            return Ok(());
        }
        let load = command(&["modprobe", VFIO_PCI]);
        self.programs.run(&load).map_err(|source| (load.join(" "), source))?;
        for function in &backup.manifest.moved {
            live::bind(self.host, function).map_err(|source| (format!("binding {}", function.address), source))?;
        }
        Ok(())
    }

    fn make(&self, edit: &Edit) -> io::Result<()> {
        match &edit.after {
            Some(node) => {
                let parent = edit.path.rsplit_once('/').map_or("/", |(parent, _)| parent);
                self.host.make_folder(parent, 0o755)?;
                self.host.put(&edit.path, node)
            }
            None => self.host.remove(&edit.path),
        }
    }

    /// What [`Self::unbind`] would change.
    ///
    /// # Errors
    /// Backups or files cannot be read.
    pub fn undoing(&self) -> Result<Undoing, Error> {
        let backups = Backups::read(self.host).map_err(Error::Backups)?;
        let mut undoing = Undoing { has_leftovers: !backups.leftovers.is_empty(), ..Undoing::default() };
        for backup in backups.undoable() {
            let known = std::mem::take(&mut undoing.edits);
            let current = |path: &str| match known.iter().find(|edit: &&Edit| edit.path == path) {
                Some(edit) => Ok(edit.after.clone()),
                None => self.host.node(path),
            };
            let (edits, changed) = backup.undo(self.host, current).map_err(Error::Backups)?;
            undoing.edits = combined(known, edits);
            undoing.changed_by_others.extend(changed);
            undoing.commands.extend(undoing_commands(backup));
            undoing.runs += 1;
        }
        undoing.commands.dedup();
        Ok(undoing)
    }

    /// Undoes all our runs, the newest first; with `now` functions go back to their drivers at once. Interrupted, it may be
    /// repeated. Yields the paths that others changed since.
    ///
    /// # Errors
    /// [`Error::Undo`]: what is not undone yet can be undone by the next try.
    pub fn unbind(&self, now: bool) -> Result<Vec<String>, Error> {
        let backups = Backups::read(self.host).map_err(Error::Backups)?;
        let mut changed_by_others = Vec::new();
        for backup in backups.undoable() {
            let is_pending = backup.manifest.state == State::Pending;
            if now || is_pending {
                self.release(backup)?;
            }
            changed_by_others.extend(self.undo_files(backup)?);
            let done = backup.discard(self.host);
            done.map_err(|source| Error::Undo { step: "removing the backup".to_owned(), source })?;
        }
        let swept = Backups::read(self.host).and_then(|backups| backups.sweep(self.host));
        swept.map_err(|source| Error::Undo { step: "removing what an earlier run left".to_owned(), source })?;
        Ok(changed_by_others)
    }

    fn undo_run(&self, backup: &Backup) -> Result<(), Error> {
        self.release(backup)?;
        self.undo_files(backup)?;
        backup.discard(self.host).map_err(|source| Error::Undo { step: "removing the backup".to_owned(), source })
    }

    fn release(&self, backup: &Backup) -> Result<(), Error> {
        for function in backup.manifest.moved.iter().rev() {
            let released = live::release(self.host, function);
            released.map_err(|source| Error::Undo { step: format!("giving {} back", function.address), source })?;
        }
        Ok(())
    }

    fn undo_files(&self, backup: &Backup) -> Result<Vec<String>, Error> {
        let failed = |step: String| move |source| Error::Undo { step, source };
        backup.remove_unfinished(self.host).map_err(failed("removing half-written files".to_owned()))?;
        let current = |path: &str| self.host.node(path);
        let (edits, changed) = backup.undo(self.host, current).map_err(failed("reading the backup".to_owned()))?;
        for edit in &edits {
            self.make(edit).map_err(failed(format!("putting {} back", edit.path)))?;
        }
        for command in undoing_commands(backup) {
            self.programs.run(&command).map_err(failed(command.join(" ")))?;
        }
        Ok(changed)
    }

    /// Removes for good what the former helper left, after a backup that stays.
    ///
    /// # Errors
    /// [`Error::Undo`]: the rest can be removed by the next try.
    pub fn remove_former(&self, edits: &[Edit], name: &str) -> Result<(), Error> {
        let failed = |step: String| move |source| Error::Undo { step, source };
        Backup::keep(self.host, name, edits).map_err(failed("making the backup".to_owned()))?;
        for edit in edits {
            self.make(edit).map_err(failed(format!("cleaning {}", edit.path)))?;
        }
        let loader = boot::Loader::find(self.host).map(|loader| loader.regenerate(self.host)).unwrap_or_default();
        for command in boot::Initramfs::find(self.host).map(boot::Initramfs::regenerate).into_iter().chain(loader) {
            self.programs.run(&command).map_err(failed(command.join(" ")))?;
        }
        Ok(())
    }
}

/// The programs that let the undoing of a run take effect: the same as for the run, but grubby takes away.
fn undoing_commands(backup: &Backup) -> Vec<Vec<String>> {
    let grubby = &backup.manifest.grubby;
    let others =
        backup.manifest.commands.iter().filter(|command| command.first().is_none_or(|program| program != "grubby"));
    let mut commands: Vec<_> = others.cloned().collect();
    if !grubby.is_empty() {
        commands.push(boot::grubby(grubby, false));
    }
    commands
}

/// Edits one after the other as one edit per path.
fn combined(mut first: Vec<Edit>, then: Vec<Edit>) -> Vec<Edit> {
    for edit in then {
        match first.iter_mut().find(|known| known.path == edit.path) {
            Some(known) => known.after = edit.after,
            None => first.push(edit),
        }
    }
    first.retain(|edit| edit.before != edit.after);
    first
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
