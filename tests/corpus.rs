//! Replays every committed corpus file through the function its fuzz target runs, so that what a
//! fuzzer once found stays fixed without a fuzzer.

use std::fs;
use std::path::Path;

#[test]
fn every_seed_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut targets = 0;
    for target in fs::read_dir(corpus).expect("the corpus is committed") {
        let target = target.expect("a readable corpus");
        let name = target.file_name();
        let run: fn(&[u8]) = match name.to_str() {
            Some("dependency") => stellwerk::fuzzing::dependency,
            Some("payload") => stellwerk::fuzzing::payload,
            Some("rtcp") => stellwerk::fuzzing::rtcp,
            Some("uplink") => stellwerk::fuzzing::uplink,
            _ => panic!("no function for the corpus {name:?}"),
        };
        let mut seeds = 0;
        for seed in fs::read_dir(target.path()).expect("a readable corpus") {
            run(&fs::read(seed.expect("a readable corpus").path()).expect("a readable seed"));
            seeds += 1;
        }
        assert!(seeds > 0, "{name:?} has no seeds");
        targets += 1;
    }
    assert!(targets > 0, "no corpus");
}
