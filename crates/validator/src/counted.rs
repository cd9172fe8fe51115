//! Numbers with their noun, as people read them: `1 worker`, `2 workers`.

use std::fmt::Display;

/// A count and its noun, which takes an `s` unless it is one.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_plural() {
        assert_eq!([0_u32, 1, 2].map(|count| counted(count, "worker")), ["0 workers", "1 worker", "2 workers"]);
    }
}
