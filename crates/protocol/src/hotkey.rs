//! Who speaks: hotkeys, their signatures, and the key pair that makes them.
//!
//! Every party of the network is known by an sr25519 public key in its SS58 text with prefix 42. Requests on the wire
//! carry a signature over a text (miner-validator spec 1.5 and 1.6); [`Hotkey::verify`] is the only check there is.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2b512, Digest};
use schnorrkel::ExpansionMode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The signing context of every signature of the network.
const SIGNING_CONTEXT: &[u8] = b"substrate";

/// Prefix byte of a generic Substrate address; the only one that the metagraph's texts use.
const SS58_PREFIX: u8 = 42;

/// A party's sr25519 public key. Its text form is SS58 with prefix 42, on the wire as in logs.
///
/// Any 32 bytes are an account, so any 32 bytes are accepted; bytes that are no key verify nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hotkey(pub [u8; 32]);

impl Hotkey {
    /// True if `signature` is this key's over exactly `message`; the wrapped form `<Bytes>…</Bytes>` is refused.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = schnorrkel::PublicKey::from_bytes(&self.0) else { return false };
        // Refuses a signature without the marker in the high bit of its last byte.
        let Ok(signature) = schnorrkel::Signature::from_bytes(&signature.0) else { return false };
        key.verify_simple(SIGNING_CONTEXT, message, &signature).is_ok()
    }

    fn checksum(&self) -> [u8; 2] {
        let hash =
            Blake2b512::new().chain_update(b"SS58PRE").chain_update([SS58_PREFIX]).chain_update(self.0).finalize();
        [hash[0], hash[1]]
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut address = [0_u8; 35];
        address[0] = SS58_PREFIX;
        address[1..33].copy_from_slice(&self.0);
        address[33..].copy_from_slice(&self.checksum());
        f.pad(&bs58::encode(address).into_string())
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no hotkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HotkeyError {
    /// Not base58, or not 35 bytes long.
    #[error("not an SS58 address")]
    NotAnAddress,
    /// An address of another chain's format.
    #[error("address has prefix {0}, expected {SS58_PREFIX}")]
    Prefix(u8),
    /// The last two bytes do not fit the others: a misspelt address.
    #[error("address checksum does not match")]
    Checksum,
}

impl FromStr for Hotkey {
    type Err = HotkeyError;

    fn from_str(text: &str) -> Result<Self, HotkeyError> {
        let mut address = [0_u8; 35];
        match bs58::decode(text).onto(&mut address[..]) {
            Ok(35) => {}
            _ => return Err(HotkeyError::NotAnAddress),
        }
        if address[0] != SS58_PREFIX {
            return Err(HotkeyError::Prefix(address[0]));
        }
        let mut key = [0_u8; 32];
        key.copy_from_slice(&address[1..33]);
        let hotkey = Self(key);
        if address[33..] == hotkey.checksum() { Ok(hotkey) } else { Err(HotkeyError::Checksum) }
    }
}

impl TryFrom<String> for Hotkey {
    type Error = HotkeyError;

    fn try_from(text: String) -> Result<Self, HotkeyError> {
        text.trim().parse()
    }
}

impl From<Hotkey> for String {
    fn from(hotkey: Hotkey) -> Self {
        hotkey.to_string()
    }
}

/// An sr25519 signature; its text is `0x` and 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Signature(pub [u8; 64]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not `0x` and 128 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Invalid signature format. Expected hex string.")]
pub struct SignatureError;

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let digits = text.strip_prefix("0x").ok_or(SignatureError)?;
        let mut bytes = [0_u8; 64];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| SignatureError)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Signature {
    type Error = SignatureError;

    fn try_from(text: String) -> Result<Self, SignatureError> {
        text.parse()
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        signature.to_string()
    }
}

/// Something that signs as one hotkey: a key pair in memory, or a process that guards one.
pub trait Signer: Send + Sync {
    /// The hotkey whose signatures these are.
    fn hotkey(&self) -> Hotkey;
    /// Signs `message` as it is, in the context `substrate`.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// An sr25519 key pair. The secret is wiped from memory on drop, and `Debug` shows the hotkey only.
#[derive(Clone)]
pub struct Keypair(schnorrkel::Keypair);

/// Bytes that are no sr25519 secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an sr25519 secret key")]
pub struct SecretKeyError;

impl Keypair {
    /// The pair of a 32-byte seed (mini secret), expanded in ed25519 mode as Substrate does.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "every 32 bytes are a mini secret; only another length is refused")]
        let secret = schnorrkel::MiniSecretKey::from_bytes(seed).expect("32 bytes");
        Self(secret.expand_to_keypair(ExpansionMode::Ed25519))
    }

