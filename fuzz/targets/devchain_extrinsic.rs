//! libFuzzer's entry to [`byteleap_fuzz::devchain::devchain_extrinsic`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::devchain::devchain_extrinsic(bytes));
