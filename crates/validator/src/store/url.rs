//! `database.url`: which engine, where, in the notation that existing configuration files use.
//!
//! `sqlite:///./validator.db` and `sqlite:///validator.db` are relative to the working directory,
//! `sqlite:////var/lib/validator.db` is absolute; `postgresql://user:password@host/name` may name a driver
//! (`postgresql+psycopg2:`), which is ignored, and a socket's folder instead of a host (`postgresql:///name?host=/run/postgresql`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
                 SELECT challenge FROM challenge_proofs WHERE claimed_until IS NULL OR claimed_until < $3
                 ORDER BY received_at, challenge LIMIT $4",
            $lock,
            ")
             UPDATE challenge_proofs SET claimed_by = $1, claimed_until = $2
             WHERE challenge IN (SELECT challenge FROM due) RETURNING challenge, received_at"
        )
    };
}

/// The two engines, and the statements that differ between them.
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

    /// Statement "begin to read": all that follows sees one state, without keeping a writer waiting.
    pub(super) fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Statement "connection setup": a write-ahead log that is on disk when a commit returns; a request that meets a
    /// lock or a slow server gives up after 5 s. Of a file, each connection keeps at most 32 MiB in memory: those of a day of
    /// a full subnet, which the 2 MiB of SQLite would read again and again.
    pub(super) fn connection_setup(self, access: Access) -> &'static str {
        match (self, access) {
            (Self::Sqlite, Access::ReadOnly) => "PRAGMA busy_timeout = 5000",
            (Self::Postgres, Access::ReadOnly) => "SET default_transaction_read_only = on",
            (Self::Sqlite, _) => {
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA cache_size = -32768"
            }
            (Self::Postgres, _) => "SET statement_timeout = 5000",
        }
    }

    /// Statement "wait alone": whoever changes the tables waits here for whoever does so already, until the end of the
    /// transaction. On SQLite any two transactions that write take turns.
    pub(super) fn wait_alone(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET LOCAL statement_timeout = 120000; SELECT pg_advisory_xact_lock(1280136)"),
        }
    }

    /// Statement "claim": gives the claim `$1`, until `$2`, to the oldest proofs that nobody holds at `$3`, at most `$4`.
    /// A server skips what another process is claiming at this moment.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Self::Sqlite => claim!(""),
            Self::Postgres => claim!(" FOR UPDATE SKIP LOCKED"),
        }
    }

    /// Statement "give back space": shrinks the file a little; a server does it by itself.
    pub(super) fn give_back_space(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => Some("PRAGMA incremental_vacuum(10000)"),
            Self::Postgres => None,
        }
    }

    /// Statement "size": the bytes of the whole database.
    pub(super) fn size(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()",
            Self::Postgres => "SELECT pg_database_size(current_database()) AS bytes",
        }
    }

    /// Statement "find table": a row if there is a table named `$1`.
    pub(super) fn find_table(self) -> &'static str {
        match self {
            Self::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1",
            Self::Postgres => {
                "SELECT 1 FROM pg_catalog.pg_tables
                 WHERE schemaname = current_schema() AND CAST(tablename AS TEXT) = $1"
            }
        }
    }
}

/// A checked database address.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    engine: Engine,
    /// As sqlx reads it, without SQLite's mode.
    url: String,
    place: Place,
}

/// Where a database is, with nothing secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A host with its port, the folder of a socket, or `this machine` for a file.
    pub host: String,
    /// The database's name, or the path of its file.
    pub database: String,
    /// Who logs in; nobody does at a file.
    pub role: Option<String>,
}

/// What a connection may do with a SQLite file; a server decides by its own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Read and write, and make the file.
    Create,
    /// Read and write what exists.
    Existing,
    /// Read what exists, for as long as it takes.
    ReadOnly,
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
    /// No server and database can be read from it.
    #[error(
        "names no server: write postgresql://user:password@host/name, or postgresql:///name?host=/folder/of/socket; \
         percent-encode what is special in the password"
    )]
    NoServer,
}

impl DatabaseUrl {
    /// Which engine it names.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Where that is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The file; none at a server.
    pub fn file(&self) -> Option<&Path> {
        (self.engine == Engine::Sqlite).then_some(Path::new(&self.place.database))
    }

    /// The address of a SQLite file.
    pub(super) fn of_file(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned();
        let url = format!("sqlite://{}", escape(&path, "%?# "));
        Self {
            engine: Engine::Sqlite,
            url,
            place: Place { host: "this machine".to_owned(), database: path, role: None },
        }
    }

