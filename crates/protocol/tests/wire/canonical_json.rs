//! JSON text equal to Python's (`canonical_json.json`).

use std::fmt;

use byteleap_protocol::{canonical, lenient};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

#[derive(serde::Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    floats: Vec<Float>,
    must_fail_to_encode: Vec<Unencodable>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    input_json: String,
    sorted_utf8: String,
    default_ascii: String,
}

#[derive(serde::Deserialize)]
struct Float {
    bits_be_hex: String,
    text: String,
}

#[derive(serde::Deserialize)]
struct Unencodable {
    input_json: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors/canonical_json.json")).unwrap()
}

/// A value whose object keys keep their order, as those of a message type do.
enum Ordered {
    Plain(serde_json::Value),
    List(Vec<Ordered>),
    Object(Vec<(String, Ordered)>),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON")
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Plain(serde_json::Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries: Vec<(String, Ordered)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Ordered>()? {
                    match entries.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, earlier)) => *earlier = value,
                        None => entries.push((key, value)),
                    }
                }
                Ok(Ordered::Object(entries))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(entries) => serializer.collect_map(entries.iter().map(|(key, value)| (key, value))),
        }
    }
}

#[test]
fn texts_equal_those_of_python() {
    let mut compared = 0;
    for case in vectors().cases {
        let Case { name, input_json, sorted_utf8, default_ascii } = case;
        if name.contains("Infinity") || name.contains("NaN") || default_ascii.contains("Infinity") {
            continue; // the next test but one
        }
        if input_json == "-0" {
            // An integer to Python, a float to serde_json; nobody sends it.
            continue;
        }
        if let Ok(wide) = input_json.parse::<i128>() {
            assert_eq!(canonical::ascii(&wide), default_ascii, "{name}");
        } else {
            let ordered: Ordered = serde_json::from_str(&input_json).unwrap();
            assert_eq!(canonical::ascii(&ordered), default_ascii, "{name}");
            let value = lenient::parse(&input_json).unwrap();
            assert_eq!(canonical::sorted(&value), sorted_utf8, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 51);
}

#[test]
fn floats_are_written_as_python_writes_them() {
    for float in vectors().floats {
        let bits = u64::from_str_radix(&float.bits_be_hex, 16).unwrap();
        let value = f64::from_bits(bits);
        if value.is_finite() {
            assert_eq!(canonical::ascii(&value), float.text, "{bits:016x}");
            assert_eq!(canonical::sorted(&value), float.text, "{bits:016x}");
        }
    }
}

#[test]
fn tokens_of_python_are_read_and_never_written() {
    for token in ["NaN", "Infinity", "[Infinity,-Infinity]"] {
        assert!(lenient::parse(token).is_ok());
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(canonical::ascii(&value), "null");
        assert_eq!(canonical::sorted(&value), "null");
    }
}

#[test]
fn what_python_cannot_encode_cannot_be_read_either() {
    for case in vectors().must_fail_to_encode {
        assert!(lenient::parse(&case.input_json).is_err());
    }
}
