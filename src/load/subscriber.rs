//! The receiving half of a participant: its streams, and the feedback that goes back.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::incoming::{Counts, Incoming};
use super::publisher::{picture_stamp, voice_stamp};
use super::sdp::kind_of;
use super::tally::Tally;
use crate::media::codec::vp8::Descriptor;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::feedback::{Twcc, write_nack, write_pli, write_receiver_report};
use crate::media::srtp::RtpOpener;
use crate::sim::receiving::{Header, nearest, payload};

/// Most streams of a participant; packets of further ones are not looked at.
const STREAMS_MAX: usize = 2000;

/// A stream that nothing has come of for so long has ended: longer than any pause.
const SILENCE: Duration = Duration::from_secs(60);

/// Between two receiver reports.
const REPORT_TIME: Duration = Duration::from_secs(1);

/// Between two looks at what is missing, as libwebrtc has it.
const ASK_TIME: Duration = Duration::from_millis(20);

/// What came of a packet, for who joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Media came.
    pub media: bool,
    /// A picture can be shown.
    pub picture: bool,
}

/// The receiving half.
pub struct Subscriber {
    rtp: RtpOpener,
    /// SSRCs of `streams`, in their order: all that is searched for each packet.
    ssrcs: Vec<u32>,
    streams: Vec<Incoming>,
    /// Where what is missing is repeated, if it is asked for.
    repairs: Option<Vec<Repair>>,
    /// What became of packets of streams that have ended.
    ended: Counts,
    twcc: Twcc,
    report_due: Instant,
    asked: Instant,
    opened: Vec<u8>,
}

/// A stream of repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repair {
    ssrc: u32,
    /// What it repeats.
    media: u32,
    newest: Option<u64>,
}

impl Subscriber {
    /// Has received nothing.
    pub fn new(rtp: RtpOpener, now: Instant) -> Self {
        Self {
            rtp,
            ssrcs: Vec::new(),
            streams: Vec::new(),
            repairs: None,
            ended: Counts::default(),
            twcc: Twcc::new(now),
            report_due: now + REPORT_TIME,
            asked: now,
            opened: Vec::new(),
        }
    }

    /// Asks for what is missing from now on. Pairs name what is repeated, and where.
    pub fn ask_for_missing(&mut self, pairs: &[(u32, u32)]) {
        let repairs = self.repairs.get_or_insert_default();
        for (media, ssrc) in pairs {
            let known = repairs.iter().any(|it| it.ssrc == *ssrc);
            if !known && repairs.len() < STREAMS_MAX {
                repairs.push(Repair {
                    ssrc: *ssrc,
                    media: *media,
                    newest: None,
                });
            }
        }
    }

    /// A datagram of media, which the kernel had at `arrival`.
    pub fn receive(
        &mut self,
        arrival: Instant,
        clock: &Clock,
        datagram: &[u8],
        tally: &mut Tally,
    ) -> Seen {
        let Some(header) = Header::parse(datagram) else {
            return Seen::default();
        };
        tally.received += 1;
        tally.bytes += datagram.len() as u64;
        if let Some(number) = header.twcc {
            self.twcc.note(number, arrival);
        }
        let Some(kind) = kind_of(datagram[1] & 0x7f) else {
            tally.repeated += 1;
            self.repair(&header, datagram, tally);
            return Seen::default();
        };
        let Some(at) = self.stream(kind, &header, arrival) else {
            return Seen::default();
        };
        let stream = &mut self.streams[at];
        if let Some(index) = stream.note(&header, arrival) {
            let opened = &mut self.opened;
            match self.rtp.open(datagram, header.len, index, opened) {
                Ok(()) => {
                    tally.opened += 1;
                    let payload = payload(opened, header.len);
                    look(stream, &header, index, payload, clock.unix(arrival), tally);
                }
                Err(_) => tally.unopened += 1,
            }
        }
        Seen {
            media: true,
            picture: stream.note_marker(&header),
        }
    }

    /// Looks what is repeated (RFC 4588 section 4): the first two bytes are its number. Probes are
    /// repetitions too, or have no bytes at all.
    fn repair(&mut self, header: &Header, datagram: &[u8], tally: &mut Tally) {
        let repairs = self.repairs.iter_mut().flatten();
        let Some(repair) = repairs.into_iter().find(|it| it.ssrc == header.ssrc) else {
            return;
        };
        let newest = repair.newest.unwrap_or(header.seq.into());
        let index = nearest(header.seq, newest);
        let opened = &mut self.opened;
        if self.rtp.open(datagram, header.len, index, opened).is_err() {
            tally.unopened += 1;
            return;
        }
        repair.newest = Some(newest.max(index));
        let at = self.ssrcs.iter().position(|ssrc| *ssrc == repair.media);
        let number = payload(opened, header.len).split_first_chunk::<2>();
        if let (Some(at), Some((number, rest))) = (at, number) {
            let stream = &mut self.streams[at];
            stream.note_repaired(stream.index(u16::from_be_bytes(*number)));
            if let Some(descriptor) = Descriptor::parse(rest) {
                stream.look(header, &descriptor);
            }
        }
    }

