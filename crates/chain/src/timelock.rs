//! Weights under a time lock (chain spec 6.1): sealed so that nobody can read them before a public beacon has signed a
//! round, and open to everybody afterwards. Identity-based encryption over BLS12-381 as the chain has it; daemons only
//! seal, the development chain also runs a beacon of its own and opens.

use std::fmt;
use std::str::FromStr;

use ark_bls12_381::{Fr, G1Projective, G2Projective};
use ark_ec::PrimeGroup;
use ark_ff::PrimeField;
use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use parity_scale_codec::{Decode, Encode};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::drand::TinyBLS381;
use timelock::ibe::fullident::Identity;
use timelock::tlock::{TLECiphertext, tld, tle};
use zeroize::Zeroizing;

use crate::{Hotkey, Weights};

/// Bytes of a beacon's public key, a point of G2.
const PUBLIC_KEY_BYTES: usize = 96;

/// Bytes of a beacon's signature, a point of G1.
pub const SIGNATURE_BYTES: usize = 48;

/// What the chain takes at most as one commit.
pub const LARGEST_COMMIT_BYTES: usize = 5000;

/// Where V and W stand behind U in what the library writes. The chain has a length before each.
const HASH_OFFSETS: [usize; 2] = [96, 128];
const HASH_BYTES: usize = 32;
const LENGTH_BYTES: usize = 8;

/// Cipher suite and nonce of the body.
const SUITE: &[u8] = b"AES_GCM_";
const NONCE_BYTES: usize = 12;

/// A public source of signatures, one a round: whose, since when, how often.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    public_key: [u8; PUBLIC_KEY_BYTES],
    /// Unix time of round 1, in seconds.
    pub genesis_s: u64,
    /// Seconds between rounds.
    pub period_s: u64,
}

/// Not the key of a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a beacon's public key is a point of BLS12-381's G2 in 192 hexadecimal digits")]
pub struct BeaconKeyError;

/// Weights that could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The beacon's key is no point of its group.
    #[error(transparent)]
    Key(#[from] BeaconKeyError),
    /// The vector is too long for a commit.
    #[error("the sealed weights take {0} bytes, the chain takes {LARGEST_COMMIT_BYTES}")]
    TooLarge(usize),
    /// The cipher refused.
    #[error("the cipher failed")]
    Cipher,
}

/// A sealed text that does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its frame is broken.
    #[error("malformed")]
    Malformed,
    /// It is sealed for another round or another beacon, or was changed.
    #[error("not sealed for this signature")]
    OtherRound,
}

impl Beacon {
    /// Drand's quicknet, which the chain follows.
    pub const QUICKNET: Self = Self {
        public_key: [
            0x83, 0xcf, 0x0f, 0x28, 0x96, 0xad, 0xee, 0x7e, 0xb8, 0xb5, 0xf0, 0x1f, 0xca, 0xd3, 0x91, 0x22, 0x12, 0xc4,
            0x37, 0xe0, 0x07, 0x3e, 0x91, 0x1f, 0xb9, 0x00, 0x22, 0xd3, 0xe7, 0x60, 0x18, 0x3c, 0x8c, 0x4b, 0x45, 0x0b,
            0x6a, 0x0a, 0x6c, 0x3a, 0xc6, 0xa5, 0x77, 0x6a, 0x2d, 0x10, 0x64, 0x51, 0x0d, 0x1f, 0xec, 0x75, 0x8c, 0x92,
            0x1c, 0xc2, 0x2b, 0x0e, 0x17, 0xe6, 0x3a, 0xaf, 0x4b, 0xcb, 0x5e, 0xd6, 0x63, 0x04, 0xde, 0x9c, 0xf8, 0x09,
            0xbd, 0x27, 0x4c, 0xa7, 0x3b, 0xab, 0x4a, 0xf5, 0xa6, 0xe9, 0xc7, 0x6a, 0x4b, 0xc0, 0x9e, 0x76, 0xea, 0xe8,
            0x99, 0x1e, 0xf5, 0xec, 0xe4, 0x5a,
        ],
        genesis_s: 1_692_803_367,
        period_s: 3,
    };

    /// The last round that is signed for certain at `at_ms` (Unix time): the chain's own formula, one round on the safe
    /// side (6.2).
    #[must_use]
    pub fn round_before(&self, at_ms: u64) -> u64 {
        (at_ms / 1000).saturating_sub(self.genesis_s) / self.period_s
    }

    /// The newest round that is signed at `at_ms` (Unix time).
    #[must_use]
    pub fn newest_round(&self, at_ms: u64) -> u64 {
        (at_ms / 1000).checked_sub(self.genesis_s).map_or(0, |since| since / self.period_s + 1)
    }

