//! libFuzzer's entry to [`byteleap_fuzz::gpu::gpu_server_answer`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::gpu::gpu_server_answer(bytes));
