#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| errand_fuzz::scope(input));
