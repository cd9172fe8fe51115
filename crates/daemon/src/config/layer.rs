//! One source of values, checked against the table of keys before it is merged: the defaults, the file, the
//! environment or the `--set` flags. Problems are collected, never the end of the walk.

use std::{fs::File, io::Read, path::Path};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Empty, Map, Tag, Value as Figment},
};
use serde_yaml::{Mapping, Value as Yaml};

use super::{
    key::{Key, Presence},
    problem::{Problem, Source},
    scalar::{self, Refusal, Value},
    suggest,
};
use crate::failpoint;

/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Largest file that holds a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1 << 16;
/// Prefix of the environment variables that set keys.
const VARIABLE_PREFIX: &str = "BYTELEAP_";

/// Variables of that form that set no key: a point to die at, and the root directory of commands on the machine.
const NO_KEYS: [&str; 2] = [failpoint::VARIABLE, "BYTELEAP_HOST_ROOT"];

/// The names under which a layer is known to figment.
pub(super) mod name {
    pub(in super::super) const DEFAULT: &str = "default";
    pub(in super::super) const FILE: &str = "file";
    pub(in super::super) const ENVIRONMENT: &str = "environment";
    pub(in super::super) const ARGUMENT: &str = "argument";
}

/// The values of one source, and what was wrong with the others.
pub(super) struct Layer {
    name: &'static str,
    values: Dict,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Layer {
    fn new(name: &'static str) -> Self {
        Self { name, values: Dict::new(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// The defaults of the table.
    pub(super) fn defaults(keys: &[Key]) -> Self {
        let mut layer = Self::new(name::DEFAULT);
        for key in keys {
            match key.presence {
                Presence::Default(text) => layer.put(key, Source::Default, scalar::from_text(key, text)),
                Presence::Optional => layer.put(key, Source::Default, Ok(Value::Absent)),
                Presence::Required => {}
            }
        }
        layer
    }

    /// The YAML file at `path`.
    pub(super) fn file(keys: &[Key], path: &Path) -> Self {
        let mut layer = Self::new(name::FILE);
        match parse_file(path) {
            Ok(mapping) => layer.section(keys, path, "", &mapping),
            Err(message) => {
                layer.problems.push(Problem { subject: path.display().to_string(), source: None, message });
            }
        }
        layer
    }

    /// The environment variables that begin with `BYTELEAP_`.
    pub(super) fn environment(keys: &[Key], variables: &[(String, String)]) -> Self {
        let mut layer = Self::new(name::ENVIRONMENT);
        let is_ours = |variable: &str| variable.starts_with(VARIABLE_PREFIX) && !NO_KEYS.contains(&variable);
        for (variable, text) in variables.iter().filter(|(variable, _)| is_ours(variable)) {
            let source = Source::Environment(variable.clone());
            match keys.iter().find(|key| variable_of(key.name) == *variable) {
                Some(key) => layer.put(key, source, scalar::from_text(key, text)),
                None => match keys.iter().find(|key| key.secret && variable_of(&file_name_of(key)) == *variable) {
                    Some(key) => layer.put_secret_file(key, source, text),
                    None => {
                        let known = keys.iter().map(|key| variable_of(key.name));
                        layer.warnings.push(unknown(variable, known, Some(source)));
                    }
                },
            }
        }
        layer
    }

    /// The `--set key=value` flags, later ones over earlier ones. An unknown key is an error here: it was just typed.
    pub(super) fn arguments(keys: &[Key], assignments: &[String]) -> Self {
        let mut layer = Self::new(name::ARGUMENT);
        for assignment in assignments {
            let Some((name, text)) = assignment.split_once('=') else {
                let message = "allowed: key=value".to_owned();
                layer.problems.push(Problem { subject: assignment.clone(), source: Some(Source::Argument), message });
                continue;
            };
            if let Some(key) = keys.iter().find(|key| key.name == name) {
                layer.put(key, Source::Argument, scalar::from_text(key, text));
            } else if let Some(key) = keys.iter().find(|key| key.secret && file_name_of(key) == name) {
                layer.put_secret_file(key, Source::Argument, text);
            } else {
                layer.problems.push(unknown(name, keys.iter().map(|key| key.name.to_owned()), Some(Source::Argument)));
            }
        }
        layer
    }

    /// One section of the file, whose dotted name is `prefix`.
    fn section(&mut self, keys: &[Key], path: &Path, prefix: &str, mapping: &Mapping) {
        let source = || Source::File(path.to_owned());
        for (entry, node) in mapping {
            let entry = match entry {
                Yaml::String(text) => text.clone(),
                other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
            };
            let name = if prefix.is_empty() { entry } else { format!("{prefix}.{entry}") };
            let is_section =
                keys.iter().any(|key| key.name.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')));
            if let Some(key) = keys.iter().find(|key| key.name == name) {
                self.put(key, source(), scalar::from_yaml(key, node));
            } else if let Some(key) = keys.iter().find(|key| key.secret && file_name_of(key) == name) {
                match node {
                    Yaml::Null => {}
                    Yaml::String(text) => self.put_secret_file(key, source(), text),
                    _ => self.refuse(&name, source(), "the path of a file".into()),
                }
            } else if is_section {
                match node {
                    Yaml::Mapping(mapping) => self.section(keys, path, &name, mapping),
                    Yaml::Null => {}
                    _ => self.refuse(&name, source(), "allowed: a section with keys of its own".into()),
                }
            } else {
                let known = keys.iter().flat_map(|key| sections_and_name(key.name));
                self.warnings.push(unknown(&name, known, Some(source())));
            }
        }
    }

    fn put(&mut self, key: &Key, source: Source, value: Result<Value, Refusal>) {
        match value {
            Ok(value) => insert(&mut self.values, key.name, into_figment(value)),
            Err(Refusal { found, allowed }) => {
                self.refuse(key.name, source, format!("found {found}, allowed: {allowed}"));
            }
        }
    }

    /// The value of a secret key, from the file that `path` names.
    fn put_secret_file(&mut self, key: &Key, source: Source, path: &str) {
        match read_bounded(Path::new(path), MAX_SECRET_BYTES) {
            Ok(text) => self.put(key, source, scalar::from_text(key, text.trim())),
            Err(message) => self.refuse(&file_name_of(key), source, format!("{path}: {message}")),
        }
    }

    fn refuse(&mut self, name: &str, source: Source, message: String) {
        self.problems.push(Problem { subject: name.to_owned(), source: Some(source), message });
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The environment variable that sets a key: `wallet.name` is `BYTELEAP_WALLET__NAME`.
pub(super) fn variable_of(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.replace('.', "__").to_uppercase())
}

/// `a`, `a.b` and `a.b.c` for `a.b.c`.
fn sections_and_name(name: &str) -> impl Iterator<Item = String> {
    name.match_indices('.').map(|(end, _)| &name[..end]).chain([name]).map(str::to_owned)
}

fn file_name_of(key: &Key) -> String {
    format!("{}_file", key.name)
}

fn unknown(name: &str, known: impl Iterator<Item = String>, source: Option<Source>) -> Problem {
    let message = match suggest::nearest(name, known) {
        Some(nearest) => format!("unknown key; did you mean {nearest}?"),
        None => "unknown key".to_owned(),
    };
    Problem { subject: name.to_owned(), source, message }
}

fn parse_file(path: &Path) -> Result<Mapping, String> {
    let text = read_bounded(path, MAX_FILE_BYTES)?;
    let mut node: Yaml = serde_yaml::from_str(&text).map_err(|error| format!("is not YAML: {error}"))?;
    node.apply_merge().map_err(|error| format!("is not YAML: {error}"))?;
    match node {
        Yaml::Mapping(mapping) => Ok(mapping),
        Yaml::Null => Ok(Mapping::new()),
        _ => Err("allowed: a mapping of keys to values".to_owned()),
    }
}

fn read_bounded(path: &Path, limit_bytes: u64) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut text = String::new();
    file.take(limit_bytes + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > limit_bytes {
        return Err(format!("is larger than {limit_bytes} bytes"));
    }
    Ok(text)
}

/// Puts a value at its dotted place.
fn insert(dict: &mut Dict, name: &str, value: Figment) {
    match name.split_once('.') {
        None => {
            dict.insert(name.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = dict.entry(section.to_owned()).or_insert_with(|| Figment::Dict(Tag::Default, Dict::new()));
            if let Figment::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// A mapping travels as an array of pairs, so that a later source replaces it as a whole instead of adding to it.
fn into_figment(value: Value) -> Figment {
    match value {
        Value::Absent => Figment::Empty(Tag::Default, Empty::None),
        Value::Boolean(value) => Figment::from(value),
        Value::Integer(value) => Figment::from(value),
        Value::Float(value) => Figment::from(value),
        Value::Text(value) => Figment::from(value),
        Value::List(entries) => Figment::from(entries),
        Value::Map(entries) => Figment::from(
            entries
                .into_iter()
                .map(|(name, value)| {
                    Figment::from(vec![Figment::from(name), into_figment(value.map_or(Value::Absent, Value::Text))])
                })
                .collect::<Vec<_>>(),
        ),
    }
}

/// The value of `key` as figment kept it: the reverse of what the layers put in.
pub(super) fn from_figment(key: &Key, value: Figment) -> Option<Value> {
    use super::key::Kind;
    Some(match (key.kind, value) {
        (_, Figment::Empty(..)) => Value::Absent,
        (Kind::Boolean, Figment::Bool(_, value)) => Value::Boolean(value),
        (Kind::Integer { .. }, Figment::Num(_, number)) => Value::Integer(number.to_i128()?.try_into().ok()?),
        (Kind::Float { .. }, Figment::Num(_, number)) => Value::Float(number.to_f64()?),
        (Kind::Text(_), Figment::String(_, text)) => Value::Text(text),
        (Kind::List(_), Figment::Array(_, entries)) => {
            Value::List(entries.into_iter().map(Figment::into_string).collect::<Option<_>>()?)
        }
        (Kind::Map, Figment::Array(_, pairs)) => Value::Map(pairs.into_iter().map(pair).collect::<Option<_>>()?),
        _ => return None,
    })
}

fn pair(pair: Figment) -> Option<(String, Option<String>)> {
    let [name, value] = <[Figment; 2]>::try_from(pair.into_array()?).ok()?;
    Some((name.into_string()?, value.into_string()))
}
