//! A proof as it waits for its verdict in the database: what is short as JSON, a GPU's numbers as they are, two bytes each.
//!
//! Eight GPUs show 825,000 numbers: 8 MB of JSON, 1.7 MB here. The layout is one byte of version, four bytes of length of the
//! JSON (little-endian), the JSON, and then the numbers of every unit in its order, little-endian. A body that begins with `[` is
//! JSON as a whole, as former versions wrote it.

use byteleap_protocol::half::Half;
use byteleap_protocol::payload::ProofResponse;
use serde::{Deserialize, Serialize};

/// The first byte of the layout.
const VERSION: u8 = 1;
/// The version and the length of the JSON.
const HEAD_BYTES: usize = 5;
/// Of one number.
const NUMBER_BYTES: usize = 2;

/// Why a stored proof cannot be read back: it is damaged, or another program wrote it.
#[derive(Debug, thiserror::Error)]
pub enum StoredProofError {
    /// Its JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Everything else.
    #[error("it is cut short, or of a newer version")]
    Layout,
}

/// A unit without its numbers.
#[derive(Serialize, Deserialize)]
struct Short {
    proof: ProofResponse,
    numbers: usize,
}

/// What is stored of a proof.
///
/// # Errors
/// It has no JSON, which a proof that was read has.
pub fn pack(proofs: &[ProofResponse]) -> Result<Vec<u8>, StoredProofError> {
    let short: Vec<Short> = proofs.iter().map(without_numbers).collect();
    let json = serde_json::to_vec(&short)?;
    let length = u32::try_from(json.len()).map_err(|_| StoredProofError::Layout)?;
    let numbers: usize = short.iter().map(|unit| unit.numbers).sum();
    let mut body = Vec::with_capacity(HEAD_BYTES + json.len() + NUMBER_BYTES * numbers);
    body.push(VERSION);
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&json);
    for number in proofs.iter().flat_map(|proof| &proof.coordinate_values) {
        body.extend_from_slice(&number.to_bits().to_le_bytes());
    }
    Ok(body)
}

/// The proof that was stored.
///
/// # Errors
/// It cannot be read.
pub fn unpack(body: &[u8]) -> Result<Vec<ProofResponse>, StoredProofError> {
    if body.starts_with(b"[") {
        return Ok(serde_json::from_slice(body)?);
    }
    let [VERSION, l0, l1, l2, l3, rest @ ..] = body else { return Err(StoredProofError::Layout) };
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    let (json, rest) = rest.split_at_checked(length).ok_or(StoredProofError::Layout)?;
    let short: Vec<Short> = serde_json::from_slice(json)?;
    let (pairs, odd) = rest.as_chunks::<NUMBER_BYTES>();
    let mut numbers = pairs.iter().map(|pair| Half::from_bits(u16::from_le_bytes(*pair)));
    let mut proofs = Vec::with_capacity(short.len());
    for Short { mut proof, numbers: count } in short {
        if count > numbers.len() {
            return Err(StoredProofError::Layout);
        }
        proof.coordinate_values = numbers.by_ref().take(count).collect();
        proofs.push(proof);
    }
    if odd.is_empty() && numbers.len() == 0 { Ok(proofs) } else { Err(StoredProofError::Layout) }
}

fn without_numbers(proof: &ProofResponse) -> Short {
    let ProofResponse { uuid, row_hashes, merkle_proofs, coordinate_values } = proof;
    let proof = ProofResponse {
        uuid: uuid.clone(),
        row_hashes: row_hashes.clone(),
        merkle_proofs: merkle_proofs.clone(),
        coordinate_values: Vec::new(),
    };
    Short { proof, numbers: coordinate_values.len() }
}

#[cfg(test)]
mod tests {
    use byteleap_protocol::id::RowHash;
    use proptest::prelude::*;

    use super::*;

    fn proof(uuid: &str, bits: Vec<u16>) -> ProofResponse {
        ProofResponse {
            uuid: uuid.parse().unwrap(),
            row_hashes: vec![RowHash([7; 8])],
            merkle_proofs: Vec::new(),
            coordinate_values: bits.into_iter().map(Half::from_bits).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_proof_survives_its_storage(
            one in prop::collection::vec(any::<u16>(), 0..50), two in prop::collection::vec(any::<u16>(), 0..50)
        ) {
            let proofs = [proof("GPU-1", one), proof("GPU-2", two), proof("-1", Vec::new())];
            prop_assert_eq!(unpack(&pack(&proofs).unwrap()).unwrap(), proofs);
        }

        #[test]
        fn a_damaged_body_is_an_error_and_no_panic(
            cut in 0..80_usize, at in 0..80_usize, byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let mut body = pack(&[proof("GPU-1", vec![1, 2, 3])]).unwrap();
            prop_assert!(unpack(&body[..body.len() - 1 - cut.min(body.len() - 1)]).is_err());
            let at = at.min(body.len() - 1);
            body[at] = byte;
            let _ = unpack(&body);
            let _ = unpack(&noise);
        }
    }

    #[test]
    fn a_body_of_a_former_version_is_read() {
        let proofs = [proof("-1", Vec::new())];
        assert_eq!(unpack(&serde_json::to_vec(&proofs).unwrap()).unwrap(), proofs);
    }
}
