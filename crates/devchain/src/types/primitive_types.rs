//! Hashes.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The blake2b-256 hash of a block, a state or an extrinsic.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, Hash, PartialEq, TypeInfo)]
pub(crate) struct H256(pub(crate) [u8; 32]);
