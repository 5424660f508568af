//! A simulcast publisher for tests: frames of temporal layers in packets, over a bad network.

use std::time::{Duration, Instant};

use crate::media::codec::{Codec, Format, Frame, vp8};
use crate::media::packet::{Layer, Packet};

const VP8: Format = Format::Plain(Codec::Vp8);

/// Repeatable random numbers (xorshift).
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Key,
    Temporal { layer: u8, sync: bool },
}

impl Kind {
    /// The pattern of three temporal layers that libwebrtc uses, synchronous every other cycle.
    pub fn of(number: u64) -> Self {
        let sync = (number / 4).is_multiple_of(2);
        match number % 4 {
            0 => Self::Temporal {
                layer: 0,
                sync: false,
            },
            2 => Self::Temporal { layer: 1, sync },
            odd => Self::Temporal {
                layer: 2,
                sync: sync && odd == 1,
            },
        }
    }

    pub fn temporal(self) -> u8 {
        match self {
            Self::Key => 0,
            Self::Temporal { layer, .. } => layer,
        }
    }
}

/// One layer's encoder and packetizer.
pub struct Source {
    pub layer: Layer,
    pub seq: u64,
    pub timestamp_base: u32,
    pub picture: u16,
    pub tl0: u8,
    /// Whether picture ids have 15 bit.
    pub long: bool,
}

impl Source {
    pub fn random(layer: u8, random: &mut Random) -> Self {
        Self {
            layer: Layer(layer),
            seq: 1000 + random.below(65_000),
            timestamp_base: random.below(1 << 32) as u32,
            picture: random.below(1 << 15) as u16,
            tl0: random.below(256) as u8,
            long: random.percent(70),
        }
    }

    /// The packets of the next frame.
    pub fn frame(&mut self, at: Ticks, kind: Kind, packets: u64) -> Vec<Packet> {
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        if kind.temporal() == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        (0..packets)
            .map(|part| self.packet(at, kind, part, part + 1 == packets))
            .collect()
    }

    /// A packet of padding only, as browsers send to probe.
    pub fn padding(&mut self, at: Ticks) -> Packet {
        self.seq += 1;
        Packet {
            audio_level: None,
            layer: self.layer,
            seq: self.seq,
            timestamp: self.timestamp(at),
            marker: false,
            arrival: at.instant,
            payload: [].into(),
            format: VP8,
            frame: Frame::default(),
            vp8: None,
            dependency: None,
        }
    }

    pub fn timestamp(&self, at: Ticks) -> u32 {
        self.timestamp_base.wrapping_add(at.ticks)
    }

    fn packet(&mut self, at: Ticks, kind: Kind, part: u64, marker: bool) -> Packet {
        let mut payload = vec![0x80 | if part == 0 { 0x10 } else { 0 }, 0xf0];
        if self.long {
            payload.extend([0x80 | (self.picture >> 8) as u8, self.picture as u8]);
        } else {
            payload.push(self.picture as u8 & 0x7f);
        }
        let sync = matches!(kind, Kind::Temporal { sync: true, .. });
        let layering = kind.temporal() << 6 | if sync { 0x20 } else { 0 };
        payload.extend([self.tl0, layering, u8::from(kind != Kind::Key)]);
        payload.extend(self.seq.to_be_bytes());
        self.seq += 1;
        let vp8 = vp8::Descriptor::parse(&payload);
        Packet {
            audio_level: None,
            layer: self.layer,
            seq: self.seq,
            timestamp: self.timestamp(at),
            marker,
            arrival: at.instant,
            format: VP8,
            frame: vp8.as_ref().map_or(Frame::default(), Frame::from),
            vp8,
            dependency: None,
            payload: payload.into(),
        }
    }
}

/// A time of capture.
#[derive(Clone, Copy)]
pub struct Ticks {
    pub instant: Instant,
    pub ticks: u32,
}

impl Ticks {
    /// Of the frame with this number, at 30 frames per second.
    pub fn of(start: Instant, frame: u64) -> Self {
        let span = Duration::from_micros(frame * 1_000_000 / 30);
        Self {
            instant: start + span,
            ticks: (frame * 3000) as u32,
        }
    }
}

/// How bad the way to us is, in percent and milliseconds.
#[derive(Clone, Copy)]
pub struct Network {
    pub loss: u64,
    pub repaired: u64,
    pub duplicates: u64,
    pub jitter: u64,
}

impl Network {
    /// Every packet arrives, in order.
    pub const GOOD: Self = Self {
        loss: 0,
        repaired: 0,
        duplicates: 0,
        jitter: 0,
    };

    /// Sends packets; they arrive in another order, twice, late or not at all.
    pub fn carry(self, packets: Vec<Packet>, random: &mut Random) -> Vec<Packet> {
        let mut arriving = Vec::new();
        for packet in packets {
            let mut delay = if self.jitter > 0 {
                random.below(self.jitter)
            } else {
                0
            };
            if random.percent(self.loss) {
                if !random.percent(self.repaired) {
                    continue;
                }
                delay += 30 + random.below(60);
            }
            let arrival = packet.arrival + Duration::from_millis(delay);
            let packet = Packet { arrival, ..packet };
            if random.percent(self.duplicates) {
                let again = arrival + Duration::from_millis(random.below(20));
                arriving.push(Packet {
                    arrival: again,
                    ..packet.clone()
                });
            }
            arriving.push(packet);
        }
        arriving.sort_by_key(|packet| packet.arrival);
        arriving
    }
}
