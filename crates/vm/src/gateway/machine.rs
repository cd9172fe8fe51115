//! The states between a worker and its gateway, and what leads from one to the next (vm-and-gpu-host spec 1.2).

use std::time::Duration;

use super::Validity;
use super::backoff::Backoff;

const TOKEN_DEADLINE: Duration = Duration::from_secs(90);
const ENROLMENT_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
const RENEWAL_DEADLINE: Duration = Duration::from_secs(30);

/// How often a session looks at the clock for its renewal, since the clock may be set.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// By when a session is reopened with the credentials that were renewed in it.
const SWAP_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// A session this long ends the doubling of waits.
const STEADY_SESSION: Duration = Duration::from_secs(60);

/// Sessions in a row that end after TLS and before READY, before the credentials count as rejected. With TLS 1.3 that is
/// all a worker sees of an expired or revoked certificate.
const UNPROVEN_DIALS: u32 = 5;

/// Longest wait that a gateway can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Enrolments beside stored credentials: not sooner than this after the last one...
const ENROLMENT_SPACING: Duration = Duration::from_secs(600);

/// ...and at most this many...
const ENROLMENTS_A_DAY: usize = 6;

/// ...in this time.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// When an event happens. The wall clock rules certificates, the monotonic one rules waits and deadlines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Wall clock, Unix milliseconds.
    pub unix_ms: i64,
    /// Time since an arbitrary moment of this process.
    pub monotonic: Duration,
    /// A random number from 0 to 1, which spreads waits.
    pub chance: f64,
}

/// Where the worker stands. None of these ever touches a running machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started, or stopped.
    Init,
    /// Waits for a token from a validator.
    NeedToken,
    /// Asks the gateway for a certificate.
    Enrolling,
    /// Opens TCP, TLS and the WebSocket.
    Connecting,
    /// Has said hello.
    Handshake,
    /// In session.
    Online,
    /// In session, and getting the next certificate.
    Renewing(Renewal),
    /// Waits before the next attempt.
    Backoff,
}

/// How the next certificate is got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Asked for in the session.
    InSession,
    /// By a new enrolment beside the session: waits for its token.
    Token,
    /// Likewise: waits for the gateway.
    Enrolment,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The worker wants to be in session; with the stored credentials, if there are any for its identity.
    Start(Option<Validity>),
    /// The worker wants out.
    Stop,
    /// There is a token.
    TokenGranted,
    /// There is none.
    TokenUnavailable,
    /// The gateway's answer to an enrolment was checked and stored.
    Enrolled(Validity),
    /// The gateway does not take the token.
    EnrolmentRefused,
    /// There was no usable answer; the gateway may have said when to come again.
    EnrolmentFailed {
        /// When.
        retry_after: Option<Duration>,
    },
    /// TLS and the WebSocket are up.
    Connected,
    /// The gateway is ready.
    Accepted,
    /// The gateway is not willing.
    Refused,
    /// There is no connection, or no longer.
    Closed(Loss),
    /// The next certificate was checked and stored.
    Renewed(Validity),
    /// There is none.
    RenewalFailed,
    /// No operation is in flight.
    Idle,
    /// [`Machine::wake_at`] has come. Too early is harmless.
    Timer,
}

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Before TLS was up, or in session.
    Unreachable,
    /// After TLS was up and before READY.
    BeforeReady,
    /// By a TLS alert against our certificate.
    CredentialsRejected,
    /// We do not trust the gateway: never a reason to enrol.
    GatewayNotTrusted,
}

/// What to do now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Drop what is under way: request, connection or session.
    HangUp,
    /// Drop the renewal that is under way, not the session.
    AbandonRenewal,
    /// Ask miner and validator for an enrolment token.
    RequestToken,
    /// Enrol with the token.
    Enrol,
    /// Open a connection with the stored credentials.
    Connect,
    /// Send HELLO.
    SayHello,
    /// Ask for the next certificate in the session.
    RequestRenewal,
    /// The stored credentials have opened a session: delete the former ones.
    ForgetFormer,
    /// The stored credentials do not open a session: put the former ones back.
    RestoreFormer,
}

