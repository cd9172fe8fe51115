//! The text of one keyfile (chain spec 7.2): read tolerantly, since wallets of many ages exist, and checked strictly, since
//! a wrong key would sign in a stranger's name. A sealed file is opened before (`vault`).

use std::fmt::Write as _;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::secret::{self, SecretError, Seed};
use super::vault::Encryption;
use crate::{Hotkey, Keypair, Signer};

/// `cryptoType` of the one key scheme that the network uses.
const SR25519: u64 = 1;

/// Letters of a wrong `cryptoType` that a refusal shows: enough for the name of a scheme, too few for a secret.
const SHOWN_CRYPTO_TYPE_CHARS: usize = 16;

/// Why the content of a file gives no key. Never quotes the content, but for the first letters of a wrong `cryptoType`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyfileError {
    /// A sealed file whose frame is broken, or whose content is after all.
    #[error("damaged ({0}): restore the file from a backup, or recreate the hotkey from its phrase")]
    Damaged(Encryption),
    /// A sealed file that the password does not open. Its tag tells a wrong password and changed bytes not apart.
    #[error("the password does not open it ({0}): it is wrong, or the file was changed")]
    WrongPassword(Encryption),
    /// The memory that the key derivation takes cannot be had.
    #[error("opening it takes 512 MiB of memory, which this machine does not give: raise the limit of the process")]
    OutOfMemory,
    /// An account exported from a browser extension.
    #[error("this is a browser-extension export, not a keyfile: recreate the hotkey from its phrase")]
    BrowserExtension,
    /// Neither JSON nor one of the very old bare forms.
    #[error("not a keyfile: expected a JSON object as the official command line writes it")]
    NotAKeyfile,
    /// A key of another scheme.
    #[error("cryptoType {0} is not supported: hotkeys of this network are sr25519 (cryptoType 1)")]
    CryptoType(String),
    /// A public file where a secret is needed.
    #[error("holds an address only: the secret phrase, seed or private key is missing")]
    NoSecret,
    /// A public file without an address.
    #[error("holds no address")]
    NoAddress,
    /// The phrase is none.
    #[error(transparent)]
    Phrase(#[from] SecretError),
    /// A field is not the hexadecimal text that it must be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The secret belongs to another address than the file says.
    #[error("the secret is that of {derived}, but the file says {stated}")]
    Mismatch {
        /// Address that the file states.
        stated: Hotkey,
        /// Address that the secret gives.
        derived: Hotkey,
    },
}

/// The fields that matter; the texts are borrowed from the wiped buffer, so that no secret is copied.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    /// Very old files have the key with a leading space.
    #[serde(alias = " ss58Address")]
    ss58_address: Option<&'a str>,
    public_key: Option<&'a str>,
    account_id: Option<&'a str>,
    crypto_type: Option<CryptoType<'a>>,
    secret_phrase: Option<&'a str>,
    secret_seed: Option<&'a str>,
    private_key: Option<&'a str>,
    encoded: Option<serde::de::IgnoredAny>,
    encoding: Option<serde::de::IgnoredAny>,
}

/// A number, or a numeric string.
#[derive(Deserialize)]
#[serde(untagged)]
enum CryptoType<'a> {
    Number(u64),
    Text(&'a str),
}

/// The pair whose secret the file holds. Precedence: phrase, seed, private key; the derived address must be the stated
/// one. A seed that does not fit yields to the private key, because wallets made from raw bytes hold a corrupt one.
pub(super) fn parse_secret(text: &[u8]) -> Result<Keypair, KeyfileError> {
    let text = plain(text)?;
    let Ok(fields) = Fields::parse(text) else {
        return parse_bare(text);
    };
    fields.check_kind()?;
    let stated = fields.address()?;
    if let Some(phrase) = fields.secret_phrase {
        return checked(Keypair::from_seed(&*secret::seed_of(phrase)?), stated);
    }
    let from_private = || fields.private_key.map(|text| checked(from_private_key(text)?, stated));
    let Some(seed) = fields.secret_seed else {
        return from_private().unwrap_or(Err(KeyfileError::NoSecret));
    };
    let from_seed = hex_field(seed, "secretSeed").and_then(|seed: Seed| checked(Keypair::from_seed(&seed), stated));
    from_seed.or_else(|error| from_private().unwrap_or(Err(error)))
}

/// The address that a file states, public or secret.
pub(super) fn parse_public(text: &[u8]) -> Result<Hotkey, KeyfileError> {
    let fields = Fields::parse(plain(text)?)?;
    fields.check_kind()?;
    fields.address()?.ok_or(KeyfileError::NoAddress)
}

/// The file of a new key: its pair, and the text with phrase, seed and expanded secret.
pub(super) fn write_secret(phrase: &str) -> Result<(Keypair, Zeroizing<String>), KeyfileError> {
    let seed = secret::seed_of(phrase)?;
    let keypair = Keypair::from_seed(&seed);
    let (private, seed) = (to_hex(&secret::expanded(&seed)[..]), to_hex(&seed[..]));
    let public = write_public(&keypair.hotkey());
    let mut text = Zeroizing::new(String::with_capacity(1024));
    // Words and hexadecimal digits need no escapes.
    let _ = write!(
        text,
        r#"{{"secretPhrase":"{phrase}","secretSeed":"{}","privateKey":"{}",{}"#,
        *seed,
        *private,
        public.trim_start_matches('{')
    );
    Ok((keypair, text))
}

