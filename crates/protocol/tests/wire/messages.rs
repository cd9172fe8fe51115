//! Every message round-trips, the specification's examples are understood, and no bytes make a decoder panic.

use byteleap_protocol::challenge::{ChallengeItem, ChallengeKind, TimeoutSeconds};
use byteleap_protocol::frame::{
    ChallengeResult, MinerFrame, ProofAnswer, ProofQuery, Register, TaskAssignment, TaskOutcome, TaskResult,
    TaskTimestamps, TokenAnswer, WorkerFrame, WorkerHeartbeat,
};
use byteleap_protocol::half::Half;
use byteleap_protocol::hotkey::Hotkey;
use byteleap_protocol::id::{ChallengeId, GpuUuid, MessageId, RowHash, Unit, WorkerId};
use byteleap_protocol::join::JoinSecret;
use byteleap_protocol::merkle::{MerkleProof, MerkleTree, NodeHash};
use byteleap_protocol::payload::{
    AnswerError, ChallengeTimestamps, Commitment, CommitmentData, CommitmentResponse, HeartbeatData, HeartbeatResponse,
    ProofData, ProofReceipt, ProofRequest, ProofResponse, SCHEMA_VERSION, SignatureVersion, SystemInfo, TaskRequest,
    TaskResponse, TokenRecord, TokenRequest, WorkerInfo, WorkerStatus, read_answer,
};
use byteleap_protocol::worker_key::{KeyProof, KeySignature, WorkerKey};
use byteleap_protocol::{Object, canonical, lenient};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::feedback::{miner_feedback, relayed};
use crate::tables::misfit;

// Building blocks.

/// A text that survives trimming.
fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}".prop_map(|text| text.trim().to_owned())
}

pub(crate) fn name<T: std::str::FromStr + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9é/ -]{1,20}".prop_filter_map("blank", |text| text.parse().ok())
}

fn seconds() -> impl Strategy<Value = f64> {
    0.0..4e9_f64
}

fn object() -> impl Strategy<Value = Object> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300_f64).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Value::from));
    prop::collection::vec(("[a-z_]{1,8}", value), 0..4)
        .prop_map(|entries| entries.into_iter().map(|(key, value)| (format!("x_{key}"), value)).collect())
}

pub(crate) fn hotkey() -> impl Strategy<Value = Hotkey> {
    any::<[u8; 32]>().prop_map(Hotkey)
}

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![Just(Unit::Cpu), "GPU-[0-9a-f]{8}".prop_map(|uuid| Unit::Gpu(GpuUuid::new(&uuid).unwrap()))]
}

fn node() -> impl Strategy<Value = NodeHash> {
    prop_oneof![
        any::<[u8; 8]>().prop_map(|bytes| NodeHash::Row(RowHash(bytes))),
        any::<[u8; 32]>().prop_map(NodeHash::Inner)
    ]
}

fn commitment() -> impl Strategy<Value = Commitment> {
    let version = prop_oneof![Just(SignatureVersion::Unsigned), Just(SignatureVersion::P256)];
    (unit(), node(), version, prop::option::of(text())).prop_map(|(uuid, merkle_root, sig_ver, sig_val)| Commitment {
        uuid,
        merkle_root,
        sig_ver,
        sig_val,
    })
}

fn proof_request() -> impl Strategy<Value = ProofRequest> {
    (unit(), prop::collection::vec(any::<u32>(), 1..5), prop::collection::vec(any::<(u32, u32)>(), 0..4))
        .prop_map(|(uuid, rows, coordinates)| ProofRequest { uuid, rows, coordinates })
}

fn merkle_proof() -> impl Strategy<Value = MerkleProof> {
    (1_usize..20, any::<prop::sample::Index>()).prop_map(|(count, index)| {
        let rows: Vec<_> = (0..count).map(|row| RowHash([u8::try_from(row).unwrap(); 8])).collect();
        MerkleTree::from_rows(&rows).unwrap().open(index.index(count)).unwrap()
    })
}

fn proof_response() -> impl Strategy<Value = ProofResponse> {
    (
        unit(),
        prop::collection::vec(any::<[u8; 8]>().prop_map(RowHash), 0..4),
        prop::collection::vec(merkle_proof(), 0..3),
        prop::collection::vec((-6e4..6e4_f64).prop_map(Half::from_f64), 0..5),
    )
        .prop_map(|(uuid, row_hashes, merkle_proofs, coordinate_values)| ProofResponse {
            uuid,
            row_hashes,
            merkle_proofs,
            coordinate_values,
        })
}

