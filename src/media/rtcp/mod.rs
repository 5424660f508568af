//! Reading the RTCP of a subscriber, after its SRTCP was opened.
//!
//! [`read`] walks a compound datagram and yields what an egress leg acts on: report blocks, lost
//! packets, key frame wishes, transport-wide feedback. It borrows and never allocates. Structure
//! is checked before anything of a packet is yielded; whether the SSRCs are ours is for the caller
//! to check. Writing is in [`mod@write`] and [`feedback`], the walk through transport-wide feedback
//! in [`twcc`].

pub mod feedback;
pub mod twcc;
pub mod write;

use str0m::rtp::Ssrc;

use super::ntp::Ntp;
use crate::units::Bitrate;
use twcc::Twcc;

/// Walks the packets of a decrypted datagram. After the first error there is nothing more: with a
/// wrong length the place where the next packet starts is unknown.
///
/// The first packet need not be a report: reduced-size RTCP (RFC 5506) is what browsers send.
pub fn read(datagram: &[u8]) -> Items<'_> {
    Items {
        rest: datagram,
        pending: Pending::None,
    }
}

/// What [`read`] yields. Work is bounded by the datagram: every step consumes at least 4 bytes.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
    pending: Pending<'a>,
}

/// One thing a subscriber says.
#[derive(Debug, Clone)]
pub enum Item<'a> {
    /// The sender's own clock and timestamp, of a sender report.
    Sender(SenderInfo),
    /// How one of our streams arrives; from a sender or receiver report.
    Report(ReportBlock),
    /// Packets that are missing.
    Nack {
        /// The stream they belong to.
        media: Ssrc,
        /// Their sequence numbers.
        lost: Lost<'a>,
    },
    /// A key frame is needed (RFC 4585 section 6.3.1).
    Pli(Ssrc),
    /// A key frame is needed (RFC 5104 section 4.3.1); one item per entry.
    Fir(Ssrc),
    /// What arrived and when.
    Twcc(Twcc<'a>),
    /// How much the receiver thinks may be sent (draft-alvestrand-rmcat-remb-03 section 2.2).
    Remb(Bitrate),
    /// A packet of another kind: SDES, BYE, APP, XR and whatever is yet to come.
    Ignored,
}

/// The structure of the datagram is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What a sender report says of its sender (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream.
    pub ssrc: Ssrc,
    /// The moment of the report on the sender's wall clock.
    pub ntp: Ntp,
    /// The same moment in the RTP clock of the stream.
    pub rtp_timestamp: u32,
}

/// How a stream arrives (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream this is about.
    pub ssrc: Ssrc,
    /// Lost since the report before, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the start; duplicates can make it negative.
    pub lost: i32,
    /// Highest sequence number received, the rollovers above it.
    pub seq_max: u32,
    /// Jitter in units of the stream's RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_report: u32,
    /// Time from receiving that to sending this, in 1/65536 s.
    pub delay: u32,
}

impl ReportBlock {
    const BYTES: usize = 24;

    fn read(block: &[u8]) -> Option<Self> {
        let lost = u32_at(block, 4)?;
        Some(Self {
            ssrc: u32_at(block, 0)?.into(),
            fraction_lost: (lost >> 24) as u8,
            // Sign extension of 24 bits.
            lost: ((lost << 8) as i32) >> 8,
            seq_max: u32_at(block, 8)?,
            jitter: u32_at(block, 12)?,
            last_report: u32_at(block, 16)?,
            delay: u32_at(block, 20)?,
        })
    }
}

/// Sequence numbers of lost packets: up to 17 for 4 bytes (RFC 4585 section 6.2.1).
#[derive(Debug, Clone)]
pub struct Lost<'a> {
    rest: &'a [u8],
    seq: u16,
    /// Bit `n` set: `seq + n` is lost and not yet yielded.
    mask: u32,
}

impl Iterator for Lost<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let entry = u32_at(self.rest, 0)?;
            self.rest = self.rest.get(4..)?;
            self.seq = (entry >> 16) as u16;
            self.mask = (entry & 0xffff) << 1 | 1;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        Some(self.seq.wrapping_add(bit as u16))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(item) = self.pending.next() {
            return Some(Ok(item));
        }
        if self.rest.is_empty() {
            return None;
        }
        let item = self.packet().ok_or(Malformed);
        if item.is_err() {
            self.rest = &[];
            self.pending = Pending::None;
        }
        Some(item)
    }
}

