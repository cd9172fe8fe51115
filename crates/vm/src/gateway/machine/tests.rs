use super::Renewal::{Enrolment, InSession, Token};
use super::*;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Usable for a year from the start of the tests' clock.
const YEAR: Validity = Validity { not_before_ms: 0, not_after_ms: 365 * DAY_MS };
const NEXT_YEAR: Validity = Validity { not_before_ms: 330 * DAY_MS, not_after_ms: 700 * DAY_MS };
const OUT_OF_DATE: Validity = Validity { not_before_ms: -2, not_after_ms: -1 };

/// A machine and the clock that it is shown.
struct Walk {
    machine: Machine,
    now: Moment,
}

impl Walk {
    fn begin() -> Self {
        let now = Moment { unix_ms: 0, monotonic: Duration::from_secs(1000), chance: 0.0 };
        Self { machine: Machine::default(), now }
    }

    /// In session with credentials for a year.
    fn online() -> Self {
        let mut walk = Self::begin();
        walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
        walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
        walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
        walk
    }

    /// In session, with newer credentials stored than those it was opened with.
    fn renewed() -> Self {
        let mut walk = Self::online();
        walk.pass_days(335);
        walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
        walk.see(Event::Renewed(NEXT_YEAR), State::Online, &[]);
        walk
    }

    fn see(&mut self, event: Event, state: State, actions: &[Action]) {
        let (machine, done) = self.machine.clone().step(event, self.now);
        assert_eq!((machine.state(), done.as_slice()), (state, actions), "after {event:?}");
        self.machine = machine;
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.unix_ms += i64::try_from(time.as_millis()).unwrap();
    }

    fn pass_days(&mut self, days: u64) {
        self.pass(DAY * u32::try_from(days).unwrap());
    }

    /// How long until the machine wants to be woken.
    fn wait(&self) -> Duration {
        self.machine.wake_at().expect("a deadline") - self.now.monotonic
    }

    /// Lets that time pass and wakes it.
    fn wake(&mut self, state: State, actions: &[Action]) {
        self.pass(self.wait());
        self.see(Event::Timer, state, actions);
    }

    /// From a wait before dialling into a handshake.
    fn dial_again(&mut self) {
        self.wake(State::Connecting, &[Action::Connect]);
        self.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    }

    /// Sessions that end before READY, all but the last that it takes.
    fn all_but_one_unproven_dials(&mut self) {
        for _ in 1..UNPROVEN_DIALS {
            self.see(Event::Closed(Loss::BeforeReady), State::Backoff, &[]);
            self.dial_again();
        }
    }
}

// Start and enrolment.

#[test]
fn a_worker_without_usable_credentials_asks_for_a_token() {
    for credentials in [None, Some(OUT_OF_DATE)] {
        let mut walk = Walk::begin();
        walk.see(Event::Start(credentials), State::NeedToken, &[Action::RequestToken]);
        assert_eq!(walk.wait(), TOKEN_DEADLINE);
    }
}

#[test]
fn a_worker_with_usable_credentials_connects() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    assert_eq!(walk.wait(), CONNECT_DEADLINE);
}

#[test]
fn a_token_leads_to_enrolment_and_that_to_a_session() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(None), State::NeedToken, &[Action::RequestToken]);
    walk.see(Event::TokenGranted, State::Enrolling, &[Action::Enrol]);
    assert_eq!(walk.wait(), ENROLMENT_DEADLINE);
    walk.see(Event::Enrolled(YEAR), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    assert_eq!(walk.wait(), HANDSHAKE_DEADLINE);
    walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
}

#[test]
fn without_a_token_the_worker_waits_from_half_a_minute_to_a_quarter_of_an_hour() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(None), State::NeedToken, &[Action::RequestToken]);
    walk.see(Event::TokenUnavailable, State::Backoff, &[]);
    assert_eq!(walk.wait().as_secs(), 30);
    walk.now.chance = 1.0;
    for _ in 0..10 {
        walk.wake(State::NeedToken, &[Action::RequestToken]);
        walk.see(Event::TokenUnavailable, State::Backoff, &[]);
    }
    assert_eq!(walk.wait().as_secs(), 900);
}

#[test]
fn a_refused_token_is_followed_by_another_no_sooner_than_a_minute_later() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(None), State::NeedToken, &[Action::RequestToken]);
    walk.see(Event::TokenGranted, State::Enrolling, &[Action::Enrol]);
    walk.see(Event::EnrolmentRefused, State::Backoff, &[]);
    assert_eq!(walk.wait().as_secs(), 60);
    walk.wake(State::NeedToken, &[Action::RequestToken]);
}

