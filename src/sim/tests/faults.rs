//! Every judge finds fault with what was broken on purpose, and only with that.

use std::mem::discriminant;
use std::time::{Duration, Instant};

use super::{millis, secs};
use crate::ids::TrackSid;
use crate::media::message::{Kind, Notice, Quality};
use crate::sim::content::Stamp;
use crate::sim::decoder::Decoder;
use crate::sim::judge::{Arrivals, Judge, Received, Seen};
use crate::sim::medium::{Encoded, Encoder};
use crate::sim::{Client, Link, Medium, Meeting, Offence, Sees, World};

/// What a perfect shard sends of one layer of a camera.
fn tape(layer: u8, frames: u32) -> Vec<Encoded> {
    let start = Instant::now();
    let stamp = Stamp {
        sent: 0,
        sender: 1,
        track: 2,
        layer,
        seq: 0,
        frame: 0,
    };
    let mut random = fastrand::Rng::with_seed(layer.into());
    let medium = Medium::simulcast("camera");
    let mut encoder = Encoder::new(&medium, stamp, &mut random, start);
    let mut tape = Vec::new();
    for frame in 0..frames {
        tape.extend_from_slice(encoder.encode(start + millis(34 * u64::from(frame))));
    }
    tape
}

fn judge(tape: &[Encoded]) -> Vec<Offence> {
    let mut judge = Judge::new(Kind::Video, 1, 2);
    let mut offences = Vec::new();
    let arrivals = Arrivals::default();
    for packet in tape {
        let received = Received {
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: &packet.payload,
            repaired: false,
            ordered: true,
        };
        judge.take(&received, &arrivals, &mut |offence| offences.push(offence));
    }
    offences
}

/// The tape, broken by `break_it`, must show offences of this kind, and no others.
#[track_caller]
fn shows(expected: Offence, break_it: impl FnOnce(&mut Vec<Encoded>)) {
    let mut tape = tape(2, 12);
    assert_eq!(judge(&tape), [], "a whole tape is blameless");
    break_it(&mut tape);
    let found = judge(&tape);
    assert!(!found.is_empty(), "{expected:?} was not found");
    for offence in &found {
        assert_eq!(
            discriminant(offence),
            discriminant(&expected),
            "{offence:?}"
        );
    }
}

const ANY: Stamp = Stamp {
    sent: 0,
    sender: 0,
    track: 0,
    layer: 0,
    seq: 0,
    frame: 0,
};

const SEEN: Seen = Seen {
    seq: 0,
    timestamp: 0,
    marker: false,
    stamp: ANY,
    vp8: None,
};

/// Where the first packet of the last frame but `back` is.
fn frame_start(tape: &[Encoded], back: usize) -> usize {
    let ends = tape.iter().enumerate().filter(|(_, packet)| packet.marker);
    ends.rev().nth(back + 1).expect("there are more frames").0 + 1
}

#[test]
fn another_ones_packet_is_misdirected() {
    shows(Offence::Misdirected(ANY), |tape| {
        let packet = tape.last_mut().expect("a tape has packets");
        let mut stamp = Stamp::read(&packet.payload).expect("it is stamped");
        stamp.sender = 7;
        packet
            .payload
            .truncate(packet.payload.len() - crate::sim::content::STAMP);
        stamp.write(&mut packet.payload);
    });
}

#[test]
fn a_changed_payload_is_garbled() {
    shows(Offence::Garbled(0), |tape| {
        tape[5].payload.pop();
    });
}

#[test]
fn one_number_for_two_packets_is_found() {
    shows(Offence::TwoPayloads(0, ANY, ANY), |tape| {
        let mut again = tape[6].clone();
        again.seq = tape[5].seq;
        tape.insert(7, again);
    });
}

#[test]
fn a_packet_sent_twice_is_none() {
    let mut tape = tape(2, 6);
    tape.insert(9, tape[5].clone());
    assert_eq!(judge(&tape), []);
}

#[test]
fn a_packet_held_back_is_overtaken() {
    shows(Offence::Overtaken(ANY), |tape| tape.swap(10, 11));
}

#[test]
fn what_reached_the_shard_late_may_leave_late() {
    let mut arrivals = Arrivals::default();
    let mut tape = tape(2, 6);
    tape.swap(10, 11);
    let mut judge = Judge::new(Kind::Video, 1, 2);
    for packet in &tape {
        arrivals.note(&Stamp::read(&packet.payload).expect("it is stamped"));
        let received = Received {
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: &packet.payload,
            repaired: false,
            ordered: true,
        };
        judge.take(&received, &arrivals, &mut |offence| panic!("{offence:?}"));
    }
}

