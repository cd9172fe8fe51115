//! What becomes of the marketplace's messages (validator spec 7.6 to 7.8): leases are stored, configuration is weighed and
//! applied, tasks are written down. Whatever is refused is refused with a reason, counted and remembered; the rest of the
//! message stands.

use std::collections::HashSet;
use std::sync::Arc;

use byteleap_daemon::clock::Clock;
use byteleap_protocol::Object;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::WorkerId;
use byteleap_protocol::meshhub::order::{ConfigUpdate, LeasePublish, TaskPublish};
use byteleap_protocol::meshhub::report::{Ack, AckStatus};
use byteleap_protocol::meshhub::{MeshWorker, MessageType};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::remote::Remote;
use super::status::Board;
use super::{LeaseRules, SOURCE};
use crate::store::hub::NewTask;
use crate::store::lease::LeaseScore;
use crate::store::{Store, StoreError};

/// Longest name or kind of a task, in characters.
const MAX_TASK_CHARS: usize = 64;
/// Longest payload of a task, bytes.
const MAX_TASK_BYTES: usize = 64 * 1024;
/// Tasks that may wait; more are refused.
const MAX_TASKS: i64 = 10_000;
/// Events written down for one message; more are counted only.
const MAX_EVENTS: usize = 20;

/// Leased workers that nobody has heard of which are told once; of more, nothing is told.
const MAX_UNHEARD: usize = 10_000;

/// Takes orders in.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Where they go.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What becomes of leases.
    pub leases: LeaseRules,
    /// Who sets keys otherwise; none: nobody may.
    pub remote: Option<Remote>,
    /// Where refusals and tasks are shown.
    pub board: Board,
    /// Leased workers of which it was told that nobody has heard of them: leases are repeated, and this is not.
    pub unheard: Arc<Mutex<HashSet<MeshWorker>>>,
}

/// What became of the leases of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TakenLeases {
    /// Leases that were set.
    pub set: usize,
    /// Scores that changed.
    pub changed: u64,
    /// Entries that were refused.
    pub refused: usize,
}

/// An order's verdict: what it is acknowledged with.
type Verdict = (AckStatus, Object);

impl Orders {
    /// Sets leases. A score that is no number is refused; a negative one counts as 0; a worker that nobody has heard of keeps
    /// its lease for when it comes.
    ///
    /// # Errors
    /// The store does not answer; leases of earlier batches may be set.
    pub async fn leases(&self, publish: &LeasePublish) -> Result<TakenLeases, StoreError> {
        let now_ms = self.clock.unix_ms();
        let mut events = Events { orders: self, kind: MessageType::LeasePublish, left: MAX_EVENTS };
        if !self.leases.taken {
            events.refuse("source", "leases.source is api: the marketplace's leases do not count").await;
            return Ok(TakenLeases { refused: publish.leases.len() + publish.refused.len(), ..TakenLeases::default() });
        }
        let mut refused = publish.refused.len();
        for entry in &publish.refused {
            events.refuse(entry.reason(), &entry.to_string()).await;
        }
        let mut leases = Vec::with_capacity(publish.leases.len());
        for entry in &publish.leases {
            let (worker, said) = (&entry.worker_key, entry.score);
            let Some(score) = LeaseScore::new(said) else {
                refused += 1;
                events.refuse("not_finite", &format!("{worker}: a score of {said} is no lease")).await;
                continue;
            };
            if self.leases.max_score.is_some_and(|most| score.get() > most) {
                refused += 1;
                events.refuse("too_large", &format!("{worker}: {said} is above lease.max_score")).await;
                continue;
            }
            if said < 0.0 {
                events.note("negative", &format!("{worker}: a score of {said} counts as 0")).await;
            }
            if self.is_news_of_a_stranger(worker).await? {
                events.note("unknown_worker", &format!("{worker}: not heard of yet, its lease is kept")).await;
            }
            leases.push((worker.hotkey, worker.worker_id.clone(), score));
        }
        if self.leases.snapshot {
            let named: HashSet<(Hotkey, WorkerId)> =
                leases.iter().map(|(hotkey, worker_id, _)| (*hotkey, worker_id.clone())).collect();
            let standing = self.store.leases().await?.into_iter().filter(|lease| {
                lease.score > 0.0 && lease.source == SOURCE && !named.contains(&(lease.hotkey, lease.worker_id.clone()))
            });
            leases.extend(standing.map(|lease| (lease.hotkey, lease.worker_id, LeaseScore::NONE)));
        }
        let changed = self.store.set_leases(&leases, SOURCE, now_ms).await?;
        let taken = TakenLeases { set: leases.len(), changed, refused };
        if changed > 0 || refused > 0 {
            tracing::info!(set = taken.set, changed, refused, "leases published");
        }
        Ok(taken)
    }

