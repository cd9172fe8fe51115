//! Time as the wire tells it.

/// Milliseconds since 1970 as the float seconds of the payloads.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 have 41 bits, a double holds 53")]
pub(crate) fn seconds(unix_ms: i64) -> f64 {
    unix_ms as f64 / 1000.0
}
