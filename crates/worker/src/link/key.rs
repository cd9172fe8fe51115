//! The worker's key and the secret of its join token, kept in the state directory for their owner alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use byteleap_daemon::file;
use byteleap_protocol::join::JoinSecret;
use byteleap_protocol::worker_key::WorkerSecret;
use rand_core::OsRng;
use zeroize::Zeroizing;

/// The file of the private key.
const KEY_FILE: &str = "worker_key";

/// The file of a join secret, from `byteleap-worker join` to the first registration.
const JOIN_FILE: &str = "join_secret";

/// Why there is no key, or no secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the worker's key cannot be kept in {}: make it readable and its folder writable for this user, or set state_dir", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no key: restore it; or remove it, and enrol the new key that the next start makes", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

/// The key kept in `state_dir`, made at the first start.
///
/// # Errors
/// See [`KeyError`]. A key that is there and cannot be read is never replaced: the miner knows this worker by it.
pub fn load_or_create(state_dir: &Path) -> Result<WorkerSecret, KeyError> {
    let path = state_dir.join(KEY_FILE);
    if let Some(text) = read(&path)? {
        return WorkerSecret::from_text(&text).map_err(|_| KeyError::Unusable { path });
    }
    let secret = WorkerSecret::random(&mut OsRng);
    let text = secret.to_text();
    file::replace(&path, text.as_bytes()).map_err(|source| KeyError::File { path, source })?;
    Ok(secret)
}

/// The secret of a join token that has not been used yet.
///
/// # Errors
/// See [`KeyError`].
pub fn join_secret(state_dir: &Path) -> Result<Option<JoinSecret>, KeyError> {
    let path = state_dir.join(JOIN_FILE);
    let Some(text) = read(&path)? else { return Ok(None) };
    JoinSecret::try_from(text.to_string()).map(Some).map_err(|_| KeyError::Unusable { path })
}

/// Keeps the secret of a join token for the next registration.
///
/// # Errors
/// [`KeyError::File`].
pub fn keep_join_secret(state_dir: &Path, secret: JoinSecret) -> Result<(), KeyError> {
    let path = state_dir.join(JOIN_FILE);
    let text = Zeroizing::new(String::from(secret));
    file::replace(&path, text.as_bytes()).map_err(|source| KeyError::File { path, source })
}

/// Forgets the secret: it has enrolled this worker.
///
/// # Errors
/// [`KeyError::File`].
pub fn forget_join_secret(state_dir: &Path) -> Result<(), KeyError> {
    let path = state_dir.join(JOIN_FILE);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KeyError::File { path, source }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeyError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let made = load_or_create(folder.path()).unwrap().public();
        assert_eq!(load_or_create(folder.path()).unwrap().public(), made);
        let path = folder.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "rubbish").unwrap();
        assert!(matches!(load_or_create(folder.path()), Err(KeyError::Unusable { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "rubbish");
    }

    #[test]
    fn a_join_secret_is_kept_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(join_secret(folder.path()).unwrap(), None);
        forget_join_secret(folder.path()).unwrap();
        let secret = JoinSecret::random(&mut OsRng);
        keep_join_secret(folder.path(), secret.clone()).unwrap();
        assert_eq!(join_secret(folder.path()).unwrap(), Some(secret));
        forget_join_secret(folder.path()).unwrap();
        assert_eq!(join_secret(folder.path()).unwrap(), None);
    }
}
