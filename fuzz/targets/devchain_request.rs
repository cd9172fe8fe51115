//! libFuzzer's entry to [`byteleap_fuzz::devchain::devchain_request`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::devchain::devchain_request(bytes));
