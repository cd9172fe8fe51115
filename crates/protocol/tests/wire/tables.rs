//! The tables of worker-miner spec 2.3 to 2.11, and that whatever we send fits them.

use serde_json::Value;

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    TextOrNull,
    Integer,
    IntegerOrNull,
    Float,
    Bool,
    Object,
    ObjectOrNull,
    Texts,
    Integers,
    Floats,
    Bools,
    Pairs,
    /// A list of objects, each with these fields.
    List(&'static [Field]),
    /// A list of objects that says something.
    Filled(&'static [Field]),
    /// An object with these fields.
    Of(&'static [Field]),
}

use Kind::{
    Bool, Bools, Filled, Float, Floats, Integer, IntegerOrNull, Integers, List, Object, ObjectOrNull, Of, Pairs, Text,
    TextOrNull, Texts,
};

/// A row of a table: name, whether it is required, what it holds.
type Field = (&'static str, bool, Kind);

const REQUIRED: bool = true;
const OPTIONAL: bool = false;

const REQUESTS: &[Field] = &[("uuid", REQUIRED, Text), ("rows", OPTIONAL, Integers), ("coordinates", OPTIONAL, Pairs)];
const MERKLE_PROOFS: &[Field] = &[
    ("leaf_index", REQUIRED, Integer),
    ("leaf_hash", REQUIRED, Text),
    ("proof_hashes", REQUIRED, Texts),
    ("proof_directions", REQUIRED, Bools),
];
const PROOFS: &[Field] = &[
    ("uuid", REQUIRED, Text),
    ("row_hashes", REQUIRED, Texts),
    ("merkle_proofs", REQUIRED, List(MERKLE_PROOFS)),
    ("coordinate_values", OPTIONAL, Floats),
];
const IDENTITY: &[Field] =
    &[("public_key", REQUIRED, Text), ("signature", REQUIRED, Text), ("join_secret", OPTIONAL, Text)];

const FEEDBACK: &[Field] = &[
    ("worker_id", REQUIRED, Text),
    ("lease", OPTIONAL, Object),
    ("verdict", OPTIONAL, Object),
    ("score", OPTIONAL, Object),
    ("no_challenge", OPTIONAL, Text),
    ("next_challenge_at_ms", OPTIONAL, Integer),
];
const TOLD: &[Field] =
    &[("validator", REQUIRED, Text), ("at_ms", REQUIRED, Integer), ("feedback", REQUIRED, Of(FEEDBACK))];

/// Every message: its type and the fields beside it. `identity` and `feedback` are ours; a peer that does not know them
/// reads them over (2.1).
const MESSAGES: &[(&str, &[Field])] = &[
    (
        "register",
        &[
            ("worker_id", REQUIRED, Text),
            ("worker_name", OPTIONAL, TextOrNull),
            ("worker_version", REQUIRED, Text),
            ("capabilities", OPTIONAL, Texts),
            ("system_info", OPTIONAL, Object),
            ("identity", OPTIONAL, Of(IDENTITY)),
        ],
    ),
    ("registration_ack", &[("data", REQUIRED, Of(&[("status", REQUIRED, Text)]))]),
    (
        "heartbeat",
        &[(
            "data",
            REQUIRED,
            Of(&[
                ("status", OPTIONAL, TextOrNull),
                ("active_tasks", OPTIONAL, IntegerOrNull),
                ("system_info", REQUIRED, Object),
                ("gpu_info", OPTIONAL, ObjectOrNull),
                ("capabilities", OPTIONAL, Texts),
            ]),
        )],
    ),
    ("heartbeat_ack", &[]),
    ("feedback", &[("data", REQUIRED, Of(&[("idle_because", OPTIONAL, Text), ("validators", REQUIRED, List(TOLD))]))]),
    ("heartbeat_request", &[("message_id", OPTIONAL, TextOrNull)]),
    (
        "heartbeat_response",
        &[("worker_id", REQUIRED, Text), ("timestamp", REQUIRED, Float), ("message_id", OPTIONAL, TextOrNull)],
    ),
    (
        "task_assignment",
        &[(
            "data",
            REQUIRED,
            Of(&[
                ("task_id", REQUIRED, Text),
                ("task_type", REQUIRED, Text),
                ("challenge_id", OPTIONAL, TextOrNull),
                ("data", REQUIRED, Object),
                ("timeout", OPTIONAL, Integer),
                ("validator_hotkey", OPTIONAL, Text),
            ]),
        )],
    ),
    (
        "task_result",
        &[
            ("worker_id", REQUIRED, Text),
            ("task_id", REQUIRED, Text),
            ("timestamp", REQUIRED, Float),
            (
                "data",
                REQUIRED,
                Of(&[
                    ("success", REQUIRED, Bool),
                    ("error_code", REQUIRED, Integer),
                    ("result", OPTIONAL, Object),
                    ("error", OPTIONAL, TextOrNull),
                    ("error_message", OPTIONAL, TextOrNull),
                    ("timestamps", OPTIONAL, ObjectOrNull),
                ]),
            ),
        ],
    ),
    (
        "proof_request",
        &[
            ("message_id", REQUIRED, Text),
            (
                "data",
                REQUIRED,
                Of(&[
                    ("validator_hotkey", REQUIRED, Text),
                    ("challenge_id", REQUIRED, Text),
                    ("requests", REQUIRED, Filled(REQUESTS)),
                ]),
            ),
        ],
    ),
    (
        "proof_response",
        &[
            ("message_id", REQUIRED, Text),
            (
                "data",
                REQUIRED,
                Of(&[
                    ("success", REQUIRED, Bool),
                    ("proofs", OPTIONAL, List(PROOFS)),
                    // "O, null" by the schema, yet a reference miner cannot do without (F51).
                    ("debug", REQUIRED, Object),
                    ("error", OPTIONAL, Text),
                ]),
            ),
        ],
    ),
    ("vmgw_enroll_token_request", &[("data", REQUIRED, Of(&[("worker_id", REQUIRED, Text)]))]),
    (
        "vmgw_enroll_token_response",
        &[(
            "data",
            REQUIRED,
            Of(&[
                ("code", REQUIRED, Integer),
                ("token", OPTIONAL, Text),
                ("expires_at", OPTIONAL, TextOrNull),
                ("enrollment_url", OPTIONAL, TextOrNull),
                ("error", OPTIONAL, Text),
            ]),
        )],
    ),
];

/// Why a message that we send does not fit the tables; none if it does.
pub(crate) fn misfit(message: &str) -> Option<String> {
    let Ok(Value::Object(mut message)) = serde_json::from_str(message) else {
        return Some("no JSON object".to_owned());
    };
    let Some(Value::String(kind)) = message.remove("type") else { return Some("no type".to_owned()) };
    let Some((_, fields)) = MESSAGES.iter().find(|(known, _)| *known == kind) else {
        return Some(format!("unknown type {kind}"));
    };
    fits(&Value::Object(message), fields).err().map(|path| format!("{kind}: {path}"))
}

fn fits(object: &Value, fields: &[Field]) -> Result<(), String> {
    let object = object.as_object().ok_or("is no object")?;
    if let Some(unknown) = object.keys().find(|key| !fields.iter().any(|(name, ..)| name == key)) {
        return Err(format!("{unknown} stands in no table"));
    }
    for (name, required, kind) in fields {
        match object.get(*name) {
            None if *required => return Err(format!("{name} is missing")),
            None => {}
            Some(value) => holds(value, *kind).map_err(|reason| format!("{name}: {reason}"))?,
        }
    }
    Ok(())
}

fn holds(value: &Value, kind: Kind) -> Result<(), String> {
    let each = |is: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(is));
    let holds = match kind {
        Text => value.is_string(),
        TextOrNull => value.is_string() || value.is_null(),
        Integer => value.is_i64() || value.is_u64(),
        IntegerOrNull => value.is_i64() || value.is_u64() || value.is_null(),
        Float => value.is_number(),
        Bool => value.is_boolean(),
        Object => value.is_object(),
        ObjectOrNull => value.is_object() || value.is_null(),
        Texts => each(Value::is_string),
        Integers => each(|item| item.is_u64()),
        Floats => each(Value::is_number),
        Bools => each(Value::is_boolean),
        Pairs => each(|item| item.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_u64))),
        List(fields) | Filled(fields) => {
            let items = value.as_array().ok_or("is no list")?;
            if items.is_empty() && matches!(kind, Filled(_)) {
                return Err("is empty".to_owned());
            }
            return items.iter().try_for_each(|item| fits(item, fields));
        }
        Of(fields) => return fits(value, fields),
    };
    if holds { Ok(()) } else { Err(format!("{value} is no {kind:?}")) }
}

#[test]
fn what_does_not_fit_a_table_is_named() {
    for (message, reason) in [
        (r#"{"type":"heartbeat_response","worker_id":"w","timestamp":NaN}"#, "no JSON object"),
        (r#"{"type":"dance"}"#, "unknown type dance"),
        (r#"{"type":"register","worker_id":"w"}"#, "register: worker_version is missing"),
        (r#"{"type":"register","worker_id":7,"worker_version":"1"}"#, "register: worker_id: 7 is no Text"),
        (r#"{"type":"heartbeat_ack","data":{}}"#, "heartbeat_ack: data stands in no table"),
        (
            r#"{"type":"proof_response","message_id":"m","data":{"success":true}}"#,
            "proof_response: data: debug is missing",
        ),
    ] {
        assert_eq!(misfit(message).as_deref(), Some(reason));
    }
}
