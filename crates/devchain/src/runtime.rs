//! What the runtime says of itself: its version, and the extensions of a signed extrinsic with what each adds to the
//! signed message. Extrinsics are read and metadata is built from these (chain spec 4.4).

use scale_info::{MetaType, meta_type};

use crate::types::{
    H256,
    frame_system::extensions::{
        ChargeTransactionPayment, CheckGenesis, CheckMetadataHash, CheckMortality, CheckNonZeroSender, CheckNonce,
        CheckShieldedTxValidity, CheckSpecVersion, CheckTxVersion, CheckWeight, DrandPriority,
        SubtensorTransactionExtension, SudoTransactionExtension,
    },
    sp_version::RuntimeVersion,
};

/// The runtime's name, on the chain and here.
pub(crate) const SPEC_NAME: &str = "node-subtensor";
/// The runtime that this one is shaped after.
pub(crate) const SPEC_VERSION: u32 = 461;
/// The version of the extrinsic format.
pub(crate) const TRANSACTION_VERSION: u32 = 1;

/// The whole version.
pub(crate) fn version() -> RuntimeVersion {
    RuntimeVersion {
        spec_name: SPEC_NAME.into(),
        impl_name: SPEC_NAME.into(),
        authoring_version: 1,
        spec_version: SPEC_VERSION,
        impl_version: 1,
        apis: [].as_slice().into(),
        transaction_version: TRANSACTION_VERSION,
        system_version: 1,
    }
}

/// The extensions in the order of their bytes.
pub(crate) type Extensions = (
    CheckNonZeroSender,
    CheckSpecVersion,
    CheckTxVersion,
    CheckGenesis,
    CheckMortality,
    CheckNonce,
    CheckWeight,
    ChargeTransactionPayment,
    SudoTransactionExtension,
    CheckShieldedTxValidity,
    SubtensorTransactionExtension,
    DrandPriority,
    CheckMetadataHash,
);

/// What the signed message adds to the extrinsic's own bytes: runtime version, transaction version, genesis hash, hash of
/// the era's first block, hash of the metadata.
pub(crate) type Implicit = (u32, u32, H256, H256, Option<[u8; 32]>);

/// What metadata says of one extension.
pub(crate) struct Extension {
    pub(crate) identifier: &'static str,
    /// Its bytes in the extrinsic.
    pub(crate) explicit: MetaType,
    /// Its bytes in the signed message alone.
    pub(crate) implicit: MetaType,
}

/// The extensions in the order of [`Extensions`], their implicit parts in the order of [`Implicit`].
pub(crate) fn extensions() -> [Extension; 13] {
    fn extension<E: scale_info::TypeInfo + 'static>(identifier: &'static str, implicit: MetaType) -> Extension {
        Extension { identifier, explicit: meta_type::<E>(), implicit }
    }
    let nothing = meta_type::<()>();
    [
        extension::<CheckNonZeroSender>("CheckNonZeroSender", nothing),
        extension::<CheckSpecVersion>("CheckSpecVersion", meta_type::<u32>()),
        extension::<CheckTxVersion>("CheckTxVersion", meta_type::<u32>()),
        extension::<CheckGenesis>("CheckGenesis", meta_type::<H256>()),
        extension::<CheckMortality>("CheckMortality", meta_type::<H256>()),
        extension::<CheckNonce>("CheckNonce", nothing),
        extension::<CheckWeight>("CheckWeight", nothing),
        extension::<ChargeTransactionPayment>("ChargeTransactionPayment", nothing),
        extension::<SudoTransactionExtension>("SudoTransactionExtension", nothing),
        extension::<CheckShieldedTxValidity>("CheckShieldedTxValidity", nothing),
        extension::<SubtensorTransactionExtension>("SubtensorTransactionExtension", nothing),
        extension::<DrandPriority>("DrandPriority", nothing),
        extension::<CheckMetadataHash>("CheckMetadataHash", meta_type::<Option<[u8; 32]>>()),
    ]
}
