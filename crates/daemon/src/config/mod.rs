//! Configuration: one table of keys per daemon, four sources, every problem at once.
//!
//! A daemon writes a `const KEYS: &[Key]`. From it come the parsing and all its errors, the example file
//! ([`example()`]) and the effective configuration ([`Config::effective`]). Values come, in rising precedence, from the
//! table's defaults, the YAML file, the environment (`BYTELEAP_SECTION__KEY`) and the flags (`--set section.key=value`);
//! figment merges them and remembers which source won.
//!
//! What a daemon then reads is typed and cannot fail, because whatever could is checked by [`Config::load`]:
//!
//! ```
//! # use byteleap_daemon::config::{Config, Key, Sources};
//! # use std::{net::SocketAddr, time::Duration};
//! const KEYS: &[Key] = &[
//!     Key::integer("port", 1024, 65535, "port of the axon").default("9091"),
//!     Key::integer("sync_interval", 1, i64::MAX, "seconds between refreshes").default("60"),
//!     Key::text("external_ip", "address to publish").parsed::<std::net::IpAddr>(),
//! ];
//! let config = Config::load(KEYS, &Sources::default())?;
//! let port: u16 = config.get("port");
//! let sync_interval: Duration = config.seconds("sync_interval");
//! let external_ip: Option<std::net::IpAddr> = config.parsed_optional("external_ip");
//! # Ok::<(), byteleap_daemon::config::Error>(())
//! ```

mod key;
mod layer;
mod problem;
mod scalar;
mod suggest;
mod text;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use figment::Figment;

use self::{layer::Layer, scalar::Value};

pub use self::{
    key::{Check, Key, Kind, Presence},
    problem::{Error, Problem, Source},
    text::example,
};

/// Where values come from besides the table's defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The YAML file; `None` for none.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix `BYTELEAP_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Assignments `key=value` from the command line.
    pub arguments: Vec<String>,
}

/// The effective configuration: every key of the table with its checked value and where it came from.
#[derive(Clone)]
pub struct Config {
    entries: Vec<Entry>,
    warnings: Vec<Problem>,
    file: Option<PathBuf>,
}

/// The keys whose values a reload found changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Those that take effect.
    pub live: Vec<&'static str>,
    /// Those that wait for a restart.
    pub waiting: Vec<&'static str>,
}

#[derive(Clone)]
struct Entry {
    key: Key,
    value: Value,
    source: Source,
}

