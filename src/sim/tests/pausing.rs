//! Links that don't carry even the smallest picture, and people who would rather have none then.

use std::time::Duration;

use super::secs;
use crate::media::message::{Kind, StreamState};
use crate::sim::{Link, Medium, Meeting, Sees};
use crate::units::Bitrate;

/// Anna sends everything; Bert allows pausing.
fn meeting(seed: u64, link: Link) -> Meeting {
    let mut meeting = Meeting::seeded(seed);
    meeting.enter("anna", Link::broadband());
    meeting.publish("anna", Medium::simulcast("camera"));
    meeting.publish("anna", Medium::microphone("microphone"));
    meeting.enter_as("bert", link, |join| join.may_pause = Some(true));
    meeting
}

fn states(meeting: &Meeting, name: &str, publisher: &str) -> Vec<StreamState> {
    let tracks = meeting.tracks_of(publisher, Kind::Video);
    let flows = meeting.client(name).flows.iter();
    let flows = flows.filter(|(_, update)| tracks.contains(&update.track));
    flows.map(|(_, update)| update.state).collect()
}

/// Two states follow each other at this distance at least.
fn shortest(meeting: &Meeting, name: &str) -> Duration {
    let flows = &meeting.client(name).flows;
    let spans = flows.windows(2).map(|pair| pair[1].0 - pair[0].0);
    spans.min().unwrap_or(Duration::MAX)
}

/// The smallest picture takes 80 kbit/s at its lowest frame rate and the voice 32, which is what
/// the link carries: the worst case for flapping. What is tried again fails, ever less often, and
/// the voice hardly suffers.
#[test]
fn a_video_that_does_not_fit_pauses_and_returns_with_bandwidth() {
    let mut meeting = meeting(31, Link::broadband());
    meeting.run(secs(10));
    meeting.expect("bert", Sees::picture("anna"));
    assert_eq!(states(&meeting, "bert", "anna"), [], "nothing to tell");
    meeting.link("bert", Link::narrow(Bitrate::kbps(110)));
    meeting.run(secs(10));
    assert_eq!(
        states(&meeting, "bert", "anna").first(),
        Some(&StreamState::Paused)
    );
    let before = states(&meeting, "bert", "anna").len();
    meeting.forget_freezes();
    meeting.run(secs(120));
    let attempts = states(&meeting, "bert", "anna").len() - before;
    assert!((2..=14).contains(&attempts), "{attempts} changes");
    let voice = meeting.streams("bert", "anna", Kind::Audio)[0].gap_max;
    assert!(voice < secs(1), "{voice:?}");
    meeting.link("bert", Link::broadband());
    meeting.run(secs(60));
    meeting.expect("bert", Sees::picture("anna"));
    let last = states(&meeting, "bert", "anna").pop();
    assert_eq!(last, Some(StreamState::Active));
    let shortest = shortest(&meeting, "bert");
    assert!(shortest >= secs(1), "{shortest:?} between two states");
    assert!(meeting.counters().pauses >= 2);
    meeting.assert_blameless();
}

/// Carl's link is as narrow as Bert's, and he said nothing.
#[test]
fn who_does_not_allow_it_keeps_a_picture_and_is_told_nothing() {
    let narrow = || Link::narrow(Bitrate::kbps(110));
    let mut meeting = meeting(32, narrow());
    meeting.enter("carl", narrow());
    meeting.run(secs(30));
    assert!(states(&meeting, "bert", "anna").contains(&StreamState::Paused));
    assert_eq!(states(&meeting, "carl", "anna"), []);
    let stream = &meeting.streams("carl", "anna", Kind::Video)[0];
    assert!(stream.packets > 100, "{} packets", stream.packets);
}

/// One picture fits and two don't: the one that Bert prefers stays, whichever that is.
#[test]
fn the_one_that_is_preferred_pauses_last() {
    let mut meeting = meeting(33, Link::narrow(Bitrate::kbps(300)));
    meeting.enter("dora", Link::broadband());
    meeting.publish("dora", Medium::simulcast("camera"));
    for (preferred, other) in [("dora", "anna"), ("anna", "dora")] {
        meeting.run(secs(1));
        meeting.prefer("bert", preferred, 2);
        meeting.prefer("bert", other, 0);
        meeting.run(secs(10));
        let before = [preferred, other].map(|who| states(&meeting, "bert", who).len());
        meeting.run(secs(50));
        meeting.expect("bert", Sees::picture(preferred));
        let after = [preferred, other].map(|who| states(&meeting, "bert", who));
        assert_eq!(after[0].len(), before[0], "{preferred} flows all the time");
        assert!(after[1].contains(&StreamState::Paused), "{other} doesn't");
    }
    meeting.assert_blameless();
}
