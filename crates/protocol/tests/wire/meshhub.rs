//! The marketplace's wire: what deployed peers seal is opened, what is forged, replayed or mislabelled is not.

use byteleap_protocol::hotkey::{Hotkey, Keypair, Signer};
use byteleap_protocol::meshhub::frame::{FrameError, HubError, Received, plain, seal};
use byteleap_protocol::meshhub::handshake::{
    AccessToken, Identity, Opening, OpeningError, SessionInitResponse, accept,
};
use byteleap_protocol::meshhub::order::{ConfigUpdate, LeaseEntry, LeasePublish, Order, RefusedLease, TaskPublish};
use byteleap_protocol::meshhub::report::{Ack, AckStatus, Heartbeat, Report, ResourceReport, ScoreReport, Statistics};
use byteleap_protocol::meshhub::{MeshWorker, MessageType};
use byteleap_protocol::session::{OpenError, ReceivedPackage, ReplayWindow, Session};
use byteleap_protocol::{canonical, lenient};
use proptest::prelude::*;
use rand_core::OsRng;
use serde_json::{Value, json};

const MINER: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

fn hub() -> Keypair {
    Keypair::from_seed(&[9; 32])
}

fn identity() -> Identity {
    Identity {
        hotkey: Keypair::from_seed(&[5; 32]).hotkey(),
        token: AccessToken::new("secret".to_owned()),
        version: "0.1.0".to_owned(),
        capabilities: vec!["challenge_validation".to_owned()],
    }
}

/// A session as both sides hold it: the validator's, the hub's.
fn sessions() -> (Session, Session) {
    let opening = Opening::new(&mut OsRng, &identity());
    let (answer, theirs) = accept(&mut OsRng, opening.init(), &hub()).unwrap();
    (opening.finish(&answer).unwrap(), theirs)
}

