//! Every message of a VM gateway session round-trips, and the specification's examples are understood.

use byteleap_protocol::Object;
use byteleap_protocol::gateway::{
    Announcement, CertRenewRequest, CertRenewal, EnrolmentAnswer, EnrolmentRequest, GatewayError, GatewayMessage,
    Heartbeat, Hello, Load, Nonce, OperationOutcome, OperationReply, OperationResult, OperationType, Ready,
    StatsMetrics, StatsRequest, StatsResponse, VmOperation, WorkerMessage,
};
use byteleap_protocol::id::WorkerId;
use proptest::prelude::*;
use serde_json::Value;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}".prop_map(|text| text.trim().to_owned())
}

fn pem() -> impl Strategy<Value = String> {
    "[A-Za-z0-9+/ \n-]{0,40}"
}

fn worker_id() -> impl Strategy<Value = WorkerId> {
    "[0-9a-f]{16}".prop_map(|text| WorkerId::new(&text).unwrap())
}

fn nonce() -> impl Strategy<Value = Nonce> {
    any::<[u8; 16]>().prop_map(Nonce)
}

fn object() -> impl Strategy<Value = Object> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        text().prop_map(Value::from)
    ];
    prop::collection::btree_map("x_[a-z]{1,6}", value, 0..4).prop_map(|map| map.into_iter().collect())
}

fn load() -> impl Strategy<Value = Load> {
    (0.0..=100.0_f64, 0.0..=100.0_f64, any::<u32>()).prop_map(
        |(cpu_usage_percent, memory_usage_percent, active_vms)| Load {
            cpu_usage_percent,
            memory_usage_percent,
            active_vms,
        },
    )
}

fn operation() -> impl Strategy<Value = OperationType> {
    let known = prop::sample::select(vec![
        OperationType::CreateVm,
        OperationType::TurnOnVm,
        OperationType::TurnOffVm,
        OperationType::RebootVm,
        OperationType::DestroyVm,
        OperationType::MonitorVmStats,
        OperationType::CreateSshKey,
        OperationType::RevokeSshKey,
        OperationType::ConnectHeadscale,
    ]);
    let unsupported = "X_[A-Z0-9_]{1,20}_REQUEST_V1".prop_map(|name| name.parse().unwrap());
    prop_oneof![known, unsupported]
}

fn result() -> impl Strategy<Value = OperationResult> {
    (prop::option::of(text()), text(), prop::option::of(text()), object())
        .prop_map(|(worker_id, task_id, vm_id, details)| OperationResult { worker_id, task_id, vm_id, details })
}

fn worker_message() -> impl Strategy<Value = WorkerMessage> {
    let hello = (worker_id(), text(), prop::collection::vec(text(), 0..3), any::<i64>(), nonce()).prop_map(
        |(worker_id, worker_version, capabilities, start_time_s, nonce)| {
            WorkerMessage::Hello(Hello { worker_id, worker_version, capabilities, start_time_s, nonce })
        },
    );
    let heartbeat = (any::<u64>(), load(), object()).prop_map(|(uptime_ms, metrics, metadata)| {
        WorkerMessage::Heartbeat(Heartbeat { uptime_ms, metrics, metadata })
    });
    let stats = (text(), text(), any::<u64>(), load()).prop_map(|(message_id, responded_at, uptime_ms, load)| {
        WorkerMessage::StatsResponse(StatsResponse {
            message_id,
            responded_at,
            metrics: StatsMetrics { uptime_ms, load },
        })
    });
    let renewal = (worker_id(), text(), pem()).prop_map(|(worker_id, current_cert_serial, csr_pem)| {
        WorkerMessage::CertRenewRequest(CertRenewRequest { worker_id, current_cert_serial, csr_pem })
    });
    let done = (result(), 0.0..1e9_f64)
        .prop_map(|(result, execution_time_ms)| OperationOutcome::Done { result, execution_time_ms });
    let failed =
        (prop::option::of(result()), text()).prop_map(|(result, error)| OperationOutcome::Failed { result, error });
    let reply = (operation(), prop_oneof![done, failed])
        .prop_map(|(operation, outcome)| WorkerMessage::OperationReply(OperationReply { operation, outcome }));
    prop_oneof![hello, heartbeat, stats, renewal, reply]
}

