//! Fractions.

pub(crate) mod per_things {
    use parity_scale_codec::{CompactAs, Decode, Encode};
    use scale_info::TypeInfo;

    /// A share of one, in steps of 1/65,535.
    #[derive(Clone, Copy, CompactAs, Debug, Decode, Default, Encode, TypeInfo)]
    pub(crate) struct PerU16(pub(crate) u16);
}
