//! The messages themselves: frames between worker and miner, payloads between miner and validator.

use std::fmt::Debug;

use byteleap_protocol::challenge::{ChallengeData, ChallengeItem, ChallengeKind};
use byteleap_protocol::feedback::{MAX_VALIDATORS, MAX_WORKERS, MinerFeedback, Relayed};
use byteleap_protocol::frame::{FrameError, HeartbeatReport, MinerFrame, WorkerFrame};
use byteleap_protocol::payload::{
    CommitmentData, CommitmentResponse, ErrorAnswer, HeartbeatData, HeartbeatResponse, ProofData, ProofReceipt,
    SystemInfo, TaskRequest, TaskResponse, TokenRecord, TokenRequest, read_answer,
};
use byteleap_protocol::{canonical, lenient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A message of a worker, as a miner reads it.
pub fn worker_frame(bytes: &[u8]) {
    match WorkerFrame::decode(bytes) {
        Ok(frame) => {
            let again = WorkerFrame::decode(frame.encode().as_bytes()).unwrap();
            assert_eq!(again.encode(), frame.encode());
            assert_eq!(again, frame);
            if let WorkerFrame::TaskResult(result) = &frame {
                let _ = result.data.challenge_result();
            }
        }
        Err(error) => check_refusal(&error),
    }
}

/// A heartbeat, as a miner looks at it: it sees what the decoder reads. What the decoder refuses it may take, where it does
/// not look; the host's data are refused when they are read, then.
pub fn heartbeat_report(bytes: &[u8]) {
    let Some(report) = HeartbeatReport::glance(bytes) else { return };
    let host = report.system_info.read();
    match WorkerFrame::decode(bytes) {
        Ok(WorkerFrame::Heartbeat { data }) => {
            assert_eq!(host.unwrap(), data.system_info);
            assert_eq!((report.active_tasks, report.capabilities), (data.active_tasks, data.capabilities));
        }
        Ok(other) => panic!("a glance takes {other:?} for a heartbeat"),
        Err(error) => check_refusal(&error),
    }
}

/// A message of a miner, as a worker reads it.
pub fn miner_frame(bytes: &[u8]) {
    match MinerFrame::decode(bytes) {
        Ok(frame) => {
            assert_eq!(MinerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
            if let MinerFrame::TaskAssignment { data } = &frame
                && let Some(kind) = data.kind()
            {
                definition(kind, &data.data);
            }
        }
        Err(error) => check_refusal(&error),
    }
}

/// What a session carries, read as each kind of payload.
pub fn payload(bytes: &[u8]) {
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok()) else { return };
    if let Some(mut heartbeat) = read::<HeartbeatData>(&value) {
        let again = reread(&heartbeat);
        // Entries that could not be read are not sent on.
        heartbeat.workers.unreadable.clear();
        assert_eq!(again, heartbeat);
    }
    round_trip::<HeartbeatResponse>(&value);
    round_trip::<SystemInfo>(&value);
    round_trip::<TaskRequest>(&value);
    round_trip::<ChallengeItem>(&value);
    round_trip::<CommitmentData>(&value);
    round_trip::<CommitmentResponse>(&value);
    round_trip::<ProofReceipt>(&value);
    round_trip::<TokenRequest>(&value);
    round_trip::<TokenRecord>(&value);
    round_trip::<ErrorAnswer>(&value);
    if let Some(batch) = read::<TaskResponse>(&value) {
        // Items that did not fit are not sent on.
        assert_eq!(reread(&batch), TaskResponse { refused_items: 0, ..batch });
    }
    round_trip::<ProofData>(&value);
    if let Value::Object(object) = &value {
        definition(ChallengeKind::CpuMatrix, object);
        definition(ChallengeKind::GpuMatrix, object);
    }
    let _ = read_answer::<CommitmentResponse>(value);
}

/// What a validator tells of workers, whatever it is: read, shown and passed on.
pub fn feedback(bytes: &[u8]) {
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok()) else { return };
    let told: MinerFeedback = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(reread(&told), told);
    assert!(told.workers.len() <= MAX_WORKERS);
    let lines = told.workers.iter().flat_map(|worker| {
        [worker.lease_line(0), worker.verdict_line(i64::MAX), worker.score_line(i64::MIN), worker.turn_line(0)]
    });
    for line in lines.chain(told.score.iter().map(|score| score.line(0))) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let relayed: Relayed = serde_json::from_value(value).unwrap();
    assert_eq!(reread(&relayed), relayed);
    assert!(relayed.validators.len() <= MAX_VALIDATORS);
}

/// A challenge's definition survives being written.
fn definition(kind: ChallengeKind, object: &byteleap_protocol::Object) {
    if let Ok(data) = ChallengeData::parse(kind, object) {
        assert_eq!(ChallengeData::parse(kind, &data.to_object()).unwrap(), data);
    }
}

/// A refusal is short, whatever was refused.
fn check_refusal(error: &FrameError) {
    assert!(error.to_string().len() <= 1024, "{error}");
    let _ = error.close_code();
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn reread<T: Serialize + DeserializeOwned>(payload: &T) -> T {
    serde_json::from_value(lenient::parse(&canonical::sorted(payload)).unwrap()).unwrap()
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &Value) {
    if let Some(payload) = read::<T>(value) {
        assert_eq!(reread(&payload), payload);
    }
}
