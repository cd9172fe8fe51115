//! Values of one key: from YAML nodes (the file) and from plain text (defaults, environment, `--set`).
//!
//! Old files were read by YAML 1.1, our parser resolves scalars by YAML 1.2. The difference shows only where a key is
//! boolean or whole, and there the scalar resolves as the old files' reader did it: `yes`, `off`, `0o`-less octal,
//! `1_000`, `1:30`.

use std::collections::BTreeMap;

use serde_yaml::Value as Yaml;

use super::key::{Check, Key, Kind, Presence};

/// The parsed value of one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Absent,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, Option<String>>),
}

/// Why a value is refused: what was found, what is allowed. The caller adds key and source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) found: String,
    pub(super) allowed: String,
}

/// Parses plain text as the value of `key`: as it stands after `--set key=`, or in an environment variable.
pub(super) fn from_text(key: &Key, text: &str) -> Result<Value, Refusal> {
    match key.kind {
        Kind::Text(_) if key.presence == Presence::Optional && text.is_empty() => Ok(Value::Absent),
        Kind::Text(check) => text_value(key, text, check).map(Value::Text),
        Kind::List(_) if !text.trim_start().starts_with('[') => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            from_yaml(key, &Yaml::Sequence(entries.map(Yaml::from).collect()))
        }
        _ => match serde_yaml::from_str(text) {
            Ok(node) => from_yaml(key, &node),
            Err(_) => Err(refusal(key, format!("{text:?}"))),
        },
    }
}

/// Parses a node of the file as the value of `key`.
pub(super) fn from_yaml(key: &Key, node: &Yaml) -> Result<Value, Refusal> {
    if node.is_null() && key.presence == Presence::Optional {
        return Ok(Value::Absent);
    }
    let value = match (&key.kind, node) {
        (Kind::Boolean, Yaml::Bool(value)) => Some(Value::Boolean(*value)),
        (Kind::Boolean, Yaml::String(text)) => boolean(text).map(Value::Boolean),
        (Kind::Boolean, Yaml::Number(number)) => match number.as_i64() {
            Some(0) => Some(Value::Boolean(false)),
            Some(1) => Some(Value::Boolean(true)),
            _ => None,
        },
        (Kind::Integer { least, greatest }, node) => match node {
            Yaml::Number(number) => number.as_i64(),
            Yaml::String(text) => integer(text),
            _ => None,
        }
        .filter(|value| (least..=greatest).contains(&value))
        .map(Value::Integer),
        (Kind::Float { least, greatest }, node) => match node {
            Yaml::Number(number) => number.as_f64(),
            Yaml::String(text) => text.trim().parse().ok(),
            _ => None,
        }
        .filter(|value| value.is_finite() && least <= value && value <= greatest)
        .map(Value::Float),
        (Kind::Text(check), node) => Some(Value::Text(text_of(key, node, *check)?)),
        (Kind::List(check), Yaml::Sequence(entries)) => {
            Some(Value::List(entries.iter().map(|entry| text_of(key, entry, *check)).collect::<Result<_, _>>()?))
        }
        // One text stands for a list of one, so that a key can grow from the first to the second.
        (Kind::List(check), Yaml::String(_)) => Some(Value::List(vec![text_of(key, node, *check)?])),
        (Kind::Map, Yaml::Mapping(entries)) => entries
            .iter()
            .map(|(name, value)| {
                let value = if value.is_null() { None } else { Some(text(value)?) };
                Some((text(name)?, value))
            })
            .collect::<Option<_>>()
            .map(Value::Map),
        _ => None,
    };
    value.ok_or_else(|| refusal(key, shown(node)))
}

