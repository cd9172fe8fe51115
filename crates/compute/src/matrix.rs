//! From the stream to matrices: first all of A in row-major order, then all of B (worker-miner spec 4.4).
//!
//! Every element lies within -500..=500, so 16 bits hold it. [`Factors`] is what the product needs: A by rows, B packed as
//! the kernels read it. Packed means: [`TILE_ROWS`] rows or [`TILE_COLUMNS`] columns stand side by side in a panel, and a
//! step through the panel takes two elements of each line, which is what one instruction multiplies and adds. What is
//! missing at the edges is zero.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::challenge::CpuChallenge;
use crate::cpu::Error;
use crate::kernel::{ColumnPairs, Kernel, RowPairs, TILE_COLUMNS, TILE_ROWS, pair};
use crate::mt19937::Elements;

/// The largest magnitude of an element of A or B (worker-miner spec 4.3).
pub const ELEMENT_MAX: i16 = 500;

/// Rows of B that are drawn while the ones before are packed. Even, since they are packed in pairs.
const PACKED_ROWS: usize = 64;

/// A and B of one challenge: 4·n² bytes and the padding of B.
pub struct Factors {
    size: usize,
    a: Vec<i16>,
    b: ColumnPanels,
}

impl Factors {
    /// Draws both matrices by `kernel`: one thread draws, since the stream is one, a second makes room and packs.
    ///
    /// # Errors
    /// [`Error::Memory`]; [`Error::Cancelled`] within some rows after `cancelled` is set.
    pub fn generate(challenge: &CpuChallenge, kernel: Kernel, cancelled: &AtomicBool) -> Result<Self, Error> {
        let size = challenge.size();
        let mut stream = Elements::new(challenge.seed_word(), kernel);
        let (a, b) = rayon::join(|| draw_a(size, &mut stream, cancelled), || ColumnPanels::zeroed(size));
        let (a, mut b) = (a?, b?);

        let mut drawn = filled(PACKED_ROWS * size, 0)?;
        let mut packed = filled(PACKED_ROWS * size, 0)?;
        let mut draw = |rows: &mut [i16], first: usize| {
            stream.draw(&mut rows[..size * PACKED_ROWS.min(size - first)]);
        };
        draw(&mut packed, 0);
        for first in (0..size).step_by(PACKED_ROWS) {
            check(cancelled)?;
            let next = first + PACKED_ROWS;
            let rows = &packed[..size * PACKED_ROWS.min(size - first)];
            if next < size {
                rayon::join(|| draw(&mut drawn, next), || b.set_rows(first, rows));
            } else {
                b.set_rows(first, rows);
            }
            std::mem::swap(&mut drawn, &mut packed);
        }
        Ok(Self { size, a, b })
    }

    /// n.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// One row of A.
    #[must_use]
    pub fn a_row(&self, row: usize) -> &[i16] {
        &self.a[row * self.size..][..self.size]
    }

    /// B, packed.
    #[must_use]
    pub fn b(&self) -> &ColumnPanels {
        &self.b
    }
}

fn draw_a(size: usize, stream: &mut Elements, cancelled: &AtomicBool) -> Result<Vec<i16>, Error> {
    let mut a = filled(size * size, 0)?;
    for rows in a.chunks_mut(PACKED_ROWS * size) {
        check(cancelled)?;
        stream.draw(rows);
    }
    Ok(a)
}

/// Columns of a matrix, packed: panel after panel, each with all its pairs of rows.
pub struct ColumnPanels {
    size: usize,
    pairs: Vec<ColumnPairs>,
}

impl ColumnPanels {
    /// Panels of an n×n matrix of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] where the allocator has not got that much.
    pub fn zeroed(size: usize) -> Result<Self, Error> {
        Ok(Self { size, pairs: filled(size.div_ceil(TILE_COLUMNS) * size.div_ceil(2), [0; TILE_COLUMNS])? })
    }

    /// The columns from `panel` · [`TILE_COLUMNS`] on.
    #[inline]
    #[must_use]
    pub fn panel(&self, panel: usize) -> &[ColumnPairs] {
        let length = self.size.div_ceil(2);
        &self.pairs[panel * length..][..length]
    }

    /// One element.
    #[must_use]
    pub fn element(&self, row: usize, column: usize) -> i16 {
        let both = self.panel(column / TILE_COLUMNS)[row / 2][column % TILE_COLUMNS];
        if row.is_multiple_of(2) { both as i16 } else { (both >> 16) as i16 }
    }

