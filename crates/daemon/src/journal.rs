//! A folder of small documents that survive `kill -9`: what a process must find again when it starts anew.
//!
//! Each document is a file, written whole or not at all, and on disk when [`Journal::put`] returns. A journal is for work
//! in flight, so it forgets by itself what is older than its time to live, and the oldest beyond its capacity.
//! Everything here blocks: call it off the runtime.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Ending of a document's file.
const DOCUMENT: &str = "json";
/// Ending of a file that is still being written.
const UNFINISHED: &str = "new";

/// The documents of one kind. Documents that a process holds are its own: no two processes share a folder.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    time_to_live: Duration,
    capacity: usize,
}

/// The journal's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep work in flight in {}: make it writable for this user, or point state_dir to a folder that is", folder.display())]
pub struct JournalError {
    folder: PathBuf,
    source: io::Error,
}

impl Journal {
    /// Opens the journal in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: PathBuf, time_to_live: Duration, capacity: usize) -> Result<Self, JournalError> {
        let journal = Self { folder, time_to_live, capacity };
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(&journal.folder);
        opened.and_then(|()| journal.clean(0)).map_err(|source| journal.error(source))?;
        Ok(journal)
    }

    /// Writes the document `key`, over the one of this key if there is one. It is on disk when this returns.
    ///
    /// # Errors
    /// It could not be written; the former document is still there.
    pub fn put(&self, key: &str, document: &impl Serialize) -> Result<(), JournalError> {
        self.write(&self.path(key), document).map_err(|source| self.error(source))
    }

    /// Forgets the document `key`. Should the power go right now, it may come back.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, key: &str) -> Result<(), JournalError> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    /// Every document that is not too old, oldest first. One that cannot be read is forgotten, with a warning.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn documents<T: DeserializeOwned>(&self) -> Result<Vec<T>, JournalError> {
        let read = || {
            self.clean(0)?;
            let mut documents = Vec::new();
            for path in self.files(DOCUMENT)?.into_iter().map(|(_, path)| path) {
                match serde_json::from_slice(&fs::read(&path)?) {
                    Ok(document) => documents.push(document),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "unreadable document of a journal forgotten");
                        fs::remove_file(&path)?;
                    }
                }
            }
            Ok(documents)
        };
        read().map_err(|source| self.error(source))
    }

    fn write(&self, path: &Path, document: &impl Serialize) -> io::Result<()> {
        self.clean(1)?;
        let unfinished = path.with_extension(UNFINISHED);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes what is too old, and the oldest documents until there is room for so many more.
    fn clean(&self, room: usize) -> io::Result<()> {
        let now = SystemTime::now();
        let is_old = |written: SystemTime| now.duration_since(written).is_ok_and(|age| age > self.time_to_live);
        let documents = self.files(DOCUMENT)?;
        let surplus = (documents.len() + room).saturating_sub(self.capacity);
        let too_many = documents.iter().take(surplus);
        let too_old = documents.iter().skip(surplus).filter(|(written, _)| is_old(*written));
        let left_over = self.files(UNFINISHED)?;
        let left_over = left_over.iter().filter(|(written, _)| is_old(*written));
        for (_, path) in too_many.chain(too_old).chain(left_over) {
            // Whoever holds the document may have removed it meanwhile.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// The files of this ending with the times of their writing, oldest first.
    fn files(&self, ending: &str) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == ending)
                && let Ok(written) = fs::metadata(&path).and_then(|metadata| metadata.modified())
            {
                files.push((written, path));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Keys hold whatever peers chose as names; a digest of one is always a good file name.
    fn path(&self, key: &str) -> PathBuf {
        let digest = Sha256::digest(key);
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name).with_extension(DOCUMENT)
    }

    fn error(&self, source: io::Error) -> JournalError {
        JournalError { folder: self.folder.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn open(folder: &Path, capacity: usize) -> Journal {
        Journal::open(folder.join("state/work"), MINUTE, capacity).unwrap()
    }

    fn age(journal: &Journal, key: &str, age: Duration) {
        let file = File::options().append(true).open(journal.path(key)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn what_was_put_is_found_by_the_next_process_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), 10);
        for (key, document) in [("a", 1), ("../b", 2), ("c", 3), ("a", 4)] {
            journal.put(key, &document).unwrap();
        }
        journal.remove("c").unwrap();
        journal.remove("never put").unwrap();
        let mut found = open(folder.path(), 10).documents::<i32>().unwrap();
        found.sort_unstable();
        assert_eq!(found, [2, 4]);
    }

    #[test]
    fn what_is_too_old_and_the_oldest_beyond_the_capacity_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), 3);
        for (key, seconds) in [("ancient", 61), ("old", 50), ("newer", 40), ("new", 30)] {
            journal.put(key, &key).unwrap();
            age(&journal, key, Duration::from_secs(seconds));
        }
        journal.put("last", &"last").unwrap();
        let found = fs::read_dir(&journal.folder).unwrap().count();
        assert_eq!(found, 3, "newer, new, last");
        assert!(!journal.path("old").exists() && journal.path("newer").exists());
        age(&journal, "newer", Duration::from_secs(61));
        assert!(!journal.documents::<String>().unwrap().contains(&"newer".to_owned()));
    }

    #[test]
    fn half_a_document_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path(), 10);
        journal.put("whole", &1).unwrap();
        fs::write(journal.path("half").with_extension(UNFINISHED), "4").unwrap();
        fs::write(journal.path("garbled"), "{").unwrap();
        assert_eq!(journal.documents::<i32>().unwrap(), [1]);
        assert!(!journal.path("garbled").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_told_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state"), "a file").unwrap();
        let error = Journal::open(folder.path().join("state/work"), MINUTE, 10).unwrap_err();
        assert!(error.to_string().contains("state_dir"), "{error}");
    }
}
