//! When a log file ends and how long old ones stay, as the old configuration files say it: `1 day`, `500 MB`, `3 days`.

use std::{str::FromStr, time::Duration};

/// Size at which a file ends even where only its age is configured, in bytes.
const SIZE_LIMIT_BYTES: u64 = 256 << 20;

const SECONDS_PER_DAY: u64 = 86_400;

/// When a new file begins: at the end of a period, or at a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The period; it is counted from 1970, so that a day ends at midnight UTC.
    pub(super) period: Option<Duration>,
    /// The size.
    pub(super) size_bytes: u64,
}

/// How long rotated files stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Until this age.
    Age(Duration),
    /// The newest so many.
    Files(usize),
}

/// A text that names no rotation or retention.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(&'static str);

impl Rotation {
    /// A new file at midnight UTC.
    #[must_use]
    pub fn daily() -> Self {
        Self { period: Some(Duration::from_secs(SECONDS_PER_DAY)), size_bytes: SIZE_LIMIT_BYTES }
    }
}

impl FromStr for Rotation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let period = match text.trim().to_ascii_lowercase().as_str() {
            "hourly" => Some(Duration::from_secs(3600)),
            "daily" | "00:00" => Some(Duration::from_secs(SECONDS_PER_DAY)),
            "weekly" => Some(Duration::from_secs(7 * SECONDS_PER_DAY)),
            text => duration(text),
        };
        match (period, size(text)) {
            (Some(period), _) => Ok(Self { period: Some(period), size_bytes: SIZE_LIMIT_BYTES }),
            (None, Some(size_bytes)) => Ok(Self { period: None, size_bytes }),
            (None, None) => Err(ParseError("an age or a size such as 1 day, 12 hours or 500 MB")),
        }
    }
}

impl FromStr for Retention {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(files) = text.trim().parse() {
            return Ok(Self::Files(files));
        }
        duration(text).map(Self::Age).ok_or(ParseError("an age such as 3 days, or a number of files"))
    }
}

/// A number and a unit of time, at least a second.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit.trim_end_matches('s') {
        "" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => SECONDS_PER_DAY,
        "w" | "week" => 7 * SECONDS_PER_DAY,
        "month" => 30 * SECONDS_PER_DAY,
        "y" | "year" => 365 * SECONDS_PER_DAY,
        _ => return None,
    };
    // A bare number has no unit; an "s" was trimmed to nothing.
    if unit.is_empty() {
        return None;
    }
    Some(Duration::from_secs(number.checked_mul(seconds)?)).filter(|period| !period.is_zero())
}

/// A number and a unit of size, in bytes, at least one KB.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit.as_str() {
        "kb" => 1_000,
        "kib" => 1 << 10,
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes).filter(|size| *size > 0)
}

fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_ages_or_sizes() {
        let day = Some(Duration::from_secs(SECONDS_PER_DAY));
        for text in ["1 day", "daily", "00:00", "24 hours", "1d", "1440 min"] {
            assert_eq!(text.parse::<Rotation>().unwrap().period, day, "{text}");
        }
        assert_eq!("500 MB".parse(), Ok(Rotation { period: None, size_bytes: 500_000_000 }));
        assert_eq!("1GiB".parse(), Ok(Rotation { period: None, size_bytes: 1 << 30 }));
        for text in ["", "day", "0 days", "1 fortnight", "500", "-1 day", "99999999999999999999 days"] {
            assert!(text.parse::<Rotation>().is_err(), "{text}");
        }
    }

    #[test]
    fn retentions_are_ages_or_numbers_of_files() {
        assert_eq!("3 days".parse(), Ok(Retention::Age(Duration::from_secs(3 * SECONDS_PER_DAY))));
        assert_eq!("10".parse(), Ok(Retention::Files(10)));
        assert!("forever".parse::<Retention>().is_err());
    }
}
