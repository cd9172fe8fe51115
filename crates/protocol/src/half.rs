//! Numbers of a GPU's result: IEEE 754 binary16, the form in which they are delivered, hashed and kept (worker-miner spec 5.5).
//!
//! On the wire they are JSON numbers in any decimal form that converts back to the same binary16. A proof shows a hundred
//! thousand of them per GPU, so they are read straight from the text into two bytes each, without a tree of JSON values in
//! between.

use std::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// Most numbers that are kept of one list: sixteen whole rows of the largest matrix, 2 MiB. No request asks for so many, so
/// what comes beyond is dropped and the list is too long all the same.
pub const MAX_NUMBERS: usize = 1 << 20;

/// The smallest magnitude that rounds to no finite binary16.
const OVERFLOW: f64 = 65_520.0;

/// Exponent of the smallest normal binary16, below which the units stay the same.
const MIN_EXPONENT: i32 = -14;

/// One number, by its bit pattern; equal if the pattern is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Half(u16);

impl Half {
    /// What stands for every number that is none, and on the wire for every number beyond the range: no check passes with it.
    pub const NAN: Self = Self(0x7e00);

    /// The number with this bit pattern.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bit pattern, which is what row hashes run over.
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// The nearest binary16, of two equally near ones the even; infinite from magnitude 65520 on.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 2048 units")]
    pub fn from_f64(number: f64) -> Self {
        if number.is_nan() {
            return Self::NAN;
        }
        let sign = if number.is_sign_negative() { 0x8000 } else { 0 };
        let magnitude = number.abs();
        if magnitude >= OVERFLOW {
            return Self(sign | 0x7c00);
        }
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(MIN_EXPONENT);
        let units = (magnitude * power_of_two(10 - exponent)).round_ties_even() as u16;
        // The units carry into the exponent where they are full, which is what rounding up to the next power means.
        Self(sign | ((((exponent - MIN_EXPONENT) as u16) << 10) + units))
    }

    /// The number in binary64, exactly.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        let (exponent, fraction) = (i32::from(self.0 >> 10 & 0x1f), f64::from(self.0 & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * power_of_two(MIN_EXPONENT - 10),
            0x1f if fraction == 0.0 => f64::INFINITY,
            0x1f => f64::NAN,
            _ => (1024.0 + fraction) * power_of_two(exponent - 25),
        };
        if self.0 & 0x8000 == 0 { magnitude } else { -magnitude }
    }

    /// Whether it is a number within the range.
    #[must_use]
    pub const fn is_finite(self) -> bool {
        self.0 & 0x7c00 != 0x7c00
    }

    /// As it is read: what is not finite becomes [`Self::NAN`].
    fn read(number: f64) -> Self {
        Some(Self::from_f64(number)).filter(|half| half.is_finite()).unwrap_or(Self::NAN)
    }
}

/// 2^`exponent`, where that is a normal binary64.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((1023 + exponent).unsigned_abs()) << 52)
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_f64(), f)
    }
}

impl Serialize for Half {
    /// As a number, exactly; as null where it is none.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_finite() { serializer.serialize_f64(self.to_f64()) } else { serializer.serialize_unit() }
    }
}

