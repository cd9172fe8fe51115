//! What systemd hears from a daemon (`Type=notify`): that it is ready, still alive, and stopping.
//!
//! The protocol is one datagram of `KEY=value` to the socket that `$NOTIFY_SOCKET` names (sd_notify(3)); without that
//! variable nobody listens and nothing is sent. The admin endpoint announces readiness and life, [`crate::tasks`] the stop.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use crate::admin::Readiness;

/// One thing to tell the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    /// The daemon has started: its parts run, though one may still wait for a peer.
    Ready,
    /// The daemon is alive.
    Watchdog,
    /// The daemon is draining.
    Stopping,
    /// In words, for `systemctl status`.
    Says(&'a str),
}

/// Tells the service manager, if there is one. A manager that cannot be reached is logged and otherwise passed over.
pub(crate) fn notify(state: State<'_>) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::warn!(%error, ?state, "the service manager could not be told");
    }
}

/// Says once that the daemon has started, then what it waits for whenever that changes, and from the start, where a
/// watchdog is set, that it is alive: for ever.
///
/// A gate that is closed does not hold up the start: a peer that is away for an hour is no reason to kill the process.
pub(crate) async fn announce(readiness: Readiness) {
    let alive = async {
        match watchdog_interval() {
            Some(interval) => loop {
                notify(State::Watchdog);
                tokio::time::sleep(interval).await;
            },
            None => std::future::pending().await,
        }
    };
    let words = async {
        notify(State::Ready);
        let mut closed = readiness.subscribe();
        loop {
            let words = in_words(&closed.borrow_and_update());
            notify(State::Says(&words));
            // The sender lives as long as `readiness`, so that this ends only with a change.
            let _ = closed.changed().await;
        }
    };
    tokio::select! {
        () = alive => {}
        () = words => {}
    }
}

/// The closed gates on one line.
fn in_words(closed: &BTreeMap<&'static str, String>) -> String {
    if closed.is_empty() {
        return "ready".to_owned();
    }
    let waits: Vec<String> = closed.iter().map(|(gate, reason)| format!("{gate}: {reason}")).collect();
    format!("waiting for {}", waits.join("; ").replace('\n', " "))
}

/// Half of what `$WATCHDOG_USEC` allows; `None` where no watchdog is set.
fn watchdog_interval() -> Option<Duration> {
    interval_of(&std::env::var("WATCHDOG_USEC").ok()?)
}

fn interval_of(microseconds: &str) -> Option<Duration> {
    microseconds.parse().ok().filter(|limit| *limit > 1).map(|limit: u64| Duration::from_micros(limit / 2))
}

fn send(socket: &OsStr, state: State<'_>) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let message = match state {
        State::Ready => "READY=1".to_owned(),
        State::Watchdog => "WATCHDOG=1".to_owned(),
        State::Stopping => "STOPPING=1".to_owned(),
        State::Says(words) => format!("STATUS={words}"),
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_one_datagram() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        for (state, expected) in [
            (State::Ready, "READY=1"),
            (State::Watchdog, "WATCHDOG=1"),
            (State::Stopping, "STOPPING=1"),
            (State::Says("ready"), "STATUS=ready"),
        ] {
            send(path.as_os_str(), state).unwrap();
            let mut datagram = [0; 64];
            let length = manager.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..length], expected.as_bytes());
        }
    }

    #[test]
    fn what_the_daemon_waits_for_is_said_on_one_line() {
        assert_eq!(in_words(&BTreeMap::new()), "ready");
        let closed = BTreeMap::from([("database", "does not\nanswer".to_owned()), ("miner", "away".to_owned())]);
        assert_eq!(in_words(&closed), "waiting for database: does not answer; miner: away");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_not_a_wait() {
        let folder = tempfile::tempdir().unwrap();
        assert!(send(folder.path().join("nobody").as_os_str(), State::Ready).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks() {
        assert_eq!(interval_of("30000000"), Some(Duration::from_secs(15)));
        assert_eq!(interval_of("0"), None);
        assert_eq!(interval_of("soon"), None);
    }
}
