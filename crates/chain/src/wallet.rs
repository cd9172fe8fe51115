//! Keys on disk, in the layout of the official command line: `<root>/<wallet>/hotkeys/<hotkey>` and
//! `<root>/<wallet>/coldkeypub.txt` (chain spec 7.1). A daemon needs these two files; `coldkey` is never opened.
//!
//! A keyfile passes `vault` (its seal, if it has one, is opened with a password from `password`), then `keyfile` (its fields
//! are read and checked), then `secret` (words become a key).

mod keyfile;
mod password;
mod secret;
mod vault;

use std::env;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use keyfile::KeyfileError;
pub use password::{PasswordError, Passwords};
pub use secret::{SecretError, keypair_from_uri};
pub use vault::Encryption;

use crate::{Hotkey, Keypair, Signer};
use vault::Sealed;

/// A keyfile is some 600 bytes; whatever is larger is none.
const LARGEST_KEYFILE_BYTES: u64 = 64 * 1024;

/// The hotkey that signs for a daemon, and who owns it.
#[derive(Clone, Debug)]
pub struct Wallet {
    /// The hotkey's pair.
    pub keypair: Keypair,
    /// Address of the owning coldkey; `None` where `coldkeypub.txt` was not brought along.
    pub coldkey: Option<Hotkey>,
    /// How the hotkey's file is sealed; `None` for plain text.
    pub encryption: Option<Encryption>,
}

impl fmt::Display for Wallet {
    /// What an operator wants to see of it: whose keys, and how they are kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hotkey {}", self.keypair.hotkey())?;
        match self.encryption {
            Some(encryption) => write!(f, " (encrypted, {encryption})")?,
            None => f.write_str(" (not encrypted)")?,
        }
        match self.coldkey {
            Some(coldkey) => write!(f, " of coldkey {coldkey}"),
            None => f.write_str(" of an unknown coldkey (no coldkeypub.txt)"),
        }
    }
}

/// A wallet that cannot be loaded or created; the text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The file is missing, too large or not readable.
    #[error("cannot read keyfile {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write keyfile {path}: {source}")]
    Write {
        /// The file or its folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A keyfile is never overwritten.
    #[error("keyfile {path} exists already: choose another name, or move the old file away yourself")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is there, but holds no usable key.
    #[error("keyfile {path}: {source}")]
    Keyfile {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: KeyfileError,
    },
    /// The file is sealed, and its password cannot be had.
    #[error("keyfile {path} is encrypted ({encryption}): {source}")]
    Password {
        /// The keyfile.
        path: PathBuf,
        /// How it is sealed.
        encryption: Encryption,
        /// Which source failed.
        source: PasswordError,
    },
    /// The wallet belongs to another coldkey than the one asked for.
    #[error("{path} names coldkey {found}, not {wanted}")]
    OtherColdkey {
        /// The `coldkeypub.txt`.
        path: PathBuf,
        /// The coldkey that it names.
        found: Hotkey,
        /// The coldkey asked for.
        wanted: Hotkey,
    },
}

impl Wallet {
    /// Loads the hotkey `hotkey` of the wallet `name` under `root`; a leading `~` is the home directory. A sealed keyfile is
    /// opened with the password that `passwords` finds, which takes seconds: not on the runtime's threads.
    ///
    /// # Errors
    /// [`WalletError`], which names the file and what to do.
    pub fn load(root: &Path, name: &str, hotkey: &str, passwords: &Passwords) -> Result<Self, WalletError> {
        let files = Files::of(root, name, hotkey);
        let content = read(&files.hotkey)?;
        let coldkey = read_coldkey(&files.coldkeypub)?;
        let sealed = Sealed::parse(&content).map_err(|source| files.hotkey_error(source))?;
        let encryption = sealed.as_ref().map(Sealed::encryption);
        let text = match sealed {
            None => content,
            Some(sealed) => files.open(sealed, passwords)?,
        };
        let keypair = keyfile::parse_secret(&text).map_err(|source| files.hotkey_error(source))?;
        Ok(Self { keypair, coldkey, encryption })
    }

    /// Makes a new hotkey from a random phrase of twelve words, owned by `coldkey`, and writes its files with mode 0600:
    /// the keyfile, its public half, and `coldkeypub.txt` where the wallet is new.
    ///
    /// # Errors
    /// [`WalletError::Exists`] rather than overwrite a key; [`WalletError::OtherColdkey`] rather than mix owners.
    pub fn create(root: &Path, name: &str, hotkey: &str, coldkey: &Hotkey) -> Result<Self, WalletError> {
        let files = Files::of(root, name, hotkey);
        if let Some(found) = read_coldkey(&files.coldkeypub)?
            && found != *coldkey
        {
            return Err(WalletError::OtherColdkey { path: files.coldkeypub, found, wanted: *coldkey });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&files.folder)
            .map_err(|source| WalletError::Write { path: files.folder.clone(), source })?;

        let phrase = secret::new_phrase();
        let (keypair, text) = keyfile::write_secret(&phrase).map_err(|source| files.hotkey_error(source))?;
        write_new(&files.hotkey, &text)?;
        write_new(&files.hotkeypub, &keyfile::write_public(&keypair.hotkey()))?;
        if !files.coldkeypub.exists() {
            write_new(&files.coldkeypub, &keyfile::write_public(coldkey))?;
        }
        Ok(Self { keypair, coldkey: Some(*coldkey), encryption: None })
    }
}

/// Where the parts of one hotkey lie.
struct Files {
    folder: PathBuf,
    hotkey: PathBuf,
    hotkeypub: PathBuf,
    coldkeypub: PathBuf,
}

