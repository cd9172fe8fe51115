//! The inner loops for AVX2: sixteen registers of eight lanes, products of 16-bit pairs by `vpmaddwd`.

use std::arch::x86_64::{__m256i, _mm256_add_epi32, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256};
use std::hint::black_box;
use std::mem::transmute;

use super::portable::{self, DEPTH, WIDTH, Word};
use super::{BLOCK_ELEMENTS, ColumnPairs, RowPairs, STATE_WORDS, TILE_COLUMNS, TILE_ROWS, Tile};

/// Lanes of a register.
const LANES: usize = 8;

/// Rows and registers of columns whose sums are held at once: twelve registers of sums, two of columns, one of a row, and
/// one for a product.
const ROWS: usize = 6;
const VECTORS: usize = 2;

#[target_feature(enable = "avx2")]
pub(super) fn multiply(rows: &[RowPairs], columns: &[ColumnPairs], tile: &mut Tile) {
    for first_row in (0..TILE_ROWS).step_by(ROWS) {
        for first_column in (0..TILE_COLUMNS).step_by(VECTORS * LANES) {
            multiply_part(rows, columns, first_row, first_column, tile);
        }
    }
}

#[target_feature(enable = "avx2")]
fn multiply_part(rows: &[RowPairs], columns: &[ColumnPairs], first_row: usize, first_column: usize, tile: &mut Tile) {
    assert!(first_row + ROWS <= TILE_ROWS && first_column + VECTORS * LANES <= TILE_COLUMNS, "part of a tile");
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; ROWS];
    for (row_pairs, column_pairs) in rows.iter().zip(columns) {
        let (column_vectors, _) = column_pairs[first_column..].as_chunks::<LANES>();
        let (left, right) = (load(column_vectors[0]), load(column_vectors[1]));
        for_each!(ROW in [0, 1, 2, 3, 4, 5] {
            let row_vector = _mm256_set1_epi32(row_pairs[first_row + ROW]);
            sums[ROW][0] = _mm256_add_epi32(sums[ROW][0], _mm256_madd_epi16(row_vector, left));
            sums[ROW][1] = _mm256_add_epi32(sums[ROW][1], _mm256_madd_epi16(row_vector, right));
        });
    }
    for_each!(ROW in [0, 1, 2, 3, 4, 5] {
        let (parts, _) = tile[first_row + ROW][first_column..].as_chunks_mut::<LANES>();
        parts[0] = stored(sums[ROW][0]);
        parts[1] = stored(sums[ROW][1]);
    });
}

#[target_feature(enable = "avx2")]
fn load(lanes: [i32; LANES]) -> __m256i {
    // SAFETY: both are 32 bytes, of which every pattern is a value.
    unsafe { transmute(lanes) }
}

#[target_feature(enable = "avx2")]
fn stored(vector: __m256i) -> [i32; LANES] {
    // SAFETY: both are 32 bytes, of which every pattern is a value.
    unsafe { transmute(vector) }
}

#[target_feature(enable = "avx2")]
pub(super) fn draw_block(state: &mut [u32; STATE_WORDS], elements: &mut [i16; BLOCK_ELEMENTS]) -> usize {
    portable::refill(state);
    let mut drawn = [0; STATE_WORDS];
    portable::draw_all(state, &mut drawn);
    portable::keep_elements(&drawn, elements)
}

#[target_feature(enable = "avx2")]
pub(super) fn add_tile(tile: &[[i32; TILE_COLUMNS]], shift: u32, product: &mut [i64], stride: usize, width: usize) {
    portable::add_tile(tile, shift, product, stride, width);
}

#[target_feature(enable = "avx2")]
pub(super) fn weigh<T: Word>(weights: &[T; DEPTH], rows: &[[T; WIDTH]; DEPTH], sums: &mut [T; WIDTH]) {
    portable::weigh(weights, rows, sums);
}

#[target_feature(enable = "avx2")]
pub(super) fn draw_row(start: u32, row: &mut [f64]) {
    portable::draw_row(start, row);
}

#[target_feature(enable = "avx2")]
pub(super) fn times_column(row: &[f64], start: u32) -> f64 {
    portable::times_column(row, start)
}

#[target_feature(enable = "avx2")]
pub(super) fn spin(rounds: u32) -> u64 {
    const SUMS: usize = ROWS * VECTORS;
    let column = black_box(_mm256_set1_epi32(3));
    let mut sums = black_box([_mm256_set1_epi32(1); SUMS]);
    for _ in 0..rounds {
        // Each product is of its own sum: were they of the same operands, one would be computed for all.
        for sum in &mut sums {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, column));
        }
    }
    black_box(sums);
    u64::from(rounds) * (SUMS * 2 * LANES) as u64
}
