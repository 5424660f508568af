//! The sending half of a simulated client: encoded packets under RTP headers, sealed; sent again
//! when the shard asks; and the sender reports that go with them.

use std::time::{Duration, Instant};

use super::content::Stamp;
use super::medium::{Encoded, Encoder, Medium};
use super::sdp::ids;
use super::uplink::Uplink;
use crate::ids::TrackSid;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::write::{SenderReport, write_sender_report};
use crate::media::srtp::{OwnSsrc, Sealer, Stream};

/// A published track.
pub struct Published {
    /// What it is.
    pub medium: Medium,
    /// Its number among the tracks of this client.
    pub number: u16,
    /// Its section.
    pub mid: String,
    /// Its id, once the shard has given it one.
    pub sid: Option<TrackSid>,
    /// An answer has taken its section, so packets flow.
    pub flowing: bool,
    /// Its layers, smallest first.
    pub streams: Vec<Outgoing>,
}

/// One layer on its way up.
pub struct Outgoing {
    /// Makes the packets.
    pub encoder: Encoder,
    /// When the shard last asked for a key frame, and how often it did.
    pub asked: (Option<Instant>, u32),
    /// How loud its packets say that it is, in -dBov; nothing if they don't.
    pub level: Option<u8>,
    kind: Kind,
    rid: Option<&'static str>,
    media: Stream,
    repair: Stream,
    repair_seq: u64,
    packets: u32,
    octets: u32,
    reported: Option<Instant>,
}

/// A sealed datagram, and what it carries.
#[derive(Debug)]
pub struct Datagram {
    /// As it goes over the network.
    pub bytes: Vec<u8>,
    /// Of media.
    pub stamp: Option<Stamp>,
}

/// Between two sender reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Opus or VP8.
fn payload_type(kind: Kind) -> u8 {
    match kind {
        Kind::Audio => ids::OPUS,
        Kind::Video => ids::VP8,
    }
}

impl Outgoing {
    /// The stream of one layer, on two SSRCs of its own.
    pub fn new(
        medium: &Medium,
        encoder: Encoder,
        rid: Option<&'static str>,
        (media, repair): (u32, u32),
        sealer: &mut Sealer,
    ) -> Self {
        let mut register = |ssrc| {
            let stream = sealer.register(OwnSsrc::claim(ssrc));
            stream.expect("a client has few streams, each on its own SSRC")
        };
        Self {
            encoder,
            asked: (None, 0),
            level: None,
            kind: medium.kind,
            rid,
            media: register(media),
            repair: register(repair),
            repair_seq: 1,
            packets: 0,
            octets: 0,
            reported: None,
        }
    }

    /// Packets and bytes of payload sent so far, repetitions left out.
    pub fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// Whether this stream is sent or repaired on `ssrc`.
    pub fn is_on(&self, ssrc: u32) -> bool {
        self.media.ssrc().get() == ssrc
    }

    /// Sends what is due.
    pub fn send(&mut self, now: Instant, mid: &str, uplink: &mut Uplink, out: &mut Vec<Datagram>) {
        for packet in self.encoder.encode(now) {
            self.packets = self.packets.wrapping_add(1);
            self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
            let head = Head {
                payload_type: payload_type(self.kind),
                seq: packet.seq,
                original: None,
                level: self.level,
                rid: self.rid.map(|rid| (ids::RID, rid)),
            };
            let twcc = uplink.number(now, packet.payload.len());
            out.push(head.seal(packet, mid, twcc, &mut self.media));
        }
    }

    /// Sends a packet again, if it is still there.
    pub fn repeat(
        &mut self,
        now: Instant,
        seq: u16,
        mid: &str,
        uplink: &mut Uplink,
        out: &mut Vec<Datagram>,
    ) {
        if self.kind == Kind::Audio {
            return;
        }
        if let Some(packet) = self.encoder.kept(seq)
            && uplink.may_repeat(now, packet.payload.len())
        {
            self.repair_seq += 1;
            let head = Head {
                payload_type: ids::RTX,
                seq: self.repair_seq,
                original: Some(seq),
                level: None,
                rid: self.rid.map(|rid| (ids::REPAIRED_RID, rid)),
            };
            let twcc = uplink.number(now, packet.payload.len());
            out.push(head.seal(packet, mid, twcc, &mut self.repair));
        }
    }

    /// Writes a sender report if one is due.
    pub fn report(&mut self, now: Instant, ntp: Ntp, out: &mut Vec<Datagram>) {
        let due = |at: Instant| now.saturating_duration_since(at) >= REPORT_INTERVAL;
        if self.packets == 0 || !self.reported.is_none_or(due) {
            return;
        }
        self.reported = Some(now);
        let report = SenderReport {
            ssrc: self.media.ssrc().get().into(),
            ntp,
            rtp_timestamp: self.encoder.timestamp(now),
            packets: self.packets,
            octets: self.octets,
        };
        let mut bytes = Vec::new();
        write_sender_report(&mut bytes, report, "sim");
        self.media
            .seal_rtcp(&mut bytes, 0)
            .expect("a call has fewer reports than indices");
        out.push(Datagram { bytes, stamp: None });
    }
}

/// What a header says beside the packet itself.
struct Head {
    payload_type: u8,
    seq: u64,
    /// Of a retransmission: the number it repeats (RFC 4588 section 4).
    original: Option<u16>,
    level: Option<u8>,
    rid: Option<(u8, &'static str)>,
}

impl Head {
    /// Writes and seals a packet. Extensions are of the one-byte form (RFC 8285 section 4.2).
    fn seal(&self, packet: &Encoded, mid: &str, twcc: u16, seal: &mut Stream) -> Datagram {
        let mut bytes = Vec::with_capacity(packet.payload.len() + 64);
        bytes.push(0x90);
        bytes.push(u8::from(packet.marker) << 7 | self.payload_type);
        bytes.extend((self.seq as u16).to_be_bytes());
        bytes.extend(packet.timestamp.to_be_bytes());
        bytes.extend(seal.ssrc().get().to_be_bytes());
        let [high, low] = twcc.to_be_bytes();
        let mut extensions = vec![ids::TWCC << 4 | 1, high, low];
        for (id, text) in [Some((ids::MID, mid)), self.rid].into_iter().flatten() {
            extensions.push(id << 4 | (text.len() as u8 - 1));
            extensions.extend_from_slice(text.as_bytes());
        }
        extensions.extend(
            self.level
                .iter()
                .flat_map(|level| [ids::LEVEL << 4, *level]),
        );
        extensions.resize(extensions.len().next_multiple_of(4), 0);
        bytes.extend([0xbe, 0xde, 0, (extensions.len() / 4) as u8]);
        bytes.extend(extensions);
        let header_len = bytes.len();
        if let Some(original) = self.original {
            bytes.extend(original.to_be_bytes());
        }
        bytes.extend_from_slice(&packet.payload);
        seal.seal_rtp(&mut bytes, 0, header_len, self.seq)
            .expect("each number is sealed once");
        let stamp = Stamp::read(&packet.payload);
        Datagram { bytes, stamp }
    }
}
