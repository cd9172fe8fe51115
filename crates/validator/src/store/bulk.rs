//! Many rows in one statement, in the text that both engines read: `VALUES ($1, $2), ($3, $4)`.
//!
//! The texts differ with the number of rows. [`chunks`] cuts what is to be written into a few sizes, so that their
//! statements are prepared once and used again: SQLite goes through the names of all placeholders for each one that it
//! reads, which took a third of its time for a heartbeat.

use std::fmt::Write;
use std::iter;

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe};

/// How many rows a statement has. The largest, of ten values, stays far below what the engines take (32,766 and 65,535).
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// Cuts a list into parts of few different lengths.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let chunk;
        (chunk, rows) = rows.split_at(size);
        Some(chunk)
    })
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

/// A statement that was made from texts of this program and [`rows`] or [`list`] over one of [`chunks`].
pub(super) fn bulk(text: String) -> Query<'static, Any, AnyArguments> {
    sqlx::query(AssertSqlSafe(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_few_sizes_and_nothing_is_lost() {
        let list: Vec<usize> = (0..150).collect();
        let sizes: Vec<usize> = chunks(&list).map(<[usize]>::len).collect();
        assert_eq!(sizes, [64, 64, 16, 4, 1, 1]);
        assert_eq!(chunks(&list).collect::<Vec<_>>().concat(), list);
        assert_eq!(chunks::<usize>(&[]).count(), 0);
    }

    #[test]
    fn placeholders_count_on_from_row_to_row() {
        assert_eq!(rows(2, 2, 3, ", $1"), "($3, $4, $1), ($5, $6, $1)");
        assert_eq!(list(3, 2), "$2, $3, $4");
    }
}
