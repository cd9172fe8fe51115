//! The chain's types, shaped as the runtime shapes them: their SCALE bytes are what travels, their [`TypeInfo`] is what
//! the metadata tells clients, and clients find many of them by path.
//!
//! Each module bears the name of the chain's crate that defines its types, so that a path in the metadata ends as on
//! the chain (`sp_core::crypto::AccountId32`); [`PATH_PREFIX`] is the part that the metadata builder cuts off.
//!
//! [`TypeInfo`]: scale_info::TypeInfo

pub(crate) mod bounded_collections;
pub(crate) mod frame_support;
pub(crate) mod frame_system;
pub(crate) mod node_subtensor_runtime;
pub(crate) mod pallet_balances;
pub(crate) mod pallet_subtensor;
pub(crate) mod pallet_timestamp;
pub(crate) mod pallet_transaction_payment;
pub(crate) mod primitive_types;
pub(crate) mod sp_arithmetic;
pub(crate) mod sp_core;
pub(crate) mod sp_runtime;
pub(crate) mod sp_version;
pub(crate) mod sp_weights;
pub(crate) mod substrate_fixed;
pub(crate) mod subtensor_runtime_common;

pub(crate) use bounded_collections::bounded_vec::BoundedVec;
pub(crate) use node_subtensor_runtime::{RuntimeCall, RuntimeError, RuntimeEvent};
pub(crate) use primitive_types::H256;
pub(crate) use sp_arithmetic::per_things::PerU16;
pub(crate) use sp_core::crypto::AccountId32;
pub(crate) use sp_runtime::{
    DispatchError, ModuleError, MultiSignature, generic::era::Era, multiaddress::MultiAddress,
};
pub(crate) use subtensor_runtime_common::{AlphaBalance, MechId, NetUid, NetUidStorageIndex, TaoBalance};

/// What a type's path has before the chain's own crate name, whatever this crate is called.
pub(crate) const PATH_PREFIX: &str = concat!(module_path!(), "::");

/// The sender of an extrinsic.
pub(crate) type Address = MultiAddress<AccountId32, ()>;
