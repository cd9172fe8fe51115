//! Configuration from the marketplace (validator spec 7.7), limited to a list: what it sets lies over the operator's own
//! sources, is checked with them as at a start, and is forgotten at a restart.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use byteleap_daemon::config::{self, Config, Key, Sources};
use byteleap_protocol::Object;
use byteleap_protocol::meshhub::order::ConfigUpdate;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The sections that the marketplace may speak of.
const ROOTS: [&str; 2] = ["validation", "weight_management"];

/// What it may set where `meshhub.remote_config` is `safe`: what is asked of workers, and nothing of what it is worth.
const SAFE: [&str; 9] = [
    "validation.challenge_type",
    "validation.challenge_interval",
    "validation.challenge_timeout",
    "validation.cpu.matrix_size",
    "validation.cpu.iterations",
    "validation.gpu.matrix_size",
    "validation.gpu.iterations",
    "validation.gpu.model_allowlist",
    "validation.cpu.size_variance",
];

/// How much the marketplace may set: the key `meshhub.remote_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing.
    Off,
    /// A list of keys that no score depends on.
    Safe,
    /// Every key of its sections that can change while we run.
    All,
}

/// A text that names no [`Allowed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("off, safe or all")]
pub struct UnknownAllowed;

impl FromStr for Allowed {
    type Err = UnknownAllowed;

    fn from_str(text: &str) -> Result<Self, UnknownAllowed> {
        match text {
            "off" => Ok(Self::Off),
            "safe" => Ok(Self::Safe),
            "all" => Ok(Self::All),
            _ => Err(UnknownAllowed),
        }
    }
}

/// Why an update was not applied; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    name: &'static str,
    detail: String,
    provided: Vec<String>,
}

impl Rejection {
    /// Nobody may.
    pub(super) fn off() -> Self {
        Self { name: "remote_config_off", detail: "meshhub.remote_config is off".to_owned(), provided: Vec::new() }
    }

    /// A short name, for counting.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What the marketplace is told.
    pub(super) fn metadata(&self) -> Object {
        let mut metadata = Object::new();
        metadata.insert("error".to_owned(), json!(self.name));
        metadata.insert("detail".to_owned(), json!(self.detail));
        metadata.insert("allowed".to_owned(), json!(ROOTS));
        metadata.insert("provided_keys".to_owned(), json!(self.provided));
        metadata
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.name, self.detail)
    }
}

/// Applies a whole configuration.
pub type Apply = Arc<dyn Fn(&Config) -> Result<(), config::Error> + Send + Sync>;

/// The operator's configuration with what the marketplace has set over it. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    keys: &'static [Key],
    sources: Sources,
    allowed: Allowed,
    apply: Apply,
    held: Arc<Mutex<Held>>,
}

struct Held {
    /// The operator's own.
    own: Config,
    /// `key`, and the text of its value.
    set: Vec<(String, String)>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Remote").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Remote {
    /// Over `own`, which was loaded from `sources`.
    pub fn new(keys: &'static [Key], sources: Sources, own: Config, allowed: Allowed, apply: Apply) -> Self {
        Self { keys, sources, allowed, apply, held: Arc::new(Mutex::new(Held { own, set: Vec::new() })) }
    }

    /// What the marketplace has set.
    pub fn set_keys(&self) -> Vec<(String, String)> {
        self.held.lock().set.clone()
    }

    /// Takes the operator's configuration in as it is now; what the marketplace has set stays over it.
    ///
    /// # Errors
    /// Both together are wrong; then nothing changes.
    pub fn reload(&self, own: &Config) -> Result<(), config::Error> {
        let mut held = self.held.lock();
        let merged = self.merged(own, &held.set)?;
        (self.apply)(&merged)?;
        held.own = own.clone();
        Ok(())
    }

    /// Sets keys otherwise; returns them as `key=value`.
    ///
    /// # Errors
    /// A key is not one that the marketplace may set, or its value is wrong.
    pub fn apply(&self, update: &ConfigUpdate) -> Result<Vec<String>, Rejection> {
        let leaves = update.leaves();
        let provided: Vec<String> = leaves.iter().map(|(name, _)| name.clone()).collect();
        let reject = |name, detail: String| Rejection { name, detail, provided: provided.clone() };
        if self.allowed == Allowed::Off {
            return Err(Rejection { provided: provided.clone(), ..Rejection::off() });
        }
        let has_root = |name: &str| name.split_once('.').is_some_and(|(root, _)| ROOTS.contains(&root));
        if !provided.iter().any(|name| has_root(name)) {
            return Err(reject("no_allowed_root", format!("only {} can be set", ROOTS.join(" and "))));
        }
        let mut held = self.held.lock();
        let mut set = held.set.clone();
        let mut applied = Vec::new();
        for (name, value) in &leaves {
            let key = self.keys.iter().find(|key| key.name == name).filter(|_| has_root(name));
            let is_allowed = key.is_some_and(|key| match self.allowed {
                Allowed::Off => false,
                Allowed::Safe => SAFE.contains(&key.name),
                Allowed::All => key.live,
            });
            if !is_allowed {
                return Err(reject("key_not_allowed", format!("{name} cannot be set from outside")));
            }
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            applied.push(format!("{name}={text}"));
            set.retain(|(known, _)| known != name);
            set.push((name.clone(), text));
        }
        let applied_to = self.merged(&held.own, &set).and_then(|merged| (self.apply)(&merged));
        applied_to.map_err(|error| {
            let problems: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
            reject("invalid", problems.join("; "))
        })?;
        held.set = set;
        Ok(applied)
    }