/// Text of a scalar that has only one spelling: a string, or a whole number.
fn text(node: &Yaml) -> Option<String> {
    match node {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn text_of(key: &Key, node: &Yaml, check: Check) -> Result<String, Refusal> {
    match text(node) {
        Some(text) => text_value(key, &text, check),
        None if matches!(node, Yaml::Bool(_) | Yaml::Number(_)) => {
            let mut refusal = refusal(key, shown(node));
            refusal.allowed.push_str(" (put it in quotes)");
            Err(refusal)
        }
        None => Err(refusal(key, shown(node))),
    }
}

fn text_value(key: &Key, text: &str, check: Check) -> Result<String, Refusal> {
    if text.trim().is_empty() {
        return Err(refusal(key, "blank text".into()));
    }
    match check(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(allowed) => Err(Refusal { found: hidden(key, format!("{text:?}")), allowed }),
    }
}

fn refusal(key: &Key, found: String) -> Refusal {
    Refusal { found: hidden(key, found), allowed: key.kind.allowed() }
}

fn hidden(key: &Key, found: String) -> String {
    if key.secret { "a value that is not shown".into() } else { found }
}

/// A node as an error message shows it: scalars themselves, collections by their type.
fn shown(node: &Yaml) -> String {
    match node {
        Yaml::Null => "nothing".into(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::String(text) => format!("{text:?}"),
        Yaml::Sequence(_) => "a list".into(),
        Yaml::Mapping(_) => "a mapping".into(),
        Yaml::Tagged(_) => "a tagged value".into(),
    }
}

/// YAML 1.1 booleans, as the old files' reader resolves them (it leaves `y` and `n` as text).
fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// YAML 1.1 integers: underscores, `0b` binary, `0` octal, `0x` hexadecimal and sixties separated by colons.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.starts_with('_') {
        return None;
    }
    let digits = digits.replace('_', "");
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        unsigned(binary, 2)?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        unsigned(hexadecimal, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        unsigned(&digits[1..], 8)?
    } else {
        let mut places = digits.split(':');
        let mut value = unsigned(places.next()?, 10)?;
        for place in places {
            let place = unsigned(place, 10).filter(|place| *place < 60)?;
            value = value.checked_mul(60)?.checked_add(place)?;
        }
        value
    };
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_resolve_as_yaml_1_1() {
        for (text, value) in [
            ("60", Some(60)),
            ("+60", Some(60)),
            ("-1", Some(-1)),
            ("1_000", Some(1000)),
            ("0755", Some(493)),
            ("0x1F", Some(31)),
            ("0b101", Some(5)),
            ("1:30", Some(90)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("1:60", None),
            ("089", None),
            ("_1", None),
            ("", None),
            ("-", None),
            ("+-1", None),
            ("0x+1", None),
            ("1.0", None),
            ("ten", None),
        ] {
            assert_eq!(integer(text), value, "{text:?}");
        }
    }

    #[test]
    fn booleans_resolve_as_the_old_reader_did() {
        for text in ["yes", "On", "TRUE"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["no", "Off", "FALSE"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["y", "n", "yEs", "1", ""] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }

    #[test]
    fn a_float_takes_whole_numbers_and_a_whole_number_refuses_fractions() {
        let float = Key::float("ratio", 0.0, 1.0, "");
        assert_eq!(from_text(&float, "1"), Ok(Value::Float(1.0)));
        assert!(from_text(&float, ".nan").is_err());
        assert!(from_text(&float, "1.5").is_err());
        let whole = Key::integer("count", 0, 10, "");
        assert_eq!(from_text(&whole, "1"), Ok(Value::Integer(1)));
        assert!(from_text(&whole, "1.0").is_err());
        assert!(from_text(&whole, "11").is_err());
    }

    #[test]
    fn a_list_is_written_in_brackets_or_with_commas() {
        let list = Key::list("models", "");
        let expected = Ok(Value::List(vec!["H100 80GB".into(), "B200".into()]));
        assert_eq!(from_text(&list, "[H100 80GB, B200]"), expected);
        assert_eq!(from_text(&list, "H100 80GB, B200"), expected);
        assert_eq!(from_text(&list, "[]"), Ok(Value::List(vec![])));
        assert!(from_text(&list, "[[a]]").is_err());
        assert_eq!(from_yaml(&list, &Yaml::from("B200")), Ok(Value::List(vec!["B200".into()])));
        assert!(from_yaml(&list, &Yaml::from(7)).is_err());
    }

    #[test]
    fn text_that_reads_like_something_else_asks_for_quotes() {
        let name = Key::text("name", "");
        assert_eq!(from_yaml(&name, &Yaml::from(7)), Ok(Value::Text("7".into())));
        let refusal = from_yaml(&name, &Yaml::from(true)).unwrap_err();
        assert_eq!(refusal.found, "true");
        assert!(refusal.allowed.contains("quotes"), "{}", refusal.allowed);
        assert_eq!(from_text(&name, "true"), Ok(Value::Text("true".into())));
    }

    #[test]
    fn a_refused_secret_is_not_shown() {
        let token = Key::text("token", "").secret().check(|_| Err("40 characters".into()));
        let refusal = from_text(&token, "hunter2").unwrap_err();
        assert!(!format!("{refusal:?}").contains("hunter2"));
    }
}
