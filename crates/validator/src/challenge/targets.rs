//! What a worker must open: drawn after its commitment, so that it cannot compute this alone.
//!
//! A processor opens rows; every GPU of one challenge opens the same rows and shows the same elements.

use std::collections::BTreeSet;

use byteleap_protocol::challenge::ChallengeKind;
use byteleap_protocol::id::MatrixSize;
use rand_core::RngCore;

use super::{Rules, Spread};

/// What was drawn for a challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Rows to open, ascending.
    pub rows: Vec<u32>,
    /// Elements to show, as row and column; none for a processor.
    pub coordinates: Vec<(u32, u32)>,
}

impl Targets {
    /// Draws for a challenge of `kind` (validator spec 4.5). With `rng` the system's, nobody foresees them.
    pub fn draw(rng: &mut impl RngCore, kind: ChallengeKind, size: MatrixSize, rules: &Rules) -> Self {
        match kind {
            ChallengeKind::CpuMatrix => Self { rows: draw_rows(rng, size, rules.cpu.rows), coordinates: Vec::new() },
            ChallengeKind::GpuMatrix => {
                let (rows, coordinates) = (rules.gpu.rows, rules.gpu.coordinates);
                Self {
                    rows: if rows.base == 0 { Vec::new() } else { draw_rows(rng, size, rows) },
                    coordinates: if coordinates.base == 0 {
                        Vec::new()
                    } else {
                        draw_coordinates(rng, size, coordinates)
                    },
                }
            }
        }
    }
}

/// Draws distinct rows below `size`, ascending: as many as the spread says, at least one and at most all.
pub fn draw_rows(rng: &mut impl RngCore, size: MatrixSize, spread: Spread) -> Vec<u32> {
    let (size, count) = (size.get(), draw_count(rng, spread).clamp(1, size.get()));
    // Floyd's way: each set of `count` rows is equally likely, after `count` draws.
    let mut rows = BTreeSet::new();
    for last in size - count..size {
        let row = below(rng, last + 1);
        rows.insert(if rows.contains(&row) { last } else { row });
    }
    rows.into_iter().collect()
}

/// Draws distinct elements, in the order of drawing: as many as the spread says, at least one and at most all.
fn draw_coordinates(rng: &mut impl RngCore, size: MatrixSize, spread: Spread) -> Vec<(u32, u32)> {
    let size = size.get();
    let count = draw_count(rng, spread).clamp(1, size.saturating_mul(size)) as usize;
    let (mut drawn, mut seen) = (Vec::with_capacity(count), BTreeSet::new());
    while drawn.len() < count {
        let coordinate = (below(rng, size), below(rng, size));
        if seen.insert(coordinate) {
            drawn.push(coordinate);
        }
    }
    drawn
}

fn draw_count(rng: &mut impl RngCore, Spread { base, variance }: Spread) -> u32 {
    let spread = (f64::from(base) * variance) as u32;
    base.saturating_sub(spread).saturating_add(below(rng, spread.saturating_mul(2).saturating_add(1)))
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
            let rows = draw_rows(&mut OsRng, MatrixSize::new(size).unwrap(), Spread { base, variance });
            let spread = (f64::from(base) * variance) as u32;
            prop_assert!(rows.is_sorted_by(|a, b| a < b));
            prop_assert!(rows.iter().all(|row| *row < size));
            let count = rows.len() as u32;
            prop_assert!(count >= (base - spread).clamp(1, size) && count <= (base + spread).clamp(1, size));
        }
    }

    proptest! {
        #[test]
        fn elements_are_distinct_within_the_matrix_and_as_many_as_asked(
            size in 1_u32..3000, base in 1_u32..200, variance in 0.0_f64..1.0
        ) {
            let drawn = draw_coordinates(&mut OsRng, MatrixSize::new(size).unwrap(), Spread { base, variance });
            let spread = (f64::from(base) * variance) as u32;
            prop_assert!(drawn.iter().all(|(row, column)| *row < size && *column < size));
            prop_assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
            let (count, all) = (drawn.len() as u32, size * size);
            prop_assert!(count >= (base - spread).clamp(1, all) && count <= (base + spread).clamp(1, all));
        }
    }

    #[test]
    fn every_row_is_reached() {
        let size = MatrixSize::new(5).unwrap();
        let draw = |base| draw_rows(&mut OsRng, size, Spread { base, variance: 0.0 });
        let mut seen = BTreeSet::new();
        while seen.len() < 5 {
            seen.extend(draw(1));
        }
        assert_eq!(draw(9), [0, 1, 2, 3, 4]);
    }
}
