//! What the HTTP API shows, a page at a time: typed rows, each with the place where the next page begins.
//!
//! Every statement here reads a bounded number of rows, goes on from a place ("keyset") instead of counting from the
//! start, and runs on the reading connections, so no question of an operator holds up a heartbeat.

pub mod challenges;
pub mod leases;
pub mod network;
pub mod rounds;

use serde::Serialize;
use utoipa::ToSchema;

/// Rows that a page holds unless another number is asked for.
pub const PAGE_ROWS: u32 = 50;
/// Most rows of a page.
pub const MAX_PAGE_ROWS: u32 = 500;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to ask for as `after` to get the next page; null on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page out of up to `limit + 1` rows: the one too many says that more follow, and `place` where.
    fn of(mut rows: Vec<T>, limit: u32, place: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(place);
        Self { items: rows, next }
    }
}

/// How a filter that may be absent enters a statement: -1, 0 or 1.
fn tristate(filter: Option<bool>) -> i64 {
    filter.map_or(-1, i64::from)
}

/// One more row than the page holds, see [`Page::of`].
fn one_more(limit: u32) -> i64 {
    i64::from(limit) + 1
}
