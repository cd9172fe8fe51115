//! Bad input for every decoder of ByteLeap: one plain function per decoder, which takes any bytes and holds the decoder
//! to its promises.
//!
//! Each function returns for whatever it is given; a broken promise is a panic. The promises are those that a peer
//! relies on: nothing panics, what was read is written and read again as the same value, bounds hold, and only what is
//! true is proved. Two callers feed the functions: `targets/` gives them to libFuzzer (scripts/fuzz), and the tests
//! replay `corpus/`, the inputs that were once new to libFuzzer or broke a promise.
//!
//! The modules follow the bytes inwards: [`text`] has the grammars below all messages, [`message`] what is written in
//! them, [`synapse`] the HTTP and the session around these, [`proof`] the openings, [`gpu`] what GPUs say, [`file`] what an operator writes,
//! [`devchain`] the development chain's RPC, [`enrolment`] how a worker is invited and proves its key, and [`meshhub`] the
//! marketplace's wire.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a value that is missing where a promise says it is there is a finding")]

pub mod devchain;
pub mod enrolment;
pub mod file;
pub mod gpu;
pub mod meshhub;
pub mod message;
pub mod proof;
pub mod synapse;
pub mod text;

/// A decoder with its promises, fed with any bytes.
pub type Target = fn(&[u8]);

/// Every target under its name: that of its binary, its file in `targets/` and its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 24] = [
    ("lenient_json", text::lenient_json),
    ("canonical_json", text::canonical_json),
    ("hotkey", text::hotkey),
    ("worker_frame", message::worker_frame),
    ("heartbeat_report", message::heartbeat_report),
    ("miner_frame", message::miner_frame),
    ("payload", message::payload),
    ("feedback", message::feedback),
    ("synapse_request", synapse::synapse_request),
    ("synapse_reply", synapse::synapse_reply),
    ("session_init", synapse::session_init),
    ("sealed_package", synapse::sealed_package),
    ("merkle_proof", proof::merkle_proof),
    ("half_list", gpu::half_list),
    ("gpu_server_answer", gpu::gpu_server_answer),
    ("stored_proof", gpu::stored_proof),
    ("config", file::config),
    ("keyfile", file::keyfile),
    ("devchain_request", devchain::devchain_request),
    ("devchain_extrinsic", devchain::devchain_extrinsic),
    ("join_token", enrolment::join_token),
    ("key_proof", enrolment::key_proof),
    ("meshhub_frame", meshhub::meshhub_frame),
    ("meshhub_message", meshhub::meshhub_message),
];