impl Config {
    /// Reads, checks and merges all sources.
    ///
    /// # Errors
    ///
    /// Everything that is wrong in any source, at once; a value is checked even where another source overrides it.
    pub fn load(keys: &[Key], sources: &Sources) -> Result<Self, Error> {
        let mut figment = Figment::new();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let layers = [
            Some(Layer::defaults(keys)),
            sources.file.as_deref().map(|path| Layer::file(keys, path)),
            Some(Layer::environment(keys, &sources.environment)),
            Some(Layer::arguments(keys, &sources.arguments)),
        ];
        for mut layer in layers.into_iter().flatten() {
            problems.append(&mut layer.problems);
            warnings.append(&mut layer.warnings);
            figment = figment.merge(layer);
        }
        // A file that could not be read hides which keys are missing: its problem stands alone, without a source.
        let file_is_unread = problems.iter().any(|problem| problem.source.is_none());
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let found = figment.find_value(key.name).ok().and_then(|value| {
                let source = source_of(&figment, &value, key, sources);
                Some(Entry { key: *key, value: layer::from_figment(key, value)?, source })
            });
            match found {
                Some(entry) => entries.push(entry),
                None if file_is_unread || problems.iter().any(|problem| names(problem, key)) => {}
                None => problems.push(Problem {
                    subject: key.name.to_owned(),
                    source: None,
                    message: format!("is required: {} ({})", key.comment, key.kind.allowed()),
                }),
            }
        }
        if problems.is_empty() {
            Ok(Self { entries, warnings, file: sources.file.clone() })
        } else {
            Err(Error { problems })
        }
    }

    /// The configuration after `fresh` was read: its value for each live key, ours for all others; and which differ.
    #[must_use]
    pub fn reloaded(&self, fresh: Self) -> (Self, Changes) {
        let mut changes = Changes::default();
        let mut next = fresh;
        for (entry, held) in next.entries.iter_mut().zip(&self.entries) {
            let differs = entry.value != held.value;
            if entry.key.live {
                changes.live.extend(differs.then_some(entry.key.name));
            } else {
                changes.waiting.extend(differs.then_some(entry.key.name));
                entry.clone_from(held);
            }
        }
        (next, changes)
    }

    /// What deserves a warning: unknown keys, with the key that was probably meant.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// The effective configuration as text, a line per key: `name: value  # source`, secrets hidden, and
    /// `, live` where a reload changes it.
    #[must_use]
    pub fn effective(&self) -> String {
        text::effective(self)
    }

    /// The value of a key, as the type of its kind: `bool`, any integer, `f64`, `String`, `PathBuf`, `Vec<String>`,
    /// `BTreeMap<String, Option<String>>`, or an `Option` of one of them for an optional key.
    ///
    /// # Panics
    ///
    /// If the table has no such key, or `T` cannot hold every value of its kind: an error in the daemon, which any test
    /// that reads its settings meets.
    #[track_caller]
    #[must_use]
    pub fn get<T: FromValue>(&self, name: &str) -> T {
        let entry = self.entry(name);
        match T::from_value(&entry.value) {
            Some(value) => value,
            None => panic!("key {name} cannot be read as {}", std::any::type_name::<T>()),
        }
    }

    /// The value of a text key declared with [`Key::parsed`].
    ///
    /// # Panics
    ///
    /// As [`Self::get`]: if the key was not declared with this type.
    #[track_caller]
    #[must_use]
    pub fn parsed<T: FromStr>(&self, name: &str) -> T {
        match self.parsed_optional(name) {
            Some(value) => value,
            None => panic!("key {name} is optional: read it as such"),
        }
    }

    /// The value of an optional text key declared with [`Key::parsed`].
    ///
    /// # Panics
    ///
    /// As [`Self::parsed`].
    #[track_caller]
    #[must_use]
    pub fn parsed_optional<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get::<Option<String>>(name).map(|text| match text.parse() {
            Ok(value) => value,
            Err(_) => panic!("key {name} is not declared as {}", std::any::type_name::<T>()),
        })
    }

    /// The value of a number of seconds.
    ///
    /// # Panics
    ///
    /// As [`Self::get`]: if the key's least value is negative.
    #[track_caller]
    #[must_use]
    pub fn seconds(&self, name: &str) -> Duration {
        let seconds = match self.entry(name).value {
            Value::Integer(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            Value::Float(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            _ => None,
        };
        match seconds {
            Some(seconds) => seconds,
            None => panic!("key {name} is no number of seconds"),
        }
    }

    /// Where the value of a key came from.
    ///
    /// # Panics
    ///
    /// As [`Self::get`]: if the table has no such key.
    #[track_caller]
    #[must_use]
    pub fn source(&self, name: &str) -> &Source {
        &self.entry(name).source
    }

    /// A problem with the value of a key that the table cannot express, such as a relation between two keys. Collect
    /// them, so that they come all at once.
    ///
    /// # Panics
    ///
    /// As [`Self::get`]: if the table has no such key.
    #[track_caller]
    #[must_use]
    pub fn problem(&self, name: &str, message: impl Into<String>) -> Problem {
        let source = Some(self.source(name).clone());
        Problem { subject: name.to_owned(), source, message: message.into() }
    }

    #[track_caller]
    fn entry(&self, name: &str) -> &Entry {
        match self.entries.iter().find(|entry| entry.key.name == name) {
            Some(entry) => entry,
            None => panic!("the table has no key {name}"),
        }
    }
}

/// Secrets stay hidden.
impl fmt::Debug for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.effective())
    }
}

/// Whether the problem is the key's, or its secret file's.
fn names(problem: &Problem, key: &Key) -> bool {
    problem.subject.strip_prefix(key.name).is_some_and(|rest| rest.is_empty() || rest == "_file")
}

/// The source that won, as figment remembers it.
fn source_of(figment: &Figment, value: &figment::value::Value, key: &Key, sources: &Sources) -> Source {
    match (figment.get_metadata(value.tag()).map(|metadata| metadata.name.as_ref()), &sources.file) {
        (Some(layer::name::FILE), Some(path)) => Source::File(path.clone()),
        (Some(layer::name::ENVIRONMENT), _) => Source::Environment(layer::variable_of(key.name)),
        (Some(layer::name::ARGUMENT), _) => Source::Argument,
        _ => Source::Default,
    }
}

/// A type that [`Config::get`] yields.
pub trait FromValue: Sized + private::Sealed {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is sealed: nobody else calls or implements this")]
    fn from_value(value: &Value) -> Option<Self>;
}

mod private {
    pub trait Sealed {}
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {$(
        impl private::Sealed for $type {}
        #[expect(private_interfaces, reason = "the trait is sealed: nobody else calls or implements this")]
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        }
    )*};
}

from_value! {
    bool: Value::Boolean(value) => Some(*value);
    u8: Value::Integer(value) => (*value).try_into().ok();
    u16: Value::Integer(value) => (*value).try_into().ok();
    u32: Value::Integer(value) => (*value).try_into().ok();
    u64: Value::Integer(value) => (*value).try_into().ok();
    usize: Value::Integer(value) => (*value).try_into().ok();
    i64: Value::Integer(value) => Some(*value);
    f64: Value::Float(value) => Some(*value);
    String: Value::Text(text) => Some(text.clone());
    PathBuf: Value::Text(text) => Some(at_home(text));
    Vec<String>: Value::List(entries) => Some(entries.clone());
    BTreeMap<String, Option<String>>: Value::Map(entries) => Some(entries.clone());
}

impl<T: FromValue> private::Sealed for Option<T> {}
#[expect(private_interfaces, reason = "the trait is sealed: nobody else calls or implements this")]
impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Absent => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// A path, with a leading `~/` put in the home directory as a shell does.
fn at_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}
