//! One opened RTP packet of a publisher, as it runs through the fan-out. Step 3 of the hot path.

use std::sync::Arc;
use std::time::Instant;

use super::codec::{Codec, Format, Frame, av1, dependency, h264, vp8, vp9};

/// A stream of a track, ascending: 0 has the smallest picture. Where every spatial layer has a
/// stream of its own, it is the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Layer(pub u8);

impl Layer {
    /// Most spatial layers a track may have (LiveKit's q, h, f).
    pub const COUNT_MAX: usize = 3;
}

/// An opened RTP packet. The payload is shared between the fan-out and the retransmission ring,
/// never copied.
#[derive(Debug, Clone)]
pub struct Packet {
    /// The stream it belongs to; always 0 for audio.
    pub layer: Layer,
    /// Sequence number of the publisher's stream, extended to 64 bit: no wraparound downstream.
    pub seq: u64,
    /// RTP timestamp of the publisher's stream, in the codec's clock rate.
    pub timestamp: u32,
    /// How loud it is, in -dBov, if its sender says so (RFC 6464).
    pub audio_level: Option<u8>,
    /// Last packet of a video frame; start of a talkspurt for audio.
    pub marker: bool,
    /// When its datagram was received.
    pub arrival: Instant,
    /// What follows the RTP header, without padding. Empty for padding-only packets.
    pub payload: Arc<[u8]>,
    /// How the payload is coded.
    pub format: Format,
    /// What it shows of its frame.
    pub frame: Frame,
    /// The VP8 payload descriptor, for VP8 packets whose descriptor could be read.
    pub vp8: Option<vp8::Descriptor>,
    /// The dependency descriptor, for packets that brought one that could be read.
    pub dependency: Option<Arc<dependency::Description>>,
}

/// What a payload shows.
#[derive(Debug, Default)]
pub struct Shown {
    /// See [`Packet::frame`].
    pub frame: Frame,
    /// See [`Packet::vp8`].
    pub vp8: Option<vp8::Descriptor>,
    /// See [`Packet::dependency`].
    pub dependency: Option<Arc<dependency::Description>>,
}

impl Shown {
    /// Reads a payload, and its dependency descriptor if it has one. `state` is the stream's.
    pub fn by(
        format: Format,
        payload: &[u8],
        descriptor: Option<&[u8]>,
        state: &mut dependency::State,
    ) -> Self {
        let frame = match format.codec() {
            Codec::Vp8 => {
                let vp8 = vp8::Descriptor::parse(payload);
                return Self {
                    frame: vp8.as_ref().map_or(Frame::default(), Frame::from),
                    vp8,
                    dependency: None,
                };
            }
            Codec::Av1 if descriptor.is_some() => {
                let description = descriptor.and_then(|bytes| state.read(bytes));
                return Self {
                    frame: description
                        .as_ref()
                        .map_or(Frame::default(), |it| it.frame()),
                    vp8: None,
                    dependency: description.map(Arc::new),
                };
            }
            Codec::H264 => h264::parse(payload),
            Codec::Vp9 => vp9::parse(payload).unwrap_or_default(),
            Codec::Av1 => av1::parse(payload).unwrap_or_default(),
            Codec::Opus | Codec::Red => Frame::default(),
        };
        Self {
            frame,
            ..Self::default()
        }
    }
}