    async fn is_news_of_a_stranger(&self, worker: &MeshWorker) -> Result<bool, StoreError> {
        if self.store.is_known_worker(worker.hotkey, &worker.worker_id).await? {
            return Ok(false);
        }
        let mut unheard = self.unheard.lock();
        Ok(unheard.len() < MAX_UNHEARD && unheard.insert(worker.clone()))
    }

    /// Sets keys otherwise, all of a message or none; says what became of it.
    pub async fn config(&self, update: &ConfigUpdate) -> Verdict {
        let outcome = match &self.remote {
            Some(remote) => remote.apply(update),
            None => Err(super::remote::Rejection::off()),
        };
        let diff = json!(update.payload).to_string();
        let (accepted, reason) = match &outcome {
            Ok(applied) => (true, applied.join(" ")),
            Err(rejection) => (false, rejection.to_string()),
        };
        if let Err(error) =
            self.store.record_config_change(SOURCE, &bounded(&diff), accepted, &reason, self.clock.unix_ms()).await
        {
            tracing::error!(%error, "a change of the configuration was not written down: check the database");
        }
        match outcome {
            Ok(applied) => {
                tracing::warn!(keys = applied.join(" "), "the marketplace has set these keys otherwise");
                (AckStatus::Accepted, Object::new())
            }
            Err(rejection) => {
                let mut events = Events { orders: self, kind: MessageType::ConfigUpdate, left: 1 };
                events.refuse(rejection.name(), &reason).await;
                (AckStatus::Failed, rejection.metadata())
            }
        }
    }

    /// Writes a task down; none for one without a name, which nobody can answer.
    pub async fn task(&self, task: &TaskPublish) -> Option<Verdict> {
        let now_ms = self.clock.unix_ms();
        let mut events = Events { orders: self, kind: MessageType::TaskPublish, left: 1 };
        let Some(key) = task.task_key.as_deref().filter(|key| !key.is_empty()) else {
            events.refuse("no_task_key", "a task without taskKey").await;
            return None;
        };
        let payload = json!(task.payload).to_string();
        let is_long = |text: &str| text.chars().count() > MAX_TASK_CHARS;
        if is_long(key) || is_long(&task.task_type) || payload.len() > MAX_TASK_BYTES {
            events.refuse("too_large", "a task with too long a name, type or payload").await;
            return Some(failed("too_large"));
        }
        let new = NewTask {
            key: key.to_owned(),
            worker: task.worker_key.clone().map(|worker| worker.chars().take(320).collect()),
            kind: task.task_type.clone(),
            payload,
            priority: task.priority,
            expires_at_ms: task.ttl.map(|ttl_ms| now_ms.saturating_add(ttl_ms.max(0))),
        };
        let stored = async {
            self.store.expire_tasks(now_ms).await?;
            if self.store.pending_tasks().await? >= MAX_TASKS {
                return Ok(None);
            }
            self.store.record_task(&new, now_ms).await.map(Some)
        };
        match stored.await {
            Ok(Some(true)) => {
                self.board.note(|status| status.tasks += 1);
                Some((AckStatus::Accepted, Object::new()))
            }
            Ok(Some(false)) => {
                events.note("duplicate", &format!("task {key} is known already")).await;
                Some((AckStatus::Duplicate, Object::new()))
            }
            Ok(None) => {
                events.refuse("full", "too many tasks wait").await;
                Some(failed("full"))
            }
            Err(error) => {
                let error: StoreError = error;
                tracing::error!(%error, "task not stored: check the database");
                Some(failed("not_stored"))
            }
        }
    }

