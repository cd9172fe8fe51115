//! Where the password of a sealed keyfile comes from, in this order: a file that the configuration names, an environment
//! variable as the official tools set it, a person at the terminal (chain spec 7.3).

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::vault::Encryption;

/// Start of the variable's name; the keyfile's path follows.
const VARIABLE_PREFIX: &str = "BT_PW_";

/// A password file holds one line.
const LARGEST_PASSWORD_FILE_BYTES: u64 = 4096;

/// A password; wiped when dropped, never shown.
pub(super) type Password = Zeroizing<String>;

/// Where to look for the password of a sealed keyfile. The default looks nowhere.
#[derive(Clone, Default)]
pub struct Passwords {
    file: Option<PathBuf>,
    variables: Option<fn(&str) -> Option<String>>,
    terminal: bool,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("file", &self.file).field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// A password that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// No source has it.
    #[error(
        "no password: name a file in wallet.password_file, set {variable} as the official tools do, or start at a terminal"
    )]
    Nowhere {
        /// The variable that was looked for.
        variable: String,
    },
    /// The password file is missing, too large or no text.
    #[error("cannot read password file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read the password file.
    #[error("password file {path} is open to other users: chmod 600 it")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The variable holds no obscured password.
    #[error("{variable} holds no password as the official tools store it: remove the variable, or save it anew")]
    Variable {
        /// The variable.
        variable: String,
    },
    /// The terminal went away, or nothing was typed.
    #[error("no password was typed")]
    Terminal,
}

impl Passwords {
    /// What a daemon uses: `file` where one is configured, the environment, and the terminal if there is one.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self { file, variables: Some(|name| env::var(name).ok()), terminal: io::stdin().is_terminal() }
    }

    /// Looks for the password of the keyfile at `path`.
    pub(super) fn find(&self, path: &Path, encryption: Encryption) -> Result<Password, PasswordError> {
        if let Some(file) = &self.file {
            return read_file(&super::expand_home(file));
        }
        let variable = variable_of(path);
        if let Some(value) = self.variables.and_then(|look_up| look_up(&variable)).map(Zeroizing::new) {
            return reveal(&value, &variable).ok_or(PasswordError::Variable { variable });
        }
        if self.terminal {
            return ask(path, encryption);
        }
        Err(PasswordError::Nowhere { variable })
    }
}

/// The variable that the official tools use for a keyfile.
fn variable_of(path: &Path) -> String {
    let tail = path.to_string_lossy().to_uppercase().replace(['/', '.'], "_");
    format!("{VARIABLE_PREFIX}{tail}")
}

/// The password behind a variable's value: base64 of its bytes, each XOR-ed with the variable's own name in turn.
fn reveal(value: &str, variable: &str) -> Option<Password> {
    let mut bytes = Zeroizing::new(STANDARD.decode(value.trim()).ok()?);
    for (byte, letter) in bytes.iter_mut().zip(variable.bytes().cycle()) {
        *byte ^= letter;
    }
    let text = std::str::from_utf8(&bytes).ok()?;
    (!text.is_empty()).then(|| Zeroizing::new(text.to_owned()))
}

fn read_file(path: &Path) -> Result<Password, PasswordError> {
    let wrong = |source| PasswordError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    if file.metadata().map_err(wrong)?.permissions().mode() & 0o077 != 0 {
        return Err(PasswordError::Open { path: path.to_owned() });
    }
    let mut text = Zeroizing::new(String::with_capacity(LARGEST_PASSWORD_FILE_BYTES as usize));
    file.take(LARGEST_PASSWORD_FILE_BYTES).read_to_string(&mut text).map_err(wrong)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains('\n') {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidData, "it must hold one line, the password")));
    }
    Ok(Zeroizing::new(password.to_owned()))
}

fn ask(path: &Path, encryption: Encryption) -> Result<Password, PasswordError> {
    let prompt = format!("Password of {} ({encryption}): ", path.display());
    let password = rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|_| PasswordError::Terminal)?;
    if password.is_empty() { Err(PasswordError::Terminal) } else { Ok(password) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEYFILE: &str = "/root/.bittensor/wallets/validator/hotkeys/default";

    /// The variable of [`KEYFILE`] with the password `hunter2`, as the official tools would set it.
    fn variables(name: &str) -> Option<String> {
        let bytes: Vec<u8> = "hunter2".bytes().zip(name.bytes().cycle()).map(|(one, other)| one ^ other).collect();
        (name == "BT_PW__ROOT__BITTENSOR_WALLETS_VALIDATOR_HOTKEYS_DEFAULT").then(|| STANDARD.encode(bytes))
    }

    fn find(passwords: &Passwords) -> Result<Password, PasswordError> {
        passwords.find(Path::new(KEYFILE), Encryption::Nacl)
    }

    fn password_file(text: &str, mode: u32) -> (tempfile::TempDir, Passwords) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, Passwords { file: Some(path), variables: Some(variables), terminal: false })
    }

    #[test]
    fn the_file_comes_before_the_variable() {
        let (_folder, passwords) = password_file("from the file\n", 0o600);
        assert_eq!(*find(&passwords).unwrap(), "from the file");
        let passwords = Passwords { file: None, ..passwords };
        assert_eq!(*find(&passwords).unwrap(), "hunter2");
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        let (_folder, passwords) = password_file("secret", 0o640);
        assert!(matches!(find(&passwords), Err(PasswordError::Open { .. })));
    }

    #[test]
    fn a_password_file_of_no_line_or_of_many_is_refused() {
        for text in ["", "\n", "one\ntwo\n"] {
            let (_folder, passwords) = password_file(text, 0o600);
            assert!(matches!(find(&passwords), Err(PasswordError::File { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_variable_that_was_not_obscured_is_refused_without_showing_it() {
        let passwords = Passwords { file: None, variables: Some(|_| Some("pl@in".to_owned())), terminal: false };
        let refused = find(&passwords).unwrap_err();
        assert!(matches!(refused, PasswordError::Variable { .. }));
        assert!(!format!("{refused} {refused:?}").contains("pl@in"));
    }

    #[test]
    fn without_any_source_the_error_names_them_all() {
        let refused = find(&Passwords::default()).unwrap_err().to_string();
        for source in ["wallet.password_file", "BT_PW__ROOT__BITTENSOR_WALLETS_VALIDATOR_HOTKEYS_DEFAULT", "terminal"] {
            assert!(refused.contains(source), "{refused}");
        }
    }
}
