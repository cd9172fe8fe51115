//! libFuzzer's entry to [`byteleap_fuzz::enrolment::key_proof`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::enrolment::key_proof(bytes));
