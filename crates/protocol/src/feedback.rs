//! What a validator tells beside the acknowledgement of a heartbeat: of each worker its lease, its last verdict, its score,
//! and why it gets no challenge.
//!
//! A validator puts a [`MinerFeedback`] under a key of its own into its answer to a heartbeat; the miner shows it and passes
//! each worker's part on as a [`Relayed`] frame, to workers that have proved a key and are therefore none of the former
//! kind. Former peers read over both (miner-validator spec 2.1, worker-miner spec 2.1). Nothing here is relied upon: what is
//! missing or strange is left out, and never costs the answer that it came in.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::hotkey::Hotkey;
use crate::id::{ChallengeId, WorkerId};
use crate::{Object, lenient};

/// Workers of one answer beyond this are left out, as in a heartbeat (validator spec 3.3).
pub const MAX_WORKERS: usize = 256;

/// Validators of one frame to a worker beyond this are left out.
pub const MAX_VALIDATORS: usize = 64;

/// A text for people is cut to so many characters.
pub const MAX_NOTE_CHARS: usize = 200;

/// What a validator tells a miner of itself and its workers.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct MinerFeedback {
    /// What the last round gave to the miner; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<MinerScore>,
    /// Its workers that are online.
    pub workers: Vec<WorkerFeedback>,
}

/// What the last scoring round gave to a miner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinerScore {
    /// The round's number.
    #[serde(deserialize_with = "lenient::read")]
    pub round: i64,
    /// The instant that it scored, ms since 1970.
    #[serde(deserialize_with = "lenient::read")]
    pub at_ms: i64,
    /// The score.
    #[serde(deserialize_with = "lenient::read")]
    pub score: f64,
    /// Its share of all scores, 0 to 1.
    #[serde(deserialize_with = "lenient::read")]
    pub weight: f64,
    /// Why the score is zero.
    #[serde(default, deserialize_with = "note", skip_serializing_if = "Option::is_none")]
    pub zero: Option<String>,
}

/// What a validator tells of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerFeedback {
    /// Which.
    pub worker_id: WorkerId,
    /// Whether it is rented; none where the marketplace has never named it.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How its last challenge ended; none before the first.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What the last round gave to it; none before its first.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub score: Option<WorkerScore>,
    /// Why it gets no challenge now; none where its turn comes or has come.
    #[serde(default, deserialize_with = "note", skip_serializing_if = "Option::is_none")]
    pub no_challenge: Option<String>,
    /// When its next turn comes, ms since 1970; none where nothing says.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub next_challenge_at_ms: Option<i64>,
}

/// Whether a worker is rented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whether it is.
    #[serde(deserialize_with = "lenient::read")]
    pub leased: bool,
    /// Since when that is so, ms since 1970.
    #[serde(deserialize_with = "lenient::read")]
    pub changed_at_ms: i64,
    /// When the marketplace last said so, ms since 1970.
    #[serde(deserialize_with = "lenient::read")]
    pub confirmed_at_ms: i64,
    /// Whether it was not repeated for longer than the validator deems sound.
    #[serde(default, deserialize_with = "lenient::read")]
    pub is_stale: bool,
}

/// How a challenge ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which.
    pub challenge_id: ChallengeId,
    /// Its kind, as text.
    #[serde(deserialize_with = "label")]
    pub kind: String,
    /// How.
    pub outcome: Outcome,
    /// Why it was not verified.
    #[serde(default, deserialize_with = "note", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, ms since 1970.
    #[serde(deserialize_with = "lenient::read")]
    pub ended_at_ms: i64,
    /// Units that passed.
    #[serde(default, deserialize_with = "lenient::read")]
    pub units_ok: u32,
    /// Units that committed.
    #[serde(default, deserialize_with = "lenient::read")]
    pub units: u32,
    /// From handing out to commitment, ms: the time that scores.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub compute_ms: Option<f64>,
    /// What the check took, ms.
    #[serde(default, deserialize_with = "part", skip_serializing_if = "Option::is_none")]
    pub verify_ms: Option<f64>,
}

/// The end of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything held.
    Verified,
    /// There is evidence against the worker.
    Failed,
    /// It counts for nothing.
    Void,
}

impl Outcome {
    /// Its text, as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Void => "void",
        }
    }
}

/// What the last scoring round gave to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerScore {
    /// The round's number.
    #[serde(deserialize_with = "lenient::read")]
    pub round: i64,
    /// The instant that it scored, ms since 1970.
    #[serde(deserialize_with = "lenient::read")]
    pub at_ms: i64,
    /// What the worker contributes to its miner.
    #[serde(deserialize_with = "lenient::read")]
    pub performance: f64,
    /// Challenges that counted.
    #[serde(default, deserialize_with = "lenient::read")]
    pub attempts: u32,
    /// Those that passed.
    #[serde(default, deserialize_with = "lenient::read")]
    pub successes: u32,
    /// Why the performance is zero.
    #[serde(default, deserialize_with = "note", skip_serializing_if = "Option::is_none")]
    pub zero: Option<String>,
}

