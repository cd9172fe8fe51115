//! Who may register: what a worker proves, held against the book of enrolled keys and the miner's policy.
//!
//! A registration is judged once, when it comes in ([`Door::admit`]), and again whenever the book changes
//! ([`Door::watch`]): a worker whose key was revoked, or whose name now belongs to a key that it did not prove, is closed
//! within a second. The book is read anew before each judgement if its file has changed, so that what `workers enroll`
//! and `workers revoke` wrote holds at once.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use byteleap_daemon::{clock::Clock, file::Version, tasks::chain};
use byteleap_protocol::{
    code::CloseCode,
    frame::Register,
    id::WorkerId,
    worker_key::{Channel, WorkerKey},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    enrolment::{Book, BookError, BookFile, BookFileError},
    registry::Registry,
};

/// Pause between looks at the book's file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Wrong join secrets that one address may send within [`JOIN_WINDOW`].
const MAX_WRONG_JOINS: u32 = 5;

/// The window of [`MAX_WRONG_JOINS`].
const JOIN_WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose wrong join secrets are counted; with more, all of them wait.
const MAX_JOIN_ADDRESSES: usize = 1024;

/// Which workers the miner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Anyone; but the `worker_id` of an enrolled key only with that key.
    Open,
    /// Only workers that prove an enrolled key.
    Enrolled,
    /// Only workers that prove an enrolled key, and only over `wss://`.
    Required,
}

impl FromStr for Policy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "open" => Ok(Self::Open),
            "enrolled" => Ok(Self::Enrolled),
            "required" => Ok(Self::Required),
            _ => Err("open, enrolled or required"),
        }
    }
}

/// What a connected worker has proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// That it holds this key, which is enrolled for it.
    Enrolled(WorkerKey),
    /// That it holds this key, which is not enrolled.
    Unenrolled(WorkerKey),
    /// Nothing: it may be anybody.
    Unproved,
}

