//! The inner loops for AVX-512 with VNNI: thirty-two registers of sixteen lanes, and `vpdpwssd`, which multiplies 16-bit
//! pairs and adds them to 32-bit sums in one instruction.

use std::arch::x86_64::{
    __m256i, __m512i, _mm512_and_si512, _mm512_cmple_epu32_mask, _mm512_cvtepi32_epi16, _mm512_dpwssd_epi32,
    _mm512_maskz_compress_epi32, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_sub_epi32, _mm512_xor_si512,
};
use std::hint::black_box;
use std::mem::transmute;

use super::portable::{self, DEPTH, ELEMENT_OFFSET, ELEMENT_WIDTH, WIDTH, Word};
use super::{BLOCK_ELEMENTS, ColumnPairs, RowPairs, STATE_WORDS, TILE_COLUMNS, TILE_ROWS, Tile};

/// Lanes of a register.
const LANES: usize = 16;

/// Registers of columns in a tile.
const VECTORS: usize = TILE_COLUMNS / LANES;

#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn multiply(rows: &[RowPairs], columns: &[ColumnPairs], tile: &mut Tile) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; TILE_ROWS];
    for (row_pairs, column_pairs) in rows.iter().zip(columns) {
        let (column_vectors, _) = column_pairs.as_chunks::<LANES>();
        let (left, right) = (load(column_vectors[0]), load(column_vectors[1]));
        for_each!(ROW in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
            let row_vector = _mm512_set1_epi32(row_pairs[ROW]);
            sums[ROW][0] = _mm512_dpwssd_epi32(sums[ROW][0], row_vector, left);
            sums[ROW][1] = _mm512_dpwssd_epi32(sums[ROW][1], row_vector, right);
        });
    }
    for_each!(ROW in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
        let (parts, _) = tile[ROW].as_chunks_mut::<LANES>();
        parts[0] = stored(sums[ROW][0]);
        parts[1] = stored(sums[ROW][1]);
    });
}

#[target_feature(enable = "avx512f")]
fn load(lanes: [i32; LANES]) -> __m512i {
    // SAFETY: both are 64 bytes, of which every pattern is a value.
    unsafe { transmute(lanes) }
}

#[target_feature(enable = "avx512f")]
fn stored(vector: __m512i) -> [i32; LANES] {
    // SAFETY: both are 64 bytes, of which every pattern is a value.
    unsafe { transmute(vector) }
}

/// Tempers sixteen words at a time and moves those that are elements together.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn draw_block(state: &mut [u32; STATE_WORDS], elements: &mut [i16; BLOCK_ELEMENTS]) -> usize {
    portable::refill(state);
    let (vectors, _) = state.as_chunks::<LANES>();
    let mut count = 0;
    for words in vectors {
        let mut word = load(words.map(u32::cast_signed));
        word = _mm512_xor_si512(word, _mm512_srli_epi32::<11>(word));
        word = _mm512_xor_si512(word, and(_mm512_slli_epi32::<7>(word), 0x9d2c_5680));
        word = _mm512_xor_si512(word, and(_mm512_slli_epi32::<15>(word), 0xefc6_0000));
        word = and(_mm512_xor_si512(word, _mm512_srli_epi32::<18>(word)), ELEMENT_WIDTH.next_power_of_two() - 1);
        let is_element = _mm512_cmple_epu32_mask(word, _mm512_set1_epi32(ELEMENT_WIDTH as i32));
        let moved = _mm512_sub_epi32(word, _mm512_set1_epi32(i32::from(ELEMENT_OFFSET)));
        let kept = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(is_element, moved));
        if let Some(place) = elements[count..].first_chunk_mut::<LANES>() {
            // SAFETY: both are 32 bytes, of which every pattern is a value.
            *place = unsafe { transmute::<__m256i, [i16; LANES]>(kept) };
        }
        count += is_element.count_ones() as usize;
    }
    count
}

#[target_feature(enable = "avx512f")]
fn and(vector: __m512i, mask: u32) -> __m512i {
    _mm512_and_si512(vector, _mm512_set1_epi32(mask as i32))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn add_tile(tile: &[[i32; TILE_COLUMNS]], shift: u32, product: &mut [i64], stride: usize, width: usize) {
    portable::add_tile(tile, shift, product, stride, width);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn weigh<T: Word>(weights: &[T; DEPTH], rows: &[[T; WIDTH]; DEPTH], sums: &mut [T; WIDTH]) {
    portable::weigh(weights, rows, sums);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn draw_row(start: u32, row: &mut [f64]) {
    portable::draw_row(start, row);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn times_column(row: &[f64], start: u32) -> f64 {
    portable::times_column(row, start)
}

#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn spin(rounds: u32) -> u64 {
    const SUMS: usize = TILE_ROWS * VECTORS;
    let (row, column) = (black_box(_mm512_set1_epi32(3)), black_box(_mm512_set1_epi32(5)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpwssd_epi32(*sum, row, column);
        }
    }
    black_box(sums);
    u64::from(rounds) * (SUMS * 2 * LANES) as u64
}
