//! Fixed-point numbers.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// A signed number with 32 integer and 32 fraction bits.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
pub(crate) struct FixedI64 {
    pub(crate) bits: i64,
}

/// A signed number with 96 integer and 32 fraction bits.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
pub(crate) struct FixedI128 {
    pub(crate) bits: i128,
}
