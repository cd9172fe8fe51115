//! The names and sizes that messages speak of: who computes, on which unit, what, and how large.
//!
//! Each is a type that is checked where a message, a row or a configuration enters, so that what is behind that edge
//! cannot hold a wrong one.

use std::fmt;
use std::str::FromStr;

use rand_core::RngCore;
use serde::{Deserialize, Serialize};

/// Why a value is not the name, size or number it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name without a visible character.
    #[error("{0} must not be blank")]
    Blank(&'static str),
    /// A name longer than the limit, in characters.
    #[error("{0} must have at most {1} characters")]
    TooLong(&'static str, usize),
    /// A NUL or another control character in a name.
    #[error("{0} must not contain control characters")]
    Control(&'static str),
    /// A number outside its range.
    #[error("{0} must be from {1} to {2}")]
    Range(&'static str, u32, u32),
    /// A seed that is not pairs of hexadecimal digits.
    #[error("seed is not hexadecimal")]
    Seed,
    /// A row hash that is not 16 lower-case hexadecimal digits.
    #[error("row hash must be 16 lower-case hexadecimal digits")]
    RowHash,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $label:literal, $limit:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Most characters that a name of this kind may have.
            pub const MAX_CHARS: usize = $limit;

            /// Trims `text` and checks it.
            ///
            /// # Errors
            /// Blank, longer than [`Self::MAX_CHARS`], or with a control character.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let text = text.trim();
                if text.is_empty() {
                    return Err(IdError::Blank($label));
                }
                if text.chars().count() > Self::MAX_CHARS {
                    return Err(IdError::TooLong($label, Self::MAX_CHARS));
                }
                if text.chars().any(char::is_control) {
                    return Err(IdError::Control($label));
                }
                Ok(Self(text.to_owned()))
            }

            /// The name as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

name_type!(
    /// A worker's name within its miner (worker-miner spec 7). Nothing proves it: it is bound to a connection.
    WorkerId, "worker_id", 256
);
name_type!(
    /// A challenge, which its worker calls a task; the validator issues UUID v4 texts.
    ChallengeId, "challenge_id", 128
);
name_type!(
    /// A GPU by the UUID text of its driver, for example `GPU-11111111-2222-3333-4444-555555555555`.
    GpuUuid, "GPU uuid", 128
);
name_type!(
    /// Correlates a request to a worker with its answer.
    MessageId, "message_id", 128
);

name_type!(
    /// A sealed session between two parties; the side that accepts the handshake issues UUID v4 texts.
    SessionId, "session_id", 128
);

macro_rules! random_names {
    ($($name:ident),*) => {$(
        impl $name {
            /// A fresh UUID v4 text from `rng`.
            #[must_use]
            pub fn random(rng: &mut impl RngCore) -> Self {
                let mut bytes = [0_u8; 16];
                rng.fill_bytes(&mut bytes);
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
            }
        }
    )*};
}
random_names!(ChallengeId, MessageId, SessionId);

/// What computed a result: the processor, or one GPU. On the wire `"-1"` or the GPU's UUID, as the field `uuid`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Unit {
    /// The processor, `"-1"`.
    Cpu,
    /// One GPU.
    Gpu(GpuUuid),
}

impl Unit {
    const CPU_TEXT: &'static str = "-1";

    /// The unit's text on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Cpu => Self::CPU_TEXT,
            Self::Gpu(uuid) => uuid.as_str(),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Unit {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let uuid = GpuUuid::new(text)?;
        Ok(if uuid.as_str() == Self::CPU_TEXT { Self::Cpu } else { Self::Gpu(uuid) })
    }
}

impl TryFrom<String> for Unit {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.as_str().to_owned()
    }
}

/// The seed of a challenge: a hexadecimal text and its bytes.
///
/// Both matter: the CPU generator starts from the bytes, the GPU generator and the signature from the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Seed {
    text: String,
    bytes: Vec<u8>,
}

impl Seed {
    /// Most characters of a seed's text; 32 are issued.
    pub const MAX_CHARS: usize = 256;

    /// A fresh seed of 16 bytes.
    #[must_use]
    pub fn random(rng: &mut impl RngCore) -> Self {
        let mut bytes = vec![0_u8; 16];
        rng.fill_bytes(&mut bytes);
        Self { text: hex::encode(&bytes), bytes }
    }

    /// The text as it travelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The bytes that the text stands for.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first four bytes (fewer if there are fewer, none gives 0) as a big-endian number: all that the CPU
    /// generator takes from a seed (worker-miner spec 4.2).
    #[must_use]
    pub fn first_word(&self) -> u32 {
        self.bytes.iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
    }
}

impl FromStr for Seed {
    type Err = IdError;

    /// Pairs of hexadecimal digits in either case, white space between the pairs allowed, as the reference reads it.
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() > Self::MAX_CHARS {
            return Err(IdError::TooLong("seed", Self::MAX_CHARS));
        }
        let mut bytes = Vec::with_capacity(text.len() / 2);
        for group in text.split_ascii_whitespace() {
            bytes.extend(hex::decode(group).map_err(|_| IdError::Seed)?);
        }
        Ok(Self { text: text.to_owned(), bytes })
    }
}

impl TryFrom<String> for Seed {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        seed.text
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The side n of the square matrices of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct MatrixSize(u32);

impl MatrixSize {
    /// Largest matrix of a CPU challenge: what a worker will allocate for (worker-miner spec 4.10).
    pub const MAX_CPU: u32 = 16_384;
    /// Largest matrix of any challenge: the GPU generator's indices have 16 bits (worker-miner spec 5.4).
    pub const MAX: u32 = 65_536;