    fn merged(&self, own: &Config, set: &[(String, String)]) -> Result<Config, config::Error> {
        let mut sources = self.sources.clone();
        sources.arguments.extend(set.iter().map(|(name, text)| format!("{name}={text}")));
        // Keys that need a restart stay as they are.
        Ok(own.reloaded(Config::load(self.keys, &sources)?).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, LiveSettings, Settings};

    const OWN: [&str; 3] = ["netuid=128", "wallet.name=v", "wallet.hotkey=h"];

    fn remote(allowed: Allowed) -> (Remote, LiveSettings) {
        let sources = Sources { arguments: OWN.map(str::to_owned).to_vec(), ..Sources::default() };
        let own = Config::load(KEYS, &sources).unwrap();
        let live = LiveSettings::of(&Settings::read(&own).unwrap());
        let shown = live.clone();
        let apply: Apply = Arc::new(move |config| {
            live.set(Settings::read(config)?);
            Ok(())
        });
        (Remote::new(KEYS, sources, own, allowed, apply), shown)
    }

    fn update(payload: Value) -> ConfigUpdate {
        serde_json::from_value(json!({ "payload": payload })).unwrap()
    }

    #[test]
    fn safe_keys_take_effect_and_stay_over_a_reload() {
        let (remote, live) = remote(Allowed::Safe);
        let applied = remote
            .apply(&update(json!({"validation": {"challenge_interval": 300, "gpu": {"matrix_size": 16384,
                "model_allowlist": ["H100", "B200"]}}})))
            .unwrap();
        assert_eq!(applied.len(), 3);
        assert_eq!(live.challenge.get().interval_ms, 300_000);
        assert_eq!(live.challenge.get().gpu.model_allowlist, ["h100", "b200"]);
        let arguments = OWN.iter().map(|text| (*text).to_owned()).chain(["validation.challenge_timeout=90".to_owned()]);
        let fresh = Config::load(KEYS, &Sources { arguments: arguments.collect(), ..Sources::default() }).unwrap();
        remote.reload(&fresh).unwrap();
        assert_eq!(live.challenge.get().interval_ms, 300_000, "what the marketplace set stays");
    }

    #[test]
    fn what_scores_depend_on_is_not_the_marketplaces_to_set() {
        let (remote, live) = remote(Allowed::Safe);
        for (payload, name) in [
            (json!({"weight_management": {"score_weights": {"lease_weight": 1.0}}}), "key_not_allowed"),
            (json!({"validation": {"challenge_interval": 300, "ranking_window_minutes": 1}}), "key_not_allowed"),
            (json!({"validation": {"challenge_interval": 300}, "wallet": {"name": "x"}}), "key_not_allowed"),
            (json!({"wallet": {"name": "x"}}), "no_allowed_root"),
            (json!({}), "no_allowed_root"),
            (json!({"validation": 7}), "no_allowed_root"),
            (json!({"validation": {"challenge_interval": "often"}}), "invalid"),
            (json!({"validation": {"challenge_interval": 300, "challenge_timeout": 0}}), "invalid"),
        ] {
            let rejection = remote.apply(&update(payload.clone())).unwrap_err();
            assert_eq!(rejection.name(), name, "{payload}: {rejection}");
        }
        assert_eq!(live.challenge.get().interval_ms, 240_000, "nothing of a rejected update is applied");
        assert!(remote.set_keys().is_empty());
    }

    #[test]
    fn how_much_may_be_set_is_the_operators_choice() {
        let score = || update(json!({"validation": {"ranking_window_minutes": 60}}));
        assert_eq!(remote(Allowed::Off).0.apply(&score()).unwrap_err().name(), "remote_config_off");
        assert!(remote(Allowed::All).0.apply(&score()).is_ok());
        let fixed = update(json!({"weight_management": {"availability": {"window_hours": 24}}}));
        assert_eq!(remote(Allowed::All).0.apply(&fixed).unwrap_err().name(), "key_not_allowed", "it needs a restart");
    }
}
