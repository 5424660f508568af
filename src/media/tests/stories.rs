//! What people notice of a call: they hear and see each other, also when they come late, when
//! packets get lost, and when a picture changes its size.

use std::time::Duration;

use super::call::{Call, Weather, Who};
use super::client::Got;
use super::track::{Content, DESCRIPTOR, Medium};
use crate::ids::TrackSid;
use crate::media::codec::vp8::{Descriptor, PictureId};
use crate::media::message::Notice;
use crate::media::srtp::Suite;

/// The frame's bytes, which nobody between sender and receiver may touch.
fn body(payload: &[u8]) -> &[u8] {
    &payload[DESCRIPTOR..]
}

/// Every packet that came was sent, in this order and bit for bit; how many.
fn bit_exact(got: &[&Got], sent: &[Content], cut: impl Fn(&[u8]) -> &[u8]) -> usize {
    let mut sent = sent.iter();
    for got in got {
        let mut same = |sent: &Content| cut(&sent.payload) == cut(&got.payload);
        assert!(
            sent.any(&mut same),
            "nobody sent this, or not after the last"
        );
    }
    got.len()
}

fn descriptor(got: &Got) -> Descriptor {
    Descriptor::parse(&got.payload).expect("VP8 goes out as VP8")
}

/// In the order of sending; each number is there, once.
fn complete<'a>(got: &[&'a Got]) -> Vec<&'a Got> {
    let mut got = got.to_vec();
    got.sort_by_key(|got| got.seq);
    for pair in got.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq + 1);
    }
    got
}

#[test]
fn two_people_hear_and_see_each_other() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let mut tracks = Vec::new();
    for who in [anna, bert] {
        let microphone = call.publish(who, Medium::microphone("microphone"));
        let camera = call.publish(who, Medium::camera("camera"));
        tracks.push((microphone, camera));
    }
    call.run(3000);
    for (from, to, (microphone, camera)) in [(anna, bert, &tracks[0]), (bert, anna, &tracks[1])] {
        let sent = &call[from].sending;
        let heard = call[to].received_of(microphone);
        let sent_audio = &sent[0].medium.layers[0].sent;
        assert!(bit_exact(&heard, sent_audio, |payload| payload) > 140);
        let seen = call[to].received_of(camera);
        let sent_video = &sent[1].medium.layers[0].sent;
        assert!(bit_exact(&seen, sent_video, body) > 140);
        assert!(descriptor(seen[0]).key_frame, "it begins with a key frame");
    }
    let counters = call.counters();
    assert_eq!(counters.srtp_suites[Suite::AeadAes256Gcm.index()], 2);
    assert_eq!(counters.srtp_suites.iter().sum::<u64>(), 2);
    assert_eq!(
        counters.dropped.iter().sum::<u64>(),
        0,
        "nothing of a good call is dropped"
    );
}

#[test]
fn a_late_joiner_is_given_all_tracks_at_once() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    let microphone = call.publish(anna, Medium::microphone("microphone"));
    let camera = call.publish(anna, Medium::camera("camera"));
    call.run(3000);
    let late = call.enter("late");
    let connected = call.now;
    let answers: Vec<_> = (call[late].notices.iter())
        .filter_map(|notice| match notice {
            Notice::Answer { mid_to_track, .. } => Some(mid_to_track),
            _ => None,
        })
        .collect();
    assert_eq!(answers.len(), 1, "no second round is needed");
    let mut mapped: Vec<_> = answers[0].iter().map(|(_, track)| track).collect();
    mapped.sort();
    let mut expected = [&microphone, &camera];
    expected.sort();
    assert_eq!(mapped, expected);
    call.run(400);
    let asked = call[anna].key_frames_asked.iter();
    let asked = asked.filter(|(at, ..)| *at >= connected - Duration::from_millis(10));
    let asked: Vec<_> = asked.map(|it| it.0 - connected).collect();
    assert_eq!(asked.len(), 1, "one key frame is asked for: {asked:?}");
    let seen = call[late].received_of(&camera);
    assert!(descriptor(seen[0]).key_frame);
    // First it is looked what her link carries.
    let waited = seen[0].at - connected;
    assert!(waited < Duration::from_millis(250), "{waited:?}");
    assert!(!call[late].received_of(&microphone).is_empty());
}