impl Standing {
    /// The key that the worker holds.
    #[must_use]
    pub fn key(self) -> Option<WorkerKey> {
        match self {
            Self::Enrolled(key) | Self::Unenrolled(key) => Some(key),
            Self::Unproved => None,
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: SocketAddr,
    /// What ties a proof to it.
    pub(super) channel: Channel,
}

impl Peer {
    /// Whether nobody between can read or change what is said.
    pub(super) fn is_tls(&self) -> bool {
        self.channel.exported.is_some()
    }
}

/// Why a worker is turned away: how its connection is closed, and what the operator reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Unwelcome {
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

impl From<&Unwelcome> for CloseCode {
    fn from(unwelcome: &Unwelcome) -> Self {
        unwelcome.code
    }
}

fn unwelcome(code: CloseCode, reason: impl Into<String>) -> Unwelcome {
    Unwelcome { code, reason: reason.into() }
}

/// Judges registrations; a cheap handle.
#[derive(Debug, Clone)]
pub struct Door {
    policy: Policy,
    file: BookFile,
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    book: Arc<Book>,
    version: Option<Version>,
    wrong_joins: WrongJoins,
}

impl Door {
    /// Opens the book.
    ///
    /// # Errors
    /// The book is there and cannot be read: then nobody could tell a stranger from a worker.
    pub fn open(policy: Policy, file: BookFile, clock: Arc<dyn Clock>) -> Result<Self, BookFileError> {
        let version = file.version();
        let state = State { book: Arc::new(file.read()?), version, wrong_joins: WrongJoins::default() };
        Ok(Self { policy, file, state: Arc::new(Mutex::new(state)), clock })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this registration proves, or why its connection is closed.
    pub(super) async fn admit(&self, register: &Register, peer: &Peer) -> Result<Standing, Unwelcome> {
        let worker_id = &register.worker_id;
        self.reread().await;
        let book = Arc::clone(&self.state().book);
        let Some(proof) = &register.identity else {
            return judge(self.policy, &book, worker_id, None);
        };
        if !proof.holds(&peer.channel, worker_id) {
            return Err(unwelcome(
                CloseCode::NotProved,
                "the proof of its key does not hold on this connection (a proxy that ends TLS breaks it)",
            ));
        }
        let key = proof.public_key;
        match (book.of_key(&key), &proof.join_secret) {
            (Some(entry), _) if entry.worker_id.is_none() => {
                let worker_id = worker_id.clone();
                let now_ms = self.clock.unix_ms();
                self.change(move |book| book.enroll(key, Some(&worker_id), now_ms)).await.map_err(refused)?;
            }
            (None, Some(secret)) => {
                if !peer.is_tls() {
                    return Err(unwelcome(
                        CloseCode::JoinRefused,
                        "a join token came over plain ws://: it may be known",
                    ));
                }
                let now = self.clock.monotonic();
                if !self.state().wrong_joins.may_try(peer.address.ip(), now) {
                    return Err(unwelcome(CloseCode::JoinRefused, "too many wrong join tokens from this address"));
                }
                let (secret, worker_id, now_ms) = (secret.clone(), worker_id.clone(), self.clock.unix_ms());
                let redeemed = self.change(move |book| book.redeem(&secret, key, &worker_id, now_ms)).await;
                if let Err(BookFileError::Refused(BookError::NoInvitation)) = &redeemed {
                    self.state().wrong_joins.count(peer.address.ip(), now);
                }
                redeemed.map_err(refused)?;
                tracing::info!(worker_id = %register.worker_id, %key, "worker enrolled by its join token");
            }
            _ => {}
        }
        let book = Arc::clone(&self.state().book);
        judge(self.policy, &book, worker_id, Some(key))
    }

    /// Holds the connected workers against the book whenever it has changed, until `stop`.
    pub(crate) async fn watch(self, registry: Registry, stop: CancellationToken) {
        let mut judged = self.state().version;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.reread().await;
            let (book, version) = {
                let state = self.state();
                (Arc::clone(&state.book), state.version)
            };
            if version == judged {
                continue;
            }
            judged = version;
            self.bind_connected(&book, &registry).await;
            let book = Arc::clone(&self.state().book);
            for (worker_id, unwelcome) in
                registry.judge_again(|worker_id, standing| judge(self.policy, &book, worker_id, standing.key()))
            {
                tracing::warn!(%worker_id, reason = %unwelcome, "worker closed: the book of enrolled workers has changed");
            }
        }
    }

    /// Gives keys that were enrolled without a name that of the connected worker which has proved them.
    async fn bind_connected(&self, book: &Book, registry: &Registry) {
        for worker in registry.snapshot() {
            if let Some(key) = worker.standing.key()
                && book.of_key(&key).is_some_and(|entry| entry.worker_id.is_none())
            {
                let now_ms = self.clock.unix_ms();
                let bound = self.change(move |book| book.enroll(key, Some(&worker.worker_id), now_ms)).await;
                if let Err(error) = bound {
                    tracing::warn!(error = chain(&error), %key, "an enrolled key stays without its worker");
                }
            }
        }
    }

    /// Reads the book if its file has changed.
    async fn reread(&self) {
        let (file, known) = (self.file.clone(), self.state().version);
        let read = move || {
            let version = file.version();
            (version != known).then(|| file.read().map(|book| (version, book)))
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(None) => {}
            Ok(Some(Ok((version, book)))) => {
                let mut state = self.state();
                (state.version, state.book) = (version, Arc::new(book));
            }
            Ok(Some(Err(error))) => tracing::error!(error = chain(&error), "the former book of workers stays in force"),
            Err(panic) => tracing::error!(error = %panic, "the former book of workers stays in force"),
        }
    }

    async fn change(
        &self,
        change: impl FnOnce(&mut Book) -> Result<(), BookError> + Send + 'static,
    ) -> Result<(), BookFileError> {
        let file = self.file.clone();
        let changed = tokio::task::spawn_blocking(move || file.change(change)).await;
        // The blocking task fails only by a panic or at shutdown; either way nothing was enrolled.
        let ((), book) = changed.unwrap_or(Err(BookFileError::Refused(BookError::NoInvitation)))?;
        // The next look at the file finds another version and reads it again, which does no harm.
        self.state().book = Arc::new(book);
        Ok(())
    }
}

fn refused(error: BookFileError) -> Unwelcome {
    match &error {
        BookFileError::Refused(BookError::Taken(_) | BookError::Bound(_)) => {
            unwelcome(CloseCode::NotProved, error.to_string())
        }
        BookFileError::Refused(_) => unwelcome(CloseCode::JoinRefused, error.to_string()),
        _ => unwelcome(CloseCode::Internal, chain(&error)),
    }
}

/// The standing of a worker that holds this key, or none, by the book and the policy.
fn judge(policy: Policy, book: &Book, worker_id: &WorkerId, key: Option<WorkerKey>) -> Result<Standing, Unwelcome> {
    if let Some(entry) = key.and_then(|key| book.of_key(&key)) {
        return if entry.worker_id.as_ref() == Some(worker_id) {
            Ok(Standing::Enrolled(entry.public_key))
        } else {
            Err(unwelcome(CloseCode::NotProved, "its key is enrolled for another worker_id"))
        };
    }
    if key.is_some_and(|key| book.is_revoked(&key)) {
        return Err(unwelcome(CloseCode::NotEnrolled, "its key was revoked"));
    }
    if book.of_worker(worker_id).is_some() {
        return Err(unwelcome(CloseCode::NotProved, "its worker_id belongs to an enrolled key that it does not prove"));
    }
    match (policy, key) {
        (Policy::Open, Some(key)) => Ok(Standing::Unenrolled(key)),
        (Policy::Open, None) => Ok(Standing::Unproved),
        (Policy::Enrolled | Policy::Required, Some(key)) => Err(unwelcome(
            CloseCode::NotEnrolled,
            format!("its key is not enrolled; to let it in: byteleap-miner workers enroll {key}"),
        )),
        (Policy::Enrolled | Policy::Required, None) => {
            Err(unwelcome(CloseCode::NotEnrolled, "it proves no key (worker_management.auth)"))
        }
    }
}

/// Wrong join secrets by address, within a window that all addresses share.
#[derive(Debug, Default)]
struct WrongJoins {
    since: Duration,
    by_address: HashMap<IpAddr, u32>,
}

impl WrongJoins {
    fn may_try(&mut self, address: IpAddr, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= JOIN_WINDOW {
            (self.since, self.by_address) = (now, HashMap::new());
        }
        match self.by_address.get(&address) {
            Some(count) => *count < MAX_WRONG_JOINS,
            None => self.by_address.len() < MAX_JOIN_ADDRESSES,
        }
    }

    fn count(&mut self, address: IpAddr, now: Duration) {
        if self.may_try(address, now) {
            *self.by_address.entry(address).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(worker: &str) -> WorkerId {
        WorkerId::new(worker).expect("an id")
    }

    fn key(byte: u8) -> WorkerKey {
        WorkerKey([byte; 32])
    }

    #[test]
    fn the_policy_decides_who_is_served_and_an_enrolled_name_needs_its_key_under_each() {
        let mut book = Book::default();
        book.enroll(key(1), Some(&id("mine")), 0).expect("enrolled");
        book.enroll(key(3), Some(&id("gone")), 0).expect("enrolled");
        book.revoke("gone").expect("revoked");
        let judged =
            |policy, worker: &str, key| judge(policy, &book, &id(worker), key).map_err(|unwelcome| unwelcome.code);
        for policy in [Policy::Open, Policy::Enrolled, Policy::Required] {
            assert_eq!(judged(policy, "mine", Some(key(1))), Ok(Standing::Enrolled(key(1))));
            assert_eq!(judged(policy, "mine", Some(key(2))), Err(CloseCode::NotProved));
            assert_eq!(judged(policy, "mine", None), Err(CloseCode::NotProved));
            assert_eq!(judged(policy, "other", Some(key(1))), Err(CloseCode::NotProved));
            assert_eq!(judged(policy, "gone", Some(key(3))), Err(CloseCode::NotEnrolled));
        }
        assert_eq!(judged(Policy::Open, "old", None), Ok(Standing::Unproved));
        assert_eq!(judged(Policy::Open, "new", Some(key(2))), Ok(Standing::Unenrolled(key(2))));
        for policy in [Policy::Enrolled, Policy::Required] {
            assert_eq!(judged(policy, "old", None), Err(CloseCode::NotEnrolled));
            assert_eq!(judged(policy, "new", Some(key(2))), Err(CloseCode::NotEnrolled));
        }
    }

    #[test]
    fn wrong_join_secrets_are_counted_by_address_until_the_window_is_over() {
        let mut wrong = WrongJoins::default();
        let (bad, good) = (IpAddr::from([203, 0, 113, 1]), IpAddr::from([203, 0, 113, 2]));
        for _ in 0..MAX_WRONG_JOINS {
            assert!(wrong.may_try(bad, Duration::ZERO));
            wrong.count(bad, Duration::ZERO);
        }
        assert!(!wrong.may_try(bad, Duration::from_secs(59)));
        assert!(wrong.may_try(good, Duration::from_secs(59)));
        assert!(wrong.may_try(bad, JOIN_WINDOW));
    }
}
