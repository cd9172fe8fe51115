//! Collections of limited length; the limit is not on the wire.

pub(crate) mod bounded_vec {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    /// Bytes; the call that takes them states the limit.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct BoundedVec(pub(crate) Vec<u8>);
}
