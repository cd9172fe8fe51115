//! Which rows a worker must open: drawn after its commitment, so that it cannot compute these alone.

use std::collections::BTreeSet;

use byteleap_protocol::id::MatrixSize;
use rand_core::RngCore;

/// Draws distinct rows below `size`, ascending: `base` ± up to the whole part of `base` × `variance` of them, uniformly,
/// at least one and at most all (validator spec 4.5). With `rng` the system's, nobody foresees them.
pub fn draw_rows(rng: &mut impl RngCore, size: MatrixSize, base: u32, variance: f64) -> Vec<u32> {
    let spread = (f64::from(base) * variance) as u32;
    let count = base.saturating_sub(spread).saturating_add(below(rng, spread.saturating_mul(2).saturating_add(1)));
    let (size, count) = (size.get(), count.clamp(1, size.get()));
    // Floyd's way: each set of `count` rows is equally likely, after `count` draws.
    let mut rows = BTreeSet::new();
    for last in size - count..size {
        let row = below(rng, last + 1);
        rows.insert(if rows.contains(&row) { last } else { row });
    }
    rows.into_iter().collect()
}

/// A number below `bound` (at least 1), each equally likely: numbers of the last, incomplete span are drawn again.
fn below(rng: &mut impl RngCore, bound: u32) -> u32 {
    let incomplete = (u32::MAX - bound + 1) % bound;
    loop {
        let drawn = rng.next_u32();
        if drawn <= u32::MAX - incomplete {
            return drawn % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_core::OsRng;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_distinct_ascending_within_the_matrix_and_as_many_as_asked(
            size in 1_u32..3000, base in 1_u32..200, variance in 0.0_f64..1.0
        ) {
            let rows = draw_rows(&mut OsRng, MatrixSize::new(size).unwrap(), base, variance);
            let spread = (f64::from(base) * variance) as u32;
            prop_assert!(rows.is_sorted_by(|a, b| a < b));
            prop_assert!(rows.iter().all(|row| *row < size));
            let count = rows.len() as u32;
            prop_assert!(count >= (base - spread).clamp(1, size) && count <= (base + spread).clamp(1, size));
        }
    }

    #[test]
    fn every_row_is_reached() {
        let size = MatrixSize::new(5).unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < 5 {
            seen.extend(draw_rows(&mut OsRng, size, 1, 0.0));
        }
        assert_eq!(draw_rows(&mut OsRng, size, 9, 0.0), [0, 1, 2, 3, 4]);
    }
}
