//! Which workers belong to this miner: the book of enrolled keys, revoked keys and open invitations, and its file.
//!
//! [`Book`] is plain data and its rules. [`BookFile`] keeps it in the state directory, where the running miner and the
//! commands `workers enroll` and `workers revoke` meet: whoever may write that folder may enrol, nobody else. Each change
//! is made under a lock of the folder and replaces the file as a whole, so neither ever sees half of the other's. What root
//! writes into the folder of a miner that runs as somebody else stays readable by that miner.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use byteleap_daemon::file::{self, Version};
use byteleap_protocol::{
    id::WorkerId,
    join::{JoinDigest, JoinSecret},
    worker_key::WorkerKey,
};
use serde::{Deserialize, Serialize};

/// The book in the state directory.
const FILE_NAME: &str = "enrolled_workers.json";

/// Enrolled keys; twice the workers that a miner may serve.
const MAX_ENROLLED: usize = 20_000;

/// Open invitations.
const MAX_INVITATIONS: usize = 1000;

/// Revoked keys; the oldest is forgotten first.
const MAX_REVOKED: usize = 20_000;

/// An enrolled key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The key.
    pub public_key: WorkerKey,
    /// The worker it speaks for; none until it first registers.
    pub worker_id: Option<WorkerId>,
    /// When it was enrolled, in milliseconds since 1970.
    pub enrolled_at_ms: i64,
}

/// An invitation that nobody has taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Invitation {
    digest: JoinDigest,
    expires_at_ms: i64,
}

/// What the miner knows of its workers' keys. One key speaks for one worker, and one worker has at most one key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Book {
    enrolled: Vec<Enrolled>,
    revoked: Vec<WorkerKey>,
    invitations: Vec<Invitation>,
}

/// Why the book does not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// The worker has another key.
    #[error("{0} is enrolled with another key: revoke {0} first")]
    Taken(WorkerId),
    /// The key speaks for another worker.
    #[error("the key is enrolled for worker {0}: revoke it first")]
    Bound(WorkerId),
    /// Nobody of this name or key.
    #[error("no enrolled worker has this worker_id or key; see byteleap-miner workers list --enrolled")]
    Unknown,
    /// The secret is none that was given out, was used, or is too old.
    #[error("the join token is unknown, used or expired")]
    NoInvitation,
    /// The book is full.
    #[error("the book of enrolled workers is full: revoke some")]
    Full,
}

impl Book {
    /// Every enrolled key, oldest first.
    #[must_use]
    pub fn enrolled(&self) -> &[Enrolled] {
        &self.enrolled
    }

    /// The entry of a key.
    #[must_use]
    pub fn of_key(&self, key: &WorkerKey) -> Option<&Enrolled> {
        self.enrolled.iter().find(|entry| entry.public_key == *key)
    }

    /// The entry of a worker.
    #[must_use]
    pub fn of_worker(&self, worker_id: &WorkerId) -> Option<&Enrolled> {
        self.enrolled.iter().find(|entry| entry.worker_id.as_ref() == Some(worker_id))
    }

    /// Whether the key was taken back.
    #[must_use]
    pub fn is_revoked(&self, key: &WorkerKey) -> bool {
        self.revoked.contains(key)
    }

    /// Enrols a key for a worker; for whichever first registers with it where none is named.
    ///
    /// # Errors
    /// [`BookError::Taken`], [`BookError::Bound`] or [`BookError::Full`].
    pub fn enroll(&mut self, key: WorkerKey, worker_id: Option<&WorkerId>, now_ms: i64) -> Result<(), BookError> {
        if let Some(worker_id) = worker_id
            && self.of_worker(worker_id).is_some_and(|entry| entry.public_key != key)
        {
            return Err(BookError::Taken(worker_id.clone()));
        }
        self.revoked.retain(|revoked| *revoked != key);
        match self.enrolled.iter_mut().find(|entry| entry.public_key == key) {
            Some(entry) => match (&entry.worker_id, worker_id) {
                (Some(bound), Some(named)) if bound != named => return Err(BookError::Bound(bound.clone())),
                (None, named) => entry.worker_id = named.cloned(),
                (Some(_), _) => {}
            },
            None => {
                if self.enrolled.len() >= MAX_ENROLLED {
                    return Err(BookError::Full);
                }
                let worker_id = worker_id.cloned();
                self.enrolled.push(Enrolled { public_key: key, worker_id, enrolled_at_ms: now_ms });
            }
        }
        Ok(())
    }

