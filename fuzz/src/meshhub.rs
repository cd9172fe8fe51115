//! The marketplace's wire: frames as they arrive, and the messages inside them.

use std::fmt::Debug;

use byteleap_protocol::meshhub::MessageType;
use byteleap_protocol::meshhub::frame::{Received, plain};
use byteleap_protocol::meshhub::handshake::{SessionInit, SessionInitResponse};
use byteleap_protocol::meshhub::order::{ConfigUpdate, LeasePublish, Order, TaskPublish, TokenResponse};
use byteleap_protocol::meshhub::report::{Ack, Heartbeat, Report, ResourceReport, ScoreReport, TokenRequest};
use byteleap_protocol::{canonical, lenient};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::synapse::fixed_session;

/// A text as either side meets it. What is plain is written and read again; what is sealed opens at most once, and never in
/// the direction that it came from.
pub fn meshhub_frame(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Received::parse(text) {
        Ok(Received::Init(init)) => again::<SessionInit>(MessageType::SessionInit, &init),
        Ok(Received::InitResponse(answer)) => again::<SessionInitResponse>(MessageType::SessionInitResponse, &answer),
        Ok(Received::Error(error)) => {
            let Ok(Received::Error(read)) = Received::parse(&plain(MessageType::Error, &error, 0)) else { panic!() };
            assert_eq!(read, error);
        }
        Ok(Received::Sealed(frame)) => {
            let (validator, hub) = fixed_session();
            if let Ok(message) = frame.open(&hub) {
                assert!(frame.open(&hub).is_err(), "opened twice");
                assert!(frame.open(&validator).is_err(), "opened in the wrong direction");
                let _ = Report::read(frame.kind, message);
            }
        }
        Ok(Received::Unknown(name)) => assert!(name.chars().count() <= 64 && !name.chars().any(char::is_control)),
        Err(error) => assert!(error.to_string().len() <= 256 && !error.reason().is_empty()),
    }
}

/// A message, read as each kind: what was read is written and read again as the same.
pub fn meshhub_message(bytes: &[u8]) {
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| lenient::parse(text).ok()) else { return };
    for kind in MessageType::ALL {
        let (order, report) = (Order::read(kind, value.clone()), Report::read(kind, value.clone()));
        assert!(order.is_err() || report.is_err(), "both sides send {kind}");
    }
    round_trip::<ConfigUpdate>(&value);
    round_trip::<TaskPublish>(&value);
    round_trip::<TokenResponse>(&value);
    round_trip::<Heartbeat>(&value);
    round_trip::<ResourceReport>(&value);
    round_trip::<ScoreReport>(&value);
    round_trip::<Ack>(&value);
    round_trip::<TokenRequest>(&value);
    if let Ok(publish) = serde_json::from_value::<LeasePublish>(value.clone()) {
        let read: LeasePublish = serde_json::from_value(lenient::parse(&canonical::sorted(&publish)).unwrap()).unwrap();
        let scores = |publish: &LeasePublish| -> Vec<(String, u64)> {
            publish.leases.iter().map(|lease| (lease.worker_key.to_string(), lease.score.to_bits())).collect()
        };
        // NaN is unequal to itself, and has many forms of which one is written.
        if publish.leases.iter().all(|lease| !lease.score.is_nan()) {
            assert_eq!(scores(&read), scores(&publish));
        }
    }
    if let Ok(update) = serde_json::from_value::<ConfigUpdate>(value) {
        let is_named = |name: &str| update.payload.keys().any(|key| name.starts_with(key.as_str()));
        assert!(update.leaves().iter().all(|(name, _)| is_named(name)));
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(kind: MessageType, data: &T) {
    let frame: Value = serde_json::from_str(&plain(kind, data, 0)).unwrap();
    assert_eq!(serde_json::from_value::<T>(frame["data"].clone()).unwrap(), *data);
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &Value) {
    if let Ok(message) = serde_json::from_value::<T>(value.clone()) {
        let read: T = serde_json::from_value(lenient::parse(&canonical::sorted(&message)).unwrap()).unwrap();
        assert_eq!(read, message);
    }
}