fn sealed(text: &str) -> byteleap_protocol::meshhub::frame::SealedFrame {
    match Received::parse(text) {
        Ok(Received::Sealed(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_frame_is_that_of_the_specification() {
    let opening = Opening::new(&mut OsRng, &identity());
    let text = plain(MessageType::SessionInit, opening.init(), 1_761_955_200_123);
    let frame: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&frame["type"], &frame["timestamp"]), (&json!("MESH_SESSION_INIT_V1"), &json!(1_761_955_200_123_i64)));
    let keys: Vec<&String> = frame["data"].as_object().unwrap().keys().collect();
    let mut expected =
        ["validatorHotkey", "accessToken", "clientVersion", "capabilities", "clientPublicKey", "clientNonce"];
    expected.sort_unstable();
    let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(frame["data"]["clientVersion"], "release-v0.1.0");
    let Ok(Received::Init(init)) = Received::parse(&text) else { panic!("{text}") };
    assert_eq!(*init, *opening.init());
    assert!(init.access_token.is("secret") && !init.access_token.is("secrets"));
    assert!(!format!("{init:?} {:?}", init.access_token).contains("secret"), "the token is not printed");
}

/// `session.json` was recorded from another implementation: the same keys and nonces under this wire's names give the same
/// session, byte for byte.
#[test]
fn the_session_is_that_of_the_recorded_handshakes() {
    for exchange in crate::session::vectors().sessions {
        let mut recorded =
            crate::session::Recorded::new([&exchange.miner_x25519_private_hex, &exchange.client_nonce_hex]);
        let opening = Opening::new(&mut recorded, &Identity { hotkey: exchange.miner_hotkey, ..identity() });
        let theirs =
            byteleap_protocol::session::SessionInitResponse::parse(&exchange.session_init_response_json).unwrap();
        let answer = SessionInitResponse {
            session_id: theirs.session_id,
            validator_ephemeral_public_key: theirs.validator_eph_pub32,
            server_nonce: theirs.server_nonce16,
            server_hotkey: exchange.validator_hotkey,
            server_signature: None,
        };
        let session = opening.finish(&answer).unwrap();
        for message in exchange.messages {
            let package = ReceivedPackage::parse(&message.package_json).unwrap();
            if message.direction == "client_to_server" {
                let sealed = session.outgoing().seal(message.seq, &message.synapse_type, &message.plaintext_json);
                assert_eq!(sealed.to_text(), message.package_json);
            } else {
                let (sequence, plaintext) = session.incoming().open(&package, &message.synapse_type).unwrap();
                assert_eq!(sequence, message.seq);
                assert_eq!(plaintext.read::<Value>().unwrap(), lenient::parse(&message.plaintext_json).unwrap());
            }
        }
    }
}

#[test]
fn a_sealed_message_carries_the_package_under_the_marketplaces_key_names() {
    let (validator, hub) = sessions();
    let heartbeat = Heartbeat {
        version: "release-v0.1.0".to_owned(),
        statistics: Statistics { uptime: 3_600_000, success_rate: 1.0, ..Statistics::default() },
    };
    let text = seal(&validator, MessageType::Heartbeat, &heartbeat, None, 7).unwrap();
    let frame: Value = serde_json::from_str(&text).unwrap();
    let package = &frame["encrypted"];
    assert_eq!((&package["version"], &package["sequence"]), (&json!("v1"), &json!(1)));
    assert_eq!(package["messageType"], "MESH_HEARTBEAT_V1");
    assert_eq!((&package["sender"], &package["recipient"]), (&json!(identity().hotkey), &json!(self::hub().hotkey())));
    // The same keys in the session's own names are what the miners' link carries, so its vectors speak for this wire.
    let renamed = json!({
        "ver": package["version"], "session_id": package["sessionId"], "seq": package["sequence"],
        "ciphertext": package["ciphertext"], "sender": package["sender"], "recipient": package["recipient"],
        "synapse_type": package["messageType"],
    });
    let package = ReceivedPackage::parse(&renamed.to_string()).unwrap();
    let (sequence, plaintext) = hub.incoming().open(&package, "MESH_HEARTBEAT_V1").unwrap();
    assert_eq!(sequence, 1);
    assert_eq!(Report::read(MessageType::Heartbeat, plaintext.read().unwrap()).unwrap(), Report::Heartbeat(heartbeat));
}

#[test]
fn each_number_is_taken_once_and_only_within_the_window() {
    let (validator, hub) = sessions();
    let text = seal(&hub, MessageType::LeasePublish, &LeasePublish::default(), None, 0).unwrap();
    assert!(sealed(&text).open(&validator).is_ok());
    let replayed = sealed(&text).open(&validator).unwrap_err();
    assert!(matches!(replayed, FrameError::Seal { source: OpenError::Sequence, .. }), "{replayed}");
    assert_eq!(replayed.reason(), "replay");

    let far = ReplayWindow::MAX_JUMP + 2;
    let package =
        hub.outgoing().seal(far, MessageType::LeasePublish.name(), &canonical::sorted(&LeasePublish::default()));
    let frame = json!({ "type": "MESH_LEASE_PUBLISH_V1", "timestamp": 0, "encrypted": {
        "version": package.ver, "sessionId": package.session_id, "sequence": package.seq,
        "ciphertext": package.ciphertext, "sender": package.sender, "recipient": package.recipient,
        "messageType": package.synapse_type,
    }});
    assert_eq!(sealed(&frame.to_string()).open(&validator).unwrap_err().reason(), "replay");
}

#[test]
fn the_outer_type_is_the_sealed_one_or_the_frame_is_refused() {
    let (validator, hub) = sessions();
    let text = seal(&hub, MessageType::LeasePublish, &LeasePublish::default(), Some("m1"), 0).unwrap();
    assert_eq!(sealed(&text).message_id.as_deref(), Some("m1"));
    let mut frame: Value = serde_json::from_str(&text).unwrap();
    frame["type"] = json!("MESH_CONFIG_UPDATE_V1");
    assert_eq!(sealed(&frame.to_string()).open(&validator).unwrap_err().reason(), "mismatch");
    // Renaming both breaks the seal, which binds the type.
    frame["encrypted"]["messageType"] = json!("MESH_CONFIG_UPDATE_V1");
    assert_eq!(sealed(&frame.to_string()).open(&validator).unwrap_err().reason(), "forged");
    frame.as_object_mut().unwrap().remove("encrypted");
    assert!(matches!(Received::parse(&frame.to_string()), Err(FrameError::Plain(MessageType::ConfigUpdate))));
}

#[test]
fn who_signs_as_another_opens_no_session() {
    let opening = Opening::new(&mut OsRng, &identity());
    let (mut answer, _) = accept(&mut OsRng, opening.init(), &hub()).unwrap();
    let other = Keypair::from_seed(&[8; 32]).hotkey();
    answer.server_hotkey = other;
    assert_eq!(opening.finish(&answer).unwrap_err(), OpeningError::Forged(other));

    // The deployed marketplace signs nothing; that is for whoever pinned it to judge.
    let opening = Opening::new(&mut OsRng, &identity());
    let (mut answer, _) = accept(&mut OsRng, opening.init(), &hub()).unwrap();
    answer.server_signature = None;
    assert_eq!(opening.finish(&answer).unwrap().peer(), hub().hotkey());
}

#[test]
fn leases_are_read_one_by_one_and_what_is_none_is_told() {
    let text = format!(
        r#"{{"workerScores":[{{"workerKey":"{MINER}:w-01","score":0.8}},{{"workerKey":"{MINER}:w:2","score":"0.25"}},
            {{"workerKey":"{MINER}:w-03","score":Infinity}},{{"workerKey":"{MINER}:w-04","score":-1}},
            {{"workerKey":"w-05","score":1}},{{"workerKey":"{MINER}:w-06","score":null}},7]}}"#
    );
    let Ok(Order::Leases(publish)) = Order::read(MessageType::LeasePublish, lenient::parse(&text).unwrap()) else {
        panic!("{text}")
    };
    let scores: Vec<(String, f64)> =
        publish.leases.iter().map(|lease| (lease.worker_key.worker_id.to_string(), lease.score)).collect();
    let expected = [("w-01", 0.8), ("w:2", 0.25), ("w-03", f64::INFINITY), ("w-04", -1.0)]
        .map(|(id, score)| (id.to_owned(), score));
    assert_eq!(scores, expected);
    assert_eq!(publish.refused, [RefusedLease::Worker, RefusedLease::Score, RefusedLease::Worker]);
    assert!(Order::read(MessageType::LeasePublish, json!({ "workerScores": 1 })).is_err());
    assert!(Order::read(MessageType::Heartbeat, json!({})).is_err(), "no marketplace sends heartbeats");
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let leases = json!({"workerScores": [{"workerKey": format!("{MINER}:w-01"), "score": 0.8}]});
    let worker: MeshWorker = format!("{MINER}:w-01").parse().unwrap();
    assert_eq!(
        Order::read(MessageType::LeasePublish, leases.clone()).unwrap(),
        Order::Leases(LeasePublish { leases: vec![LeaseEntry { worker_key: worker, score: 0.8 }], refused: vec![] })
    );
    let update = json!({"payload": {"validation": {"challenge_interval": 300, "gpu": {"matrix_size": 16384}}}});
    let update: ConfigUpdate = serde_json::from_value(update).unwrap();
    assert_eq!(
        update.leaves(),
        [
            ("validation.challenge_interval".to_owned(), json!(300)),
            ("validation.gpu.matrix_size".to_owned(), json!(16384))
        ]
    );
    let task: TaskPublish =
        serde_json::from_value(json!({"taskKey": "task-1", "workerKey": "x", "priority": 5, "ttl": 60000})).unwrap();
    assert_eq!((task.task_type.as_str(), task.priority, task.ttl), ("vm_creation", 5, Some(60_000)));
    let report = json!({"mode": "full", "miners": [{"hotkey": MINER, "status": "ACTIVE", "version": "0.0.9", "workers": [{
        "workerKey": format!("{MINER}:w-01"), "workerId": "w-01", "workerName": "rack-1", "status": "ACTIVE",
        "version": "0.0.6", "capabilities": ["cpu_matrix"], "leaseScore": 0.0, "lastSeenAt": "2025-11-01T00:00:00+00:00",
        "stats": {"avg_cpu_usage": 5.0, "avg_memory_usage": 7.0, "avg_storage_usage": null}, "uptimeSeconds": 86400,
        "network": {"public_ip": "203.0.113.4"}, "os_info": {},
        "hardware": {"cpu": {}, "memory": {}, "storage": [], "gpus": [{"uuid": "GPU-1"}], "mb_info": {}}}]}]});
    let read: ResourceReport = serde_json::from_value(report.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), report, "written as it was read");
    let scores: ScoreReport = serde_json::from_value(json!({"minerScores": [{"hotkey": MINER, "weight": 0.5}],
        "effectiveAt": null, "timestamp": "2025-11-01T00:00:00Z", "version": "1.0"}))
    .unwrap();
    assert_eq!(serde_json::to_value(&scores).unwrap()["effectiveAt"], Value::Null);
    let ack = Ack {
        message_id: "m".to_owned(),
        message_type: MessageType::ConfigUpdate.name().to_owned(),
        status: AckStatus::Failed,
        metadata: byteleap_protocol::Object::new(),
    };
    assert_eq!(
        serde_json::to_value(&ack).unwrap(),
        json!({"messageId": "m", "messageType": "MESH_CONFIG_UPDATE_V1", "status": "failed", "metadata": {}})
    );
}

