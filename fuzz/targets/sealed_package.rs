//! libFuzzer's entry to [`byteleap_fuzz::synapse::sealed_package`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| byteleap_fuzz::synapse::sealed_package(bytes));
