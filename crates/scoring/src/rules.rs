//! The rules of a round: a profile (what is rewarded) and the windows (over which time).
//!
//! A profile is a named set of keys; each key can be set singly and then wins over the profile
//! ([`Profile::with`]). The texts of names and values are those of the configuration file (validator spec 5.5).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Largest value of one score weight. Only the proportion of the two weights matters, so this refuses nothing but typing errors.
pub const MAX_SCORE_WEIGHT: f64 = 1_000.0;

/// Declares a key's possible values once: the enum, and its text in configuration files, JSON and messages.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$value_doc])* #[serde(rename = $text)] $value,)+ }

        impl $name {
            /// Every value, as written in a configuration file.
            pub const TEXTS: &'static [&'static str] = &[$($text),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $text,)+ })
            }
        }

        impl FromStr for $name {
            type Err = RulesError;

            fn from_str(text: &str) -> Result<Self, RulesError> {
                match text {
                    $($text => Ok(Self::$value),)+
                    _ => Err(RulesError::Choice { found: text.to_owned(), accepted: Self::TEXTS }),
                }
            }
        }
    };
}

choices! {
    /// The named sets of keys (`scoring.profile`).
    ProfileName {
        /// What the public documents say: 90 % leases, 10 % challenges.
        Docs9010 = "docs-90-10",
        /// Leases alone.
        Docs1000 = "docs-100-0",
        /// What the Python validator of release 0.0.5 computes.
        Reference005 = "reference-0.0.5",
    }
}

choices! {
    /// How a worker's challenges become its performance (`performance.mode`).
    PerformanceMode {
        /// By rank among all ranked workers: first by successes up to the baseline, then by time per unit.
        Ranked = "ranked",
        /// Speed (1 / milliseconds per unit) times participation.
        Absolute = "absolute",
    }
}

choices! {
    /// What availability multiplies (`availability.scope`).
    AvailabilityScope {
        /// The miner's whole score, by the presence of any of its workers.
        MinerComposite = "miner_composite",
        /// The performance of each worker, by its own presence.
        WorkerChallenge = "worker_challenge",
        /// Nothing.
        None = "none",
    }
}

choices! {
    /// The challenge score of a miner with a lease (`leased_challenge`).
    LeasedChallenge {
        /// Its own, as for anybody else.
        Own = "own",
        /// The average of all miners.
        Average = "average",
        /// Zero.
        Zero = "zero",
    }
}

choices! {
    /// How the lease scores of a miner's workers become one number (`lease.aggregate`).
    LeaseAggregate {
        /// Their sum, over the largest sum of the round.
        Sum = "sum",
        /// Their mean over the counted workers, idle ones included.
        Ratio = "ratio",
    }
}

choices! {
    /// Whose results set the maximum that all are divided by (`max_over`), and who is ranked.
    MaxOver {
        /// Miners that are scored: registered and online.
        Scored = "scored",
        /// Every hotkey with results in the window.
        All = "all",
    }
}

choices! {
    /// What happens when nobody scored (`zero_round`).
    ZeroRound {
        /// Nothing is submitted.
        Skip = "skip",
        /// Every known miner gets the same.
        Uniform = "uniform",
        /// Everything goes to the subnet's burn uid.
        Burn = "burn",
    }
}

/// What a round rewards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The named set that this profile started from.
    pub name: ProfileName,
    /// Factor of the lease score in the composite.
    pub lease_weight: f64,
    /// Factor of the challenge score in the composite.
    pub challenge_weight: f64,
    /// `performance.mode`.
    pub performance_mode: PerformanceMode,
    /// `availability.scope`.
    pub availability_scope: AvailabilityScope,
    /// `availability.exclude_own_downtime`: buckets in which the validator recorded no heartbeat at all count for nobody.
    pub exclude_own_downtime: bool,
    /// `leased_challenge`.
    pub leased_challenge: LeasedChallenge,
    /// `lease.aggregate`.
    pub lease_aggregate: LeaseAggregate,
    /// `lease.count_offline`: whether leases of workers that were not seen for 30 minutes count.
    pub lease_count_offline: bool,
    /// `max_over`.
    pub max_over: MaxOver,
    /// `zero_round`.
    pub zero_round: ZeroRound,
}

