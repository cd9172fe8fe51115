//! `database.url`: which engine, where, in the notation that existing configuration files use.
//!
//! `sqlite:///./validator.db` and `sqlite:///validator.db` are relative to the working directory,
//! `sqlite:////var/lib/validator.db` is absolute; `postgresql://user:password@host/name` may name a driver
//! (`postgresql+psycopg2:`), which is ignored.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The two engines, and the two statements that differ between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One file, one writer.
    Sqlite,
    /// A server, reached over the network.
    Postgres,
}

impl Engine {
    /// Statement "begin": SQLite takes the write lock at once, since a reader that later becomes a writer would be
    /// refused instead of waiting its turn.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// Statement "connection setup": a write-ahead log that is on disk when a commit returns; a request that meets a
    /// lock or a slow server gives up after 5 s.
    pub(super) fn connection_setup(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON"
            }
            Self::Postgres => "SET statement_timeout = 5000",
        }
    }
}

/// A checked database address.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    engine: Engine,
    /// As sqlx reads it.
    url: String,
}

/// Why a text is no database address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither engine.
    #[error("must start with sqlite:/// (a file) or postgresql:// (a server)")]
    Scheme,
    /// `sqlite://name`, `sqlite::memory:` and other forms that name no file.
    #[error("names no file: write sqlite:///relative.db or sqlite:////absolute/path.db")]
    NoFile,
}

impl DatabaseUrl {
    /// Which engine it names.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// As sqlx reads it; holds the password, so never log it.
    pub(super) fn as_str(&self) -> &str {
        &self.url
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(UrlError::Scheme)?;
        match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => {
                let path = rest.strip_prefix('/').filter(|path| !path.is_empty() && !path.contains(":memory:"));
                let path = std::path::absolute(PathBuf::from(path.ok_or(UrlError::NoFile)?));
                let path = path.map_err(|_| UrlError::NoFile)?;
                Ok(Self {
                    engine: Engine::Sqlite,
                    url: format!("sqlite://{}?mode=rwc", escape(&path.to_string_lossy())),
                })
            }
            "postgresql" | "postgres" => Ok(Self { engine: Engine::Postgres, url: format!("postgresql://{rest}") }),
            _ => Err(UrlError::Scheme),
        }
    }
}

/// Percent-encodes what a URL would read as its own punctuation.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for character in path.chars() {
        match character {
            '%' => escaped.push_str("%25"),
            '?' => escaped.push_str("%3F"),
            '#' => escaped.push_str("%23"),
            ' ' => escaped.push_str("%20"),
            other => escaped.push(other),
        }
    }
    escaped
}

impl fmt::Display for DatabaseUrl {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.engine {
            Engine::Sqlite => f.write_str(self.url.trim_end_matches("?mode=rwc")),
            Engine::Postgres => {
                let place = self.url.trim_start_matches("postgresql://");
                write!(f, "postgresql://{}", place.rsplit_once('@').map_or(place, |(_, place)| place))
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, UrlError> {
        text.parse()
    }

    #[test]
    fn three_slashes_are_relative_and_four_are_absolute() {
        let here = std::env::current_dir().unwrap();
        let relative = parse("sqlite:///./validator.db").unwrap();
        assert_eq!(relative.as_str(), format!("sqlite://{}/validator.db?mode=rwc", here.display()));
        let absolute = parse("sqlite:////var/lib/a b?.db").unwrap();
        assert_eq!(absolute.as_str(), "sqlite:///var/lib/a%20b%3F.db?mode=rwc");
    }

    #[test]
    fn a_driver_name_is_ignored_and_the_password_is_never_shown() {
        let url = parse("postgresql+psycopg2://user:p@ss/word@db.example:5432/validator").unwrap();
        assert_eq!(url.engine(), Engine::Postgres);
        assert_eq!(url.as_str(), "postgresql://user:p@ss/word@db.example:5432/validator");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgresql://db.example:5432/validator)");
    }

    #[test]
    fn what_names_no_file_or_no_engine_is_refused() {
        for text in ["sqlite://", "sqlite:///", "sqlite:///:memory:"] {
            assert_eq!(parse(text), Err(UrlError::NoFile), "{text}");
        }
        for text in ["", "mysql://x", "validator.db"] {
            assert_eq!(parse(text), Err(UrlError::Scheme), "{text}");
        }
    }
}