#[test]
fn a_failed_enrolment_waits_as_long_as_the_gateway_asks_within_an_hour() {
    for (asked, waited) in [(None, 30), (Some(200), 200), (Some(1), 30), (Some(86_400), 3600)] {
        let mut walk = Walk::begin();
        walk.see(Event::Start(None), State::NeedToken, &[Action::RequestToken]);
        walk.see(Event::TokenGranted, State::Enrolling, &[Action::Enrol]);
        let retry_after = asked.map(Duration::from_secs);
        walk.see(Event::EnrolmentFailed { retry_after }, State::Backoff, &[]);
        assert_eq!(walk.wait().as_secs(), waited);
    }
}

// Deadlines and stop.

#[test]
fn every_attempt_has_a_deadline_after_which_it_is_dropped() {
    let to_token = [Event::Start(None)];
    let to_enrolment = [Event::Start(None), Event::TokenGranted];
    let to_connection = [Event::Start(Some(YEAR))];
    let to_handshake = [Event::Start(Some(YEAR)), Event::Connected];
    for (events, deadline_s) in
        [(&to_token[..], 90), (&to_enrolment[..], 30), (&to_connection[..], 15), (&to_handshake[..], 10)]
    {
        let mut walk = Walk::begin();
        for event in events {
            walk.machine = walk.machine.clone().step(*event, walk.now).0;
        }
        assert_eq!(walk.wait().as_secs(), deadline_s);
        walk.wake(State::Backoff, &[Action::HangUp]);
    }
}

#[test]
fn a_timer_that_comes_too_early_changes_nothing() {
    let mut walk = Walk::begin();
    walk.see(Event::Timer, State::Init, &[]);
    walk.see(Event::Start(None), State::NeedToken, &[Action::RequestToken]);
    walk.pass(TOKEN_DEADLINE - Duration::from_millis(1));
    walk.see(Event::Timer, State::NeedToken, &[]);
}

#[test]
fn a_stop_ends_every_state_at_once_and_a_start_begins_anew() {
    let paths: [&[Event]; 6] = [
        &[Event::Start(None)],
        &[Event::Start(None), Event::TokenGranted],
        &[Event::Start(None), Event::TokenUnavailable],
        &[Event::Start(Some(YEAR))],
        &[Event::Start(Some(YEAR)), Event::Connected],
        &[Event::Start(Some(YEAR)), Event::Connected, Event::Accepted],
    ];
    for path in paths {
        let mut walk = Walk::begin();
        for event in path {
            walk.machine = walk.machine.clone().step(*event, walk.now).0;
        }
        walk.see(Event::Stop, State::Init, &[Action::HangUp]);
        assert_eq!(walk.machine.wake_at(), None);
        walk.see(Event::Stop, State::Init, &[]);
        walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    }
}

#[test]
fn what_does_not_belong_to_a_state_changes_nothing() {
    let mut walk = Walk::begin();
    for event in [Event::TokenGranted, Event::Enrolled(YEAR), Event::Connected, Event::Accepted, Event::Idle] {
        walk.see(event, State::Init, &[]);
    }
    let mut walk = Walk::online();
    for event in [
        Event::Start(None),
        Event::TokenGranted,
        Event::Enrolled(YEAR),
        Event::Renewed(YEAR),
        Event::Connected,
        Event::Idle,
    ] {
        walk.see(event, State::Online, &[]);
    }
}

// Connections.

#[test]
fn a_failed_dial_is_repeated_after_a_wait_that_doubles_to_five_minutes() {
    let mut walk = Walk::begin();
    walk.now.chance = 1.0;
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    for wait_s in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        walk.see(Event::Closed(Loss::Unreachable), State::Backoff, &[]);
        assert_eq!(walk.wait().as_secs(), wait_s);
        walk.wake(State::Connecting, &[Action::Connect]);
    }
}

#[test]
fn a_session_of_a_minute_ends_the_doubling_and_a_shorter_one_does_not() {
    let mut walk = Walk::online();
    walk.now.chance = 1.0;
    for (lasted_s, wait_s) in [(59, 2), (59, 4), (60, 2), (0, 4)] {
        walk.pass(Duration::from_secs(lasted_s));
        walk.see(Event::Closed(Loss::Unreachable), State::Backoff, &[]);
        assert_eq!(walk.wait().as_secs(), wait_s);
        walk.dial_again();
        walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
    }
}

#[test]
fn a_gateway_that_is_not_trusted_or_not_reached_never_leads_to_an_enrolment() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    for _ in 0..20 {
        for loss in [Loss::GatewayNotTrusted, Loss::Unreachable] {
            walk.see(Event::Closed(loss), State::Backoff, &[]);
            walk.wake(State::Connecting, &[Action::Connect]);
        }
    }
}