#[test]
fn an_error_is_understood_wherever_its_code_stands() {
    for (text, code, ends) in [
        (r#"{"type":"MESH_ERROR_V1","data":{"code":4001,"message":"no"}}"#, 4001, false),
        (r#"{"type":"MESH_ERROR_V1","code":"4020","error":"no"}"#, 4020, true),
        (r#"{"type":"MESH_ERROR_V1","data":{"errorCode":4011}}"#, 4011, true),
        (r#"{"type":"MESH_ERROR_V1"}"#, 0, false),
    ] {
        let Ok(Received::Error(error)) = Received::parse(text) else { panic!("{text}") };
        assert_eq!((error.code, error.ends_session()), (code, ends), "{text}");
    }
    let long = plain(MessageType::Error, &HubError { code: 1, message: "x".repeat(9999) }, 0);
    let Ok(Received::Error(error)) = Received::parse(&long) else { panic!("{long}") };
    assert_eq!(error.message.len(), HubError::MAX_MESSAGE_CHARS);
}

#[test]
fn every_type_has_its_own_name() {
    for kind in MessageType::ALL {
        assert_eq!(MessageType::from_name(kind.name()), Some(kind));
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in ".*") {
        let _ = Received::parse(&text);
    }

    #[test]
    fn any_frame_with_a_known_type_is_taken_or_refused(kind in 0..MessageType::ALL.len(), rest in ".{0,64}", number: i64) {
        let (validator, _) = sessions();
        let text = json!({ "type": MessageType::ALL[kind].name(), "data": { rest.as_str(): number },
                           "encrypted": { "sessionId": validator.id(), "sequence": number, "ciphertext": rest } });
        if let Ok(Received::Sealed(frame)) = Received::parse(&text.to_string()) {
            prop_assert!(frame.open(&validator).is_err());
        }
    }

    #[test]
    fn leases_survive_the_way(entries in proptest::collection::vec((any::<[u8; 32]>(), "[a-z:]{1,20}", 0.0..1e9_f64), 0..20)) {
        let leases = entries.into_iter().map(|(hotkey, id, score)| LeaseEntry {
            worker_key: MeshWorker { hotkey: Hotkey(hotkey), worker_id: id.parse().unwrap() },
            score,
        });
        let publish = LeasePublish { leases: leases.collect(), refused: vec![] };
        let (validator, hub) = sessions();
        let text = seal(&hub, MessageType::LeasePublish, &publish, None, 0).unwrap();
        let opened = sealed(&text).open(&validator).unwrap();
        prop_assert_eq!(Order::read(MessageType::LeasePublish, opened).unwrap(), Order::Leases(publish));
    }
}
