//! Account balances.

pub(crate) mod types {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    use crate::types::TaoBalance;

    /// What an account owns, in rao.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
    pub(crate) struct AccountData {
        pub(crate) free: TaoBalance,
        pub(crate) reserved: TaoBalance,
        pub(crate) frozen: TaoBalance,
        pub(crate) flags: ExtraFlags,
    }

    /// The flags of an account; the top bit marks the present logic of reserves.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct ExtraFlags(pub(crate) u128);

    impl Default for ExtraFlags {
        fn default() -> Self {
            Self(1 << 127)
        }
    }
}
