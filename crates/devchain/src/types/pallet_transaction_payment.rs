//! What an extrinsic would cost: nothing, here.

pub(crate) mod types {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    use crate::types::{TaoBalance, frame_support::dispatch::DispatchClass, sp_weights::weight_v2::Weight};

    /// The cost of an extrinsic.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct RuntimeDispatchInfo {
        weight: Weight,
        class: DispatchClass,
        partial_fee: TaoBalance,
    }

    impl RuntimeDispatchInfo {
        /// That of every extrinsic.
        pub(crate) const FREE: Self = Self {
            weight: Weight { ref_time: 0, proof_size: 0 },
            class: DispatchClass::Normal,
            partial_fee: TaoBalance(0),
        };
    }
}