#[test]
fn a_refusal_is_followed_by_another_try_a_minute_to_a_quarter_of_an_hour_later() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.see(Event::Refused, State::Backoff, &[Action::HangUp]);
    assert_eq!(walk.wait().as_secs(), 60);
    walk.now.chance = 1.0;
    for _ in 0..10 {
        walk.dial_again();
        walk.see(Event::Refused, State::Backoff, &[Action::HangUp]);
    }
    assert_eq!(walk.wait().as_secs(), 900);
}

#[test]
fn credentials_that_expire_while_the_gateway_is_away_are_not_dialled_with() {
    let mut walk = Walk::online();
    walk.pass_days(366);
    walk.see(Event::Closed(Loss::Unreachable), State::Backoff, &[]);
    walk.wake(State::NeedToken, &[Action::RequestToken]);
}

// Rejected credentials.

#[test]
fn an_alert_against_our_certificate_leads_to_an_enrolment_in_every_state_of_a_connection() {
    let alert = Event::Closed(Loss::CredentialsRejected);
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(alert, State::NeedToken, &[Action::RequestToken]);
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.see(alert, State::NeedToken, &[Action::RequestToken]);
    let mut walk = Walk::online();
    walk.see(alert, State::NeedToken, &[Action::RequestToken]);
}

#[test]
fn five_sessions_in_a_row_that_end_before_ready_count_as_a_rejection() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.all_but_one_unproven_dials();
    walk.see(Event::Closed(Loss::Unreachable), State::NeedToken, &[Action::RequestToken]);
}

#[test]
fn a_session_or_an_unreachable_gateway_in_between_breaks_the_row() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.all_but_one_unproven_dials();
    walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
    walk.see(Event::Closed(Loss::Unreachable), State::Backoff, &[]);
    walk.dial_again();
    walk.all_but_one_unproven_dials();
    walk.wake(State::NeedToken, &[Action::HangUp, Action::RequestToken]);

    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.all_but_one_unproven_dials();
    walk.see(Event::Closed(Loss::GatewayNotTrusted), State::Backoff, &[]);
    walk.dial_again();
    walk.see(Event::Closed(Loss::BeforeReady), State::Backoff, &[]);
}

#[test]
fn rejections_lead_to_at_most_one_enrolment_in_ten_minutes_and_six_a_day() {
    let mut walk = Walk::begin();
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    let begun = walk.now.monotonic;
    let mut enrolments = Vec::new();
    while walk.now.monotonic - begun < DAY + ENROLMENT_SPACING {
        walk.machine = walk.machine.clone().step(Event::Closed(Loss::CredentialsRejected), walk.now).0;
        match walk.machine.state() {
            State::NeedToken => {
                enrolments.push(walk.now.monotonic);
                walk.see(Event::TokenGranted, State::Enrolling, &[Action::Enrol]);
                walk.see(Event::EnrolmentFailed { retry_after: None }, State::Backoff, &[]);
            }
            state => assert_eq!(state, State::Backoff),
        }
        walk.pass(Duration::from_secs(20).max(walk.wait()));
        walk.see(Event::Timer, State::Connecting, &[Action::Connect]);
    }
    for pair in enrolments.windows(2) {
        assert!(pair[1] - pair[0] >= ENROLMENT_SPACING);
    }
    assert_eq!(enrolments.iter().filter(|at| **at - begun < DAY).count(), ENROLMENTS_A_DAY);
    assert_eq!(enrolments.len(), ENROLMENTS_A_DAY + 1);
}

#[test]
fn new_credentials_that_are_rejected_give_way_to_the_former_ones() {
    let mut walk = Walk::renewed();
    walk.see(Event::Idle, State::Connecting, &[Action::HangUp, Action::Connect]);
    walk.see(Event::Closed(Loss::CredentialsRejected), State::Backoff, &[Action::RestoreFormer]);
    walk.dial_again();
    walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
}

#[test]
fn former_credentials_that_have_ended_are_not_restored() {
    let mut walk = Walk::renewed();
    walk.pass_days(40);
    walk.see(Event::Idle, State::Connecting, &[Action::HangUp, Action::Connect]);
    walk.see(Event::Closed(Loss::CredentialsRejected), State::NeedToken, &[Action::RequestToken]);
}

// Renewal.

#[test]
fn a_session_looks_at_the_clock_every_hour_and_renews_thirty_days_before_the_end() {
    let mut walk = Walk::online();
    assert_eq!(walk.wait(), RENEWAL_CHECK);
    walk.wake(State::Online, &[]);
    walk.pass_days(334);
    walk.pass(Duration::from_secs(22 * 3600 + 1800));
    walk.see(Event::Timer, State::Online, &[]);
    assert_eq!(walk.wait().as_secs(), 1800);
    walk.wake(State::Renewing(InSession), &[Action::RequestRenewal]);
    assert_eq!(walk.wait(), RENEWAL_DEADLINE);
}

