//! What GPUs say: their numbers in a proof, their compute server's answers, and the proof as the database keeps it.

use std::fmt::Debug;

use byteleap_protocol::gpu_server::{
    Cleared, Coordinates, GpuInfo, LENGTH_BYTES, MAX_ANSWER_BYTES, Pong, Row, Rows, Submitted, answer_length,
    read_answer,
};
use byteleap_protocol::half::{Half, MAX_NUMBERS};
use byteleap_protocol::payload::ProofResponse;
use byteleap_protocol::{canonical, lenient};
use byteleap_validator::challenge::stored_proof::{pack, unpack};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A list of numbers. Straight from its text it reads as by a tree of values; each number is the nearest that two bytes can
/// hold, and whatever is no number of their range is none.
pub fn half_list(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let tree = lenient::parse(text).ok();
    let read = lenient::from_str::<Row>(text).ok();
    assert_eq!(read, tree.clone().and_then(|tree| serde_json::from_value(tree).ok()));
    let (Some(row), Some(Value::Array(items))) = (read, tree) else { return };
    assert_eq!(row.numbers.len(), items.len().min(MAX_NUMBERS));
    for (number, item) in row.numbers.iter().zip(&items) {
        match item.as_f64() {
            Some(exact) if exact.abs() < 65_520.0 => assert_nearest(*number, exact),
            Some(_) => assert_eq!(*number, Half::NAN),
            None => assert!(number.is_finite() || *number == Half::NAN, "{item}: {number:?}"),
        }
    }
    assert_eq!(serde_json::from_str::<Row>(&canonical::ascii(&row)).unwrap(), row);
}

fn assert_nearest(number: Half, exact: f64) {
    assert!(number.is_finite(), "{exact}");
    let distance = |bits: u16| (Half::from_bits(bits).to_f64() - exact).abs();
    let (bits, magnitude) = (number.to_bits(), number.to_bits() & 0x7fff);
    if magnitude > 0 {
        assert!(distance(bits) <= distance(bits - 1), "{exact} read as {number:?}");
    }
    if magnitude < 0x7bff {
        assert!(distance(bits) <= distance(bits + 1), "{exact} read as {number:?}");
    }
}

/// A proof in the database, then a proof as JSON. What can be read back was packed from the same proof, in no more memory than
/// its size allows.
pub fn stored_proof(bytes: &[u8]) {
    if let Ok(proofs) = unpack(bytes) {
        let numbers: usize = proofs.iter().map(|proof| proof.coordinate_values.len()).sum();
        assert!(numbers <= bytes.len(), "{numbers} numbers in {} bytes", bytes.len());
        assert_eq!(unpack(&pack(&proofs).unwrap()).unwrap(), proofs);
    }
    if let Ok(proofs) = serde_json::from_slice::<Vec<ProofResponse>>(bytes) {
        assert_eq!(unpack(&pack(&proofs).unwrap()).unwrap(), proofs);
    }
}

/// What a compute server answers, as the answer to each command, and as the length that comes before one.
pub fn gpu_server_answer(bytes: &[u8]) {
    if let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() {
        assert!(answer_length(*length).is_ok_and(|length| length <= MAX_ANSWER_BYTES as usize) || length[3] != 0);
    }
    answer::<Pong>(bytes);
    answer::<GpuInfo>(bytes);
    answer::<Submitted>(bytes);
    answer::<Coordinates>(bytes);
    answer::<Rows>(bytes);
    answer::<Cleared>(bytes);
}

/// An answer survives being written; a refusal is short, since the miner is told of it.
fn answer<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    match read_answer::<T>(bytes) {
        Ok(answer) => assert_eq!(read_answer::<T>(canonical::ascii(&answer).as_bytes()).unwrap(), answer),
        Err(error) => assert!(error.to_string().len() <= 1024, "{error}"),
    }
}
