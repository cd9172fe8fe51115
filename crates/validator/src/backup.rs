//! Copies of the database that can be trusted: made while the validator runs, checked before they are needed.
//!
//! A SQLite database is copied by `VACUUM INTO`, a consistent snapshot that writers do not wait for; a PostgreSQL one by
//! `pg_dump`, which gets the password in its environment. The copy is written beside its place, flushed, and only then
//! given its name, with mode 0600; a file that is there is never overwritten. [`check`] reads the whole of a copy.
//! [`Schedule`] makes copies by itself and keeps the newest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use byteleap_daemon::clock::Clock;
use byteleap_daemon::tasks;
use tokio_util::sync::CancellationToken;

use crate::score::explain::instant;
use crate::store::migrate::nothing_applied;
use crate::store::{DatabaseUrl, Engine, Store, StoreError};

/// How a SQLite file begins.
const SQLITE_MARK: &[u8] = b"SQLite format 3\0";
/// How a copy by `pg_dump --format=custom` begins.
const DUMP_MARK: &[u8] = b"PGDMP";
/// Tables whose rows a check counts for a person.
const COUNTED: &[&str] = &["miners", "workers", "challenges", "leases", "scoring_rounds", "weight_submissions"];
/// Pause between looks whether a copy is due.
const SCHEDULE_PAUSE: Duration = Duration::from_secs(60);
/// What the names of scheduled copies begin with.
const PREFIX: &str = "validator-";

