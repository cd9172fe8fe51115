//! The sealed forms of a keyfile, which the official tools wrote over the years (chain spec 7.3). A form is known by its
//! first bytes; its frame is taken apart before any password is asked for, so that a damaged file is named at once and a
//! key is derived only for what could be opened.

use std::fmt;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyIvInit, StreamCipher};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use hmac::{Hmac, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::keyfile::KeyfileError;

/// First bytes of each form.
const FORMS: [(&[u8], Encryption); 3] =
    [(b"$NACL", Encryption::Nacl), (b"$ANSIBLE_VAULT", Encryption::Ansible), (b"gAAAAA", Encryption::Fernet)];

/// The first line of the one vault version that the tools wrote.
const VAULT_HEADER: &str = "$ANSIBLE_VAULT;1.1;AES256";

/// Argon2i as libsodium's "sensitive" preset of that time: passes and memory.
const NACL_PASSES: u32 = 8;
const NACL_MEMORY_KIB: u32 = 512 * 1024;

/// The salt that all wallets share.
const NACL_SALT: [u8; 16] =
    [0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1];
const NACL_NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

const VAULT_ROUNDS: u32 = 10_000;

const FERNET_ROUNDS: u32 = 10_000_000;
const FERNET_SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const FERNET_VERSION: u8 = 0x80;
/// Version and time of sealing, before the initialisation vector.
const FERNET_HEAD_BYTES: usize = 9;

const AES_BLOCK_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// How a keyfile is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// XSalsa20-Poly1305 under a key by Argon2i: what the official tools write today.
    Nacl,
    /// Ansible vault 1.1.
    Ansible,
    /// Fernet, the oldest form.
    Fernet,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nacl => "NaCl secretbox",
            Self::Ansible => "Ansible vault",
            Self::Fernet => "Fernet",
        })
    }
}

/// A sealed keyfile, taken apart.
pub(super) struct Sealed {
    encryption: Encryption,
    /// Salt of the key, where the form has one of its own; else empty.
    salt: Vec<u8>,
    /// Nonce or initialisation vector, where it is not derived with the key; else empty.
    nonce: Vec<u8>,
    /// What the tag vouches for and the tag itself, where they are apart from the sealed text; else empty.
    vouched: Vec<u8>,
    tag: Vec<u8>,
    text: Vec<u8>,
}

impl Sealed {
    /// Takes `content` apart; `None` when it is not sealed.
    pub(super) fn parse(content: &[u8]) -> Result<Option<Self>, KeyfileError> {
        let Some((prefix, encryption)) = FORMS.iter().find(|(prefix, _)| content.starts_with(prefix)) else {
            return Ok(None);
        };
        let parsed = match encryption {
            Encryption::Nacl => nacl_frame(&content[prefix.len()..]),
            Encryption::Ansible => ansible_frame(content),
            Encryption::Fernet => fernet_frame(content),
        };
        parsed.map(Some).ok_or(KeyfileError::Damaged(*encryption))
    }

    pub(super) fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// The keyfile within. Takes seconds, and for NaCl half a gigabyte of memory: that is what guards the password.
    pub(super) fn open(self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
        match self.encryption {
            Encryption::Nacl => self.open_nacl(password),
            Encryption::Ansible => self.open_ansible(password),
            Encryption::Fernet => self.open_fernet(password),
        }
    }

    fn open_nacl(self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
        let wrong = KeyfileError::WrongPassword(self.encryption);
        let key = nacl_key(password)?;
        let mut text = Zeroizing::new(self.text);
        XSalsa20Poly1305::new((&*key).into())
            .decrypt_in_place(self.nonce.as_slice().into(), b"", &mut *text)
            .map_err(|_| wrong)?;
        Ok(text)
    }

    fn open_ansible(self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
        let mut keys = Zeroizing::new([0; 32 + MAC_BYTES + AES_BLOCK_BYTES]);
        pbkdf2_hmac::<Sha256>(password.as_bytes(), &self.salt, VAULT_ROUNDS, &mut keys[..]);
        let (cipher_key, rest) = keys.split_at(32);
        let (mac_key, nonce) = rest.split_at(MAC_BYTES);
        self.check_tag(mac_key)?;
        let mut text = Zeroizing::new(self.text);
        ctr::Ctr128BE::<aes::Aes256>::new(cipher_key.into(), nonce.into()).apply_keystream(&mut text);
        let padding = text.last().map_or(0, |last| usize::from(*last));
        if padding == 0 || padding > AES_BLOCK_BYTES || padding > text.len() {
            return Err(KeyfileError::Damaged(self.encryption));
        }
        let length = text.len() - padding;
        text.truncate(length);
        Ok(text)
    }