/// The worker's standing with its gateway.
///
/// | State | Event | Next | Actions |
/// |---|---|---|---|
/// | Init | Start, credentials usable | Connecting | Connect |
/// | Init | Start, none or out of date | NeedToken | RequestToken |
/// | NeedToken | TokenGranted | Enrolling | Enrol |
/// | NeedToken | TokenUnavailable | Backoff | |
/// | Enrolling | Enrolled | Connecting | Connect |
/// | Enrolling | EnrolmentRefused, EnrolmentFailed | Backoff | |
/// | Connecting | Connected | Handshake | SayHello |
/// | Connecting | Closed | Backoff, or NeedToken if the credentials count as rejected | |
/// | Handshake | Accepted | Online | ForgetFormer |
/// | Handshake | Refused | Backoff | HangUp |
/// | Handshake | Closed | as in Connecting | |
/// | Online | Timer, renewal due | Renewing | RequestRenewal; RequestToken where that failed and the end is near |
/// | Online | Idle, or Timer a day later, after a renewal | Connecting | HangUp, Connect |
/// | Online | Closed | Backoff, or NeedToken | |
/// | Renewing | Renewed, Enrolled | Online | |
/// | Renewing | TokenGranted | Renewing | Enrol |
/// | Renewing | any failure, deadline | Online | AbandonRenewal after a deadline |
/// | Renewing | Closed | Backoff, or NeedToken | AbandonRenewal |
/// | Backoff | Timer | as Start | |
/// | NeedToken, Enrolling, Connecting, Handshake | Timer (deadline) | Backoff | HangUp |
/// | any | Stop | Init | HangUp |
///
/// Whatever else happens changes nothing. Rejected credentials give way to the former ones, if these are still kept and
/// valid (RestoreFormer); else to a new enrolment, at most one in ten minutes and six a day; else they are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    state: State,
    wake_at: Option<Duration>,
    /// What is stored.
    credentials: Option<Validity>,
    /// What was stored before, kept until the stored have opened a session.
    former: Option<Validity>,
    /// Of the session: its start, when to renew, and until when to reopen it with newer credentials.
    online_since: Duration,
    renew_at_ms: i64,
    renewal_retry_at: Duration,
    swap_by: Option<Duration>,
    /// Failures in a row, by what they delay.
    dials: u32,
    unproven_dials: u32,
    enrolment_failures: u32,
    refusals: u32,
    renewal_failures: u32,
    /// When the last enrolments were begun, oldest first.
    enrolments: Vec<Duration>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: State::Init,
            wake_at: None,
            credentials: None,
            former: None,
            online_since: Duration::ZERO,
            renew_at_ms: i64::MAX,
            renewal_retry_at: Duration::ZERO,
            swap_by: None,
            dials: 0,
            unproven_dials: 0,
            enrolment_failures: 0,
            refusals: 0,
            renewal_failures: 0,
            enrolments: Vec::new(),
        }
    }
}

