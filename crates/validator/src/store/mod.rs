//! The validator's memory: every fact that must outlive the process, in SQLite or PostgreSQL.
//!
//! One SQL text serves both engines. It goes through sqlx's `Any` driver, so only 64-bit integers, doubles, text and
//! blobs cross it; booleans are 0 and 1, JSON is text, times are unix milliseconds in UTC (fields end in `_at_ms`), and
//! a double that may be absent goes in as `double_or_null`. The statements that know the engine are methods of
//! [`Engine`]. None uses what came after PostgreSQL 12, which the tests of `dialect` hold.
//!
//! The files follow a challenge: [`heartbeat`] (who is there), [`gpu`] (with which cards), [`presence`] (since when),
//! [`lease`] (rented or not), [`challenge`] (asked, answered), [`queue`] (judged), [`refusal`] (what was not taken),
//! [`snapshot`] (all of it at one instant), [`round`] (scored), [`submission`] (paid). [`resource`] and [`hub`] are what
//! the marketplace is told and has told. [`health`] counts for alarms and metrics, [`pages`] lists for the HTTP API.
//! [`migrate`] makes the tables they use, [`retention`] keeps them from
//! growing for ever; [`reference`] reads the database of the Python validator, and [`import`] takes it over;
//! [`crowd`] is a full subnet for benches.
//!
//! SQLite has one writing connection and a few reading ones over a write-ahead log; with PostgreSQL both are one pool.
//! A transaction that returned `Ok` from its commit is on disk (`synchronous = FULL`), so callers acknowledge after it.

mod bulk;
pub mod challenge;
mod copy;
mod crowd;
#[cfg(test)]
mod dialect;
pub mod gpu;
pub mod health;
pub mod heartbeat;
pub mod hub;
pub mod import;
pub mod lease;
pub mod migrate;
pub mod pages;
pub mod presence;
pub mod queue;
pub mod reference;
pub mod refusal;
pub mod resource;
pub mod retention;
pub mod round;
pub mod snapshot;
pub mod standing;
pub mod submission;
#[cfg(test)]
pub(crate) mod testing;
mod url;

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyPool, Row, Transaction};

use self::gpu::Ownership;
use self::url::Access;
pub use self::url::{DatabaseUrl, Engine, Place, UrlError};

/// The row number of a worker in `workers`: what other tables refer to. Never leaves this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey(pub i64);

/// The row number of a challenge in `challenges`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChallengeKey(pub i64);

/// Connections that only read. SQLite readers never wait for the writer.
const READERS: u32 = 4;
/// Connections that write, where the engine serves several.
const POSTGRES_WRITERS: u32 = 8;
/// How often a transaction is tried that fails for a reason that passes.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt; it doubles from one to the next, so all of them take half a second.
const RETRY_PAUSE: Duration = Duration::from_millis(15);
/// How long a request waits for a free connection before it fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the store could not answer. The text is for the operator's log and never for a peer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine refused or could not be reached.
    #[error("database: {0}")]
    Engine(#[from] sqlx::Error),
    /// The connection broke while a transaction was ending.
    #[error("database: it is not known whether the transaction was written: {0}")]
    Unknown(#[source] sqlx::Error),
    /// A row holds what this program never writes.
    #[error("database: table {table} holds an unreadable {what}: {value:?}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column or the meaning of the value.
        what: &'static str,
        /// What was found.
        value: String,
    },
    /// The tables are not those of this program.
    #[error("{0}")]
    Schema(String),
}

impl StoreError {
    /// Whether the same transaction may pass when it is run again, since nothing of it was written: it got in the way of
    /// others (deadlock 40P01, serialization failure 40001, a referenced row that was just forgotten 23503, a lock that was
    /// not free 55P03, SQLite's busy 5 and locked 6), or the server went away or refused (classes 08 and 57P, 53300).
    fn is_transient(&self) -> bool {
        match self {
            Self::Engine(sqlx::Error::Io(_)) => true,
            Self::Engine(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default();
                // The low byte of an extended SQLite code is the plain one.
                let sqlite = code.parse::<u32>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff);
                matches!(&*code, "40P01" | "40001" | "23503" | "55P03" | "53300")
                    || code.starts_with("08")
                    || code.starts_with("57P")
                    || matches!(sqlite, Some(5 | 6))
            }
            _ => false,
        }
    }
}

/// Runs a whole transaction or read, again while it fails for a reason that passes.
async fn retrying<T, F>(transaction: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    for attempt in 1..ATTEMPTS {
        match transaction().await {
            Err(error) if error.is_transient() => {
                metrics::counter!("database_retries_total").increment(1);
                tracing::debug!(%error, attempt, "transaction runs again");
                tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempt - 1)).await;
            }
            done => return done,
        }
    }
    transaction().await
}

