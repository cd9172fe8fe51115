//! GPUs that the processor plays: for tests and local networks, where no card is at hand.
//!
//! It shares no arithmetic with [`crate::gpu`], the check that its results must pass: elements are drawn as 16-bit integers by
//! the short form of the generator, B is taken from A by swapping the rows of each pair, sums are exact integers, and these
//! are rounded to binary16 as integers (worker-miner spec 5.4, 5.5). It keeps no result: what is to be shown is computed again.

use std::sync::atomic::{AtomicBool, Ordering};

use byteleap_protocol::gpu_signature::{CommitmentSigner, HOST_KEY_FIELD};
use byteleap_protocol::half::Half;
use byteleap_protocol::id::{GpuUuid, RowHash, Unit};
use byteleap_protocol::merkle::MerkleTree;
use byteleap_protocol::payload::{Commitment, SignatureVersion};
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Committed, Device, EngineError, GpuEngine};
use crate::gpu::GpuChallenge;

/// Largest n that is computed: 128 MiB for the one matrix that is held.
pub const MAX_SIZE: usize = 8192;

/// Sums are in units of 2^-30: that many bits lie below the point.
const FRACTION_BITS: u32 = 30;

/// Bits of a sum below the unit of the smallest binary16, 2^-24.
const SUBNORMAL_SHIFT: u32 = FRACTION_BITS - 24;

/// The engine; its key signs what it commits to.
#[derive(Debug)]
pub struct SoftwareEngine {
    signer: CommitmentSigner,
    gpus: Vec<GpuUuid>,
}

impl SoftwareEngine {
    /// An engine of `count` GPUs, whose names follow from the key.
    #[must_use]
    pub fn new(signer: CommitmentSigner, count: usize) -> Self {
        let gpus = (0..count).filter_map(|index| name(&signer, index)).collect();
        Self::with_gpus(signer, gpus)
    }

    /// An engine of GPUs with these names.
    #[must_use]
    pub fn with_gpus(signer: CommitmentSigner, gpus: Vec<GpuUuid>) -> Self {
        Self { signer, gpus }
    }

    fn product<'a>(&self, challenge: &'a GpuChallenge, gpu: &GpuUuid) -> Result<Product<'a>, EngineError> {
        if challenge.size.as_usize() > MAX_SIZE {
            return Err(EngineError::Failed(format!("the software engine computes up to n = {MAX_SIZE}")));
        }
        if !self.gpus.contains(gpu) {
            return Err(EngineError::Gone);
        }
        Ok(Product::new(challenge, gpu))
    }

    fn commit(&self, challenge: &GpuChallenge, gpu: &GpuUuid, row_hashes: Vec<RowHash>) -> Option<Committed> {
        let merkle_root = MerkleTree::from_rows(&row_hashes)?.root();
        let commitment = Commitment {
            uuid: Unit::Gpu(gpu.clone()),
            merkle_root,
            sig_ver: SignatureVersion::P256,
            sig_val: Some(self.signer.sign(&challenge.seed, gpu, merkle_root)),
        };
        Some(Committed { commitment, row_hashes })
    }
}

/// The name of GPU number `index` of the host that holds this key.
fn name(signer: &CommitmentSigner, index: usize) -> Option<GpuUuid> {
    let digest = hex_digits(&Sha256::digest(format!("{}|{index}", signer.public_key()))[..16]);
    let parts = [&digest[..8], &digest[8..12], &digest[12..16], &digest[16..20], &digest[20..]];
    GpuUuid::new(&format!("GPU-{}", parts.join("-"))).ok()
}

fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl GpuEngine for SoftwareEngine {
    fn name(&self) -> &'static str {
        "software"
    }

    fn devices(&self) -> Result<Vec<Device>, EngineError> {
        let details = |uuid: &GpuUuid| {
            json!({
                "uuid": uuid,
                "name": "ByteLeap software engine",
                "architecture": "software",
                "total_memory": 0,
                "free_memory": 0,
                HOST_KEY_FIELD: self.signer.public_key().to_string(),
            })
        };
        let device = |uuid: &GpuUuid| match details(uuid) {
            Value::Object(details) => Some(Device { uuid: uuid.clone(), details }),
            _ => None,
        };
        Ok(self.gpus.iter().filter_map(device).collect())
    }

    fn submit(&self, challenge: &GpuChallenge, is_cancelled: &AtomicBool) -> Result<Vec<Committed>, EngineError> {
        let mut committed = Vec::with_capacity(self.gpus.len());
        for gpu in &self.gpus {
            let row_hashes = self.product(challenge, gpu)?.row_hashes(is_cancelled)?;
            committed.extend(self.commit(challenge, gpu, row_hashes));
        }
        Ok(committed)
    }

    fn open(
        &self,
        challenge: &GpuChallenge,
        gpu: &GpuUuid,
        rows: &[u32],
        coordinates: &[(u32, u32)],
    ) -> Result<Vec<Half>, EngineError> {
        let product = self.product(challenge, gpu)?;
        let mut shown: Vec<Half> =
            coordinates.iter().map(|(row, column)| product.element(*row as usize, *column as usize)).collect();
        shown.extend(rows.iter().flat_map(|row| product.row(*row as usize)));
        Ok(shown)
    }

    fn release(&self, _gpu: &GpuUuid) -> Result<(), EngineError> {
        Ok(())
    }
}