    /// How the programs of PostgreSQL find the server, for their environment: the password is not seen there by others,
    /// as it would be among their arguments. Empty for a file.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Ok(options) = self.url.parse::<PgConnectOptions>() else { return Vec::new() };
        let host =
            options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
        let mut environment = vec![
            ("PGHOST", host),
            ("PGPORT", options.get_port().to_string()),
            ("PGDATABASE", self.place.database.clone()),
        ];
        environment.extend(self.place.role.clone().map(|role| ("PGUSER", role)));
        environment.extend(self.password().map(|password| ("PGPASSWORD", password)));
        environment
    }

    /// The password, from before the host or from the query.
    fn password(&self) -> Option<String> {
        let (login, _) = self.url.strip_prefix("postgresql://")?.rsplit_once('@').unwrap_or_default();
        let query = self.url.rsplit_once('?').map_or("", |(_, query)| query);
        let in_query = || query.split('&').find_map(|pair| pair.strip_prefix("password="));
        login.split_once(':').map(|(_, password)| password).or_else(in_query).map(unescape)
    }

    /// As sqlx reads it; holds the password, so never log it.
    pub(super) fn with(&self, access: Access) -> String {
        match (self.engine, access) {
            (Engine::Sqlite, Access::Create) => format!("{}?mode=rwc", self.url),
            (Engine::Sqlite, Access::Existing) => format!("{}?mode=rw", self.url),
            (Engine::Sqlite, Access::ReadOnly) => format!("{}?mode=ro", self.url),
            (Engine::Postgres, _) => self.url.clone(),
        }
    }

    fn sqlite(rest: &str) -> Result<Self, UrlError> {
        let path = rest.strip_prefix('/').filter(|path| !path.is_empty() && !path.contains(":memory:"));
        let path = std::path::absolute(PathBuf::from(path.ok_or(UrlError::NoFile)?)).map_err(|_| UrlError::NoFile)?;
        let path = path.to_string_lossy().into_owned();
        let url = format!("sqlite://{}", escape(&path, "%?# "));
        let place = Place { host: "this machine".to_owned(), database: path, role: None };
        Ok(Self { engine: Engine::Sqlite, url, place })
    }

    /// Passwords are taken as the old program took them: its files hold them unencoded, `/` and `#` too.
    fn postgres(rest: &str) -> Result<Self, UrlError> {
        let url = match rest.rsplit_once('@') {
            Some((login, place)) => format!("postgresql://{}@{place}", escape(login, "/?#@[] ")),
            None => format!("postgresql://{rest}"),
        };
        let options: PgConnectOptions = url.parse().map_err(|_| UrlError::NoServer)?;
        let host = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let role = options.get_username().to_owned();
        let database = options.get_database().unwrap_or(&role).to_owned();
        Ok(Self { engine: Engine::Postgres, url, place: Place { host, database, role: Some(role) } })
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(UrlError::Scheme)?;
        match scheme.split('+').next().unwrap_or_default() {
            "sqlite" => Self::sqlite(rest),
            "postgresql" | "postgres" => Self::postgres(rest),
            _ => Err(UrlError::Scheme),
        }
    }
}

/// Percent-encodes the characters that a URL would read as its own punctuation.
fn escape(text: &str, punctuation: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if punctuation.contains(character) {
            escaped.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// What [`escape`] and operators percent-encode; whatever is no code stays as it is.
fn unescape(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = tail.first_chunk::<2>().filter(|_| *first == b'%').and_then(|code| hex::decode(code).ok());
        bytes.extend_from_slice(code.as_deref().unwrap_or(&[*first]));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for DatabaseUrl {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { host, database, .. } = &self.place;
        match self.engine {
            Engine::Sqlite => write!(f, "sqlite:///{database}"),
            Engine::Postgres if host.starts_with('/') => write!(f, "postgresql:///{database}?host={host}"),
            Engine::Postgres => write!(f, "postgresql://{host}/{database}"),
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
        assert_eq!(relative.with(Access::Create), format!("sqlite://{}/validator.db?mode=rwc", here.display()));
        let absolute = parse("sqlite:////var/lib/a b?.db").unwrap();
        assert_eq!(absolute.with(Access::Existing), "sqlite:///var/lib/a%20b%3F.db?mode=rw");
        assert_eq!(absolute.to_string(), "sqlite:////var/lib/a b?.db");
    }

    #[test]
    fn a_driver_name_is_ignored_and_the_password_is_never_shown() {
        let url = parse("postgresql+psycopg2://user:p@ss/word@db.example:5432/validator").unwrap();
        assert_eq!(url.engine(), Engine::Postgres);
        assert_eq!(url.with(Access::Create), "postgresql://user:p%40ss%2Fword@db.example:5432/validator");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgresql://db.example:5432/validator)");
        let hidden = parse("postgresql://db.example/validator?user=bob&password=secret").unwrap();
        assert_eq!(hidden.place().role.as_deref(), Some("bob"));
        assert!(!format!("{hidden} {hidden:?} {:?}", hidden.place()).contains("secret"));
    }

    #[test]
    fn programs_of_the_server_get_the_password_in_their_environment() {
        let environment = |text: &str| parse(text).unwrap().environment();
        let by_login = environment("postgresql://bob:p@ss/w%25rd@db.example:5433/validator");
        assert!(by_login.contains(&("PGPASSWORD", "p@ss/w%rd".to_owned())), "{by_login:?}");
        assert!(
            by_login.contains(&("PGHOST", "db.example".to_owned()))
                && by_login.contains(&("PGPORT", "5433".to_owned()))
        );
        let by_query = environment("postgresql:///validator?host=/run/postgresql&user=bob&password=secret");
        assert!(by_query.contains(&("PGPASSWORD", "secret".to_owned())), "{by_query:?}");
        assert!(by_query.contains(&("PGHOST", "/run/postgresql".to_owned())));
        assert!(by_query.contains(&("PGUSER", "bob".to_owned())));
    }

    #[test]
    fn a_socket_is_named_by_its_folder() {
        let url = parse("postgresql:///validator?host=/run/postgresql&user=bob").unwrap();
        let place = Place {
            host: "/run/postgresql".to_owned(),
            database: "validator".to_owned(),
            role: Some("bob".to_owned()),
        };
        assert_eq!(url.place(), &place);
        assert_eq!(url.to_string(), "postgresql:///validator?host=/run/postgresql");
    }

    #[test]
    fn what_names_no_file_or_no_engine_is_refused() {
        for text in ["sqlite://", "sqlite:///", "sqlite:///:memory:"] {
            assert_eq!(parse(text), Err(UrlError::NoFile), "{text}");
        }
        for text in ["", "mysql://x", "validator.db"] {
            assert_eq!(parse(text), Err(UrlError::Scheme), "{text}");
        }
        assert_eq!(parse("postgresql://host:port/name"), Err(UrlError::NoServer));
    }
}
