//! What a client publishes, opened here, and what it is told of that: which packets are missing,
//! which arrived when, how the streams fare, and that a key frame is needed. Step 3 of the hot
//! path.
//!
//! str0m runs ICE and DTLS and negotiates; RTP and RTCP it isn't shown. It would walk over all of
//! its parts for each packet, which costs ten times the opening.
//!
//! A stream is known by its SSRC from the first packet that was opened of it. Whose it is the
//! packet says by its media section and layer (RFC 8843, RFC 8852), as browsers do until they hear
//! that it arrives, or the offer by its SSRC.
//!
//! Not here: what packets carry (`forwarding.rs`), sender reports' clocks (`ntp.rs`).

mod gaps;
pub mod header;
mod lateness;
mod room;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

use super::counters::Dropped;
use super::message::Kind;
use super::ntp::Ntp;
use super::payload_type::Codecs;
use super::rtcp::ReportBlock;
use super::rtcp::feedback::{self, TWCC_INTERVAL, Twcc};
use super::section::Sections;
use super::srtp::{self, RtpOpener};
use header::Header;
use stream::Stream;

/// Streams of a client that are known at a time, retransmissions among them: three layers of each
/// of 32 tracks. A further one takes the place of the one that was silent for longest.
const STREAMS_MAX: usize = 192;

/// Between two reports of how streams arrive.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at what is missing: who opens gaps in all streams at once shall not have us
/// walk over them with every packet.
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// Streams that one report tells of: what fits a packet (RFC 3550 section 6.4.2).
const BLOCKS_MAX: usize = 31;

/// No more is asked for in a datagram that has so many bytes, to stay within what paths carry.
const BYTES_MAX: usize = 900;

/// An opened RTP packet.
#[derive(Debug)]
pub struct Received {
    /// The stream; of a retransmission that of what is repeated.
    pub ssrc: u32,
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// Loudness of an audio packet in -dBov, where the sender tells it (RFC 6464).
    pub audio_level: Option<u8>,
    /// Its payload type; for a retransmission that of what is repeated.
    pub payload_type: u8,
    /// The dependency descriptor, if it came with one.
    pub dependency: Option<Box<[u8]>>,
    /// Without padding.
    pub payload: Arc<[u8]>,
}

/// What goes to the client.
#[derive(Debug, Default)]
pub struct Said {
    /// One sealed datagram.
    pub datagram: Vec<u8>,
    /// Messages that ask for missing packets in it.
    pub nacks: u64,
    /// The worst jitter of its audio, where that is reported.
    pub jitter: Option<Duration>,
}

/// What a client publishes.
pub struct Uplink {
    rtp: RtpOpener,
    /// Seals what is said to the client.
    control: srtp::Stream,
    start: Instant,
    streams: Vec<Stream>,
    arrivals: Twcc,
    /// The stream of the last packet with a transport-wide number: libwebrtc takes reports on those
    /// only that name a stream of its own.
    numbered: u32,
    told: Instant,
    asked: Instant,
    reported: Instant,
    /// Streams of which key frames are needed.
    key_frames: Vec<u32>,
    /// Memory used again for every packet.
    opened: Vec<u8>,
}