/// Keys that were set singly; each one present wins over the profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each field is the key of the same name of `Profile`")]
pub struct Overrides {
    pub lease_weight: Option<f64>,
    pub challenge_weight: Option<f64>,
    pub performance_mode: Option<PerformanceMode>,
    pub availability_scope: Option<AvailabilityScope>,
    pub exclude_own_downtime: Option<bool>,
    pub leased_challenge: Option<LeasedChallenge>,
    pub lease_aggregate: Option<LeaseAggregate>,
    pub lease_count_offline: Option<bool>,
    pub max_over: Option<MaxOver>,
    pub zero_round: Option<ZeroRound>,
}

impl Profile {
    /// The keys of a named profile (validator spec 5.5, second table).
    #[must_use]
    pub fn named(name: ProfileName) -> Self {
        let documented = Self {
            name,
            lease_weight: 0.90,
            challenge_weight: 0.10,
            performance_mode: PerformanceMode::Ranked,
            availability_scope: AvailabilityScope::MinerComposite,
            exclude_own_downtime: true,
            leased_challenge: LeasedChallenge::Own,
            lease_aggregate: LeaseAggregate::Sum,
            lease_count_offline: false,
            max_over: MaxOver::Scored,
            zero_round: ZeroRound::Skip,
        };
        match name {
            ProfileName::Docs9010 => documented,
            ProfileName::Docs1000 => Self { lease_weight: 1.0, challenge_weight: 0.0, ..documented },
            ProfileName::Reference005 => Self {
                name,
                lease_weight: 0.70,
                challenge_weight: 0.30,
                performance_mode: PerformanceMode::Absolute,
                availability_scope: AvailabilityScope::WorkerChallenge,
                exclude_own_downtime: false,
                leased_challenge: LeasedChallenge::Average,
                lease_aggregate: LeaseAggregate::Ratio,
                lease_count_offline: true,
                max_over: MaxOver::All,
                zero_round: ZeroRound::Uniform,
            },
        }
    }

    /// This profile with the keys that were set singly.
    #[must_use]
    pub fn with(self, set: &Overrides) -> Self {
        Self {
            name: self.name,
            lease_weight: set.lease_weight.unwrap_or(self.lease_weight),
            challenge_weight: set.challenge_weight.unwrap_or(self.challenge_weight),
            performance_mode: set.performance_mode.unwrap_or(self.performance_mode),
            availability_scope: set.availability_scope.unwrap_or(self.availability_scope),
            exclude_own_downtime: set.exclude_own_downtime.unwrap_or(self.exclude_own_downtime),
            leased_challenge: set.leased_challenge.unwrap_or(self.leased_challenge),
            lease_aggregate: set.lease_aggregate.unwrap_or(self.lease_aggregate),
            lease_count_offline: set.lease_count_offline.unwrap_or(self.lease_count_offline),
            max_over: set.max_over.unwrap_or(self.max_over),
            zero_round: set.zero_round.unwrap_or(self.zero_round),
        }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::named(ProfileName::Docs9010)
    }
}

/// Over which time challenges and presence count (validator spec 5.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// `validation.ranking_window_minutes`: only challenges created within this time count.
    pub ranking_minutes: u32,
    /// `validation.challenge_interval`, in seconds: how often a worker is challenged.
    pub challenge_interval_s: u32,
    /// `validation.participation_rate_threshold`: the share of the possible challenges that makes full participation.
    pub participation_threshold: f64,
    /// `weight_management.availability.window_hours`.
    pub availability_hours: u32,
}

impl Default for Windows {
    fn default() -> Self {
        Self { ranking_minutes: 180, challenge_interval_s: 240, participation_threshold: 0.80, availability_hours: 169 }
    }
}

impl Windows {
    /// The participation baseline E: how many successes in the ranking window make full participation. 36 by default; not rounded.
    #[must_use]
    pub fn baseline(&self) -> f64 {
        f64::from(self.ranking_minutes) * 60.0 / f64::from(self.challenge_interval_s) * self.participation_threshold
    }
}

/// Everything that a round is computed by. Held and stored with each round, so that it can be replayed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Rules {
    profile: Profile,
    windows: Windows,
}

/// The two parts of [`Rules`], before they were checked.
#[derive(Clone, Serialize, Deserialize)]
struct Parts {
    profile: Profile,
    windows: Windows,
}

impl From<Rules> for Parts {
    fn from(Rules { profile, windows }: Rules) -> Self {
        Self { profile, windows }
    }
}

impl TryFrom<Parts> for Rules {
    type Error = RulesError;

    fn try_from(Parts { profile, windows }: Parts) -> Result<Self, RulesError> {
        Self::new(profile, windows)
    }
}