impl Machine {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The monotonic moment at which it wants [`Event::Timer`].
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.wake_at
    }

    /// The transition: the next machine, and what to do.
    #[must_use]
    pub fn step(mut self, event: Event, now: Moment) -> (Self, Vec<Action>) {
        let actions = self.advance(event, now);
        (self, actions)
    }

    fn advance(&mut self, event: Event, now: Moment) -> Vec<Action> {
        use Renewal::{Enrolment, InSession, Token};
        match (self.state, event) {
            (State::Init, Event::Stop) => Vec::new(),
            (_, Event::Stop) => {
                self.enter(State::Init, None);
                vec![Action::HangUp]
            }
            (State::Init, Event::Start(credentials)) => {
                self.credentials = credentials;
                self.resume(now)
            }
            (State::NeedToken, Event::TokenGranted) => self.enrol(State::Enrolling, now),
            (State::NeedToken, Event::TokenUnavailable) => self.enrolment_failed(Duration::ZERO, now),
            (State::Enrolling, Event::Enrolled(credentials)) => {
                self.replace_credentials(credentials);
                self.connect(now)
            }
            (State::Enrolling, Event::EnrolmentRefused) => {
                self.enrolment_failed(Backoff::REFUSAL.wait(self.enrolment_failures, now.chance), now)
            }
            (State::Enrolling, Event::EnrolmentFailed { retry_after }) => {
                self.enrolment_failed(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER), now)
            }
            (State::Connecting, Event::Connected) => {
                self.enter(State::Handshake, Some(now.monotonic + HANDSHAKE_DEADLINE));
                vec![Action::SayHello]
            }
            (State::Handshake, Event::Accepted) => self.go_online(now),
            (State::Handshake, Event::Refused) => {
                let wait = Backoff::REFUSAL.wait(self.refusals, now.chance);
                self.refusals = self.refusals.saturating_add(1);
                self.back_off(wait, now);
                vec![Action::HangUp]
            }
            (State::Connecting, Event::Closed(loss)) => self.dial_failed(loss, now),
            (State::Handshake, Event::Closed(Loss::Unreachable)) => self.dial_failed(Loss::BeforeReady, now),
            (State::Handshake, Event::Closed(loss)) => self.dial_failed(loss, now),
            (State::Online, Event::Closed(loss)) => self.session_ended(loss, now),
            (State::Renewing(_), Event::Closed(loss)) => {
                self.renewal_failures = self.renewal_failures.saturating_add(1);
                let mut actions = vec![Action::AbandonRenewal];
                actions.extend(self.session_ended(loss, now));
                actions
            }
            (State::Online, Event::Idle) if self.swap_by.is_some() => self.reconnect(now),
            (State::Renewing(InSession), Event::Renewed(next))
            | (State::Renewing(Enrolment), Event::Enrolled(next)) => self.renewed(next, now),
            (State::Renewing(Token), Event::TokenGranted) => self.enrol(State::Renewing(Enrolment), now),
            (State::Renewing(InSession), Event::RenewalFailed)
            | (State::Renewing(Token), Event::TokenUnavailable)
            | (State::Renewing(Enrolment), Event::EnrolmentRefused | Event::EnrolmentFailed { .. }) => {
                self.renewal_failed(now)
            }
            (_, Event::Timer) if self.wake_at.is_some_and(|wake_at| now.monotonic >= wake_at) => self.timer(now),
            _ => Vec::new(),
        }
    }

    /// A wait or a deadline is over.
    fn timer(&mut self, now: Moment) -> Vec<Action> {
        match self.state {
            State::Init => Vec::new(),
            State::Backoff => self.resume(now),
            State::NeedToken | State::Enrolling => preceded(Action::HangUp, self.enrolment_failed(Duration::ZERO, now)),
            State::Connecting => preceded(Action::HangUp, self.dial_failed(Loss::Unreachable, now)),
            State::Handshake => preceded(Action::HangUp, self.dial_failed(Loss::BeforeReady, now)),
            State::Renewing(_) => preceded(Action::AbandonRenewal, self.renewal_failed(now)),
            State::Online if self.swap_by.is_some_and(|swap_by| now.monotonic >= swap_by) => self.reconnect(now),
            State::Online if now.unix_ms >= self.renew_at_ms && now.monotonic >= self.renewal_retry_at => {
                self.renew(now)
            }
            State::Online => {
                self.watch_renewal(now);
                Vec::new()
            }
        }
    }

    fn enter(&mut self, state: State, wake_at: Option<Duration>) {
        self.state = state;
        self.wake_at = wake_at;
    }

    fn back_off(&mut self, wait: Duration, now: Moment) {
        self.enter(State::Backoff, Some(now.monotonic + wait));
    }

    /// Goes for a session in the shortest way.
    fn resume(&mut self, now: Moment) -> Vec<Action> {
        if self.credentials.is_some_and(|credentials| credentials.is_usable(now.unix_ms)) {
            self.connect(now)
        } else {
            self.need_token(now)
        }
    }

    // Enrolment.

    fn need_token(&mut self, now: Moment) -> Vec<Action> {
        self.enter(State::NeedToken, Some(now.monotonic + TOKEN_DEADLINE));
        vec![Action::RequestToken]
    }

    fn enrol(&mut self, state: State, now: Moment) -> Vec<Action> {
        if self.enrolments.len() == ENROLMENTS_A_DAY {
            self.enrolments.remove(0);
        }
        self.enrolments.push(now.monotonic);
        self.enter(state, Some(now.monotonic + ENROLMENT_DEADLINE));
        vec![Action::Enrol]
    }

    /// Whether rejected credentials may be replaced now.
    fn may_enrol_again(&self, now: Moment) -> bool {
        let since = |begun: &Duration| now.monotonic.saturating_sub(*begun);
        let rested = self.enrolments.last().is_none_or(|last| since(last) >= ENROLMENT_SPACING);
        let today = self.enrolments.iter().filter(|begun| since(begun) < DAY).count();
        rested && today < ENROLMENTS_A_DAY
    }

    fn enrolment_failed(&mut self, at_least: Duration, now: Moment) -> Vec<Action> {
        let wait = Backoff::ENROLMENT.wait(self.enrolment_failures, now.chance);
        self.enrolment_failures = self.enrolment_failures.saturating_add(1);
        self.back_off(wait.max(at_least), now);
        Vec::new()
    }

    fn replace_credentials(&mut self, credentials: Validity) {
        // The former are the last that have opened a session, not those of an enrolment that came to nothing.
        self.former = self.former.or(self.credentials);
        self.credentials = Some(credentials);
        self.enrolment_failures = 0;
        self.renewal_failures = 0;
        self.unproven_dials = 0;
    }

    // Connection.

    fn connect(&mut self, now: Moment) -> Vec<Action> {
        self.enter(State::Connecting, Some(now.monotonic + CONNECT_DEADLINE));
        vec![Action::Connect]
    }

    fn dial_failed(&mut self, loss: Loss, now: Moment) -> Vec<Action> {
        self.unproven_dials = match loss {
            Loss::BeforeReady => self.unproven_dials.saturating_add(1),
            _ => 0,
        };
        if loss == Loss::CredentialsRejected || self.unproven_dials >= UNPROVEN_DIALS {
            return self.rejected(now);
        }
        self.wait_to_dial(now);
        Vec::new()
    }

    fn wait_to_dial(&mut self, now: Moment) {
        let wait = Backoff::DIAL.wait(self.dials, now.chance);
        self.dials = self.dials.saturating_add(1);
        self.back_off(wait, now);
    }

    /// The gateway does not take the stored credentials.
    fn rejected(&mut self, now: Moment) -> Vec<Action> {
        self.unproven_dials = 0;
        if let Some(former) = self.former.take().filter(|former| former.is_usable(now.unix_ms)) {
            self.credentials = Some(former);
            self.wait_to_dial(now);
            return vec![Action::RestoreFormer];
        }
        if self.may_enrol_again(now) {
            return self.need_token(now);
        }
        self.wait_to_dial(now);
        Vec::new()
    }

    // Session.

    fn go_online(&mut self, now: Moment) -> Vec<Action> {
        self.online_since = now.monotonic;
        self.former = None;
        self.swap_by = None;
        self.unproven_dials = 0;
        self.refusals = 0;
        self.renewal_retry_at = now.monotonic;
        self.plan_renewal(now);
        self.watch_renewal(now);
        vec![Action::ForgetFormer]
    }

    fn session_ended(&mut self, loss: Loss, now: Moment) -> Vec<Action> {
        if now.monotonic.saturating_sub(self.online_since) >= STEADY_SESSION {
            self.dials = 0;
        }
        self.swap_by = None;
        if loss == Loss::CredentialsRejected {
            return self.rejected(now);
        }
        self.wait_to_dial(now);
        Vec::new()
    }

    fn reconnect(&mut self, now: Moment) -> Vec<Action> {
        self.swap_by = None;
        preceded(Action::HangUp, self.connect(now))
    }

    // Renewal.

    fn plan_renewal(&mut self, now: Moment) {
        self.renew_at_ms = self.credentials.map_or(i64::MAX, |credentials| credentials.renew_at_ms(now.chance));
    }

    /// In session until the next look at the clock.
    fn watch_renewal(&mut self, now: Moment) {
        let until_due = u64::try_from(self.renew_at_ms.saturating_sub(now.unix_ms)).unwrap_or(0);
        let until_retry = self.renewal_retry_at.saturating_sub(now.monotonic);
        let wake_at = now.monotonic + Duration::from_millis(until_due).max(until_retry).min(RENEWAL_CHECK);
        self.enter(State::Online, Some(self.swap_by.map_or(wake_at, |swap_by| swap_by.min(wake_at))));
    }

    fn renew(&mut self, now: Moment) -> Vec<Action> {
        let near_end = self.credentials.is_none_or(|credentials| credentials.is_near_its_end(now.unix_ms));
        if near_end && self.renewal_failures > 0 {
            self.enter(State::Renewing(Renewal::Token), Some(now.monotonic + TOKEN_DEADLINE));
            return vec![Action::RequestToken];
        }
        self.enter(State::Renewing(Renewal::InSession), Some(now.monotonic + RENEWAL_DEADLINE));
        vec![Action::RequestRenewal]
    }

    fn renewed(&mut self, next: Validity, now: Moment) -> Vec<Action> {
        self.replace_credentials(next);
        self.swap_by = Some(now.monotonic + SWAP_DEADLINE);
        self.renewal_retry_at = now.monotonic;
        self.plan_renewal(now);
        self.watch_renewal(now);
        Vec::new()
    }

    fn renewal_failed(&mut self, now: Moment) -> Vec<Action> {
        self.renewal_retry_at = now.monotonic + Backoff::RENEWAL.wait(self.renewal_failures, now.chance);
        self.renewal_failures = self.renewal_failures.saturating_add(1);
        self.watch_renewal(now);
        Vec::new()
    }
}

fn preceded(first: Action, then: Vec<Action>) -> Vec<Action> {
    std::iter::once(first).chain(then).collect()
}

#[cfg(test)]
mod tests;
