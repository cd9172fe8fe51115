//! A database of a test's own on the PostgreSQL of this test run.

use std::env;
use std::time::Duration;

use byteleap_validator::store::DatabaseUrl;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

/// How long a test waits for what should happen.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// The database, gone when the test run's server goes.
pub(super) struct Database {
    /// Its address.
    pub(super) url: String,
}

impl Database {
    /// An empty one.
    pub(super) async fn create() -> Self {
        sqlx::any::install_default_drivers();
        let server = env::var("BYTELEAP_TEST_POSTGRES").expect("cargo nextest run sets it");
        let name = format!("suite_{}", uuid::Uuid::new_v4().simple());
        let mut connection = AnyConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        Self { url: server.replacen("/postgres?", &format!("/{name}?"), 1) }
    }

    /// Its address, as the program reads it.
    pub(super) fn checked_url(&self) -> DatabaseUrl {
        self.url.parse().unwrap()
    }

    /// A connection beside those of the programs.
    pub(super) async fn connect(&self) -> AnyConnection {
        AnyConnection::connect(&self.url).await.unwrap()
    }
}

/// Runs statements.
pub(super) async fn run(connection: &mut AnyConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// The rows of a query.
pub(super) async fn rows(connection: &mut AnyConnection, sql: &'static str) -> Vec<AnyRow> {
    sqlx::query(sql).fetch_all(connection).await.unwrap()
}

/// The texts in the only column of a query.
pub(super) async fn texts(connection: &mut AnyConnection, sql: &'static str) -> Vec<String> {
    rows(connection, sql).await.iter().map(|row| row.get(0)).collect()
}

/// Asks again until a query has so many rows.
pub(super) async fn until(connection: &mut AnyConnection, sql: &'static str, count: usize) {
    let wait = async {
        while rows(connection, sql).await.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    assert!(waited.is_ok(), "no {count} rows within {} s: {sql}", DEADLINE.as_secs());
}
