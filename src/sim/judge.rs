//! Judges one received stream, packet by packet. Every payload says where it comes from
//! ([`Stamp`]), so what must never happen is seen as it happens: an [`Offence`].
//!
//! Numbers are compared in the order of sequence numbers, whatever order packets arrive in; order
//! of arrival is judged by itself, and only against what the shard itself was given in order
//! ([`Arrivals`]).

use std::collections::{HashMap, HashSet};

use super::content::Stamp;
use crate::media::codec::vp8::Descriptor;
use crate::media::message::Kind;

/// What must never happen to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A datagram that this client's keys don't open.
    Unopened,
    /// RTP on an SSRC that no answer named.
    Unannounced(u32),
    /// A payload without a stamp: something changed it.
    Garbled(u64),
    /// Somebody's packet in the stream of another track.
    Misdirected(Stamp),
    /// Two payloads under one sequence number.
    TwoPayloads(u64, Stamp, Stamp),
    /// By number it stands before something that was sent after it.
    OutOfOrder(Seen, Seen),
    /// It came after something newer, but had reached the shard before it.
    Overtaken(Stamp),
    /// RTP time falls from one number to the next.
    TimeFalls(Seen, Seen),
    /// Numbers follow each other, but frames, picture ids or TL0PICIDX don't.
    PictureBreak(Seen, Seen),
    /// A layer begins with something else than a key frame.
    SwitchedInside(Seen, Seen),
    /// The answer's text and its map name different tracks.
    Mapping,
}

/// A packet as it was received, retransmissions unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// What follows the header.
    pub payload: &'a [u8],
    /// It came as a retransmission.
    pub repaired: bool,
    /// The network on the way keeps the order of packets.
    pub ordered: bool,
}

/// What is remembered of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// Whose it is.
    pub stamp: Stamp,
    /// Of video.
    pub vp8: Option<Descriptor>,
}

/// The judge of one stream.
#[derive(Debug)]
pub struct Judge {
    kind: Kind,
    sender: u16,
    track: u16,
    window: Box<[Option<Seen>]>,
    newest: Option<u64>,
}

/// Packets that are compared with each other: seconds of the fastest stream.
const WINDOW: u64 = 1024;

/// How far the next known number is looked for, either way.
const NEIGHBOURHOOD: u64 = 16;

impl Judge {
    /// The judge of a stream that should carry this track of this sender.
    pub fn new(kind: Kind, sender: u16, track: u16) -> Self {
        Self {
            kind,
            sender,
            track,
            window: vec![None; WINDOW as usize].into(),
            newest: None,
        }
    }

    /// Takes one packet; what it is, unless it came before or can't be read.
    pub fn take(
        &mut self,
        packet: &Received<'_>,
        arrivals: &Arrivals,
        offend: &mut impl FnMut(Offence),
    ) -> Option<Seen> {
        let Some(stamp) = Stamp::read(packet.payload) else {
            offend(Offence::Garbled(packet.seq));
            return None;
        };
        if (stamp.sender, stamp.track) != (self.sender, self.track) {
            offend(Offence::Misdirected(stamp));
        }
        let vp8 = match self.kind {
            Kind::Audio => None,
            Kind::Video => Descriptor::parse(packet.payload),
        };
        let seen = Seen {
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            stamp,
            vp8,
        };
        if let Some(before) = self.at(packet.seq) {
            if before.stamp != stamp {
                offend(Offence::TwoPayloads(packet.seq, before.stamp, stamp));
            }
            return None;
        }
        let newer = self.newest.is_none_or(|newest| packet.seq > newest);
        if newer {
            self.newest = Some(packet.seq);
        } else if packet.ordered && !packet.repaired && !arrivals.was_late(&stamp) {
            offend(Offence::Overtaken(stamp));
        }
        self.window[(packet.seq % WINDOW) as usize] = Some(seen);
        let below = (1..=NEIGHBOURHOOD).find_map(|step| self.at(packet.seq.checked_sub(step)?));
        let above = (1..=NEIGHBOURHOOD).find_map(|step| self.at(packet.seq + step));
        if let Some(below) = below {
            compare(below, &seen, arrivals, offend);
        }
        if let Some(above) = above {
            compare(&seen, above, arrivals, offend);
        }
        Some(seen)
    }

    fn at(&self, seq: u64) -> Option<&Seen> {
        let slot = self.window[(seq % WINDOW) as usize].as_ref();
        slot.filter(|seen| seen.seq == seq)
    }
}

/// Two packets of which the first has the lower number, and none between them is known.
fn compare(first: &Seen, second: &Seen, arrivals: &Arrivals, offend: &mut impl FnMut(Offence)) {
    let (a, b) = (first.stamp, second.stamp);
    if a.layer == b.layer && a.seq >= b.seq {
        offend(Offence::OutOfOrder(*first, *second));
    }
    if (second.timestamp.wrapping_sub(first.timestamp) as i32) < 0 {
        offend(Offence::TimeFalls(*first, *second));
    }
    if second.seq != first.seq + 1 {
        return;
    }
    let (Some(before), Some(after)) = (first.vp8, second.vp8) else {
        return;
    };
    if a.layer != b.layer && !(after.key_frame && after.start_of_frame) {
        offend(Offence::SwitchedInside(*first, *second));
    }
    let same_frame = (a.layer, a.frame) == (b.layer, b.frame);
    let picture = |vp8: &Descriptor| vp8.picture_id.map_or(0, |picture| picture.value());
    let pictures = picture(&after).wrapping_sub(picture(&before)) & 0x7fff;
    let tl0 = |vp8: &Descriptor| vp8.tl0.unwrap_or(0);
    let base_layers = tl0(&after).wrapping_sub(tl0(&before));
    let follows = if same_frame {
        let same_time = first.timestamp == second.timestamp;
        pictures == 0 && base_layers == 0 && !after.start_of_frame && same_time
    } else {
        let base_layer = u8::from(after.temporal == 0);
        // A layer may end inside a frame whose rest was lost on the way up: nobody knows how many
        // numbers that would have taken, and the key frame that follows needs nothing of it.
        let ended = first.marker || a.layer != b.layer;
        // A frame may have been left out before a packet of its end came late: that packet had a
        // number of its own by then, and so has its picture.
        let begins = after.start_of_frame || arrivals.was_late(&b);
        pictures == 1 && base_layers == base_layer && begins && ended
    };
    if !follows {
        offend(Offence::PictureBreak(*first, *second));
    }
}

/// What reached the shard after something newer of the same stream: then so it leaves again.
#[derive(Debug, Default)]
pub struct Arrivals {
    newest: HashMap<(u16, u16, u8), u64>,
    late: HashSet<(u16, u16, u8, u64)>,
}

impl Arrivals {
    /// A packet reached the shard.
    pub fn note(&mut self, stamp: &Stamp) {
        let stream = (stamp.sender, stamp.track, stamp.layer);
        let newest = self.newest.entry(stream).or_default();
        if stamp.seq < *newest {
            self.late
                .insert((stamp.sender, stamp.track, stamp.layer, stamp.seq));
        }
        *newest = stamp.seq.max(*newest);
    }

    fn was_late(&self, stamp: &Stamp) -> bool {
        let packet = (stamp.sender, stamp.track, stamp.layer, stamp.seq);
        self.late.contains(&packet)
    }
}
