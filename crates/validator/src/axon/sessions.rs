//! Who has a session: the table of sealed sessions, each bound to the hotkey that opened it (miner-validator spec 3.5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use byteleap_protocol::code::ErrorCode;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::SessionId;
use byteleap_protocol::payload::ErrorAnswer;
use byteleap_protocol::session::{
    HandshakeError, SESSION_LIFE_SECONDS, Session, SessionInitRequest, SessionInitResponse, accept,
};
use rand_core::CryptoRngCore;

use super::limit::SlidingWindow;

/// How long a session lives, whatever its use.
const SESSION_LIFE: Duration = Duration::from_secs(SESSION_LIFE_SECONDS);

/// Sessions of one hotkey; the one that was longest without a good package makes room.
const MAX_SESSIONS_PER_HOTKEY: usize = 3;

/// Handshakes of one hotkey within [`HANDSHAKE_WINDOW`], malformed ones included.
const MAX_HANDSHAKES: usize = 5;

const HANDSHAKE_WINDOW: Duration = Duration::from_secs(60);

/// Sessions in all: far more than a full subnet has.
const MAX_SESSIONS: usize = 8192;

/// Why a handshake was refused; the text goes to the caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenRefusal {
    #[error("Too many handshakes: at most {MAX_HANDSHAKES} in {} s", HANDSHAKE_WINDOW.as_secs())]
    TooOften,
    #[error("Session limit of the validator exceeded")]
    Full,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl OpenRefusal {
    pub(super) fn answer(&self) -> ErrorAnswer {
        let code = match self {
            Self::Full => ErrorCode::SessionLimitExceeded,
            Self::TooOften | Self::Handshake(_) => ErrorCode::HandshakeFailed,
        };
        ErrorAnswer::new(code, self.to_string())
    }
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    opened_at: Duration,
    /// When a package was last opened; at first, when the session was.
    used_at: Duration,
    /// Breaks ties of `used_at`.
    turn: u64,
}

/// The live sessions. Times are those of a monotonic clock.
#[derive(Debug)]
pub(super) struct SessionTable {
    sessions: HashMap<SessionId, Entry>,
    handshakes: SlidingWindow<Hotkey>,
    turns: u64,
}

impl SessionTable {
    pub(super) fn new() -> Self {
        Self { sessions: HashMap::new(), handshakes: SlidingWindow::new(HANDSHAKE_WINDOW), turns: 0 }
    }

    /// Answers a handshake. The rate is checked first, so that a refused handshake costs nobody a session.
    pub(super) fn open(
        &mut self,
        rng: &mut impl CryptoRngCore,
        request: Result<SessionInitRequest, HandshakeError>,
        caller: Hotkey,
        own: Hotkey,
        now: Duration,
        unix_s: f64,
    ) -> Result<SessionInitResponse, OpenRefusal> {
        if self.handshakes.count(&caller, now) >= MAX_HANDSHAKES {
            return Err(OpenRefusal::TooOften);
        }
        self.handshakes.record(caller, now);
        let expires_at = unix_s + SESSION_LIFE.as_secs_f64();
        let id = SessionId::random(rng);
        let (response, session) = accept(rng, &request?, caller, own, id, expires_at)?;
        self.make_room(caller, now)?;
        let turn = self.next_turn();
        let entry = Entry { session: Arc::new(session), opened_at: now, used_at: now, turn };
        self.sessions.insert(response.session_id.clone(), entry);
        Ok(response)
    }

