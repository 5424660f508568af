//! What tests of other modules need.

use std::time::Instant;

use super::{Burst, Part, Place, Word};
use crate::ids::WorkerId;
use crate::media::codec::{Codec, Format, Frame};
use crate::media::data::Channel;
use crate::media::packet::{Layer, Packet};
use crate::media::{RoomKey, TrackKey};

impl Part {
    /// A part of the first worker.
    pub fn numbered(number: u32) -> Self {
        Self {
            worker: WorkerId(0),
            room: RoomKey(0),
            number,
        }
    }
}

/// So many packets of sound.
pub fn burst(packets: u64) -> Word {
    let packet = |seq| Packet {
        layer: Layer(0),
        seq,
        timestamp: 0,
        audio_level: None,
        marker: false,
        arrival: Instant::now(),
        payload: [0; 4].into(),
        format: Format::Plain(Codec::Opus),
        frame: Frame::default(),
        vp8: None,
        dependency: None,
    };
    let place = Place {
        track: TrackKey(0),
        number: 0,
        layer: Layer(0),
    };
    Word::Burst(Burst {
        place,
        ssrc: 1,
        packets: (0..packets).map(packet).collect(),
    })
}

/// A data message of so many bytes.
pub fn mail(bytes: usize) -> Word {
    Word::Data(Channel::Reliable, vec![0; bytes].into())
}
