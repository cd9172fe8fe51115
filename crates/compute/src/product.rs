//! C = A·B^k modulo 2^64, a band of rows at a time.
//!
//! Row i of C depends on row i of A and on B alone, so a band of rows goes through all k multiplications by itself and C
//! never exists as a whole: bands are spread over threads, and each is hashed and dropped.
//!
//! All multiplications are 16-bit × 16-bit into 32-bit sums, the one form that every x86-64 and ARM vector unit does
//! natively. Elements of A fit 16 bits as they are. Before each further multiplication the 64-bit elements of A·B^j are
//! split into as few signed digits as hold them, v = d0 + d1·2^b + d2·2^2b + … modulo 2^64, of at most 16 bits each; each
//! plane of digits is multiplied like A was, and its products are added in at its place. That is exact modulo 2^64 for
//! every k, as long as no 32-bit sum runs over: the smaller the digits, the more products fit into one sum.

use std::sync::atomic::AtomicBool;

use crate::cpu::Error;
use crate::kernel::{Kernel, TILE_COLUMNS, TILE_ROWS, Tile};
use crate::matrix::{ELEMENT_MAX, Factors, RowPanels, check, filled};

/// Pairs that are gone through before the next panel of columns, a power of two. Their part of a panel of columns (128 KiB)
/// and of the band's rows (384 KiB) stays in the second-level cache.
const BLOCK_PAIRS: usize = 1024;

/// The longest band: so many rows share each element of B that is fetched from memory.
const BAND_ROWS_MAX: usize = 8 * TILE_ROWS;

/// Bands per thread, so that threads that were held up do not keep the others waiting at the end.
const BANDS_PER_THREAD: usize = 8;

/// Bits of an element of A, as of any digit: magnitudes of up to 2^9.
const ELEMENT_BITS: u32 = 10;

const _: () = assert!(ELEMENT_MAX <= 1 << (ELEMENT_BITS - 1));

/// Rows of one band: as long as the cache allows, but with several bands for each thread. A multiple of [`TILE_ROWS`].
#[must_use]
pub fn band_rows(size: usize, threads: usize) -> usize {
    size.div_ceil(BANDS_PER_THREAD * threads).next_multiple_of(TILE_ROWS).min(BAND_ROWS_MAX)
}

/// The workspace of one thread: multiplies one band after the other.
///
/// Takes 10·n bytes for each row of a band, and 8·n more where there is a second iteration.
pub struct Band<'a> {
    factors: &'a Factors,
    kernel: Kernel,
    iterations: u32,
    rows: RowPanels,
    digits: Vec<i16>,
    rest: Vec<i64>,
    product: Vec<i64>,
}

