//! RTP of a participant that has the keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stellwerk::fuzzing::uplink(data));
