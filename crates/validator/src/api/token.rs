//! Who may ask what: bearer tokens, each with a name, a role and an end, and the file that keeps them.
//!
//! A token is 32 random bytes; the file holds its SHA-256 alone, so whoever reads the file can ask nothing. The running
//! validator and the commands `token create` and `token revoke` meet in the file: whoever may write it may hand out tokens,
//! nobody else. It is read anew whenever it has changed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use byteleap_daemon::file::{self, Version};
use parking_lot::Mutex;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What every token begins with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "byteleap-api-";
/// Most tokens at a time.
const MAX_TOKENS: usize = 100;
/// Longest name of a token, in characters.
const MAX_NAME_CHARS: usize = 64;

/// What a token is for. A role says what its holder may ask, see [`Role::may`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing: dashboards, `inspect`.
    Read,
    /// Sees everything, and sets leases and tests workers too.
    Operator,
    /// A marketplace: sees who takes part and what is rented, and sets leases.
    Marketplace,
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// See miners, workers, GPUs and leases.
    SeeInventory,
    /// See challenges, scores, weights and what is wrong.
    SeeBooks,
    /// Set leases.
    SetLeases,
    /// Act on the network: test a worker.
    Operate,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operator, Self::Marketplace];

    /// The word in the file and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operator => "operator",
            Self::Marketplace => "marketplace",
        }
    }

    /// Whether a holder may do this.
    pub const fn may(self, right: Right) -> bool {
        match right {
            Right::SeeInventory => true,
            Right::SeeBooks => matches!(self, Self::Read | Self::Operator),
            Right::SetLeases => matches!(self, Self::Operator | Self::Marketplace),
            Right::Operate => matches!(self, Self::Operator),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token as its holder has it. Its text is the secret: `Debug` hides it.
pub struct Token([u8; 32]);

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token: it begins with {PREFIX} and goes on with 64 hexadecimal digits")]
pub struct NoToken;

impl Token {
    /// A new one.
    pub fn random(random: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut bytes = [0; 32];
        random.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The text that is handed over, once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", hex::encode(self.0))
    }

    /// What the file keeps. Tokens are drawn from 2^256, so one round of SHA-256 hides them, and that two digests are
    /// alike tells nothing of a token that is not known already.
    fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut bytes = [0; 32];
        let digits = text.trim().strip_prefix(PREFIX).ok_or(NoToken)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| NoToken)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A token as the file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name, for people: who holds it.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// SHA-256 of the token, hexadecimal.
    digest: String,
    /// When it was made, unix milliseconds UTC.
    pub created_at_ms: i64,
    /// When it ends, unix milliseconds UTC; none: only when it is revoked.
    pub expires_at_ms: Option<i64>,
}

impl Grant {
    /// Whether it has ended.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }
}

/// Why a token is not taken, or the book of tokens does not change.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file is there and cannot be used.
    #[error("the tokens in {} cannot be used: make the file readable, or restore it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("the tokens in {} cannot be kept: run as the validator's user, or check http.token_file", path.display())]
    Unkept {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name that cannot be one.
    #[error("a token's name has 1 to {MAX_NAME_CHARS} characters, none of them a control character")]
    BadName,
    /// Two holders would be one.
    #[error("there is a token named {0}: revoke it first, or choose another name")]
    Taken(String),
    /// Nobody of this name.
    #[error("there is no token named {0}; see byteleap-validator token list")]
    Unknown(String),
    /// The book is full.
    #[error("there are {MAX_TOKENS} tokens: revoke some")]
    Full,
}

/// The tokens on disk. Cheap to clone; clones share what was read.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
    read: Arc<Mutex<Option<Reading>>>,
}

/// What was read last.
#[derive(Debug)]
struct Reading {
    version: Version,
    grants: Arc<Vec<Grant>>,
}