    fn make_room(&mut self, caller: Hotkey, now: Duration) -> Result<(), OpenRefusal> {
        self.drop_expired(now);
        let own = self.sessions.iter().filter(|(_, entry)| entry.session.peer() == caller);
        if own.clone().count() >= MAX_SESSIONS_PER_HOTKEY {
            let oldest = own.min_by_key(|(_, entry)| (entry.used_at, entry.turn)).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.sessions.remove(&id));
        }
        if self.sessions.len() >= MAX_SESSIONS { Err(OpenRefusal::Full) } else { Ok(()) }
    }

    fn drop_expired(&mut self, now: Duration) {
        self.sessions.retain(|_, entry| now.saturating_sub(entry.opened_at) < SESSION_LIFE);
    }

    /// The live session of this name, if the caller is the one who opened it.
    pub(super) fn find(&self, id: &SessionId, caller: Hotkey, now: Duration) -> Option<Arc<Session>> {
        let entry = self.sessions.get(id)?;
        let is_live = now.saturating_sub(entry.opened_at) < SESSION_LIFE && entry.session.peer() == caller;
        is_live.then(|| Arc::clone(&entry.session))
    }

    /// A package of this session was opened.
    pub(super) fn touch(&mut self, id: &SessionId, now: Duration) {
        let turn = self.next_turn();
        if let Some(entry) = self.sessions.get_mut(id) {
            (entry.used_at, entry.turn) = (now, turn);
        }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Forgets what is over; to be called now and then.
    pub(super) fn prune(&mut self, now: Duration) {
        self.drop_expired(now);
        self.handshakes.prune(now);
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::session::ClientHandshake;
    use rand_core::OsRng;

    use super::*;

    const MINER: Hotkey = Hotkey([1; 32]);
    const OTHER: Hotkey = Hotkey([2; 32]);
    const OWN: Hotkey = Hotkey([3; 32]);

    fn open(table: &mut SessionTable, caller: Hotkey, second: u64) -> Result<SessionId, OpenRefusal> {
        let request = ClientHandshake::new(&mut OsRng, 0.0).request().clone();
        let now = Duration::from_secs(second);
        table.open(&mut OsRng, Ok(request), caller, OWN, now, 0.0).map(|response| response.session_id)
    }

    fn lives(table: &SessionTable, id: &SessionId, second: u64) -> bool {
        table.find(id, MINER, Duration::from_secs(second)).is_some()
    }

    #[test]
    fn a_session_serves_only_the_hotkey_that_opened_it() {
        let mut table = SessionTable::new();
        let id = open(&mut table, MINER, 0).unwrap();
        assert!(table.find(&id, MINER, Duration::ZERO).is_some());
        assert!(table.find(&id, OTHER, Duration::ZERO).is_none());
    }

    #[test]
    fn the_fourth_session_takes_the_place_of_the_longest_unused() {
        let mut table = SessionTable::new();
        let ids: Vec<_> = (0..3).map(|_| open(&mut table, MINER, 0).unwrap()).collect();
        table.touch(&ids[0], Duration::ZERO);
        let fourth = open(&mut table, MINER, 0).unwrap();
        assert!(lives(&table, &ids[0], 0) && lives(&table, &ids[2], 0) && lives(&table, &fourth, 0));
        assert!(!lives(&table, &ids[1], 0));
    }

    #[test]
    fn the_sixth_handshake_of_a_minute_is_refused_and_costs_no_session() {
        let mut table = SessionTable::new();
        let malformed = Err(HandshakeError::Malformed("x"));
        let refused = table.open(&mut OsRng, malformed, MINER, OWN, Duration::ZERO, 0.0);
        assert!(matches!(refused, Err(OpenRefusal::Handshake(_))));
        let ids: Vec<_> = (0..4).map(|_| open(&mut table, MINER, 0).unwrap()).collect();
        let refusal = open(&mut table, MINER, 59).unwrap_err();
        assert_eq!(refusal.answer().error_code, Some(4018));
        assert!(ids[1..].iter().all(|id| lives(&table, id, 59)));
        assert!(open(&mut table, OTHER, 59).is_ok());
        assert!(open(&mut table, MINER, 61).is_ok());
    }

    #[test]
    fn a_session_ends_after_six_hours_however_busy() {
        let mut table = SessionTable::new();
        let id = open(&mut table, MINER, 0).unwrap();
        table.touch(&id, Duration::from_secs(21_500));
        assert!(lives(&table, &id, 21_599));
        assert!(!lives(&table, &id, 21_600));
        table.prune(Duration::from_secs(21_600));
        assert!(table.sessions.is_empty());
    }
}
