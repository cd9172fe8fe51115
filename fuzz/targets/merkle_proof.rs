//! libFuzzer's entry to [`byteleap_fuzz::proof::merkle_proof`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::proof::merkle_proof(bytes));