impl<'de> Deserialize<'de> for Half {
    /// From a number or a decimal text, rounded once; null and whatever is not finite is read as [`Half::NAN`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Half;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Half, E> {
        Ok(Half::read(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Half, E> {
        Ok(Half::read(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Half, E> {
        Ok(Half::read(number as f64))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Half, E> {
        text.trim().parse().map(Half::read).map_err(|_| E::custom("expected a number"))
    }

    fn visit_unit<E>(self) -> Result<Half, E> {
        Ok(Half::NAN)
    }
}

/// Reads a list of numbers, and keeps [`MAX_NUMBERS`] at most; for `#[serde(deserialize_with = "half::read_list")]`.
///
/// # Errors
/// It is no list, or holds something that is no number.
pub fn read_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Half>, D::Error> {
    deserializer.deserialize_seq(ListVisitor)
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<Half>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Half>, A::Error> {
        let mut numbers = Vec::new();
        while let Some(number) = list.next_element()? {
            if numbers.len() < MAX_NUMBERS {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::gpu_server::Row;
    use crate::lenient;

    fn numbers(text: &str) -> Result<Vec<Half>, serde_json::Error> {
        read_list(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn every_binary16_survives_binary64_and_json() {
        for half in (0..=u16::MAX).map(Half::from_bits) {
            let again = Half::from_f64(half.to_f64());
            let text = serde_json::to_string(&half).unwrap();
            if half.is_finite() {
                assert_eq!(again, half);
                assert_eq!(serde_json::from_str::<Half>(&text).unwrap(), half);
            } else {
                assert!(!again.is_finite());
                assert_eq!(text, "null");
            }
        }
    }

    #[test]
    fn midpoints_go_to_the_even_neighbour_and_everything_else_to_the_nearest() {
        for bits in 0..0x7bff {
            let (low, high) = (Half::from_bits(bits), Half::from_bits(bits + 1));
            let middle = (low.to_f64() + high.to_f64()) / 2.0;
            let even = if bits % 2 == 0 { low } else { high };
            assert_eq!(Half::from_f64(middle), even);
            assert_eq!(Half::from_f64(middle.next_down()), low);
            assert_eq!(Half::from_f64(middle.next_up()), high);
            assert_eq!(Half::from_f64(-middle.next_up()), Half::from_bits(0x8000 | (bits + 1)));
        }
    }

    #[test]
    fn the_range_ends_halfway_to_the_next_power() {
        assert_eq!(Half::from_f64(65_520.0_f64.next_down()).to_bits(), 0x7bff);
        assert_eq!(Half::from_f64(65_520.0).to_bits(), 0x7c00);
        assert_eq!(Half::from_f64(f64::NEG_INFINITY).to_bits(), 0xfc00);
        assert_eq!(Half::from_f64(f64::MIN_POSITIVE).to_bits(), 0);
    }

    #[test]
    fn numbers_are_read_from_whatever_stands_for_one() {
        let read = numbers(r#"[1, -2.5, "3", " 0.5 ", null, "NaN", "-Infinity", 1e6, 18446744073709551615]"#).unwrap();
        let nan = Half::NAN;
        assert_eq!(read, [[1.0, -2.5, 3.0, 0.5].map(Half::from_f64).as_slice(), &[nan; 5]].concat());
        for wrong in ["[true]", "[[]]", "[{}]", r#"["x"]"#, "{}", "1", "[1"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_kept_up_to_its_bound() {
        let text = format!("[{}1]", "1,".repeat(MAX_NUMBERS));
        assert_eq!(numbers(&text).unwrap().len(), MAX_NUMBERS);
    }

    proptest! {
        #[test]
        fn a_list_reads_the_same_from_its_text_and_by_a_tree(
            parts in prop::collection::vec((any::<f64>(), "[0-9eE.+-]{1,8}|NaN|null|Infinity|-Infinity"), 0..20)
        ) {
            let (number, text): (Vec<_>, Vec<_>) = parts.into_iter().map(|(number, text)| (json!(number), text)).unzip();
            let list = |items: &[String]| format!("[{}]", items.join(","));
            let quoted: Vec<_> = text.iter().map(|text| format!("\"{text}\"")).collect();
            let plain: Vec<_> = number.iter().map(ToString::to_string).collect();
            for text in [list(&plain), list(&text), list(&quoted), list(&[plain, text].concat())] {
                let by_tree = lenient::parse(&text).and_then(read_list);
                prop_assert_eq!(lenient::from_str::<Row>(&text).map(|row| row.numbers).ok(), by_tree.ok(), "{}", text);
            }
        }

        #[test]
        fn rounding_is_monotonic(one in -70_000.0..70_000.0_f64, other in -70_000.0..70_000.0_f64) {
            let (low, high) = if one <= other { (one, other) } else { (other, one) };
            prop_assert!(Half::from_f64(low).to_f64() <= Half::from_f64(high).to_f64());
        }
    }
}