/// Which layer a packet of [`Medium::simulcast`] is of, by its size.
fn layer(got: &Got) -> usize {
    match got.payload.len() {
        ..300 => 0,
        300..600 => 1,
        _ => 2,
    }
}

/// One stream, whatever it was made of.
fn continuous(got: &[&Got]) {
    let mut before: Option<(&Got, Descriptor)> = None;
    for got in complete(got) {
        let now = descriptor(got);
        let Some((last, was)) = before.replace((got, now)) else {
            continue;
        };
        let (Some(PictureId::Long(id)), Some(PictureId::Long(old))) =
            (now.picture_id, was.picture_id)
        else {
            panic!("picture ids are long");
        };
        let new_frame = u8::from(now.start_of_frame);
        assert_eq!(id, (old + u16::from(new_frame)) & 0x7fff);
        assert_eq!(now.tl0, was.tl0.map(|tl0| tl0.wrapping_add(new_frame)));
        let step = got.timestamp.wrapping_sub(last.timestamp) as i32;
        assert!(step >= 0 && (new_frame == 1 || step == 0), "{step}");
        let passed = (got.at - last.at).as_millis() as i32 * 90;
        assert!((step - passed).abs() <= 90 * 20, "{step} in {passed}");
        if layer(got) != layer(last) {
            assert!(now.key_frame, "only a key frame leads to another layer");
        }
    }
}

#[test]
fn a_subscriber_changes_the_layer_and_sees_one_stream() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let camera = call.publish(anna, Medium::simulcast("camera"));
    let sizes = [(320, 180), (1280, 720), (640, 360), (100, 100), (1280, 720)];
    for (size, expected) in sizes.into_iter().zip([0, 2, 1, 0, 2]) {
        call.want(bert, &camera, |it| it.dimensions = Some(size));
        call.run(2000);
        let seen = call[bert].received_of(&camera);
        let last = seen.last().expect("it is seen");
        assert_eq!(layer(last), expected, "{size:?}");
        assert!(call.now - last.at < Duration::from_millis(50));
    }
    continuous(&call[bert].received_of(&camera));
    assert!(call.counters().layer_switches >= 5);
}

#[test]
fn a_disabled_track_stops_at_once_and_returns_with_a_key_frame() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let camera = call.publish(anna, Medium::simulcast("camera"));
    let microphone = call.publish(anna, Medium::microphone("microphone"));
    call.run(1000);
    for track in [&camera, &microphone] {
        call.want(bert, track, |it| it.disabled = true);
    }
    call.run(10);
    let before = call[bert].received.len();
    let asked = call[anna].key_frames_asked.len();
    call.run(2000);
    assert_eq!(call[bert].received.len(), before);
    assert_eq!(call[anna].key_frames_asked.len(), asked);
    for track in [&camera, &microphone] {
        call.want(bert, track, |_| {});
    }
    call.run(200);
    assert!(call[anna].key_frames_asked.len() > asked);
    let again = &call[bert].received[before..];
    let of = |got: &&Got| call[bert].track_by_ssrc[&got.ssrc] == camera;
    let picture = again.iter().find(of).expect("the picture is back");
    assert!(descriptor(picture).key_frame);
    assert!(again.iter().any(|got| !of(&got)), "the voice is back");
}

/// Five seconds of a camera in bad weather, then a second of good.
fn through(weather: Weather) -> (Call, Who, TrackSid, Vec<Content>) {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let camera = call.publish(anna, Medium::camera("camera"));
    call.run(500);
    call.weather = weather;
    call.run(5000);
    call.weather = Weather::default();
    call.run(1000);
    let sent = call[anna].medium("camera").medium.layers[0].sent.clone();
    (call, bert, camera, sent)
}

