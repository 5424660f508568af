//! How stays begin and end, well or badly, and that nothing of them is left behind.

use super::call::{Call, Who};
use super::fault::{self, Point};
use super::track::Medium;
use crate::media::message::{LeaveReason, Notice, Request};

/// How often others were told that someone is gone.
fn goodbyes(call: &Call, who: Who) -> usize {
    let told = call[who].notices.iter().map(|notice| match notice {
        Notice::Participant(info) => usize::from(info.left.is_some()),
        _ => 0,
    });
    told.sum()
}

/// No gauge shows anything.
fn nothing_is_left(call: &Call) {
    let counters = call.counters();
    assert_eq!((counters.rooms, counters.participants), (0, 0));
    assert_eq!(counters.tracks, [0, 0]);
    assert_eq!(counters.subscriptions, [0, 0]);
    assert_eq!(counters.leaves.iter().sum::<u64>(), counters.joins);
}

/// Whether media of `from` comes to `to` now.
fn flows(call: &mut Call, from: Who, to: Who) -> bool {
    let cid = call[from].sending[0].medium.cid.clone();
    let track = call[from].published(&cid).expect("it is published");
    let before = call[to].received_of(&track).len();
    call.run(300);
    call[to].received_of(&track).len() > before + 5
}

#[test]
fn a_panic_in_one_peer_ends_that_stay_only() {
    let mut call = Call::new();
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|who| call.enter(who));
    for who in [anna, bert, carl] {
        call.publish(who, Medium::camera("camera"));
    }
    call.run(500);
    fault::arm(Point::Datagram, "bert");
    call.run(100);
    assert_eq!(call[bert].departure(), Some(LeaveReason::Internal));
    assert_eq!(goodbyes(&call, anna), 1);
    assert!(flows(&mut call, anna, carl) && flows(&mut call, carl, anna));
    let counters = call.counters();
    assert_eq!((counters.peer_panics, counters.participants), (1, 2));
    assert_eq!((counters.tracks, counters.subscriptions), ([0, 2], [0, 2]));
    let again = call.enter("bert");
    call.publish(again, Medium::camera("camera"));
    assert!(flows(&mut call, again, anna) && flows(&mut call, anna, again));
    assert!(call[anna].departure().is_none() && call[carl].departure().is_none());
}

#[test]
fn a_panic_that_does_not_let_go_ends_its_room_and_no_other() {
    let mut call = Call::alone();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    let elsewhere = ["carl", "dora"].map(|who| call.enter_as(who, |it| it.room = "other".into()));
    for who in [anna, bert, elsewhere[0], elsewhere[1]] {
        call.publish(who, Medium::camera("camera"));
    }
    fault::arm(Point::Datagram, "bert");
    fault::arm(Point::Leave, "bert");
    call.run(100);
    for who in [anna, bert] {
        assert_eq!(call[who].departure(), Some(LeaveReason::Internal));
    }
    assert_eq!(call.closed, ["room".into()]);
    assert!(flows(&mut call, elsewhere[0], elsewhere[1]));
    let counters = call.counters();
    assert_eq!((counters.rooms, counters.participants), (1, 2));
    assert_eq!((counters.tracks, counters.subscriptions), ([0, 2], [0, 2]));
    let again = call.enter("anna");
    call.publish(again, Medium::camera("camera"));
    for who in [again, elsewhere[0], elsewhere[1]] {
        call.ask(who, Request::Leave);
    }
    call.run(21_000);
    nothing_is_left(&call);
}

#[test]
fn the_same_identity_takes_over_and_others_are_not_told_of_an_end() {
    let mut call = Call::new();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    let old = call.enter_as("old", |it| it.client.protocol = 11);
    call.publish(anna, Medium::camera("camera"));
    let again = call.enter("anna");
    assert_eq!(call[anna].departure(), Some(LeaveReason::DuplicateIdentity));
    assert_eq!((goodbyes(&call, bert), goodbyes(&call, old)), (0, 1));
    call.publish(again, Medium::camera("camera"));
    assert!(flows(&mut call, again, bert));
    assert_eq!(call.counters().participants, 3);
}

#[test]
fn without_signalling_a_stay_lasts_as_long_as_its_media() {
    let mut call = Call::new();
    let unconnected = call.join_as("early", |_| {});
    call.close_signalling(unconnected);
    assert_eq!(
        call[unconnected].departure(),
        Some(LeaveReason::SignalClosed)
    );
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    call.publish(anna, Medium::camera("camera"));
    call.close_signalling(anna);
    call.run(10_000);
    assert!(flows(&mut call, anna, bert));
    call.vanish(anna);
    call.run(4500);
    assert_eq!(call[anna].departure(), None);
    call.run(1000);
    assert_eq!(call[anna].departure(), Some(LeaveReason::SignalClosed));
    call.vanish(bert);
    call.run(19_500);
    assert_eq!(call[bert].departure(), None);
    call.run(1000);
    assert_eq!(call[bert].departure(), Some(LeaveReason::ConnectionTimeout));
}

#[test]
fn garbage_does_not_keep_a_stay_alive() {
    let mut call = Call::new();
    let anna = call.enter("anna");
    call.run(500);
    call.vanish(anna);
    let address = call[anna].address;
    let stun = call.kept.iter().find(|(_, datagram)| datagram[0] < 4);
    let mut stun = stun.expect("there were checks").1.clone();
    stun[30] ^= 1;
    for _ in 0..110 {
        call.run(200);
        call.inject(address, &[0x80; 100]);
        call.inject(address, &[22; 100]);
        call.inject(address, &[&[0x80, 200], &[1; 60][..]].concat());
        call.inject(address, &stun);
    }
    assert_eq!(call[anna].departure(), Some(LeaveReason::ConnectionTimeout));
}

#[test]
fn who_never_connects_is_removed() {
    let mut call = Call::new();
    let anna = call.join_as("anna", |_| {});
    call.run(14_900);
    assert_eq!(call[anna].departure(), None);
    call.run(400);
    assert_eq!(call[anna].departure(), Some(LeaveReason::JoinFailure));
}

#[test]
fn an_empty_room_is_kept_a_while_and_then_closed() {
    let mut call = Call::new();
    let [anna, bert] = ["anna", "bert"].map(|who| call.enter(who));
    for who in [anna, bert] {
        call.publish(who, Medium::simulcast("camera"));
        call.publish(who, Medium::microphone("microphone"));
    }
    call.run(500);
    for who in [anna, bert] {
        call.ask(who, Request::Leave);
        assert_eq!(call[who].departure(), Some(LeaveReason::ClientInitiated));
    }
    call.run(19_900);
    assert_eq!((call.counters().rooms, call.closed.len()), (1, 0));
    call.run(200);
    assert_eq!(call.closed, ["room".into()]);
    nothing_is_left(&call);
}

#[test]
fn a_room_that_was_used_again_meanwhile_is_closed_too() {
    let mut call = Call::new();
    for _ in 0..2 {
        let anna = call.enter("anna");
        call.run(5000);
        call.ask(anna, Request::Leave);
    }
    call.run(19_900);
    assert!(call.closed.is_empty());
    call.run(500);
    assert_eq!(call.closed, ["room".into()]);
    nothing_is_left(&call);
}
