//! JSON text equal to Python's (`canonical_json.json`).

use std::fmt;

use byteleap_protocol::{canonical, lenient};
use proptest::prelude::*;
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

/// Any JSON value of some depth, with the texts that Python's bare tokens become.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_filter("JSON has finite numbers only", |float| float.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "(NaN|-?Infinity|[\"\\\\ ]){0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|entries| entries.into_iter().collect::<byteleap_protocol::Object>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_read_back_from_both_forms(value in value()) {
        let (sorted, ascii) = (canonical::sorted(&value), canonical::ascii(&value));
        prop_assert!(ascii.is_ascii());
        prop_assert_eq!(&lenient::parse(&sorted).unwrap(), &value);
        prop_assert_eq!(&lenient::parse(&ascii).unwrap(), &value);
        prop_assert_eq!(canonical::sorted(&lenient::parse(&ascii).unwrap()), sorted);
    }

    #[test]
    fn any_float_is_read_back_from_its_text(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        prop_assert_eq!(canonical::float(float).parse::<f64>().unwrap().to_bits(), bits);
    }

    #[test]
    fn any_text_is_read_as_a_strict_reader_reads_it_or_more(
        text in r#"([\[\]{},:" \\]|[0-9]{1,3}|NaN|-?Infinity|null|true|"[a-zNI]{0,3}"|\\u[0-9a-f]{4}){0,20}"#,
    ) {
        let read = lenient::parse(&text);
        if let Ok(strict) = serde_json::from_str::<serde_json::Value>(&text) {
            prop_assert_eq!(read.ok(), Some(strict));
        }
    }
}
