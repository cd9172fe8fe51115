//! What validators told of the workers in their answers to heartbeats, kept for `status` and passed on to the workers.
//!
//! Only the newest answer of each validator in use is kept, as it was read: bounded and without control characters
//! (`byteleap_protocol::feedback`). Nothing is decided by it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use byteleap_protocol::{
    feedback::{MAX_VALIDATORS, MinerFeedback, MinerScore, Told},
    hotkey::Hotkey,
    id::WorkerId,
};

/// What came of the last report to a validator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// What it said, or why nothing came back, for people.
    pub(crate) message: String,
    /// What it told of the miner and its workers; none by a validator that tells nothing.
    pub(crate) feedback: Option<MinerFeedback>,
}

/// The last answer of every validator, as a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(Arc<Mutex<BTreeMap<Hotkey, Answer>>>);

impl Answers {
    /// Keeps what came of a report. A report that failed leaves standing what the validator told before.
    pub(super) fn keep(&self, validator: Hotkey, mut answer: Answer) {
        let mut table = self.table();
        if answer.feedback.is_none()
            && let Some(before) = table.remove(&validator)
        {
            answer.feedback = before.feedback;
        }
        table.insert(validator, answer);
    }

    /// Forgets the validators that are no longer in use.
    pub(super) fn retain(&self, in_use: impl Fn(&Hotkey) -> bool) {
        self.table().retain(|validator, _| in_use(validator));
    }

    /// What came of the last report to a validator, and what it told of the miner itself.
    pub(crate) fn of_validator(&self, validator: &Hotkey) -> Option<(String, Option<MinerScore>)> {
        let table = self.table();
        let answer = table.get(validator)?;
        Some((answer.message.clone(), answer.feedback.as_ref().and_then(|feedback| feedback.score.clone())))
    }

    /// What each validator told of each worker, by validator.
    pub(crate) fn by_worker(&self) -> BTreeMap<WorkerId, Vec<Told>> {
        let mut told: BTreeMap<WorkerId, Vec<Told>> = BTreeMap::new();
        for (validator, answer) in self.table().iter().take(MAX_VALIDATORS) {
            for feedback in answer.feedback.iter().flat_map(|feedback| &feedback.workers) {
                let (validator, feedback) = (*validator, feedback.clone());
                told.entry(feedback.worker_id.clone()).or_default().push(Told {
                    validator,
                    at_ms: answer.at_ms,
                    feedback,
                });
            }
        }
        told
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Hotkey, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(at_ms: i64, feedback: serde_json::Value) -> Answer {
        Answer { at_ms, message: "taken".to_owned(), feedback: serde_json::from_value(feedback).expect("feedback") }
    }

    #[test]
    fn a_report_that_fails_leaves_what_was_told_before_and_a_validator_that_goes_takes_it_along() {
        let (answers, first, second) = (Answers::default(), Hotkey([1; 32]), Hotkey([2; 32]));
        let told = json!({"workers": [{"worker_id": "w1", "no_challenge": "it is leased"}]});
        answers.keep(first, answer(1, told.clone()));
        answers.keep(second, answer(2, told));
        answers.keep(first, Answer { at_ms: 3, message: "no answer".to_owned(), feedback: None });
        assert_eq!(answers.of_validator(&first).map(|(message, _)| message).as_deref(), Some("no answer"));
        let worker = WorkerId::new("w1").expect("an id");
        let heard =
            |answers: &Answers| answers.by_worker()[&worker].iter().map(|told| told.validator).collect::<Vec<_>>();
        assert_eq!(heard(&answers), [first, second]);
        answers.retain(|validator| *validator == second);
        assert_eq!(heard(&answers), [second]);
    }
}
