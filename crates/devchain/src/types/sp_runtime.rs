//! What every Substrate runtime shares: addresses, signatures, eras, dispatch errors.

use parity_scale_codec::{Decode, Encode};
use scale_info::TypeInfo;

/// A signature of any of the kinds that the chain knows; the development chain verifies sr25519 alone.
#[derive(Clone, Debug, Decode, Encode, TypeInfo)]
pub(crate) enum MultiSignature {
    Ed25519([u8; 64]),
    Sr25519([u8; 64]),
    Ecdsa([u8; 65]),
}

/// Why a call that entered a block had no effect.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq, TypeInfo)]
pub(crate) enum DispatchError {
    Other,
    CannotLookup,
    BadOrigin,
    Module(ModuleError),
}

/// An error of a pallet: the pallet's index and, in the first byte, the error's.
#[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq, TypeInfo)]
pub(crate) struct ModuleError {
    pub(crate) index: u8,
    pub(crate) error: [u8; 4],
}

pub(crate) mod multiaddress {
    use super::{Decode, Encode, TypeInfo};

    /// The ways to name an account; clients send the plain account.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum MultiAddress<AccountId, AccountIndex> {
        Id(AccountId),
        Index(#[codec(compact)] AccountIndex),
        Raw(Vec<u8>),
        Address32([u8; 32]),
        Address20([u8; 20]),
    }
}

pub(crate) mod generic {
    pub(crate) mod unchecked_extrinsic {
        use parity_scale_codec::{Decode, Encode};
        use scale_info::{Path, Type, TypeInfo, TypeParameter, build::Fields, meta_type};

        use crate::{
            runtime::Extensions,
            types::{Address, MultiSignature, RuntimeCall},
        };

        /// An extrinsic as bytes. Clients learn from its parameters of what an extrinsic consists; one that lacks this type
        /// does not even connect.
        #[derive(Clone, Debug, Decode, Encode)]
        pub(crate) struct UncheckedExtrinsic(Vec<u8>);

        impl TypeInfo for UncheckedExtrinsic {
            type Identity = Self;

            fn type_info() -> Type {
                Type::builder()
                    .path(Path::new("UncheckedExtrinsic", module_path!()))
                    .type_params([
                        TypeParameter::new("Address", Some(meta_type::<Address>())),
                        TypeParameter::new("Call", Some(meta_type::<RuntimeCall>())),
                        TypeParameter::new("Signature", Some(meta_type::<MultiSignature>())),
                        TypeParameter::new("Extra", Some(meta_type::<Extensions>())),
                    ])
                    .composite(Fields::unnamed().field(|field| field.ty::<Vec<u8>>()))
            }
        }
    }

    pub(crate) mod era {
        use parity_scale_codec::{Decode, Encode, Error, Input, Output};
        use scale_info::{
            Path, Type, TypeInfo,
            build::{Fields, Variants},
        };

        /// The blocks in which an extrinsic may be included. On the wire one zero byte, or two bytes that hold the
        /// period (4 to 65,536, a power of two) and the phase within it; the metadata form is an enum of 256 variants.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Era {
            Immortal,
            /// The two bytes as a little-endian number.
            Mortal(u16),
        }

        impl Era {
            /// Valid for `period_blocks` blocks from `birth` on. The period is rounded up to a power of two from 4 to 4096,
            /// so that the phase needs no rounding.
            pub(crate) fn mortal(period_blocks: u32, birth: u32) -> Self {
                let period = period_blocks.clamp(4, 4096).next_power_of_two();
                let phase = birth % period;
                // `phase` is below 4096 and takes the upper twelve bits.
                Self::Mortal((phase << 4) as u16 | (period.trailing_zeros() - 1) as u16)
            }

            /// The first block of the era around `block`.
            pub(crate) fn birth(self, block: u32) -> u32 {
                match self {
                    Self::Immortal => 0,
                    Self::Mortal(bits) => {
                        let (period, phase) = period_and_phase(bits);
                        (block.max(phase) - phase) / period * period + phase
                    }
                }
            }

            /// The first block, seen from `block`, that may not include the extrinsic any more.
            pub(crate) fn death(self, block: u32) -> u32 {
                match self {
                    Self::Immortal => u32::MAX,
                    Self::Mortal(bits) => self.birth(block).saturating_add(period_and_phase(bits).0),
                }
            }
        }

        fn period_and_phase(bits: u16) -> (u32, u32) {
            let period = 2 << (bits % 16);
            let phase_step = (period >> 12).max(1);
            (period, (u32::from(bits) >> 4) * phase_step)
        }

        impl Encode for Era {
            fn encode_to<O: Output + ?Sized>(&self, output: &mut O) {
                match self {
                    Self::Immortal => output.push_byte(0),
                    Self::Mortal(bits) => bits.encode_to(output),
                }
            }
        }

        impl Decode for Era {
            fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
                let first = input.read_byte()?;
                if first == 0 {
                    return Ok(Self::Immortal);
                }
                let bits = u16::from_le_bytes([first, input.read_byte()?]);
                let (period, phase) = period_and_phase(bits);
                if period < 4 || phase >= period {
                    Err("invalid period and phase".into())
                } else {
                    Ok(Self::Mortal(bits))
                }
            }
        }

        impl TypeInfo for Era {
            type Identity = Self;

            fn type_info() -> Type {
                let mortal =
                    (1..=u8::MAX).fold(Variants::new().variant("Immortal", |v| v.index(0)), |variants, first| {
                        // The registry wants names that live as long as the program; there are 255 of them, made once.
                        let name: &'static str = format!("Mortal{first}").leak();
                        variants.variant(name, |v| v.index(first).fields(Fields::unnamed().field(|f| f.ty::<u8>())))
                    });
                Type::builder().path(Path::new("Era", module_path!())).variant(mortal)
            }
        }

        #[cfg(test)]
        mod tests {
            use super::*;

            #[test]
            fn a_mortal_era_covers_its_period_and_no_block_more() {
                let era = Era::mortal(32, 1005);
                assert_eq!(era.birth(1005), 1005);
                assert_eq!(era.birth(1036), 1005);
                assert_eq!(era.death(1036), 1037);
                assert_eq!(era.birth(1037), 1037);
            }

            #[test]
            fn an_era_survives_its_bytes_and_bad_bytes_are_refused() {
                for era in [Era::Immortal, Era::mortal(4, 7), Era::mortal(128, 1_000_003), Era::mortal(4096, 4095)] {
                    assert_eq!(Era::decode(&mut &era.encode()[..]), Ok(era));
                }
                // A period of 4 has phases 0 to 3 only.
                assert!(Era::decode(&mut &(0x41_u16).to_le_bytes()[..]).is_err());
            }
        }
    }
}
