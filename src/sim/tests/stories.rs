//! Short stories: who comes, over which link, and what they must see.

use super::{millis, secs};
use crate::media::message::{Kind, Quality};
use crate::sim::{Element, Link, Medium, Meeting, Sees};
use crate::units::Bitrate;

#[test]
fn two_people_see_and_hear_each_other() {
    let mut meeting = Meeting::seeded(1);
    for name in ["anna", "bert"] {
        meeting.enter(name, Link::broadband());
        meeting.publish(name, Medium::simulcast("camera"));
        meeting.publish(name, Medium::microphone("microphone"));
    }
    meeting.run(secs(5));
    meeting.expect("anna", Sees::layer("bert", Quality::High));
    meeting.expect("bert", Sees::layer("anna", Quality::High));
    meeting.assert_longest_freeze_below("anna", millis(100));
    assert!(meeting.streams("bert", "anna", Kind::Audio)[0].packets > 230);
    meeting.assert_blameless();
}

/// Bert's link shrinks; he must fall to a smaller picture of Anna, never to black, hear her all
/// the time, and climb back.
#[test]
fn a_narrow_link_lowers_quality_and_recovers() {
    let mut meeting = Meeting::seeded(7);
    meeting.enter("anna", Link::broadband());
    meeting.publish("anna", Medium::simulcast("camera"));
    meeting.publish("anna", Medium::microphone("microphone"));
    meeting.enter("bert", Link::broadband());
    meeting.run(secs(10));
    meeting.expect("bert", Sees::layer("anna", Quality::High));
    meeting.forget_freezes();
    meeting.link("bert", Link::narrow(Bitrate::kbps(300)));
    meeting.run(secs(5));
    meeting.expect("bert", Sees::layer("anna", Quality::Low));
    let voice = meeting.streams("bert", "anna", Kind::Audio)[0].gap_max;
    assert!(voice < secs(1), "{voice:?}");
    meeting.link("bert", Link::broadband());
    meeting.run(secs(60));
    meeting.expect("bert", Sees::layer("anna", Quality::High));
    // What the shard had sent before it noticed fills the queue, and the rest of a frame is lost.
    meeting.assert_longest_freeze_below("bert", secs(3));
    meeting.assert_blameless();
}

/// Carl's link is very bad. Bert sees what he would see without him.
#[test]
fn somebody_on_a_bad_link_changes_nothing_for_others() {
    let seen = |with_carl: bool| {
        let mut meeting = Meeting::seeded(23);
        meeting.enter("anna", Link::broadband());
        meeting.publish("anna", Medium::camera("camera"));
        meeting.publish("anna", Medium::microphone("microphone"));
        meeting.enter("bert", Link::broadband());
        meeting.run(secs(5));
        if with_carl {
            meeting.enter("carl", Link::narrow(Bitrate::kbps(100)));
        }
        meeting.forget_freezes();
        meeting.run(secs(60));
        meeting.assert_longest_freeze_below("bert", millis(100));
        meeting.assert_blameless();
        let asked = meeting.client("anna").published[0].streams[2].asked.1;
        let stream = meeting.streams("bert", "anna", Kind::Video)[0];
        (
            stream.decoder.frames_shown,
            stream.decoder.layers.len(),
            asked,
        )
    };
    assert_eq!(seen(true), seen(false));
}

/// The link carries one large picture and a small one. Bert says whose is to be large.
#[test]
fn who_is_preferred_has_the_large_picture() {
    let mut meeting = Meeting::seeded(17);
    for name in ["anna", "carl"] {
        meeting.enter(name, Link::broadband());
        meeting.publish(name, Medium::simulcast("camera"));
    }
    meeting.enter("bert", Link::narrow(Bitrate::kbps(2300)));
    for (preferred, other) in [("carl", "anna"), ("anna", "carl")] {
        meeting.run(secs(1));
        meeting.prefer("bert", preferred, 2);
        meeting.prefer("bert", other, 0);
        meeting.run(secs(40));
        let layer = |publisher| {
            let streams = meeting.streams("bert", publisher, Kind::Video);
            streams[0].decoder.shown.map(|(_, layer)| layer)
        };
        assert!(
            layer(preferred) > layer(other),
            "{preferred} before {other}"
        );
    }
    meeting.assert_blameless();
}

/// Nobody sees Bert while he is cut off, everybody does a moment after; he is no other person.
#[test]
fn a_short_partition_heals() {
    let mut meeting = Meeting::seeded(8);
    for name in ["anna", "bert"] {
        meeting.enter(name, Link::broadband());
        meeting.publish(name, Medium::simulcast("camera"));
    }
    meeting.run(secs(5));
    meeting.link("bert", Link::broadband().with(Element::Partition));
    meeting.run(secs(4));
    meeting.forget_freezes();
    meeting.link("bert", Link::broadband());
    meeting.run(secs(3));
    meeting.expect("anna", Sees::picture("bert"));
    meeting.expect("bert", Sees::picture("anna"));
    meeting.assert_longest_freeze_below("anna", millis(1500));
    assert_eq!(
        meeting.client("anna").raised.len(),
        1,
        "the track never went"
    );
    meeting.assert_blameless();
}

/// Bursts, jitter and reordering on every link at once, and all is still in its place.
#[test]
fn bad_weather_breaks_nothing() {
    let weather = Link::broadband()
        .with(Element::Jitter(millis(30)))
        .with(Element::Reorder(0.02, millis(20)))
        .with(Element::BurstLoss {
            enter: 0.0125,
            leave: 0.2,
            loss: 0.85,
        });
    let mut meeting = super::crowd(9, 4, &weather);
    meeting.run(secs(15));
    meeting.expect("anna", Sees::picture("dora"));
    meeting.expect("dora", Sees::picture("bert"));
    meeting.assert_blameless();
}

/// Who comes late gets a picture at once: a key frame is asked for.
#[test]
fn a_latecomer_sees_everybody_soon() {
    let mut meeting = super::crowd(10, 3, &Link::broadband());
    meeting.run(secs(3));
    meeting.enter("late", Link::broadband());
    meeting.run(millis(1200));
    for name in ["anna", "bert", "carl"] {
        meeting.expect("late", Sees::picture(name));
    }
    meeting.leave("anna");
    meeting.run(secs(1));
    assert_eq!(
        meeting
            .client("late")
            .incoming
            .values()
            .filter(|s| !s.ended)
            .count(),
        4
    );
    meeting.assert_blameless();
}

/// Who only watches can't know how long a repair takes.
#[test]
fn where_packets_are_lost_pictures_wait_for_their_repair() {
    let mut meeting = Meeting::seeded(61);
    meeting.enter("anna", Link::broadband());
    meeting.publish("anna", Medium::simulcast("camera"));
    meeting.enter("bert", Link::lossy(0.1));
    meeting.enter("carl", Link::broadband());
    meeting.run(secs(15));
    meeting.expect("bert", Sees::picture("anna"));
    let told = meeting.client("bert").playout.expect("bert is told");
    // Two round trips of 40 ms, 80 ms, and what feedback takes.
    assert!((millis(160)..millis(250)).contains(&told), "{told:?}");
    assert_eq!(meeting.client("carl").playout, None);
    meeting.link("bert", Link::broadband());
    meeting.run(secs(45));
    assert_eq!(meeting.client("bert").playout, Some(millis(0)));
    meeting.assert_blameless();
}