    /// Seals `text` until `round`. A few milliseconds of arithmetic: not on the runtime's threads.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, round: u64, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let public_key = G2Projective::deserialize_compressed(&self.public_key[..]).map_err(|_| BeaconKeyError)?;
        let mut key = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut key[..]);
        let sealed = tle::<TinyBLS381, AESGCMBlockCipherProvider, _>(public_key, *key, text, identity(round), OsRng)
            .map_err(|_| SealError::Cipher)?;
        let mut bare = Vec::new();
        sealed.serialize_compressed(&mut bare).map_err(|_| SealError::Cipher)?;
        let framed = framed(&bare);
        if framed.len() > LARGEST_COMMIT_BYTES { Err(SealError::TooLarge(framed.len())) } else { Ok(framed) }
    }
}

impl FromStr for Beacon {
    type Err = BeaconKeyError;

    /// A beacon of this key with quicknet's rounds, as the development chain's.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut public_key = [0; PUBLIC_KEY_BYTES];
        hex::decode_to_slice(text, &mut public_key).map_err(|_| BeaconKeyError)?;
        let _point = G2Projective::deserialize_compressed(&public_key[..]).map_err(|_| BeaconKeyError)?;
        Ok(Self { public_key, ..Self::QUICKNET })
    }
}

impl fmt::Display for Beacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.public_key))
    }
}

impl fmt::Debug for Beacon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Beacon({self}, every {} s since {})", self.period_s, self.genesis_s)
    }
}

/// The key of a development chain's beacon, which signs any round on demand. Nothing that it seals is a secret.
pub struct BeaconSecret(Fr);

impl fmt::Debug for BeaconSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BeaconSecret")
    }
}

impl BeaconSecret {
    /// The key that a seed gives.
    #[must_use]
    pub fn from_seed(seed: &[u8]) -> Self {
        Self(Fr::from_le_bytes_mod_order(&Sha256::digest(seed)))
    }

    /// Its public side, with quicknet's rounds.
    #[must_use]
    pub fn beacon(&self) -> Beacon {
        let mut public_key = [0; PUBLIC_KEY_BYTES];
        #[expect(clippy::expect_used, reason = "a compressed point of G2 is 96 bytes")]
        (G2Projective::generator() * self.0).serialize_compressed(&mut public_key[..]).expect("96 bytes");
        Beacon { public_key, ..Beacon::QUICKNET }
    }

    /// The signature of a round.
    #[must_use]
    pub fn sign(&self, round: u64) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        #[expect(clippy::expect_used, reason = "a compressed point of G1 is 48 bytes")]
        (identity(round).extract::<TinyBLS381>(self.0).0).serialize_compressed(&mut signature[..]).expect("48 bytes");
        signature
    }
}

