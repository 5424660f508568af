//! How a packet leaves: header, extension and payload written and sealed in place at the end of a
//! leg's batch. Step 6 of the hot path.

use std::time::Instant;

use super::batch::Batch;
use super::codec::dependency;
use super::counters::{Counters, Dropped};
use super::estimator::{Bounds, Estimator};
use super::message::Kind;
use super::packet::Packet;
use super::retransmit::Budget;
use super::rewrite::{Face, Stamp};
use super::srtp::{self, OwnSsrc};
use super::track::WIRE_BYTES;

/// What all streams of a leg share: the batch they are written to, one numbering, one budget.
pub struct Wire {
    pub batch: Batch,
    /// Next transport-wide sequence number; in the order of sending.
    next_twcc: u64,
    /// What the path to the client carries.
    pub estimator: Estimator,
    pub budget: Budget,
}

/// One packet as it goes out.
pub struct Plan<'a> {
    pub payload_type: u8,
    /// Id of the extension that carries the transport-wide number, if the client knows it.
    pub twcc: Option<u8>,
    /// Id of the extension that carries the dependency descriptor, for packets that have one.
    pub dependency: Option<u8>,
    /// What is said of the wait before it is shown: id of the extension, and what is in it.
    pub playout: Option<(u8, [u8; 3])>,
    /// What is sent before the payload.
    pub front: &'a [u8],
    /// Where in the payload begins what is sent.
    pub body: usize,
    /// Extended: also the SRTP index.
    pub seq: u64,
    pub stamp: Stamp,
    /// Set for a retransmission: the sequence number it repeats (RFC 4588 section 4).
    pub original: Option<u16>,
    pub packet: &'a Packet,
}

impl Wire {
    /// Nothing sent yet.
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            batch: Batch::default(),
            next_twcc: 0,
            estimator: Estimator::new(bounds, now),
            budget: Budget::new(now),
        }
    }

    /// Writes a packet at the end of the batch and seals it there.
    pub fn send(
        &mut self,
        plan: &Plan<'_>,
        seal: &mut srtp::Stream,
        now: Instant,
        counters: &mut Counters,
    ) {
        let segment = self.batch.segment();
        let Some((buffer, start)) = self.batch.begin() else {
            return counters.drop(Dropped::SendFailed);
        };
        write_header(buffer, plan, seal.ssrc(), self.next_twcc as u16);
        let header_len = buffer.len() - start;
        if let Some(original) = plan.original {
            buffer.extend_from_slice(&original.to_be_bytes());
        }
        let payload = &plan.packet.payload;
        match &plan.packet.vp8 {
            Some(descriptor) => {
                descriptor.write(plan.stamp.face.ids, buffer);
                buffer.extend_from_slice(
                    payload.get(usize::from(descriptor.length)..).unwrap_or(&[]),
                );
            }
            None => {
                buffer.extend_from_slice(plan.front);
                buffer.extend_from_slice(payload.get(plan.body..).unwrap_or(&[]));
            }
        }
        let size = buffer.len() - start + seal.rtp_overhead();
        if segment == Some(size + 1) && plan.packet.format.codec().kind() == Kind::Video {
            pad(buffer, start);
        }
        if seal.seal_rtp(buffer, start, header_len, plan.seq).is_err() {
            self.batch.abort(start);
            return counters.drop(Dropped::SealIndexReused);
        }
        let bytes = buffer.len() - start;
        self.batch.commit(start);
        if plan.twcc.is_some() {
            self.estimator.sent(self.next_twcc, bytes, now);
            self.next_twcc += 1;
        }
        if plan.original.is_none() {
            self.budget.fresh(now, bytes);
        }
        counters.packets_out += 1;
        counters.bytes_out += bytes as u64;
    }

    /// Writes a packet of nothing but padding (RFC 3550 section 5.1): payload type, extension id,
    /// number in its stream.
    pub fn pad(
        &mut self,
        (payload_type, twcc, seq): (u8, u8, u64),
        seal: &mut srtp::Stream,
        now: Instant,
        counters: &mut Counters,
    ) {
        let Some((buffer, start)) = self.batch.begin() else {
            return counters.drop(Dropped::SendFailed);
        };
        buffer.extend_from_slice(&[0xb0, payload_type & 0x7f]);
        buffer.extend_from_slice(&(seq as u16).to_be_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&seal.ssrc().get().to_be_bytes());
        let [high, low] = (self.next_twcc as u16).to_be_bytes();
        buffer.extend_from_slice(&[0xbe, 0xde, 0, 1, twcc << 4 | 1, high, low, 0]);
        let header_len = buffer.len() - start;
        buffer.resize(buffer.len() + 254, 0);
        buffer.push(255);
        if seal.seal_rtp(buffer, start, header_len, seq).is_err() {
            self.batch.abort(start);
            return counters.drop(Dropped::SealIndexReused);
        }
        let bytes = buffer.len() - start;
        self.batch.commit(start);
        self.estimator.sent(self.next_twcc, bytes, now);
        self.next_twcc += 1;
        counters.padding_out += 1;
        counters.bytes_out += bytes as u64;
    }
}