/// The public file of an address.
pub(super) fn write_public(address: &Hotkey) -> String {
    let key = hex::encode(address.0);
    format!(r#"{{"accountId":"0x{key}","publicKey":"0x{key}","ss58Address":"{address}","cryptoType":{SR25519}}}"#)
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, KeyfileError> {
        serde_json::from_str(text).map_err(|_| KeyfileError::NotAKeyfile)
    }

    fn check_kind(&self) -> Result<(), KeyfileError> {
        if self.encoded.is_some() && self.encoding.is_some() {
            return Err(KeyfileError::BrowserExtension);
        }
        match &self.crypto_type {
            None | Some(CryptoType::Number(SR25519)) => Ok(()),
            Some(CryptoType::Text(text)) if text.parse() == Ok(SR25519) => Ok(()),
            Some(CryptoType::Number(other)) => Err(KeyfileError::CryptoType(other.to_string())),
            Some(CryptoType::Text(other)) => {
                Err(KeyfileError::CryptoType(other.chars().take(SHOWN_CRYPTO_TYPE_CHARS).collect()))
            }
        }
    }

    fn address(&self) -> Result<Option<Hotkey>, KeyfileError> {
        if let Some(address) = self.ss58_address {
            return address.parse().map(Some).map_err(|_| KeyfileError::Malformed("ss58Address"));
        }
        let key = self.public_key.or(self.account_id);
        key.map(|key| hex_field(key, "publicKey").map(|key: Zeroizing<[u8; 32]>| Hotkey(*key))).transpose()
    }
}

fn plain(content: &[u8]) -> Result<&str, KeyfileError> {
    std::str::from_utf8(content).map(str::trim).map_err(|_| KeyfileError::NotAKeyfile)
}

/// Very old files hold nothing but a phrase or a seed.
fn parse_bare(text: &str) -> Result<Keypair, KeyfileError> {
    if text.starts_with('{') {
        return Err(KeyfileError::NotAKeyfile);
    }
    if let Ok(seed) = hex_field(text, "seed") {
        return Ok(Keypair::from_seed(&seed));
    }
    let seed = secret::seed_of(text).map_err(|_| KeyfileError::NotAKeyfile)?;
    Ok(Keypair::from_seed(&seed))
}

fn from_private_key(text: &str) -> Result<Keypair, KeyfileError> {
    let secret: Zeroizing<[u8; 64]> = hex_field(text, "privateKey")?;
    Keypair::from_secret_key(&secret).map_err(|_| KeyfileError::Malformed("privateKey"))
}

fn checked(keypair: Keypair, stated: Option<Hotkey>) -> Result<Keypair, KeyfileError> {
    let derived = keypair.hotkey();
    match stated {
        Some(stated) if stated != derived => Err(KeyfileError::Mismatch { stated, derived }),
        _ => Ok(keypair),
    }
}

fn hex_field<const N: usize>(text: &str, name: &'static str) -> Result<Zeroizing<[u8; N]>, KeyfileError> {
    let mut bytes = Zeroizing::new([0; N]);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode_to_slice(digits, &mut bytes[..]).map_err(|_| KeyfileError::Malformed(name))?;
    Ok(bytes)
}

fn to_hex(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("0x{}", *Zeroizing::new(hex::encode(secret))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHRASE: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn what_is_written_reads_back() {
        let (keypair, text) = write_secret(PHRASE).unwrap();
        assert_eq!(parse_secret(text.as_bytes()).unwrap().hotkey(), keypair.hotkey());
        assert_eq!(parse_public(text.as_bytes()), Ok(keypair.hotkey()));
        assert_eq!(parse_public(write_public(&keypair.hotkey()).as_bytes()), Ok(keypair.hotkey()));
    }

    #[test]
    fn a_written_file_has_every_field_of_the_official_one() {
        let (_, text) = write_secret(PHRASE).unwrap();
        let written: serde_json::Value = serde_json::from_str(&text).unwrap();
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors/wallet.json")).unwrap();
        assert_eq!(written, vectors["files"]["validator/hotkeys/default"]["json"]);
    }

    #[test]
    fn a_refusal_shows_no_more_of_a_wrong_crypto_type_than_a_scheme_s_name() {
        let refused = |value: &str| parse_secret(format!(r#"{{"cryptoType":"{value}"}}"#).as_bytes()).unwrap_err();
        assert_eq!(refused("ed25519"), KeyfileError::CryptoType("ed25519".to_owned()));
        assert!(!refused(PHRASE).to_string().contains("thank"));
        assert!(refused(&"9".repeat(60_000)).to_string().len() < 128);
    }

    proptest! {
        #[test]
        fn no_content_makes_the_reader_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_secret(&content);
            let _ = parse_public(&content);
        }

        #[test]
        fn no_field_makes_the_reader_panic(field in "[ a-zA-Z0-9]{0,20}", value in "[^\"\\\\]{0,140}") {
            for name in ["secretSeed", "privateKey", "ss58Address", "publicKey", "cryptoType", &field] {
                let _ = parse_secret(format!(r#"{{"{name}":"{value}"}}"#).as_bytes());
            }
        }
    }
}
