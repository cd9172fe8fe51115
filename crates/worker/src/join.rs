//! `byteleap-worker join TOKEN`: takes up a miner's invitation.
//!
//! Where the miner is and by which certificate it is known go into the configuration file, as if the operator had typed
//! them; the secret goes into the state directory, until the first registration has used it. The file keeps its comments:
//! only the lines of the two keys change.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use byteleap_daemon::config::{Config, Error as ConfigError, Sources};
use byteleap_daemon::file;
use byteleap_protocol::join::{JoinToken, JoinTokenError};

use crate::config::KEYS;
use crate::link::key::{self, KeyError};
use crate::link::url::{MinerUrl, MinerUrlError};

/// Why a worker cannot take up an invitation.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The text is no token.
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    /// The token names no miner.
    #[error("the token names no miner")]
    Url(#[from] MinerUrlError),
    /// The secret would be sent in the clear.
    #[error("the token names {0}: a join token is sent over wss:// only")]
    Plain(MinerUrl),
    /// There is no file to write to.
    #[error("no configuration file is named: run byteleap-worker join TOKEN --config config/worker_config.yaml")]
    NoFile,
    /// The file cannot be read or written.
    #[error("{} cannot be changed: make it writable for this user", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold each of the keys on a line of its own.
    #[error("{} is written in a form that cannot be changed here; set in it yourself and run this again:\n{lines}", path.display())]
    OtherForm {
        /// The file.
        path: PathBuf,
        /// What belongs in it.
        lines: String,
    },
    /// The file was wrong before.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret cannot be kept.
    #[error(transparent)]
    Secret(#[from] KeyError),
}

/// Takes up the invitation in `token`: changes the configuration file and keeps the secret in `state_dir`. Yields the
/// miner's URL.
///
/// # Errors
/// See [`JoinError`]; nothing has changed then but perhaps the file, which names the miner already.
pub fn join(token: &str, config_file: Option<&Path>, state_dir: &Path) -> Result<MinerUrl, JoinError> {
    let token: JoinToken = token.parse()?;
    let url: MinerUrl = token.url.parse()?;
    if !url.is_tls() {
        return Err(JoinError::Plain(url));
    }
    let path = config_file.ok_or(JoinError::NoFile)?;
    let failed = |source| JoinError::File { path: path.to_owned(), source };
    let before = fs::read_to_string(path).map_err(failed)?;
    let fingerprint = token.fingerprint.map(|fingerprint| fingerprint.to_string());
    let after = with_key(&before, "miner_url", Some(&token.url));
    let after = with_key(&after, "miner_fingerprint", fingerprint.as_deref());
    if after != before {
        change(path, &before, &after).map_err(failed)?;
    }
    let config = Config::load(KEYS, &Sources { file: Some(path.to_owned()), ..Sources::default() });
    let is_understood = config.as_ref().is_ok_and(|config| {
        config.parsed::<MinerUrl>("miner_url") == url
            && config.parsed_optional("miner_fingerprint") == token.fingerprint
    });
    if !is_understood {
        change(path, &after, &before).map_err(failed)?;
        // Wrong before, or of a form in which a line more is no key more.
        Config::load(KEYS, &Sources { file: Some(path.to_owned()), ..Sources::default() })?;
        let fingerprint = fingerprint.map(|text| format!("\nminer_fingerprint: \"{text}\"")).unwrap_or_default();
        let lines = format!("miner_url: \"{}\"{fingerprint}", token.url);
        return Err(JoinError::OtherForm { path: path.to_owned(), lines });
    }
    key::keep_join_secret(state_dir, token.secret)?;
    Ok(url)
}

/// The text with the top-level key `name` set to a value, in its place or at the end; without a value it is taken out.
fn with_key(text: &str, name: &str, value: Option<&str>) -> String {
    let line = value.map(|value| format!("{name}: \"{value}\""));
    let is_key = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
    let mut lines: Vec<&str> = text.lines().collect();
    match (lines.iter().position(|line| is_key(line)), &line) {
        (Some(at), Some(line)) => lines[at] = line,
        (Some(at), None) => {
            lines.remove(at);
        }
        (None, Some(line)) => lines.push(line),
        (None, None) => {}
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Writes a file anew that stays its owner's and keeps its mode.
fn change(path: &Path, before: &str, after: &str) -> io::Result<()> {
    if before == after {
        return Ok(());
    }
    // A link stays a link: what it points to is written.
    let path = fs::canonicalize(path)?;
    let metadata = fs::metadata(&path)?;
    file::replace(&path, after.as_bytes())?;
    chown(&path, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(&path, metadata.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use byteleap_protocol::join::{CertificateFingerprint, JoinSecret};
    use rand_core::OsRng;

    use super::*;

    fn token(url: &str, fingerprint: Option<u8>) -> JoinToken {
        JoinToken {
            url: url.to_owned(),
            fingerprint: fingerprint.map(|byte| CertificateFingerprint([byte; 32])),
            secret: JoinSecret::random(&mut OsRng),
        }
    }

    #[test]
    fn the_file_keeps_its_comments_and_mode_and_names_the_miner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker_config.yaml");
        fs::write(&path, "# mine\nminer_url: ws://old:7799\ngpu:\n  enable: false\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let pinned = token("wss://203.0.113.7:7799", Some(3));
        join(&pinned.to_string(), Some(&path), folder.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let fingerprint = "03".repeat(32);
        let expected = format!(
            "# mine\nminer_url: \"wss://203.0.113.7:7799\"\ngpu:\n  enable: false\nminer_fingerprint: \"sha256:{fingerprint}\"\n"
        );
        assert_eq!(text, expected);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(key::join_secret(folder.path()).unwrap(), Some(pinned.secret));

        // A miner that authorities vouch for: the former fingerprint would lock it out.
        join(&token("wss://miner.example:7799", None).to_string(), Some(&path), folder.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("wss://miner.example:7799") && !text.contains("miner_fingerprint"), "{text}");
    }

    #[test]
    fn the_example_file_can_be_joined() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker_config.yaml");
        fs::write(&path, byteleap_daemon::config::example(KEYS)).unwrap();
        join(&token("wss://miner.example:7799", Some(3)).to_string(), Some(&path), folder.path()).unwrap();
    }

    #[test]
    fn a_file_of_another_form_or_a_plain_token_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker_config.yaml");
        let json = "{\"worker_name\": \"w\"}\n";
        fs::write(&path, json).unwrap();
        let error = join(&token("wss://miner.example:7799", Some(3)).to_string(), Some(&path), folder.path());
        assert!(error.unwrap_err().to_string().contains("miner_url: \"wss://miner.example:7799\""));
        let error = join(&token("ws://miner.example:7799", None).to_string(), Some(&path), folder.path());
        assert!(matches!(error, Err(JoinError::Plain(_))));
        assert!(matches!(join("byteleap-join-x", Some(&path), folder.path()), Err(JoinError::Token(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), json);
        assert_eq!(key::join_secret(folder.path()).unwrap(), None);
    }
}
