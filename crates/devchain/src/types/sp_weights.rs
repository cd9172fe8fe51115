//! Computation weights, which the development chain reports as zero.

pub(crate) mod weight_v2 {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    /// The cost of a call in execution time and proof size.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
    pub(crate) struct Weight {
        #[codec(compact)]
        pub(crate) ref_time: u64,
        #[codec(compact)]
        pub(crate) proof_size: u64,
    }
}
