//! The same seed gives the same run, to the byte of its log.

use super::{crowd, millis, secs};
use crate::media::message::Quality;
use crate::sim::{Element, Link};

/// A meeting in which much is left to chance.
fn log(seed: u64) -> String {
    let link = Link::lossy(0.05)
        .with(Element::Jitter(millis(15)))
        .with(Element::Reorder(0.01, millis(30)));
    let mut meeting = crowd(seed, 5, &link);
    meeting.run(secs(4));
    meeting.want("anna", "bert", Quality::Low);
    meeting.unpublish("carl", "camera");
    meeting.leave("dora");
    meeting.run(secs(4));
    meeting.log().to_owned()
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let first = log(3);
    assert!(first.lines().count() > 60, "{first}");
    for _ in 0..3 {
        let again = log(3);
        let differs = first
            .lines()
            .zip(again.lines())
            .find(|(one, other)| one != other);
        assert_eq!(differs, None);
        assert_eq!(first.len(), again.len());
    }
}

#[test]
fn another_seed_gives_another_log() {
    let packets = |log: String| {
        let lines = log.lines().filter(|line| line.contains("digest"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_ne!(packets(log(3)), packets(log(4)));
}