    /// The pair of the 64 bytes that a wallet keeps as `privateKey`: the canonical scalar, little endian, not
    /// multiplied by the cofactor, then the 32 bytes of the signing nonce (miner-validator spec 1.6).
    ///
    /// # Errors
    /// The first half is no canonical scalar.
    pub fn from_secret_key(secret: &[u8; 64]) -> Result<Self, SecretKeyError> {
        let secret = Zeroizing::new(*secret);
        let secret = schnorrkel::SecretKey::from_bytes(&secret[..]).map_err(|_| SecretKeyError)?;
        Ok(Self(secret.to_keypair()))
    }
}

impl Signer for Keypair {
    fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public.to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign_simple(SIGNING_CONTEXT, message).to_bytes())
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keypair").field(&self.hotkey()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn miner() -> Keypair {
        Keypair::from_seed(&[0x11; 32])
    }

    #[test]
    fn a_hotkey_reads_back_from_its_text() {
        let hotkey = miner().hotkey();
        assert_eq!(hotkey.to_string(), "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi");
        assert_eq!(hotkey.to_string().parse(), Ok(hotkey));
    }

    #[test]
    fn a_misspelt_or_foreign_address_is_refused() {
        let misspelt = "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fj";
        assert_eq!(misspelt.parse::<Hotkey>(), Err(HotkeyError::Checksum));
        let polkadot = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
        assert_eq!(polkadot.parse::<Hotkey>(), Err(HotkeyError::Prefix(0)));
        for text in ["", "5", "0OIl", &"1".repeat(200)] {
            assert_eq!(text.parse::<Hotkey>(), Err(HotkeyError::NotAnAddress));
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let signature = miner().sign(b"1.a.b");
        let other = Keypair::from_seed(&[0x22; 32]).hotkey();
        assert!(miner().hotkey().verify(b"1.a.b", &signature));
        assert!(!miner().hotkey().verify(b"1.a.c", &signature));
        assert!(!miner().hotkey().verify(b"<Bytes>1.a.b</Bytes>", &signature));
        assert!(!other.verify(b"1.a.b", &signature));
    }

    #[test]
    fn a_signature_without_the_marker_bit_is_refused() {
        let mut signature = miner().sign(b"m");
        signature.0[63] &= 0x7f;
        assert!(!miner().hotkey().verify(b"m", &signature));
    }

    #[test]
    fn debug_of_a_key_pair_shows_no_secret() {
        assert_eq!(format!("{:?}", miner()), "Keypair(5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi)");
    }

    proptest! {
        #[test]
        fn any_key_has_one_text_and_any_text_one_key_or_none(key in any::<[u8; 32]>(), text in "[1-9A-Za-z]{0,52}") {
            prop_assert_eq!(Hotkey(key).to_string().parse(), Ok(Hotkey(key)));
            if let Ok(hotkey) = text.parse::<Hotkey>() {
                prop_assert_eq!(hotkey.to_string(), text);
            }
        }

        #[test]
        fn no_address_with_another_character_is_the_same_key(
            key in any::<[u8; 32]>(), at in any::<prop::sample::Index>(), character in "[1-9A-HJ-NP-Za-km-z]",
        ) {
            let mut address = Hotkey(key).to_string();
            let at = at.index(address.len());
            prop_assume!(address[at..=at] != character);
            address.replace_range(at..=at, &character);
            prop_assert_ne!(address.parse(), Ok(Hotkey(key)));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>(), digits in "0x[0-9a-fA-F]{120,130}") {
            let _ = text.parse::<Hotkey>();
            let _ = text.parse::<Signature>();
            if let Ok(signature) = digits.parse::<Signature>() {
                prop_assert_eq!(signature.to_string(), digits.to_ascii_lowercase());
            }
        }
    }
}