fn system_info() -> impl Strategy<Value = SystemInfo> {
    (any::<u16>(), 0.0..100.0_f64, prop::collection::vec(object(), 0..3), prop::option::of(text()), object()).prop_map(
        |(count, usage, gpus, public_ip, other)| SystemInfo {
            cpu_count: count.into(),
            cpu_usage: usage,
            gpu_info: gpus.clone(),
            gpu_plugin: gpus,
            public_ip,
            cpu_info: Some(other.clone()),
            uptime_seconds: Some(usage),
            other,
            ..SystemInfo::default()
        },
    )
}

fn kind() -> impl Strategy<Value = ChallengeKind> {
    prop_oneof![Just(ChallengeKind::CpuMatrix), Just(ChallengeKind::GpuMatrix)]
}

// Frames.

fn task_outcome() -> impl Strategy<Value = TaskOutcome> {
    let completed =
        (prop::collection::vec(commitment(), 1..3), any::<(u32, u32)>()).prop_map(|(commitments, (from, to))| {
            let result = ChallengeResult { computation_time_ms: 1.5, matrix_size: 8, commitments };
            let timestamps =
                TaskTimestamps { worker_task_received_ts: from.into(), worker_task_completed_ts: to.into() };
            TaskOutcome::completed(&result, timestamps)
        });
    prop_oneof![completed, text().prop_map(TaskOutcome::failed)]
}

fn identity() -> impl Strategy<Value = KeyProof> {
    let join_secret = "[0-9a-f]{64}".prop_map(|digits| JoinSecret::try_from(digits).unwrap());
    (any::<[u8; 32]>(), any::<[u8; 64]>(), prop::option::of(join_secret)).prop_map(
        |(public_key, signature, join_secret)| KeyProof {
            public_key: WorkerKey(public_key),
            signature: KeySignature(signature),
            join_secret,
        },
    )
}

fn worker_frame() -> impl Strategy<Value = WorkerFrame> {
    let version = "[0-9.]{1,8}";
    let described = (name(), prop::option::of(text()), version, prop::collection::vec(text(), 0..3), object());
    let register = (described, prop::option::of(identity())).prop_map(
        |((worker_id, worker_name, worker_version, capabilities, system_info), identity)| {
            WorkerFrame::Register(Register {
                worker_id,
                worker_name,
                worker_version,
                capabilities,
                system_info,
                identity,
            })
        },
    );
    let heartbeat = (
        prop::option::of(text()),
        prop::option::of(any::<i64>()),
        object(),
        prop::option::of(object()),
        prop::option::of(prop::collection::vec(text(), 0..3)),
    )
        .prop_map(|(status, active_tasks, system_info, gpu_info, capabilities)| WorkerFrame::Heartbeat {
            data: WorkerHeartbeat { status, active_tasks, system_info, gpu_info, capabilities },
        });
    let result = (text(), name(), seconds(), task_outcome()).prop_map(|(worker_id, task_id, timestamp, data)| {
        WorkerFrame::TaskResult(TaskResult { worker_id, task_id, timestamp, data })
    });
    let proof =
        (name(), prop::collection::vec(proof_response(), 0..3), any::<u32>()).prop_map(|(message_id, proofs, at)| {
            WorkerFrame::ProofResponse { message_id, data: ProofAnswer::opened(proofs, at.into(), i64::from(at) + 1) }
        });
    let no_proof = (name(), text())
        .prop_map(|(message_id, error)| WorkerFrame::ProofResponse { message_id, data: ProofAnswer::failed(error) });
    let token = name().prop_map(|worker_id| WorkerFrame::VmgwEnrollTokenRequest { data: TokenRequest { worker_id } });
    let answer = (name(), seconds(), prop::option::of(name())).prop_map(|(worker_id, timestamp, message_id)| {
        WorkerFrame::HeartbeatResponse { worker_id, timestamp, message_id }
    });
    prop_oneof![register, heartbeat, result, proof, no_proof, token, answer]
}

