//! From a row of a GPU's result to a leaf of its Merkle tree (worker-miner spec 5.5).

use byteleap_protocol::half::Half;
use byteleap_protocol::id::RowHash;

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The hash of one row: FNV-1a of 64 bits over the bit patterns of its numbers, each taken as one unit.
#[must_use]
pub fn row_hash(row: &[Half]) -> RowHash {
    let hash = row.iter().fold(OFFSET_BASIS, |hash, number| (hash ^ u64::from(number.to_bits())).wrapping_mul(PRIME));
    RowHash(hash.to_be_bytes())
}
