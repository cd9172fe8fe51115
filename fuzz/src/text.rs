//! The grammars below all messages: JSON as it is read, JSON as it is written, and the texts of keys.

use byteleap_protocol::hotkey::{Hotkey, Signature};
use byteleap_protocol::lenient::{self, Lenient};
use byteleap_protocol::{Object, canonical};
use serde_json::Value;

/// JSON as peers send it: what a strict reader takes is taken as the same value, and no field's reader goes beyond its
/// type.
pub fn lenient_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = lenient::parse(text);
    if let Ok(strict) = serde_json::from_str::<Value>(text) {
        assert_eq!(read.as_ref().ok(), Some(&strict), "strict JSON is read otherwise");
    }
    let Ok(value) = read else { return };
    if let Ok(number) = f64::read(value.clone()) {
        assert!(number.is_finite());
        assert_eq!(f64::read(number.into()), Ok(number));
    }
    if let Ok(number) = i64::read(value.clone()) {
        assert_eq!(i64::read(number.into()), Ok(number));
        assert_eq!(u8::read(value.clone()).ok(), u8::try_from(number).ok());
    }
    if let Ok(number) = u64::read(value.clone()) {
        assert_eq!(u64::read(number.into()), Ok(number));
        assert_eq!(u16::read(value.clone()).ok(), u16::try_from(number).ok());
        assert_eq!(u32::read(value.clone()).ok(), u32::try_from(number).ok());
    }
    if let Ok(text) = String::read(value.clone()) {
        assert_eq!(text.trim(), text);
    }
    let _ = bool::read(value.clone());
    let _ = Object::read(value.clone());
    let _ = Option::<f64>::read(value.clone());
    let _ = Vec::<String>::read(value.clone());
    let _ = Vec::<(u32, u32)>::read(value);
}

/// JSON as we write it: both forms read back as the value they were written from, and writing again changes nothing.
/// The first eight bytes also make a float, whose text must be its own.
pub fn canonical_json(bytes: &[u8]) {
    if let Some(bits) = bytes.first_chunk() {
        let float = f64::from_be_bytes(*bits);
        if float.is_finite() {
            let text = canonical::float(float);
            assert_eq!(text.parse().map(f64::to_bits), Ok(float.to_bits()), "{text}");
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), float.to_bits(), "{text}");
        }
    }
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok()) else { return };
    let (sorted, ascii) = (canonical::sorted(&value), canonical::ascii(&value));
    assert!(ascii.is_ascii());
    for text in [&sorted, &ascii] {
        assert_eq!(lenient::parse(text).unwrap(), value, "{text}");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), value, "{text}");
    }
    assert_eq!(canonical::sorted(&lenient::parse(&ascii).unwrap()), sorted);
}

/// Hotkeys and signatures: a text that is one is the only text of it.
pub fn hotkey(bytes: &[u8]) {
    if let Some(key) = bytes.first_chunk() {
        let hotkey = Hotkey(*key);
        assert_eq!(hotkey.to_string().parse(), Ok(hotkey));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(hotkey) = text.parse::<Hotkey>() {
        assert_eq!(hotkey.to_string(), text);
        let _ = hotkey.verify(bytes, &Signature([0x80; 64]));
    }
    if let Ok(signature) = text.parse::<Signature>() {
        assert_eq!(signature.to_string(), text.to_ascii_lowercase());
    }
}
