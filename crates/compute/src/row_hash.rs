//! From a row of C to a leaf of the Merkle tree (worker-miner spec 4.6).

use byteleap_protocol::id::RowHash;
use sha2::{Digest, Sha256};

use crate::kernel;

/// Elements that are turned into bytes at a time, on the stack.
const ELEMENTS_AT_ONCE: usize = 256;

/// The hash of one row: SHA-256 over its elements, 8 bytes little-endian each, cut to the first eight bytes.
pub fn row_hash(row: &[i64]) -> RowHash {
    let mut hasher = Sha256::new();
    let mut bytes = [0; 8 * ELEMENTS_AT_ONCE];
    for elements in row.chunks(ELEMENTS_AT_ONCE) {
        for (place, element) in bytes.chunks_exact_mut(8).zip(elements) {
            place.copy_from_slice(&element.to_le_bytes());
        }
        hasher.update(&bytes[..8 * elements.len()]);
    }
    let digest = hasher.finalize();
    RowHash(std::array::from_fn(|byte| digest[byte]))
}

/// The hashes of all rows of a part of C, two rows at a time where the processor can.
pub fn row_hashes(rows: &[i64], size: usize, hashes: &mut [RowHash]) {
    for (pair, hashes) in rows.chunks(2 * size).zip(hashes.chunks_mut(2)) {
        let (one, other) = pair.split_at(size);
        let both = if other.is_empty() { None } else { kernel::hash_heads([one, other]) };
        if let Some(heads) = both {
            hashes.copy_from_slice(&heads.map(RowHash));
        } else {
            for (hash, row) in hashes.iter_mut().zip(pair.chunks_exact(size)) {
                *hash = row_hash(row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_rows_at_a_time_have_the_hashes_that_each_has_alone(
            size in 1..70_usize,
            count in 1..6_usize,
            elements in prop::collection::vec(any::<i64>(), 350),
        ) {
            let rows = &elements[..count * size];
            let mut hashes = vec![RowHash([0; 8]); count];
            row_hashes(rows, size, &mut hashes);
            let alone: Vec<RowHash> = rows.chunks_exact(size).map(row_hash).collect();
            prop_assert_eq!(hashes, alone);
        }
    }

    #[test]
    fn a_row_hash_is_the_head_of_sha256_over_little_endian_elements() {
        let row: Vec<i64> = (-300..300).map(|element| element * 1_000_003).collect();
        let bytes: Vec<u8> = row.iter().flat_map(|element| element.to_le_bytes()).collect();
        assert_eq!(row_hash(&row).0, Sha256::digest(&bytes)[..8]);
    }
}