#[test]
fn a_clock_that_is_set_forward_is_noticed_within_the_hour_and_one_set_back_does_no_harm() {
    let mut walk = Walk::online();
    walk.now.unix_ms = 340 * DAY_MS;
    walk.wake(State::Renewing(InSession), &[Action::RequestRenewal]);
    let mut walk = Walk::online();
    walk.now.unix_ms = -600_000;
    walk.wake(State::Online, &[]);
    assert_eq!(walk.wait(), RENEWAL_CHECK);
}

#[test]
fn a_session_opened_within_the_window_renews_at_once() {
    let mut walk = Walk::begin();
    walk.pass_days(360);
    walk.see(Event::Start(Some(YEAR)), State::Connecting, &[Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
    assert_eq!(walk.wait(), Duration::ZERO);
    walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
}

#[test]
fn after_a_renewal_the_session_is_reopened_when_nothing_is_in_flight_or_a_day_later() {
    let mut walk = Walk::renewed();
    walk.see(Event::Idle, State::Connecting, &[Action::HangUp, Action::Connect]);
    walk.see(Event::Connected, State::Handshake, &[Action::SayHello]);
    walk.see(Event::Accepted, State::Online, &[Action::ForgetFormer]);
    walk.see(Event::Idle, State::Online, &[]);

    let mut walk = Walk::renewed();
    walk.pass(SWAP_DEADLINE - Duration::from_secs(60));
    walk.see(Event::Timer, State::Online, &[]);
    assert_eq!(walk.wait().as_secs(), 60);
    walk.wake(State::Connecting, &[Action::HangUp, Action::Connect]);
}

#[test]
fn a_failed_renewal_is_repeated_after_a_minute_to_an_hour_and_the_session_goes_on() {
    let mut walk = Walk::online();
    walk.pass_days(335);
    walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
    walk.see(Event::RenewalFailed, State::Online, &[]);
    assert_eq!(walk.wait().as_secs(), 60);
    walk.wake(State::Renewing(InSession), &[Action::RequestRenewal]);
    walk.now.chance = 1.0;
    for _ in 0..8 {
        walk.wake(State::Online, &[Action::AbandonRenewal]);
        walk.wake(State::Renewing(InSession), &[Action::RequestRenewal]);
    }
    walk.see(Event::RenewalFailed, State::Online, &[]);
    assert_eq!(walk.wait().as_secs(), 3600);
}

#[test]
fn near_the_end_a_renewal_that_failed_becomes_an_enrolment_beside_the_session() {
    let mut walk = Walk::online();
    walk.pass_days(359);
    walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
    walk.see(Event::RenewalFailed, State::Online, &[]);
    walk.wake(State::Renewing(Token), &[Action::RequestToken]);
    assert_eq!(walk.wait(), TOKEN_DEADLINE);
    walk.see(Event::TokenUnavailable, State::Online, &[]);
    walk.wake(State::Renewing(Token), &[Action::RequestToken]);
    walk.see(Event::TokenGranted, State::Renewing(Enrolment), &[Action::Enrol]);
    assert_eq!(walk.wait(), ENROLMENT_DEADLINE);
    walk.see(Event::EnrolmentRefused, State::Online, &[]);
    walk.wake(State::Renewing(Token), &[Action::RequestToken]);
    walk.see(Event::TokenGranted, State::Renewing(Enrolment), &[Action::Enrol]);
    walk.see(Event::EnrolmentFailed { retry_after: None }, State::Online, &[]);
    walk.wake(State::Renewing(Token), &[Action::RequestToken]);
    walk.see(Event::TokenGranted, State::Renewing(Enrolment), &[Action::Enrol]);
    walk.see(Event::Enrolled(NEXT_YEAR), State::Online, &[]);
    walk.see(Event::Idle, State::Connecting, &[Action::HangUp, Action::Connect]);
}

#[test]
fn a_session_lost_while_renewing_drops_the_renewal_and_is_dialled_again() {
    let mut walk = Walk::online();
    walk.pass_days(335);
    walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
    walk.see(Event::Closed(Loss::Unreachable), State::Backoff, &[Action::AbandonRenewal]);
    walk.dial_again();

    let mut walk = Walk::online();
    walk.pass_days(335);
    walk.see(Event::Timer, State::Renewing(InSession), &[Action::RequestRenewal]);
    let rejected = [Action::AbandonRenewal, Action::RequestToken];
    walk.see(Event::Closed(Loss::CredentialsRejected), State::NeedToken, &rejected);
}
