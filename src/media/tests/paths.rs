//! Who reads along sends what a client sent, from elsewhere.

use std::net::SocketAddr;

use super::call::Call;
use super::track::Medium;
use crate::media::counters::Dropped;
use crate::media::demux;

#[test]
fn a_check_sent_again_from_elsewhere_leads_no_media_there() {
    let mut call = Call::new();
    let (anna, ben) = (call.enter("anna"), call.enter("ben"));
    call.publish(anna, Medium::microphone("microphone"));
    call.run(500);
    let nominates =
        |(from, it): &&(SocketAddr, Vec<u8>)| *from == call[ben].address && demux::nominates(it);
    let check = call
        .kept
        .iter()
        .rev()
        .find(nominates)
        .expect("a check")
        .1
        .clone();
    let elsewhere = SocketAddr::from(([127, 0, 0, 9], 9));
    let dropped = |call: &Call, why: Dropped| call.counters().dropped[why as usize];
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
