//! libFuzzer's entry to [`byteleap_fuzz::file::config`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::file::config(bytes));
