//! The wire between a worker and the vendor's GPU compute server: one command per connection of a Unix socket, each way a
//! length and a JSON text (worker-miner spec 5.2, 5.3).
//!
//! Answers are read straight into what the worker keeps: rows of 34,406 numbers become two bytes a number.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::half::{self, Half};
use crate::id::{GpuUuid, Iterations, MatrixSize, RowHash, Seed};
use crate::{Object, canonical, lenient};

/// Characters that are told of why an answer cannot be read: the reason may quote the answer.
const MAX_REASON_CHARS: usize = 200;

/// Longest answer that is taken in, bytes.
pub const MAX_ANSWER_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes of a length: little-endian, unsigned.
pub const LENGTH_BYTES: usize = 4;

/// What the server is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Answered by [`Pong`].
    Ping,
    /// Answered by [`GpuInfo`].
    GetGpuInfo,
    /// Compute on all GPUs; answered by [`Submitted`] once it is done.
    SubmitChallenge {
        /// What to compute.
        task: Task,
    },
    /// Answered by [`Coordinates`].
    GetResultCoords {
        /// The GPU.
        gpu_uuid: GpuUuid,
        /// Row and column of each element.
        queries: Vec<(u32, u32)>,
    },
    /// Answered by [`Rows`].
    GetResultRows {
        /// The GPU.
        gpu_uuid: GpuUuid,
        /// The rows.
        row_indices: Vec<u32>,
    },
    /// Answered by [`Cleared`].
    ClearResultCache {
        /// The GPU; all of them where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu_uuid: Option<GpuUuid>,
    },
}

/// What to compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Where the matrices come from, as text.
    pub seed: Seed,
    /// -1: all GPUs.
    pub target_gpu_id: i32,
    /// Side of the matrices.
    pub matrix_size: MatrixSize,
    /// 0.
    pub mode: u32,
    /// Factor of the result.
    pub matrix_iterations: Iterations,
}

impl Task {
    /// A product on all GPUs.
    #[must_use]
    pub fn on_all_gpus(seed: Seed, matrix_size: MatrixSize, matrix_iterations: Iterations) -> Self {
        Self { seed, target_gpu_id: -1, matrix_size, mode: 0, matrix_iterations }
    }
}

impl Command {
    /// The command as it goes over the socket, length first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        framed(&canonical::ascii(self))
    }
}

/// A text with its length before it.
#[must_use]
pub fn framed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), text.as_bytes()].concat()
}

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// True from a server that works.
    #[serde(default, deserialize_with = "lenient::read")]
    pub pong: bool,
}

/// The server's GPUs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Whether it could look.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// One object per GPU with at least `uuid`; passed on unchanged.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub gpus: Vec<Object>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error: Option<String>,
}

/// A computed challenge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Whether it was computed.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// One per GPU.
    #[serde(default)]
    pub results: Vec<UnitResult>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error: Option<String>,
}

/// One GPU's part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitResult {
    /// The GPU; an entry without one is passed over.
    #[serde(default)]
    pub gpu_uuid: Option<GpuUuid>,
    /// Root over the row hashes, as text.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub merkle_root: String,
    /// Version of the signature.
    #[serde(default = "signature_version", deserialize_with = "lenient::read")]
    pub sig_ver: u8,
    /// The signature over seed, GPU and root.
    #[serde(default, deserialize_with = "lenient::read_or_default")]
    pub sig_val: String,
    /// The hash of every row; without them nothing can be opened later.
    #[serde(default)]
    pub row_hashes: Vec<RowHash>,
}

fn signature_version() -> u8 {
    1
}

/// Elements of a result, in the order asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coordinates {
    /// Whether the result is there.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// The elements.
    #[serde(default, deserialize_with = "half::read_list")]
    pub values: Vec<Half>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error: Option<String>,
}

/// Rows of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Whether the result is there.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// The rows by their index in decimal.
    #[serde(default)]
    pub rows: BTreeMap<String, Row>,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error: Option<String>,
}

/// The numbers of one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Row {
    /// In column order.
    #[serde(deserialize_with = "half::read_list")]
    pub numbers: Vec<Half>,
}

/// What was let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Whether it was.
    #[serde(default, deserialize_with = "lenient::read")]
    pub success: bool,
    /// Why not.
    #[serde(default, deserialize_with = "lenient::read")]
    pub error: Option<String>,
}

/// Why bytes of the socket are no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Longer than an answer may be.
    #[error("the answer is announced with {0} bytes, at most {MAX_ANSWER_BYTES} are taken in")]
    TooLong(u32),
    /// Not UTF-8, or not the JSON that the command is answered by.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// The length of the text that follows.
///
/// # Errors
/// It is longer than [`MAX_ANSWER_BYTES`].
pub fn answer_length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, AnswerError> {
    match u32::from_le_bytes(bytes) {
        length if length > MAX_ANSWER_BYTES => Err(AnswerError::TooLong(length)),
        length => Ok(length as usize),
    }
}

