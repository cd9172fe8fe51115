//! The elements of a GPU's matrices, drawn in binary64 (worker-miner spec 5.4).
//!
//! Since indices stay below 2^16, of the 64 bits of the seed's hash only the exclusive or of both halves matters, and each
//! element depends on one 32-bit word: `seed ^ row ^ column·2^16` for A, and the same with 1 more for B, whose row and column
//! change places with those of A. So a row of A and a column of B are each a run of words, which the loops of
//! [`crate::kernel`] turn into elements lane by lane.

use byteleap_protocol::id::{GpuUuid, Seed};
use sha2::{Digest, Sha256};

use crate::kernel::{ELEMENT_LANES, Kernel};

/// All that the matrices of one GPU take from a challenge: 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementSeed(u32);

impl ElementSeed {
    /// The seed of the matrices that `gpu` multiplies.
    #[must_use]
    pub fn new(seed: &Seed, gpu: &GpuUuid) -> Self {
        let digest = Sha256::digest(format!("{seed}|{gpu}"));
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(digest);
        Self(u32::from_le_bytes([a, b, c, d]) ^ u32::from_le_bytes([e, f, g, h]))
    }

    /// The word that the elements of a row of A start from.
    fn row(self, row: u32) -> u32 {
        self.0 ^ row
    }

    /// The word that the elements of a column of B start from.
    fn column(self, column: u32) -> u32 {
        self.0 ^ (column << 16) ^ 1
    }
}

/// One row of A, ready to be multiplied by columns of B. 8·n bytes.
#[derive(Clone, Debug)]
pub struct Row {
    kernel: Kernel,
    seed: ElementSeed,
    size: usize,
    /// As many elements as A has columns, and zeros up to whole lanes.
    elements: Vec<f64>,
}

impl Row {
    /// The elements themselves.
    #[must_use]
    pub fn elements(&self) -> &[f64] {
        &self.elements[..self.size]
    }

    /// Draws row `row` of the n×n matrix A by `kernel`.
    #[must_use]
    pub fn draw(kernel: Kernel, seed: ElementSeed, size: usize, row: u32) -> Self {
        let mut elements = vec![0.0; size.next_multiple_of(ELEMENT_LANES)];
        kernel.draw_row(seed.row(row), &mut elements);
        elements[size..].fill(0.0);
        Self { kernel, seed, size, elements }
    }

    /// The product of this row and column `column` of B: exact, whatever the order of the sum, since every product is a
    /// multiple of 2^-30 and the sum stays below 2^53 of these.
    #[must_use]
    pub fn times_column(&self, column: u32) -> f64 {
        self.kernel.times_column(&self.elements, self.seed.column(column))
    }
}
