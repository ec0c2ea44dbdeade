#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kinfold_fuzz::merge(data));
