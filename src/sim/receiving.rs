//! The receiving half of a simulated client: streams taken apart, gaps asked for, arrivals
//! reported; and each stream judged.

use std::time::{Duration, Instant};

use super::content::Stamp;
use super::decoder::Decoder;
use super::gaps::Gaps;
use super::judge::{Arrivals, Judge, Offence, Received, Seen};
use super::record::{Arrived, Decoded, Record};
use super::sdp::ids;
use crate::ids::TrackSid;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::ReportBlock;

/// A stream that an answer named.
pub struct Incoming {
    /// The track it should carry.
    pub track: TrackSid,
    /// Audio or video.
    pub kind: Kind,
    /// Number of its sender, and of the track there.
    pub source: (u16, u16),
    /// A later answer took it away.
    pub ended: bool,
    /// Packets received, repetitions left out.
    pub packets: u64,
    /// Of them, those that came as retransmissions.
    pub repaired: u64,
    /// When the newest packet came.
    pub newest_at: Option<Instant>,
    /// The longest time between two packets.
    pub gap_max: Duration,
    /// What is seen of it.
    pub decoder: Decoder,
    /// All that comes, if it is kept.
    pub record: Option<Record>,
    ssrc: u32,
    judge: Judge,
    gaps: Gaps,
    first: Option<u64>,
    newest: u64,
    repair_newest: Option<u64>,
    expected_before: u64,
    received_before: u64,
    last_report: Option<(u32, Instant)>,
}

impl Incoming {
    /// The stream on `ssrc`.
    pub fn new(ssrc: u32, track: TrackSid, kind: Kind, source: (u16, u16)) -> Self {
        Self {
            track,
            kind,
            source,
            ended: false,
            packets: 0,
            repaired: 0,
            newest_at: None,
            gap_max: Duration::ZERO,
            decoder: Decoder::default(),
            record: None,
            ssrc,
            judge: Judge::new(kind, source.0, source.1),
            gaps: Gaps::default(),
            first: None,
            newest: 0,
            repair_newest: None,
            expected_before: 0,
            received_before: 0,
            last_report: None,
        }
    }

    /// Its SSRC.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// The SRTP index of a packet with this number, of the media or of retransmissions.
    pub fn index(&self, seq: u16, repair: bool) -> u64 {
        let newest = match repair {
            true => self.repair_newest,
            false => self.first.map(|_| self.newest),
        };
        newest.map_or(seq.into(), |newest| nearest(seq, newest))
    }

    /// A retransmission was opened under this index.
    pub fn note_repair(&mut self, index: u64) {
        self.repair_newest = self.repair_newest.max(Some(index));
    }

    /// Sound that came along with later sound (RFC 2198).
    pub fn recover(&mut self, payload: &[u8]) {
        let (mut headers, mut lengths) = (0, Vec::new());
        while let Some([first, _, high, low]) =
            payload.get(headers..).and_then(|it| it.first_chunk())
            && first & 0x80 != 0
        {
            lengths.push(usize::from(u16::from_be_bytes([high & 3, *low])));
            headers += 4;
        }
        let mut at = headers + 1;
        for length in lengths {
            let block = payload.get(at..at + length).and_then(Stamp::read);
            if let (Some(stamp), Some(record)) = (block, &mut self.record) {
                record.recovered.push(stamp.seq);
            }
            at += length;
        }
    }

    /// Takes an opened packet, retransmissions unpacked; what it is, if it is new.
    pub fn take(
        &mut self,
        now: Instant,
        packet: &Received<'_>,
        epoch: Instant,
        arrivals: &Arrivals,
        offend: &mut impl FnMut(Offence),
    ) -> Option<Seen> {
        self.note(now, packet.seq);
        let seen = self.judge.take(packet, arrivals, offend)?;
        self.packets += 1;
        self.repaired += u64::from(packet.repaired);
        if let Some(before) = self.newest_at.replace(now) {
            self.gap_max = self.gap_max.max(now.saturating_duration_since(before));
        }
        self.decoder.take(now, &seen);
        let sent = |micros| epoch + Duration::from_micros(micros);
        let frames = self.decoder.decoded.drain(..);
        if let Some(record) = &mut self.record {
            record.packets.push(Arrived {
                at: now,
                sent: sent(seen.stamp.sent),
                seq: seen.stamp.seq,
                bytes: packet.payload.len(),
                repaired: packet.repaired,
            });
            record.frames.extend(frames.map(|frame| Decoded {
                at: now,
                sent: sent(frame.sent),
                layer: frame.layer,
                temporal: frame.temporal,
            }));
        }
        Some(seen)
    }

