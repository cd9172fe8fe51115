//! Accounts.

pub(crate) mod crypto {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    /// An sr25519 public key: a hotkey or a coldkey.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, Hash, Ord, PartialEq, PartialOrd, TypeInfo)]
    pub(crate) struct AccountId32(pub(crate) [u8; 32]);
}
