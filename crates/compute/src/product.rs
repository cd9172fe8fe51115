//! C = A·B^k modulo 2^64, a band of rows at a time.
//!
//! Row i of C depends on row i of A and on B alone, so a band of rows goes through all k multiplications by itself and C
//! never exists as a whole: bands are spread over threads, and each is hashed and dropped.
//!
//! All multiplications are 16-bit × 16-bit into 32-bit sums, the one form that every x86-64 and ARM vector unit does
//! natively. Elements of A fit 16 bits as they are. Before each further multiplication the 64-bit elements of A·B^j are
//! split into signed digits of 16 bits, v = d0 + d1·2^16 + d2·2^32 + d3·2^48 modulo 2^64; each plane of digits is
//! multiplied like A was, and its products are added in at its place. That is exact modulo 2^64 for every k.

use std::sync::atomic::AtomicBool;

use crate::cpu::Error;
use crate::matrix::{CHUNK, ELEMENT_MAX, Factors, Lines, check};

/// Rows of one band. Enough that a column of B, once loaded, is used many times; few enough that size 2000 keeps a
/// hundred cores busy.
pub const BAND_ROWS: usize = 16;

/// Elements of a line that are gone through before the next column, a multiple of [`CHUNK`]: the band's part of them
/// (64 KiB) stays in the second-level cache.
const SLAB: usize = 16 * CHUNK;

// A sum over one chunk fits 32 bits for every digit (a digit's magnitude is at most 2^15).
const _: () = assert!(CHUNK as i64 * (1 << 15) * ELEMENT_MAX as i64 <= i32::MAX as i64);

/// Rows `first`..`first + count` of A·B^k, in row-major order. Takes about 16·n bytes per row while it works.
///
/// # Errors
/// [`Error::Cancelled`] soon after `cancelled` is set (within some 30,000 multiplications); [`Error::Memory`].
pub fn band(
    factors: &Factors,
    size: usize,
    first: usize,
    count: usize,
    iterations: u32,
    cancelled: &AtomicBool,
) -> Result<Vec<i64>, Error> {
    let mut product = vec![0; count * size];
    let a_rows: Vec<&[i16]> = (first..first + count).map(|row| factors.a_rows.line(row)).collect();
    add_product(&a_rows, 0, &factors.b_columns, size, &mut product, cancelled)?;
    for _ in 1..iterations {
        let mut rest = std::mem::replace(&mut product, vec![0; count * size]);
        let mut digits = Lines::zeroed(count, size)?;
        for shift in [0, 16, 32, 48] {
            if rest.iter().all(|value| *value == 0) {
                break;
            }
            for (row, values) in rest.chunks_exact_mut(size).enumerate() {
                split_digits(values, digits.line_mut(row));
            }
            let rows: Vec<&[i16]> = (0..count).map(|row| digits.line(row)).collect();
            add_product(&rows, shift, &factors.b_columns, size, &mut product, cancelled)?;
        }
    }
    Ok(product)
}

/// Moves the lowest signed 16-bit digit of each value into `digits` and leaves the rest, shifted down. What a wrapped
/// difference loses lies above the 64th bit of the whole value.
fn split_digits(values: &mut [i64], digits: &mut [i16]) {
    for (value, digit) in values.iter_mut().zip(digits) {
        *digit = *value as i16;
        *value = value.wrapping_sub(i64::from(*digit)) >> 16;
    }
}

/// Adds rows × columns, shifted left by `shift` bits, to `product`, modulo 2^64.
fn add_product(
    rows: &[&[i16]],
    shift: u32,
    columns: &Lines,
    size: usize,
    product: &mut [i64],
    cancelled: &AtomicBool,
) -> Result<(), Error> {
    let padded_length = size.next_multiple_of(CHUNK);
    for start in (0..padded_length).step_by(SLAB) {
        let slab = start..(start + SLAB).min(padded_length);
        for column in 0..size {
            check(cancelled)?;
            let b = &columns.line(column)[slab.clone()];
            for (row, products) in rows.iter().zip(product.chunks_exact_mut(size)) {
                let sum = dot(&row[slab.clone()], b);
                products[column] = products[column].wrapping_add(sum << shift);
            }
        }
    }
    Ok(())
}

