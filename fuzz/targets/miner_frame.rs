//! libFuzzer's entry to [`byteleap_fuzz::message::miner_frame`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::message::miner_frame(bytes));
