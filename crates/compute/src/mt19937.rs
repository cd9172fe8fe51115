//! The stream of numbers behind every challenge: MT19937 with classic seeding, and bounded integers drawn from it by
//! masked rejection, word for word as numpy's `RandomState(seed).randint` draws them (worker-miner spec 4.2, 4.3).
//!
//! [`Mt19937`] is the definition, a word at a time: sizes are drawn from it. The elements of matrices, millions of them,
//! come from [`Elements`], which is the same stream a block at a time.

use crate::kernel::{BLOCK_ELEMENTS, Kernel, STATE_WORDS};

const SHIFT_WORDS: usize = 397;

/// A generator somewhere in its stream. A clone continues from the same place.
#[derive(Clone)]
pub struct Mt19937 {
    state: [u32; STATE_WORDS],
    position: usize,
}

impl Mt19937 {
    /// A generator at the start of the stream that `seed` opens; of a challenge's seed that is
    /// [`byteleap_protocol::id::Seed::first_word`].
    pub fn new(seed: u32) -> Self {
        let mut state = [0; STATE_WORDS];
        state[0] = seed;
        for i in 1..STATE_WORDS {
            let previous = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, position: STATE_WORDS }
    }

    /// The next 32-bit word.
    #[inline]
    pub fn word(&mut self) -> u32 {
        if self.position == STATE_WORDS {
            self.refill();
        }
        let mut word = self.state[self.position];
        self.position += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number within 0..=`width`, each equally likely. Consumes one word per attempt, and none where `width` is 0.
    #[inline]
    pub fn up_to(&mut self, width: u32) -> u32 {
        if width == 0 {
            return 0;
        }
        let mask = u32::MAX >> width.leading_zeros();
        loop {
            let value = self.word() & mask;
            if value <= width {
                return value;
            }
        }
    }

    fn refill(&mut self) {
        for i in 0..STATE_WORDS {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE_WORDS] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT_WORDS) % STATE_WORDS] ^ (joined >> 1) ^ twist;
        }
        self.position = 0;
    }
}

/// The elements of both matrices in the order in which they are drawn, each within -500..=500. A clone continues from the
/// same place.
#[derive(Clone)]
pub struct Elements {
    kernel: Kernel,
    state: [u32; STATE_WORDS],
    block: [i16; BLOCK_ELEMENTS],
    drawn: usize,
    given: usize,
}

impl Elements {
    /// The elements of the stream that `seed` opens, drawn by `kernel`.
    #[must_use]
    pub fn new(seed: u32, kernel: Kernel) -> Self {
        let state = Mt19937::new(seed).state;
        Self { kernel, state, block: [0; BLOCK_ELEMENTS], drawn: 0, given: 0 }
    }

    /// Fills `elements` with the next ones.
    pub fn draw(&mut self, mut elements: &mut [i16]) {
        while !elements.is_empty() {
            if self.given == self.drawn {
                self.drawn = self.kernel.draw_block(&mut self.state, &mut self.block);
                self.given = 0;
            }
            let count = elements.len().min(self.drawn - self.given);
            let (now, later) = elements.split_at_mut(count);
            now.copy_from_slice(&self.block[self.given..self.given + count]);
            self.given += count;
            elements = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_kernel_draws_the_stream_in_lines_of_any_length(
            seed in any::<u32>(),
            lengths in prop::collection::vec(0..1500_usize, 1..8),
        ) {
            for kernel in Kernel::all() {
                let mut stream = Mt19937::new(seed);
                let mut elements = Elements::new(seed, kernel);
                for length in &lengths {
                    let mut drawn = vec![0; *length];
                    elements.draw(&mut drawn);
                    let expected: Vec<i16> = (0..*length).map(|_| stream.up_to(1000) as i16 - 500).collect();
                    prop_assert_eq!(&drawn, &expected, "{:?}", kernel);
                }
            }
        }
    }

    #[test]
    fn a_range_of_one_value_consumes_no_word() {
        let mut drawn = Mt19937::new(5);
        assert_eq!(drawn.up_to(0), 0);
        assert_eq!(drawn.word(), Mt19937::new(5).word());
    }

    #[test]
    fn the_full_range_is_the_word_itself() {
        assert_eq!(Mt19937::new(5).up_to(u32::MAX), Mt19937::new(5).word());
    }

    #[test]
    fn a_clone_continues_from_the_same_place() {
        let mut elements = Elements::new(9, Kernel::best());
        elements.draw(&mut [0; 1000]);
        let mut clone = elements.clone();
        let (mut one, mut other) = ([0; 1000], [0; 1000]);
        elements.draw(&mut one);
        clone.draw(&mut other);
        assert_eq!(one, other);

        let mut stream = Mt19937::new(9);
        for _ in 0..1000 {
            stream.word();
        }
        let mut clone = stream.clone();
        assert!((0..1000).all(|_| stream.word() == clone.word()));
    }
}
