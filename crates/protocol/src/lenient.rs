//! The reading end of every message: accepts what Python peers send and what their models accept.
//!
//! Python writes the bare tokens `NaN`, `Infinity` and `-Infinity`, which are no JSON, lets the last of two equal keys
//! win, and converts number-like texts (worker-miner spec 2.1, miner-validator spec 2.1). [`parse`] takes such a text
//! in; [`read`] converts one field, to be named in `#[serde(deserialize_with = "lenient::read")]`.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};
use serde_json::Value;

use crate::Object;

/// Reads one JSON text as Python does.
///
/// The three bare tokens become the texts `"NaN"`, `"Infinity"` and `"-Infinity"`: a free object keeps them in a form
/// that may be sent on, and only [`crate::half`] reads them as a number.
///
/// # Errors
/// The text is not JSON, even in this wider sense.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    from_str(text)
}

/// Reads one JSON text as Python does, straight into a type: no tree of values in between, which for a GPU's proof would be
/// many times the size of its text.
///
/// # Errors
/// The text is not JSON, even in this wider sense, or does not fit the type.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    match serde_json::from_str(text) {
        // Looking for tokens costs more than reading, and a sealed package has them by chance: first it is read as it stands.
        Err(_) if text.contains("NaN") || text.contains("Infinity") => serde_json::from_str(&quote_bare_tokens(text)),
        read => read,
    }
}

/// Puts quotation marks around `NaN`, `Infinity` and `-Infinity` wherever they stand outside a string.
fn quote_bare_tokens(text: &str) -> String {
    const TOKENS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(text.len() + 16);
    let mut copied = 0;
    let mut at = 0;
    let mut in_string = false;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' if !in_string => {
                if let Some(token) = TOKENS.iter().find(|token| bytes[at..].starts_with(token.as_bytes())) {
                    quoted.push_str(&text[copied..at]);
                    quoted.push('"');
                    quoted.push_str(token);
                    quoted.push('"');
                    at += token.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    quoted.push_str(&text[copied..]);
    quoted
}

/// A field type with the conversions of worker-miner spec 2.1.
pub trait Lenient: Sized {
    /// Converts a JSON value, or says what was expected instead.
    ///
    /// # Errors
    /// A text that names the expectation, never the value itself.
    fn read(value: Value) -> Result<Self, String>;
}

/// Reads one field leniently; for `#[serde(deserialize_with = "lenient::read")]`.
///
/// # Errors
/// The value is not of the field's type, even after conversion.
pub fn read<'de, D: Deserializer<'de>, T: Lenient>(deserializer: D) -> Result<T, D::Error> {
    T::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Reads a field whose `null` means the default, where a peer is known to send it so (worker-miner spec 2.10).
///
/// # Errors
/// The value is neither null nor of the field's type.
pub fn read_or_default<'de, D: Deserializer<'de>, T: Lenient + Default>(deserializer: D) -> Result<T, D::Error> {
    read::<D, Option<T>>(deserializer).map(Option::unwrap_or_default)
}

impl Lenient for Value {
    fn read(value: Value) -> Result<Self, String> {
        Ok(value)
    }
}

impl Lenient for Object {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(object) => Ok(object),
            _ => Err("expected an object".to_owned()),
        }
    }
}

impl Lenient for String {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) if text.trim().len() == text.len() => Ok(text),
            Value::String(text) => Ok(text.trim().to_owned()),
            _ => Err("expected a text".to_owned()),
        }
    }
}

impl Lenient for f64 {
    fn read(value: Value) -> Result<Self, String> {
        number(&value).filter(|number| number.is_finite()).ok_or_else(|| "expected a finite number".to_owned())
    }
}

/// An integer, a float or a decimal text, as a float; the three tokens included.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

