//! What a dispatched call reports about its class and fee.

pub(crate) mod dispatch {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    /// The class of a call.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum DispatchClass {
        Normal,
        Operational,
        Mandatory,
    }

    /// Whether the sender pays a fee.
    #[derive(Clone, Copy, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum Pays {
        Yes,
        No,
    }
}
