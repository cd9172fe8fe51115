//! Many rows in one statement, in the text that both engines read: `VALUES ($1, $2), ($3, $4)`.
//!
//! The texts differ with the number of rows, so they are not kept as prepared statements: run them through [`bulk`].

use std::fmt::Write;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe};

/// Most values bound to one statement. SQLite takes 32766 and PostgreSQL 65535, but SQLite goes through the names of all
/// placeholders for each one that it reads and each one that is bound, which grows with the square of their number; the
/// heartbeat of 100 workers with 8 cards each still makes do with 15.
const MAX_VALUES: usize = 400;

/// How many rows of so many values go into one statement.
pub(super) const fn rows_per_statement(values_per_row: usize) -> usize {
    MAX_VALUES / values_per_row
}

/// `($4, $5), ($6, $7)`: so many rows of so many placeholders, counted from `first`. Each row ends with `rest`, for what is
/// the same in all of them: `, $1`.
pub(super) fn rows(count: usize, values_per_row: usize, first: usize, rest: &str) -> String {
    let mut text = String::with_capacity(count * (values_per_row * 6 + rest.len() + 4));
    for row in 0..count {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for value in 0..values_per_row {
            let separator = if value == 0 { "" } else { ", " };
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}${}", first + row * values_per_row + value);
        }
        text.push_str(rest);
        text.push(')');
    }
    text
}

/// `$4, $5, $6`: a list of placeholders, counted from `first`, for `IN (…)`.
pub(super) fn list(count: usize, first: usize) -> String {
    let mut text = rows(1, count, first, "");
    text.pop();
    text.split_off(1)
}

/// A statement that was made from texts of this program and [`rows`] or [`list`].
pub(super) fn bulk(text: String) -> Query<'static, Any, AnyArguments> {
    sqlx::query(AssertSqlSafe(text)).persistent(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_on_from_row_to_row() {
        assert_eq!(rows(2, 2, 3, ", $1"), "($3, $4, $1), ($5, $6, $1)");
        assert_eq!(list(3, 2), "$2, $3, $4");
    }
}
