//! The books themselves: a nonce used twice, and each other offence, is caught.

use std::net::SocketAddr;

use super::ledger::{Ledger, Offence};
use crate::media::demux::Class;

fn rtp(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(seq.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(ssrc.to_be_bytes());
    packet
}

fn rtcp(kind: u8, ssrc: u32, index: u32) -> Vec<u8> {
    let mut packet = vec![0x80, kind, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0; 16]);
    packet.extend(index.to_be_bytes());
    packet
}

const E: u32 = 1 << 31;

#[test]
fn what_is_right_passes_and_each_offence_is_caught() {
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let mut ledger = Ledger::default();
    ledger.announce(address, "a=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\n");
    let mut enter = |datagram: &[u8]| ledger.enter(address, datagram);
    // Twice around, with a gap: the same numbers, other indices.
    for index in (0..140_000u32).step_by(7000) {
        assert_eq!(enter(&rtp(7, index as u16)), Ok(()));
    }
    let last = 133_000u64;
    assert_eq!(
        enter(&rtp(7, last as u16)),
        Err(Offence::Reused(Class::Rtp, 7, last))
    );
    assert_eq!(enter(&rtp(8, last as u16)), Ok(()), "another stream");
    assert_eq!(enter(&rtp(9, 1)), Err(Offence::Unannounced(9)));
    assert_eq!(enter(&rtcp(200, 7, E | 1)), Ok(()));
    let reused = Offence::Reused(Class::Rtcp, 7, (E | 1).into());
    assert_eq!(enter(&rtcp(200, 7, E | 1)), Err(reused));
    assert_eq!(enter(&rtcp(201, 5, E | 1)), Ok(()));
    assert_eq!(enter(&rtcp(201, 7, E | 2)), Err(Offence::Shared(7)));
    assert_eq!(enter(&rtcp(200, 5, E | 2)), Err(Offence::Shared(5)));
    assert_eq!(enter(&rtcp(201, 5, 3)), Err(Offence::Plain));
}
