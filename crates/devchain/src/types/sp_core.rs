//! Accounts, and metadata as runtime calls answer it.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// Encoded metadata, with its magic number.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) struct OpaqueMetadata(pub(crate) Vec<u8>);

pub(crate) mod crypto {
    use super::{Decode, Encode, TypeInfo};

    /// An sr25519 public key: a hotkey or a coldkey.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, TypeInfo)]
    pub(crate) struct AccountId32(pub(crate) [u8; 32]);
}