/// What a packet of padding takes on the wire: as much as one can have, and its headers.
pub const PADDING_BYTES: u64 = 255 + WIRE_BYTES as u64;

/// Pads a packet by one byte (RFC 3550 section 5.1), which makes it as long as those before it.
/// What libwebrtc cuts a frame into differs by that byte; equal ones leave as one run.
pub fn pad(packet: &mut Vec<u8>, start: usize) {
    packet[start] |= 0x20;
    packet.push(1);
}

/// RTP header (RFC 3550 section 5.1), with the transport-wide number as one-byte header extension
/// (RFC 8285 section 4.2).
fn write_header(out: &mut Vec<u8>, plan: &Plan<'_>, ssrc: OwnSsrc, twcc: u16) {
    let described = plan.dependency.zip(plan.packet.dependency.as_deref());
    let more = plan.playout.is_some() || described.is_some();
    let extended = plan.twcc.is_some() || more;
    out.push(if extended { 0x90 } else { 0x80 });
    out.push(u8::from(plan.stamp.face.marker) << 7 | plan.payload_type & 0x7f);
    out.extend_from_slice(&(plan.seq as u16).to_be_bytes());
    out.extend_from_slice(&plan.stamp.timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.get().to_be_bytes());
    let [high, low] = twcc.to_be_bytes();
    if let (Some(id), false) = (plan.twcc, more) {
        // Nearly always.
        return out.extend_from_slice(&[0xbe, 0xde, 0, 1, id << 4 | 1, high, low, 0]);
    }
    match (described, plan.playout) {
        (Some(described), playout) => {
            let twcc = plan.twcc.map(|id| (id, [high, low]));
            write_described(out, twcc, playout, described, plan.stamp.face);
        }
        (None, Some((id, [a, b, c]))) => {
            let words = if plan.twcc.is_some() { 2 } else { 1 };
            out.extend_from_slice(&[0xbe, 0xde, 0, words, id << 4 | 2, a, b, c]);
            if let Some(id) = plan.twcc {
                out.extend_from_slice(&[id << 4 | 1, high, low, 0]);
            }
        }
        (None, None) => {}
    }
}

/// Header extensions with a dependency descriptor. With that of a key frame they need the two-byte
/// form (RFC 8285 section 4.3), which has no bound of 16 bytes.
fn write_described(
    out: &mut Vec<u8>,
    twcc: Option<(u8, [u8; 2])>,
    playout: Option<(u8, [u8; 3])>,
    (id, description): (u8, &dependency::Description),
    face: Face,
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let element = out.len();
    out.extend_from_slice(&[0; 2]);
    description.write(face.frame, face.cut, out);
    let length = out.len() - element - 2;
    let short = length <= 16;
    if short {
        out.remove(element);
        out[element] = id << 4 | (length - 1) as u8;
    } else {
        out[element..element + 2].copy_from_slice(&[id, length as u8]);
    }
    let twcc = twcc.as_ref().map(|(id, number)| (*id, &number[..]));
    let playout = playout.as_ref().map(|(id, wait)| (*id, &wait[..]));
    for (id, bytes) in [twcc, playout].into_iter().flatten() {
        match short {
            true => out.push(id << 4 | (bytes.len() - 1) as u8),
            false => out.extend_from_slice(&[id, bytes.len() as u8]),
        }
        out.extend_from_slice(bytes);
    }
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
    let words = ((out.len() - start) / 4 - 1) as u16;
    let profile: u16 = if short { 0xbede } else { 0x1000 };
    out[start..start + 2].copy_from_slice(&profile.to_be_bytes());
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}