impl Files {
    fn of(root: &Path, name: &str, hotkey: &str) -> Self {
        let wallet = expand_home(root).join(name);
        let folder = wallet.join("hotkeys");
        Self {
            hotkey: folder.join(hotkey),
            hotkeypub: folder.join(format!("{hotkey}pub.txt")),
            coldkeypub: wallet.join("coldkeypub.txt"),
            folder,
        }
    }

    fn open(&self, sealed: Sealed, passwords: &Passwords) -> Result<Zeroizing<Vec<u8>>, WalletError> {
        let encryption = sealed.encryption();
        let password = passwords.find(&self.hotkey, encryption).map_err(|source| WalletError::Password {
            path: self.hotkey.clone(),
            encryption,
            source,
        })?;
        sealed.open(&password).map_err(|source| self.hotkey_error(source))
    }

    fn hotkey_error(&self, source: KeyfileError) -> WalletError {
        WalletError::Keyfile { path: self.hotkey.clone(), source }
    }
}

/// `~/.bittensor/wallets` is what operators write; no shell expands it in a configuration file.
fn expand_home(root: &Path) -> PathBuf {
    match (root.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => root.to_owned(),
    }
}

fn read_coldkey(path: &Path) -> Result<Option<Hotkey>, WalletError> {
    match read(path) {
        Ok(text) => keyfile::parse_public(&text)
            .map(Some)
            .map_err(|source| WalletError::Keyfile { path: path.to_owned(), source }),
        Err(WalletError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    let wrong = |source| WalletError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    let metadata = file.metadata().map_err(wrong)?;
    if metadata.len() > LARGEST_KEYFILE_BYTES {
        return Err(wrong(io::Error::new(io::ErrorKind::FileTooLarge, "too large for a keyfile")));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "keyfile is open to other users: chmod 600 it");
    }
    // One buffer of the final size: growing it would leave copies of the secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LARGEST_KEYFILE_BYTES as usize));
    file.take(LARGEST_KEYFILE_BYTES).read_to_end(&mut text).map_err(wrong)?;
    Ok(text)
}

fn write_new(path: &Path, text: &str) -> Result<(), WalletError> {
    let wrong = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => WalletError::Exists { path: path.to_owned() },
        _ => WalletError::Write { path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coldkey() -> Hotkey {
        keypair_from_uri("//Alice").unwrap().hotkey()
    }

    #[test]
    fn a_created_wallet_loads_with_the_same_keys() {
        let root = tempfile::tempdir().unwrap();
        let created = Wallet::create(root.path(), "validator", "default", &coldkey()).unwrap();
        let loaded = Wallet::load(root.path(), "validator", "default", &Passwords::default()).unwrap();
        assert_eq!(loaded.keypair.hotkey(), created.keypair.hotkey());
        assert_eq!(loaded.coldkey, Some(coldkey()));
        assert!(created.keypair.hotkey().verify(b"text", &loaded.keypair.sign(b"text")));
    }

    #[test]
    fn every_file_is_for_the_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        Wallet::create(root.path(), "miner", "default", &coldkey()).unwrap();
        for file in ["coldkeypub.txt", "hotkeys/default", "hotkeys/defaultpub.txt"] {
            let mode = root.path().join("miner").join(file).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let first = Wallet::create(root.path(), "miner", "default", &coldkey()).unwrap();
        let refused = Wallet::create(root.path(), "miner", "default", &coldkey()).unwrap_err();
        assert!(matches!(refused, WalletError::Exists { .. }), "{refused}");
        let kept = Wallet::load(root.path(), "miner", "default", &Passwords::default()).unwrap();
        assert_eq!(kept.keypair.hotkey(), first.keypair.hotkey());
    }

    #[test]
    fn a_wallet_holds_many_hotkeys_of_one_owner() {
        let root = tempfile::tempdir().unwrap();
        Wallet::create(root.path(), "miner", "one", &coldkey()).unwrap();
        Wallet::create(root.path(), "miner", "two", &coldkey()).unwrap();
        let other = keypair_from_uri("//Bob").unwrap().hotkey();
        let refused = Wallet::create(root.path(), "miner", "three", &other).unwrap_err();
        assert!(matches!(refused, WalletError::OtherColdkey { .. }), "{refused}");
    }

    #[test]
    fn a_wallet_without_coldkeypub_still_signs() {
        let root = tempfile::tempdir().unwrap();
        Wallet::create(root.path(), "miner", "default", &coldkey()).unwrap();
        std::fs::remove_file(root.path().join("miner/coldkeypub.txt")).unwrap();
        assert_eq!(Wallet::load(root.path(), "miner", "default", &Passwords::default()).unwrap().coldkey, None);
    }

    #[test]
    fn a_leading_tilde_is_the_home_directory() {
        let home = env::home_dir().unwrap();
        assert_eq!(expand_home(Path::new("~/.bittensor/wallets")), home.join(".bittensor/wallets"));
        assert_eq!(expand_home(Path::new("/srv/wallets")), Path::new("/srv/wallets"));
        assert_eq!(expand_home(Path::new("~other/wallets")), Path::new("~other/wallets"));
    }

    #[test]
    fn a_missing_keyfile_is_named() {
        let root = tempfile::tempdir().unwrap();
        let missing = Wallet::load(root.path(), "miner", "default", &Passwords::default()).unwrap_err();
        assert!(missing.to_string().contains("miner/hotkeys/default"), "{missing}");
    }
}