fn miner_frame() -> impl Strategy<Value = MinerFrame> {
    let assignment = (name::<ChallengeId>(), kind(), object(), 1_u16..=300, hotkey()).prop_map(
        |(task_id, kind, data, timeout, hotkey)| MinerFrame::TaskAssignment {
            data: TaskAssignment {
                challenge_id: Some(task_id.clone()),
                task_id,
                task_type: kind.to_string(),
                data,
                timeout: Some(TimeoutSeconds::new(timeout).unwrap()),
                validator_hotkey: Some(hotkey),
            },
        },
    );
    let proof = (name(), hotkey(), name(), prop::collection::vec(proof_request(), 1..3)).prop_map(
        |(message_id, validator_hotkey, challenge_id, requests)| MinerFrame::ProofRequest {
            message_id,
            data: ProofQuery { validator_hotkey, challenge_id, requests },
        },
    );
    let token = (any::<u16>(), prop::option::of(text()), prop::option::of(text())).prop_map(|(code, token, error)| {
        MinerFrame::VmgwEnrollTokenResponse {
            data: TokenAnswer { code: code.into(), token, error, ..TokenAnswer::default() },
        }
    });
    prop_oneof![
        Just(MinerFrame::RegistrationAck { data: Default::default() }),
        Just(MinerFrame::HeartbeatAck),
        assignment,
        proof,
        token,
        prop::option::of(name::<MessageId>()).prop_map(|message_id| MinerFrame::HeartbeatRequest { message_id }),
        relayed().prop_map(|data| MinerFrame::Feedback { data }),
    ]
}

// Payloads.

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &T) -> Result<(), TestCaseError> {
    let read: T = serde_json::from_value(lenient::parse(&canonical::sorted(payload)).unwrap())
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&read, payload);
    Ok(())
}

