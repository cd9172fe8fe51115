//! The first extrinsic of every block: its time.

pub(crate) mod pallet {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    /// The calls of pallet `Timestamp`.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    #[expect(non_camel_case_types, reason = "a call's name in the metadata is its variant's")]
    pub(crate) enum Call {
        #[codec(index = 0)]
        set {
            #[codec(compact)]
            now: u64,
        },
    }
}
