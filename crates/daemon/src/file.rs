//! Small files that a process keeps: each is there whole or not at all, and for its owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

/// The user who may give files away.
const ROOT: u32 = 0;

/// Writes `content` as the file `path`, over a former one, with mode 0600; its folder is made if it is missing. It is on
/// disk when this returns.
///
/// # Errors
/// What the system says; a former file is still whole then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole(path, content, |_, _| Ok(()))
}

/// The same, but the file belongs to whoever its folder belongs to, if root writes it: a command that is run by root must
/// not take a file away from the daemon that it is for.
///
/// # Errors
/// As [`replace`].
pub fn replace_for_owner_of_folder(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole(path, content, |file, folder| {
        let owner = fs::metadata(folder)?;
        let is_others = file.metadata()?.uid() == ROOT && owner.uid() != ROOT;
        if is_others { fchown(file, Some(owner.uid()), Some(owner.gid())) } else { Ok(()) }
    })
}

fn write_whole(path: &Path, content: &[u8], prepare: impl FnOnce(&File, &Path) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    // One left behind may have another mode.
    let _ = fs::remove_file(unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
    prepare(&file, folder)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    File::open(folder)?.sync_all()
}

/// Waits until nobody else changes the files of `path`'s folder, which is made if it is missing; whoever changes one holds this
/// until it is replaced. It is the folder itself that is locked: no file is left behind, whoever the user.
///
/// # Errors
/// What the system says.
pub fn lock_folder(path: &Path) -> io::Result<Flock<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Flock::lock(File::open(folder)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// What tells one state of a file that is only ever replaced from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    inode: u64,
    modified_ns: i128,
}

impl Version {
    /// That of the file as it is now; none without a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => {
                let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
                Ok(Some(Self { inode: metadata.ino(), modified_ns }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/secret");
        // A process that died before it had finished.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(folder.path().join("deeper/secret.new"), "half").unwrap();
        for content in ["first, and longer", "second"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_root_writes_for_another_users_daemon_is_that_users() {
        let folder = tempfile::tempdir().unwrap();
        // Only root can give the folder away; for everyone else the file is their own, as the folder is.
        let _ = std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534));
        let path = folder.path().join("book");
        replace_for_owner_of_folder(&path, b"content").unwrap();
        let (file, folder) = (fs::metadata(&path).unwrap(), fs::metadata(folder.path()).unwrap());
        assert_eq!((file.uid(), file.permissions().mode() & 0o777), (folder.uid(), 0o600));
    }

    #[test]
    fn each_replacement_is_another_version_and_no_file_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book");
        assert_eq!(Version::of(&path).unwrap(), None);
        replace(&path, b"one").unwrap();
        let first = Version::of(&path).unwrap();
        assert_eq!(Version::of(&path).unwrap(), first);
        replace(&path, b"one").unwrap();
        assert_ne!(Version::of(&path).unwrap(), first);
    }

    #[test]
    fn a_folder_is_locked_by_one_at_a_time_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/book");
        let lock = lock_folder(&path).unwrap();
        let again = File::open(path.parent().unwrap()).unwrap();
        assert!(Flock::lock(again, FlockArg::LockExclusiveNonblock).is_err());
        drop(lock);
        drop(lock_folder(&path).unwrap());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
