//! Dates as a gateway and the Python worker write them (vm-and-gpu-host spec 1.6), as Unix milliseconds.

use std::time::Duration;

use x509_cert::der::DateTime;

/// Reads ISO 8601 with a time zone: `2026-06-01T08:00:00Z`, `2026-06-01T10:00:00.125+02:00`. A fraction is cut to
/// milliseconds. None for anything else, dates before 1970 included.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let (seconds, rest) = text.split_at_checked("2026-06-01T08:00:00".len())?;
    let seconds: DateTime = format!("{seconds}Z").parse().ok()?;
    let (fraction, zone) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let milliseconds = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        None if fraction.is_empty() => 0,
        _ => return None,
    };
    let local_ms = i64::try_from(seconds.unix_duration().as_millis()).ok()?;
    Some(local_ms + milliseconds - offset_ms(zone)?)
}

/// How far a zone is ahead of UTC: `Z`, `+02:00`, `-0530`.
fn offset_ms(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, digits) = zone.split_at_checked(1)?;
    let digits = digits.replacen(':', "", 1);
    if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    let offset = (hours * 60 + minutes) * 60_000;
    (hours < 24 && minutes < 60).then_some(if sign == "-" { -offset } else { offset })
}

/// Writes whole seconds as Python's `isoformat` does: `2026-06-01T08:00:00+00:00`. What lies outside the years 1970 to
/// 9999 is written as the nearest that does not.
pub(crate) fn format(unix_ms: i64) -> String {
    let seconds = Duration::from_secs(u64::try_from(unix_ms / 1000).unwrap_or(0));
    let date = DateTime::from_unix_duration(seconds).unwrap_or(DateTime::INFINITY);
    date.to_string().replace('Z', "+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIGHT_O_CLOCK_MS: i64 = 1_780_300_800_000;

    #[test]
    fn the_same_moment_is_read_in_every_zone() {
        for text in [
            "2026-06-01T08:00:00Z",
            "2026-06-01T08:00:00+00:00",
            " 2026-06-01T08:00:00.000000Z ",
            "2026-06-01T10:00:00+02:00",
            "2026-06-01T02:30:00-0530",
        ] {
            assert_eq!(parse(text), Some(EIGHT_O_CLOCK_MS), "{text}");
        }
    }

    #[test]
    fn a_fraction_is_cut_to_milliseconds() {
        assert_eq!(parse("2026-06-01T08:00:00.5Z"), Some(EIGHT_O_CLOCK_MS + 500));
        assert_eq!(parse("2026-06-01T08:00:00.123456789+00:00"), Some(EIGHT_O_CLOCK_MS + 123));
    }

    #[test]
    fn what_is_no_date_with_a_zone_is_none() {
        for text in [
            "",
            "soon",
            "2026-06-01T08:00:00",
            "2026-06-01",
            "2026-13-01T08:00:00Z",
            "2026-06-01T08:00:00.Z",
            "2026-06-01T08:00:00.xZ",
            "2026-06-01T08:00:00+2",
            "2026-06-01T08:00:00+99:00",
            "2026-06-01T08:00:00Zx",
            "2026-06-01T08:00:0éZ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_written_as_python_writes_them() {
        assert_eq!(format(EIGHT_O_CLOCK_MS + 999), "2026-06-01T08:00:00+00:00");
        assert_eq!(format(-1), "1970-01-01T00:00:00+00:00");
        assert_eq!(parse(&format(i64::MAX)), parse("9999-12-31T23:59:59Z"));
    }
}
