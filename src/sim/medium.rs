//! What a simulated client publishes: a microphone, or a camera whose encoder makes up to three
//! layers of VP8 with three temporal layers each. Pictures are made of nothing; sizes, rates,
//! descriptors and numbers are what a browser's are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::content::{STAMP, Stamp};
use crate::media::message::{AddTrack, BackupPolicy, CodecInfo, Kind, LayerInfo, Quality, Source};
use crate::units::Bitrate;

/// Something to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Medium {
    /// The client's own id of it.
    pub cid: String,
    /// Audio or video.
    pub kind: Kind,
    /// Its layers, smallest first; one for audio.
    pub rates: Vec<Bitrate>,
    /// How frames differ in size.
    pub frames: Frames,
}

/// How frames differ in size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Frames {
    /// Not at all, but for key frames.
    Equal,
    /// By temporal layer, as libwebrtc shares its bitrate out (40, 20 and 40 % for 1, 1 and 2 of
    /// four frames), and by chance, up to a fifth more or less.
    Real,
}

impl Medium {
    /// 50 packets of Opus in a second.
    pub fn microphone(cid: &str) -> Self {
        Self::new(cid, Kind::Audio, &[32])
    }

    /// Three layers of VP8 at 30 frames per second, as livekit-client sends a camera of 720p.
    pub fn simulcast(cid: &str) -> Self {
        Self::new(cid, Kind::Video, &[160, 450, 1700])
    }

    /// One layer, and a small one.
    pub fn thumbnail(cid: &str) -> Self {
        Self::new(cid, Kind::Video, &[160])
    }

    /// The same with other rates, and frames of all sizes.
    pub fn camera(cid: &str) -> Self {
        Self {
            frames: Frames::Real,
            ..Self::new(cid, Kind::Video, &[150, 500, 1700])
        }
    }

    fn new(cid: &str, kind: Kind, kbps: &[u64]) -> Self {
        Self {
            frames: Frames::Equal,
            cid: cid.to_owned(),
            kind,
            rates: kbps.iter().copied().map(Bitrate::kbps).collect(),
        }
    }

    /// RIDs of its layers, smallest first; none without simulcast.
    pub fn rids(&self) -> &'static [&'static str] {
        if self.rates.len() > 1 { &RIDS } else { &[] }
    }

    /// What the client says before it sends.
    pub fn announcement(&self) -> AddTrack {
        let qualities = [Quality::Low, Quality::Medium, Quality::High];
        let layers: Vec<_> = (self
            .rids()
            .iter()
            .zip(qualities)
            .zip(&self.rates)
            .enumerate())
        .map(|(spatial, ((_, quality), rate))| LayerInfo {
            quality,
            width: FULL.0 >> (self.rates.len() - 1 - spatial),
            height: FULL.1 >> (self.rates.len() - 1 - spatial),
            bitrate: rate.as_bps() as u32,
            spatial: spatial as u8,
        })
        .collect();
        let (source, dimensions) = match self.kind {
            Kind::Audio => (Source::Microphone, (0, 0)),
            Kind::Video => (Source::Camera, FULL),
        };
        AddTrack {
            sid: None,
            cid: self.cid.clone(),
            name: String::new(),
            kind: self.kind,
            source,
            muted: false,
            dimensions,
            layers: layers.clone(),
            codecs: vec![CodecInfo {
                mime: String::new(),
                cid: self.cid.clone(),
                mid: String::new(),
                apart: false,
                layers,
            }],
            encryption: 0,
            stereo: false,
            disable_dtx: false,
            disable_red: true,
            stream: String::new(),
            backup_policy: BackupPolicy::default(),
            audio_features: Vec::new(),
            packet_trailer_features: Vec::new(),
        }
    }
}

const RIDS: [&str; 3] = ["q", "h", "f"];
const FULL: (u32, u32) = (1280, 720);

/// Between two packets of Opus.
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// Between two frames.
const VIDEO_INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / 30);
/// A key frame is so many times the size of a usual one.
const KEY_FRAME_FACTOR: usize = 5;
/// Most bytes of a payload, as libwebrtc splits frames.
const PAYLOAD_MAX: usize = 1100;
/// Packets kept to be sent again.
const KEPT: usize = 1024;

/// A packet as it was encoded.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Extended sequence number.
    pub seq: u64,
    /// In the RTP clock of its kind.
    pub timestamp: u32,
    /// The last packet of a frame.
    pub marker: bool,
    /// Descriptor, picture and stamp.
    pub payload: Vec<u8>,
}

/// One layer's encoder and packetizer.
#[derive(Debug)]
pub struct Encoder {
    kind: Kind,
    rate: Bitrate,
    /// Who, which track, which layer; and the numbers of the newest packet.
    stamp: Stamp,
    picture: u16,
    tl0: u8,
    /// Place in the pattern of temporal layers.
    cycle: u8,
    key_frame_due: bool,
    rests: bool,
    first_timestamp: u32,
    /// What the stamp says of `start`.
    first_sent: u64,
    start: Instant,
    next: Instant,
    kept: VecDeque<Encoded>,
    frames: Frames,
    random: fastrand::Rng,
    /// Key frames made so far.
    pub key_frames: u32,
}

