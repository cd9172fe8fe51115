//! The validator's side of a CPU challenge: recompute the opened rows, and only these, then judge.
//!
//! Nothing here shares arithmetic with [`crate::product`], so that a fault in one cannot hide in the other: rows times
//! matrix, in plain 64-bit numbers that wrap. B is never held as a whole either: it passes by row by row, straight from the
//! generator, once per iteration.

use crate::challenge::CpuChallenge;
use crate::matrix::draw_row;
use crate::mt19937::Mt19937;
use crate::row_hash::{ROW_HASH_BYTES, row_hash};

/// Rows of B that are applied to one opened row at a time, so that its sums stay in the first-level cache.
const BLOCK_ROWS: usize = 8;

/// The hashes that the opened rows must have, in the order of `rows`. One thread, about rows·n²·k multiplications;
/// 16·n bytes per row.
///
/// # Panics
/// If a row is not below n: the verifier draws the rows itself.
pub fn expected_row_hashes(challenge: &CpuChallenge, rows: &[usize]) -> Vec<[u8; ROW_HASH_BYTES]> {
    let size = challenge.size();
    let mut stream = Mt19937::new(challenge.seed_word());
    let mut opened = opened_rows_of_a(size, rows, &mut stream);
    for _ in 0..challenge.iterations() {
        opened = times_b(size, opened, stream.clone());
    }
    opened.iter().map(|row| row_hash(row)).collect()
}

/// Takes A off the stream, which then stands before B, and keeps the opened rows.
fn opened_rows_of_a(size: usize, rows: &[usize], stream: &mut Mt19937) -> Vec<Vec<i64>> {
    let mut opened = vec![Vec::new(); rows.len()];
    let mut drawn = vec![0_i16; size];
    for row in 0..size {
        draw_row(stream, &mut drawn);
        for (kept, _) in opened.iter_mut().zip(rows).filter(|(_, wanted)| **wanted == row) {
            *kept = drawn.iter().map(|element| i64::from(*element)).collect();
        }
    }
    opened
}

/// Each row times B: the sum of B's rows, weighted by the row's elements.
fn times_b(size: usize, rows: Vec<Vec<i64>>, mut b: Mt19937) -> Vec<Vec<i64>> {
    let mut products = vec![vec![0_i64; size]; rows.len()];
    let mut block = vec![0_i16; BLOCK_ROWS * size];
    for first in (0..size).step_by(BLOCK_ROWS) {
        let block = &mut block[..BLOCK_ROWS.min(size - first) * size];
        draw_row(&mut b, block);
        for (row, product) in rows.iter().zip(&mut products) {
            for (weight, b_row) in row[first..].iter().zip(block.chunks_exact(size)) {
                for (sum, element) in product.iter_mut().zip(b_row) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(i64::from(*element)));
                }
            }
        }
    }
    products
}