impl<'a> Band<'a> {
    /// Room for bands of up to `rows` rows.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub fn new(factors: &'a Factors, kernel: Kernel, iterations: u32, rows: usize) -> Result<Self, Error> {
        let size = factors.size();
        Ok(Self {
            factors,
            kernel,
            iterations,
            rows: RowPanels::zeroed(rows, size)?,
            digits: filled(size, 0)?,
            rest: filled(if iterations > 1 { rows * size } else { 0 }, 0)?,
            product: filled(rows * size, 0)?,
        })
    }

    /// Rows `first`..`first + count` of A·B^k, in row-major order.
    ///
    /// # Errors
    /// [`Error::Cancelled`] soon after `cancelled` is set (within some 30 million multiplications).
    pub fn multiply(&mut self, first: usize, count: usize, cancelled: &AtomicBool) -> Result<&[i64], Error> {
        let elements = count * self.factors.size();
        for row in 0..count {
            self.rows.set_row(row, self.factors.a_row(first + row));
        }
        self.product[..elements].fill(0);
        self.add_product(count, ELEMENT_BITS, 0, cancelled)?;
        for _ in 1..self.iterations {
            std::mem::swap(&mut self.rest, &mut self.product);
            self.product[..elements].fill(0);
            let digits = Digits::of(&self.rest[..elements]);
            for place in 0..digits.count {
                self.take_digits(count, digits.bits);
                self.add_product(count, digits.bits, place * digits.bits, cancelled)?;
            }
        }
        Ok(&self.product[..elements])
    }

    /// Moves the lowest digits of all elements that are left into the panels of rows.
    fn take_digits(&mut self, count: usize, bits: u32) {
        let rows = self.rest.chunks_exact_mut(self.factors.size()).take(count);
        for (row, values) in rows.enumerate() {
            split_digits(values, bits, &mut self.digits);
            self.rows.set_row(row, &self.digits);
        }
    }

    /// Adds rows × B, times 2^`shift`, to the product, modulo 2^64. The rows hold digits of so many bits.
    fn add_product(&mut self, count: usize, bits: u32, shift: u32, cancelled: &AtomicBool) -> Result<(), Error> {
        let size = self.factors.size();
        let span = exact_pairs(bits);
        let mut tile: Tile = [[0; TILE_COLUMNS]; TILE_ROWS];
        let pairs = size.div_ceil(2);
        for block in (0..pairs).step_by(BLOCK_PAIRS).map(|start| start..(start + BLOCK_PAIRS).min(pairs)) {
            for (panel, first_column) in (0..size).step_by(TILE_COLUMNS).enumerate() {
                check(cancelled)?;
                let columns = &self.factors.b().panel(panel)[block.clone()];
                let width = TILE_COLUMNS.min(size - first_column);
                for (panel, first_row) in (0..count).step_by(TILE_ROWS).enumerate() {
                    let rows = &self.rows.panel(panel)[block.clone()];
                    let height = TILE_ROWS.min(count - first_row);
                    let product = &mut self.product[first_row * size + first_column..];
                    for (rows, columns) in rows.chunks(span).zip(columns.chunks(span)) {
                        self.kernel.multiply(rows, columns, &mut tile);
                        self.kernel.add_tile(&tile[..height], shift, product, size, width);
                    }
                }
            }
        }
        Ok(())
    }
}

/// How elements are split: so many digits of so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Digits {
    count: u32,
    bits: u32,
}

impl Digits {
    /// As few digits of up to 16 bits as hold all of these values, and these as small as they can be.
    fn of(values: &[i64]) -> Self {
        let magnitudes = values.iter().fold(0, |bits, value| bits | (value ^ (value >> 63)).cast_unsigned());
        // One bit for the sign, and one for what the digits below carry over. Beyond 64 nothing is left to carry to.
        let bits = (u64::BITS - magnitudes.leading_zeros() + 2).min(u64::BITS);
        let count = bits.div_ceil(i16::BITS);
        Self { count, bits: bits.div_ceil(count) }
    }
}

/// Moves the lowest signed digit of each value into `digits` and leaves the rest, shifted down. What a wrapped difference
/// loses lies above the 64th bit of the whole value.
fn split_digits(values: &mut [i64], bits: u32, digits: &mut [i16]) {
    let unused = i16::BITS - bits;
    for (value, digit) in values.iter_mut().zip(digits) {
        *digit = ((*value as i16) << unused) >> unused;
        *value = value.wrapping_sub(i64::from(*digit)) >> bits;
    }
}

