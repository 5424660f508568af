//! When what a publisher sends leaves: sound at once, a picture when it is complete.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::call::{Call, LOCAL, Who};
use super::track::Medium;
use crate::media::burst::HOLD;
use crate::media::counters::Dropped;
use crate::media::demux::Class;
use crate::media::message::{Kind, Request};
use crate::media::{Input, Output};

/// A publisher and a viewer, with the picture running.
fn two(medium: Medium) -> (Call, Who, SocketAddr) {
    let mut call = Call::alone();
    let publisher = call.enter("publisher");
    call.publish(publisher, medium);
    let viewer = call.enter("viewer");
    call.run(1000);
    let address = call[viewer].address;
    (call, publisher, address)
}

/// The packets of one frame, or one of sound.
fn frame(call: &mut Call, publisher: Who, kind: Kind) -> Vec<Vec<u8>> {
    call.now += Duration::from_millis(40);
    let now = call.now;
    // What else is due is done before.
    let mut due = Some(now);
    while due.is_some_and(|at| at <= now) {
        call.shard.handle(now, Input::Timeout);
        due = leaving(call, LOCAL).1;
    }
    let client = &mut call[publisher];
    client.send_media(now, kind);
    let sent = client.outbox.drain(..).map(|(_, datagram)| datagram);
    let media = sent.filter(|datagram| Class::of(datagram) == Some(Class::Rtp));
    media.collect()
}

fn put(call: &mut Call, publisher: Who, now: Instant, contents: &[u8]) {
    let input = Input::Datagram {
        local: LOCAL,
        remote: call[publisher].address,
        contents,
    };
    call.shard.handle(now, input);
}

/// Runs of media that leave for `viewer`, each by the number of its datagrams, and the deadline.
fn leaving(call: &mut Call, viewer: SocketAddr) -> (Vec<usize>, Option<Instant>) {
    let mut runs = Vec::new();
    loop {
        match call.shard.poll() {
            Output::Transmit(out)
                if out.remote == viewer && Class::of(out.contents) == Some(Class::Rtp) =>
            {
                let segment = out.segment.unwrap_or(out.contents.len());
                runs.push(out.contents.len().div_ceil(segment));
            }
            Output::Timeout(deadline) => return (runs, deadline),
            _ => {}
        }
    }
}

#[test]
fn a_frame_leaves_as_one_run_when_it_is_complete() {
    let (mut call, publisher, viewer) = two(Medium::camera("camera"));
    let packets = frame(&mut call, publisher, Kind::Video);
    assert_eq!(packets.len(), 2);
    let now = call.now;
    put(&mut call, publisher, now, &packets[0]);
    let (runs, deadline) = leaving(&mut call, viewer);
    assert!(runs.is_empty());
    assert!(deadline.is_some_and(|at| at <= now + HOLD));
    put(&mut call, publisher, now + HOLD / 2, &packets[1]);
    let (runs, deadline) = leaving(&mut call, viewer);
    assert_eq!(runs, [2]);
    // Nothing is left to wake for.
    assert!(deadline.is_some_and(|at| at > now + HOLD));
    let held = call.counters().hold_seconds;
    assert!(held.sum() > 0.0 && held.sum() < HOLD.as_secs_f64() * held.count() as f64);
}

#[test]
fn a_frame_whose_end_is_late_does_not_wait_for_it() {
    let (mut call, publisher, viewer) = two(Medium::camera("camera"));
    let packets = frame(&mut call, publisher, Kind::Video);
    let now = call.now;
    put(&mut call, publisher, now, &packets[0]);
    let (_, deadline) = leaving(&mut call, viewer);
    let at = deadline.expect("a deadline");
    call.shard.handle(at, Input::Timeout);
    assert_eq!(leaving(&mut call, viewer).0, [1]);
    put(&mut call, publisher, at + HOLD, &packets[1]);
    assert_eq!(leaving(&mut call, viewer).0, [1]);
}

#[test]
fn sound_does_not_wait() {
    let (mut call, publisher, viewer) = two(Medium::microphone("microphone"));
    let packets = frame(&mut call, publisher, Kind::Audio);
    let now = call.now;
    put(&mut call, publisher, now, &packets[0]);
    assert_eq!(leaving(&mut call, viewer).0, [1]);
}

#[test]
fn what_waits_of_a_track_that_ends_is_gone_with_it() {
    let (mut call, publisher, viewer) = two(Medium::camera("camera"));
    let packets = frame(&mut call, publisher, Kind::Video);
    let now = call.now;
    put(&mut call, publisher, now, &packets[0]);
    leaving(&mut call, viewer);
    call.ask(publisher, Request::Leave);
    call.shard.handle(now + HOLD, Input::Timeout);
    assert!(leaving(&mut call, viewer).0.is_empty());
}

#[test]
fn what_waits_of_a_track_that_ends_is_counted() {
    let (mut call, publisher, _) = two(Medium::camera("camera"));
    let packets = frame(&mut call, publisher, Kind::Video);
    let now = call.now;
    put(&mut call, publisher, now, &packets[0]);
    call.ask(publisher, Request::Leave);
    assert_eq!(call.counters().dropped[Dropped::TrackUnknown as usize], 1);
}