/// The dot product of two slabs: exact, in 32 bits over a chunk and in 64 bits over chunks.
#[inline]
fn dot(a: &[i16], b: &[i16]) -> i64 {
    let (a_chunks, _) = a.as_chunks::<CHUNK>();
    let (b_chunks, _) = b.as_chunks::<CHUNK>();
    let mut sum = 0_i64;
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        // This loop is where the time goes. In this form it becomes the vector unit's multiply-and-add of 16-bit pairs.
        let mut chunk_sum = 0_i32;
        for (x, y) in a.iter().zip(b) {
            chunk_sum = chunk_sum.wrapping_add(i32::from(*x).wrapping_mul(i32::from(*y)));
        }
        sum += i64::from(chunk_sum);
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::challenge::CpuChallenge;
    use crate::matrix::draw_row;
    use crate::mt19937::Mt19937;

    /// A·B^k by the definition: three nested loops over 64-bit numbers that wrap.
    fn naive(challenge: &CpuChallenge) -> Vec<i64> {
        let size = challenge.size();
        let mut stream = Mt19937::new(challenge.seed_word());
        let mut draw = || {
            let mut elements = vec![0; size * size];
            draw_row(&mut stream, &mut elements);
            elements.into_iter().map(i64::from).collect::<Vec<i64>>()
        };
        let (mut c, b) = (draw(), draw());
        for _ in 0..challenge.iterations() {
            let mut next = vec![0_i64; size * size];
            for row in 0..size {
                for column in 0..size {
                    for k in 0..size {
                        let term = c[row * size + k].wrapping_mul(b[k * size + column]);
                        next[row * size + column] = next[row * size + column].wrapping_add(term);
                    }
                }
            }
            c = next;
        }
        c
    }

    fn blocked(challenge: &CpuChallenge) -> Vec<i64> {
        let cancelled = AtomicBool::new(false);
        let size = challenge.size();
        let factors = Factors::generate(challenge, &cancelled).unwrap();
        (0..size)
            .step_by(BAND_ROWS)
            .flat_map(|first| {
                let count = BAND_ROWS.min(size - first);
                band(&factors, size, first, count, challenge.iterations(), &cancelled).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_blocked_product_equals_a_naive_one_around_the_edges_of_blocks_with_and_without_wrapping() {
        for size in [1, 2, 3, 13, 15, 16, 17, 31, 33, 97, 127, 128, 129, 131, 255, 257] {
            for iterations in [1, 2, 3, 7] {
                let challenge = CpuChallenge::sample(900 + size, size, iterations);
                assert_eq!(blocked(&challenge), naive(&challenge), "size {size}, {iterations} iterations");
            }
        }
    }

    #[test]
    fn a_line_longer_than_a_slab_is_summed_whole() {
        let length = SLAB + CHUNK + 5;
        let mut rows = Lines::zeroed(1, length).unwrap();
        let mut columns = Lines::zeroed(length, length).unwrap();
        rows.line_mut(0)[..length].fill(ELEMENT_MAX);
        columns.line_mut(length - 1)[..length].fill(-ELEMENT_MAX);
        let mut product = vec![1; length];
        add_product(&[rows.line(0)], 16, &columns, length, &mut product, &AtomicBool::new(false)).unwrap();
        assert_eq!(product[0], 1);
        assert_eq!(product[length - 1], 1 - ((250_000 * length as i64) << 16));
    }

    #[test]
    fn the_largest_digits_do_not_overflow_a_chunk() {
        let a = vec![i16::MIN; 2 * CHUNK];
        let b = vec![ELEMENT_MAX; 2 * CHUNK];
        assert_eq!(dot(&a, &b), 2 * CHUNK as i64 * i64::from(i16::MIN) * 500);
    }

    #[test]
    fn a_cancelled_band_ends_with_that_error() {
        let challenge = CpuChallenge::sample(1, 20, 1);
        let factors = Factors::generate(&challenge, &AtomicBool::new(false)).unwrap();
        assert_eq!(band(&factors, 20, 0, 16, 1, &AtomicBool::new(true)), Err(Error::Cancelled));
    }

    proptest! {
        #[test]
        fn four_digits_are_their_value_modulo_2_to_the_64(value in any::<i64>()) {
            let mut rest = [value];
            let mut sum = 0_i64;
            for shift in [0, 16, 32, 48] {
                let mut digit = [0];
                split_digits(&mut rest, &mut digit);
                sum = sum.wrapping_add(i64::from(digit[0]) << shift);
            }
            prop_assert_eq!(sum, value);
        }

        #[test]
        fn any_small_product_equals_the_naive_one(seed in any::<u32>(), size in 1..40_u32, iterations in 1..20_u32) {
            let challenge = CpuChallenge::sample(seed, size, iterations);
            prop_assert_eq!(blocked(&challenge), naive(&challenge));
        }
    }
}