impl Lenient for bool {
    fn read(value: Value) -> Result<Self, String> {
        let word = match &value {
            Value::Bool(flag) => return Ok(*flag),
            Value::Number(number) if number.as_f64() == Some(1.0) => return Ok(true),
            Value::Number(number) if number.as_f64() == Some(0.0) => return Ok(false),
            Value::String(word) => word.trim().to_ascii_lowercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
            _ => Err("expected a boolean".to_owned()),
        }
    }
}

/// Any integer that a message can hold: an integer, a float or text with zero fraction, or a boolean.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        Value::Number(number) => {
            number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)).or_else(|| whole(number.as_f64()?))
        }
        Value::String(text) => {
            let text = text.trim();
            let digits = text
                .split_once('.')
                .map_or(text, |(digits, zeros)| if zeros.bytes().all(|digit| digit == b'0') { digits } else { "" });
            digits.parse().ok()
        }
        _ => None,
    }
}

/// A float without fraction, within the range where every integer has its own float.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked, the fraction is zero")]
fn whole(number: f64) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i128)
}

macro_rules! lenient_integers {
    ($($integer:ty),*) => {$(
        impl Lenient for $integer {
            fn read(value: Value) -> Result<Self, String> {
                integer(&value)
                    .and_then(|wide| wide.try_into().ok())
                    .ok_or_else(|| format!("expected an integer from {} to {}", <$integer>::MIN, <$integer>::MAX))
            }
        }
    )*};
}
lenient_integers!(i64, u64, u32, u16, u8);

impl<T: Lenient> Lenient for Option<T> {
    fn read(value: Value) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
}

impl<T: Lenient> Lenient for Vec<T> {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::Array(items) => items.into_iter().map(T::read).collect(),
            _ => Err("expected a list".to_owned()),
        }
    }
}

impl<T: Lenient> Lenient for (T, T) {
    fn read(value: Value) -> Result<Self, String> {
        let [first, second]: [T; 2] = Vec::read(value)?.try_into().map_err(|_| "expected a list of two".to_owned())?;
        Ok((first, second))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tokens_of_python_are_read_outside_strings_only() {
        let value = parse(r#"{"a":Infinity,"b":[-Infinity, NaN],"c":"NaN \" Infinity","d":-1}"#).unwrap();
        assert_eq!(value, json!({"a": "Infinity", "b": ["-Infinity", "NaN"], "c": "NaN \" Infinity", "d": -1}));
        assert!(parse("{\"a\":Infinit}").is_err());
    }

    #[test]
    fn a_float_is_finite() {
        assert_eq!(f64::read(json!("1.5")), Ok(1.5));
        assert!(f64::read(json!("NaN")).is_err());
        assert!(f64::read(json!("Infinity")).is_err());
    }

    #[test]
    fn integers_are_read_from_whatever_is_a_whole_number() {
        for whole in [json!(1), json!(1.0), json!("1"), json!(" 1 "), json!("1.0"), json!(true)] {
            assert_eq!(i64::read(whole), Ok(1));
        }
        for other in
            [json!(1.5), json!("1.5"), json!("x"), json!(""), json!("."), json!(null), json!([1]), json!(1e300)]
        {
            assert!(i64::read(other).is_err());
        }
        assert_eq!(u64::read(json!(u64::MAX)), Ok(u64::MAX));
        assert!(u32::read(json!(-1)).is_err());
    }

    #[test]
    fn booleans_are_read_from_words_and_digits() {
        for (yes, no) in [(json!(true), json!(false)), (json!(1), json!(0)), (json!("Yes"), json!("off"))] {
            assert_eq!((bool::read(yes), bool::read(no)), (Ok(true), Ok(false)));
        }
        assert!(bool::read(json!(null)).is_err());
        assert!(bool::read(json!(2)).is_err());
    }

    #[test]
    fn texts_must_be_texts_and_lose_outer_white_space() {
        assert_eq!(String::read(json!("  a b ")), Ok("a b".to_owned()));
        assert!(String::read(json!(5)).is_err());
    }
}
