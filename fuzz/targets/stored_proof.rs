//! libFuzzer's entry to [`byteleap_fuzz::gpu::stored_proof`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::gpu::stored_proof(bytes));