    /// Takes back the key of this text, or of the worker of this name.
    ///
    /// # Errors
    /// [`BookError::Unknown`].
    pub fn revoke(&mut self, who: &str) -> Result<Enrolled, BookError> {
        let is_meant = |entry: &Enrolled| {
            entry.worker_id.as_ref().is_some_and(|worker_id| worker_id.as_str() == who)
                || entry.public_key.to_string() == who
        };
        let at = self.enrolled.iter().position(is_meant).ok_or(BookError::Unknown)?;
        let entry = self.enrolled.remove(at);
        if self.revoked.len() >= MAX_REVOKED {
            self.revoked.remove(0);
        }
        self.revoked.push(entry.public_key);
        Ok(entry)
    }

    /// Opens an invitation until `expires_at_ms`; those that have expired are forgotten.
    ///
    /// # Errors
    /// [`BookError::Full`].
    pub fn invite(&mut self, digest: JoinDigest, expires_at_ms: i64, now_ms: i64) -> Result<(), BookError> {
        self.invitations.retain(|invitation| invitation.expires_at_ms > now_ms);
        if self.invitations.len() >= MAX_INVITATIONS {
            return Err(BookError::Full);
        }
        self.invitations.push(Invitation { digest, expires_at_ms });
        Ok(())
    }

    /// Enrols the key that comes with the secret of an open invitation, which is then used up.
    ///
    /// # Errors
    /// [`BookError::NoInvitation`]; or as [`Self::enroll`], and then the invitation stays open.
    pub fn redeem(
        &mut self,
        secret: &JoinSecret,
        key: WorkerKey,
        worker_id: &WorkerId,
        now_ms: i64,
    ) -> Result<(), BookError> {
        let digest = secret.digest();
        // Every entry is compared, each in constant time: how long it takes tells nothing of what is in the book.
        let mut found = None;
        for (at, invitation) in self.invitations.iter().enumerate() {
            if (invitation.digest == digest) & (invitation.expires_at_ms > now_ms) {
                found = Some(at);
            }
        }
        let at = found.ok_or(BookError::NoInvitation)?;
        self.enroll(key, Some(worker_id), now_ms)?;
        self.invitations.remove(at);
        Ok(())
    }
}