#[test]
fn exchanged_numbers_are_out_of_order() {
    shows(Offence::OutOfOrder(SEEN, SEEN), |tape| {
        // Two in the middle of a frame: nothing but their order is wrong.
        let at = frame_start(tape, 3) + 1;
        assert!(!tape[at + 1].marker);
        let (first, second) = (tape[at].seq, tape[at + 1].seq);
        (tape[at].seq, tape[at + 1].seq) = (second, first);
        tape.swap(at, at + 1);
    });
}

#[test]
fn time_that_falls_is_found() {
    shows(Offence::TimeFalls(SEEN, SEEN), |tape| {
        let at = frame_start(tape, 2);
        for packet in &mut tape[at..] {
            packet.timestamp = packet.timestamp.wrapping_sub(90_000);
        }
    });
}

#[test]
fn a_picture_id_that_jumps_is_found() {
    shows(Offence::PictureBreak(SEEN, SEEN), |tape| {
        let at = frame_start(tape, 2);
        for packet in &mut tape[at..] {
            packet.payload[3] = packet.payload[3].wrapping_add(1);
        }
    });
}

#[test]
fn a_picture_id_that_changes_within_a_frame_is_found() {
    shows(Offence::PictureBreak(SEEN, SEEN), |tape| {
        let at = frame_start(tape, 2) + 1;
        tape[at].payload[3] ^= 4;
    });
}

#[test]
fn a_base_layer_number_that_jumps_is_found() {
    shows(Offence::PictureBreak(SEEN, SEEN), |tape| {
        let at = frame_start(tape, 2);
        for packet in &mut tape[at..] {
            packet.payload[4] = packet.payload[4].wrapping_add(1);
        }
    });
}

/// A frame that is left out must take its picture id with it.
#[test]
fn a_frame_left_out_leaves_no_gap() {
    shows(Offence::PictureBreak(SEEN, SEEN), |tape| {
        let (from, to) = (frame_start(tape, 3), frame_start(tape, 2));
        let gone = (to - from) as u64;
        tape.drain(from..to);
        for packet in &mut tape[from..] {
            packet.seq -= gone;
        }
    });
}

#[test]
fn a_layer_that_begins_inside_is_found() {
    let splice = |from: usize| {
        let (mut tape, other) = (tape(2, 6), tape(1, 12));
        let last = tape.last().expect("a tape has packets").clone();
        let ids = |packet: &Encoded| [3, 4].map(|at| packet.payload[at]);
        let [picture, tl0] = ids(&last);
        let [first_picture, first_tl0] = ids(&other[from]);
        let (first_seq, first_timestamp) = (other[from].seq, other[from].timestamp);
        for packet in &other[from..] {
            let mut packet = packet.clone();
            packet.seq = packet.seq - first_seq + last.seq + 1;
            packet.timestamp = packet.timestamp.wrapping_sub(first_timestamp);
            packet.timestamp = packet.timestamp.wrapping_add(last.timestamp + 3000);
            packet.payload[2] = last.payload[2];
            packet.payload[3] = packet.payload[3].wrapping_sub(first_picture) + picture + 1;
            packet.payload[4] = packet.payload[4].wrapping_sub(first_tl0) + tl0 + 1;
            tape.push(packet);
        }
        judge(&tape)
    };
    assert_eq!(splice(0), [], "at its key frame a layer may begin");
    let base = |packet: &Encoded| packet.payload[5] >> 6 == 0 && packet.payload[0] & 0x10 != 0;
    let other = tape(1, 12);
    let later = other
        .iter()
        .rposition(base)
        .expect("the pattern comes round");
    let found = splice(later);
    assert!(
        matches!(found[..], [Offence::SwitchedInside(..)]),
        "{found:?}"
    );
}

/// A decoder fed with a tape, without the frames that are left out.
fn decode(leave_out: &[u32]) -> (Decoder, bool) {
    let start = Instant::now();
    let (mut judge, mut decoder) = (Judge::new(Kind::Video, 1, 2), Decoder::default());
    let mut asked = false;
    for packet in tape(2, 40) {
        let stamp = Stamp::read(&packet.payload).expect("it is stamped");
        let now = start + millis(34 * u64::from(stamp.frame));
        asked |= decoder.wants_key_frame(now);
        if leave_out.contains(&stamp.frame) {
            continue;
        }
        let received = Received {
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload: &packet.payload,
            repaired: false,
            ordered: true,
        };
        let seen = judge.take(&received, &Arrivals::default(), &mut |offence| {
            panic!("{offence:?}")
        });
        decoder.take(now, &seen.expect("it is new"));
    }
    decoder.freeze_max = decoder.longest_freeze(start + millis(34 * 40));
    (decoder, asked)
}