    /// Packs whole rows, the first of which has an even index.
    fn set_rows(&mut self, first: usize, rows: &[i16]) {
        let length = self.size.div_ceil(2);
        let none = vec![0; self.size];
        for (index, both) in (first / 2..).zip(rows.chunks(2 * self.size)) {
            let (even, odd) = both.split_at(self.size);
            let odd = if odd.is_empty() { &none } else { odd };
            let columns = even.chunks(TILE_COLUMNS).zip(odd.chunks(TILE_COLUMNS));
            for (panel, (even, odd)) in columns.enumerate() {
                for (place, (low, high)) in self.pairs[panel * length + index].iter_mut().zip(even.iter().zip(odd)) {
                    *place = pair(*low, *high);
                }
            }
        }
    }
}

/// A band of rows, packed: panel after panel, each with all its pairs of columns. Filled anew for every multiplication.
pub struct RowPanels {
    length: usize,
    pairs: Vec<RowPairs>,
}

impl RowPanels {
    /// Room for `rows` rows of `size` elements.
    ///
    /// # Errors
    /// [`Error::Memory`] where the allocator has not got that much.
    pub fn zeroed(rows: usize, size: usize) -> Result<Self, Error> {
        let length = size.div_ceil(2);
        Ok(Self { length, pairs: filled(rows.div_ceil(TILE_ROWS) * length, [0; TILE_ROWS])? })
    }

    /// The rows from `panel` · [`TILE_ROWS`] on.
    #[inline]
    #[must_use]
    pub fn panel(&self, panel: usize) -> &[RowPairs] {
        &self.pairs[panel * self.length..][..self.length]
    }

    /// Packs one row of the band.
    pub fn set_row(&mut self, row: usize, elements: &[i16]) {
        let panel = &mut self.pairs[row / TILE_ROWS * self.length..][..self.length];
        let lane = row % TILE_ROWS;
        let (both, last) = elements.as_chunks::<2>();
        for (place, [low, high]) in panel.iter_mut().zip(both) {
            place[lane] = pair(*low, *high);
        }
        if let ([low], Some(place)) = (last, panel.last_mut()) {
            place[lane] = pair(*low, 0);
        }
    }
}

/// So many times the same value, or why there is no room for it.
pub(crate) fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>, Error> {
    let mut elements = Vec::new();
    let needed_bytes = (count * size_of::<T>()) as u64;
    elements.try_reserve_exact(count).map_err(|_| Error::Memory { needed_bytes })?;
    elements.resize(count, value);
    Ok(elements)
}

/// Ends the work if it is no longer wanted.
#[inline]
pub(crate) fn check(cancelled: &AtomicBool) -> Result<(), Error> {
    if cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mt19937::Mt19937;

    #[test]
    fn b_continues_the_stream_of_a_whatever_the_size_and_the_kernel() {
        for kernel in Kernel::all() {
            for size in [1, 2, 31, 32, 33, 63, 64, 65, 129, 200] {
                let challenge = CpuChallenge::sample(7, size, 1);
                let size = size as usize;
                let factors = Factors::generate(&challenge, kernel, &AtomicBool::new(false)).unwrap();
                let mut stream = Mt19937::new(challenge.seed_word());
                let mut next = || stream.up_to(1000) as i16 - ELEMENT_MAX;
                let a: Vec<i16> = (0..size * size).map(|_| next()).collect();
                let b: Vec<i16> = (0..size * size).map(|_| next()).collect();
                assert!((0..size).all(|row| factors.a_row(row) == &a[row * size..][..size]), "size {size}");
                for (place, element) in b.iter().enumerate() {
                    assert_eq!(factors.b().element(place / size, place % size), *element, "size {size}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_at_the_edges_of_panels_is_zero() {
        let size = 33;
        let challenge = CpuChallenge::sample(7, size, 1);
        let size = size as usize;
        let factors = Factors::generate(&challenge, Kernel::best(), &AtomicBool::new(false)).unwrap();
        let last = factors.b().panel(1);
        assert!(last.iter().all(|pairs| pairs[1..].iter().all(|pair| *pair == 0)), "columns beyond the last");
        assert_eq!(factors.b().panel(0)[size / 2][3] >> 16, 0, "the row beyond the last");

        let mut rows = RowPanels::zeroed(13, size).unwrap();
        rows.set_row(12, factors.a_row(12));
        assert_eq!(rows.panel(1)[size / 2], {
            let mut pairs = [0; TILE_ROWS];
            pairs[0] = i32::from(factors.a_row(12)[size - 1]) & 0xffff;
            pairs
        });
    }
}
