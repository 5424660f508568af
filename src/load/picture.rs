//! The camera of a publisher: three layers of VP8 at 30 frames per second, three temporal layers
//! each. Pictures are made of nothing, but sizes, rates, payload descriptors and what begins a
//! frame are what a browser's are, so any server forwards them.

use std::time::Duration;

use super::stamp::{self, Stamp};

/// Between two frames.
pub const FRAME_TIME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// Layers, smallest first.
pub const LAYERS: [Layer; 3] = [
    Layer::new("q", 320, 180, 160_000),
    Layer::new("h", 640, 360, 450_000),
    // With headers about 1.7 Mbit/s, and six equal packets in a frame.
    Layer::new("f", 1280, 720, 1_600_000),
];

/// What is fixed of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Its name in SDP and packets.
    pub rid: &'static str,
    /// Of the picture.
    pub width: u16,
    /// Of the picture.
    pub height: u16,
    /// Bits per second, payloads alone.
    pub bits: u32,
}

impl Layer {
    const fn new(rid: &'static str, width: u16, height: u16, bits: u32) -> Self {
        Self {
            rid,
            width,
            height,
            bits,
        }
    }
}

/// Most bytes of a payload: libwebrtc's packets have 1200 with their headers.
const PAYLOAD_MAX: usize = 1170;

/// A key frame is so many times the size of another.
const KEY_FRAME_FACTOR: usize = 5;

/// Frames are up to so many hundredths smaller or larger than the rate says.
const VARIATION: usize = 5;

/// Bytes between descriptor and stamp: frame tag, start code and size of a key frame (RFC 6386
/// section 9.1); in other packets nothing that means anything.
const FRAME_HEAD: usize = 10;

/// Bytes of the descriptor that [`Encoder::write`] writes.
const DESCRIPTOR: usize = 6;

/// libwebrtc's pattern of three temporal layers. Frames above the lowest refer to that one only,
/// which their Y bit says (RFC 7741 section 4.2).
const TEMPORAL: [u8; 4] = [0, 2, 1, 2];

/// One layer's encoder and packetizer.
#[derive(Debug)]
pub struct Encoder {
    layer: Layer,
    picture: u16,
    tl0: u8,
    cycle: usize,
    key_frame_due: bool,
    frame: Frame,
}

/// The frame that is being sent.
#[derive(Debug, Default)]
struct Frame {
    key: bool,
    temporal: u8,
    bytes: usize,
    packets: usize,
}

impl Encoder {
    /// Its first frame is a key frame; numbers start anywhere.
    pub fn new(layer: Layer, random: &mut fastrand::Rng) -> Self {
        Self {
            layer,
            picture: random.u16(..0x8000),
            tl0: random.u8(..),
            cycle: 0,
            key_frame_due: true,
            frame: Frame::default(),
        }
    }

    /// The next frame will be a key frame.
    pub fn make_key_frame(&mut self) {
        self.key_frame_due = true;
    }

