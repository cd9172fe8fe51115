//! Makes the tables: one text per step, its column types expanded for the engine, its digest remembered.
//!
//! A step that has run is never edited: the digest would not match and the program refuses to start.

use std::fmt;

use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Engine, Store, StoreError, commit, retrying};

/// One step of the schema.
struct Step {
    version: i64,
    name: &'static str,
    text: &'static str,
}

/// Every step, oldest first.
const STEPS: &[Step] = &[
    Step { version: 1, name: "challenge_path", text: include_str!("../../migrations/0001_challenge_path.sql") },
    Step { version: 2, name: "refusals", text: include_str!("../../migrations/0002_refusals.sql") },
    Step { version: 3, name: "retention", text: include_str!("../../migrations/0003_retention.sql") },
    Step { version: 4, name: "gpu_challenges", text: include_str!("../../migrations/0004_gpu_challenges.sql") },
    Step { version: 5, name: "verification_queue", text: include_str!("../../migrations/0005_verification_queue.sql") },
    Step { version: 6, name: "round_rosters", text: include_str!("../../migrations/0006_round_rosters.sql") },
    Step { version: 7, name: "lean_heartbeats", text: include_str!("../../migrations/0007_lean_heartbeats.sql") },
    Step { version: 8, name: "units", text: include_str!("../../migrations/0008_units.sql") },
    Step { version: 9, name: "submission_terms", text: include_str!("../../migrations/0009_submission_terms.sql") },
    Step { version: 10, name: "marketplace", text: include_str!("../../migrations/0010_marketplace.sql") },
    Step { version: 11, name: "operator_tests", text: include_str!("../../migrations/0011_operator_tests.sql") },
];

const REGISTER: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version int NOT NULL PRIMARY KEY,
    name txt(64) NOT NULL,
    digest blob NOT NULL,
    applied_at ts NOT NULL
)";

/// One line of `migrate status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepStatus {
    /// Number of the step, from 1.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
    /// When it ran; `None` when it has still to run.
    pub applied_at_ms: Option<i64>,
}

impl StepStatus {
    /// Whether it has still to run.
    pub fn is_pending(&self) -> bool {
        self.applied_at_ms.is_none()
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04} {}", self.version, self.name)
    }
}

/// The steps as they stand in a database that does not exist yet.
pub fn nothing_applied() -> Vec<StepStatus> {
    STEPS.iter().map(|step| StepStatus { version: step.version, name: step.name, applied_at_ms: None }).collect()
}

impl Store {
    /// Runs the steps that have not run yet, all in one transaction, and returns their names. Of several processes that do
    /// so at once, the first does and the others wait for it.
    ///
    /// Refuses a database whose steps differ from this program's: a newer program made it, or a step was edited.
    pub async fn migrate_up(&self, now_ms: i64) -> Result<Vec<&'static str>, StoreError> {
        retrying(|| self.try_migrate_up(now_ms)).await
    }

    async fn try_migrate_up(&self, now_ms: i64) -> Result<Vec<&'static str>, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(wait_alone) = self.engine.wait_alone() {
            sqlx::raw_sql(wait_alone).execute(&mut *transaction).await?;
        }
        sqlx::raw_sql(AssertSqlSafe(expand(REGISTER, self.engine))).execute(&mut *transaction).await?;
        let mut applied = Vec::new();
        for (step, status) in STEPS.iter().zip(self.status_seen_by(&mut transaction).await?) {
            if status.applied_at_ms.is_some() {
                continue;
            }
            let sql = expand(step.text, self.engine);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO schema_migrations (version, name, digest, applied_at) VALUES ($1, $2, $3, $4)")
                .bind(step.version)
                .bind(step.name)
                .bind(Sha256::digest(step.text).to_vec())
                .bind(now_ms)
                .execute(&mut *transaction)
                .await?;
            applied.push(step.name);
        }
        commit(transaction).await?;
        Ok(applied)
    }

    /// What has run and what has not, after making sure that what has run is what this program knows. Changes nothing.
    pub async fn migrate_status(&self) -> Result<Vec<StepStatus>, StoreError> {
        self.status_seen_by(&mut *self.reader.acquire().await?).await
    }

    async fn status_seen_by(&self, connection: &mut AnyConnection) -> Result<Vec<StepStatus>, StoreError> {
        let mut steps = nothing_applied();
        let register = sqlx::query(self.engine.find_table()).bind("schema_migrations");
        if register.fetch_optional(&mut *connection).await?.is_none() {
            return Ok(steps);
        }
        let rows = sqlx::query("SELECT version, digest, applied_at FROM schema_migrations ORDER BY version")
            .fetch_all(connection)
            .await?;
        for row in rows {
            let version: i64 = row.try_get("version")?;
            let digest: Vec<u8> = row.try_get("digest")?;
            let place = STEPS.iter().position(|step| step.version == version).ok_or_else(|| {
                StoreError::Schema(format!(
                    "the database was made by a newer byteleap-validator (schema step {version}): install that version"
                ))
            })?;
            if digest != Sha256::digest(STEPS[place].text).to_vec() {
                return Err(StoreError::Schema(format!(
                    "schema step {version} of the database differs from this program's: it belongs to another build"
                )));
            }
            steps[place].applied_at_ms = Some(row.try_get("applied_at")?);
        }
        Ok(steps)
    }
}

