//! The inner loops in plain Rust: what runs on machines without a kernel of their own, and what the others must equal.
//!
//! Those bodies that compilers vectorise well by themselves are shared: the kernels of x86-64 inline them into functions
//! that are compiled for more instructions.

use std::hint::black_box;

use super::{BLOCK_ELEMENTS, ColumnPairs, RowPairs, STATE_WORDS, TILE_COLUMNS, TILE_ROWS, Tile};

/// Rows of B that the validator weighs at a time.
pub const DEPTH: usize = 32;

/// Columns of B that the validator weighs at a time: [`DEPTH`] rows of them fill a first-level cache.
pub const WIDTH: usize = 256;

/// Sums that stay in registers while all rows of a [`DEPTH`] are added to them.
const LANES: usize = 64;

/// How far behind a word of the state the word lies that it is combined with.
const SHIFT_WORDS: usize = 397;

/// The lowest ten bits, the smallest mask above the widest element.
const ELEMENT_MASK: u32 = 1023;

/// Elements lie within 0..=1000 before they are moved down by 500.
pub(super) const ELEMENT_WIDTH: u32 = 1000;

/// What is taken from an element that was drawn.
pub(super) const ELEMENT_OFFSET: i16 = 500;

pub(super) fn multiply(rows: &[RowPairs], columns: &[ColumnPairs], tile: &mut Tile) {
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;
    for first_row in (0..TILE_ROWS).step_by(ROWS) {
        for first_column in (0..TILE_COLUMNS).step_by(COLUMNS) {
            let mut sums = [[0_i32; COLUMNS]; ROWS];
            for (row_pairs, column_pairs) in rows.iter().zip(columns) {
                let column_pairs = &column_pairs[first_column..][..COLUMNS];
                for (sums, row_pair) in sums.iter_mut().zip(&row_pairs[first_row..][..ROWS]) {
                    for (sum, column_pair) in sums.iter_mut().zip(column_pairs) {
                        let low = i32::from(*row_pair as i16).wrapping_mul(i32::from(*column_pair as i16));
                        let high = (row_pair >> 16).wrapping_mul(column_pair >> 16);
                        *sum = sum.wrapping_add(low).wrapping_add(high);
                    }
                }
            }
            for (tile_row, sums) in tile[first_row..].iter_mut().zip(&sums) {
                tile_row[first_column..][..COLUMNS].copy_from_slice(sums);
            }
        }
    }
}

/// The tile's first `width` columns, times 2^`shift`, are added to a part of the product, one row every `stride` elements.
#[inline(always)]
pub(super) fn add_tile(tile: &[[i32; TILE_COLUMNS]], shift: u32, product: &mut [i64], stride: usize, width: usize) {
    for (sums, product) in tile.iter().zip(product.chunks_mut(stride)) {
        let product = &mut product[..width];
        if let Ok(whole) = <&mut [i64; TILE_COLUMNS]>::try_from(&mut *product) {
            // A known length, which is what nearly all tiles have, becomes vectors without a remainder.
            add_row(sums, shift, whole);
        } else {
            add_row(&sums[..width], shift, product);
        }
    }
}

#[inline(always)]
fn add_row(sums: &[i32], shift: u32, product: &mut [i64]) {
    for (element, sum) in product.iter_mut().zip(sums) {
        *element = element.wrapping_add(i64::from(*sum) << shift);
    }
}

pub(super) fn draw_block(state: &mut [u32; STATE_WORDS], elements: &mut [i16; BLOCK_ELEMENTS]) -> usize {
    refill(state);
    let mut drawn = [0; STATE_WORDS];
    draw_all(state, &mut drawn);
    keep_elements(&drawn, elements)
}

/// All words of the next block, in place (worker-miner spec 4.2). In three loops, so that no index wraps.
#[inline(always)]
pub(super) fn refill(state: &mut [u32; STATE_WORDS]) {
    const WRAPPED: usize = STATE_WORDS - SHIFT_WORDS;
    for i in 0..WRAPPED {
        state[i] = state[i + SHIFT_WORDS] ^ twist(state[i], state[i + 1]);
    }
    for i in WRAPPED..STATE_WORDS - 1 {
        state[i] = state[i - WRAPPED] ^ twist(state[i], state[i + 1]);
    }
    let last = STATE_WORDS - 1;
    state[last] = state[last - WRAPPED] ^ twist(state[last], state[0]);
}

