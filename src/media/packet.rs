//! One opened RTP packet of a publisher, as it runs through the fan-out. Step 3 of the hot path.

use std::sync::Arc;
use std::time::Instant;

use super::codec::vp8;

/// A spatial layer of a track, ascending: 0 is the smallest picture.
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
    /// The layer it belongs to; always 0 for audio.
    pub layer: Layer,
    /// Sequence number of the publisher's stream, extended to 64 bit: no wraparound downstream.
    pub seq: u64,
    /// RTP timestamp of the publisher's stream, in the codec's clock rate.
    pub timestamp: u32,
    /// Last packet of a video frame; start of a talkspurt for audio.
    pub marker: bool,
    /// When its datagram was received.
    pub arrival: Instant,
    /// What follows the RTP header, without padding. Empty for padding-only packets.
    pub payload: Arc<[u8]>,
    /// The VP8 payload descriptor, for VP8 packets whose descriptor could be read.
    pub vp8: Option<vp8::Descriptor>,
}
