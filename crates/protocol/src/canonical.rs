//! The writing end of every message: JSON text equal, byte for byte, to what Python's `json.dumps` writes.
//!
//! Frames and request bodies are [`ascii`]; what a session seals is [`sorted`] (miner-validator spec 1.1 and 3.3).
//! Numbers that are not finite are no JSON: they are written as `null`, never as Python's bare tokens.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter};

/// `json.dumps(value)`: keys in the order of the type's fields, all but ASCII as `\uXXXX`.
#[must_use]
pub fn ascii(value: &impl Serialize) -> String {
    write(value, Python { ascii: true })
}

/// `json.dumps(value, sort_keys=True, ensure_ascii=False)`: keys by code point at every level.
#[must_use]
pub fn sorted(value: &impl Serialize) -> String {
    write(&Sorted(&tree(value)), Python { ascii: false })
}

/// The value as a tree, so that its keys can be put in order.
fn tree(value: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "message types have text keys and no failing Serialize")]
    serde_json::to_value(value).expect("a message is a JSON value")
}

fn write(value: &impl Serialize, formatter: Python) -> String {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    #[expect(clippy::expect_used, reason = "writing into memory does not fail, and a message is a JSON value")]
    value.serialize(&mut serializer).expect("a message is a JSON value");
    #[expect(clippy::expect_used, reason = "the serializer writes whole characters")]
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// A tree whose objects are written in the order of their keys, however its map keeps them.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            Value::Object(object) => {
                // UTF-8 keeps the order of code points, so comparing bytes is enough.
                let mut entries: Vec<_> = object.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                serializer.collect_map(entries.into_iter().map(|(key, value)| (key, Sorted(value))))
            }
            plain => plain.serialize(serializer),
        }
    }
}

/// Python's separators, float texts and escapes.
#[derive(Clone, Copy)]
struct Python {
    ascii: bool,
}

impl Formatter for Python {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Most are written in place: a proof of eight GPUs has 825,000 of them.
        if is_fixed(value) { write!(writer, "{value:?}") } else { writer.write_all(float(value).as_bytes()) }
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(|character: char| !(' '..='~').contains(&character)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut characters = rest[at..].chars();
            if let Some(character) = characters.next() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let short: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(short)
    }
}

/// Python's `repr` of a finite double: the shortest digits that read back, in fixed notation for decimal exponents
/// from -4 to 15, else with an exponent of at least two digits.
#[must_use]
pub fn float(value: f64) -> String {
    if is_fixed(value) {
        return format!("{value:?}");
    }
    // Rust's `e` notation gives the same shortest digits, as `d.ddde-7`.
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let Ok(exponent) = exponent.parse::<i32>() else { return text };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Whether its decimal exponent is from -4 to 15, where Rust's notation is the same fixed one.
fn is_fixed(value: f64) -> bool {
    value == 0.0 || (1e-4..1e16).contains(&value.abs())
}