impl Encoder {
    /// The encoder of one layer of `medium`. `stamp` says whose it is; numbers start anywhere.
    pub fn new(
        medium: &Medium,
        mut stamp: Stamp,
        random: &mut fastrand::Rng,
        now: Instant,
    ) -> Self {
        // A first number in the lower half: receivers guess the rollover counter from it.
        stamp.seq = u64::from(random.u16(..0x8000));
        Self {
            kind: medium.kind,
            rate: medium.rates[usize::from(stamp.layer)],
            stamp,
            picture: random.u16(..0x8000),
            tl0: random.u8(..),
            cycle: 0,
            key_frame_due: true,
            rests: false,
            first_timestamp: random.u32(..),
            first_sent: stamp.sent,
            start: now,
            next: now,
            kept: VecDeque::new(),
            frames: medium.frames,
            random: random.fork(),
            key_frames: 0,
        }
    }

    /// The next frame will be a key frame.
    pub fn make_key_frame(&mut self) {
        self.key_frame_due = true;
    }

    /// Its rate from now on, or that it rests. It comes back with a key frame.
    pub fn set_rate(&mut self, rate: Option<Bitrate>, now: Instant) {
        self.key_frame_due |= self.rests;
        self.rests = rate.is_none();
        match rate {
            Some(rate) => self.rate = rate,
            None => {
                while self.next <= now {
                    self.next += VIDEO_INTERVAL;
                }
            }
        }
    }

    /// Whether it rests.
    pub fn rests(&self) -> bool {
        self.rests
    }

    /// The packet with the lower 16 bits of this sequence number, if it is still kept.
    pub fn kept(&self, seq: u16) -> Option<&Encoded> {
        self.kept
            .iter()
            .rev()
            .find(|packet| packet.seq as u16 == seq)
    }

    /// The number of the newest packet.
    pub fn newest(&self) -> u64 {
        self.stamp.seq
    }

    /// RTP time at `now`.
    pub fn timestamp(&self, now: Instant) -> u32 {
        let micros = now.saturating_duration_since(self.start).as_micros() as u64;
        let ticks = match self.kind {
            Kind::Audio => micros * 48 / 1000,
            Kind::Video => micros * 90 / 1000,
        };
        self.first_timestamp.wrapping_add(ticks as u32)
    }

    /// The packets of what is due by now: nothing, or one frame.
    pub fn encode(&mut self, now: Instant) -> &[Encoded] {
        if self.rests || now < self.next {
            return &[];
        }
        let at = self.next;
        let before = self.kept.len();
        let added = match self.kind {
            Kind::Audio => {
                self.next += AUDIO_INTERVAL;
                self.speech(at)
            }
            Kind::Video => {
                self.next += VIDEO_INTERVAL;
                self.frame(at)
            }
        };
        let excess = (before + added).saturating_sub(KEPT);
        self.kept.drain(..excess);
        let kept = self.kept.make_contiguous();
        &kept[kept.len() - added..]
    }

    fn speech(&mut self, at: Instant) -> usize {
        let bytes = self.bytes_per(AUDIO_INTERVAL).max(STAMP);
        self.stamp.frame += 1;
        self.push(at, false, vec![0xfc; bytes - STAMP]);
        1
    }

    fn frame(&mut self, at: Instant) -> usize {
        let key_frame = std::mem::take(&mut self.key_frame_due);
        if key_frame {
            self.cycle = 0;
            self.key_frames += 1;
        }
        // libwebrtc's pattern of three temporal layers. Frames above the lowest refer to that one
        // only, which their Y bit says (RFC 7741 section 4.2).
        let temporal = [0, 2, 1, 2][usize::from(self.cycle)];
        self.cycle = (self.cycle + 1) % 4;
        self.picture = (self.picture + 1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        self.stamp.frame += 1;
        let factor = if key_frame { KEY_FRAME_FACTOR } else { 1 };
        let mut left = self.bytes_per(VIDEO_INTERVAL) * factor;
        if self.frames == Frames::Real && !key_frame {
            // Of four frames one is of the lowest layer, and has 1.6 times the mean.
            let share = [1.6, 0.8, 0.8][usize::from(temporal)];
            left = (left as f64 * share * (0.8 + 0.4 * self.random.f64())) as usize;
        }
        let packets = left.div_ceil(PAYLOAD_MAX).max(1);
        let share = left.div_ceil(packets);
        for number in 0..packets {
            let payload = self.picture(number == 0, key_frame, temporal, share.min(left));
            left = left.saturating_sub(share);
            self.push(at, number + 1 == packets, payload);
        }
        packets
    }

    /// Descriptor with long picture id, TL0PICIDX and temporal layer; then a picture of nothing.
    fn picture(&self, start: bool, key_frame: bool, temporal: u8, bytes: usize) -> Vec<u8> {
        let [high, low] = self.picture.to_be_bytes();
        let sync = if temporal > 0 { 0x20 } else { 0 };
        let mut payload = Vec::with_capacity(bytes.max(40));
        payload.extend([0x80 | u8::from(start) << 4, 0xe0, 0x80 | high, low]);
        payload.extend([self.tl0, temporal << 6 | sync]);
        if start {
            payload.push(u8::from(!key_frame));
            if key_frame {
                // Start code and size of the picture (RFC 6386 section 9.1).
                payload.extend([0, 0, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2]);
            }
        }
        payload.resize(bytes.saturating_sub(STAMP).max(payload.len()), 0xaa);
        payload
    }

    fn push(&mut self, at: Instant, marker: bool, mut payload: Vec<u8>) {
        self.stamp.seq += 1;
        let passed = at.saturating_duration_since(self.start);
        self.stamp.sent = self.first_sent + passed.as_micros() as u64;
        self.stamp.write(&mut payload);
        self.kept.push_back(Encoded {
            seq: self.stamp.seq,
            timestamp: self.timestamp(at),
            marker,
            payload,
        });
    }

    fn bytes_per(&self, interval: Duration) -> usize {
        (self.rate.as_bps() as u128 * interval.as_micros() / 8_000_000) as usize
    }
}
