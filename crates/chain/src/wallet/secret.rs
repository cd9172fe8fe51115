//! From words to keys: phrase → entropy → seed, and the derivation of development keys such as `//Alice`
//! (chain spec 7.2). Seeds and entropy are wiped when dropped.

use bip39::{Language, Mnemonic};
use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use pbkdf2::pbkdf2_hmac;
use rand_core::{OsRng, RngCore};
use schnorrkel::derive::ChainCode;
use schnorrkel::{ExpansionMode, MiniSecretKey};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::Keypair;

/// A mini secret: 32 bytes that expand to an sr25519 key.
pub(super) type Seed = Zeroizing<[u8; 32]>;

/// The public phrase that every Substrate development key derives from.
const DEVELOPMENT_PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

/// Iterations by which entropy is stretched into a seed.
const STRETCH_ROUNDS: u32 = 2048;

/// Sixteen bytes of entropy make twelve words.
const NEW_ENTROPY_BYTES: usize = 16;

/// A text that leads to no key. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not 12 to 24 English words with a fitting checksum.
    #[error("the secret phrase is not 12 to 24 English words with a fitting checksum")]
    Phrase,
    /// A path with something else than hard junctions.
    #[error("only hard derivation is supported: `//name`, not `/name` and no `///password`")]
    Junction,
}

/// The pair of a secret URI: hard junctions as `//Alice//stash`, on the public development phrase or after a phrase of
/// one's own. For development chains; a real hotkey lives in a keyfile.
///
/// # Errors
/// [`SecretError`] for a bad phrase or a soft junction.
pub fn keypair_from_uri(uri: &str) -> Result<Keypair, SecretError> {
    let (phrase, path) = uri.split_once("//").ok_or(SecretError::Junction)?;
    let phrase = if phrase.is_empty() { DEVELOPMENT_PHRASE } else { phrase };
    let mut seed = seed_of(phrase)?;
    for junction in path.split("//") {
        if junction.is_empty() || junction.contains('/') {
            return Err(SecretError::Junction);
        }
        seed = derive_hard(&seed, junction);
    }
    Ok(Keypair::from_seed(&seed))
}

/// Twelve new random words.
pub(super) fn new_phrase() -> Zeroizing<String> {
    let mut entropy = Zeroizing::new([0; NEW_ENTROPY_BYTES]);
    OsRng.fill_bytes(&mut entropy[..]);
    #[expect(clippy::expect_used, reason = "16 bytes are a length that the word list defines")]
    let mnemonic = Mnemonic::from_entropy(&entropy[..]).expect("16 bytes of entropy");
    Zeroizing::new(mnemonic.to_string())
}

/// The seed of a phrase. What is stretched is the entropy behind the words, not the words as in BIP-39.
pub(super) fn seed_of(phrase: &str) -> Result<Seed, SecretError> {
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, phrase).map_err(|_| SecretError::Phrase)?;
    let entropy = Zeroizing::new(mnemonic.to_entropy());
    let mut stretched = Zeroizing::new([0; 64]);
    pbkdf2_hmac::<Sha512>(&entropy, b"mnemonic", STRETCH_ROUNDS, &mut stretched[..]);
    let mut seed = Seed::default();
    seed.copy_from_slice(&stretched[..32]);
    Ok(seed)
}

/// The `privateKey` of a keyfile: the expanded secret in schnorrkel's own form.
pub(super) fn expanded(seed: &Seed) -> Zeroizing<[u8; 64]> {
    Zeroizing::new(mini_secret(seed).expand(ExpansionMode::Ed25519).to_bytes())
}

fn derive_hard(seed: &Seed, junction: &str) -> Seed {
    let secret = mini_secret(seed).expand(ExpansionMode::Ed25519);
    let (derived, _) = secret.hard_derive_mini_secret_key(Some(chain_code(junction)), b"");
    Zeroizing::new(derived.to_bytes())
}

fn mini_secret(seed: &Seed) -> MiniSecretKey {
    #[expect(clippy::expect_used, reason = "any 32 bytes are a mini secret")]
    MiniSecretKey::from_bytes(&seed[..]).expect("32 bytes")
}

/// A junction's chain code: a number as 8 little-endian bytes, a text as SCALE, padded to 32 bytes or hashed into them.
fn chain_code(junction: &str) -> ChainCode {
    let encoded = junction
        .parse::<u64>()
        .map_or_else(|_| parity_scale_codec::Encode::encode(junction), |number| number.to_le_bytes().to_vec());
    let mut code = [0; 32];
    if encoded.len() > code.len() {
        code.copy_from_slice(&Blake2b::<U32>::digest(&encoded));
    } else {
        code[..encoded.len()].copy_from_slice(&encoded);
    }
    ChainCode(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signer;

    #[test]
    fn a_phrase_gives_the_seed_and_the_private_key_of_the_official_wallet() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/wallet.json")).unwrap();
        let hotkey = &vectors["hotkey"];
        let seed = seed_of(hotkey["mnemonic"].as_str().unwrap()).unwrap();
        assert_eq!(format!("0x{}", hex::encode(*seed)), hotkey["secret_seed"]);
        assert_eq!(format!("0x{}", hex::encode(*expanded(&seed))), hotkey["private_key"]);
        assert_eq!(Keypair::from_seed(&seed).hotkey().to_string(), hotkey["ss58_address"]);
    }

    #[test]
    fn new_phrases_are_twelve_words_and_never_the_same() {
        let (one, other) = (new_phrase(), new_phrase());
        assert_eq!(one.split(' ').count(), 12);
        assert_ne!(*one, *other);
        assert!(seed_of(&one).is_ok());
    }

    #[test]
    fn a_phrase_of_ones_own_derives_like_the_development_phrase() {
        let explicit = keypair_from_uri(&format!("{DEVELOPMENT_PHRASE}//Alice")).unwrap();
        assert_eq!(explicit.hotkey(), keypair_from_uri("//Alice").unwrap().hotkey());
    }

    #[test]
    fn junctions_that_are_not_hard_are_refused() {
        for uri in ["", "Alice", "/Alice", "//", "//Alice/soft", "//Alice///password"] {
            assert_eq!(keypair_from_uri(uri).err(), Some(SecretError::Junction), "{uri}");
        }
        assert_eq!(keypair_from_uri("no such words//Alice").err(), Some(SecretError::Phrase));
    }
}
