//! The runtime's version, which clients compare before they sign.

use std::borrow::Cow;

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// The answer of `Core_version`.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) struct RuntimeVersion {
    pub(crate) spec_name: Cow<'static, str>,
    pub(crate) impl_name: Cow<'static, str>,
    pub(crate) authoring_version: u32,
    pub(crate) spec_version: u32,
    pub(crate) impl_version: u32,
    pub(crate) apis: Cow<'static, [([u8; 8], u32)]>,
    pub(crate) transaction_version: u32,
    pub(crate) system_version: u8,
}
