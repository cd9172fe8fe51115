//! What operators see of the marketplace: in `/status`, in the metrics and by an alarm.

use std::sync::Arc;

use byteleap_protocol::hotkey::Hotkey;
use parking_lot::Mutex;
use serde::Serialize;

/// Where the connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No marketplace is configured.
    Off,
    /// There is none now.
    Disconnected,
    /// It is being opened.
    Handshaking,
    /// Messages pass.
    Ready,
}

/// What is known of the connection at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HubStatus {
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since_ms: i64,
    /// Why there is none; the last reason.
    pub reason: Option<String>,
    /// Who the marketplace is.
    pub server: Option<Hotkey>,
    /// When it last sent anything that was taken.
    pub last_frame_at_ms: Option<i64>,
    /// Messages of it that were refused since the start.
    pub refused: u64,
    /// Rounds of which it has not read the report yet.
    pub rounds_waiting: i64,
    /// Tasks received since the start.
    pub tasks: u64,
}

/// The status, shared by whoever shows it.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<HubStatus>>);

impl Board {
    /// A board that shows `state` since `now_ms`.
    pub fn new(state: State, now_ms: i64) -> Self {
        Self(Arc::new(Mutex::new(HubStatus {
            state,
            since_ms: now_ms,
            reason: None,
            server: None,
            last_frame_at_ms: None,
            refused: 0,
            rounds_waiting: 0,
            tasks: 0,
        })))
    }

    /// What is known now.
    pub fn get(&self) -> HubStatus {
        self.0.lock().clone()
    }

    /// How long messages have not passed, ms; none when no marketplace is configured.
    pub fn silent_ms(&self, now_ms: i64) -> Option<i64> {
        let status = self.0.lock();
        match status.state {
            State::Off => None,
            State::Ready => Some(0),
            State::Disconnected | State::Handshaking => Some(now_ms - status.since_ms),
        }
    }

    /// The connection moves on. An attempt that fails again does not make the outage younger.
    pub(super) fn moved(&self, state: State, reason: Option<String>, now_ms: i64) {
        let mut status = self.0.lock();
        if (status.state == State::Ready) != (state == State::Ready) {
            status.since_ms = now_ms;
        }
        metrics::gauge!("marketplace_connected").set(f64::from(u8::from(state == State::Ready)));
        status.state = state;
        if reason.is_some() {
            status.reason = reason;
        }
    }

    /// Changes whatever else is shown.
    pub(super) fn note(&self, change: impl FnOnce(&mut HubStatus)) {
        change(&mut self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_as_old_as_its_first_moment() {
        let board = Board::new(State::Disconnected, 100);
        board.moved(State::Handshaking, None, 150);
        board.moved(State::Disconnected, Some("refused".to_owned()), 160);
        assert_eq!(board.silent_ms(200), Some(100));
        board.moved(State::Ready, None, 210);
        assert_eq!(board.silent_ms(500), Some(0));
        board.moved(State::Disconnected, Some("closed".to_owned()), 300);
        assert_eq!((board.silent_ms(310), board.get().reason.as_deref()), (Some(10), Some("closed")));
        assert_eq!(Board::new(State::Off, 0).silent_ms(9), None);
    }
}