/// Opens what was sealed until the round of `signature`. Safe on any bytes.
///
/// # Errors
/// [`OpenError`].
pub fn open(sealed: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<Vec<u8>, OpenError> {
    let bare = bare(sealed).ok_or(OpenError::Malformed)?;
    let sealed = TLECiphertext::<TinyBLS381>::deserialize_compressed(&bare[..]).map_err(|_| OpenError::Malformed)?;
    let signature = G1Projective::deserialize_compressed(&signature[..]).map_err(|_| OpenError::OtherRound)?;
    tld::<TinyBLS381, AESGCMBlockCipherProvider>(sealed, signature).map_err(|_| OpenError::OtherRound)
}

/// What is sealed: whose weights, and the weights.
#[derive(Clone, Debug, PartialEq, Eq, Decode, Encode)]
pub struct Commitment {
    /// The sender's public key, so that nobody can commit a copy of another's.
    pub hotkey: Vec<u8>,
    /// As in the plain call.
    pub uids: Vec<u16>,
    /// As in the plain call.
    pub values: Vec<u16>,
    /// As in the plain call.
    pub version_key: u64,
}

impl Commitment {
    /// The weights of `hotkey`.
    #[must_use]
    pub fn of(hotkey: &Hotkey, weights: &Weights) -> Self {
        Self {
            hotkey: hotkey.0.to_vec(),
            uids: weights.uids().to_vec(),
            values: weights.values().to_vec(),
            version_key: weights.version_key(),
        }
    }
}

/// Who can open what is sealed for a round: the holder of its signature.
fn identity(round: u64) -> Identity {
    Identity::new(b"", &Sha256::digest(round.to_be_bytes()))
}

/// Puts a length before V and W, as the chain reads them.
fn framed(bare: &[u8]) -> Vec<u8> {
    let (point, rest) = bare.split_at(HASH_OFFSETS[0]);
    let (v, rest) = rest.split_at(HASH_OFFSETS[1] - HASH_OFFSETS[0]);
    let length = (HASH_BYTES as u64).to_le_bytes();
    [point, &length, v, &length, rest].concat()
}

/// Takes the lengths out again. Checks all of them, those within the body too: the library would reserve whatever a length
/// says. `None` for a broken frame.
fn bare(sealed: &[u8]) -> Option<Vec<u8>> {
    let (point, rest) = sealed.split_at_checked(HASH_OFFSETS[0])?;
    let (v, rest) = split_block(rest)?;
    let (w, rest) = split_block(rest)?;
    let (body, rest) = split_block(rest)?;
    let (suite, rest) = split_block(rest)?;
    let (_, nonce_part) = split_block(body)?;
    let (nonce, after) = split_block(nonce_part)?;
    let whole = [v.len(), w.len()] == [HASH_BYTES; 2] && rest.is_empty() && suite == SUITE;
    let body_length = (body.len() as u64).to_le_bytes();
    let suite_length = (suite.len() as u64).to_le_bytes();
    (whole && nonce.len() == NONCE_BYTES && after.is_empty())
        .then(|| [point, v, w, &body_length, body, &suite_length, suite].concat())
}

/// A block behind its length, and the rest.
fn split_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"weights";

    /// What quicknet signed in its round 1000.
    const ROUND_1000: &str =
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

    fn secret() -> BeaconSecret {
        BeaconSecret::from_seed(b"test")
    }

    #[test]
    fn what_is_sealed_for_the_public_beacon_opens_with_its_recorded_signature() {
        let signature: [u8; SIGNATURE_BYTES] = hex::decode(ROUND_1000).unwrap().try_into().unwrap();
        let sealed = Beacon::QUICKNET.seal(1000, TEXT).unwrap();
        assert_eq!(open(&sealed, &signature).unwrap(), TEXT);
        let other = Beacon::QUICKNET.seal(1001, TEXT).unwrap();
        assert_eq!(open(&other, &signature), Err(OpenError::OtherRound));
    }

    #[test]
    fn a_beacon_of_ones_own_opens_its_rounds_and_no_others() {
        let sealed = secret().beacon().seal(7, TEXT).unwrap();
        assert_eq!(open(&sealed, &secret().sign(7)).unwrap(), TEXT);
        assert_eq!(open(&sealed, &secret().sign(8)), Err(OpenError::OtherRound));
        assert_eq!(open(&sealed, &BeaconSecret::from_seed(b"other").sign(7)), Err(OpenError::OtherRound));
    }

    #[test]
    fn the_frame_is_the_chains() {
        let sealed = secret().beacon().seal(7, TEXT).unwrap();
        let length = |value: u64| value.to_le_bytes();
        assert_eq!(sealed[96..104], length(32));
        assert_eq!(sealed[136..144], length(32));
        assert_eq!(sealed[sealed.len() - 16..], [&length(8)[..], SUITE].concat());
        // Text and tag, nonce, and a length before each.
        assert_eq!(sealed[176..184], length(TEXT.len() as u64 + 16 + 12 + 16));
    }

    #[test]
    fn a_commit_that_the_chain_would_not_take_is_not_made() {
        assert!(matches!(secret().beacon().seal(7, &[0; 5000]), Err(SealError::TooLarge(_))));
    }

    #[test]
    fn a_beacons_key_survives_configuration() {
        assert_eq!(Beacon::QUICKNET.to_string().parse(), Ok(Beacon::QUICKNET));
        assert_eq!("00".repeat(96).parse::<Beacon>(), Err(BeaconKeyError));
        assert_eq!("quicknet".parse::<Beacon>(), Err(BeaconKeyError));
    }

    #[test]
    fn a_round_is_never_taken_before_it_is_signed() {
        let beacon = Beacon::QUICKNET;
        let at = |seconds: u64| (beacon.genesis_s + seconds) * 1000;
        assert_eq!((beacon.newest_round(at(0) - 1), beacon.newest_round(at(0)), beacon.newest_round(at(3))), (0, 1, 2));
        for seconds in 0..20 {
            assert!(beacon.round_before(at(seconds)) < beacon.newest_round(at(seconds)));
        }
    }

    proptest! {
        #[test]
        fn no_sealed_bytes_make_the_reader_panic(
            mut noise in prop::collection::vec(any::<u8>(), 0..40),
            place in 0_usize..400,
        ) {
            let mut sealed = secret().beacon().seal(7, TEXT).unwrap();
            let place = place.min(sealed.len());
            noise.truncate(sealed.len() - place);
            sealed[place..place + noise.len()].copy_from_slice(&noise);
            let _ = open(&sealed, &secret().sign(7));
            let _ = open(&noise, &secret().sign(7));
        }
    }
}