    fn note(&mut self, now: Instant, seq: u64) {
        let Some(_) = self.first else {
            self.first = Some(seq);
            self.newest = seq;
            return;
        };
        match self.kind {
            Kind::Video => self.gaps.note(now, self.newest, seq),
            Kind::Audio => {}
        }
        self.newest = self.newest.max(seq);
    }

    /// The numbers to ask for now.
    pub fn lost(&mut self, now: Instant) -> Vec<u16> {
        self.gaps.due(now)
    }

    /// Whether a key frame should be asked for now; if so, counts as asked.
    pub fn wants_key_frame(&mut self, now: Instant) -> bool {
        self.gaps.overrun() || self.decoder.wants_key_frame(now)
    }

    /// A sender report came.
    pub fn note_report(&mut self, now: Instant, ntp: Ntp) {
        self.last_report = Some((ntp.middle_32(), now));
    }

    /// What a receiver report says of it.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let expected = self.newest - self.first? + 1;
        let lost = expected as i64 - self.packets as i64;
        let expected_now = expected - self.expected_before;
        let received_now = self.packets - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.packets);
        let lost_now = expected_now.saturating_sub(received_now);
        let (last_report, delay) = self.last_report.map_or((0, 0), |(ntp, at)| {
            let delay = now.saturating_duration_since(at).as_secs_f64() * 65_536.0;
            (ntp, delay as u32)
        });
        Some(ReportBlock {
            ssrc: self.ssrc.into(),
            fraction_lost: (lost_now * 256)
                .checked_div(expected_now)
                .unwrap_or(0)
                .min(255) as u8,
            lost: lost as i32,
            seq_max: self.newest as u32,
            jitter: 0,
            last_report,
            delay,
        })
    }
}

/// The extended number nearest to `newest` with these lower bits (RFC 3711 section 3.3.1).
pub fn nearest(seq: u16, newest: u64) -> u64 {
    let ahead = seq.wrapping_sub(newest as u16) as i16;
    newest
        .checked_add_signed(ahead.into())
        .unwrap_or(seq.into())
}

/// What the header of an RTP packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The marker bit.
    pub marker: bool,
    /// What the payload is.
    pub payload_type: u8,
    /// Lower bits of the sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The stream.
    pub ssrc: u32,
    /// The transport-wide number.
    pub twcc: Option<u16>,
    /// How long pictures wait before they are shown, at least.
    pub playout: Option<Duration>,
    /// Bytes of all of it.
    pub len: usize,
}

impl Header {
    /// Reads the start of a datagram (RFC 3550 section 5.1, RFC 8285 section 4.2).
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = datagram.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let first = word(0)?;
        let mut header = Self {
            marker: first & 0x80_0000 != 0,
            payload_type: (first >> 16) as u8 & 0x7f,
            seq: first as u16,
            timestamp: word(4)?,
            ssrc: word(8)?,
            twcc: None,
            playout: None,
            len: 12 + 4 * (first >> 24 & 0xf) as usize,
        };
        if first >> 28 & 1 == 1 {
            let start = header.len + 4;
            let words = (word(header.len)? & 0xffff) as usize;
            header.len = start + 4 * words;
            let extensions = datagram.get(start..header.len)?;
            header.twcc = extension(extensions, ids::TWCC)
                .and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)));
            header.playout = extension(extensions, ids::PLAYOUT).and_then(|value| {
                let [a, b, _] = *<&[u8; 3]>::try_from(value).ok()?;
                let units = u16::from_be_bytes([a, b]) >> 4;
                Some(Duration::from_millis(10) * units.into())
            });
        }
        Some(header)
    }
}

/// What an opened packet carries behind its header of `header` bytes, without padding (RFC 3550
/// section 5.1). Padding that doesn't fit leaves nothing.
pub fn payload(opened: &[u8], header: usize) -> &[u8] {
    let body = opened.get(header..).unwrap_or_default();
    let padded = opened.first().is_some_and(|first| first & 0x20 != 0);
    let padding = body.last().filter(|_| padded).copied().unwrap_or(0);
    let end = body.len().checked_sub(padding.into());
    end.map_or(&[], |end| &body[..end])
}

/// The one with this id, of one-byte form.
fn extension(mut extensions: &[u8], id: u8) -> Option<&[u8]> {
    while let [head, rest @ ..] = extensions {
        let len = match head {
            0 => 0,
            _ => usize::from(head & 0xf) + 1,
        };
        let (value, next) = rest.split_at_checked(len)?;
        if head >> 4 == id {
            return Some(value);
        }
        extensions = next;
    }
    None
}
