//! Everybody sends to everybody: nobody gets what isn't theirs, and every number is in its place.

use std::time::{Duration, Instant};

use super::{NAMES, crowd, millis, secs};
use crate::media::message::Kind;
use crate::sim::{Link, Meeting, Sees};

/// Twelve people, 132 streams of each kind, of which one may just have stood for as long as this.
fn twelve(share: f64, standing: Duration) -> Meeting {
    let mut meeting = crowd(12, 12, &Link::lossy(share));
    meeting.run(secs(10));
    for name in NAMES {
        for publisher in NAMES.iter().filter(|other| **other != name) {
            meeting.expect(name, Sees::picture(publisher).within(standing));
            let audio = meeting.streams(name, publisher, Kind::Audio);
            let heard: u64 = audio.iter().map(|stream| stream.packets).sum();
            assert!(heard > 350, "{name} hears {publisher}: {heard} packets");
        }
    }
    meeting.assert_blameless();
    meeting
}

/// Packets that came as retransmissions, to all.
fn repaired(meeting: &Meeting) -> u64 {
    let streams = NAMES
        .iter()
        .flat_map(|name| meeting.client(name).incoming.values());
    streams.map(|stream| stream.repaired).sum()
}

#[test]
fn twelve_see_twelve() {
    let meeting = twelve(0.0, millis(500));
    assert_eq!(repaired(&meeting), 0);
    assert_eq!(meeting.counters().nacks_sent, 0);
}

#[test]
fn twelve_see_twelve_at_two_percent_loss() {
    let meeting = twelve(0.02, millis(500));
    assert!(repaired(&meeting) > 100, "{}", repaired(&meeting));
    assert!(meeting.counters().nacks_sent > 100);
}

#[test]
fn twelve_see_twelve_at_ten_percent_loss() {
    // Where a repair is lost as well, and the one after it, a picture stands for 0.55 s.
    let meeting = twelve(0.1, millis(1000));
    assert!(repaired(&meeting) > 500, "{}", repaired(&meeting));
    assert!(meeting.counters().nacks_sent > 500);
}

/// A simulator that is slower than this isn't used: `cargo sim` is for whoever changes a line.
#[test]
#[ignore = "takes a minute: cargo sim"]
fn ten_minutes_of_six_people_take_less_than_one() {
    let started = Instant::now();
    let mut meeting = crowd(6, 6, &Link::lossy(0.01));
    meeting.run(secs(600));
    let took = started.elapsed();
    meeting.assert_blameless();
    let packets: u64 = NAMES[..6]
        .iter()
        .flat_map(|name| meeting.client(name).incoming.values())
        .map(|stream| stream.packets)
        .sum();
    println!("note: 600 s of 6 people, {packets} packets received, took {took:.1?}");
    for name in &NAMES[1..6] {
        meeting.expect(name, Sees::picture("anna"));
    }
    // With checks of arithmetic, and hardly optimised, it may take longer.
    assert!(
        cfg!(debug_assertions) || took < Duration::from_secs(60),
        "{took:?}"
    );
}