proptest! {
    #[test]
    fn every_frame_of_a_worker_round_trips(frame in worker_frame()) {
        prop_assert_eq!(WorkerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
    }

    #[test]
    fn every_frame_of_a_miner_round_trips(frame in miner_frame()) {
        prop_assert_eq!(MinerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
    }

    #[test]
    fn whatever_a_worker_sends_fits_the_tables_of_the_specification(frame in worker_frame()) {
        prop_assert_eq!(misfit(&frame.encode()), None);
    }

    #[test]
    fn whatever_a_miner_sends_fits_the_tables_of_the_specification(frame in miner_frame()) {
        prop_assert_eq!(misfit(&frame.encode()), None);
    }

    #[test]
    fn every_heartbeat_round_trips(
        worker_id in name::<WorkerId>(), label in text(), info in system_info(), at in seconds(), hotkey in hotkey(),
        feedback in prop::option::of(miner_feedback()),
    ) {
        let worker = WorkerInfo {
            worker_id,
            worker_name: Some(label.clone()),
            worker_version: None,
            capabilities: vec![label.clone()],
            status: WorkerStatus::Busy,
            system_info: info.clone(),
            connected_at: at,
            last_heartbeat: at,
        };
        round_trip(&HeartbeatData {
            hotkey: hotkey.to_string(),
            timestamp: at,
            workers: vec![worker].into(),
            miner_info: Some(info),
            schema_version: SCHEMA_VERSION,
        })?;
        round_trip(&HeartbeatResponse {
            error_code: 0,
            message: label,
            workers_processed: 1,
            timestamp: at,
            request_id: None,
            schema_version: SCHEMA_VERSION,
            feedback,
        })?;
    }

    #[test]
    fn every_poll_and_batch_round_trips(
        challenge_id in name(), challenge_type in kind(), data in object(), timeout in 1_u16..=300,
        target_worker_id in prop::option::of(name()), timestamp in seconds(), hotkey in hotkey(), count in 0_usize..3,
    ) {
        let timeout = TimeoutSeconds::new(timeout).unwrap();
        let item = ChallengeItem { challenge_id, challenge_type, data, timeout, target_worker_id };
        round_trip(&TaskRequest::new(hotkey, timestamp))?;
        round_trip(&TaskResponse { challenges: vec![item; count], refused_items: 0, timestamp })?;
    }

    #[test]
    fn every_commitment_and_proof_round_trips(
        challenge_id in name::<ChallengeId>(), worker_id in name(), message in text(),
        commitments in prop::collection::vec(commitment(), 0..3),
        requests in prop::collection::vec(proof_request(), 0..3),
        proofs in prop::collection::vec(proof_response(), 0..3),
    ) {
        let timestamps = ChallengeTimestamps { miner_task_received_ts: Some(7), ..ChallengeTimestamps::default() };
        let debug_info = timestamps.to_debug_info();
        round_trip(&CommitmentData {
            challenge_id: challenge_id.clone(),
            worker_id,
            commitments,
            debug_info: debug_info.clone(),
            schema_version: SCHEMA_VERSION,
        })?;
        round_trip(&CommitmentResponse { proof_requests: requests })?;
        round_trip(&ProofData { challenge_id: challenge_id.clone(), proofs, debug_info, schema_version: SCHEMA_VERSION })?;
        round_trip(&ProofReceipt { challenge_status: "queued".to_owned(), message, challenge_id })?;
    }

    #[test]
    fn every_token_record_round_trips(worker_id in name::<WorkerId>(), token in prop::option::of(text()), code in any::<u16>()) {
        round_trip(&TokenRequest { worker_id: worker_id.clone() })?;
        round_trip(&TokenRecord { worker_id: worker_id.to_string(), code: code.into(), token, ..TokenRecord::default() })?;
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = WorkerFrame::decode(&bytes);
        let _ = MinerFrame::decode(&bytes);
    }

    #[test]
    fn no_change_to_a_frame_makes_a_decoder_panic(frame in worker_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = frame.encode().into_bytes();
        let at = at.index(message.len());
        message[at] = byte;
        let _ = WorkerFrame::decode(&message);
    }
}

#[test]
fn the_specification_s_worker_messages_are_understood() {
    for text in [
        r#"{"type":"register","worker_id":"09442c31e75402e3","worker_name":"rack2-node7","worker_version":"0.0.5","capabilities":["cpu_matrix","gpu_matrix"],"system_info":{"cpu_count":64,"cpu_usage":3.1,"memory_total":257566,"memory_available":249120,"memory_usage":3.3}}"#,
        r#"{"type":"heartbeat","data":{"status":"online","active_tasks":0,"system_info":{"cpu_count":64,"memory_total":257566,"gpu_info":[],"public_ip":"203.0.113.9"},"gpu_info":{"gpu_available":true,"gpu_count":1},"capabilities":["cpu_matrix","gpu_matrix"]}}"#,
        r#"{"type":"heartbeat_response","worker_id":"09442c31e75402e3","timestamp":1760000000.5,"message_id":"6f1c"}"#,
        r#"{"type":"task_result","worker_id":"09442c31e75402e3","task_id":"0d3f5c1e-58a4-4e0b-9a70-0c9c5f0f3a11","timestamp":1760000003.75,"data":{"success":true,"error_code":0,"result":{"computation_time_ms":2210.4,"matrix_size":8,"commitments":[{"uuid":"-1","merkle_root":"0d21c2f3f0b63dbcbdae90f5de76c2653d05ade71620891104d4fbce303a0201","sig_ver":0,"sig_val":""}]},"timestamps":{"worker_task_received_ts":1760000001000,"worker_task_completed_ts":1760000003700}}}"#,
        r#"{"type":"task_result","worker_id":"09442c31e75402e3","task_id":"0d3f5c1e-58a4-4e0b-9a70-0c9c5f0f3a11","timestamp":1760000003.75,"data":{"success":false,"error_code":1006,"error":"seed is not hexadecimal","result":{}}}"#,
        r#"{"type":"proof_response","message_id":"f161f6fd-b3c2-47d0-9014-696b9af6f371","data":{"success":true,"proofs":[{"uuid":"-1","row_hashes":["afae135667bd0972"],"merkle_proofs":[{"leaf_index":0,"leaf_hash":"afae135667bd0972","proof_hashes":["a2c22a7de14819df","48ce84c776dcae8ba2385f6a1b7247c4d53508214ca61b2c08f4744bc16e26dc","d001d77e2e2cbd53354af9ea3e39a8ecc1ec0caa09ca19ea17c26d46f86ddfbc"],"proof_directions":[true,true,true]}],"coordinate_values":[]}],"debug":{"phase2_timestamps":{"worker_proof_request_received_ts":1760000004000,"worker_proof_completed_ts":1760000004012}}}}"#,
        r#"{"type":"proof_response","message_id":"f161f6fd-b3c2-47d0-9014-696b9af6f371","data":{"success":false,"error":"no cached result for this validator"}}"#,
        r#"{"type":"vmgw_enroll_token_request","data":{"worker_id":"09442c31e75402e3"}}"#,
    ] {
        let frame = WorkerFrame::decode(text.as_bytes()).unwrap();
        assert_eq!(WorkerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
    }
}

#[test]
fn the_specification_s_miner_messages_are_understood() {
    for text in [
        r#"{"type":"registration_ack","data":{"status":"registered"}}"#,
        r#"{"type":"heartbeat_ack"}"#,
        r#"{"type":"heartbeat_request","message_id":"6f1c"}"#,
        r#"{"type":"task_assignment","data":{"task_id":"0d3f5c1e-58a4-4e0b-9a70-0c9c5f0f3a11","task_type":"cpu_matrix","challenge_id":"0d3f5c1e-58a4-4e0b-9a70-0c9c5f0f3a11","data":{"challenge_type":"cpu_matrix","matrix_size":1958,"seed":"00112233445566778899aabbccddeeff","iterations":1},"timeout":60,"validator_hotkey":"5Fpfx4iDtrrY99VGkQnLXASytC2y9Z3o8KUyTtD4w7o5SZcA"}}"#,
        r#"{"type":"proof_request","message_id":"f161f6fd","data":{"validator_hotkey":"5Fpfx4iDtrrY99VGkQnLXASytC2y9Z3o8KUyTtD4w7o5SZcA","challenge_id":"0d3f5c1e","requests":[{"uuid":"-1","rows":[0],"coordinates":null}]}}"#,
        r#"{"type":"vmgw_enroll_token_response","data":{"code":0,"token":"eyJh...","expires_at":"2026-01-01T00:00:00Z","enrollment_url":"https://gw.example/enroll"}}"#,
        r#"{"type":"vmgw_enroll_token_response","data":{"code":1002,"error":"worker_id mismatch"}}"#,
    ] {
        let frame = MinerFrame::decode(text.as_bytes()).unwrap();
        assert_eq!(MinerFrame::decode(frame.encode().as_bytes()).unwrap(), frame);
    }
}

#[test]
fn an_item_that_does_not_fit_does_not_cost_the_batch() {
    let item = json!({"challenge_id": "c", "challenge_type": "cpu_matrix", "data": {}});
    let batch = json!({"task_type": "compute_challenge_batch", "task_data": {"challenges": [5, item, {}]}});
    let batch: TaskResponse = serde_json::from_value(batch).unwrap();
    assert_eq!((batch.challenges.len(), batch.refused_items), (1, 2));
}

#[test]
fn a_value_that_is_not_finite_is_a_failed_value_and_no_reason_to_refuse_the_proof() {
    let text = r#"{"uuid":"GPU-1","row_hashes":[],"merkle_proofs":[],"coordinate_values":[1, NaN, -Infinity]}"#;
    let proof: ProofResponse = serde_json::from_value(lenient::parse(text).unwrap()).unwrap();
    assert_eq!(proof.coordinate_values.iter().filter(|value| value.is_finite()).count(), 1);
}

#[test]
fn a_refusal_inside_an_answer_is_told_from_an_answer() {
    let refused = read_answer::<CommitmentResponse>(json!({"error": "already processed"}));
    assert!(matches!(refused, Err(AnswerError::Refused(answer)) if answer.error == "already processed"));
    assert!(read_answer::<CommitmentResponse>(json!({"proof_requests": []})).is_ok());
    assert!(matches!(read_answer::<CommitmentResponse>(json!({})), Err(AnswerError::Schema(_))));
}

#[test]
fn a_bad_entry_of_a_heartbeat_costs_the_others_nothing() {
    let data =
        json!({ "hotkey": "x", "workers": [{ "worker_id": "a" }, { "worker_id": 7.5 }, "b", { "worker_id": "c" }] });
    let data: HeartbeatData = serde_json::from_value(data).unwrap();
    let ids: Vec<_> = data.workers.iter().map(|worker| worker.worker_id.as_str()).collect();
    assert_eq!(ids, ["a", "c"]);
    assert_eq!(data.workers.unreadable.len(), 2);
    assert_eq!(data.workers.unreadable[1].raw, json!("b"));
    assert!(serde_json::from_value::<HeartbeatData>(json!({ "hotkey": "x", "workers": 7 })).is_err());
}