    /// Begins the next frame; gives the number of its packets.
    pub fn begin(&mut self, random: &mut fastrand::Rng) -> usize {
        let key = std::mem::take(&mut self.key_frame_due);
        if key {
            self.cycle = 0;
        }
        let temporal = TEMPORAL[self.cycle];
        self.cycle = (self.cycle + 1) % TEMPORAL.len();
        self.picture = (self.picture + 1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        let usual = self.layer.bits as usize / 8 / 30;
        let usual = usual * random.usize(100 - VARIATION..=100 + VARIATION) / 100;
        let bytes = if key { usual * KEY_FRAME_FACTOR } else { usual };
        self.frame = Frame {
            key,
            temporal,
            bytes,
            packets: bytes.div_ceil(PAYLOAD_MAX),
        };
        self.frame.packets
    }

    /// Packets of the frame that was begun.
    pub fn packets(&self) -> usize {
        self.frame.packets
    }

    /// Appends the payload of packet `at` of the frame: descriptor with long picture id, TL0PICIDX
    /// and temporal layer, then a picture of nothing with the stamp in it.
    pub fn write(&self, at: usize, stamp: &Stamp, out: &mut Vec<u8>) {
        let Frame {
            key,
            temporal,
            bytes,
            packets,
        } = self.frame;
        // Packets of a frame are equal or a byte apart.
        let share = bytes / packets + usize::from(at < bytes % packets);
        let end = out.len() + share.max(DESCRIPTOR + FRAME_HEAD + stamp::BYTES);
        let start = at == 0;
        let [high, low] = self.picture.to_be_bytes();
        let sync = if temporal > 0 { 0x20 } else { 0 };
        out.extend([0x80 | u8::from(start) << 4, 0xe0, 0x80 | high, low]);
        out.extend([self.tl0, temporal << 6 | sync]);
        let Layer { width, height, .. } = self.layer;
        let ([w0, w1], [h0, h1]) = (width.to_le_bytes(), height.to_le_bytes());
        out.extend(match (start, key) {
            // The lowest bit is the inverse key frame flag, the fifth shows the frame.
            (true, true) => [0x10, 2, 0, 0x9d, 0x01, 0x2a, w0, w1, h0, h1],
            (true, false) => [0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0],
            (false, _) => [FILL; FRAME_HEAD],
        });
        stamp.write(out);
        out.resize(end, FILL);
    }
}

const FILL: u8 = 0xaa;

/// The stamp in what follows the descriptor of a payload.
pub fn stamp(frame: &[u8]) -> Option<Stamp> {
    Stamp::read(frame.get(FRAME_HEAD..)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::vp8::Descriptor;

    fn frame(encoder: &mut Encoder, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
        let stamp = Stamp {
            sent: Duration::from_millis(7),
            seq: 5,
            publisher: 3,
            layer: 2,
        };
        let packets = encoder.begin(random);
        let write = |at| {
            let mut payload = Vec::new();
            encoder.write(at, &stamp, &mut payload);
            let descriptor = Descriptor::parse(&payload).expect("a descriptor");
            let rest = &payload[usize::from(descriptor.length)..];
            assert_eq!(super::stamp(rest), Some(stamp));
            payload
        };
        (0..packets).map(write).collect()
    }

    #[test]
    fn servers_can_read_what_is_written() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut encoder = Encoder::new(LAYERS[2], &mut random);
        let mut before = None;
        for number in 0..9 {
            if number == 6 {
                encoder.make_key_frame();
            }
            let payloads = frame(&mut encoder, &mut random);
            let first = Descriptor::parse(&payloads[0]).expect("a descriptor");
            let key = [0, 6].contains(&number);
            assert_eq!((first.start_of_frame, first.key_frame), (true, key));
            assert_eq!(first.dimensions, key.then_some((1280, 720)));
            let temporal = [0, 2, 1, 2, 0, 2, 0, 2, 1][number];
            assert_eq!((first.temporal, first.layer_sync), (temporal, temporal > 0));
            let picture = first.picture_id.expect("an id").value();
            assert!(before.is_none_or(|before| picture == (before + 1) & 0x7fff));
            before = Some(picture);
            for payload in &payloads[1..] {
                let next = Descriptor::parse(payload).expect("a descriptor");
                assert!(!next.start_of_frame && next.temporal == temporal);
            }
        }
    }

    #[test]
    fn rates_and_packets_are_those_of_the_layer() {
        let mut random = fastrand::Rng::with_seed(2);
        for (layer, usual) in LAYERS.into_iter().zip([1, 2, 6]) {
            let mut encoder = Encoder::new(layer, &mut random);
            frame(&mut encoder, &mut random);
            let mut bytes = 0;
            for _ in 0..300 {
                let payloads = frame(&mut encoder, &mut random);
                assert_eq!(payloads.len(), usual, "{}", layer.rid);
                let sizes = payloads.iter().map(Vec::len);
                let (least, most) = (sizes.clone().min(), sizes.clone().max());
                assert!(most <= least.map(|least| least + 1));
                assert!(most <= Some(PAYLOAD_MAX));
                bytes += sizes.sum::<usize>();
            }
            let rate = bytes as f64 * 8.0 / 10.0 / f64::from(layer.bits);
            assert!((0.98..1.02).contains(&rate), "{}: {rate}", layer.rid);
        }
    }
}
