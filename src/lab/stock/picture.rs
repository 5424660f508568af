//! The picture of a stock sender: which of its layers goes out, as one stream.

use std::time::Instant;

use crate::media::codec::vp8::{Descriptor, Numbering};
use crate::sim::content::Stamp;
use crate::sim::medium::{Encoded, Encoder, Medium};
use crate::units::Bitrate;

/// The layers of a camera and which of them is sent.
pub struct Picture {
    rates: Vec<Bitrate>,
    encoders: Vec<Encoder>,
    /// The one that is sent.
    current: Option<usize>,
    /// The one that will be, once its key frame comes.
    wanted: usize,
    /// Of the newest packet that was sent.
    seq: u64,
    numbering: Numbering,
}

impl Picture {
    /// The picture of a camera.
    pub fn new(camera: &Medium, now: Instant, random: &mut fastrand::Rng) -> Self {
        let layers = 0..camera.rates.len() as u8;
        Self {
            rates: camera.rates.clone(),
            encoders: layers.map(|it| encoder(camera, it, now, random)).collect(),
            current: None,
            wanted: 0,
            seq: 0,
            numbering: Numbering::default(),
        }
    }

    /// Chooses the largest layer that fits, or the smallest.
    pub fn allocate(&mut self, room: Bitrate) {
        let fitting = self.rates.iter().rposition(|rate| *rate <= room);
        let before = std::mem::replace(&mut self.wanted, fitting.unwrap_or(0));
        if self.wanted != before && self.current != Some(self.wanted) || self.current.is_none() {
            self.encoders[self.wanted].make_key_frame();
        }
    }

    /// The viewer asks for a key frame.
    pub fn refresh(&mut self) {
        let layer = self.current.unwrap_or(self.wanted);
        self.encoders[layer].make_key_frame();
    }

    /// The rate of the layer above the one that is wanted.
    pub fn next(&self) -> Option<Bitrate> {
        self.rates.get(self.wanted + 1).copied()
    }

    /// The rate of the largest layer.
    pub fn best(&self) -> Bitrate {
        self.rates.last().copied().unwrap_or_default()
    }

    /// Key frames made of all layers.
    pub fn key_frames(&self) -> u32 {
        self.encoders.iter().map(|it| it.key_frames).sum()
    }

    /// What is to be sent now, and the packets of the best layer beside it.
    pub fn encode(&mut self, now: Instant) -> (Vec<Encoded>, &[Encoded]) {
        let encoders = self.encoders.iter_mut();
        let frames: Vec<_> = encoders.map(|encoder| encoder.encode(now)).collect();
        let first = frames[self.wanted].first();
        let first = first.and_then(|packet| Descriptor::parse(&packet.payload));
        let switches = self.current != Some(self.wanted) && first.is_some_and(|it| it.key_frame);
        if switches {
            self.current = Some(self.wanted);
        }
        let best = frames.last().copied().unwrap_or_default();
        let Some(current) = self.current else {
            return (Vec::new(), best);
        };
        let mut out = Vec::with_capacity(frames[current].len());
        for (at, packet) in frames[current].iter().enumerate() {
            let (Some(vp8), Some(stamp)) = (
                Descriptor::parse(&packet.payload),
                Stamp::read(&packet.payload),
            ) else {
                continue;
            };
            let ids = match switches && at == 0 {
                true => self.numbering.start(&vp8),
                false => self.numbering.forward(&vp8),
            };
            let mut payload = Vec::with_capacity(packet.payload.len());
            vp8.write(ids, &mut payload);
            payload.extend_from_slice(&packet.payload[usize::from(vp8.length)..]);
            self.seq += 1;
            out.push(Encoded {
                seq: self.seq,
                // Each layer has a clock of its own.
                timestamp: (stamp.sent * 9 / 100) as u32,
                marker: packet.marker,
                payload,
            });
        }
        (out, best)
    }
}

/// The encoder of one layer, which has been running for a while: its first picture is gone.
pub fn encoder(medium: &Medium, layer: u8, now: Instant, random: &mut fastrand::Rng) -> Encoder {
    let stamp = Stamp {
        sender: 0,
        track: 0,
        layer,
        seq: 0,
        frame: 0,
        sent: 0,
    };
    let mut encoder = Encoder::new(medium, stamp, random, now);
    encoder.encode(now);
    encoder.key_frames = 0;
    encoder
}
