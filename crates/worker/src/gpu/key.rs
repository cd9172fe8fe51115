//! The key that the software engine signs with: made at the first start, kept in `state_dir` for this user alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use byteleap_protocol::gpu_signature::{CommitmentSigner, CommitmentSignerError};
use rand_core::OsRng;
use zeroize::Zeroizing;

/// The file in the worker's state directory.
pub const FILE_NAME: &str = "gpu_signing_key";

/// Mode bits that let others than the owner read or write.
const OPEN_TO_OTHERS: u32 = 0o077;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot keep the GPU signing key in {}: make the folder writable for this user, or set state_dir", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("others can read {}: chmod 600 it, or remove it to get a new key", .0.display())]
    Open(PathBuf),
    /// The file holds something else.
    #[error("{} is unusable ({source}): remove it to get a new key", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CommitmentSignerError,
    },
}

/// This host's key, which is made where there is none. Blocks.
///
/// # Errors
/// [`KeyError`].
pub fn load_or_create(state_dir: &Path) -> Result<CommitmentSigner, KeyError> {
    let path = state_dir.join(FILE_NAME);
    let failed = |source| KeyError::Io { path: path.clone(), source };
    match fs::metadata(&path) {
        Ok(metadata) if metadata.permissions().mode() & OPEN_TO_OTHERS != 0 => Err(KeyError::Open(path)),
        Ok(_) => {
            let text = Zeroizing::new(fs::read_to_string(&path).map_err(failed)?);
            CommitmentSigner::from_hex(&text).map_err(|source| KeyError::Unusable { path: path.clone(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let signer = CommitmentSigner::random(&mut OsRng);
            store(state_dir, &path, &signer).map_err(failed)?;
            Ok(signer)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes the file whole or not at all.
fn store(state_dir: &Path, path: &Path, signer: &CommitmentSigner) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", *signer.to_hex())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let first = load_or_create(&state_dir).unwrap();
        assert_eq!(load_or_create(&state_dir).unwrap().public_key(), first.public_key());
        let mode = fs::metadata(state_dir.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        load_or_create(folder.path()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(folder.path()).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(load_or_create(folder.path()).unwrap_err().to_string().contains("remove it"));
    }
}