/// How many pairs of such digits, times elements of B, a 32-bit sum holds for sure; a power of two, up to a block.
fn exact_pairs(bits: u32) -> usize {
    let largest_product = usize::from(ELEMENT_MAX.unsigned_abs()) << (bits - 1);
    let pairs = i32::MAX as usize / largest_product / 2;
    (1 << pairs.ilog2()).min(BLOCK_PAIRS)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::challenge::CpuChallenge;
    use crate::mt19937::Mt19937;

    /// Rows of A·B^k by the definition: three nested loops over 64-bit numbers that wrap.
    fn naive(challenge: &CpuChallenge, rows: Range<usize>) -> Vec<i64> {
        let size = challenge.size();
        let mut stream = Mt19937::new(challenge.seed_word());
        let mut draw = || (0..size * size).map(|_| i64::from(stream.up_to(1000)) - 500).collect::<Vec<i64>>();
        let (a, b) = (draw(), draw());
        let mut c = a[rows.start * size..rows.end * size].to_vec();
        for _ in 0..challenge.iterations() {
            let mut next = vec![0_i64; c.len()];
            for (c_row, next_row) in c.chunks_exact(size).zip(next.chunks_exact_mut(size)) {
                for (weight, b_row) in c_row.iter().zip(b.chunks_exact(size)) {
                    for (sum, element) in next_row.iter_mut().zip(b_row) {
                        *sum = sum.wrapping_add(weight.wrapping_mul(*element));
                    }
                }
            }
            c = next;
        }
        c
    }

    /// The same in bands of so many rows.
    fn by_bands(challenge: &CpuChallenge, kernel: Kernel, rows: usize) -> Vec<i64> {
        let cancelled = AtomicBool::new(false);
        let factors = Factors::generate(challenge, kernel, &cancelled).unwrap();
        let mut band = Band::new(&factors, kernel, challenge.iterations(), rows).unwrap();
        let size = challenge.size();
        let mut product = Vec::new();
        for first in (0..size).step_by(rows) {
            product.extend_from_slice(band.multiply(first, rows.min(size - first), &cancelled).unwrap());
        }
        product
    }

    #[test]
    fn every_kernel_that_this_machine_has_runs_and_the_others_are_named() {
        let ran: Vec<&str> = Kernel::all().into_iter().map(Kernel::name).collect();
        let lacking: Vec<&str> = Kernel::NAMES.into_iter().filter(|name| !ran.contains(name)).collect();
        println!("kernels tested here: {ran:?}; not tested, since the machine lacks them: {lacking:?}");
        assert_eq!(ran.last(), Some(&"portable"));
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(ran.contains(&"avx2"), is_x86_feature_detected!("avx2"));
            assert_eq!(ran.contains(&"avx512-vnni"), is_x86_feature_detected!("avx512vnni"));
        }
    }

    #[test]
    fn every_kernel_multiplies_like_three_loops_around_the_edges_of_tiles_with_and_without_wrapping() {
        for size in [1, 2, 3, 11, 12, 13, 23, 25, 31, 32, 33, 37, 63, 65, 97, 127, 128, 129, 131, 193] {
            for iterations in [1, 2, 3, 7] {
                let challenge = CpuChallenge::sample(900 + size, size, iterations);
                let expected = naive(&challenge, 0..challenge.size());
                for kernel in Kernel::all() {
                    for rows in [TILE_ROWS, 3 * TILE_ROWS] {
                        let product = by_bands(&challenge, kernel, rows);
                        assert!(
                            product == expected,
                            "{kernel:?}, size {size}, {iterations} iterations, bands of {rows}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_multiplies_lines_longer_than_a_span_and_a_block_like_three_loops() {
        const { assert!(BLOCK_PAIRS == 1024, "choose sizes around the edges of a block") }
        for size in [1021, 1025, 2047, 2048, 2049, 2051] {
            let challenge = CpuChallenge::sample(size, size, 3);
            let (cancelled, first) = (AtomicBool::new(false), challenge.size() - 2);
            let expected = naive(&challenge, first..challenge.size());
            for kernel in Kernel::all() {
                let factors = Factors::generate(&challenge, kernel, &cancelled).unwrap();
                let mut band = Band::new(&factors, kernel, 3, TILE_ROWS).unwrap();
                assert!(band.multiply(first, 2, &cancelled).unwrap() == expected, "{kernel:?}, size {size}");
            }
        }
    }

    #[test]
    fn the_largest_digits_and_elements_do_not_overflow_a_sum() {
        for bits in 2..=16 {
            let (digit, pairs) = (-(1_i32 << (bits - 1)), exact_pairs(bits));
            let low_and_high = |value: i32| crate::kernel::pair(value as i16, value as i16);
            let rows = vec![[low_and_high(digit); TILE_ROWS]; pairs];
            let columns = vec![[low_and_high(i32::from(-ELEMENT_MAX)); TILE_COLUMNS]; pairs];
            let expected = i64::from(digit) * i64::from(-ELEMENT_MAX) * 2 * pairs as i64;
            for kernel in Kernel::all() {
                let mut tile = [[7; TILE_COLUMNS]; TILE_ROWS];
                kernel.multiply(&rows, &columns, &mut tile);
                assert!(tile.iter().flatten().all(|sum| i64::from(*sum) == expected), "{kernel:?}, {bits} bits");
            }
        }
    }

    #[test]
    fn sixteen_bits_of_digits_are_summed_in_short_spans_and_elements_of_a_over_whole_blocks() {
        assert_eq!([exact_pairs(16), exact_pairs(13), exact_pairs(ELEMENT_BITS)], [64, 512, BLOCK_PAIRS]);
    }

    #[test]
    fn values_are_split_into_no_more_digits_than_they_need() {
        let of = |value: i64| Digits::of(&[0, value]);
        assert_eq!(of(0), Digits { count: 1, bits: 2 });
        assert_eq!(of(500 * 500 * 100), Digits { count: 2, bits: 14 });
        assert_eq!(of(-(1 << 37)), Digits { count: 3, bits: 13 });
        assert_eq!(of(i64::MIN), Digits { count: 4, bits: 16 });
        assert_eq!(of(i64::MAX), Digits { count: 4, bits: 16 });
    }

    #[test]
    fn bands_are_whole_tiles_and_several_for_each_thread() {
        assert_eq!(band_rows(2000, 2), BAND_ROWS_MAX);
        assert_eq!(band_rows(2000, 4), 72);
        assert_eq!(band_rows(2000, 64), TILE_ROWS);
        assert_eq!(band_rows(1, 1), TILE_ROWS);
        assert_eq!(band_rows(16_384, 1), BAND_ROWS_MAX);
    }

    #[test]
    fn a_cancelled_band_ends_with_that_error() {
        let challenge = CpuChallenge::sample(1, 20, 1);
        let factors = Factors::generate(&challenge, Kernel::best(), &AtomicBool::new(false)).unwrap();
        let mut band = Band::new(&factors, Kernel::best(), 1, TILE_ROWS).unwrap();
        assert_eq!(band.multiply(0, 12, &AtomicBool::new(true)), Err(Error::Cancelled));
    }

    proptest! {
        #[test]
        fn digits_are_their_values_modulo_2_to_the_64(mut values in prop::collection::vec(any::<i64>(), 1..4), cut in 0..64) {
            for value in &mut values {
                *value >>= cut;
            }
            let digits = Digits::of(&values);
            let mut rest = values.clone();
            let mut sums = vec![0_i64; values.len()];
            let mut lowest = vec![0; values.len()];
            for place in 0..digits.count {
                split_digits(&mut rest, digits.bits, &mut lowest);
                for (sum, digit) in sums.iter_mut().zip(&lowest) {
                    *sum = sum.wrapping_add(i64::from(*digit) << (place * digits.bits));
                }
            }
            prop_assert_eq!(sums, values);
        }

        #[test]
        fn every_kernel_multiplies_any_small_challenge_like_three_loops(
            seed in any::<u32>(),
            size in 1..80_u32,
            iterations in 1..20_u32,
        ) {
            let challenge = CpuChallenge::sample(seed, size, iterations);
            let expected = naive(&challenge, 0..challenge.size());
            for kernel in Kernel::all() {
                prop_assert!(by_bands(&challenge, kernel, 2 * TILE_ROWS) == expected, "{:?}", kernel);
            }
        }
    }
}
