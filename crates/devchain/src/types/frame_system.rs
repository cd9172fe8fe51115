//! Accounts, events and the extensions that every signed extrinsic carries.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

use super::{
    frame_support::dispatch::{DispatchClass, Pays},
    pallet_balances::types::AccountData,
    sp_weights::weight_v2::Weight,
};

/// An account's nonce and balance.
#[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
pub(crate) struct AccountInfo {
    pub(crate) nonce: u32,
    pub(crate) consumers: u32,
    pub(crate) providers: u32,
    pub(crate) sufficients: u32,
    pub(crate) data: AccountData,
}

/// An event and where in the block it happened.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) struct EventRecord<Event, Topic> {
    pub(crate) phase: Phase,
    pub(crate) event: Event,
    pub(crate) topics: Vec<Topic>,
}

/// The part of a block to which an event belongs.
#[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
pub(crate) enum Phase {
    /// While the extrinsic of this index was applied.
    ApplyExtrinsic(u32),
    Finalization,
    Initialization,
}

/// What a call cost.
#[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
pub(crate) struct DispatchEventInfo {
    pub(crate) weight: Weight,
    pub(crate) class: DispatchClass,
    pub(crate) pays_fee: Pays,
}

impl DispatchEventInfo {
    /// Every call is free on the development chain.
    pub(crate) const FREE: Self =
        Self { weight: Weight { ref_time: 0, proof_size: 0 }, class: DispatchClass::Normal, pays_fee: Pays::No };
}

pub(crate) mod pallet {
    use super::{Decode, DispatchEventInfo, Encode, TypeInfo};
    use crate::types::DispatchError;

    /// The calls of pallet `System`.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    #[expect(non_camel_case_types, reason = "a call's name in the metadata is its variant's")]
    pub(crate) enum Call {
        #[codec(index = 0)]
        remark { remark: Vec<u8> },
    }

    /// The events of pallet `System`: the fate of each extrinsic.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum Event {
        #[codec(index = 0)]
        ExtrinsicSuccess { dispatch_info: DispatchEventInfo },
        #[codec(index = 1)]
        ExtrinsicFailed { dispatch_error: DispatchError, dispatch_info: DispatchEventInfo },
    }

    /// The errors of pallet `System`.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum Error {
        #[codec(index = 0)]
        InvalidSpecName,
        #[codec(index = 5)]
        CallFiltered,
    }
}

/// The transaction extensions, most of them without content (chain spec 4.4).
pub(crate) mod extensions {
    use super::{Decode, Encode, TypeInfo};
    use crate::types::{Era, TaoBalance};

    macro_rules! empty_extensions {
        ($($name:ident),+) => {$(
            /// An extension that adds no byte to the extrinsic.
            #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
            pub(crate) struct $name;
        )+};
    }

    empty_extensions!(
        CheckNonZeroSender,
        CheckSpecVersion,
        CheckTxVersion,
        CheckGenesis,
        CheckWeight,
        SudoTransactionExtension,
        CheckShieldedTxValidity,
        SubtensorTransactionExtension,
        DrandPriority
    );

    /// The blocks in which the extrinsic may be included.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct CheckMortality(pub(crate) Era);

    /// How many extrinsics the sender has had included before this one.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct CheckNonce(#[codec(compact)] pub(crate) u32);

    /// The tip.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct ChargeTransactionPayment(#[codec(compact)] pub(crate) TaoBalance);

    /// Whether the signature covers a hash of the metadata.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct CheckMetadataHash {
        pub(crate) mode: CheckMetadataHashMode,
    }

    /// See [`CheckMetadataHash`]; the development chain has no such hash and refuses `Enabled`.
    #[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq, TypeInfo)]
    pub(crate) enum CheckMetadataHashMode {
        Disabled,
        Enabled,
    }
}
