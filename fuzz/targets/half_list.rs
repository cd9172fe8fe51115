//! libFuzzer's entry to [`byteleap_fuzz::gpu::half_list`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::gpu::half_list(bytes));
