//! libFuzzer's entry to [`byteleap_fuzz::message::heartbeat_report`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::message::heartbeat_report(bytes));