    /// Counts a message that was refused as a whole.
    pub async fn refuse(&self, kind: &str, reason: &'static str, note: &str) {
        count(reason);
        self.board.note(|status| status.refused += 1);
        tracing::warn!(kind, reason, note, "a message of the marketplace was refused");
        if let Err(error) = self.store.record_hub_event(kind, reason, note, self.clock.unix_ms()).await {
            tracing::error!(%error, "a refused message was not written down: check the database");
        }
    }
}

/// The acknowledgement of an order.
pub fn ack(kind: MessageType, message_id: String, (status, metadata): Verdict) -> Ack {
    Ack { message_id, message_type: kind.name().to_owned(), status, metadata }
}

fn failed(error: &str) -> Verdict {
    let mut metadata = Object::new();
    metadata.insert("error".to_owned(), Value::from(error));
    (AckStatus::Failed, metadata)
}

/// JSON that is stored whole, or not at all.
fn bounded(json: &str) -> String {
    if json.len() <= MAX_TASK_BYTES { json.to_owned() } else { "{}".to_owned() }
}

fn count(reason: &'static str) {
    metrics::counter!("marketplace_refused_total", "reason" => reason).increment(1);
}

/// What is odd about one message: all of it counted, the first of it written down.
struct Events<'a> {
    orders: &'a Orders,
    kind: MessageType,
    left: usize,
}

impl Events<'_> {
    /// A part that does not count.
    async fn refuse(&mut self, reason: &'static str, note: &str) {
        self.orders.board.note(|status| status.refused += 1);
        self.note(reason, note).await;
    }

    /// A part that counts otherwise than it was said.
    async fn note(&mut self, reason: &'static str, note: &str) {
        count(reason);
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        tracing::info!(kind = %self.kind, reason, note, "odd part of a message of the marketplace");
        let (store, now_ms) = (&self.orders.store, self.orders.clock.unix_ms());
        if let Err(error) = store.record_hub_event(self.kind.name(), reason, note, now_ms).await {
            tracing::error!(%error, "an odd message was not written down: check the database");
        }
    }
}

#[cfg(test)]
mod tests {
    use byteleap_daemon::clock::ManualClock;
    use byteleap_protocol::lenient;

    use super::super::status::State;
    use super::*;
    use crate::store::testing::{on_both_engines, store};

    const MINER: Hotkey = Hotkey([7; 32]);

    async fn orders(leases: LeaseRules) -> Orders {
        let clock = Arc::new(ManualClock::new(1_000));
        let board = Board::new(State::Ready, 0);
        Orders { store: store().await, clock, leases, remote: None, board, unheard: Arc::default() }
    }

    const ALL: LeaseRules = LeaseRules { taken: true, snapshot: false, max_score: None };