    /// A bad network took a datagram on purpose.
    pub fn note_taken(&mut self, datagram: &[u8]) {
        let media = Header::parse(datagram).filter(|_| kind_of(datagram[1] & 0x7f).is_some());
        let Some(header) = media else { return };
        if let Some(at) = self.ssrcs.iter().position(|ssrc| *ssrc == header.ssrc) {
            self.streams[at].note_taken(&header);
        }
    }

    /// The place of the stream of a packet.
    fn stream(&mut self, kind: Kind, header: &Header, now: Instant) -> Option<usize> {
        if let Some(at) = self.ssrcs.iter().position(|ssrc| *ssrc == header.ssrc) {
            return Some(at);
        }
        if self.ssrcs.len() >= STREAMS_MAX {
            return None;
        }
        self.ssrcs.push(header.ssrc);
        let mut stream = Incoming::new(kind, header, now);
        if self.repairs.is_some() {
            stream.ask_for_missing();
        }
        self.streams.push(stream);
        Some(self.ssrcs.len() - 1)
    }

    /// The server has reported on a stream.
    pub fn note_sender_report(&mut self, ssrc: u32, ntp: Ntp, now: Instant) {
        if let Some(at) = self.ssrcs.iter().position(|known| *known == ssrc) {
            self.streams[at].note_sender_report(ntp, now);
        }
    }

    /// Writes what is to be said now: a report every second, requests for key frames, and what
    /// arrived since the last time.
    pub fn feedback(&mut self, now: Instant, sender: u32, out: &mut Vec<u8>) {
        if now >= self.report_due {
            self.report_due = now + REPORT_TIME;
            let blocks = self.streams.iter_mut().map(|stream| stream.report(now));
            let blocks: Vec<_> = blocks.collect();
            write_receiver_report(out, sender, &blocks);
        }
        for stream in &mut self.streams {
            if stream.asks_for_key_frame(now) {
                write_pli(out, sender, stream.ssrc());
            }
        }
        self.twcc.write(out, sender, 0);
    }

    /// Writes which packets are missing, if that is asked for, and it is time.
    pub fn ask(&mut self, now: Instant, sender: u32, out: &mut Vec<u8>) {
        let early = now.saturating_duration_since(self.asked) < ASK_TIME;
        if early || self.repairs.is_none() {
            return;
        }
        self.asked = now;
        for stream in &mut self.streams {
            let missing = stream.missing(now);
            if !missing.is_empty() {
                write_nack(out, sender, stream.ssrc(), &missing);
            }
        }
    }

    /// Lets go of streams that have ended.
    pub fn forget(&mut self, now: Instant) {
        let ended = |it: &Incoming| now.saturating_duration_since(it.heard()) > SILENCE;
        while let Some(at) = self.streams.iter().position(ended) {
            self.ended.add(self.streams.swap_remove(at).counts());
            self.ssrcs.swap_remove(at);
        }
    }

    /// What became of packets.
    pub fn counts(&self) -> Counts {
        let mut counts = self.ended;
        for stream in &self.streams {
            counts.add(stream.counts());
        }
        counts
    }

    /// Adds to `layers` those of the pictures that were seen since the last time.
    pub fn take_layers(&mut self, layers: &mut [u64]) {
        for stream in self.streams.iter_mut().filter(|it| it.is_video()) {
            let layer = stream.take_layer().map(usize::from);
            if let Some(count) = layer.and_then(|layer| layers.get_mut(layer)) {
                *count += 1;
            }
        }
    }

    /// What counts begins now.
    pub fn restart(&mut self) {
        self.ended = Counts::default();
        for stream in &mut self.streams {
            stream.restart();
        }
    }
}

/// Looks into an opened packet.
fn look(
    stream: &mut Incoming,
    header: &Header,
    index: u64,
    payload: &[u8],
    arrival: Duration,
    tally: &mut Tally,
) {
    let stamp = match stream.is_video() {
        false => voice_stamp(payload),
        true => Descriptor::parse(payload).and_then(|descriptor| {
            stream.look(header, &descriptor);
            picture_stamp(payload, descriptor.length)
        }),
    };
    match stamp {
        Some(stamp) => {
            tally.note_delay(arrival.saturating_sub(stamp.sent));
            stream.note_stamp(index, &stamp, tally);
        }
        None => tally.unstamped += 1,
    }
}
