//! libFuzzer's entry to [`byteleap_fuzz::meshhub::meshhub_message`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::meshhub::meshhub_message(bytes));
