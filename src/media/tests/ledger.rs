//! Keeps the books on what leaves a shard: no (SSRC, index) twice, and no SSRC used by both
//! sides. Plain headers are enough for that: SSRC and sequence number are never encrypted, and
//! SRTCP under GCM ends with its index (RFC 7714 section 9.2).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use crate::media::demux::Class;

/// The books, one page for each connection.
#[derive(Default)]
pub struct Ledger {
    pages: HashMap<SocketAddr, Page>,
}

#[derive(Default)]
struct Page {
    /// SSRCs that an answer named: ours.
    announced: HashSet<u32>,
    newest: HashMap<u32, u64>,
    rtp: HashSet<(u32, u64)>,
    rtcp: HashSet<(u32, u32)>,
    /// RTCP senders that are not ours.
    others: HashSet<u32>,
}

/// What must never happen.
#[derive(Debug, PartialEq, Eq)]
pub enum Offence {
    /// Two datagrams with one nonce.
    Reused(Class, u32, u64),
    /// RTP on an SSRC that no answer named.
    Unannounced(u32),
    /// str0m speaks with one of our SSRCs, or a sender report comes from another.
    Shared(u32),
    /// SRTCP in the clear.
    Plain,
}

const SENDER_REPORT: u8 = 200;

impl Ledger {
    /// An answer went to the client at `address`.
    pub fn announce(&mut self, address: SocketAddr, sdp: &str) {
        let page = self.pages.entry(address).or_default();
        let ssrcs = sdp.lines().filter_map(|line| {
            let (ssrc, _) = line.strip_prefix("a=ssrc:")?.split_once(' ')?;
            ssrc.parse::<u32>().ok()
        });
        page.announced.extend(ssrcs);
    }

    /// A datagram left for the client at `address`.
    pub fn enter(&mut self, address: SocketAddr, datagram: &[u8]) -> Result<(), Offence> {
        let page = self.pages.entry(address).or_default();
        let word = |at: usize| {
            let bytes = datagram[at..at + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        match Class::of(datagram) {
            Some(Class::Rtp) => {
                let seq = u16::from_be_bytes([datagram[2], datagram[3]]);
                page.rtp_packet(word(8), seq)
            }
            Some(Class::Rtcp) => page.rtcp_packet(datagram[1], word(4), word(datagram.len() - 4)),
            _ => Ok(()),
        }
    }

    /// RTP packets, RTCP packets, and RTCP senders other than our streams, of one connection.
    pub fn entries(&self, address: SocketAddr) -> (usize, usize, usize) {
        let page = &self.pages[&address];
        (page.rtp.len(), page.rtcp.len(), page.others.len())
    }
}

impl Page {
    fn rtp_packet(&mut self, ssrc: u32, seq: u16) -> Result<(), Offence> {
        if !self.announced.contains(&ssrc) {
            return Err(Offence::Unannounced(ssrc));
        }
        // As a receiver estimates it (RFC 3711 section 3.3.1).
        let newest = *self.newest.entry(ssrc).or_insert(seq.into());
        let step = seq.wrapping_sub(newest as u16) as i16;
        let index = newest.wrapping_add_signed(step.into());
        self.newest.insert(ssrc, newest.max(index));
        match self.rtp.insert((ssrc, index)) {
            true => Ok(()),
            false => Err(Offence::Reused(Class::Rtp, ssrc, index)),
        }
    }

    fn rtcp_packet(&mut self, kind: u8, ssrc: u32, index: u32) -> Result<(), Offence> {
        if index >> 31 == 0 {
            return Err(Offence::Plain);
        }
        // Only we send sender reports: str0m has no stream to report on.
        let ours = kind == SENDER_REPORT;
        if ours != self.announced.contains(&ssrc) {
            return Err(Offence::Shared(ssrc));
        }
        if !ours {
            self.others.insert(ssrc);
        }
        match self.rtcp.insert((ssrc, index)) {
            true => Ok(()),
            false => Err(Offence::Reused(Class::Rtcp, ssrc, index.into())),
        }
    }
}
