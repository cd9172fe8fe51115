//! libFuzzer's entry to [`byteleap_fuzz::message::feedback`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::message::feedback(bytes));
