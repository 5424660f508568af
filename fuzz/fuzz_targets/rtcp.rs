//! Opened RTCP of a participant.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stellwerk::fuzzing::rtcp(data));
