//! What a copy of a SQLite database needs of the store; a server has programs of its own (see [`crate::backup`]).

use std::path::Path;

use sqlx::{AssertSqlSafe, Row};

use super::url::Access;
use super::{DatabaseUrl, Store, StoreError};

/// Complaints that are read of a damaged file.
const MAX_COMPLAINTS: &str = "PRAGMA integrity_check(20)";

impl Store {
    /// Opens a copy to read it, and nothing else.
    pub(crate) async fn open_copy(path: &Path) -> Result<Self, StoreError> {
        Self::connect(&DatabaseUrl::of_file(path), Access::ReadOnly).await
    }

    /// Writes a consistent copy into an empty file, while others write on.
    pub(crate) async fn copy_into(&self, file: &Path) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO $1").bind(file.to_string_lossy().into_owned()).execute(&self.reader).await?;
        Ok(())
    }

    /// What is wrong with the file, by its own account; nothing if it is whole.
    pub(crate) async fn integrity_complaints(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query(MAX_COMPLAINTS).fetch_all(&self.reader).await?;
        let complaints: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        Ok(complaints?.into_iter().filter(|complaint| complaint != "ok").collect())
    }

    /// Rows of a table; its name is one of ours.
    pub(crate) async fn count_rows(&self, table: &'static str) -> Result<i64, StoreError> {
        let statement = AssertSqlSafe(format!("SELECT COUNT(*) AS found FROM {table}"));
        Ok(sqlx::query(statement).fetch_one(&self.reader).await?.try_get("found")?)
    }
}
