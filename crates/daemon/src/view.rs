//! How the commands that show a running daemon print it: a page for people, JSON for programs, once or again and again.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use clap::Args;
use serde_json::Value;

use crate::{admin, cli::Failure};

/// Moves to the upper left corner and clears the screen (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Flags of every command that shows something.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ViewArgs {
    /// Print the daemon's JSON.
    #[arg(long)]
    pub json: bool,
    /// Show it again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

/// Asks the daemon at `address` for its status and prints it: as `json` picks it, or as `page` renders it.
///
/// # Errors
/// No daemon there, a status that is none of this version's, or standard output is closed. While it is watched, a daemon
/// that does not answer is shown as such and asked again.
pub async fn show(
    address: SocketAddr,
    arguments: ViewArgs,
    json: impl Fn(Value) -> Value,
    page: impl Fn(Value) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let once = async || {
        let status = admin::get(address, "/status").await?;
        if arguments.json { Ok(format!("{:#}\n", json(status))) } else { page(status) }
    };
    let Some(seconds) = arguments.watch else {
        return Ok(io::stdout().write_all(once().await?.as_bytes())?);
    };
    loop {
        let text = once().await.unwrap_or_else(|failure: Failure| format!("{failure}\n"));
        let clear = if arguments.json { "" } else { CLEAR };
        let mut out = io::stdout().lock();
        out.write_all(format!("{clear}{text}").as_bytes())?;
        out.flush()?;
        drop(out);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Columns wide enough for their content; control characters of a peer are not printed.
#[must_use]
pub fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<[String; N]> =
        rows.into_iter().map(|row| row.map(|cell| cell.replace(char::is_control, "?"))).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&heads.map(str::to_owned)).chain(&rows) {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_content_and_prints_no_control_characters() {
        let rows = vec![["w1".to_owned(), "a\u{1b}[2J".to_owned()], ["worker-2".to_owned(), String::new()]];
        assert_eq!(table(["WORKER", "NAME"], rows), "WORKER    NAME\nw1        a?[2J\nworker-2\n");
    }
}
