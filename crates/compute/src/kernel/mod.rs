//! The inner loops, written for the vector instructions of this machine and chosen when the program runs.
//!
//! These loops take nearly all the time of a challenge: drawing elements from the generator, multiplying a tile, hashing a row
//! and, on the validator, weighting rows of B; one more measures what the machine could do at best. Each exists once per
//! instruction set, with the portable form as the one that the others must equal bit for bit. This folder is the only place
//! of the crate where `unsafe` is allowed: for calling code that was compiled for instructions which the machine was seen to
//! have, and for taking a vector as an array of exactly its size.
//!
//! The worker's tile and the validator's weighted rows share no multiplication: the one multiplies 16-bit pairs of packed
//! panels, the other whole 32- or 64-bit words of plain rows.

/// Repeats a block once per index, which is a constant in it. Sums in an array stay in registers only if no index is left
/// to the optimiser.
macro_rules! for_each {
    ($index:ident in [$($value:literal),*] $block:block) => {
        $({
            const $index: usize = $value;
            $block
        })*
    };
}

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

pub use portable::{DEPTH, ELEMENT_LANES, WIDTH, Word};

/// Rows of a tile of the product: with [`TILE_COLUMNS`], 24 sums of 16 lanes, of 32 registers.
pub const TILE_ROWS: usize = 12;

/// Columns of a tile of the product.
pub const TILE_COLUMNS: usize = 32;

/// Sums of one tile.
pub type Tile = [[i32; TILE_COLUMNS]; TILE_ROWS];

/// Two neighbouring elements of a row, for each row of a tile: the even one in the low half of a word.
pub type RowPairs = [i32; TILE_ROWS];

/// Two neighbouring elements of a column, for each column of a tile: the even one in the low half of a word.
pub type ColumnPairs = [i32; TILE_COLUMNS];

/// Words of the generator's state, which all change at once.
pub const STATE_WORDS: usize = 624;

/// Room for the elements of one block, and for what a vector store writes beyond the last.
pub const BLOCK_ELEMENTS: usize = STATE_WORDS + 16;

/// Two 16-bit elements in one word, as panels hold them.
#[inline]
pub fn pair(low: i16, high: i16) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

/// An instruction set that this machine has: there is no way to hold one that it lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Instructions);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Why a name stands for no kernel that could be run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Nobody wrote one of that name.
    #[error("there is no such kernel: known are avx512 (avx512-vnni), avx2 and portable")]
    Unknown,
    /// The processor lacks its instructions.
    #[error("this processor lacks the instructions of {kernel}: it has the kernels {}", available.join(", "))]
    Lacking {
        /// What was asked for.
        kernel: &'static str,
        /// What there is.
        available: Vec<&'static str>,
    },
}

impl FromStr for Kernel {
    type Err = KernelError;

    /// The kernel of this name, `avx512` for short included, if this machine can run it.
    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::named(name, &Self::all())
    }
}

/// Runs the form of a loop that belongs to a kernel. The arguments of the macro are the kernel, then the call.
macro_rules! dispatch {
    ($kernel:expr, $function:ident($($argument:expr),*)) => {
        match $kernel.0 {
            // SAFETY: `Kernel::all`, which alone makes this value, has seen every feature that the function is compiled for.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { avx512::$function($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { avx2::$function($($argument),*) },
            Instructions::Portable => portable::$function($($argument),*),
        }
    };
}

impl Kernel {
    /// The names of all kernels, of this machine or not, fastest first.
    pub const NAMES: [&str; 3] = ["avx512-vnni", "avx2", "portable"];

