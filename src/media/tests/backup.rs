//! A track in two codecs: everybody gets one that they can read, and nothing is sent for nobody.

use std::net::SocketAddr;

use super::call::{Call, Who};
use super::client::{Client, Got};
use super::track::Medium;
use crate::ids::TrackSid;
use crate::media::message::{BackupPolicy, Codec, Notice, Quality, Request, TrackRefusal};

/// Someone who reads VP8 and VP9.
fn enter_modern(call: &mut Call, identity: &str) -> Who {
    let who = call.join_as(identity, |_| {});
    let (session, address): (_, SocketAddr) = (call[who].session, call[who].address);
    let mut client = Client::with(Codec::Vp9, (session, identity, address), call.now);
    client.notices = std::mem::take(&mut call[who].notices);
    call[who] = client;
    call[who].offer();
    call.until(|call| call[who].connected);
    who
}

/// VP9, and VP8 for those who need it.
fn camera() -> Medium {
    let mut medium = Medium::camera("camera");
    medium.codec = Codec::Vp9;
    medium.backup = Some(Codec::Vp8);
    medium
}

/// What the publisher was last told to send.
fn demand(call: &Call, who: Who) -> Option<Vec<(String, Option<Quality>)>> {
    let mut notices = call[who].notices.iter().rev();
    notices.find_map(|notice| match notice {
        Notice::Demand { codecs, .. } => Some(codecs.clone()),
        _ => None,
    })
}

fn told(vp9: Option<Quality>, vp8: Option<Quality>) -> Option<Vec<(String, Option<Quality>)>> {
    Some(vec![
        ("video/VP9".to_owned(), vp9),
        ("video/VP8".to_owned(), vp8),
    ])
}

/// Packets of a track that came within the last second, as (VP9, VP8).
fn lately(call: &Call, who: Who, track: &TrackSid) -> (usize, usize) {
    let late = |got: &&Got| (call.now - got.at).as_millis() < 1000;
    let got = call[who].received_of(track).into_iter().filter(late);
    // Only our VP8 has a descriptor of more than one octet.
    let (vp8, vp9): (Vec<_>, Vec<_>) = got.partition(|got| got.payload[0] & 0x80 != 0);
    (vp9.len(), vp8.len())
}

/// Anna publishes in VP9; bert reads it, carl doesn't.
fn meeting() -> (Call, [Who; 3], TrackSid) {
    meeting_of(camera())
}

fn meeting_of(camera: Medium) -> (Call, [Who; 3], TrackSid) {
    let mut call = Call::new();
    let anna = enter_modern(&mut call, "anna");
    let bert = enter_modern(&mut call, "bert");
    let carl = call.enter("carl");
    let track = call.publish(anna, camera);
    call.run(2000);
    (call, [anna, bert, carl], track)
}

/// The same, and anna does as she was told.
fn meeting_with_backup() -> (Call, [Who; 3], TrackSid) {
    let (mut call, people, track) = meeting();
    call[people[0]].publish_backup(&track, Medium::camera("backup"));
    call.run(2000);
    (call, people, track)
}

#[test]
fn who_cant_read_the_first_codec_gets_the_backup() {
    let (mut call, [anna, bert, carl], track) = meeting();
    let high = Some(Quality::High);
    assert_eq!(demand(&call, anna), told(high, high));
    assert!(lately(&call, bert, &track).0 > 0);
    assert_eq!(lately(&call, carl, &track), (0, 0), "it isn't sent yet");
    call[anna].publish_backup(&track, Medium::camera("backup"));
    call.run(2000);
    assert_eq!(call[anna].published("backup"), Some(track.clone()));
    assert_eq!(call.counters().tracks, [0, 1]);
    let (bert_gets, carl_gets) = (lately(&call, bert, &track), lately(&call, carl, &track));
    assert!(bert_gets.0 > 40 && bert_gets.1 == 0, "{bert_gets:?}");
    assert!(carl_gets.1 > 40 && carl_gets.0 == 0, "{carl_gets:?}");
    let refused = |notice: &Notice| matches!(notice, Notice::CodecUnsupported(_));
    assert!(!call[carl].notices.iter().any(refused));
    call.consistent();
}

