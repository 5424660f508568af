//! The receiving half of a participant: its streams, and the feedback that goes back.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::incoming::Incoming;
use super::publisher::{picture_stamp, voice_stamp};
use super::sdp::kind_of;
use super::tally::{Second, Tally};
use crate::media::codec::vp8::Descriptor;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::feedback::{Twcc, write_pli, write_receiver_report};
use crate::media::srtp::RtpOpener;
use crate::sim::receiving::{Header, payload};

/// Most streams of a participant; packets of further ones are not looked at.
const STREAMS_MAX: usize = 2000;

/// A stream that nothing has come of for so long has ended: longer than any pause.
const SILENCE: Duration = Duration::from_secs(60);

/// Between two receiver reports.
const REPORT_TIME: Duration = Duration::from_secs(1);

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
    /// Packets of streams that have ended, that should have come, and those of them that didn't.
    ended: (u64, u64),
    twcc: Twcc,
    report_due: Instant,
    opened: Vec<u8>,
}

impl Subscriber {
    /// Has received nothing.
    pub fn new(rtp: RtpOpener, now: Instant) -> Self {
        Self {
            rtp,
            ssrcs: Vec::new(),
            streams: Vec::new(),
            ended: (0, 0),
            twcc: Twcc::new(now),
            report_due: now + REPORT_TIME,
            opened: Vec::new(),
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
            return Seen::default();
        };
        let Some(at) = self.stream(kind, &header, arrival) else {
            return Seen::default();
        };
        let stream = &mut self.streams[at];
        if let Some(index) = stream.note(&header) {
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

    /// The place of the stream of a packet.
    fn stream(&mut self, kind: Kind, header: &Header, now: Instant) -> Option<usize> {
        if let Some(at) = self.ssrcs.iter().position(|ssrc| *ssrc == header.ssrc) {
            return Some(at);
        }
        if self.ssrcs.len() >= STREAMS_MAX {
            return None;
        }
        self.ssrcs.push(header.ssrc);
        self.streams.push(Incoming::new(kind, header, now));
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

    /// Lets go of streams that have ended.
    pub fn forget(&mut self, now: Instant) {
        let ended = |it: &Incoming| now.saturating_duration_since(it.heard()) > SILENCE;
        while let Some(at) = self.streams.iter().position(ended) {
            let (expected, lost) = self.streams.swap_remove(at).expected();
            self.ssrcs.swap_remove(at);
            self.ended = (self.ended.0 + expected, self.ended.1 + lost);
        }
    }

    /// Adds to `second` what was seen since the last time, and all that was lost.
    pub fn sum_up(&mut self, second: &mut Second) {
        second.expected += self.ended.0;
        second.lost += self.ended.1;
        for stream in &mut self.streams {
            let (expected, lost) = stream.expected();
            second.expected += expected;
            second.lost += lost;
            if !stream.is_video() {
                continue;
            }
            let layer = stream.take_layer().map(usize::from);
            if let Some(count) = layer.and_then(|layer| second.layers.get_mut(layer)) {
                *count += 1;
            }
        }
    }

    /// What counts begins now.
    pub fn restart(&mut self) {
        self.ended = (0, 0);
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