    fn open_fernet(self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
        let mut keys = Zeroizing::new([0; 32]);
        pbkdf2_hmac::<Sha256>(password.as_bytes(), FERNET_SALT, FERNET_ROUNDS, &mut keys[..]);
        let (mac_key, cipher_key) = keys.split_at(16);
        self.check_tag(mac_key)?;
        let mut text = Zeroizing::new(self.text);
        let length = cbc::Decryptor::<aes::Aes128>::new(cipher_key.into(), self.nonce.as_slice().into())
            .decrypt_padded_mut::<Pkcs7>(&mut text)
            .map_err(|_| KeyfileError::Damaged(self.encryption))?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// Compares in constant time.
    fn check_tag(&self, key: &[u8]) -> Result<(), KeyfileError> {
        let wrong = KeyfileError::WrongPassword(self.encryption);
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(|_| wrong.clone())?;
        mac.update(&self.vouched);
        mac.verify_slice(&self.tag).map_err(|_| wrong)
    }
}

/// Nonce, then the box.
fn nacl_frame(content: &[u8]) -> Option<Sealed> {
    let (nonce, text) = content.split_at_checked(NACL_NONCE_BYTES)?;
    (text.len() > TAG_BYTES).then(|| Sealed {
        encryption: Encryption::Nacl,
        salt: Vec::new(),
        nonce: nonce.to_vec(),
        vouched: Vec::new(),
        tag: Vec::new(),
        text: text.to_vec(),
    })
}

/// A header line, then hexadecimal lines of three lines: salt, tag and text, each hexadecimal again.
fn ansible_frame(content: &[u8]) -> Option<Sealed> {
    let (header, body) = std::str::from_utf8(content).ok()?.split_once('\n')?;
    if header.trim_end() != VAULT_HEADER {
        return None;
    }
    let inner = hex::decode(body.split_ascii_whitespace().collect::<String>()).ok()?;
    let mut lines = inner.split(|byte| *byte == b'\n').map(|line| hex::decode(line).ok());
    let (salt, tag, text) = (lines.next()??, lines.next()??, lines.next()??);
    let whole = lines.next().is_none() && tag.len() == MAC_BYTES && !salt.is_empty() && !text.is_empty();
    whole.then(|| Sealed { encryption: Encryption::Ansible, salt, nonce: Vec::new(), vouched: text.clone(), tag, text })
}

/// Version, time, initialisation vector, text, tag.
fn fernet_frame(content: &[u8]) -> Option<Sealed> {
    let mut token = URL_SAFE.decode(content.trim_ascii()).ok()?;
    let tag = token.split_off(token.len().checked_sub(MAC_BYTES)?);
    let (nonce, text) = token.get(FERNET_HEAD_BYTES..)?.split_at_checked(AES_BLOCK_BYTES)?;
    let whole = token[0] == FERNET_VERSION && !text.is_empty() && text.len().is_multiple_of(AES_BLOCK_BYTES);
    whole.then(|| Sealed {
        encryption: Encryption::Fernet,
        salt: Vec::new(),
        nonce: nonce.to_vec(),
        text: text.to_vec(),
        tag,
        vouched: token.clone(),
    })
}

/// The derived key. The memory is asked for first, so that a machine without it gets an error and not an abort.
fn nacl_key(password: &str) -> Result<Zeroizing<[u8; 32]>, KeyfileError> {
    #[expect(clippy::expect_used, reason = "constants within Argon2's bounds")]
    let params = Params::new(NACL_MEMORY_KIB, NACL_PASSES, 1, Some(32)).expect("valid parameters");
    let mut memory = Vec::new();
    memory.try_reserve_exact(params.block_count()).map_err(|_| KeyfileError::OutOfMemory)?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into_with_memory(password.as_bytes(), &NACL_SALT, &mut key[..], &mut memory)
        .map_err(|_| KeyfileError::WrongPassword(Encryption::Nacl))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_sealed_is_left_alone() {
        for content in [b"".as_slice(), b"{}", b"$NAC", b"gAAAA"] {
            assert!(Sealed::parse(content).unwrap().is_none());
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_bent_is_damaged_whatever_the_password() {
        let short_box = [b"$NACL".as_slice(), &[7; NACL_NONCE_BYTES + TAG_BYTES]].concat();
        for (content, encryption) in [
            (b"$NACL".as_slice(), Encryption::Nacl),
            (&short_box, Encryption::Nacl),
            (b"$ANSIBLE_VAULT;1.1;AES256", Encryption::Ansible),
            (b"$ANSIBLE_VAULT;1.1;AES256\n3030", Encryption::Ansible),
            (b"$ANSIBLE_VAULT;9.9;AES256\n3030", Encryption::Ansible),
            (b"gAAAAA", Encryption::Fernet),
            (b"gAAAAA====", Encryption::Fernet),
        ] {
            assert_eq!(Sealed::parse(content).err(), Some(KeyfileError::Damaged(encryption)));
        }
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_reader_panic(form in 0..FORMS.len(), rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let content = [FORMS[form].0, rest.as_slice()].concat();
            let _ = Sealed::parse(&content);
        }
    }
}
