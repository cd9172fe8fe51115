//! A configuration as text: the example file that the table writes, and the effective values with their sources.

use std::fmt::Write as _;

use super::{
    Config,
    key::{Key, Presence},
    scalar::{self, Value},
};

/// The example file of a table: every key with its default under one line of comment, sections nested in the order of
/// their first key.
#[must_use]
pub fn example(keys: &[Key]) -> String {
    let mut out = String::new();
    let keys: Vec<(&str, &Key)> = keys.iter().map(|key| (key.name, key)).collect();
    write_section(&mut out, &keys, 0);
    out
}

/// Writes keys whose names are relative to the section that is being written.
fn write_section(out: &mut String, keys: &[(&str, &Key)], depth: usize) {
    let indent = "  ".repeat(depth);
    let mut written: Vec<&str> = Vec::new();
    for (name, key) in keys {
        let Some((section, _)) = name.split_once('.') else {
            let live = if key.live { " (live)" } else { "" };
            let _ = writeln!(out, "{indent}# {}{live}", key.comment);
            let _ = match key.presence {
                Presence::Required => writeln!(out, "{indent}{name}: # required"),
                Presence::Optional => writeln!(out, "{indent}{name}: null"),
                Presence::Default(text) => writeln!(out, "{indent}{name}: {}", default_text(key, text)),
            };
            continue;
        };
        if written.contains(&section) {
            continue;
        }
        written.push(section);
        if depth == 0 && !out.is_empty() {
            out.push('\n');
        }
        let _ = writeln!(out, "{indent}{section}:");
        let inner: Vec<(&str, &Key)> = keys
            .iter()
            .filter_map(|(name, key)| {
                let (first, rest) = name.split_once('.')?;
                (first == section).then_some((rest, *key))
            })
            .collect();
        write_section(out, &inner, depth + 1);
    }
}

/// A default as YAML: numbers as the table writes them, texts quoted where YAML needs it.
fn default_text(key: &Key, text: &str) -> String {
    match scalar::from_text(key, text) {
        Ok(Value::Boolean(_) | Value::Integer(_) | Value::Float(_)) | Err(_) => text.to_owned(),
        Ok(value) => yaml(&value),
    }
}

/// A value on one line of YAML.
fn yaml(value: &Value) -> String {
    match value {
        Value::Absent => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Text(text) => match serde_yaml::to_string(text) {
            Ok(plain) if plain.trim_end().lines().count() == 1 => plain.trim_end().to_owned(),
            _ => json(text),
        },
        Value::List(entries) => json(entries),
        Value::Map(entries) => json(entries),
    }
}

/// JSON is YAML, and fits one line whatever the text holds.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The effective configuration, a line per key: `name: value  # source, live`, secrets hidden.
pub(super) fn effective(config: &Config) -> String {
    let lines: Vec<(String, String)> = config
        .entries
        .iter()
        .map(|entry| {
            let value = match (&entry.value, entry.key.secret) {
                (Value::Absent, _) => "null".to_owned(),
                (_, true) => "(hidden)".to_owned(),
                (value, false) => yaml(value),
            };
            let live = if entry.key.live { ", live" } else { "" };
            (format!("{}: {value}", entry.key.name), format!("{}{live}", entry.source))
        })
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut out, (line, source)| {
        let _ = writeln!(out, "{line:width$}  # {source}");
        out
    })
}