/// Why there is no good copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database could not be read.
    #[error("the database cannot be copied")]
    Database(#[from] StoreError),
    /// There is no database yet.
    #[error("there is no database {0} yet: the validator makes it when it starts")]
    NoDatabase(DatabaseUrl),
    /// A file of this name is there.
    #[error("{0} is there already and is not overwritten: choose another name, or remove it")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program of PostgreSQL could not do its part.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// The copy is not whole, or not ours.
    #[error("{path} is no good copy: {reason}")]
    Broken {
        /// The copy.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What a good copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Which engine it is for.
    pub engine: Engine,
    /// Schema steps that have run in it.
    pub steps: usize,
    /// Rows of the tables that a person asks for.
    pub rows: Vec<(&'static str, i64)>,
}

impl std::fmt::Display for Contents {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = match self.engine {
            Engine::Sqlite => "SQLite",
            Engine::Postgres => "PostgreSQL",
        };
        writeln!(
            out,
            "engine              {engine}\nschema steps        {} of {}",
            self.steps,
            nothing_applied().len()
        )?;
        for (table, rows) in &self.rows {
            writeln!(out, "{table:<19} {rows}")?;
        }
        write!(out, "the copy is whole")
    }
}

/// Copies the database into a new file.
///
/// # Errors
/// As [`BackupError`]; then there is no file of this name that was not there before.
pub async fn backup(url: &DatabaseUrl, path: &Path) -> Result<(), BackupError> {
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let beside = beside(path);
    let file = |source| BackupError::File { path: path.to_owned(), source };
    let _ = fs::remove_file(&beside);
    // Made by us, so that nobody else can read it while it is written.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(file)?;
    let placed = match copy(url, &beside).await {
        Ok(()) => {
            let (from, to) = (beside.clone(), path.to_owned());
            tokio::task::spawn_blocking(move || place(&from, &to))
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
                .map_err(|source| match source.kind() {
                    io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
                    _ => file(source),
                })
        }
        Err(error) => Err(error),
    };
    let _ = fs::remove_file(&beside);
    placed
}

async fn copy(url: &DatabaseUrl, into: &Path) -> Result<(), BackupError> {
    match url.engine() {
        Engine::Sqlite => {
            let Some(store) = Store::open_existing(url).await? else {
                return Err(BackupError::NoDatabase(url.clone()));
            };
            let copied = store.copy_into(into).await;
            store.close().await;
            Ok(copied?)
        }
        Engine::Postgres => {
            let mut dump = Command::new("pg_dump");
            dump.args(["--format=custom", "--no-owner", "--no-privileges", "--no-password", "--file"]).arg(into);
            dump.env_remove("PGPASSWORD").envs(url.environment());
            tokio::task::spawn_blocking(move || run(dump, "pg_dump"))
                .await
                .unwrap_or_else(|error| Err(BackupError::Program { program: "pg_dump", said: error.to_string() }))
        }
    }
}

fn run(mut command: Command, program: &'static str) -> Result<(), BackupError> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| missing(program, &error))?;
    if output.status.success() { Ok(()) } else { Err(said(program, &output.stderr)) }
}

fn missing(program: &'static str, error: &io::Error) -> BackupError {
    let said = format!("{error}: install PostgreSQL's client programs (Debian: postgresql-client, RHEL: postgresql)");
    BackupError::Program { program, said }
}

fn said(program: &'static str, stderr: &[u8]) -> BackupError {
    BackupError::Program { program, said: String::from_utf8_lossy(stderr).trim().replace('\n', "; ") }
}

/// Gives a finished file its name, which must be free.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::hard_link(from, to)?;
    File::open(to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Reads the whole of a copy and says what it holds.
///
/// # Errors
/// It cannot be read, is damaged or cut off, or was made by a newer program.
pub async fn check(path: &Path) -> Result<Contents, BackupError> {
    let mut mark = Vec::new();
    let file = |source| BackupError::File { path: path.to_owned(), source };
    File::open(path).and_then(|file| file.take(SQLITE_MARK.len() as u64).read_to_end(&mut mark)).map_err(file)?;
    let broken = |reason: String| BackupError::Broken { path: path.to_owned(), reason };
    if mark == SQLITE_MARK {
        let found = check_sqlite(path).await.map_err(|error| broken(tasks::chain(&error)))?;
        found.map_err(broken)
    } else if mark.starts_with(DUMP_MARK) {
        let path = path.to_owned();
        let checked = tokio::task::spawn_blocking(move || check_dump(&path)).await;
        checked.unwrap_or_else(|error| Err(broken(error.to_string())))
    } else {
        Err(broken("it is neither a SQLite database nor a dump of PostgreSQL".to_owned()))
    }
}

async fn check_sqlite(path: &Path) -> Result<Result<Contents, String>, StoreError> {
    let store = Store::open_copy(path).await?;
    let found = async {
        let complaints = store.integrity_complaints().await?;
        if let Some(complaint) = complaints.first() {
            return Ok(Err(format!("{complaint} ({} complaints)", complaints.len())));
        }
        // A step that this program does not know is an error here.
        let steps = store.migrate_status().await?.iter().filter(|step| !step.is_pending()).count();
        if steps == 0 {
            return Ok(Err("it is no database of a validator".to_owned()));
        }
        let mut rows = Vec::new();
        for table in COUNTED {
            rows.push((*table, store.count_rows(table).await?));
        }
        Ok(Ok(Contents { engine: Engine::Sqlite, steps, rows }))
    };
    let found = found.await;
    store.close().await;
    found
}

/// Lets `pg_restore` turn the whole dump into SQL, and counts the rows that go by.
fn check_dump(path: &Path) -> Result<Contents, BackupError> {
    let mut restore = Command::new("pg_restore");
    restore.arg("--file=-").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut restoring = restore.spawn().map_err(|error| missing("pg_restore", &error))?;
    let broken = |reason: String| BackupError::Broken { path: path.to_owned(), reason };
    // pg_restore says little; what it says waits in the pipe until its output has been read.
    let counted = restoring.stdout.take().map(|out| count_copied(BufReader::new(out)));
    let output = restoring.wait_with_output().map_err(|error| missing("pg_restore", &error))?;
    if !output.status.success() {
        return Err(broken(said("pg_restore", &output.stderr).to_string()));
    }
    let (counts, steps) = counted.transpose().map_err(|error| broken(error.to_string()))?.unwrap_or_default();
    let newer = steps.iter().find(|step| **step > nothing_applied().len() as i64);
    if let Some(step) = newer {
        return Err(broken(format!("it was made by a newer program (schema step {step})")));
    }
    if steps.is_empty() {
        return Err(broken("it is no database of a validator".to_owned()));
    }
    Ok(Contents { engine: Engine::Postgres, steps: steps.len(), rows: counts })
}

type Counted = (Vec<(&'static str, i64)>, Vec<i64>);

/// Rows of the counted tables, and the versions of the schema steps, in a stream of SQL with `COPY` blocks.
fn count_copied(mut sql: impl BufRead) -> io::Result<Counted> {
    let mut counts: Vec<(&'static str, i64)> = COUNTED.iter().map(|table| (*table, 0)).collect();
    let (mut steps, mut table, mut line) = (Vec::new(), None, Vec::new());
    loop {
        line.clear();
        if sql.read_until(b'\n', &mut line)? == 0 {
            return Ok((counts, steps));
        }
        let text = String::from_utf8_lossy(&line);
        match &table {
            None => {
                let name = text.strip_prefix("COPY ").and_then(|rest| rest.split([' ', '(']).next());
                table = name.map(|name| name.rsplit('.').next().unwrap_or_default().to_owned());
            }
            Some(_) if text.trim_end() == "\\." => table = None,
            Some(name) => {
                if name == "schema_migrations" {
                    steps.extend(text.split('\t').next().and_then(|version| version.parse::<i64>().ok()));
                }
                if let Some((_, rows)) = counts.iter_mut().find(|(counted, _)| counted == name) {
                    *rows += 1;
                }
            }
        }
    }
}

/// Copies that make themselves; the section `backup` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Where they go.
    pub folder: PathBuf,
    /// How often.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
}

impl Schedule {
    /// Makes a copy whenever the newest is older than the interval, until `stop`.
    pub async fn run(self, url: DatabaseUrl, clock: Arc<dyn Clock>, stop: CancellationToken) {
        loop {
            match self.make_if_due(&url, clock.as_ref()).await {
                Ok(Some(path)) => {
                    metrics::gauge!("backup_at_seconds").set(clock.unix_ms() as f64 / 1000.0);
                    tracing::info!(path = %path.display(), "database copied");
                }
                Ok(None) => {}
                Err(error) => {
                    metrics::counter!("backup_failures_total").increment(1);
                    tracing::error!(
                        error = tasks::chain(&error),
                        "the database was not copied; tried again in a minute"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SCHEDULE_PAUSE) => {}
            }
        }
    }

    /// Makes a copy if it is time, checks it, and removes the oldest beyond those that are kept.
    async fn make_if_due(&self, url: &DatabaseUrl, clock: &dyn Clock) -> Result<Option<PathBuf>, BackupError> {
        let folder = |source| BackupError::File { path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(folder)?;
        let mut copies = self.copies().map_err(folder)?;
        let now = instant(clock.unix_ms());
        let due_before = instant(clock.unix_ms() - i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX));
        if copies.last().is_some_and(|newest| *newest > name_of(&due_before, url)) {
            return Ok(None);
        }
        let path = self.folder.join(name_of(&now, url));
        backup(url, &path).await?;
        check(&path).await?;
        copies.push(name_of(&now, url));
        for oldest in copies.iter().take(copies.len().saturating_sub(self.keep)) {
            fs::remove_file(self.folder.join(oldest)).map_err(folder)?;
        }
        Ok(Some(path))
    }

    /// Names of the copies that are there, oldest first.
    fn copies(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && (name.ends_with(".db") || name.ends_with(".dump")) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// `validator-20261124T170000Z.db`: names sort as times do.
fn name_of(instant: &str, url: &DatabaseUrl) -> String {
    let compact: String = instant.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let ending = match url.engine() {
        Engine::Sqlite => "db",
        Engine::Postgres => "dump",
    };
    format!("{PREFIX}{compact}.{ending}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use byteleap_daemon::clock::ManualClock;
    use byteleap_protocol::hotkey::Hotkey;

    use super::*;
    use crate::store::lease::LeaseScore;
    use crate::store::testing::{on_both_engines, store, url};

    async fn lease(store: &Store, miner: u8) {
        let worker = "w".parse().unwrap();
        store.set_lease(Hotkey([miner; 32]), &worker, LeaseScore::new(1.0).unwrap(), "market", 1).await.unwrap();
    }

    fn leases(contents: &Contents) -> i64 {
        contents.rows.iter().find(|(table, _)| *table == "leases").unwrap().1
    }

    async fn a_copy_made_while_rows_are_written_is_whole() {
        let (store, folder) = (store().await, tempfile::tempdir().unwrap());
        lease(&store, 0).await;
        let path = folder.path().join("copy");
        let writing = async {
            for miner in 1..40 {
                lease(&store, miner).await;
            }
        };
        let url = url();
        let (made, ()) = tokio::join!(backup(&url, &path), writing);
        made.unwrap();
        let contents = check(&path).await.unwrap();
        assert_eq!(contents.steps, nothing_applied().len());
        assert!((1..=40).contains(&leases(&contents)), "{contents}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(backup(&url, &path).await, Err(BackupError::Exists(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    async fn a_damaged_or_foreign_copy_is_told_by_the_check() {
        let (store, folder) = (store().await, tempfile::tempdir().unwrap());
        for miner in 0..100 {
            lease(&store, miner).await;
        }
        let path = folder.path().join("copy");
        backup(&url(), &path).await.unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() / 2, whole.len() * 3 / 4] {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = check(&path).await.unwrap_err();
            assert!(matches!(&error, BackupError::Broken { .. }), "{cut}: {error}");
        }
        let mut damaged = whole.clone();
        let (from, to) = (whole.len() / 3, whole.len() / 2);
        damaged[from..to].fill(0xaa);
        fs::write(&path, damaged).unwrap();
        assert!(matches!(check(&path).await, Err(BackupError::Broken { .. })));
        fs::write(&path, "no database").unwrap();
        assert!(check(&path).await.unwrap_err().to_string().contains("neither"));
    }

    async fn copies_come_at_their_time_and_the_newest_are_kept() {
        let (_store, folder, clock) =
            (store().await, tempfile::tempdir().unwrap(), ManualClock::new(1_790_000_000_000));
        let hour = Duration::from_secs(3600);
        let schedule = Schedule { folder: folder.path().join("copies"), interval: hour, keep: 2 };
        let mut made = Vec::new();
        for minutes in [0, 30, 31, 60, 60] {
            clock.advance(Duration::from_secs(60 * minutes));
            made.extend(schedule.make_if_due(&url(), &clock).await.unwrap());
        }
        assert_eq!(made.len(), 4);
        let kept: Vec<_> = schedule.copies().unwrap().into_iter().map(|name| schedule.folder.join(name)).collect();
        assert_eq!(kept, made[2..]);
    }

    on_both_engines!(
        a_copy_made_while_rows_are_written_is_whole,
        a_damaged_or_foreign_copy_is_told_by_the_check,
        copies_come_at_their_time_and_the_newest_are_kept,
    );
}
