//! Signed extrinsics: their bytes, what the signature covers, and why one is refused before it enters a block
//! (chain spec 4.4).

use byteleap_protocol::hotkey::{Hotkey, Signature, Signer};
use parity_scale_codec::{Compact, Decode, Encode, Error as CodecError};
use sp_crypto_hashing::blake2_256;

use crate::{
    runtime::{Extensions, Implicit, SPEC_VERSION, TRANSACTION_VERSION},
    types::{
        AccountId32, Address, Era, H256, MultiAddress, MultiSignature, RuntimeCall, TaoBalance,
        frame_system::extensions::{
            ChargeTransactionPayment, CheckGenesis, CheckMetadataHash, CheckMetadataHashMode, CheckMortality,
            CheckNonZeroSender, CheckNonce, CheckShieldedTxValidity, CheckSpecVersion, CheckTxVersion, CheckWeight,
            DrandPriority, SubtensorTransactionExtension, SudoTransactionExtension,
        },
        pallet_timestamp,
    },
};

/// The extrinsic format.
pub(crate) const VERSION: u8 = 4;
/// The bit of the version byte that marks a signed extrinsic.
const SIGNED: u8 = 0x80;
/// A signed message longer than this is replaced by its hash.
const LONGEST_PLAIN_MESSAGE_BYTES: usize = 256;

/// Why the pool refuses an extrinsic, with the code and words of a real node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The bytes are no signed extrinsic of this runtime.
    #[error("Extrinsic has invalid format: {0}")]
    BadFormat(CodecError),
    /// The signature is not the sender's over this call with these extensions on this chain. A foreign genesis hash, another
    /// runtime version and an era that has passed all show as this, for they change what was signed.
    #[error("Transaction has a bad signature")]
    BadSignature,
    /// The nonce was used before.
    #[error("Transaction is outdated")]
    Stale,
    /// The era begins at a block that does not exist or is forgotten.
    #[error("Transaction has an ancient birth block")]
    AncientBirthBlock,
    /// The sender is no plain account, or the signature covers a metadata hash, which this runtime does not know.
    #[error("CannotLookup")]
    CannotLookup,
    /// The call's own check before dispatch; the number is the chain's.
    #[error("Custom error: {0}")]
    Custom(u8),
    /// The same extrinsic waits in the pool.
    #[error("Transaction Already Imported")]
    AlreadyImported,
    /// Another extrinsic with the sender's nonce waits in the pool.
    #[error("The transaction has too low priority to replace another transaction already in the pool.")]
    TooLowPriority,
    /// The pool is full.
    #[error("The transaction couldn't enter the pool because of the limit.")]
    PoolFull,
}

/// A signed extrinsic as it was submitted, not verified.
#[derive(Debug)]
pub(crate) struct Extrinsic {
    pub(crate) sender: AccountId32,
    signature: MultiSignature,
    pub(crate) era: Era,
    pub(crate) nonce: u32,
    mode: CheckMetadataHashMode,
    pub(crate) call: RuntimeCall,
    /// The call and the extensions, as they stand in the signed message.
    signed_bytes: Vec<u8>,
}

impl Extrinsic {
    /// Reads compact length, version, sender, signature, extensions and call, and nothing after them.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut input = bytes;
        let length = Compact::<u32>::decode(&mut input).map_err(Refusal::BadFormat)?.0;
        if length as usize != input.len() {
            return Err(Refusal::BadFormat("length prefix differs from the length".into()));
        }
        if u8::decode(&mut input).map_err(Refusal::BadFormat)? != SIGNED | VERSION {
            return Err(Refusal::BadFormat("not a signed extrinsic of version 4".into()));
        }
        let (address, signature) = <(Address, MultiSignature)>::decode(&mut input).map_err(Refusal::BadFormat)?;
        let MultiAddress::Id(sender) = address else { return Err(Refusal::CannotLookup) };

        let rest = input;
        let (_, _, _, _, CheckMortality(era), CheckNonce(nonce), _, _, _, _, _, _, CheckMetadataHash { mode }) =
            Extensions::decode(&mut input).map_err(Refusal::BadFormat)?;
        let (extensions, call_bytes) = rest.split_at(rest.len() - input.len());
        let call = RuntimeCall::decode(&mut input).map_err(Refusal::BadFormat)?;
        if !input.is_empty() {
            return Err(Refusal::BadFormat("bytes after the call".into()));
        }
        let signed_bytes = [call_bytes, extensions].concat();
        Ok(Self { sender, signature, era, nonce, mode, call, signed_bytes })
    }

    /// Checks the signature. `birth` is the hash of the era's first block.
    pub(crate) fn verify(&self, genesis: H256, birth: H256) -> Result<(), Refusal> {
        if self.mode == CheckMetadataHashMode::Enabled {
            return Err(Refusal::CannotLookup);
        }
        let MultiSignature::Sr25519(signature) = self.signature else { return Err(Refusal::BadSignature) };
        let message = signed_message(self.signed_bytes.clone(), genesis, birth);
        if Hotkey(self.sender.0).verify(&message, &Signature(signature)) { Ok(()) } else { Err(Refusal::BadSignature) }
    }
}