impl Rules {
    /// Checks and joins the two parts.
    ///
    /// # Errors
    /// The first key that no round can be computed by.
    pub fn new(profile: Profile, windows: Windows) -> Result<Self, RulesError> {
        for (key, weight) in [("lease_weight", profile.lease_weight), ("challenge_weight", profile.challenge_weight)] {
            if !(0.0..=MAX_SCORE_WEIGHT).contains(&weight) {
                return Err(RulesError::Weight { key, found: weight });
            }
        }
        if profile.lease_weight + profile.challenge_weight <= 0.0 {
            return Err(RulesError::NoWeight);
        }
        for (key, value) in [
            ("ranking_window_minutes", windows.ranking_minutes),
            ("challenge_interval", windows.challenge_interval_s),
            ("availability.window_hours", windows.availability_hours),
        ] {
            if value == 0 {
                return Err(RulesError::Zero { key });
            }
        }
        if !(0.1..=1.0).contains(&windows.participation_threshold) {
            return Err(RulesError::Threshold { found: windows.participation_threshold });
        }
        Ok(Self { profile, windows })
    }

    /// Joins two parts of which each was checked before.
    pub(crate) fn joined(profile: Profile, windows: Windows) -> Self {
        Self { profile, windows }
    }

    /// What is rewarded.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Over which time.
    #[must_use]
    pub fn windows(&self) -> &Windows {
        &self.windows
    }
}

/// A key that no round can be computed by.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RulesError {
    /// A text that is none of the key's values.
    #[error("{found:?} is not known here; use one of {}", accepted.join(", "))]
    Choice {
        /// The text found.
        found: String,
        /// The texts accepted.
        accepted: &'static [&'static str],
    },
    /// A score weight that is negative, not a number, or absurdly large.
    #[error("score_weights.{key} is {found}; use a number from 0 to {MAX_SCORE_WEIGHT}")]
    Weight {
        /// The key.
        key: &'static str,
        /// Its value.
        found: f64,
    },
    /// Both score weights are zero.
    #[error("score_weights.lease_weight and challenge_weight are both 0; at least one must be positive")]
    NoWeight,
    /// A window or interval of length zero.
    #[error("{key} is 0; use a positive number")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A participation threshold out of bounds.
    #[error("participation_rate_threshold is {found}; use a number from 0.1 to 1.0")]
    Threshold {
        /// Its value.
        found: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_is_what_the_public_documents_say() {
        let profile = Profile::default();
        assert_eq!(profile.name.to_string(), "docs-90-10");
        assert_eq!((profile.lease_weight, profile.challenge_weight), (0.90, 0.10));
        assert_eq!(profile.performance_mode, PerformanceMode::Ranked);
        assert!((Windows::default().baseline() - 36.0).abs() < 1e-12);
    }

    #[test]
    fn a_key_set_singly_wins_over_the_profile_and_leaves_the_others() {
        let set = Overrides { zero_round: Some(ZeroRound::Burn), ..Overrides::default() };
        let profile = Profile::default().with(&set);
        assert_eq!(profile, Profile { zero_round: ZeroRound::Burn, ..Profile::default() });
    }

    #[test]
    fn names_read_as_they_are_written() {
        for text in ProfileName::TEXTS {
            assert_eq!(text.parse::<ProfileName>().map(|name| name.to_string()).as_deref(), Ok(*text));
        }
        let message = "fastest".parse::<PerformanceMode>().map_err(|error| error.to_string());
        assert_eq!(message, Err("\"fastest\" is not known here; use one of ranked, absolute".to_owned()));
    }

    #[test]
    fn weights_that_cannot_be_scored_by_are_refused() {
        let rules = |lease_weight, challenge_weight| {
            Rules::new(Profile { lease_weight, challenge_weight, ..Profile::default() }, Windows::default())
        };
        assert!(rules(70.0, 30.0).is_ok());
        assert_eq!(rules(0.0, 0.0), Err(RulesError::NoWeight));
        for refused in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(rules(refused, 0.1), Err(RulesError::Weight { key: "lease_weight", .. })));
        }
    }

    #[test]
    fn rules_read_from_json_are_checked() {
        let mut json = serde_json::to_value(Rules::default()).expect("rules are plain data");
        assert_eq!(serde_json::from_value::<Rules>(json.clone()).expect("same rules"), Rules::default());
        json["windows"]["challenge_interval_s"] = 0.into();
        assert!(serde_json::from_value::<Rules>(json).is_err());
    }
}
