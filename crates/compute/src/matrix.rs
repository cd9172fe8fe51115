//! From the stream to matrices: first all of A in row-major order, then all of B (worker-miner spec 4.4).
//!
//! Every element lies within -500..=500, so 16 bits hold it. [`Factors`] is what the product needs, A by rows and B by
//! columns, so that every element of the product is a dot product of two lines that are contiguous in memory.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::challenge::CpuChallenge;
use crate::cpu::Error;
use crate::mt19937::Mt19937;

/// The largest magnitude of an element of A or B (worker-miner spec 4.3).
pub const ELEMENT_MAX: i16 = 500;

/// Lines are padded with zeros to a multiple of this many elements, so that the product has no remainders to handle.
pub const CHUNK: usize = 128;

/// Rows of B that are drawn before they are turned into columns: 32 elements of 2 bytes fill one cache line.
const TURNED_ROWS: usize = 32;

/// Draws the next row of a matrix from the stream.
pub fn draw_row(stream: &mut Mt19937, row: &mut [i16]) {
    for element in row {
        *element = stream.up_to(2 * ELEMENT_MAX as u32) as i16 - ELEMENT_MAX;
    }
}

/// A number of equally long lines of 16-bit elements, each padded with zeros to a multiple of [`CHUNK`].
pub struct Lines {
    padded_length: usize,
    elements: Vec<i16>,
}

impl Lines {
    /// `count` lines of `length` zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] where the allocator has not got that much.
    pub fn zeroed(count: usize, length: usize) -> Result<Self, Error> {
        let padded_length = length.next_multiple_of(CHUNK);
        let mut elements = Vec::new();
        let needed = count * padded_length;
        elements.try_reserve_exact(needed).map_err(|_| Error::Memory { needed_bytes: 2 * needed as u64 })?;
        elements.resize(needed, 0);
        Ok(Self { padded_length, elements })
    }

    /// One line, padding included.
    #[inline]
    pub fn line(&self, index: usize) -> &[i16] {
        &self.elements[index * self.padded_length..][..self.padded_length]
    }

    /// One line to write to, padding included.
    #[inline]
    pub fn line_mut(&mut self, index: usize) -> &mut [i16] {
        &mut self.elements[index * self.padded_length..][..self.padded_length]
    }
}

/// A and B of one challenge: 4·n² bytes and the padding.
pub struct Factors {
    /// A, a line per row.
    pub a_rows: Lines,
    /// B, a line per column.
    pub b_columns: Lines,
}

impl Factors {
    /// Draws both matrices.
    ///
    /// # Errors
    /// [`Error::Memory`] before anything is drawn; [`Error::Cancelled`] within a row after `cancelled` is set.
    pub fn generate(challenge: &CpuChallenge, cancelled: &AtomicBool) -> Result<Self, Error> {
        let size = challenge.size();
        let mut factors = Self { a_rows: Lines::zeroed(size, size)?, b_columns: Lines::zeroed(size, size)? };
        let mut stream = Mt19937::new(challenge.seed_word());
        for row in 0..size {
            check(cancelled)?;
            draw_row(&mut stream, &mut factors.a_rows.line_mut(row)[..size]);
        }
        let mut rows = vec![0; TURNED_ROWS * size];
        for first in (0..size).step_by(TURNED_ROWS) {
            let count = TURNED_ROWS.min(size - first);
            for row in rows.chunks_exact_mut(size).take(count) {
                check(cancelled)?;
                draw_row(&mut stream, row);
            }
            for column in 0..size {
                let turned = &mut factors.b_columns.line_mut(column)[first..first + count];
                for (element, row) in turned.iter_mut().zip(rows.chunks_exact(size)) {
                    *element = row[column];
                }
            }
        }
        Ok(factors)
    }
}

/// Ends the work if it is no longer wanted.
#[inline]
pub(crate) fn check(cancelled: &AtomicBool) -> Result<(), Error> {
    if cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_continues_the_stream_of_a_and_lies_by_columns() {
        let size = 37;
        let challenge = CpuChallenge::sample(7, size, 1);
        let size = size as usize;
        let factors = Factors::generate(&challenge, &AtomicBool::new(false)).unwrap();
        let mut stream = Mt19937::new(challenge.seed_word());
        let mut row = vec![0; size];
        for index in 0..size {
            draw_row(&mut stream, &mut row);
            assert_eq!(factors.a_rows.line(index)[..size], row);
            assert!(factors.a_rows.line(index)[size..].iter().all(|padding| *padding == 0));
        }
        for index in 0..size {
            draw_row(&mut stream, &mut row);
            for (column, element) in row.iter().enumerate() {
                assert_eq!(factors.b_columns.line(column)[index], *element);
            }
        }
        assert!(factors.b_columns.line(0)[size..].iter().all(|padding| *padding == 0));
    }
}
