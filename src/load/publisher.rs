//! The sending half of a participant: a camera of three layers and a microphone, each packet when
//! it is due, key frames on demand, sender reports.

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::outgoing::Outgoing;
use super::pacing::Pacing;
use super::picture::{self, Encoder, FRAME_TIME, LAYERS};
use super::stamp::{self, Stamp};
use crate::media::batch::Batch;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::srtp::Sealer;

/// Between two packets of sound.
const VOICE_TIME: Duration = Duration::from_millis(20);

/// Bytes of a packet of sound: 32 kbit/s.
const VOICE_BYTES: usize = 80;

/// The first byte of Opus: a frame of 20 ms.
const OPUS: u8 = 0xfc;

/// Between two sender reports of a stream.
const REPORT_TIME: Duration = Duration::from_secs(1);

/// What is later than this is left out, so that a pause doesn't end in a flood.
const CATCH_UP_MAX: Duration = Duration::from_millis(500);

/// The sections that carry what is sent, by their mids.
#[derive(Debug, Clone)]
pub struct Mids {
    /// Of the microphone.
    pub audio: String,
    /// Of the camera.
    pub video: String,
}

/// The last byte of the SSRC of the best layer.
const BEST: u32 = 3;

/// And of the voice.
const VOICE: u32 = 4;

/// What was sent, and how punctual.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sent {
    /// Packets.
    pub packets: u64,
    /// Of them, those that left later than planned by more than [`LATE`].
    pub late: u64,
    /// Of them, those that the kernel didn't take.
    pub refused: u64,
}

/// A packet that leaves so much later than planned is late: a frame is due every 33 ms.
pub const LATE: Duration = Duration::from_millis(5);

/// A publisher.
pub struct Publisher {
    number: u32,
    pacing: Pacing,
    cname: String,
    start: Instant,
    layers: [(Encoder, Outgoing); LAYERS.len()],
    voice: Outgoing,
    frame: Frame,
    voice_due: Instant,
    report_due: Instant,
    random: fastrand::Rng,
}

/// The frame that is being sent: all its layers, one after the other.
#[derive(Debug)]
struct Frame {
    begun: Instant,
    gap: Duration,
    packets: usize,
    sent: usize,
}

impl Publisher {
    /// Begins with a frame soon: not all publishers at once.
    pub fn new(
        number: u32,
        pacing: Pacing,
        mids: &Mids,
        sealer: &mut Sealer,
        now: Instant,
        mut random: fastrand::Rng,
    ) -> Self {
        // Nobody else in the room uses them: they hold the number of the participant. Numbers
        // begin in the lower half, as receivers guess the rollover counter from the first.
        let mut numbers = |at: u32| ((number + 1) << 8 | at, random.u16(..0x8000));
        let [q, h, f, voice] = [1, 2, BEST, VOICE].map(&mut numbers);
        let mut stream = |layer: usize, numbers| {
            let rid = Some(LAYERS[layer].rid);
            Outgoing::new(Kind::Video, &mids.video, rid, numbers, sealer)
        };
        let streams = [stream(0, q), stream(1, h), stream(2, f)];
        let voice = Outgoing::new(Kind::Audio, &mids.audio, None, voice, sealer);
        let mut layers = LAYERS.into_iter();
        let layers = streams.map(|stream| {
            let layer = layers.next().expect("as many layers as streams");
            (Encoder::new(layer, &mut random), stream)
        });
        let soon = |random: &mut fastrand::Rng, span: Duration| now + span.mul_f64(random.f64());
        Self {
            number,
            pacing,
            cname: format!("load-{number}"),
            start: now,
            layers,
            voice,
            frame: Frame {
                begun: soon(&mut random, FRAME_TIME) - FRAME_TIME,
                gap: Duration::ZERO,
                packets: 0,
                sent: 0,
            },
            voice_due: soon(&mut random, VOICE_TIME),
            report_due: now,
            random,
        }
    }

    /// When the next packet is due.
    pub fn due(&self) -> Instant {
        self.picture_due().min(self.voice_due)
    }

    fn picture_due(&self) -> Instant {
        let Frame {
            begun,
            gap,
            packets,
            sent,
        } = self.frame;
        match sent < packets {
            true => begun + gap * u32::try_from(sent).unwrap_or(u32::MAX),
            false => begun + FRAME_TIME,
        }
    }

