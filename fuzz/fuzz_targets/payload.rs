//! An opened payload, as every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stellwerk::fuzzing::payload(data));
