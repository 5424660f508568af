//! Rooms in which not everybody can be heard and seen at once.

use super::{NAMES, millis, secs};
use crate::media::message::{Kind, StreamState};
use crate::sim::{Link, Medium, Meeting, Sees};

const QUIET: u8 = 100;

/// Twelve people of whom three are heard, and nobody speaks.
fn quiet(seed: u64) -> Meeting {
    let mut meeting = Meeting::limited(seed, |limits| {
        (limits.loudest, limits.loudest_above) = (3, 11);
    });
    for name in NAMES {
        meeting.enter(name, Link::lossy(0.01));
        meeting.publish(name, Medium::microphone("microphone"));
        meeting.speak(name, QUIET);
        meeting.run(millis(50));
    }
    meeting.run(secs(3));
    meeting
}

/// Packets of each that come to `name` within a second from now.
fn heard(meeting: &mut Meeting, name: &str) -> Vec<(&'static str, u64)> {
    let count = |meeting: &Meeting| {
        let others = NAMES.iter().filter(|other| **other != name);
        let packets = others.map(|other| {
            let streams = meeting.streams(name, other, Kind::Audio);
            (
                *other,
                streams.iter().map(|stream| stream.packets).sum::<u64>(),
            )
        });
        packets.collect::<Vec<_>>()
    };
    let before = count(meeting);
    meeting.run(secs(1));
    let pairs = count(meeting).into_iter().zip(before);
    let came = pairs.map(|((name, after), (_, before))| (name, after - before));
    came.filter(|(_, packets)| *packets > 0).collect()
}

fn names(heard: &[(&'static str, u64)]) -> Vec<&'static str> {
    heard.iter().map(|(name, _)| *name).collect()
}

#[test]
fn the_loudest_of_a_large_room_are_heard_and_nobody_misses_a_number() {
    let mut meeting = quiet(41);
    assert_eq!(names(&heard(&mut meeting, "ludwig")), [""; 0]);
    for (name, level) in [("anna", 30), ("bert", 25), ("carl", 40), ("dora", 45)] {
        meeting.speak(name, level);
    }
    let three = heard(&mut meeting, "ludwig");
    assert_eq!(names(&three), ["anna", "bert", "carl"]);
    assert!(three.iter().all(|(_, packets)| *packets > 40), "{three:?}");
    // Who falls silent leaves the seat, and it is taken with the first word.
    meeting.speak("anna", QUIET);
    meeting.run(secs(2));
    let three = heard(&mut meeting, "ludwig");
    assert_eq!(names(&three), ["bert", "carl", "dora"]);
    // And the other way round: nobody is skipped.
    assert_eq!(names(&heard(&mut meeting, "bert")), ["carl", "dora"]);
    meeting.speak("bert", QUIET);
    meeting.run(secs(2));
    meeting.speak("anna", 20);
    assert_eq!(
        names(&heard(&mut meeting, "ludwig")),
        ["anna", "carl", "dora"]
    );
    meeting.assert_blameless();
}

#[test]
fn a_room_that_gets_small_is_heard_as_a_whole_again() {
    let mut meeting = quiet(42);
    meeting.leave("anna");
    meeting.run(secs(1));
    assert_eq!(heard(&mut meeting, "ludwig").len(), 10);
    meeting.assert_blameless();
}

/// Ludwig is sent two cameras: of those who spoke last. The others are said to be paused.
#[test]
fn of_many_cameras_those_come_whose_people_spoke_last() {
    let mut meeting = Meeting::limited(43, |limits| limits.last_n = 2);
    for name in &NAMES[..5] {
        meeting.enter(name, Link::broadband());
        meeting.publish(name, Medium::simulcast("camera"));
        meeting.publish(name, Medium::microphone("microphone"));
        meeting.run(millis(100));
    }
    meeting.enter("ludwig", Link::broadband());
    let turn = |meeting: &mut Meeting, name: &str| {
        meeting.speak(name, 10);
        meeting.run(secs(5));
        meeting.speak(name, QUIET);
    };
    for name in ["anna", "carl", "emil"] {
        turn(&mut meeting, name);
    }
    meeting.expect("ludwig", Sees::picture("emil"));
    meeting.expect("ludwig", Sees::picture("carl"));
    let paused = |meeting: &Meeting, name: &str| {
        let tracks = meeting.tracks_of(name, Kind::Video);
        let flows = meeting.client("ludwig").flows.iter();
        let mut own = flows.filter(|(_, update)| tracks.contains(&update.track));
        own.next_back().map(|(_, update)| update.state) == Some(StreamState::Paused)
    };
    for name in ["anna", "bert", "dora"] {
        assert!(paused(&meeting, name), "{name}");
    }
    turn(&mut meeting, "dora");
    meeting.expect("ludwig", Sees::picture("dora"));
    assert!(paused(&meeting, "carl"));
    meeting.assert_blameless();
}
