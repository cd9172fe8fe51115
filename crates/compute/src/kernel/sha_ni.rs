//! SHA-256 over two rows at once, by the processor's own instructions for it.
//!
//! One row alone keeps them half idle: each round waits for the one before. Two rows of the same length take turns.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi8, _mm_set_epi32, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};
use std::mem::transmute;

/// Elements of one block of 64 bytes.
const BLOCK: usize = 8;

/// The state at the start, as FIPS 180-4 (5.3.3) has it.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The constant of each round (FIPS 180-4, 4.2.2), four rounds a line.
const ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// The state of one row, in the order that the instructions want.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

/// The first eight bytes of the hashes of two rows, which are equally long.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
pub(super) fn hash_heads(rows: [&[i64]; 2]) -> [[u8; 8]; 2] {
    let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
    let mut states = [State { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }; 2];
    let [(one, one_rest), (other, other_rest)] = rows.map(<[i64]>::as_chunks::<BLOCK>);
    for (one, other) in one.iter().zip(other) {
        compress(&mut states, [one, other]);
    }
    let length = rows[0].len();
    let (one, other) = (last_blocks(one_rest, length), last_blocks(other_rest, length));
    compress(&mut states, [&one[0], &other[0]]);
    if !fits_one_block(one_rest) {
        compress(&mut states, [&one[1], &other[1]]);
    }
    states.map(|State { abef, .. }| {
        let (a, b) = (_mm_extract_epi32::<3>(abef).cast_unsigned(), _mm_extract_epi32::<2>(abef).cast_unsigned());
        (u64::from(a) << 32 | u64::from(b)).to_be_bytes()
    })
}

/// Whether the end mark and the length fit behind the rest of a row.
fn fits_one_block(rest: &[i64]) -> bool {
    rest.len() + 2 <= BLOCK
}

/// The rest of a row, the end mark, zeros, and the length in bits: one block, or two where it does not fit.
fn last_blocks(rest: &[i64], length: usize) -> [[i64; BLOCK]; 2] {
    let mut blocks = [[0; BLOCK]; 2];
    blocks[0][..rest.len()].copy_from_slice(rest);
    blocks[0][rest.len()] = 0x80;
    blocks[usize::from(!fits_one_block(rest))][BLOCK - 1] = (64 * length as i64).swap_bytes();
    blocks
}

/// One block more of both rows.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn compress(states: &mut [State; 2], blocks: [&[i64; BLOCK]; 2]) {
    let before = *states;
    let [mut one, mut other] = *states;
    let (mut one_words, mut other_words) = (words(blocks[0]), words(blocks[1]));
    for_each!(STEP in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        four_rounds::<STEP>(&mut one, &mut one_words);
        four_rounds::<STEP>(&mut other, &mut other_words);
    });
    for (state, (after, before)) in states.iter_mut().zip([one, other].into_iter().zip(before)) {
        state.abef = _mm_add_epi32(after.abef, before.abef);
        state.cdgh = _mm_add_epi32(after.cdgh, before.cdgh);
    }
}

/// Four rounds, and the four words that are due in as many steps take the place of those that were used.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn four_rounds<const STEP: usize>(state: &mut State, words: &mut [__m128i; 4]) {
    let [k0, k1, k2, k3] = ROUNDS[STEP].map(u32::cast_signed);
    let due = words[STEP % 4];
    let summand = _mm_add_epi32(due, _mm_set_epi32(k3, k2, k1, k0));
    // Two rounds make what was ABEF the new CDGH, so that after four each has its name again.
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, summand);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0b1110>(summand));
    if STEP < 12 {
        let (next, last_but_one, last) = (words[(STEP + 1) % 4], words[(STEP + 2) % 4], words[(STEP + 3) % 4]);
        let partial = _mm_add_epi32(_mm_sha256msg1_epu32(due, next), _mm_alignr_epi8::<4>(last, last_but_one));
        words[STEP % 4] = _mm_sha256msg2_epu32(partial, last);
    }
}

/// The sixteen words of a block. Elements lie in memory as they are hashed, lowest byte first; words are read highest first.
#[inline]
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
fn words(block: &[i64; BLOCK]) -> [__m128i; 4] {
    let highest_first = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    // SAFETY: both are 64 bytes, of which every pattern is a value.
    let vectors: [__m128i; 4] = unsafe { transmute(*block) };
    vectors.map(|vector| _mm_shuffle_epi8(vector, highest_first))
}
