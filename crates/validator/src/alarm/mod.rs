//! What a person must hear of: raised once, cleared once, in the log, in the metrics, in `/status` and at a webhook.
//!
//! [`watch`] looks at the validator every few seconds and says what is wrong by [`facts`] and [`Limits`]; [`Alarms`] keeps
//! what is raised, so that only changes go on; [`webhook`] carries these to a person. [`peers`] is how we know that our
//! clock is wrong.

pub mod facts;
pub mod peers;
pub mod watch;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// What can be wrong (validator spec 11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// Our clock differs from that of our miners.
    ClockOffset,
    /// Several workers claim the same card.
    ContestedGpus,
    /// The disk of database or log fills up.
    LowDisk,
    /// The marketplace is not connected.
    MarketplaceGone,
    /// Scoring has stopped: the newest round is too old to be paid.
    NoRound,
    /// No weights of ours for two tempos.
    NoSubmission,
    /// The hotkey lost its permit.
    PermitLost,
    /// The hotkey is no longer registered.
    RegistrationLost,
    /// The marketplace has not repeated its leases for long.
    StaleLeases,
    /// Proofs wait too long for their verdict.
    VerificationBacklog,
}

impl Alarm {
    /// Every alarm.
    pub const ALL: [Self; 10] = [
        Self::ClockOffset,
        Self::ContestedGpus,
        Self::LowDisk,
        Self::MarketplaceGone,
        Self::NoRound,
        Self::NoSubmission,
        Self::PermitLost,
        Self::RegistrationLost,
        Self::StaleLeases,
        Self::VerificationBacklog,
    ];

    /// The name in metrics, status and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClockOffset => "clock_offset",
            Self::ContestedGpus => "contested_gpus",
            Self::LowDisk => "low_disk",
            Self::MarketplaceGone => "marketplace_gone",
            Self::NoRound => "no_round",
            Self::NoSubmission => "no_submission",
            Self::PermitLost => "permit_lost",
            Self::RegistrationLost => "registration_lost",
            Self::StaleLeases => "stale_leases",
            Self::VerificationBacklog => "verification_backlog",
        }
    }
}

/// From where on something is wrong; the section `alarms` of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Where changes are sent.
    pub webhook: Option<webhook::Webhook>,
    /// A proof may wait for its verdict for so long.
    pub verification_wait: Duration,
    /// A lease is stale when it was not repeated for so long.
    pub lease_stale_after: Duration,
    /// Free space of the disk below which it is low, in bytes.
    pub min_free_disk_bytes: u64,
    /// Our clock may differ by so much.
    pub max_clock_offset: Duration,
}

/// What was found about each alarm: wrong in these words, or fine. What could not be found out is not here, and then the
/// alarm stays as it is.
pub type Findings = BTreeMap<Alarm, Option<String>>;

/// An alarm that is raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// Which.
    pub alarm: Alarm,
    /// What is wrong and what to do, as last found.
    pub text: String,
    /// Since when.
    pub since_ms: i64,
}

/// A change that a person must hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which alarm.
    pub alarm: Alarm,
    /// Raised, or cleared.
    pub is_raised: bool,
    /// What is wrong, or was.
    pub text: String,
}

/// The alarms of this process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Alarms(Arc<Mutex<BTreeMap<Alarm, Raised>>>);

impl Alarms {
    /// Takes findings in and returns what has changed by them.
    pub fn take_in(&self, findings: Findings, now_ms: i64) -> Vec<Change> {
        let mut raised = self.0.lock();
        let mut changes = Vec::new();
        for (alarm, finding) in findings {
            match (finding, raised.get_mut(&alarm)) {
                (Some(text), Some(known)) => known.text = text,
                (Some(text), None) => {
                    raised.insert(alarm, Raised { alarm, text: text.clone(), since_ms: now_ms });
                    changes.push(Change { alarm, is_raised: true, text });
                }
                (None, Some(_)) => {
                    let text = raised.remove(&alarm).map(|raised| raised.text).unwrap_or_default();
                    changes.push(Change { alarm, is_raised: false, text });
                }
                (None, None) => {}
            }
        }
        changes
    }

    /// What is raised now.
    pub fn raised(&self) -> Vec<Raised> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_once_and_cleared_once() {
        let alarms = Alarms::default();
        let found = |text: Option<&str>| BTreeMap::from([(Alarm::LowDisk, text.map(str::to_owned))]);
        assert_eq!(alarms.take_in(found(None), 1), []);
        let raised = alarms.take_in(found(Some("400 MB left")), 2);
        assert_eq!(raised, [Change { alarm: Alarm::LowDisk, is_raised: true, text: "400 MB left".to_owned() }]);
        assert_eq!(alarms.take_in(found(Some("300 MB left")), 3), []);
        assert_eq!((alarms.raised()[0].text.as_str(), alarms.raised()[0].since_ms), ("300 MB left", 2));
        assert_eq!(alarms.take_in(BTreeMap::new(), 4), [], "unknown: it stays raised");
        assert_eq!(alarms.take_in(found(None), 5).len(), 1);
        assert!(alarms.raised().is_empty() && alarms.take_in(found(None), 6).is_empty());
    }

    #[test]
    fn every_alarm_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Alarm::ALL.map(Alarm::name).into();
        assert_eq!(names.len(), Alarm::ALL.len());
        for alarm in Alarm::ALL {
            assert_eq!(serde_json::json!(alarm), alarm.name());
        }
    }
}
