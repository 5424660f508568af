//! Who reads along sends what a client sent, from elsewhere.

use std::net::SocketAddr;

use super::call::{Call, Who};
use super::track::Medium;
use crate::media::counters::Dropped;
use crate::media::demux;

/// The last check by which someone nominates a path.
fn last_check(call: &Call, who: Who) -> Vec<u8> {
    let nominates =
        |(from, it): &&(SocketAddr, Vec<u8>)| *from == call[who].address && demux::nominates(it);
    let (_, check) = call.kept.iter().rev().find(nominates).expect("a check");
    check.clone()
}

fn dropped(call: &Call, why: Dropped) -> u64 {
    call.counters().dropped[why as usize]
}

#[test]
fn a_check_sent_again_from_elsewhere_leads_no_media_there() {
    let mut call = Call::alone();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    call.publish(anna, Medium::microphone("microphone"));
    call.run(500);
    let check = last_check(&call, ben);
    let elsewhere = SocketAddr::from(([127, 0, 0, 9], 9));
    let invalid = dropped(&call, Dropped::StunInvalid);
    // Ben is out of reach for a moment, and what only looks like media comes from elsewhere.
    call[ben].silent = true;
    for _ in 0..10 {
        call.inject(elsewhere, &check);
        call.inject(elsewhere, &[0x80; 12]);
        call.run(50);
    }
    call[ben].silent = false;
    let before = call[ben].received.len();
    for _ in 0..10 {
        call.inject(elsewhere, &[0x80; 12]);
        call.run(50);
    }
    let received = call[ben].received.len() - before;
    assert!(received > 15, "{received} packets in half a second");
    assert_eq!(dropped(&call, Dropped::StunInvalid), invalid + 10);
    assert_eq!(dropped(&call, Dropped::UnknownAddress), 20);
}

#[test]
fn a_check_of_long_ago_leads_nobody_away_who_only_listens() {
    let mut call = Call::new();
    let ben = call.enter("ben");
    call.run(500);
    let check = last_check(&call, ben);
    // Longer than it takes to make a hundred.
    call.run(300_000);
    let invalid = dropped(&call, Dropped::StunInvalid);
    call[ben].silent = true;
    call.run(300);
    call.inject(SocketAddr::from(([127, 0, 0, 9], 9)), &check);
    assert_eq!(dropped(&call, Dropped::StunInvalid), invalid + 1);
}