/// The product of one GPU.
struct Product<'a> {
    challenge: &'a GpuChallenge,
    size: usize,
    /// Row-major elements of A in units of 2^-15, with one more row where n is odd: row k of B is row k ^ 1 of these.
    elements: Vec<i16>,
}

impl<'a> Product<'a> {
    fn new(challenge: &'a GpuChallenge, gpu: &GpuUuid) -> Self {
        let size = challenge.size.as_usize();
        let digest = Sha256::digest([challenge.seed.as_str(), "|", gpu.as_str()].concat());
        let halves = digest[..8]
            .chunks_exact(4)
            .map(|half| half.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)));
        let seed = halves.fold(0, |seed, half: u32| seed ^ half);
        let mut elements = vec![0; size.next_multiple_of(2) * size];
        for (row, elements) in elements.chunks_exact_mut(size).enumerate() {
            for (column, place) in elements.iter_mut().enumerate() {
                *place = element(seed ^ row as u32 ^ (column as u32) << 16);
            }
        }
        Self { challenge, size, elements }
    }

    fn row_hashes(&self, is_cancelled: &AtomicBool) -> Result<Vec<RowHash>, EngineError> {
        let hash = |row| match is_cancelled.load(Ordering::Relaxed) {
            true => Err(EngineError::Cancelled),
            false => Ok(hash(&self.row(row))),
        };
        (0..self.size).into_par_iter().map(hash).collect()
    }

    fn row(&self, row: usize) -> Vec<Half> {
        let mut sums = vec![0_i64; self.size];
        for (weight, k) in self.a_row(row).iter().zip(0..) {
            for (sum, element) in sums.iter_mut().zip(self.b_row(k)) {
                *sum += i64::from(i32::from(*weight) * i32::from(*element));
            }
        }
        sums.into_iter().map(|sum| self.rounded(sum)).collect()
    }

    fn element(&self, row: usize, column: usize) -> Half {
        let terms = self.a_row(row).iter().enumerate();
        self.rounded(terms.map(|(k, weight)| i64::from(*weight) * i64::from(self.b_row(k)[column])).sum())
    }

    fn a_row(&self, row: usize) -> &[i16] {
        &self.elements[row * self.size..][..self.size]
    }

    fn b_row(&self, k: usize) -> &[i16] {
        self.a_row(k ^ 1)
    }

    fn rounded(&self, sum: i64) -> Half {
        round(sum * i64::from(self.challenge.iterations.get()))
    }
}

/// An element in units of 2^-15, by the lower half of the generator's last product alone.
fn element(word: u32) -> i16 {
    let hash = word.wrapping_mul(0x9e37_79b9).wrapping_add(0x85eb_ca6b);
    let low = ((hash as u16) ^ ((hash >> 16) as u16)).wrapping_mul(0xca6b);
    (low ^ 0x8000).cast_signed()
}

/// A sum in units of 2^-30, rounded to the nearest binary16, to the even one of two.
fn round(sum: i64) -> Half {
    let magnitude = sum.unsigned_abs();
    // Eleven bits are kept, as far as the smallest unit allows.
    let shift = (u64::BITS - magnitude.leading_zeros()).saturating_sub(11).max(SUBNORMAL_SHIFT);
    let (kept, rest, half) = (magnitude >> shift, magnitude & ((1 << shift) - 1), 1 << (shift - 1));
    let units = kept + u64::from(rest > half || (rest == half && kept & 1 == 1));
    let bits = (u64::from(shift - SUBNORMAL_SHIFT) << 10) + units;
    Half::from_bits(bits.min(0x7c00) as u16 | if sum < 0 { 0x8000 } else { 0 })
}

fn hash(row: &[Half]) -> RowHash {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for number in row {
        hash ^= u64::from(number.to_bits());
        hash = hash.wrapping_mul(0x100_0000_01b3);
    }
    RowHash(hash.to_be_bytes())
}
