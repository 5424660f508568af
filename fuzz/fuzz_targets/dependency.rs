//! Dependency descriptors of one stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stellwerk::fuzzing::dependency(data));
