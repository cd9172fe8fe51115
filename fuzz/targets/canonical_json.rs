//! libFuzzer's entry to [`byteleap_fuzz::text::canonical_json`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::text::canonical_json(bytes));