fn gateway_message() -> impl Strategy<Value = GatewayMessage> {
    let accepted = (nonce(), prop::option::of(text()), prop::option::of(any::<i64>())).prop_map(
        |(nonce_echo, session_id, heartbeat_interval_ms)| {
            GatewayMessage::Ready(Ready::Accepted { nonce_echo, session_id, heartbeat_interval_ms })
        },
    );
    let issued = (pem(), text()).prop_map(|(device_cert_pem, expires_at)| {
        GatewayMessage::CertRenewResponse(CertRenewal::Issued { device_cert_pem, expires_at })
    });
    let operation = (operation(), object()).prop_map(|(operation_type, parameters)| {
        GatewayMessage::VmOperation(VmOperation { operation_type, parameters })
    });
    prop_oneof![
        accepted,
        text().prop_map(|error| GatewayMessage::Ready(Ready::Refused { error })),
        text().prop_map(|message_id| GatewayMessage::StatsRequest(StatsRequest { message_id })),
        text().prop_map(|message| GatewayMessage::Announcement(Announcement { message })),
        issued,
        text().prop_map(|error| GatewayMessage::CertRenewResponse(CertRenewal::Refused { error })),
        operation,
    ]
}

proptest! {
    #[test]
    fn every_message_of_a_worker_to_its_gateway_round_trips(message in worker_message()) {
        prop_assert_eq!(WorkerMessage::decode(message.encode().as_bytes()).unwrap(), message);
    }

    #[test]
    fn every_message_of_a_gateway_round_trips(message in gateway_message()) {
        prop_assert_eq!(GatewayMessage::decode(message.encode().as_bytes()).unwrap(), message);
    }

    #[test]
    fn every_enrolment_round_trips(
        worker_id in worker_id(), worker_name in prop::option::of(text()), worker_version in text(),
        capabilities in prop::collection::vec(text(), 0..3), csr_pem in pem(), metadata in object(),
        device_cert_pem in pem(), expires_at in text(), cert_serial in prop::option::of(text()),
    ) {
        let answer = EnrolmentAnswer {
            device_cert_pem,
            ca_bundle: csr_pem.clone(),
            ws_url: worker_version.clone(),
            expires_at,
            cert_serial,
        };
        prop_assert_eq!(EnrolmentAnswer::decode(answer.encode().as_bytes()).unwrap(), answer);
        let request = EnrolmentRequest { worker_id, worker_name, worker_version, capabilities, csr_pem, metadata };
        prop_assert_eq!(EnrolmentRequest::decode(request.encode().as_bytes()).unwrap(), request);
    }

    #[test]
    fn no_bytes_make_a_gateway_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = WorkerMessage::decode(&bytes);
        let _ = GatewayMessage::decode(&bytes);
    }

    #[test]
    fn no_change_to_a_gateway_message_makes_a_decoder_panic(
        message in gateway_message(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = message.encode().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = GatewayMessage::decode(&bytes);
    }
}

#[test]
fn the_specification_s_messages_to_the_gateway_are_understood() {
    for text in [
        r#"{"type":"HELLO_V1","data":{"workerId":"09442c31e75402e3","workerVersion":"0.0.5","capabilities":["cpu_matrix","gpu_matrix"],"startTime":1767225600,"nonce":"3q2+7wAAAAAAAAAAAAAAAA=="}}"#,
        r#"{"type":"HEARTBEAT_V1","data":{"uptime":120000,"metrics":{"cpu_usage":12.5,"memory_usage":40.1,"active_vms":1},"metadata":{"cpu_count":64}}}"#,
        r#"{"type":"STATS_RESPONSE_V1","data":{"messageId":"q-17","respondedAt":"2026-01-01T00:02:00.125000+00:00","metrics":{"uptime":120350,"cpu_usage":12.5,"memory_usage":40.1,"active_vms":1}}}"#,
        r#"{"type":"CERT_RENEW_REQUEST_V1","data":{"workerId":"09442c31e75402e3","currentCertSerial":"5f0a91c2","csrPem":"-----BEGIN CERTIFICATE REQUEST-----\n..."}}"#,
        r#"{"type":"TURNON_VM_RESPONSE_V1","data":{"success":true,"result":{"worker_id":"09442c31e75402e3","task_id":"t-42","vm_id":"7a0c9c0e-3c67-4b6f-9f52-0d2f1be0a001","vm_status":"running"},"execution_time":812.4}}"#,
        r#"{"type":"TURNON_VM_RESPONSE_V1","data":{"success":false,"result":{"worker_id":"09442c31e75402e3","task_id":"t-42","vm_id":"7a0c9c0e-3c67-4b6f-9f52-0d2f1be0a001"},"error":"GPU 0000:c1:00.0 is in use by another virtual machine"}}"#,
        r#"{"type":"MONITOR_VM_STATS_RESPONSE_V1","data":{"success":true,"result":{"task_id":"t-50","vm_id":"7a0c9c0e-3c67-4b6f-9f52-0d2f1be0a001","vm_name":"vm_t-42","vm_status":"running","vm_system_info":{"cpu_count":16,"cpu_usage":3.2}},"execution_time":41.0}}"#,
        r#"{"type":"CREATE_SSHKEY_RESPONSE_V1","data":{"success":true,"result":{"worker_id":"09442c31e75402e3","task_id":"t-51","vm_id":"7a0c9c0e-3c67-4b6f-9f52-0d2f1be0a001","key_purpose":"login","public_key":null},"execution_time":62.5}}"#,
    ] {
        let message = WorkerMessage::decode(text.as_bytes()).unwrap();
        assert_eq!(written(&message.encode()), written(text));
    }
}

