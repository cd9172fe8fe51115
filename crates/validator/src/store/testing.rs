//! Every test of the store runs twice, on SQLite and on PostgreSQL, each time in a database of its own.
//!
//! A test is a plain function without `#[tokio::test]`; [`on_both_engines`] at the end of its module makes two tests of
//! it, named by the engine. One that is not listed there is an unused function, which the lints refuse.

use std::env;
use std::future::Future;

use sqlx::{AnyConnection, AssertSqlSafe, Connection};

use super::heartbeat::{Specs, Usage, WorkerBeat};
use super::round::{Lost, RoundKey};
use super::{DatabaseUrl, Store};

/// Where the PostgreSQL of this test run is: `postgresql://…/postgres`, with a role that may create databases.
const POSTGRES: &str = "BYTELEAP_TEST_POSTGRES";

tokio::task_local! {
    /// The database of the running test.
    static DATABASE: DatabaseUrl;
}

/// Makes of each function a test on SQLite and one on PostgreSQL.
macro_rules! on_both_engines {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod on_sqlite {
            $($(#[$attribute])* #[tokio::test] async fn $test() { $crate::store::testing::on_sqlite(super::$test()).await; })+
        }
        mod on_postgres {
            $($(#[$attribute])* #[tokio::test] async fn $test() { $crate::store::testing::on_postgres(super::$test()).await; })+
        }
    };
}
pub(crate) use on_both_engines;

/// Runs a test on a SQLite file that is gone afterwards.
pub(crate) async fn on_sqlite(test: impl Future<Output = ()>) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}", folder.path().join("validator.db").display());
    DATABASE.scope(url.parse().unwrap(), test).await;
}

/// Runs a test on a PostgreSQL database that is gone afterwards.
pub(crate) async fn on_postgres(test: impl Future<Output = ()>) {
    let database = PostgresDatabase::create().await;
    DATABASE.scope(database.url(), test).await;
    database.drop().await;
}

/// The database of the running test: empty, without tables.
pub(crate) fn url() -> DatabaseUrl {
    DATABASE.try_with(Clone::clone).expect("a test of the store is listed in on_both_engines!")
}

/// The store of the running test, with all tables. Each call opens it anew, as another process would.
pub(crate) async fn store() -> Store {
    let store = Store::open(&url()).await.unwrap();
    store.migrate_up(0).await.unwrap();
    store
}

/// A database on the test run's server.
pub(crate) struct PostgresDatabase {
    /// The server's address up to the name of a database.
    server: String,
    name: String,
    /// What follows the name.
    query: String,
}

impl PostgresDatabase {
    /// An empty one.
    pub(crate) async fn create() -> Self {
        let maintenance = env::var(POSTGRES)
            .unwrap_or_else(|_| panic!("{POSTGRES} is not set: scripts/setup test, then cargo nextest run, sets it"));
        let (place, query) = maintenance.split_once('?').unwrap_or((&maintenance, ""));
        let server = place.strip_suffix("postgres").expect("the address of a database named postgres").to_owned();
        let database =
            Self { server, name: format!("test_{}", uuid::Uuid::new_v4().simple()), query: query.to_owned() };
        database.administer(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    /// Where it is.
    pub(crate) fn url(&self) -> DatabaseUrl {
        self.url_of(&self.name).parse().unwrap()
    }

    async fn drop(self) {
        let name = &self.name;
        let disconnect = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        self.administer(&disconnect).await;
        self.administer(&format!("DROP DATABASE {name}")).await;
    }

    async fn administer(&self, sql: &str) {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.url_of("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    fn url_of(&self, database: &str) -> String {
        format!("{}{database}?{}", self.server, self.query)
    }
}

impl Store {
    /// Leaves of a round what an older version of the program, or time, leaves of it.
    pub(crate) async fn lose_workers(&self, round: RoundKey, why: Lost) {
        sqlx::query("DELETE FROM round_rosters WHERE round = $1").bind(round.0).execute(&self.writer).await.unwrap();
        if why == Lost::OlderVersion {
            let older = sqlx::query("UPDATE scoring_rounds SET span = NULL, ranked = NULL WHERE id = $1");
            older.bind(round.0).execute(&self.writer).await.unwrap();
        }
    }
}

/// A heartbeat's entry for a bare worker.
pub(crate) fn beat(worker_id: &str) -> WorkerBeat {
    WorkerBeat {
        worker_id: worker_id.parse().unwrap(),
        name: None,
        version: None,
        capabilities: Vec::new(),
        reported_status: None,
        specs: Specs { hash: vec![1], raw: "{}".to_owned(), ..Specs::default() },
        usage: Usage::default(),
        gpu_set: Vec::new(),
        gpus: Vec::new(),
    }
}
