//! What systemd hears from a daemon (`Type=notify`): that it is ready, still alive, and stopping.
//!
//! The protocol is one datagram of `KEY=value` to the socket that `$NOTIFY_SOCKET` names (sd_notify(3)); without that
//! variable nobody listens and nothing is sent. The admin endpoint announces readiness and life, [`crate::tasks`] the stop.

use std::{
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
pub(crate) enum State {
    /// The daemon has started and does its work.
    Ready,
    /// The daemon is alive.
    Watchdog,
    /// The daemon is draining.
    Stopping,
}

/// Tells the service manager, if there is one. A manager that cannot be reached is logged and otherwise passed over.
pub(crate) fn notify(state: State) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::warn!(%error, ?state, "the service manager could not be told");
    }
}

/// Says once that the daemon is ready, and from the start, where a watchdog is set, that it is alive: for ever.
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
    let ready = async {
        readiness.ready().await;
        notify(State::Ready);
        std::future::pending().await
    };
    tokio::select! {
        () = alive => {}
        () = ready => {}
    }
}

/// Half of what `$WATCHDOG_USEC` allows; `None` where no watchdog is set.
fn watchdog_interval() -> Option<Duration> {
    interval_of(&std::env::var("WATCHDOG_USEC").ok()?)
}

fn interval_of(microseconds: &str) -> Option<Duration> {
    microseconds.parse().ok().filter(|limit| *limit > 1).map(|limit: u64| Duration::from_micros(limit / 2))
}

fn send(socket: &OsStr, state: State) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let message: &[u8] = match state {
        State::Ready => b"READY=1",
        State::Watchdog => b"WATCHDOG=1",
        State::Stopping => b"STOPPING=1",
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message, &address)?;
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
        for (state, expected) in
            [(State::Ready, "READY=1"), (State::Watchdog, "WATCHDOG=1"), (State::Stopping, "STOPPING=1")]
        {
            send(path.as_os_str(), state).unwrap();
            let mut datagram = [0; 64];
            let length = manager.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..length], expected.as_bytes());
        }
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