#[test]
fn what_is_lost_on_the_way_down_is_sent_again() {
    let (call, bert, camera, sent) = through(Weather { down: 10, up: 0 });
    let seen = complete(&call[bert].received_of(&camera));
    assert!(bit_exact(&seen, &sent, body) + 10 > sent.len());
    let counters = call.counters();
    assert!(counters.nacks_received > 10 && counters.retransmits > 10);
    assert!(call[bert].retransmissions_of(&camera) > 10);
}

#[test]
fn what_is_lost_on_the_way_up_is_asked_for() {
    // str0m as a sender repeats no more than 15 percent of what it sends.
    let (call, bert, camera, sent) = through(Weather { down: 0, up: 4 });
    assert!(call.counters().nacks_sent > 3);
    let mut seen = call[bert].received_of(&camera);
    seen.sort_by_key(|got| got.seq);
    let numbers = seen[seen.len() - 1].seq + 1 - seen[0].seq;
    let missing = numbers - bit_exact(&seen, &sent, body) as u64;
    // Of some thirty; str0m gives up now and then.
    assert!(
        missing <= 2 && numbers + 10 > sent.len() as u64,
        "{missing}"
    );
}

#[test]
fn no_nonce_is_used_twice_whatever_the_weather() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    call.weather = Weather { down: 8, up: 3 };
    for (who, other) in [(anna, bert), (bert, anna)] {
        let camera = call.publish(who, Medium::simulcast("camera"));
        call.publish(who, Medium::microphone("microphone"));
        call.run(3000);
        // Section, subscription and streams of that track are made anew.
        call.subscribe(other, &camera, false);
        call.run(500);
        call.subscribe(other, &camera, true);
    }
    // The books are kept by `Call`; here is whether there was something to write.
    call.run(4000);
    for who in [anna, bert] {
        let (rtp, rtcp, others) = call.ledger.entries(call[who].address);
        assert!(
            rtp > 500 && rtcp > 5 && others == 1,
            "{rtp} {rtcp} {others}"
        );
    }
    assert!(call.counters().retransmits > 20);
}

#[test]
fn sections_are_asked_for_exactly_as_far_as_they_are_missing() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    call[bert].obliging = false;
    let cameras: Vec<_> = (0..8)
        .map(|number| call.publish(anna, Medium::camera(&format!("camera {number}"))))
        .collect();
    call.run(3000);
    let one = (0, 1);
    assert_eq!(call[bert].asked_for(), [(0, 0), one, one, one, one, one]);
    call[bert].oblige();
    call.run(1000);
    assert_eq!(call[bert].mid_to_track.len(), 8);
    assert_eq!(call[bert].asked_for().len(), 6, "nothing more is asked for");
    for camera in &cameras {
        assert!(call[bert].received_of(camera).len() > 10);
    }
}

#[test]
fn an_unsubscribed_section_goes_quiet_once_and_is_used_again() {
    let mut call = Call::new();
    let (anna, bert) = (call.enter("anna"), call.enter("bert"));
    let cameras = ["one", "two", "three"].map(|cid| call.publish(anna, Medium::camera(cid)));
    let mid_of = |call: &Call, track: &TrackSid| {
        let map = call[bert].mid_to_track.iter();
        let mut found = map.filter(|(_, known)| known == track);
        found.next().map(|(mid, _)| mid.clone())
    };
    let freed = mid_of(&call, &cameras[0]).expect("it is received");
    call.subscribe(bert, &cameras[0], false);
    call.run(100);
    assert_eq!(call[bert].mid_to_track.len(), 2, "an answer without it");
    let fourth = call.publish(anna, Medium::camera("four"));
    call.run(300);
    assert_eq!(mid_of(&call, &fourth), Some(freed));
    assert!(call[bert].asked_for().iter().all(|asked| *asked == (0, 0)));
    let seen = call[bert].received_of(&fourth);
    assert!(descriptor(seen.first().expect("it is seen")).key_frame);
}