impl TokenFile {
    /// The tokens in this file, which need not be there yet.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Arc::default() }
    }

    /// Every token, the oldest first, those that have ended too.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`].
    pub fn grants(&self) -> Result<Arc<Vec<Grant>>, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: self.path.clone(), source };
        let mut read = self.read.lock();
        let Some(version) = Version::of(&self.path).map_err(unreadable)? else {
            *read = None;
            return Ok(Arc::default());
        };
        if let Some(reading) = &*read
            && reading.version == version
        {
            return Ok(Arc::clone(&reading.grants));
        }
        let text = fs::read(&self.path).map_err(unreadable)?;
        let grants: Vec<Grant> = serde_json::from_slice(&text).map_err(|error| unreadable(error.into()))?;
        let grants = Arc::new(grants);
        *read = Some(Reading { version, grants: Arc::clone(&grants) });
        Ok(grants)
    }

    /// The grant of a token, ended or not; none when it was never made, or was revoked.
    ///
    /// # Errors
    /// [`TokenError::Unreadable`].
    pub fn find(&self, token: &Token) -> Result<Option<Grant>, TokenError> {
        let digest = token.digest();
        Ok(self.grants()?.iter().find(|grant| grant.digest == digest).cloned())
    }

    /// Writes down a new token.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing is changed then.
    pub fn create(
        &self,
        name: &str,
        role: Role,
        expires_at_ms: Option<i64>,
        token: &Token,
        now_ms: i64,
    ) -> Result<(), TokenError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            return Err(TokenError::BadName);
        }
        self.change(|grants| {
            grants.retain(|grant| !grant.is_expired(now_ms));
            if grants.iter().any(|grant| grant.name == name) {
                return Err(TokenError::Taken(name.to_owned()));
            }
            if grants.len() >= MAX_TOKENS {
                return Err(TokenError::Full);
            }
            let digest = token.digest();
            grants.push(Grant { name: name.to_owned(), role, digest, created_at_ms: now_ms, expires_at_ms });
            Ok(())
        })
    }

    /// Takes a token back; the running validator refuses it from its next request on.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing is changed then.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.change(|grants| {
            let before = grants.len();
            grants.retain(|grant| grant.name != name);
            if grants.len() == before { Err(TokenError::Unknown(name.to_owned())) } else { Ok(()) }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Grant>) -> Result<(), TokenError>) -> Result<(), TokenError> {
        let unkept = |source| TokenError::Unkept { path: self.path.clone(), source };
        let _lock = file::lock_folder(&self.path).map_err(unkept)?;
        let mut grants = self.grants()?.to_vec();
        change(&mut grants)?;
        let text = serde_json::to_vec_pretty(&grants).map_err(|error| unkept(error.into()))?;
        file::replace(&self.path, &text).map_err(unkept)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn token(byte: u8) -> Token {
        Token([byte; 32])
    }

    #[test]
    fn a_token_is_found_until_it_is_revoked_by_another_process_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let (daemon, command) = (TokenFile::at(&path), TokenFile::at(&path));
        assert_eq!(daemon.find(&token(1)).unwrap(), None);
        command.create("dashboard", Role::Read, None, &token(1), 10).unwrap();
        assert_eq!(daemon.find(&token(1)).unwrap().unwrap().role, Role::Read);
        assert_eq!(daemon.find(&token(2)).unwrap(), None);
        command.revoke("dashboard").unwrap();
        assert_eq!(daemon.find(&token(1)).unwrap(), None);
        assert!(matches!(command.revoke("dashboard"), Err(TokenError::Unknown(_))));
    }

    #[test]
    fn the_file_holds_no_token_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        TokenFile::at(&path).create("market", Role::Marketplace, Some(5), &token(7), 1).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&hex::encode([7; 32])), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{:?}", token(7)), "Token(…)");
    }

    #[test]
    fn a_name_is_given_once_until_its_token_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::at(&folder.path().join("tokens.json"));
        file.create("a", Role::Read, Some(100), &token(1), 0).unwrap();
        assert!(matches!(file.create("a", Role::Read, None, &token(2), 99), Err(TokenError::Taken(_))));
        file.create("a", Role::Read, None, &token(2), 100).unwrap();
        assert_eq!(file.find(&token(1)).unwrap(), None);
        for name in ["", " ", "a\nb", &"x".repeat(65)] {
            assert!(matches!(file.create(name, Role::Read, None, &token(3), 0), Err(TokenError::BadName)));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nobody_in_and_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        fs::write(&path, "[{]").unwrap();
        let file = TokenFile::at(&path);
        assert!(matches!(file.find(&token(1)), Err(TokenError::Unreadable { .. })));
        assert!(file.create("a", Role::Read, None, &token(1), 0).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "[{]");
    }

    #[test]
    fn each_role_may_what_it_is_for() {
        let rights = [Right::SeeInventory, Right::SeeBooks, Right::SetLeases, Right::Operate];
        let table = Role::ALL.map(|role| rights.map(|right| role.may(right)));
        assert_eq!(
            table,
            [[true, true, false, false], [true, true, true, true], [true, false, true, false]],
            "read, operator, marketplace"
        );
    }

    proptest! {
        #[test]
        fn a_text_is_read_as_the_token_that_wrote_it_or_not_at_all(bytes: [u8; 32], text in ".{0,100}") {
            let token = Token(bytes);
            prop_assert_eq!(token.reveal().parse::<Token>().map(|token| token.0), Ok(bytes));
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.reveal(), text.trim().to_lowercase());
            }
        }
    }
}
