//! Writing the RTCP of an egress leg: sender reports, with the CNAME that ties streams together.

use str0m::rtp::Ssrc;

use super::SR;
use crate::media::ntp::Ntp;

/// What a subscriber is told of one of our streams (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream.
    pub ssrc: Ssrc,
    /// Now, on our clock.
    pub ntp: Ntp,
    /// Now, in the stream's own clock.
    pub rtp_timestamp: u32,
    /// RTP packets sent so far; wraps.
    pub packets: u32,
    /// Payload bytes sent so far, without headers and padding; wraps.
    pub octets: u32,
}

/// Longest CNAME: its length is one byte. Longer ones are cut; ours are random and short.
pub const CNAME_MAX: usize = 255;

/// Appends a compound of sender report and source description (RFC 3550 sections 6.4.1, 6.5) to
/// `out`. Streams of one participant carry the same `cname`: only then does a receiver keep their
/// lips in sync.
pub fn write_sender_report(out: &mut Vec<u8>, report: SenderReport, cname: &str) {
    out.extend([2 << 6, SR]);
    out.extend(6u16.to_be_bytes());
    out.extend(report.ssrc.to_be_bytes());
    out.extend(report.ntp.0.to_be_bytes());
    for word in [report.rtp_timestamp, report.packets, report.octets] {
        out.extend(word.to_be_bytes());
    }
    let cname = &cname.as_bytes()[..cname.len().min(CNAME_MAX)];
    // SSRC, type, length, text, and at least one zero that ends the list of items.
    let words = (4 + 2 + cname.len()) / 4 + 1;
    let end = out.len() + 4 + words * 4;
    out.extend([2 << 6 | 1, SDES]);
    out.extend((words as u16).to_be_bytes());
    out.extend(report.ssrc.to_be_bytes());
    out.extend([CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.resize(end, 0);
}

/// Source description.
const SDES: u8 = 202;
/// The SDES item that names the source.
const CNAME: u8 = 1;
