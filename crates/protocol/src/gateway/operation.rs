//! What a gateway wants done to a virtual machine, and the one reply to it (vm-and-gpu-host spec 2.1 to 2.3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::reason;
use crate::Object;
use crate::lenient::{self, Lenient as _};

/// Something to be done to a virtual machine.
///
/// Its parameters are read by whoever carries it out, since even an unusable request is owed its one reply.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct VmOperation {
    /// What.
    pub operation_type: OperationType,
    /// `task_id`, `worker_id` and the parameters of vm-and-gpu-host spec 2.2, unchecked.
    #[serde(rename = "data", default, deserialize_with = "object_or_nothing")]
    pub parameters: Object,
}

fn object_or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
    Value::deserialize(deserializer).map(|value| Object::read(value).unwrap_or_default())
}

/// Passwords and keys are among the parameters: only their names are shown.
impl fmt::Debug for VmOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.parameters.keys().collect();
        f.debug_struct("VmOperation").field("operation_type", &self.operation_type).field("parameters", &names).finish()
    }
}

/// What can be asked of a virtual machine (vm-and-gpu-host spec 2.1); on the wire `CREATE_VM_REQUEST_V1` and the like.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum OperationType {
    /// Disk, seed, definition, start.
    CreateVm,
    /// Start.
    TurnOnVm,
    /// Graceful, then forced.
    TurnOffVm,
    /// Reboot.
    RebootVm,
    /// Power off and forget, disk and all.
    DestroyVm,
    /// State and figures.
    MonitorVmStats,
    /// Add a key in the guest.
    CreateSshKey,
    /// Remove a key in the guest.
    RevokeSshKey,
    /// Join the overlay network.
    ConnectHeadscale,
    /// One that this version does not know; it is owed a reply all the same.
    Unsupported(UnsupportedOperation),
}

/// The name of an unknown operation, without `_REQUEST_V1`: 1 to 64 of `A-Z`, `0-9` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnsupportedOperation(String);

impl UnsupportedOperation {
    const MAX_BYTES: usize = 64;

    /// Names whose reply would read as another message of the session.
    const TAKEN: [&'static str; 2] = ["STATS", "CERT_RENEW"];

    fn new(stem: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let is_name = (1..=Self::MAX_BYTES).contains(&stem.len()) && stem.bytes().all(is_plain);
        (is_name && !Self::TAKEN.contains(&stem)).then(|| Self(stem.to_owned()))
    }
}

impl OperationType {
    const KNOWN: [(&'static str, Self); 9] = [
        ("CREATE_VM", Self::CreateVm),
        ("TURNON_VM", Self::TurnOnVm),
        ("TURNOFF_VM", Self::TurnOffVm),
        ("REBOOT_VM", Self::RebootVm),
        ("DESTROY_VM", Self::DestroyVm),
        ("MONITOR_VM_STATS", Self::MonitorVmStats),
        ("CREATE_SSHKEY", Self::CreateSshKey),
        ("REVOKE_SSHKEY", Self::RevokeSshKey),
        ("CONNECT_HEADSCALE", Self::ConnectHeadscale),
    ];

    /// The type of the operation's reply.
    #[must_use]
    pub fn response_type(&self) -> String {
        format!("{}_RESPONSE_V1", self.stem())
    }

    /// The operation that a reply of this type answers.
    pub(super) fn of_response(kind: &str) -> Option<Self> {
        kind.strip_suffix("_RESPONSE_V1").and_then(Self::of_stem)
    }

    fn of_stem(stem: &str) -> Option<Self> {
        match Self::KNOWN.into_iter().find(|(known, _)| *known == stem) {
            Some((_, operation)) => Some(operation),
            None => UnsupportedOperation::new(stem).map(Self::Unsupported),
        }
    }

    fn stem(&self) -> &str {
        match self {
            Self::Unsupported(name) => &name.0,
            known => Self::KNOWN.into_iter().find(|(_, operation)| operation == known).map_or("", |(stem, _)| stem),
        }
    }
}

impl FromStr for OperationType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_suffix("_REQUEST_V1")
            .and_then(Self::of_stem)
            .ok_or("operation_type must be a name of at most 64 capitals, digits and underscores before _REQUEST_V1")
    }
}

