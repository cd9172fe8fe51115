//! The folder that holds everything of one network: wallets, databases, identities, configurations and logs.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// Everything that a network makes in its folder, so that forgetting it removes nothing else.
const OWN_ENTRIES: &[&str] = &["logs", "market", "network.json", "validator", "wallets"];
/// Prefixes of the folders that belong to one miner or worker each.
const OWN_PREFIXES: &[&str] = &["miner-", "worker-"];

/// The folder of one network, held by one process at a time.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as this lives.
    _lock: File,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made, read or emptied.
    #[error("the state folder {path} cannot be used: {source}")]
    Io {
        /// The folder, or what lies in it.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another network runs in it.
    #[error("another network runs in {path}: stop it, or choose another folder with --dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl Directory {
    /// Opens the folder, making it where it is missing; `fresh` first forgets what an earlier network left in it.
    ///
    /// # Errors
    ///
    /// It cannot be used, or another network runs in it.
    pub fn open(path: &Path, fresh: bool) -> Result<Self, DirectoryError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let path = path.canonicalize().map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(DirectoryError::Io { path: lock_path, source }),
        }
        let directory = Self { path, _lock: lock };
        if fresh {
            directory.forget().map_err(failed(&directory.path))?;
        }
        fs::create_dir_all(directory.logs()).map_err(failed(&directory.path))?;
        Ok(directory)
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Logs, one file a process.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The wallets of all daemons.
    #[must_use]
    pub fn wallets(&self) -> PathBuf {
        self.path.join("wallets")
    }

    /// The folder of one daemon, made where it is missing.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn of_daemon(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(DirectoryError::Io { path, source }),
        }
    }

    /// The folder of one daemon, emptied.
    ///
    /// # Errors
    ///
    /// It cannot be emptied or made.
    pub fn anew_of_daemon(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DirectoryError::Io { path, source }),
            _ => self.of_daemon(name),
        }
    }

    fn forget(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if OWN_ENTRIES.contains(&name.as_ref()) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_forgets_the_network_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("thesis.txt");
        fs::write(&kept, "").unwrap();
        let directory = Directory::open(folder.path(), false).unwrap();
        let daemon = directory.of_daemon("miner-1").unwrap();
        drop(directory);
        drop(Directory::open(folder.path(), false).unwrap());
        assert!(daemon.exists());
        let directory = Directory::open(folder.path(), true).unwrap();
        assert!(!daemon.exists() && kept.exists() && directory.logs().exists());
    }

    #[test]
    fn a_folder_begins_anew_whether_it_was_there_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path(), false).unwrap();
        let validator = directory.anew_of_daemon("validator").unwrap();
        fs::write(validator.join("validator.db"), "").unwrap();
        assert_eq!(directory.of_daemon("validator").unwrap().read_dir().unwrap().count(), 1);
        assert_eq!(directory.anew_of_daemon("validator").unwrap().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn one_folder_holds_one_running_network() {
        let folder = tempfile::tempdir().unwrap();
        let first = Directory::open(folder.path(), false).unwrap();
        assert!(matches!(Directory::open(folder.path(), true), Err(DirectoryError::InUse { .. })));
        drop(first);
        Directory::open(folder.path(), false).unwrap();
    }
}