/// Signs a call. `birth` is the hash of the era's first block.
pub(crate) fn sign(call: &RuntimeCall, era: Era, nonce: u32, genesis: H256, birth: H256, by: &dyn Signer) -> Vec<u8> {
    let extensions: Extensions = (
        CheckNonZeroSender,
        CheckSpecVersion,
        CheckTxVersion,
        CheckGenesis,
        CheckMortality(era),
        CheckNonce(nonce),
        CheckWeight,
        ChargeTransactionPayment(TaoBalance(0)),
        SudoTransactionExtension,
        CheckShieldedTxValidity,
        SubtensorTransactionExtension,
        DrandPriority,
        CheckMetadataHash { mode: CheckMetadataHashMode::Disabled },
    );
    let signature = by.sign(&signed_message((call, &extensions).encode(), genesis, birth));
    let sender: Address = MultiAddress::Id(AccountId32(by.hotkey().0));
    with_length((SIGNED | VERSION, sender, MultiSignature::Sr25519(signature.0), extensions, call).encode())
}

/// The unsigned extrinsic that opens every block.
pub(crate) fn set_time(now_ms: u64) -> Vec<u8> {
    with_length((VERSION, RuntimeCall::Timestamp(pallet_timestamp::pallet::Call::set { now: now_ms })).encode())
}

fn signed_message(call_and_extensions: Vec<u8>, genesis: H256, birth: H256) -> Vec<u8> {
    let implicit: Implicit = (SPEC_VERSION, TRANSACTION_VERSION, genesis, birth, None);
    let mut message = call_and_extensions;
    implicit.encode_to(&mut message);
    if message.len() > LONGEST_PLAIN_MESSAGE_BYTES { blake2_256(&message).to_vec() } else { message }
}

/// An extrinsic travels as a byte vector: its length, then itself.
fn with_length(extrinsic: Vec<u8>) -> Vec<u8> {
    extrinsic.encode()
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::hotkey::Keypair;
    use proptest::prelude::*;

    use super::*;
    use crate::types::frame_system;

    const GENESIS: H256 = H256([1; 32]);
    const BIRTH: H256 = H256([2; 32]);

    fn remark(remark: Vec<u8>) -> RuntimeCall {
        RuntimeCall::System(frame_system::pallet::Call::remark { remark })
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_and_verifies(seed: [u8; 32], nonce: u32, birth in 0_u32..1 << 20, text: Vec<u8>) {
            let keypair = Keypair::from_seed(&seed);
            let era = Era::mortal(64, birth);
            let bytes = sign(&remark(text.clone()), era, nonce, GENESIS, BIRTH, &keypair);
            let extrinsic = Extrinsic::decode(&bytes).unwrap();
            prop_assert_eq!(extrinsic.sender.0, keypair.hotkey().0);
            prop_assert_eq!((extrinsic.era, extrinsic.nonce), (era, nonce));
            prop_assert_eq!(extrinsic.call.encode(), remark(text).encode());
            prop_assert_eq!(extrinsic.verify(GENESIS, BIRTH), Ok(()));
            prop_assert_eq!(extrinsic.verify(BIRTH, BIRTH), Err(Refusal::BadSignature));
            prop_assert_eq!(extrinsic.verify(GENESIS, GENESIS), Err(Refusal::BadSignature));
        }

        #[test]
        fn no_altered_byte_verifies(position: prop::sample::Index, change in 1_u8..) {
            let keypair = Keypair::from_seed(&[7; 32]);
            let mut bytes = sign(&remark(vec![0; 300]), Era::mortal(64, 9), 5, GENESIS, BIRTH, &keypair);
            let position = position.index(bytes.len());
            bytes[position] ^= change;
            let verdict = Extrinsic::decode(&bytes).and_then(|extrinsic| extrinsic.verify(GENESIS, BIRTH));
            prop_assert!(verdict.is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Extrinsic::decode(&bytes);
            let _ = Extrinsic::decode(&[vec![SIGNED | VERSION, 0], bytes].concat().encode());
        }
    }
}