/// Writes a schema text for one engine: in a line `column alias …` the alias becomes the engine's type, with the
/// check that the other engine's type would have brought.
fn expand(text: &str, engine: Engine) -> String {
    text.lines().map(|line| expand_line(line, engine) + "\n").collect()
}

fn expand_line(line: &str, engine: Engine) -> String {
    let body = line.trim_start();
    let mut words = body.splitn(3, ' ');
    let (Some(column), Some(alias)) = (words.next(), words.next()) else {
        return line.to_owned();
    };
    let rest = words.next().unwrap_or_default();
    let end = alias.len() - usize::from(alias.ends_with([',', ';']));
    let (alias, end) = alias.split_at(end);
    let Some(kind) = column_type(column, alias, engine) else {
        return line.to_owned();
    };
    let space = if rest.is_empty() { "" } else { " " };
    format!("    {column} {kind}{end}{space}{rest}")
}

fn column_type(column: &str, alias: &str, engine: Engine) -> Option<String> {
    let (sqlite, postgres) = match alias {
        "id" => ("INTEGER PRIMARY KEY", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
        "ref" | "int" | "ts" => ("INTEGER", "BIGINT"),
        "num" => ("REAL", "DOUBLE PRECISION"),
        "blob" => ("BLOB", "BYTEA"),
        "json" => {
            return Some(match engine {
                Engine::Sqlite => format!("TEXT CHECK (json_valid({column}))"),
                Engine::Postgres => "TEXT".to_owned(),
            });
        }
        "bool" => {
            let integer = if engine == Engine::Sqlite { "INTEGER" } else { "BIGINT" };
            return Some(format!("{integer} CHECK ({column} IN (0, 1))"));
        }
        text => {
            let length: u32 = text.strip_prefix("txt(")?.strip_suffix(')')?.parse().ok()?;
            return Some(format!("TEXT CHECK (length({column}) <= {length})"));
        }
    };
    Some(if engine == Engine::Sqlite { sqlite } else { postgres }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{on_both_engines, store, url};
    use super::*;

    #[test]
    fn aliases_become_each_engines_types() {
        let text = "CREATE TABLE t (\n    id id,\n    a txt(8) NOT NULL,\n    b json,\n    c bool NOT NULL,\n    d ts,\n    UNIQUE (a, b)\n);";
        assert_eq!(
            expand(text, Engine::Sqlite),
            "CREATE TABLE t (\n    id INTEGER PRIMARY KEY,\n    a TEXT CHECK (length(a) <= 8) NOT NULL,\n    \
             b TEXT CHECK (json_valid(b)),\n    c INTEGER CHECK (c IN (0, 1)) NOT NULL,\n    d INTEGER,\n    \
             UNIQUE (a, b)\n);\n"
        );
        assert_eq!(
            expand(text, Engine::Postgres),
            "CREATE TABLE t (\n    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    \
             a TEXT CHECK (length(a) <= 8) NOT NULL,\n    b TEXT,\n    c BIGINT CHECK (c IN (0, 1)) NOT NULL,\n    \
             d BIGINT,\n    UNIQUE (a, b)\n);\n"
        );
    }

    #[test]
    fn no_alias_is_left_in_any_step() {
        for step in STEPS {
            let sql = expand(step.text, Engine::Postgres);
            let columns = sql
                .lines()
                .filter(|line| line.starts_with("    "))
                .filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_lowercase() || first == '"'));
            for column in columns {
                let kind = column.split_whitespace().nth(1).unwrap_or_default();
                assert_eq!(kind, kind.to_uppercase(), "{}: {column}", step.name);
            }
        }
    }

    async fn running_twice_changes_nothing() {
        let store = store().await;
        assert_eq!(store.migrate_up(7).await.unwrap(), Vec::<&str>::new());
        let status = store.migrate_status().await.unwrap();
        assert!(status.iter().all(|step| step.applied_at_ms == Some(0)), "{status:?}");
    }

    async fn a_look_at_the_schema_changes_nothing() {
        assert!(url().file().is_none_or(|file| !file.exists()));
        if let Some(store) = Store::open_existing(&url()).await.unwrap() {
            assert!(store.migrate_status().await.unwrap().iter().all(StepStatus::is_pending));
            assert!(!store.has_table("schema_migrations").await.unwrap());
        }
        assert!(url().file().is_none_or(|file| !file.exists()));
    }

    async fn a_schema_of_a_newer_program_is_refused() {
        let store = store().await;
        sqlx::query("INSERT INTO schema_migrations (version, name, digest, applied_at) VALUES (999, 'x', $1, 0)")
            .bind(vec![0_u8])
            .execute(&store.writer)
            .await
            .unwrap();
        assert!(store.migrate_up(0).await.unwrap_err().to_string().contains("newer"));
    }

    on_both_engines!(
        running_twice_changes_nothing,
        a_look_at_the_schema_changes_nothing,
        a_schema_of_a_newer_program_is_refused,
    );
}