/// Ends a transaction. Where the connection breaks before the answer, what was written may stand: that is told, and not
/// tried again.
async fn commit(transaction: Transaction<'static, Any>) -> Result<(), StoreError> {
    match transaction.commit().await {
        Err(error @ sqlx::Error::Io(_)) => Err(StoreError::Unknown(error)),
        done => Ok(done?),
    }
}

/// The handle to the database; cheap to clone, one per process.
#[derive(Debug, Clone)]
pub struct Store {
    engine: Engine,
    writer: AnyPool,
    reader: AnyPool,
    gpu_ownership: Ownership,
}

impl Store {
    /// Connects, creating a SQLite file that does not exist yet; the tables come from [`Store::migrate_up`].
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Self::connect(url, Access::Create).await
    }

    /// Connects to what is there; none when the SQLite file does not exist.
    pub async fn open_existing(url: &DatabaseUrl) -> Result<Option<Self>, StoreError> {
        Self::open_existing_with(url, Access::Existing).await
    }

    async fn open_existing_with(url: &DatabaseUrl, access: Access) -> Result<Option<Self>, StoreError> {
        if url.file().is_some_and(|file| !file.exists()) {
            return Ok(None);
        }
        Self::connect(url, access).await.map(Some)
    }

    async fn connect(url: &DatabaseUrl, access: Access) -> Result<Self, StoreError> {
        let (engine, url) = (url.engine(), &url.with(access));
        sqlx::any::install_default_drivers();
        let pool = |connections: u32| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        sqlx::raw_sql(engine.connection_setup(access)).execute(connection).await?;
                        Ok(())
                    })
                },
            )
        };
        let (writer, reader) = match engine {
            // The writer comes first: it creates the file.
            Engine::Sqlite => (pool(1).connect(url).await?, pool(READERS).connect(url).await?),
            Engine::Postgres => {
                let both = pool(READERS + POSTGRES_WRITERS).connect(url).await?;
                (both.clone(), both)
            }
        };
        Ok(Self { engine, writer, reader, gpu_ownership: Ownership::default() })
    }

    /// With this rule for cards that several workers report.
    #[must_use]
    pub fn with_gpu_ownership(self, gpu_ownership: Ownership) -> Self {
        Self { gpu_ownership, ..self }
    }

    /// Asks the engine for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        Ok(())
    }

    /// Whether there is a table of this name.
    async fn has_table(&self, name: &str) -> Result<bool, StoreError> {
        let found = sqlx::query(self.engine.find_table()).bind(name).fetch_optional(&self.reader).await?;
        Ok(found.is_some())
    }

    /// Closes every connection after what is in flight.
    pub async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
    }

    /// A transaction that may write. On SQLite it holds the only writer, so keep it short.
    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.writer.begin_with(self.engine.begin()).await?)
    }
}

/// A double that may be absent, as text for `CAST($n AS DOUBLE PRECISION)`. Bound as it is, the driver announces an
/// absent one as a 4-byte number, and PostgreSQL then refuses the 8 bytes of the next one in the same statement.
fn double_or_null(number: Option<f64>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// A checked value out of a text column.
fn parsed<T: FromStr>(table: &'static str, row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { table, what: column, value: text })
}

/// A list of texts out of a JSON column.
fn texts_of(table: &'static str, what: &'static str, text: String) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { table, what, value: text })
}

/// A list of texts as a JSON column holds it.
fn json_of(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn lost() -> StoreError {
        StoreError::Engine(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_not_for_ever() {
        for (failures, outcome) in [(0, true), (ATTEMPTS - 1, true), (ATTEMPTS, false)] {
            let tries = Cell::new(0);
            let done = retrying(|| async {
                tries.set(tries.get() + 1);
                if tries.get() > failures { Ok(()) } else { Err(lost()) }
            });
            assert_eq!(done.await.is_ok(), outcome);
            assert_eq!(tries.get(), (failures + 1).min(ATTEMPTS));
        }
    }

    #[tokio::test]
    async fn what_stays_wrong_or_may_be_written_is_not_tried_again() {
        for error in [|| StoreError::Unknown(sqlx::Error::WorkerCrashed), || StoreError::Schema(String::new())] {
            let tries = Cell::new(0);
            let done = retrying(|| async {
                tries.set(tries.get() + 1);
                Err::<(), _>(error())
            });
            assert!(done.await.is_err());
            assert_eq!(tries.get(), 1);
        }
    }
}