impl Uplink {
    /// Nothing has come. `rtp` has the client's key; `control` seals with ours.
    pub fn new(rtp: RtpOpener, control: srtp::Stream, now: Instant) -> Self {
        Self {
            rtp,
            control,
            start: now,
            streams: Vec::new(),
            arrivals: Twcc::new(now),
            numbered: 0,
            told: now,
            asked: now.checked_sub(ASK_INTERVAL).unwrap_or(now),
            reported: now,
            key_frames: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// Takes in an SRTP datagram. Nothing comes of what only probes the path, or was there before.
    pub fn receive(
        &mut self,
        now: Instant,
        datagram: &[u8],
        codecs: &Codecs,
        sections: &Sections,
    ) -> Result<Option<Received>, Dropped> {
        let header = Header::parse(datagram, &codecs.extensions).ok_or(Dropped::RtpInvalid)?;
        let known = self.streams.iter().position(|it| it.ssrc == header.ssrc);
        let index = match known {
            Some(at) => self.streams[at].index(header.seq),
            None => header.seq.into(),
        };
        if known.is_some_and(|at| !self.streams[at].is_fresh(index)) {
            return Err(Dropped::RtpInvalid);
        }
        let opened = &mut self.opened;
        let open = self.rtp.open(datagram, header.len, index, opened);
        open.map_err(|_| Dropped::RtpInvalid)?;
        if let Some(number) = header.twcc {
            self.arrivals.note(number, now);
            self.numbered = header.ssrc;
        }
        let at = match known {
            Some(at) => at,
            None => self.learn(&header, index, codecs, sections, now)?,
        };
        let since_start = now.saturating_duration_since(self.start);
        self.streams[at].note(index, header.timestamp, since_start, now);
        let mut payload = header::payload(&self.opened, header.len, header.padded);
        let (mut ssrc, mut seq) = (header.ssrc, index);
        let mut payload_type = header.payload_type;
        if self.streams[at].repairs {
            // What is repeated begins with its own number (RFC 4588 section 4). Without it the
            // packet is padding that probes the path.
            let Some((original, rest)) = payload.split_first_chunk::<2>() else {
                return Ok(None);
            };
            let number = u16::from_be_bytes(*original);
            let Some(original) = repeated(&mut self.streams, at, number) else {
                return Ok(None);
            };
            (ssrc, seq) = original;
            payload_type = codecs.repeats(payload_type).ok_or(Dropped::CodecUnknown)?;
            payload = rest;
        }
        Ok(Some(Received {
            ssrc,
            seq,
            timestamp: header.timestamp,
            marker: header.marker,
            audio_level: header.audio_level,
            payload_type,
            dependency: header.dependency.map(Box::from),
            payload: Arc::from(payload),
        }))
    }

    /// The first packet of a stream was opened: whose is it?
    fn learn(
        &mut self,
        header: &Header<'_>,
        index: u64,
        codecs: &Codecs,
        sections: &Sections,
        now: Instant,
    ) -> Result<usize, Dropped> {
        let repeats = codecs.repeats(header.payload_type).is_some();
        let section = match header.mid {
            Some(mid) => sections.get(mid),
            None => sections.sending(header.ssrc),
        };
        let section = section.ok_or(Dropped::TrackUnknown)?;
        let rid = match repeats {
            true => header.repaired.or(header.rid),
            false => header.rid,
        };
        let mut stream = Stream::new(
            header.ssrc,
            Mid::from(section.mid.as_str()),
            rid.map(Rid::from),
            section.kind,
            index,
            now,
        );
        stream.repairs = repeats;
        if self.streams.len() == STREAMS_MAX {
            let silent = (0..STREAMS_MAX).min_by_key(|at| self.streams[*at].heard);
            self.streams.swap_remove(silent.unwrap_or(0));
        }
        self.streams.push(stream);
        Ok(self.streams.len() - 1)
    }

    /// The media section and layer of a stream.
    pub fn stream(&self, ssrc: u32) -> Option<(Mid, Option<Rid>)> {
        let stream = self.streams.iter().find(|it| it.ssrc == ssrc)?;
        Some((stream.mid, stream.rid))
    }

    /// A report of the sender of a stream came.
    pub fn note_sender_report(&mut self, ssrc: u32, ntp: Ntp, now: Instant) {
        if let Some(stream) = self.streams.iter_mut().find(|it| it.ssrc == ssrc) {
            stream.note_sender_report(ntp, now);
        }
    }

    /// A key frame of one stream is needed; leaves with the next that is said. Whether there is
    /// such a stream.
    pub fn request_key_frame(&mut self, ssrc: u32) -> bool {
        let known = self.streams.iter().any(|it| it.ssrc == ssrc);
        if known && !self.key_frames.contains(&ssrc) {
            self.key_frames.push(ssrc);
        }
        known
    }

    /// What is to be said to the client now, if anything.
    pub fn say(&mut self, now: Instant) -> Option<Said> {
        let mut said = Said::default();
        let (out, sender) = (&mut said.datagram, self.control.ssrc().get());
        let since = |at: Instant| now.saturating_duration_since(at);
        if since(self.reported) >= REPORT_INTERVAL {
            self.reported = now;
            let media = self.streams.iter_mut().filter(|it| !it.repairs);
            let mut blocks: Vec<ReportBlock> = Vec::new();
            for stream in media {
                let block = stream.report(now);
                if block.is_some() && stream.kind == Kind::Audio {
                    said.jitter = said.jitter.max(Some(stream.jitter()));
                }
                blocks.extend(block);
                if blocks.len() == BLOCKS_MAX {
                    break;
                }
            }
            if !blocks.is_empty() {
                feedback::write_receiver_report(out, sender, &blocks);
            }
        }
        if since(self.asked) >= ASK_INTERVAL {
            let mut lost = Vec::new();
            let due = |it: &&mut Stream| !it.gaps.is_empty() && !it.is_late(now);
            for stream in self.streams.iter_mut().filter(due) {
                self.asked = now;
                lost.clear();
                stream.gaps.ask(now, &mut lost);
                if !lost.is_empty() && out.len() < BYTES_MAX {
                    feedback::write_nack(out, sender, stream.ssrc, &lost);
                    said.nacks += 1;
                }
            }
        }
        for ssrc in self.key_frames.drain(..) {
            feedback::write_pli(out, sender, ssrc);
        }
        if since(self.told) >= TWCC_INTERVAL && self.arrivals.write(out, sender, self.numbered) {
            self.told = now;
        }
        if said.datagram.is_empty() {
            return None;
        }
        let sealed = self.control.seal_rtcp(&mut said.datagram, 0);
        sealed.is_ok().then_some(said)
    }
}

/// The stream and number that a retransmission on the stream `at` stands for; nothing if it isn't
/// missing.
fn repeated(streams: &mut [Stream], at: usize, seq: u16) -> Option<(u32, u64)> {
    let Stream { mid, rid, .. } = streams[at];
    let of = |it: &&mut Stream| !it.repairs && (it.mid, it.rid) == (mid, rid);
    let stream = streams.iter_mut().find(of)?;
    let index = stream.index(seq);
    (stream.is_fresh(index) && stream.take(index)).then_some((stream.ssrc, index))
}

#[cfg(test)]
mod tests;