#[test]
fn a_backup_that_is_wanted_is_asked_for_until_it_is_announced() {
    let (mut call, [anna, ..], track) = meeting();
    let high = Some(Quality::High);
    let asked = |call: &Call| {
        let notices = call[anna].notices.iter();
        let demands = notices.filter(|it| matches!(it, Notice::Demand { .. }));
        demands.count()
    };
    assert_eq!(demand(&call, anna), told(high, high));
    let before = asked(&call);
    call.run(20_000);
    let again = asked(&call) - before;
    assert!((3..=5).contains(&again), "{again}");
    assert_eq!(demand(&call, anna), told(high, high));
    call[anna].publish_backup(&track, Medium::camera("backup"));
    call.run(1000);
    let before = asked(&call);
    call.run(40_000);
    assert_eq!(asked(&call), before, "it has come");
}

#[test]
fn each_codec_is_asked_for_as_far_as_somebody_has_it() {
    let (mut call, [anna, bert, carl], track) = meeting_with_backup();
    let high = Some(Quality::High);
    call.subscribe(carl, &track, false);
    call.run(6000);
    assert_eq!(demand(&call, anna), told(high, None));
    call.subscribe(bert, &track, false);
    call.subscribe(carl, &track, true);
    call.run(500);
    assert_eq!(demand(&call, anna), told(high, high), "more at once");
    call.run(6000);
    assert_eq!(demand(&call, anna), told(None, high));
    assert!(lately(&call, carl, &track).1 > 40);
}

#[test]
fn a_key_frame_is_asked_of_the_codec_that_waits_for_it() {
    let (mut call, [anna, bert, carl], track) = meeting_with_backup();
    for (who, sender) in [(bert, "camera"), (carl, "backup")] {
        call.want(who, &track, |it| it.disabled = true);
        call.run(100);
        let before = call[anna].key_frames_asked.len();
        call.want(who, &track, |_| {});
        call.run(1000);
        let mid = call[anna].medium(sender).mid;
        let asked = &call[anna].key_frames_asked[before..];
        assert!(!asked.is_empty() && asked.iter().all(|(_, it, _)| *it == mid));
    }
}

#[test]
fn an_encoder_that_falls_back_serves_everybody() {
    let (mut call, [anna, bert, carl], track) = meeting_with_backup();
    call[anna].medium("camera").medium.codec = Codec::Vp8;
    call.run(7000);
    for who in [bert, carl] {
        let (vp9, vp8) = lately(&call, who, &track);
        assert!(vp8 > 40 && vp9 == 0, "{vp9} {vp8}");
        let mut seqs: Vec<_> = call[who]
            .received_of(&track)
            .iter()
            .map(|it| it.seq)
            .collect();
        seqs.sort_unstable();
        assert!(
            seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "no gap, nothing twice"
        );
    }
    // The client knows its codecs by the names that it announced.
    assert_eq!(demand(&call, anna), told(Some(Quality::High), None));
    call.consistent();
}

#[test]
fn who_could_not_read_a_codec_gets_the_one_that_follows() {
    let mut medium = camera();
    medium.backup = None;
    let (mut call, [anna, bert, carl], track) = meeting_of(medium);
    let refused = |notice: &Notice| matches!(notice, Notice::CodecUnsupported(_));
    assert!(call[carl].notices.iter().any(refused));
    call[anna].medium("camera").medium.codec = Codec::Vp8;
    call.run(3000);
    for who in [bert, carl] {
        assert!(lately(&call, who, &track).1 > 40, "{who:?}");
    }
    call.consistent();
}

