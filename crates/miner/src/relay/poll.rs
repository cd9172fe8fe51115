//! Fetches challenges: asks validators whenever a worker is idle, and starts a flow for each challenge it gets.
//!
//! A validator hands out all that it has for this miner in one answer, so a poll is a promise to compute soon. Hence
//! never more polls are under way than workers are idle; and one stuck worker stops nobody, since the others stay idle
//! (worker-miner spec 10, F4; 11.7). The validator that is asked first changes from round to round.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use byteleap_daemon::drain::Drain;
use byteleap_protocol::{challenge::ChallengeItem, hotkey::Hotkey};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Semaphore,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    flow::{self, Challenge, Relay},
    logbook::Page,
};
use crate::{
    validators::{Validator, Validators},
    workers::{
        dispatch::{Demand, Seat},
        registry::{Refusal, Registry},
    },
};

/// Challenges taken from one answer.
const MAX_BATCH: usize = 256;

/// Challenges on their way at once, those that wait for their worker included.
const MAX_FLOWS: usize = 1024;

/// The poll loop and what it starts.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    validators: Validators,
    registry: Registry,
    relay: Relay,
    interval: Duration,
    flows: TaskTracker,
    places: Arc<Semaphore>,
    drain: Drain,
    /// Validators that are being asked at the moment.
    asked: Arc<AtomicUsize>,
}

impl Poll {
    pub(crate) fn new(
        validators: Validators,
        registry: Registry,
        relay: Relay,
        interval: Duration,
        drain: Drain,
    ) -> Self {
        let places = Arc::new(Semaphore::new(MAX_FLOWS));
        Self { validators, registry, relay, interval, flows: TaskTracker::new(), places, drain, asked: Arc::default() }
    }

    /// Goes on with what a former process left, as far as there is time. Its worker has its seat before it is back, so
    /// that what it brings along is taken for what it is: call this before workers are served.
    pub(crate) async fn resume(&self) {
        let validators = self.validators.current();
        for page in self.relay.logbook.pages().await {
            let challenge_id = page.item.challenge_id.clone();
            let known = validators.iter().find(|validator| validator.hotkey() == page.validator);
            let seat = Seat::resume(&self.registry, &page.worker_id, &challenge_id, page.owner);
            let place = Arc::clone(&self.places).try_acquire_owned().ok();
            let Some(((validator, seat), place)) = known.zip(seat).zip(place) else {
                tracing::warn!(%challenge_id, "challenge of a former process dropped: its validator or worker has changed");
                self.relay.logbook.tear_out(&page).await;
                continue;
            };
            let challenge = Challenge { page, validator: Arc::clone(validator), is_resumed: true };
            if challenge.deadline(&*self.relay.clock).is_none() {
                tracing::info!(%challenge_id, "challenge of a former process dropped: its time is over");
                self.relay.logbook.tear_out(&challenge.page).await;
                continue;
            }
            tracing::info!(%challenge_id, worker_id = %challenge.page.worker_id, "challenge of a former process goes on");
            let relay = self.relay.clone();
            self.flows.spawn(async move {
                let _place = place;
                flow::run(challenge, seat, relay).await;
            });
        }
    }

    /// What has begun and not ended, one line each.
    pub(crate) fn under_way(&self) -> Vec<String> {
        let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
        let (polls, challenges) = (self.asked.load(Ordering::SeqCst), self.flows.len());
        [count(polls, "validator(s) being asked for challenges"), count(challenges, "challenge(s)")]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Polls until `stop`, then waits until every challenge under way has ended.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        self.poll_until(stop).await;
        self.flows.close();
        self.flows.wait().await;
    }

    /// In each round every validator is asked that is not being asked still, as many at a time as workers are idle: one
    /// that answers slowly delays nobody else. After `stop` nobody is asked any more, but what was asked for is still taken
    /// in: a validator has counted it as handed out.
    async fn poll_until(&self, stop: &CancellationToken) {
        let mut rounds = tokio::time::interval(self.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.registry.changes();
        let (mut waiting, mut asking, mut asked) =
            (VecDeque::<Arc<Validator>>::new(), FuturesUnordered::new(), Vec::new());
        let mut first = 0;
        while !stop.is_cancelled() {
            while asking.len() < self.registry.idle()
                && let Some(validator) = waiting.pop_front()
            {
                asked.push(validator.hotkey());
                asking.push(self.ask(validator));
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Some(answered) = asking.next(), if !asking.is_empty() => asked.retain(|hotkey| *hotkey != answered),
                Ok(()) = changes.changed(), if !waiting.is_empty() => {}
                _ = rounds.tick() => {
                    let mut order = self.validators.current();
                    if !order.is_empty() {
                        first = (first + 1) % order.len();
                        order.rotate_left(first);
                    }
                    order.retain(|validator| !asked.contains(&validator.hotkey()));
                    waiting = order.into();
                }
            }
        }
        while asking.next().await.is_some() {}
    }

    /// Asks one validator and seats what it hands out before returning, so that the workers count as busy at once. Returns whom.
    async fn ask(&self, validator: Arc<Validator>) -> Hotkey {
        let asked = Asked::begin(&self.asked);
        // Looked at after it counts as asked, so that whoever drains sees one or the other.
        if self.drain.is_on() {
            return validator.hotkey();
        }
        let answer = validator.poll().await;
        match answer {
            Ok(response) => {
                if response.refused_items > 0 {
                    tracing::warn!(validator = %validator.hotkey(), items = response.refused_items, "malformed challenges skipped");
                }
                for item in response.challenges.into_iter().take(MAX_BATCH) {
                    self.start(item, Arc::clone(&validator));
                }
            }
            Err(error) => error.log("task poll", validator.hotkey()),
        }
        drop(asked);
        validator.hotkey()
    }

    fn start(&self, item: ChallengeItem, validator: Arc<Validator>) {
        let challenge_id = item.challenge_id.clone();
        tracing::debug!(%challenge_id, validator = %validator.hotkey(), "challenge received");
        let demand = Demand {
            target: item.target_worker_id.clone(),
            capability: item.challenge_type,
            challenge_id: challenge_id.clone(),
        };
        let deadline = Instant::now() + item.timeout.as_duration();
        let received_at_ms = self.relay.clock.unix_ms();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(%challenge_id, "challenge dropped: too many are under way");
            return;
        };
        let seat = match Seat::take(&self.registry, &demand) {
            Ok(seat) => Some(seat),
            Err(Refusal::Busy) => None,
            Err(refusal) => {
                tracing::warn!(%challenge_id, %refusal, "challenge dropped");
                return;
            }
        };
        let (registry, relay) = (self.registry.clone(), self.relay.clone());
        self.flows.spawn(async move {
            let _place = place;
            let seat = match seat {
                Some(seat) => Ok(seat),
                None => Seat::await_turn(&registry, &demand, deadline).await,
            };
            match seat {
                Ok(seat) => {
                    let page = Page {
                        item,
                        validator: validator.hotkey(),
                        worker_id: seat.worker_id().clone(),
                        owner: seat.owner(),
                        received_at_ms,
                        committed: None,
                    };
                    flow::run(Challenge { page, validator, is_resumed: false }, seat, relay).await;
                }
                Err(refusal) => tracing::warn!(challenge_id = %demand.challenge_id, %refusal, "challenge dropped"),
            }
        });
    }
}

/// A validator that is being asked, until this is dropped.
struct Asked<'poll>(&'poll AtomicUsize);

impl<'poll> Asked<'poll> {
    fn begin(count: &'poll AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