/// Why the book cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BookFileError {
    /// The file is there and cannot be used. It is never replaced by an empty one, which would let strangers in.
    #[error("the book of enrolled workers in {} cannot be used: make it readable, or restore it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("the book of enrolled workers in {} cannot be kept: run as the miner's user, or check state_dir", path.display())]
    Unkept {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The change is refused.
    #[error(transparent)]
    Refused(#[from] BookError),
}

/// The book on disk.
#[derive(Debug, Clone)]
pub struct BookFile {
    path: PathBuf,
}

impl BookFile {
    /// The book in this state directory, which need not be there yet.
    #[must_use]
    pub fn in_directory(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME) }
    }

    /// The book as it is now; an empty one where there is no file.
    ///
    /// # Errors
    /// [`BookFileError::Unreadable`].
    pub fn read(&self) -> Result<Book, BookFileError> {
        let unreadable = |source| BookFileError::Unreadable { path: self.path.clone(), source };
        match fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| unreadable(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Book::default()),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Changes the book; other changes wait meanwhile. What is changed is on disk when this returns.
    ///
    /// # Errors
    /// See [`BookFileError`]; the book is then as it was.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<T, BookError>,
    ) -> Result<(T, Book), BookFileError> {
        let unkept = |source| BookFileError::Unkept { path: self.path.clone(), source };
        let _lock = file::lock_folder(&self.path).map_err(unkept)?;
        let before = self.read()?;
        let mut book = before.clone();
        let changed = change(&mut book)?;
        if book != before {
            let text = serde_json::to_vec_pretty(&book).map_err(|error| unkept(error.into()))?;
            file::replace_for_owner_of_folder(&self.path, &text).map_err(unkept)?;
        }
        Ok((changed, book))
    }

    /// Which state of the file this is; none without a file.
    pub(super) fn version(&self) -> Option<Version> {
        Version::of(&self.path).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> WorkerKey {
        WorkerKey([byte; 32])
    }

    fn id(worker: &str) -> WorkerId {
        WorkerId::new(worker).expect("an id")
    }

    fn secret(byte: u8) -> JoinSecret {
        JoinSecret::try_from(format!("{byte:02x}").repeat(32)).expect("a secret")
    }

    #[test]
    fn one_key_speaks_for_one_worker_and_one_worker_has_one_key() {
        let mut book = Book::default();
        assert_eq!(book.enroll(key(1), None, 0), Ok(()));
        assert_eq!(book.enroll(key(1), Some(&id("w1")), 0), Ok(()), "bound at its first registration");
        assert_eq!(book.enroll(key(1), Some(&id("w2")), 0), Err(BookError::Bound(id("w1"))));
        assert_eq!(book.enroll(key(2), Some(&id("w1")), 0), Err(BookError::Taken(id("w1"))));
        assert_eq!(book.enroll(key(1), None, 0), Ok(()), "already there");
        assert_eq!(book.enrolled().len(), 1);
    }

    #[test]
    fn a_key_is_revoked_by_worker_or_by_key_and_may_be_enrolled_again() {
        let mut book = Book::default();
        for who in ["w1".to_owned(), key(1).to_string()] {
            book.enroll(key(1), Some(&id("w1")), 0).expect("enrolled");
            assert!(!book.is_revoked(&key(1)));
            assert_eq!(book.revoke(&who).expect("enrolled").public_key, key(1));
            assert!(book.is_revoked(&key(1)) && book.of_worker(&id("w1")).is_none());
        }
        assert_eq!(book.revoke("w1"), Err(BookError::Unknown));
    }

    #[test]
    fn an_invitation_is_taken_once_and_in_time() {
        let mut book = Book::default();
        book.invite(secret(7).digest(), 1000, 0).expect("room");
        book.invite(secret(8).digest(), 1000, 0).expect("room");
        assert_eq!(book.redeem(&secret(9), key(1), &id("w1"), 0), Err(BookError::NoInvitation), "a wrong secret");
        assert_eq!(book.redeem(&secret(7), key(1), &id("w1"), 1000), Err(BookError::NoInvitation), "too late");
        assert_eq!(book.redeem(&secret(7), key(1), &id("w1"), 999), Ok(()));
        assert_eq!(book.redeem(&secret(7), key(2), &id("w2"), 999), Err(BookError::NoInvitation), "a second time");
        // A refused worker does not cost the invitation.
        assert_eq!(book.redeem(&secret(8), key(2), &id("w1"), 999), Err(BookError::Taken(id("w1"))));
        assert_eq!(book.redeem(&secret(8), key(2), &id("w2"), 999), Ok(()));
    }

    #[test]
    fn the_book_on_disk_holds_no_secret_and_is_never_replaced_when_unreadable() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = BookFile::in_directory(folder.path());
        assert_eq!(file.read().expect("none yet"), Book::default());
        file.change(|book| book.invite(secret(7).digest(), 1000, 0)).expect("written");
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).expect("a file");
        assert!(!text.contains(&String::from(secret(7))), "{text}");
        assert!(matches!(file.change(|book| book.revoke("w1")), Err(BookFileError::Refused(BookError::Unknown))));

        fs::write(folder.path().join(FILE_NAME), "{").expect("written");
        let refused = file.change(|book| book.enroll(key(1), None, 0));
        assert!(matches!(refused, Err(BookFileError::Unreadable { .. })));
        assert_eq!(fs::read_to_string(folder.path().join(FILE_NAME)).expect("a file"), "{");
    }

    #[test]
    fn changes_of_many_processes_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for byte in 0..8 {
                let file = BookFile::in_directory(folder.path());
                scope.spawn(move || {
                    let before = file.version();
                    file.change(|book| book.enroll(key(byte), None, 0)).expect("enrolled");
                    assert_ne!(file.version(), before);
                });
            }
        });
        let book = BookFile::in_directory(folder.path()).read().expect("a book");
        assert_eq!(book.enrolled().len(), 8);
    }
}