    /// A size for any challenge.
    ///
    /// # Errors
    /// Outside 1 to [`Self::MAX`].
    pub fn new(size: u32) -> Result<Self, IdError> {
        Self::within(size, Self::MAX)
    }

    /// A size for a CPU challenge.
    ///
    /// # Errors
    /// Outside 1 to [`Self::MAX_CPU`].
    pub fn for_cpu(size: u32) -> Result<Self, IdError> {
        Self::within(size, Self::MAX_CPU)
    }

    fn within(size: u32, max: u32) -> Result<Self, IdError> {
        if (1..=max).contains(&size) { Ok(Self(size)) } else { Err(IdError::Range("matrix_size", 1, max)) }
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The number as an index bound.
    #[must_use]
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl TryFrom<u32> for MatrixSize {
    type Error = IdError;

    fn try_from(size: u32) -> Result<Self, IdError> {
        Self::new(size)
    }
}

impl From<MatrixSize> for u32 {
    fn from(size: MatrixSize) -> Self {
        size.0
    }
}

impl fmt::Display for MatrixSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often B is multiplied onto the CPU product, or the factor of the GPU product: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub struct Iterations(u32);

impl Iterations {
    /// Most iterations that a worker accepts (worker-miner spec 4.10).
    pub const MAX: u32 = 64;
    /// One iteration: what is issued, and what an absent field means.
    pub const ONE: Self = Self(1);

    /// A number of iterations.
    ///
    /// # Errors
    /// Outside 1 to [`Self::MAX`].
    pub fn new(iterations: u32) -> Result<Self, IdError> {
        if (1..=Self::MAX).contains(&iterations) {
            Ok(Self(iterations))
        } else {
            Err(IdError::Range("iterations", 1, Self::MAX))
        }
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Iterations {
    fn default() -> Self {
        Self::ONE
    }
}

impl TryFrom<u32> for Iterations {
    type Error = IdError;

    fn try_from(iterations: u32) -> Result<Self, IdError> {
        Self::new(iterations)
    }
}

impl From<Iterations> for u32 {
    fn from(iterations: Iterations) -> Self {
        iterations.0
    }
}

/// The hash of one row of a result: 64 bits, on the wire 16 lower-case hexadecimal digits, most significant first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RowHash(pub [u8; 8]);

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RowHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0_u8; 8];
        decode_lower_hex(text, &mut bytes).ok_or(IdError::RowHash)?;
        Ok(Self(bytes))
    }
}

/// Decodes lower-case hexadecimal digits that fill `bytes` exactly.
pub(crate) fn decode_lower_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, bytes).ok()
}

impl TryFrom<String> for RowHash {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<RowHash> for String {
    fn from(hash: RowHash) -> Self {
        hash.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_id_is_trimmed_and_never_blank_long_or_unprintable() {
        assert_eq!(WorkerId::new("  rack-2 ").unwrap().as_str(), "rack-2");
        assert_eq!(WorkerId::new(" \t"), Err(IdError::Blank("worker_id")));
        assert_eq!(WorkerId::new("a\0b"), Err(IdError::Control("worker_id")));
        assert!(WorkerId::new(&"é".repeat(256)).is_ok());
        assert_eq!(WorkerId::new(&"é".repeat(257)), Err(IdError::TooLong("worker_id", 256)));
    }

    #[test]
    fn minus_one_is_the_processor_and_anything_else_a_gpu() {
        assert_eq!("-1".parse(), Ok(Unit::Cpu));
        assert_eq!("GPU-1".parse::<Unit>().unwrap().to_string(), "GPU-1");
        assert!("".parse::<Unit>().is_err());
    }

    #[test]
    fn a_seed_keeps_its_text_and_gives_the_first_word() {
        let word = |text: &str| text.parse::<Seed>().map(|seed| seed.first_word());
        assert_eq!(word("00112233445566778899aabbccddeeff"), Ok(0x0011_2233));
        assert_eq!(word("AB CD ef01"), Ok(0xabcd_ef01));
        assert_eq!(word("07"), Ok(7));
        assert_eq!(word(""), Ok(0));
        for bad in ["0x11", "abc", "zz", "a bc d"] {
            assert_eq!(word(bad), Err(IdError::Seed));
        }
        assert_eq!("AB CD".parse::<Seed>().unwrap().as_str(), "AB CD");
    }

    #[test]
    fn sizes_and_iterations_have_bounds() {
        assert!(MatrixSize::new(0).is_err());
        assert!(MatrixSize::for_cpu(16_384).is_ok());
        assert!(MatrixSize::for_cpu(16_385).is_err());
        assert!(MatrixSize::new(65_536).is_ok());
        assert!(MatrixSize::new(65_537).is_err());
        assert!(Iterations::new(0).is_err());
        assert!(Iterations::new(64).is_ok());
        assert!(Iterations::new(65).is_err());
    }

    #[test]
    fn a_row_hash_is_sixteen_lower_case_digits() {
        assert_eq!("afae135667bd0972".parse::<RowHash>().unwrap().to_string(), "afae135667bd0972");
        for bad in ["AFAE135667BD0972", "afae135667bd097", "0xae135667bd0972", ""] {
            assert_eq!(bad.parse::<RowHash>(), Err(IdError::RowHash));
        }
    }
}
