//! libFuzzer's entry to [`byteleap_fuzz::text::hotkey`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::text::hotkey(bytes));