#[test]
fn who_cant_afford_two_encoders_sends_everybody_the_backup() {
    let mut medium = camera();
    medium.backup_policy = BackupPolicy::Regression;
    let (mut call, [anna, bert, carl], track) = meeting_of(medium);
    assert!(lately(&call, bert, &track).0 > 40, "it isn't there yet");
    call[anna].publish_backup(&track, Medium::camera("backup"));
    call.run(7000);
    for who in [bert, carl] {
        let (vp9, vp8) = lately(&call, who, &track);
        assert!(vp8 > 40 && vp9 == 0, "{vp9} {vp8}");
    }
    assert_eq!(demand(&call, anna), told(None, Some(Quality::High)));
    call[anna].unpublish("backup");
    call.run(2000);
    assert!(lately(&call, bert, &track).0 > 40, "better than nothing");
    call.consistent();
}

#[test]
fn a_track_ends_with_all_its_sections() {
    let (mut call, [anna, bert, carl], track) = meeting_with_backup();
    call[anna].unpublish("backup");
    call.run(1000);
    call.consistent();
    assert!(lately(&call, bert, &track).0 > 0);
    assert_eq!(
        demand(&call, anna),
        told(Some(Quality::High), Some(Quality::High))
    );
    call[anna].publish_backup(&track, Medium::camera("again"));
    call.run(2000);
    assert!(lately(&call, carl, &track).1 > 0);
    // Behind an offer that is under way, so that one offer ends both.
    call[anna].offer();
    call[anna].unpublish("again");
    call[anna].unpublish("camera");
    call.run(1000);
    assert_eq!(call.counters().tracks, [0, 0]);
    call.consistent();
}

#[test]
fn a_codec_is_added_only_to_an_own_track_that_announced_it() {
    let (mut call, [anna, bert, _], track) = meeting();
    let ask = |call: &mut Call, who: Who, sid: &TrackSid, codec: Codec| {
        let mut request = Medium::camera("more").announcement();
        request.sid = Some(sid.clone());
        request.codecs[0].mime = codec.mime().to_owned();
        call.ask(who, Request::AddTrack(Box::new(request)));
        match call[who].notices.last() {
            Some(Notice::TrackRefused { reason, .. }) => Some(*reason),
            _ => None,
        }
    };
    let (unknown, vp8) = (TrackSid::from("TR_none"), Codec::Vp8);
    assert_eq!(
        ask(&mut call, anna, &unknown, vp8),
        Some(TrackRefusal::NotFound)
    );
    assert_eq!(
        ask(&mut call, bert, &track, vp8),
        Some(TrackRefusal::NotFound)
    );
    for codec in [Codec::Vp9, Codec::Av1, Codec::Opus] {
        let refused = ask(&mut call, anna, &track, codec);
        assert_eq!(refused, Some(TrackRefusal::Unsupported), "{codec:?}");
    }
    assert_eq!(ask(&mut call, anna, &track, vp8), None);
    call.run(1000);
    assert_eq!(call.counters().tracks, [0, 1]);
}

/// Each size of VP9 may be a stream of its own, as with VP8: only its own key frame leads to it.
#[test]
fn vp9_in_simulcast_changes_between_streams() {
    let mut call = Call::new();
    let (anna, bert) = (
        enter_modern(&mut call, "anna"),
        enter_modern(&mut call, "bert"),
    );
    let mut medium = Medium::simulcast("camera");
    medium.codec = Codec::Vp9;
    let track = call.publish(anna, medium);
    let simulcast = |notice: &Notice| match notice {
        Notice::Participant(info) => info.tracks.iter().any(|it| it.simulcast),
        _ => false,
    };
    assert!(call[bert].notices.iter().any(simulcast));
    for (size, bytes) in [((320, 180), 200), ((1280, 720), 800), ((640, 360), 400)] {
        call.want(bert, &track, |it| it.dimensions = Some(size));
        call.run(2000);
        let got = call[bert].received_of(&track);
        let last = got.last().expect("it is seen");
        // A descriptor of one octet in front, the number behind.
        assert_eq!(last.payload.len(), 1 + bytes + 8, "{size:?}");
        let first = got.iter().find(|it| it.payload.len() == last.payload.len());
        let key = first.is_some_and(|it| it.payload[0] == 0x08);
        assert!(key, "it begins with a key frame");
    }
    assert!(call.counters().layer_switches >= 3);
}