    /// The kernels that this machine can run, fastest first; the portable one is always there.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self(Instructions::Avx512Vnni));
            }
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self(Instructions::Avx2));
            }
        }
        kernels.push(Self(Instructions::Portable));
        kernels
    }

    /// The fastest kernel of this machine.
    #[must_use]
    pub fn best() -> Self {
        static BEST: LazyLock<Kernel> = LazyLock::new(|| Kernel::all()[0]);
        *BEST
    }

    fn named(name: &str, available: &[Self]) -> Result<Self, KernelError> {
        let full = if name == "avx512" { "avx512-vnni" } else { name };
        let kernel = Self::NAMES.into_iter().find(|known| *known == full).ok_or(KernelError::Unknown)?;
        let found = available.iter().find(|known| known.name() == kernel).copied();
        let lacking =
            || KernelError::Lacking { kernel, available: available.iter().map(|known| known.name()).collect() };
        found.ok_or_else(lacking)
    }

    /// The kernel's name, one of [`Kernel::NAMES`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            Instructions::Portable => "portable",
        }
    }

    /// Sets the tile to the product of 12 rows and 32 columns, both as pairs; sums wrap at 32 bits.
    #[inline]
    pub(crate) fn multiply(self, rows: &[RowPairs], columns: &[ColumnPairs], tile: &mut Tile) {
        dispatch!(self, multiply(rows, columns, tile));
    }

    /// Adds the first `width` columns of a tile's rows, times 2^`shift`, to a part of the product modulo 2^64, which has a
    /// row every `stride` elements.
    #[inline]
    pub(crate) fn add_tile(
        self,
        tile: &[[i32; TILE_COLUMNS]],
        shift: u32,
        product: &mut [i64],
        stride: usize,
        width: usize,
    ) {
        dispatch!(self, add_tile(tile, shift, product, stride, width));
    }

    /// Moves the generator's state on by one block, and turns the block's words into elements within -500..=500: the low
    /// ten bits less 500, those above 1000 left out. Returns how many elements there are.
    #[inline]
    pub(crate) fn draw_block(self, state: &mut [u32; STATE_WORDS], elements: &mut [i16; BLOCK_ELEMENTS]) -> usize {
        dispatch!(self, draw_block(state, elements))
    }

    /// Adds weighted rows to the sums, in whole words that wrap.
    #[inline]
    pub(crate) fn weigh<T: Word>(self, weights: &[T; DEPTH], rows: &[[T; WIDTH]; DEPTH], sums: &mut [T; WIDTH]) {
        dispatch!(self, weigh(weights, rows, sums));
    }

    /// Draws a row of a GPU's matrix A: element k from the word `start` ^ k·2^16. Whole lanes only.
    #[inline]
    pub(crate) fn draw_row(self, start: u32, row: &mut [f64]) {
        dispatch!(self, draw_row(start, row));
    }

    /// The sum of a row of A times a column of a GPU's matrix B, whose element k is drawn from the word `start` ^ k. Whole lanes
    /// only.
    #[inline]
    pub(crate) fn times_column(self, row: &[f64], start: u32) -> f64 {
        dispatch!(self, times_column(row, start))
    }

    /// Multiplies and adds in registers alone, to see what the machine can do at best. Returns the number of
    /// multiplications; the sums go nowhere.
    pub(crate) fn spin(self, rounds: u32) -> u64 {
        dispatch!(self, spin(rounds))
    }
}

/// The first eight bytes of SHA-256 over each of two equally long rows, by the processor's own instructions; none where it
/// has none.
#[inline]
#[must_use]
pub(crate) fn hash_heads(rows: [&[i64]; 2]) -> Option<[[u8; 8]; 2]> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1") {
        // SAFETY: the machine was just seen to have every feature that the function is compiled for.
        return Some(unsafe { sha_ni::hash_heads(rows) });
    }
    None
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_had_by_its_name_where_the_processor_can_run_it() {
        for kernel in Kernel::all() {
            assert_eq!(kernel.name().parse(), Ok(kernel));
        }
        let portable: Kernel = "portable".parse().unwrap();
        for (name, kernel) in [("avx512", "avx512-vnni"), ("avx512-vnni", "avx512-vnni"), ("avx2", "avx2")] {
            let available = vec!["portable"];
            assert_eq!(Kernel::named(name, &[portable]), Err(KernelError::Lacking { kernel, available }));
        }
        assert_eq!("sse".parse::<Kernel>(), Err(KernelError::Unknown));
    }
}