impl<'a> Items<'a> {
    /// Takes the next packet off the datagram.
    fn packet(&mut self) -> Option<Item<'a>> {
        let header = u32_at(self.rest, 0)?;
        let version = header >> 30;
        let padded = header >> 29 & 1 == 1;
        let count = (header >> 24 & 0x1f) as usize;
        let kind = (header >> 16) as u8;
        let end = 4 + (header & 0xffff) as usize * 4;
        if version != 2 || end > self.rest.len() {
            return None;
        }
        let (packet, rest) = self.rest.split_at(end);
        let body = unpad(&packet[4..], padded)?;
        self.rest = rest;
        match (kind, count) {
            (SR, _) => self.report(body, SENDER_INFO, count),
            (RR, _) => self.report(body, 4, count),
            (RTPFB, 1) => nack(body),
            (RTPFB, 15) => Some(Item::Twcc(Twcc::read(body)?)),
            (PSFB, 1) => Some(Item::Pli(u32_at(body, 4)?.into())),
            (PSFB, 4) => self.fir(body),
            (PSFB, 15) => Some(remb(body).map_or(Item::Ignored, Item::Remb)),
            _ => Some(Item::Ignored),
        }
    }

    /// A report whose first block stands at `start`. What follows the blocks are extensions of a
    /// profile, which RFC 3550 allows.
    fn report(&mut self, body: &'a [u8], start: usize, count: usize) -> Option<Item<'a>> {
        let blocks = body.get(start..start + count * ReportBlock::BYTES)?;
        self.pending = Pending::Blocks(blocks);
        if start == SENDER_INFO {
            let high = u64::from(u32_at(body, 4)?);
            return Some(Item::Sender(SenderInfo {
                ssrc: u32_at(body, 0)?.into(),
                ntp: Ntp(high << 32 | u64::from(u32_at(body, 8)?)),
                rtp_timestamp: u32_at(body, 12)?,
            }));
        }
        Some(self.pending.next().unwrap_or(Item::Ignored))
    }

    fn fir(&mut self, body: &'a [u8]) -> Option<Item<'a>> {
        let entries = body.get(8..)?;
        if entries.is_empty() || !entries.len().is_multiple_of(FIR_ENTRY) {
            return None;
        }
        self.pending = Pending::Fir(entries);
        self.pending.next()
    }
}

/// Application layer feedback that says REMB; others say something else.
fn remb(body: &[u8]) -> Option<Bitrate> {
    let rate = body.get(8..)?.strip_prefix(b"REMB")?;
    let word = u32_at(rate, 0)?;
    let (exponent, mantissa) = (word >> 18 & 0x3f, u64::from(word & 0x3_ffff));
    let factor = 1_u64.checked_shl(exponent)?;
    Some(Bitrate::bps(mantissa.saturating_mul(factor)))
}

/// The rest of a packet that yields several items; its length is already checked.
#[derive(Debug, Clone)]
enum Pending<'a> {
    None,
    Blocks(&'a [u8]),
    Fir(&'a [u8]),
}

impl<'a> Pending<'a> {
    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Self::None => None,
            Self::Blocks(blocks) => {
                let (block, rest) = blocks.split_at_checked(ReportBlock::BYTES)?;
                *blocks = rest;
                ReportBlock::read(block).map(Item::Report)
            }
            Self::Fir(entries) => {
                let (entry, rest) = entries.split_at_checked(FIR_ENTRY)?;
                *entries = rest;
                Some(Item::Fir(u32_at(entry, 0)?.into()))
            }
        }
    }
}

/// Sender report.
const SR: u8 = 200;
/// Receiver report.
const RR: u8 = 201;
/// Feedback on the transport.
const RTPFB: u8 = 205;
/// Feedback on the payload.
const PSFB: u8 = 206;
/// Bytes of a sender report's body before its first block: SSRC and sender information.
const SENDER_INFO: usize = 24;
/// Bytes of a FIR entry.
const FIR_ENTRY: usize = 8;

fn nack(body: &[u8]) -> Option<Item<'_>> {
    let rest = body.get(8..)?;
    if rest.is_empty() || !rest.len().is_multiple_of(4) {
        return None;
    }
    Some(Item::Nack {
        media: u32_at(body, 4)?.into(),
        lost: Lost {
            rest,
            seq: 0,
            mask: 0,
        },
    })
}

/// Cuts the padding off. RFC 3550 allows it only in the last packet and in words of four bytes;
/// libwebrtc pads its transport-wide feedback by 1 to 3 bytes, and that wherever it stands.
fn unpad(body: &[u8], padded: bool) -> Option<&[u8]> {
    if !padded {
        return Some(body);
    }
    let padding = usize::from(*body.last()?);
    if padding == 0 {
        return None;
    }
    body.get(..body.len().checked_sub(padding)?)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests;