#[test]
fn a_decoder_shows_what_it_can_and_freezes_where_it_must() {
    let (whole, asked) = decode(&[]);
    assert_eq!((whole.frames_shown, asked), ([0, 0, 40], false));
    assert!(whole.freeze_max < millis(50));
    // Nothing refers to a frame of the highest temporal layer.
    let (thinned, asked) = decode(&[6, 8]);
    assert_eq!((thinned.frames_shown, asked), ([0, 0, 38], false));
    assert!(thinned.freeze_max < millis(80));
    // All refers to the lowest: the picture stands from there on.
    let (mut frozen, asked) = decode(&[9]);
    assert_eq!((frozen.frames_shown, asked), ([0, 0, 8], false));
    assert!(
        frozen.wants_key_frame(Instant::now() + secs(4)),
        "in the end"
    );
    assert!(frozen.freeze_max > secs(1), "{:?}", frozen.freeze_max);
    // Without its key frame it never begins.
    let (black, asked) = decode(&[1]);
    assert_eq!((black.frames_shown, asked), ([0; 3], true));
}

/// A client that was answered: one track comes in its first audio section, on SSRC 7.
fn answered(mapped: &str) -> (Client, World, Instant) {
    let now = Instant::now();
    let mut client = Client::new(0, "anna", fastrand::Rng::with_seed(1), now);
    let (mut world, track) = (World::default(), TrackSid::from("TR_a"));
    world.published(&track, Kind::Audio, (1, 0));
    let notice = Notice::Answer {
        id: 1,
        sdp: "v=0\r\nm=audio\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=mid:0\r\na=sendonly\r\n\
            a=msid:PA_b|TR_a TR_a\r\na=ssrc:7 cname:x\r\n"
            .to_owned(),
        mid_to_track: vec![("0".to_owned(), mapped.into())],
    };
    client.notice(now, &notice, &world);
    (client, world, now)
}

/// RTP that nobody sealed.
fn rtp(ssrc: u8) -> Vec<u8> {
    let mut bytes = vec![0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, ssrc];
    bytes.resize(60, 0);
    bytes
}

#[test]
fn what_the_keys_do_not_open_and_what_nobody_announced_is_found() {
    let (mut client, world, now) = answered("TR_a");
    assert_eq!(client.offences, []);
    client.receive(now, &rtp(7), &world);
    client.receive(now, &[0x80, 201, 0, 1, 0, 0, 0, 7], &world);
    assert_eq!(client.offences, [(now, Offence::Unopened); 2]);
    client.receive(now, &rtp(8), &world);
    let unannounced: Vec<_> = client.unannounced().collect();
    assert_eq!(unannounced, [Offence::Unannounced(8)]);
}

#[test]
fn an_answer_that_contradicts_itself_is_found() {
    let (client, _, now) = answered("TR_b");
    assert_eq!(client.offences, [(now, Offence::Mapping)]);
}

/// As a browser: a new name on a section that never went quiet raises no event.
#[test]
fn a_track_that_takes_over_a_section_raises_no_event() {
    let (mut client, mut world, now) = answered("TR_a");
    world.published(&"TR_c".into(), Kind::Audio, (1, 1));
    let notice = Notice::Answer {
        id: 2,
        sdp: "v=0\r\nm=audio\r\na=mid:0\r\na=sendonly\r\na=msid:PA_b|TR_c TR_c\r\n\
            a=ssrc:9 cname:x\r\n"
            .to_owned(),
        mid_to_track: vec![("0".to_owned(), "TR_c".into())],
    };
    client.notice(now, &notice, &world);
    assert_eq!(client.raised, ["TR_a".into()]);
}

/// Anna's camera, as Bert sees it for so long.
fn watched(span: Duration) -> Meeting {
    let mut meeting = Meeting::seeded(1);
    meeting.enter("anna", Link::broadband());
    meeting.enter("bert", Link::broadband());
    meeting.publish("anna", Medium::simulcast("camera"));
    meeting.run(span);
    meeting
}

#[test]
#[should_panic = "bert must see"]
fn the_wrong_layer_is_not_what_is_expected() {
    watched(secs(3)).expect("bert", Sees::layer("anna", Quality::Low));
}

#[test]
#[should_panic = "bert must see"]
fn a_picture_that_stands_is_not_what_is_expected() {
    let mut meeting = watched(secs(3));
    meeting.unpublish("anna", "camera");
    meeting.run(secs(1));
    meeting.expect("bert", Sees::picture("anna"));
}

#[test]
#[should_panic = "stand for"]
fn a_freeze_is_seen() {
    let mut meeting = watched(secs(3));
    meeting.link("anna", Link::lossy(1.0));
    meeting.run(secs(1));
    meeting.assert_longest_freeze_below("bert", millis(800));
}
