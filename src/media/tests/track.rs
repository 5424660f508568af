//! What a test client sends: numbered packets of Opus, VP8 or VP9 whose every byte can be foretold.

use std::time::Instant;

use crate::media::message::{
    AddTrack, BackupPolicy, Codec, CodecInfo, Kind, LayerInfo, Quality, Source,
};

/// A microphone, a camera or a screen.
pub struct Medium {
    pub cid: String,
    pub kind: Kind,
    pub source: Source,
    /// Of a video; the section tells it if this is the only one that is announced.
    pub codec: Codec,
    /// Announced beside it.
    pub backup: Option<Codec>,
    pub backup_policy: BackupPolicy,
    /// Smallest first; one for audio and for video without simulcast.
    pub layers: Vec<Layer>,
}

/// One encoding.
pub struct Layer {
    pub rid: &'static str,
    pub sent: Vec<Content>,
    /// Key frames made so far, by number of the frame.
    pub key_frames: Vec<u64>,
    kind: Kind,
    quality: Quality,
    body: usize,
    seq: u64,
    base: u32,
    frame: u64,
    key_frame_due: bool,
    start: Option<Instant>,
}

/// One packet as it was sent.
#[derive(Debug, Clone)]
pub struct Content {
    pub seq: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
}

/// Bytes of the VP8 descriptor that [`Layer`] writes.
pub const DESCRIPTOR: usize = 6;

const PACKETS_PER_FRAME: u64 = 2;
const FULL: (u32, u32) = (1280, 720);

impl Medium {
    pub fn microphone(cid: &str) -> Self {
        Self::new(cid, Kind::Audio, Source::Microphone, &[("", 80)])
    }

    pub fn camera(cid: &str) -> Self {
        Self::camera_of(cid, 700)
    }

    /// A camera whose packets carry this many bytes of picture.
    pub fn camera_of(cid: &str, body: usize) -> Self {
        Self::new(cid, Kind::Video, Source::Camera, &[("", body)])
    }

    pub fn simulcast(cid: &str) -> Self {
        let layers = [("q", 200), ("h", 400), ("f", 800)];
        Self::new(cid, Kind::Video, Source::Camera, &layers)
    }

    fn new(cid: &str, kind: Kind, source: Source, layers: &[(&'static str, usize)]) -> Self {
        let qualities = [Quality::Low, Quality::Medium, Quality::High];
        let layers = layers.iter().zip(qualities).zip(0u32..);
        let layers = layers.map(|(((rid, body), quality), number)| Layer {
            rid,
            sent: Vec::new(),
            key_frames: Vec::new(),
            kind,
            quality,
            body: *body,
            // Near the rollover, each elsewhere.
            seq: 65_400 - u64::from(number) * 7777,
            base: 0xffff_0000 - number * 1_000_000,
            frame: 100 * u64::from(number),
            key_frame_due: true,
            start: None,
        });
        Self {
            cid: cid.to_owned(),
            kind,
            source,
            codec: Codec::Vp8,
            backup: None,
            backup_policy: BackupPolicy::default(),
            layers: layers.collect(),
        }
    }

    /// What the client says before it sends.
    pub fn announcement(&self) -> AddTrack {
        let simulcast = self.layers.len() > 1;
        let layer = |(number, layer): (usize, &Layer)| {
            let halvings = self.layers.len() - 1 - number;
            LayerInfo {
                quality: layer.quality,
                width: FULL.0 >> halvings,
                height: FULL.1 >> halvings,
                bitrate: 0,
                spatial: number as u8,
            }
        };
        let layers: Vec<_> = if simulcast {
            self.layers.iter().enumerate().map(layer).collect()
        } else {
            Vec::new()
        };
        let codec = |codec: Codec, cid: &str, layers| CodecInfo {
            mime: codec.mime().to_owned(),
            cid: cid.to_owned(),
            mid: String::new(),
            apart: false,
            layers,
        };
        let mut codecs = vec![codec(self.codec, &self.cid, layers.clone())];
        match self.backup {
            Some(backup) => codecs.push(codec(backup, "", Vec::new())),
            None if self.codec == Codec::Vp8 => codecs[0].mime.clear(),
            None => {}
        }
        AddTrack {
            sid: None,
            cid: self.cid.clone(),
            name: String::new(),
            kind: self.kind,
            source: self.source,
            muted: false,
            dimensions: match self.kind {
                Kind::Audio => (0, 0),
                Kind::Video => FULL,
            },
            layers,
            codecs,
            encryption: 0,
            stereo: false,
            disable_dtx: false,
            disable_red: true,
            stream: String::new(),
            backup_policy: self.backup_policy,
            audio_features: Vec::new(),
            packet_trailer_features: Vec::new(),
        }
    }

    /// The next frame of a layer (or of all) will be a key frame.
    pub fn make_key_frame(&mut self, rid: Option<&str>) {
        for layer in &mut self.layers {
            if rid.is_none_or(|rid| rid == layer.rid) {
                layer.key_frame_due = true;
            }
        }
    }
}

impl Layer {
    /// The packets of the next frame.
    pub fn next(&mut self, codec: Codec, now: Instant) -> Vec<Content> {
        let start = *self.start.get_or_insert(now);
        let millis = now.saturating_duration_since(start).as_millis() as u32;
        self.frame += 1;
        match self.kind {
            Kind::Audio => vec![self.packet(millis.wrapping_mul(48), true, self.noise())],
            Kind::Video => {
                let key_frame = std::mem::take(&mut self.key_frame_due);
                if key_frame {
                    self.key_frames.push(self.frame);
                }
                (0..PACKETS_PER_FRAME)
                    .map(|part| {
                        let payload = self.picture(codec, part, key_frame);
                        self.packet(millis.wrapping_mul(90), part == 1, payload)
                    })
                    .collect()
            }
        }
    }

    fn packet(&mut self, ticks: u32, marker: bool, payload: Vec<u8>) -> Content {
        self.seq += 1;
        Content {
            seq: self.seq,
            timestamp: self.base.wrapping_add(ticks),
            marker,
            payload,
        }
    }

    /// Bytes that no other packet has, ended by the sequence number.
    fn noise(&self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.seq ^ (self.body as u64) << 32);
        let mut bytes: Vec<u8> = (0..self.body).map(|_| random.u8(..)).collect();
        bytes.extend(self.seq.to_be_bytes());
        bytes
    }

    fn picture(&self, codec: Codec, part: u64, key_frame: bool) -> Vec<u8> {
        if codec == Codec::Vp9 {
            // P, B and E alone (RFC 9628 section 4.2).
            let place = if part == 0 { 0x08 } else { 0x04 };
            let mut payload = vec![place | if key_frame { 0 } else { 0x40 }];
            payload.extend(self.noise());
            return payload;
        }
        let start = if part == 0 { 0x10 } else { 0 };
        let [high, low] = (self.frame as u16 & 0x7fff).to_be_bytes();
        // X; I, L and T; a long picture id; TL0PICIDX; temporal layer 0 (RFC 7741 section 4.2).
        let mut payload = vec![0x80 | start, 0xe0, 0x80 | high, low, self.frame as u8, 0];
        if part == 0 {
            payload.push(u8::from(!key_frame));
            if key_frame {
                // Start code and size of the picture (RFC 6386 section 9.1).
                payload.extend([0, 0, 0x9d, 0x01, 0x2a, 0, 5, 0xd0, 2]);
            }
        }
        payload.extend(self.noise());
        payload
    }
}