    fn publish(scores: &[(&str, &str)]) -> LeasePublish {
        let entries: Vec<String> =
            scores.iter().map(|(id, score)| format!(r#"{{"workerKey":"{MINER}:{id}","score":{score}}}"#)).collect();
        let text = format!(r#"{{"workerScores":[{}]}}"#, entries.join(","));
        serde_json::from_value(lenient::parse(&text).unwrap()).unwrap()
    }

    async fn scores(orders: &Orders) -> Vec<(String, f64)> {
        let leases = orders.store.leases().await.unwrap();
        leases.into_iter().map(|lease| (lease.worker_id.to_string(), lease.score)).collect()
    }

    async fn reasons(orders: &Orders) -> Vec<String> {
        let mut reasons: Vec<_> =
            orders.store.last_hub_events(100).await.unwrap().into_iter().map(|event| event.2).collect();
        reasons.sort();
        reasons
    }

    async fn infinite_scores_are_refused_negative_ones_count_as_none_and_the_rest_stands() {
        let orders = orders(ALL).await;
        let said = publish(&[("a", "0.5"), ("b", "Infinity"), ("c", "-2"), ("d", "null"), ("e", r#""7""#)]);
        let taken = orders.leases(&said).await.unwrap();
        assert_eq!(taken, TakenLeases { set: 3, changed: 3, refused: 2 });
        let expected = [("a", 0.5), ("c", 0.0), ("e", 7.0)].map(|(id, score)| (id.to_owned(), score));
        assert_eq!(scores(&orders).await, expected);
        assert_eq!(
            reasons(&orders).await,
            ["negative", "not_finite", "score_no_number", "unknown_worker", "unknown_worker", "unknown_worker"]
        );
        assert_eq!(orders.board.get().refused, 2);
    }

    async fn a_message_is_a_patch_or_the_whole_list_as_configured() {
        let patch = orders(ALL).await;
        patch.leases(&publish(&[("a", "1"), ("b", "1")])).await.unwrap();
        patch.leases(&publish(&[("b", "2")])).await.unwrap();
        assert_eq!(scores(&patch).await, [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        let whole = Orders { leases: LeaseRules { snapshot: true, ..ALL }, ..patch };
        whole.store.set_lease(MINER, &"c".parse().unwrap(), LeaseScore::new(3.0).unwrap(), "api", 1).await.unwrap();
        whole.leases(&publish(&[("b", "2")])).await.unwrap();
        let expected = [("a", 0.0), ("b", 2.0), ("c", 3.0)].map(|(id, score)| (id.to_owned(), score));
        assert_eq!(scores(&whole).await, expected, "what another source said stands");
    }

    async fn leases_of_a_source_that_does_not_count_and_scores_above_the_limit_are_refused() {
        let api_only = orders(LeaseRules { taken: false, ..ALL }).await;
        assert_eq!(api_only.leases(&publish(&[("a", "1")])).await.unwrap().refused, 1);
        let limited = Orders { leases: LeaseRules { max_score: Some(1.0), ..ALL }, ..api_only };
        let taken = limited.leases(&publish(&[("a", "1"), ("b", "1.5")])).await.unwrap();
        assert_eq!((taken.set, taken.refused), (1, 1));
    }

    async fn a_task_is_answered_truthfully() {
        let orders = orders(ALL).await;
        let task = |key: Value| -> TaskPublish {
            serde_json::from_value(json!({ "taskKey": key, "workerKey": "x", "ttl": 60_000 })).unwrap()
        };
        let status = |verdict: Option<Verdict>| verdict.map(|(status, _)| status);
        assert_eq!(status(orders.task(&task(json!("t"))).await), Some(AckStatus::Accepted));
        assert_eq!(status(orders.task(&task(json!("t"))).await), Some(AckStatus::Duplicate));
        assert_eq!(status(orders.task(&task(json!("t".repeat(65)))).await), Some(AckStatus::Failed));
        assert_eq!(status(orders.task(&task(Value::Null)).await), None);
        assert_eq!(orders.board.get().tasks, 1);
        assert_eq!(orders.store.expire_tasks(61_001).await.unwrap(), 1);
    }

    async fn nobody_sets_keys_where_nobody_may() {
        let orders = orders(ALL).await;
        let update = ConfigUpdate { payload: Object::new() };
        let (status, metadata) = orders.config(&update).await;
        assert_eq!((status, &metadata["error"]), (AckStatus::Failed, &json!("remote_config_off")));
    }

    on_both_engines!(
        infinite_scores_are_refused_negative_ones_count_as_none_and_the_rest_stands,
        a_message_is_a_patch_or_the_whole_list_as_configured,
        leases_of_a_source_that_does_not_count_and_scores_above_the_limit_are_refused,
        a_task_is_answered_truthfully,
        nobody_sets_keys_where_nobody_may,
    );
}