/// Reads an answer's text.
///
/// # Errors
/// It is not what the command is answered by.
pub fn read_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AnswerError> {
    let unreadable = |error: String| AnswerError::Unreadable(error.chars().take(MAX_REASON_CHARS).collect());
    let text = std::str::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
    lenient::from_str(text).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_arrive_as_they_were_computed(
            values in prop::collection::vec(any::<u16>(), 0..40), row in any::<u32>(), noise in ".{0,400}"
        ) {
            let numbers: Vec<_> = values.into_iter().map(Half::from_bits).filter(|half| half.is_finite()).collect();
            let coordinates = Coordinates { success: true, values: numbers.clone(), error: None };
            prop_assert_eq!(read_answer::<Coordinates>(canonical::ascii(&coordinates).as_bytes()).unwrap(), coordinates);
            let rows = Rows { success: true, rows: [(row.to_string(), Row { numbers })].into(), error: None };
            let text = canonical::ascii(&rows);
            prop_assert_eq!(read_answer::<Rows>(text.as_bytes()).unwrap(), rows);
            // Cut short or replaced, it is an error, and one that can be told.
            prop_assert!(read_answer::<Rows>(&text.as_bytes()[..text.len() - 1]).is_err());
            let quoted = serde_json::json!({ "values": noise }).to_string();
            let error = read_answer::<Coordinates>(quoted.as_bytes()).unwrap_err().to_string();
            prop_assert!(error.chars().count() <= MAX_REASON_CHARS + 40, "{}", error);
        }
    }

    /// A command's JSON as it goes over the socket.
    fn text(command: &Command) -> serde_json::Value {
        let bytes = command.to_bytes();
        let (length, text) = bytes.split_first_chunk().unwrap();
        assert_eq!(answer_length(*length).unwrap(), text.len());
        assert_eq!(serde_json::from_slice::<Command>(text).unwrap(), *command);
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn commands_are_written_as_the_specification_shows_them() {
        let gpu: GpuUuid = "GPU-11111111-2222-3333-4444-555555555555".parse().unwrap();
        let task = Task::on_all_gpus(
            "00112233445566778899aabbccddeeff".parse().unwrap(),
            MatrixSize::new(32_768).unwrap(),
            Iterations::ONE,
        );
        let shown = [
            (Command::Ping, r#"{"command":"ping"}"#),
            (Command::GetGpuInfo, r#"{"command":"get_gpu_info"}"#),
            (
                Command::SubmitChallenge { task },
                r#"{"command":"submit_challenge","task":{"seed":"00112233445566778899aabbccddeeff","target_gpu_id":-1,"matrix_size":32768,"mode":0,"matrix_iterations":1}}"#,
            ),
            (
                Command::GetResultCoords { gpu_uuid: gpu.clone(), queries: vec![(5, 17), (31, 32)] },
                r#"{"command":"get_result_coords","gpu_uuid":"GPU-11111111-2222-3333-4444-555555555555","queries":[[5,17],[31,32]]}"#,
            ),
            (
                Command::GetResultRows { gpu_uuid: gpu.clone(), row_indices: vec![2] },
                r#"{"command":"get_result_rows","gpu_uuid":"GPU-11111111-2222-3333-4444-555555555555","row_indices":[2]}"#,
            ),
            (Command::ClearResultCache { gpu_uuid: None }, r#"{"command":"clear_result_cache"}"#),
        ];
        for (command, expected) in shown {
            assert_eq!(text(&command), serde_json::from_str::<serde_json::Value>(expected).unwrap());
        }
    }

    #[test]
    fn answers_are_read_as_the_specification_shows_them() {
        let submitted: Submitted = read_answer(
            br#"{"success":true,"results":[{"gpu_uuid":"GPU-1","merkle_root":"4ff9fc2f67f66d1b","sig_val":"00","row_hashes":["4ff9fc2f67f66d1b"]},{}]}"#,
        )
        .unwrap();
        assert_eq!((submitted.results.len(), submitted.results[0].sig_ver), (2, 1));
        assert_eq!(submitted.results[1].gpu_uuid, None);
        let coordinates: Coordinates = read_answer(br#"{"success":true,"values":[-1.5,0.25,NaN]}"#).unwrap();
        assert_eq!(coordinates.values, [Half::from_f64(-1.5), Half::from_f64(0.25), Half::NAN]);
        let rows: Rows = read_answer(br#"{"success":true,"matrix_size":3,"rows":{"2":[0.5,-1.0,2.25]}}"#).unwrap();
        assert_eq!(rows.rows["2"].numbers, [0.5, -1.0, 2.25].map(Half::from_f64));
        assert!(read_answer::<Pong>(br#"{"pong":true}"#).unwrap().pong);
        let failed: Coordinates = read_answer(br#"{"success":false,"error":"no cached result"}"#).unwrap();
        assert_eq!((failed.success, failed.error.as_deref()), (false, Some("no cached result")));
    }

    #[test]
    fn an_answer_is_bounded_and_garbage_is_no_answer() {
        assert!(answer_length(MAX_ANSWER_BYTES.to_le_bytes()).is_ok());
        assert!(matches!(answer_length([0xff; 4]), Err(AnswerError::TooLong(u32::MAX))));
        for garbage in [&b"\xff"[..], b"", b"{", b"[]x", br#"{"pong":{}}"#] {
            assert!(read_answer::<Pong>(garbage).is_err());
        }
    }
}
