//! One stream that a publisher sends: RTP headers as a browser writes them, sealed under the
//! participant's key into the batch that leaves next; and its sender reports.

use super::sdp::AUDIO_LEVEL;
use crate::media::batch::Batch;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::write::{SenderReport, write_sender_report};
use crate::media::srtp::{OwnSsrc, Sealer, Stream};
use crate::sim::sdp::ids;

/// What a speaker's packets say: voice, 30 dB below the loudest (RFC 6464).
const LOUDNESS: u8 = 0x80 | 30;

/// A stream.
pub struct Outgoing {
    stream: Stream,
    kind: Kind,
    mid: String,
    rid: Option<&'static str>,
    seq: u64,
    packets: u32,
    octets: u32,
    /// The server has spoken of this stream, so it knows which one it is.
    known: bool,
}

impl Outgoing {
    /// Has sent nothing. `sealer` is the participant's, `ssrc` one it has not used.
    pub fn new(
        kind: Kind,
        mid: &str,
        rid: Option<&'static str>,
        (ssrc, first): (u32, u16),
        sealer: &mut Sealer,
    ) -> Self {
        let stream = sealer.register(OwnSsrc::claim(ssrc));
        Self {
            stream: stream.expect("a participant has few streams, each on its own SSRC"),
            kind,
            mid: mid.to_owned(),
            rid,
            seq: first.into(),
            packets: 0,
            octets: 0,
            known: false,
        }
    }

    /// Whether it is sent on `ssrc`.
    pub fn is_on(&self, ssrc: u32) -> bool {
        self.stream.ssrc().get() == ssrc
    }

    /// The server knows the stream by its SSRC: names are left out from now on, as browsers do.
    pub fn note_known(&mut self) {
        self.known = true;
    }

    /// The extended number of the next packet.
    pub fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Writes the next packet and seals it. Extensions are of the one-byte form (RFC 8285 section
    /// 4.2). Whether there was room for it.
    pub fn write(
        &mut self,
        batch: &mut Batch,
        (marker, timestamp): (bool, u32),
        twcc: &mut u16,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let Some((buffer, start)) = batch.begin() else {
            return false;
        };
        let payload_type = match self.kind {
            Kind::Audio => ids::OPUS,
            Kind::Video => ids::VP8,
        };
        buffer.extend([0x90, u8::from(marker) << 7 | payload_type]);
        buffer.extend_from_slice(&(self.seq as u16).to_be_bytes());
        buffer.extend_from_slice(&timestamp.to_be_bytes());
        buffer.extend_from_slice(&self.stream.ssrc().get().to_be_bytes());
        let extensions = buffer.len();
        buffer.extend([0xbe, 0xde, 0, 0]);
        *twcc = twcc.wrapping_add(1);
        let [high, low] = twcc.to_be_bytes();
        buffer.extend([ids::TWCC << 4 | 1, high, low]);
        if self.kind == Kind::Audio {
            buffer.extend([AUDIO_LEVEL << 4, LOUDNESS]);
        }
        if !self.known {
            let names = [
                Some((ids::MID, self.mid.as_str())),
                self.rid.map(|rid| (ids::RID, rid)),
            ];
            for (id, name) in names.into_iter().flatten() {
                buffer.push(id << 4 | (name.len() as u8 - 1));
                buffer.extend_from_slice(name.as_bytes());
            }
        }
        let length = (buffer.len() - extensions - 4).next_multiple_of(4);
        buffer.resize(extensions + 4 + length, 0);
        buffer[extensions + 3] = (length / 4) as u8;
        let body = buffer.len();
        payload(buffer);
        self.octets = self.octets.wrapping_add((buffer.len() - body) as u32);
        self.packets = self.packets.wrapping_add(1);
        let sealed = self.stream.seal_rtp(buffer, start, body - start, self.seq);
        sealed.expect("each number is sealed once");
        self.seq += 1;
        batch.commit(start);
        true
    }

    /// Writes a sender report.
    pub fn report(&mut self, batch: &mut Batch, ntp: Ntp, rtp_timestamp: u32, cname: &str) {
        let Some((buffer, start)) = batch.begin().filter(|_| self.packets > 0) else {
            return;
        };
        let report = SenderReport {
            ssrc: self.stream.ssrc().get().into(),
            ntp,
            rtp_timestamp,
            packets: self.packets,
            octets: self.octets,
        };
        write_sender_report(buffer, report, cname);
        let sealed = self.stream.seal_rtcp(buffer, start);
        sealed.expect("a call has fewer reports than indices");
        batch.commit(start);
    }
}