    /// Writes one packet, or a run of packets, that is due at `now`. Nothing if none is.
    pub fn write(&mut self, now: Instant, clock: &Clock, twcc: &mut u16, out: &mut Batch) -> Sent {
        let (picture_due, voice_due) = (self.picture_due(), self.voice_due);
        let late = |due: Instant| u64::from(now.saturating_duration_since(due) > LATE);
        let mut sent = Sent::default();
        if voice_due <= now {
            self.voice_due = next(voice_due, VOICE_TIME, now);
            sent.packets += u64::from(self.speak(voice_due, clock, twcc, out));
            sent.late += late(voice_due);
        }
        if picture_due <= now {
            if self.frame.sent >= self.frame.packets {
                self.begin(next(self.frame.begun, FRAME_TIME, now));
            }
            let count = match self.pacing {
                Pacing::Burst => self.frame.packets,
                Pacing::Chromium | Pacing::Spread => 1,
            };
            for _ in 0..count {
                sent.packets += u64::from(self.show(clock, twcc, out));
                sent.late += late(picture_due);
            }
        }
        sent
    }

    fn begin(&mut self, begun: Instant) {
        let random = &mut self.random;
        let packets = self
            .layers
            .iter_mut()
            .map(|(encoder, _)| encoder.begin(random));
        let packets = packets.sum();
        self.frame = Frame {
            begun,
            gap: self.pacing.gap(packets, random.f64()),
            packets,
            sent: 0,
        };
    }

    /// Writes the next packet of the frame.
    fn show(&mut self, clock: &Clock, twcc: &mut u16, out: &mut Batch) -> bool {
        let timestamp = ticks(self.frame.begun, self.start, 90);
        let mut at = self.frame.sent;
        self.frame.sent += 1;
        for (layer, (encoder, stream)) in self.layers.iter_mut().enumerate() {
            let packets = encoder.packets();
            if at >= packets {
                at -= packets;
                continue;
            }
            let stamp = Stamp {
                sent: clock.unix(clock.now()),
                seq: stream.next_seq(),
                publisher: self.number,
                layer: layer as u8,
            };
            let marker = at + 1 == packets;
            return stream.write(out, (marker, timestamp), twcc, |out| {
                encoder.write(at, &stamp, out);
            });
        }
        false
    }

    fn speak(&mut self, due: Instant, clock: &Clock, twcc: &mut u16, out: &mut Batch) -> bool {
        let timestamp = ticks(due, self.start, 48);
        let stamp = Stamp {
            sent: clock.unix(clock.now()),
            seq: self.voice.next_seq(),
            publisher: self.number,
            layer: 0,
        };
        self.voice.write(out, (false, timestamp), twcc, |out| {
            out.push(OPUS);
            stamp.write(out);
            out.resize(out.len() + VOICE_BYTES - 1 - stamp::BYTES, 0);
        })
    }

    /// Writes sender reports if they are due.
    pub fn report(&mut self, now: Instant, clock: &Clock, out: &mut Batch) {
        if now < self.report_due {
            return;
        }
        self.report_due = now + REPORT_TIME;
        let ntp = Ntp::from_unix(clock.unix(now));
        let (video, audio) = (ticks(now, self.start, 90), ticks(now, self.start, 48));
        for (_, stream) in &mut self.layers {
            stream.report(out, ntp, video, &self.cname);
        }
        self.voice.report(out, ntp, audio, &self.cname);
    }

    /// The server wants a key frame on `ssrc`.
    pub fn make_key_frame(&mut self, ssrc: u32) {
        for (encoder, stream) in &mut self.layers {
            if stream.is_on(ssrc) {
                encoder.make_key_frame();
            }
        }
    }

    /// The server has reported on `ssrc`.
    pub fn note_known(&mut self, ssrc: u32) {
        let streams = self.layers.iter_mut().map(|(_, stream)| stream);
        for stream in streams.chain([&mut self.voice]) {
            if stream.is_on(ssrc) {
                stream.note_known();
            }
        }
    }
}

/// Of the streams of a publisher those that others are to hear: whether it is the voice, and
/// nothing for a smaller layer than the best.
pub fn is_best(ssrc: u32) -> Option<bool> {
    match ssrc & 0xff {
        BEST => Some(false),
        VOICE => Some(true),
        _ => None,
    }
}

/// The stamp in a packet of sound.
pub fn voice_stamp(payload: &[u8]) -> Option<Stamp> {
    Stamp::read(payload.strip_prefix(&[OPUS])?)
}

/// The stamp in a picture's packet, behind a descriptor of so many bytes.
pub fn picture_stamp(payload: &[u8], descriptor: u8) -> Option<Stamp> {
    picture::stamp(payload.get(usize::from(descriptor)..)?)
}

/// One interval after `due`, unless that is long past.
fn next(due: Instant, interval: Duration, now: Instant) -> Instant {
    let next = due + interval;
    match now.saturating_duration_since(next) > CATCH_UP_MAX {
        true => now,
        false => next,
    }
}

/// RTP time at `at`.
fn ticks(at: Instant, start: Instant, kilohertz: u64) -> u32 {
    let micros = at.saturating_duration_since(start).as_micros() as u64;
    (micros * kilohertz / 1000) as u32
}