#[test]
fn the_specification_s_messages_from_the_gateway_are_understood() {
    for text in [
        r#"{"type":"READY_V1","data":{"accepted":true,"nonceEcho":"3q2+7wAAAAAAAAAAAAAAAA==","sessionId":"s-81f2","heartbeatInterval":30000}}"#,
        r#"{"type":"READY_V1","data":{"accepted":false,"error":"worker is not leased to this gateway"}}"#,
        r#"{"type":"STATS_REQUEST_V1","data":{"messageId":"q-17"}}"#,
        r#"{"type":"ANNOUNCEMENT_V1","data":{"message":"maintenance at 02:00 UTC"}}"#,
        r#"{"type":"CERT_RENEW_RESPONSE_V1","data":{"success":true,"deviceCertPem":"-----BEGIN CERTIFICATE-----\n...","expiresAt":"2026-12-01T08:00:00Z"}}"#,
        r#"{"type":"CERT_RENEW_RESPONSE_V1","data":{"success":false,"error":"serial unknown"}}"#,
        r#"{"type":"VM_OPERATION_V1","data":{"operation_type":"TURNON_VM_REQUEST_V1","data":{"task_id":"t-42","worker_id":"09442c31e75402e3","vm_id":"7a0c9c0e-3c67-4b6f-9f52-0d2f1be0a001"}}}"#,
    ] {
        let message = GatewayMessage::decode(text.as_bytes()).unwrap();
        assert_eq!(written(&message.encode()), written(text));
    }
}

#[test]
fn the_specification_s_enrolment_is_understood() {
    let request = r#"{"workerId":"09442c31e75402e3","workerName":"rack7-n3","workerVersion":"0.0.5","capabilities":["cpu_matrix"],"csrPem":"-----BEGIN CERTIFICATE REQUEST-----\nMIHV...\n-----END CERTIFICATE REQUEST-----\n","metadata":{"cpu_count":64,"memory_total":515072,"gpu_info":[{"id":0,"name":"NVIDIA GeForce RTX 4090 (24GB)","memory_total":0,"vendor":"NVIDIA","type":"discrete","uuid":"0000:c1:00.0"}]}}"#;
    assert_eq!(written(&EnrolmentRequest::decode(request.as_bytes()).unwrap().encode()), written(request));
    let answer = r#"{"deviceCertPem":"-----BEGIN CERTIFICATE-----\n...","caBundle":"-----BEGIN CERTIFICATE-----\n...","expiresAt":"2026-06-01T08:00:00Z","wsUrl":"wss://vmgw.example:8443/worker","certSerial":"5f0a91c2"}"#;
    assert_eq!(written(&EnrolmentAnswer::decode(answer.as_bytes()).unwrap().encode()), written(answer));
}

#[test]
fn what_is_no_message_of_a_direction_is_told_apart() {
    let from = |text: &str| GatewayMessage::decode(text.as_bytes()).unwrap_err();
    assert_eq!(from("hello"), GatewayError::NotJson);
    assert_eq!(from("[]"), GatewayError::NotAnObject);
    assert_eq!(from(r#"{"type":7}"#), GatewayError::UnknownType(String::new()));
    assert_eq!(from(r#"{"type":"HELLO_V1","data":{}}"#), GatewayError::UnknownType("HELLO_V1".to_owned()));
    assert!(matches!(WorkerMessage::decode(br#"{"type":"READY_V1"}"#), Err(GatewayError::UnknownType(_))));
}

fn written(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
