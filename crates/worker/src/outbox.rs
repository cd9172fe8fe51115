//! Finished tasks on their way to the miner.
//!
//! A result leaves the outbox only once the miner has certainly received it, or when it is of no use any more. There is
//! no acknowledgement of results on this wire; but a pong proves that the peer has read everything that was sent before
//! its ping, so the link sends a ping after each result and reports the pongs here. What a connection took with it is
//! sent again on the next one (worker-miner spec 1.6, faults F12).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use byteleap_protocol::frame::TaskOutcome;
use byteleap_protocol::id::ChallengeId;
use tokio::sync::Notify;

/// Results that are kept; beyond, the oldest goes.
const CAPACITY: usize = 256;

/// Number of a ping on one connection; a pong carries it back.
pub type PingNumber = u64;

/// A task that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The task.
    pub task_id: ChallengeId,
    /// How it ended.
    pub outcome: TaskOutcome,
    /// When the validator will have given the challenge up, on the monotonic clock.
    pub useful_until: Duration,
}

/// The results that the miner has not certainly received, oldest first.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: Mutex<VecDeque<Entry>>,
    added: Notify,
}

#[derive(Debug)]
struct Entry {
    finished: Finished,
    /// The first ping after this result was sent on the present connection.
    sent_before: Option<PingNumber>,
}

impl Outbox {
    /// Puts a result in.
    pub fn push(&self, finished: Finished) {
        let mut entries = self.entries();
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(Entry { finished, sent_before: None });
        drop(entries);
        self.added.notify_one();
    }

    /// Waits until something was put in since the last wait. For one waiter: the link.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    /// Results not yet sent on this connection and still useful at `now`; they count as sent before `ping`.
    pub fn take_unsent(&self, now: Duration, ping: PingNumber) -> Vec<Finished> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.finished.useful_until > now);
        let unsent = entries.iter_mut().filter(|entry| entry.sent_before.is_none());
        unsent
            .map(|entry| {
                entry.sent_before = Some(ping);
                entry.finished.clone()
            })
            .collect()
    }

    /// The miner answered `ping`: it has what was sent before.
    pub fn received(&self, ping: PingNumber) {
        self.entries().retain(|entry| entry.sent_before.is_none_or(|before| before > ping));
    }

    /// The miner closed the connection over the task of a result: the oldest that it has not certainly received goes. The
    /// miner reads in order, so that one is what it refused, or it was taken before; to send it again would only bring
    /// the next close.
    pub fn refused(&self) -> Option<ChallengeId> {
        let mut entries = self.entries();
        let oldest = entries.iter().position(|entry| entry.sent_before.is_some())?;
        entries.remove(oldest).map(|entry| entry.finished.task_id)
    }

    /// A connection ended: what was not certainly received counts as unsent.
    pub fn disconnected(&self) {
        for entry in self.entries().iter_mut() {
            entry.sent_before = None;
        }
        self.added.notify_one();
    }

    /// How many results wait.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(name: &str, useful_until_s: u64) -> Finished {
        Finished {
            task_id: ChallengeId::new(name).unwrap(),
            outcome: TaskOutcome::failed("none"),
            useful_until: Duration::from_secs(useful_until_s),
        }
    }

    fn names(finished: &[Finished]) -> Vec<&str> {
        finished.iter().map(|finished| finished.task_id.as_str()).collect()
    }

    #[test]
    fn a_result_is_sent_once_per_connection_and_dropped_when_a_later_ping_is_answered() {
        let outbox = Outbox::default();
        outbox.push(finished("a", 100));
        assert_eq!(names(&outbox.take_unsent(Duration::ZERO, 3)), ["a"]);
        assert!(outbox.take_unsent(Duration::ZERO, 4).is_empty());
        outbox.received(2);
        assert_eq!(outbox.len(), 1, "ping 2 went out before the result");
        outbox.received(3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_lost_connection_brings_back_what_it_took() {
        let outbox = Outbox::default();
        outbox.push(finished("a", 100));
        outbox.take_unsent(Duration::ZERO, 1);
        outbox.disconnected();
        outbox.push(finished("b", 100));
        assert_eq!(names(&outbox.take_unsent(Duration::ZERO, 1)), ["a", "b"]);
    }

    #[test]
    fn a_refused_result_is_not_sent_again_and_what_was_sent_after_it_is() {
        let outbox = Outbox::default();
        assert_eq!(outbox.refused(), None);
        outbox.push(finished("a", 100));
        outbox.push(finished("b", 100));
        assert_eq!(outbox.refused(), None, "nothing was sent");
        outbox.take_unsent(Duration::ZERO, 1);
        assert_eq!(outbox.refused().as_ref().map(ChallengeId::as_str), Some("a"));
        outbox.disconnected();
        assert_eq!(names(&outbox.take_unsent(Duration::ZERO, 1)), ["b"]);
    }

    #[test]
    fn a_result_that_nobody_waits_for_any_more_is_dropped() {
        let outbox = Outbox::default();
        outbox.push(finished("late", 10));
        outbox.push(finished("timely", 20));
        assert_eq!(names(&outbox.take_unsent(Duration::from_secs(10), 1)), ["timely"]);
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn the_oldest_result_goes_when_there_are_too_many() {
        let outbox = Outbox::default();
        for number in 0..=CAPACITY {
            outbox.push(finished(&number.to_string(), 1));
        }
        assert_eq!(names(&outbox.take_unsent(Duration::ZERO, 1))[0], "1");
        assert_eq!(outbox.len(), CAPACITY);
    }
}