impl TryFrom<String> for OperationType {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OperationType> for String {
    fn from(operation: OperationType) -> Self {
        format!("{}_REQUEST_V1", operation.stem())
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationReply {
    /// The operation.
    pub operation: OperationType,
    /// Its end.
    pub outcome: OperationOutcome,
}

/// The end of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "WireOutcome", try_from = "WireOutcome")]
pub enum OperationOutcome {
    /// It was done.
    Done {
        /// Of what, and what it yields.
        result: OperationResult,
        /// How long it took, ms.
        execution_time_ms: f64,
    },
    /// It was not, and left nothing behind.
    Failed {
        /// Of what, as far as the request said so.
        result: Option<OperationResult>,
        /// Why not, fit for the tenant's eyes.
        error: String,
    },
}

/// What an operation was about, and what it yields (vm-and-gpu-host spec 2.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperationResult {
    /// The worker, as it names itself. The reference leaves it out after some operations.
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// Copied from the request.
    #[serde(deserialize_with = "lenient::read")]
    pub task_id: String,
    /// The machine; null where a create ended before it had one.
    #[serde(default, deserialize_with = "lenient::read")]
    pub vm_id: Option<String>,
    /// The operation's own fields.
    #[serde(flatten)]
    pub details: Object,
}

#[derive(Serialize, Deserialize)]
struct WireOutcome {
    #[serde(deserialize_with = "lenient::read")]
    success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<OperationResult>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    execution_time: Option<f64>,
    #[serde(default, deserialize_with = "lenient::read", skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<OperationOutcome> for WireOutcome {
    fn from(outcome: OperationOutcome) -> Self {
        match outcome {
            OperationOutcome::Done { result, execution_time_ms } => {
                Self { success: true, result: Some(result), execution_time: Some(execution_time_ms), error: None }
            }
            OperationOutcome::Failed { result, error } => {
                Self { success: false, result, execution_time: None, error: Some(error) }
            }
        }
    }
}

impl TryFrom<WireOutcome> for OperationOutcome {
    type Error = &'static str;

    fn try_from(wire: WireOutcome) -> Result<Self, Self::Error> {
        if wire.success {
            let result = wire.result.ok_or("a success without a result")?;
            Ok(Self::Done { result, execution_time_ms: wire.execution_time.unwrap_or_default() })
        } else {
            Ok(Self::Failed { result: wire.result, error: reason(wire.error) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::GatewayMessage;

    fn operation(text: &str) -> VmOperation {
        match GatewayMessage::decode(text.as_bytes()).unwrap() {
            GatewayMessage::VmOperation(operation) => operation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_operation_is_understood_and_names_its_reply() {
        let unknown =
            operation(r#"{"type":"VM_OPERATION_V1","data":{"operation_type":"UPDATE_SSHKEY_REQUEST_V1","data":null}}"#);
        assert_eq!(unknown.operation_type.response_type(), "UPDATE_SSHKEY_RESPONSE_V1");
        assert!(unknown.parameters.is_empty());
    }

    #[test]
    fn an_operation_whose_reply_would_pass_for_another_message_is_invalid() {
        for name in ["STATS_REQUEST_V1", "CERT_RENEW_REQUEST_V1", "HELLO_V1", "_REQUEST_V1x", "a b_REQUEST_V1", ""] {
            assert!(name.parse::<OperationType>().is_err(), "{name}");
        }
    }

    #[test]
    fn an_operation_s_secrets_are_not_printed() {
        let shown = format!(
            "{:?}",
            operation(
                r#"{"type":"VM_OPERATION_V1","data":{"operation_type":"CREATE_VM_REQUEST_V1","data":{"password":"hunter22"}}}"#
            )
        );
        assert!(shown.contains("password") && !shown.contains("hunter22"), "{shown}");
    }
}