#[inline(always)]
fn twist(word: u32, next: u32) -> u32 {
    let joined = (word & 0x8000_0000) | (next & 0x7fff_ffff);
    (joined >> 1) ^ ((next & 1).wrapping_neg() & 0x9908_b0df)
}

/// Each word of the state tempered and cut to the bits of an element.
#[inline(always)]
pub(super) fn draw_all(state: &[u32; STATE_WORDS], drawn: &mut [u16; STATE_WORDS]) {
    for (drawn, word) in drawn.iter_mut().zip(state) {
        let mut word = *word;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        *drawn = ((word ^ (word >> 18)) & ELEMENT_MASK) as u16;
    }
}

/// Leaves out what is above the widest element. Every number is written where the next element belongs, and only an
/// element makes the place move on: no branch to mispredict.
#[inline(always)]
pub(super) fn keep_elements(drawn: &[u16; STATE_WORDS], elements: &mut [i16; BLOCK_ELEMENTS]) -> usize {
    let mut count = 0;
    for number in drawn {
        elements[count] = (*number as i16) - ELEMENT_OFFSET;
        count += usize::from(u32::from(*number) <= ELEMENT_WIDTH);
    }
    count
}

/// What rows can be weighted in.
pub trait Word: Copy + Default + From<i16> {
    /// `self` + `weight`·`element`, modulo the word's size.
    fn plus_product(self, weight: Self, element: Self) -> Self;
}

impl Word for i32 {
    #[inline(always)]
    fn plus_product(self, weight: Self, element: Self) -> Self {
        self.wrapping_add(weight.wrapping_mul(element))
    }
}

impl Word for i64 {
    #[inline(always)]
    fn plus_product(self, weight: Self, element: Self) -> Self {
        self.wrapping_add(weight.wrapping_mul(element))
    }
}

#[inline(always)]
pub(super) fn weigh<T: Word>(weights: &[T; DEPTH], rows: &[[T; WIDTH]; DEPTH], sums: &mut [T; WIDTH]) {
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    for (part, sums) in sums.iter_mut().enumerate() {
        let mut in_registers = *sums;
        for (weight, row) in weights.iter().zip(rows) {
            let elements = &row[part * LANES..][..LANES];
            for (sum, element) in in_registers.iter_mut().zip(elements) {
                *sum = sum.plus_product(*weight, *element);
            }
        }
        *sums = in_registers;
    }
}

/// Elements of a GPU's matrices that are drawn side by side.
pub const ELEMENT_LANES: usize = 32;

/// An element from its word (worker-miner spec 5.4): 16 bits as a number in [-1, 1).
#[inline(always)]
fn element(word: u32) -> f64 {
    const HALF_RANGE: i32 = 32_768;
    let mut hash = word.wrapping_mul(0x9e37_79b9).wrapping_add(0x85eb_ca6b);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    f64::from((hash & 0xffff) as i32 - HALF_RANGE) * (1.0 / HALF_RANGE as f64)
}

#[inline(always)]
pub(super) fn draw_row(start: u32, row: &mut [f64]) {
    let (lanes, _) = row.as_chunks_mut::<ELEMENT_LANES>();
    for (part, lanes) in lanes.iter_mut().enumerate() {
        let first = (part * ELEMENT_LANES) as u32;
        for (lane, place) in lanes.iter_mut().enumerate() {
            *place = element(start ^ ((first + lane as u32) << 16));
        }
    }
}

#[inline(always)]
pub(super) fn times_column(row: &[f64], start: u32) -> f64 {
    let (lanes, _) = row.as_chunks::<ELEMENT_LANES>();
    let mut sums = [0.0; ELEMENT_LANES];
    for (part, lanes) in lanes.iter().enumerate() {
        let first = (part * ELEMENT_LANES) as u32;
        for (lane, (sum, weight)) in sums.iter_mut().zip(lanes).enumerate() {
            *sum += weight * element(start ^ (first + lane as u32));
        }
    }
    sums.iter().sum()
}

pub(super) fn spin(rounds: u32) -> u64 {
    const SUMS: usize = 32;
    let mut sums = [0_i32; SUMS];
    let (weight, step) = (black_box(3_i32), black_box(1_i32));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.wrapping_mul(weight).wrapping_add(step);
        }
    }
    black_box(sums);
    u64::from(rounds) * SUMS as u64
}
