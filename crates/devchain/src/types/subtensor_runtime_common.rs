//! The newtypes around the chain's numbers. They are transparent in bytes; metadata names them since spec 425.

use parity_scale_codec::{CompactAs, Decode, Encode};
use scale_info::TypeInfo;

macro_rules! newtype {
    ($($(#[$doc:meta])* $name:ident($number:ty);)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, CompactAs, Debug, Decode, Default, Encode, Eq, Ord, PartialEq, PartialOrd, TypeInfo)]
        pub(crate) struct $name(pub(crate) $number);
    )+};
}

newtype! {
    /// The number of a subnet.
    NetUid(u16);
    /// `mechanism * 4096 + netuid`: with one mechanism, the netuid.
    NetUidStorageIndex(u16);
    /// The number of an incentive mechanism within a subnet; 0 is the only one here.
    MechId(u8);
    /// TAO in rao.
    TaoBalance(u64);
    /// A subnet's own token, in rao.
    AlphaBalance(u64);
}

impl From<NetUid> for NetUidStorageIndex {
    /// The index of a subnet's first mechanism.
    fn from(netuid: NetUid) -> Self {
        Self(netuid.0)
    }
}
