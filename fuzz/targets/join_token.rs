//! libFuzzer's entry to [`byteleap_fuzz::enrolment::join_token`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::enrolment::join_token(bytes));