/// What one validator told of one worker, and when its miner heard it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Who told it.
    pub validator: Hotkey,
    /// When, ms since 1970 by the miner's clock.
    #[serde(deserialize_with = "lenient::read")]
    pub at_ms: i64,
    /// What.
    pub feedback: WorkerFeedback,
}

/// What a miner passes on to a worker.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Relayed {
    /// Why the miner has no work for it; none while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// What each validator told of it.
    pub validators: Vec<Told>,
}

impl<'de> Deserialize<'de> for MinerFeedback {
    /// Any value is feedback; what of it is none is left out.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = lenient_object(Value::deserialize(deserializer)?);
        Ok(Self {
            score: object.remove("score").and_then(fit),
            workers: entries(object.remove("workers"), MAX_WORKERS),
        })
    }
}

impl<'de> Deserialize<'de> for Relayed {
    /// Any value is feedback; what of it is none is left out.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = lenient_object(Value::deserialize(deserializer)?);
        let idle_because = object.remove("idle_because").and_then(|value| cut(value.as_str()?));
        Ok(Self { idle_because, validators: entries(object.remove("validators"), MAX_VALIDATORS) })
    }
}

fn lenient_object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// The entries of a list that can be read, the first `limit` of them looked at.
fn entries<T: DeserializeOwned>(list: Option<Value>, limit: usize) -> Vec<T> {
    let Some(Value::Array(list)) = list else { return Vec::new() };
    list.into_iter().take(limit).filter_map(fit).collect()
}

fn fit<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// A part that is left out where it cannot be read.
fn part<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Value::deserialize(deserializer).map(fit)
}

/// A text for people, left out where it is none.
fn note<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().and_then(cut))
}

/// A short text that must be there.
fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    note(deserializer)?.ok_or_else(|| serde::de::Error::custom("expected a text"))
}

/// A text as it may be shown: without control characters and no longer than [`MAX_NOTE_CHARS`]; none if nothing is left.
#[must_use]
pub fn cut(text: &str) -> Option<String> {
    let printable: String = text.chars().filter(|character| !character.is_control()).collect();
    let kept: String = printable.trim().chars().take(MAX_NOTE_CHARS).collect();
    let kept = kept.trim_end();
    (!kept.is_empty()).then(|| kept.to_owned())
}

/// Rendering for people: each line is relative to `now_ms`, ms since 1970.
impl WorkerFeedback {
    /// Whether it is leased, since when, and whether that is fresh.
    #[must_use]
    pub fn lease_line(&self, now_ms: i64) -> String {
        let Some(lease) = &self.lease else { return "no".to_owned() };
        let what = if lease.leased { "yes" } else { "no" };
        let stale = match lease.is_stale {
            true => format!(", stale: last confirmed {}", ago(lease.confirmed_at_ms, now_ms)),
            false => String::new(),
        };
        format!("{what}, since {}{stale}", span(lease.changed_at_ms, now_ms))
    }

    /// How the last challenge ended, when, and what it took.
    #[must_use]
    pub fn verdict_line(&self, now_ms: i64) -> String {
        let Some(verdict) = &self.verdict else { return "none yet".to_owned() };
        let mut line = format!("{} {} {}", verdict.kind, verdict.outcome.as_str(), ago(verdict.ended_at_ms, now_ms));
        if verdict.units > 1 {
            line.push_str(&format!(", {} of {} units", verdict.units_ok, verdict.units));
        }
        for (name, ms) in [("commitment after", verdict.compute_ms), ("verified in", verdict.verify_ms)] {
            line.extend(ms.map(|ms| format!(", {name} {ms:.0} ms")));
        }
        line.extend(verdict.reason.as_ref().map(|reason| format!(": {reason}")));
        line
    }

    /// What the last round gave.
    #[must_use]
    pub fn score_line(&self, now_ms: i64) -> String {
        let Some(score) = &self.score else { return "not scored yet".to_owned() };
        let WorkerScore { round, at_ms, performance, attempts, successes, zero } = score;
        let why = zero.as_ref().map(|zero| format!(": {zero}")).unwrap_or_default();
        let when = ago(*at_ms, now_ms);
        format!("{performance:.4} in round {round} {when}, {successes} of {attempts} challenges passed{why}")
    }

