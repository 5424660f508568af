//! What a client received of one stream, kept for whoever measures it afterwards.

use std::time::Instant;

/// All of it, in order.
#[derive(Debug, Default)]
pub struct Record {
    /// Packets, each once, however it came.
    pub packets: Vec<Arrived>,
    /// Numbers of sound that came along with later sound.
    pub recovered: Vec<u64>,
    /// Frames of video, once they could be decoded.
    pub frames: Vec<Decoded>,
}

/// A packet.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// When it came.
    pub at: Instant,
    /// When its publisher sent it.
    pub sent: Instant,
    /// Its number in its publisher's stream.
    pub seq: u64,
    /// Bytes of its payload.
    pub bytes: usize,
    /// It came as a retransmission.
    pub repaired: bool,
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub struct Decoded {
    /// When it could be.
    pub at: Instant,
    /// When its publisher sent it.
    pub sent: Instant,
    /// Its spatial layer.
    pub layer: u8,
    /// Its temporal layer.
    pub temporal: u8,
}
