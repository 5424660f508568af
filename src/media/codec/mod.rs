//! Codecs: their names, and what their payloads show of the frames they carry. Everything else of
//! the packet path sees only the [`Frame`] that is read here.

pub mod av1;
pub mod dependency;
pub mod h264;
pub mod red;
pub mod vp8;
pub mod vp9;

use super::message::Kind;

/// A codec that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Codec {
    Opus,
    /// Opus with the frames before it repeated in every packet (RFC 2198).
    Red,
    Vp8,
    H264,
    Vp9,
    Av1,
}

/// A codec in the form one payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// H.264, of which a client offers several forms.
    H264(h264::Format),
    /// Any other codec has one.
    Plain(Codec),
}

/// What a packet shows of its frame, whatever the codec. The default is what nothing is known of:
/// such a packet is forwarded with all around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frame {
    /// First packet of a frame, or of one spatial layer of a picture.
    pub start: bool,
    /// Last packet of one spatial layer of a picture; only said where a stream has several.
    pub end: bool,
    /// A frame starts here that refers to nothing before it: a receiver can begin with it.
    pub key: bool,
    /// A receiver may climb to this frame's temporal layer here, from the one below.
    pub climbs: bool,
    /// Refers to no earlier picture, only to lower spatial layers of its own: a receiver may climb
    /// to this frame's spatial layer here.
    pub independent: bool,
    /// Spatial layer inside the stream; 0 if the stream has only one.
    pub spatial: u8,
    /// Temporal layer; 0 if the stream has only one.
    pub temporal: u8,
}

/// The highest layers inside a stream that a subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Highest spatial layer.
    pub spatial: u8,
    /// Highest temporal layer.
    pub temporal: u8,
}

impl Codec {
    /// All of them, in the order in which clients are told: the first video codec is what they
    /// fall back to.
    pub const ALL: [Self; 6] = [
        Self::Vp8,
        Self::H264,
        Self::Vp9,
        Self::Av1,
        Self::Opus,
        Self::Red,
    ];

    /// Audio or video.
    pub fn kind(self) -> Kind {
        match self {
            Self::Opus | Self::Red => Kind::Audio,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => Kind::Video,
        }
    }

    /// `video/VP8`, as clients write it.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Red => "audio/red",
            Self::Vp8 => "video/VP8",
            Self::H264 => "video/H264",
            Self::Vp9 => "video/VP9",
            Self::Av1 => "video/AV1",
        }
    }

    /// `vp8`, as the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Vp8 => "vp8",
            Self::H264 => "h264",
            Self::Vp9 => "vp9",
            Self::Av1 => "av1",
        }
    }

    /// The codec of a name or MIME type, in any case.
    pub fn named(text: &str) -> Option<Self> {
        let matches = |codec: &Self| {
            text.eq_ignore_ascii_case(codec.name()) || text.eq_ignore_ascii_case(codec.mime())
        };
        Self::ALL.into_iter().find(matches)
    }

    /// Whether clients send all spatial layers in one stream, unless they offer RIDs.
    pub fn is_layered(self) -> bool {
        matches!(self, Self::Vp9 | Self::Av1)
    }
}

impl Format {
    /// Which codec.
    pub fn codec(self) -> Codec {
        match self {
            Self::H264(_) => Codec::H264,
            Self::Plain(codec) => codec,
        }
    }
}

impl Cut {
    /// Nothing is cut off.
    pub const NONE: Self = Self {
        spatial: u8::MAX,
        temporal: u8::MAX,
    };

    /// Whether a receiver gets a frame of these layers.
    pub fn admits(self, spatial: u8, temporal: u8) -> bool {
        spatial <= self.spatial && temporal <= self.temporal
    }
}

impl Default for Cut {
    fn default() -> Self {
        Self::NONE
    }
}

/// Reads bits from the most significant one on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 32, as a number.
    fn take(&mut self, count: usize) -> Option<u32> {
        let end = self.at + count;
        if end > self.bytes.len() * 8 {
            return None;
        }
        let mut value = 0;
        for at in self.at..end {
            value = value << 1 | u32::from(self.bytes[at / 8] >> (7 - at % 8) & 1);
        }
        self.at = end;
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }
}