    /// Why no challenge comes, or when the next one does.
    #[must_use]
    pub fn turn_line(&self, now_ms: i64) -> String {
        match (&self.no_challenge, self.next_challenge_at_ms) {
            (Some(reason), _) => reason.clone(),
            (None, Some(at_ms)) if at_ms > now_ms => format!("next one in {}", span(now_ms, at_ms)),
            (None, _) => "its turn has come".to_owned(),
        }
    }
}

impl MinerScore {
    /// What the last round gave, relative to `now_ms`, ms since 1970.
    #[must_use]
    pub fn line(&self, now_ms: i64) -> String {
        let Self { round, at_ms, score, weight, zero } = self;
        let why = zero.as_ref().map(|zero| format!(": {zero}")).unwrap_or_default();
        format!("{score:.4}, weight {weight:.4} in round {round} {}{why}", ago(*at_ms, now_ms))
    }
}

impl Told {
    /// Who told it, and how long ago.
    #[must_use]
    pub fn teller(&self, now_ms: i64) -> String {
        format!("{} {}", self.validator, ago(self.at_ms, now_ms))
    }
}

fn ago(at_ms: i64, now_ms: i64) -> String {
    format!("{} ago", span(at_ms, now_ms))
}

/// A span in its largest whole unit but one; clocks of two machines differ, so none is below zero.
fn span(from_ms: i64, to_ms: i64) -> String {
    let seconds = to_ms.saturating_sub(from_ms).max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> MinerFeedback {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn whatever_is_strange_is_left_out_and_the_rest_is_kept() {
        for strange in
            [json!(null), json!([1]), json!("x"), json!({"workers": {}, "score": 7}), json!({"workers": [0]})]
        {
            assert_eq!(read(strange), MinerFeedback::default());
        }
        let feedback = read(json!({"novelty": 1, "score": {"round": "3", "at_ms": 5.0, "score": 1, "weight": "NaN"},
            "workers": [
                {"worker_id": "w1", "lease": {"leased": "yes", "changed_at_ms": 1, "confirmed_at_ms": 2},
                 "verdict": {"challenge_id": "c", "kind": "cpu_matrix", "outcome": "perhaps", "ended_at_ms": 1},
                 "no_challenge": 7},
                {"worker_id": ""},
                {"worker_id": "w2", "no_challenge": " \u{1b}[2J leased ", "next_challenge_at_ms": "soon"}]}));
        assert_eq!(feedback.score, None);
        let [first, second] = feedback.workers.as_slice() else { panic!("{feedback:?}") };
        let lease = Lease { leased: true, changed_at_ms: 1, confirmed_at_ms: 2, is_stale: false };
        assert_eq!((first.lease, &first.verdict, &first.no_challenge), (Some(lease), &None, &None));
        assert_eq!((second.no_challenge.as_deref(), second.next_challenge_at_ms), (Some("[2J leased"), None));
    }

    #[test]
    fn no_more_is_read_than_may_be_kept() {
        let workers: Vec<_> = (0..MAX_WORKERS + 1).map(|number| json!({"worker_id": format!("w{number}")})).collect();
        assert_eq!(read(json!({ "workers": workers })).workers.len(), MAX_WORKERS);
        assert_eq!(cut(&"é".repeat(MAX_NOTE_CHARS + 1)).unwrap().chars().count(), MAX_NOTE_CHARS);
    }

    #[test]
    fn a_person_reads_what_happened_and_how_long_ago() {
        let feedback: WorkerFeedback = serde_json::from_value(json!({
            "worker_id": "w1",
            "lease": {"leased": true, "changed_at_ms": 0, "confirmed_at_ms": 7_000_000, "is_stale": true},
            "verdict": {"challenge_id": "c", "kind": "gpu_matrix", "outcome": "failed", "reason": "no GPU passed",
                        "ended_at_ms": 7_195_000, "units": 8, "compute_ms": 812.4, "verify_ms": 9},
            "score": {"round": 12, "at_ms": 7_080_000, "performance": 0.5, "attempts": 4, "successes": 3},
            "next_challenge_at_ms": 7_230_000,
        }))
        .unwrap();
        let now_ms = 7_200_000;
        assert_eq!(feedback.lease_line(now_ms), "yes, since 2 h, stale: last confirmed 3 min ago");
        assert_eq!(
            feedback.verdict_line(now_ms),
            "gpu_matrix failed 5 s ago, 0 of 8 units, commitment after 812 ms, verified in 9 ms: no GPU passed"
        );
        assert_eq!(feedback.score_line(now_ms), "0.5000 in round 12 2 min ago, 3 of 4 challenges passed");
        assert_eq!(feedback.turn_line(now_ms), "next one in 30 s");
        assert_eq!(feedback.turn_line(i64::MAX), "its turn has come");
    }
}
