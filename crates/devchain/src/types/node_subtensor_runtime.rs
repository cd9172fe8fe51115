//! The outermost enums: every pallet's calls, events and errors under the pallet's index.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

use super::{frame_system, pallet_subtensor, pallet_timestamp};

/// The runtime itself; metadata wants its type.
#[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
pub(crate) struct Runtime;

/// A call to any pallet.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) enum RuntimeCall {
    #[codec(index = 0)]
    System(frame_system::pallet::Call),
    #[codec(index = 2)]
    Timestamp(pallet_timestamp::pallet::Call),
    #[codec(index = 7)]
    SubtensorModule(pallet_subtensor::pallet::Call),
}

/// An event of any pallet.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) enum RuntimeEvent {
    #[codec(index = 0)]
    System(frame_system::pallet::Event),
    #[codec(index = 7)]
    SubtensorModule(pallet_subtensor::pallet::Event),
}

/// An error of any pallet.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) enum RuntimeError {
    #[codec(index = 0)]
    System(frame_system::pallet::Error),
    #[codec(index = 7)]
    SubtensorModule(pallet_subtensor::pallet::Error),
}
