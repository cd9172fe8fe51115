//! How the commands that show a running daemon print it: a page for people, JSON for programs, once or again and again.

mod screen;

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    time::Duration,
};

use clap::Args;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use self::screen::Screen;
use crate::{admin, cli::Failure};

/// What a terminal sends on Ctrl-Z.
const SUSPEND: SignalKind = SignalKind::from_raw(Signal::SIGTSTP as i32);

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
/// Watched on a terminal, pages replace one another until the command is interrupted, which leaves the terminal as it was;
/// JSON, and what goes into a pipe, is printed one after the other.
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
    let on_terminal = !arguments.json && io::stdout().is_terminal();
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut resized, mut suspended) = (signal(SignalKind::window_change())?, signal(SUSPEND)?);
    let mut screen = on_terminal.then(Screen::enter).transpose()?;
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut text = String::new();
    loop {
        let asked = async {
            ticks.tick().await;
            once().await.unwrap_or_else(|failure: Failure| format!("{failure}\n"))
        };
        tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            Some(()) = suspended.recv() => {
                // The shell gets its terminal back for as long as it has put us to sleep.
                drop(screen.take());
                nix::sys::signal::raise(Signal::SIGSTOP).map_err(io::Error::from)?;
                screen = on_terminal.then(Screen::enter).transpose()?;
            }
            Some(()) = resized.recv() => {}
            answer = asked => {
                text = answer;
                if screen.is_none() {
                    let mut out = io::stdout().lock();
                    out.write_all(text.as_bytes())?;
                    out.flush()?;
                }
            }
        }
        if let Some(screen) = &mut screen {
            screen.show(&text)?;
        }
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
