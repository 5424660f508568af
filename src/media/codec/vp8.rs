//! The VP8 payload descriptor (RFC 7741 section 4.2): reading it, writing it anew with other
//! numbers, and keeping those numbers continuous over source changes and left-out frames.
//!
//! Only descriptor bytes are ever written. Everything after them belongs to the sender: under
//! end-to-end encryption even the plain first bytes of a frame are authenticated. Those bytes stay
//! readable, so key frames and their size can be told in encrypted calls too.
//!
//! ```text
//!  first octet   |X|R|N|S|R| PID |
//!  X:            |I|L|T|K| RSV   |
//!  I:            |M| PictureID   |  M: seven bits more follow in a second octet
//!  L:            | TL0PICIDX     |
//!  T or K:       |TID|Y| KEYIDX  |
//! ```

use super::Frame;

const EXTENDED: u8 = 0x80;
const START_OF_PARTITION: u8 = 0x10;
const PARTITION: u8 = 0x07;
const HAS_PICTURE: u8 = 0x80;
const HAS_TL0: u8 = 0x40;
const HAS_TEMPORAL: u8 = 0x20;
const HAS_KEY_INDEX: u8 = 0x10;
const HAS_LAYERING: u8 = HAS_TEMPORAL | HAS_KEY_INDEX;
const LONG_PICTURE: u8 = 0x80;
const PICTURE: u16 = 0x7fff;
const LAYER_SYNC: u8 = 0x20;
const KEY_INDEX: u8 = 0x1f;

/// A picture id that leaves the numbering's neighbourhood by more than this at a key frame is a
/// new numbering of the encoder, not a loss: at 30 frames per second it would be 30 s of losses.
const PICTURE_JUMP_MAX: i16 = 900;

/// A parsed payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of a frame (S set, partition 0).
    pub start_of_frame: bool,
    /// This packet starts a key frame; false on its later packets, which do not say so.
    pub key_frame: bool,
    /// Number of the frame.
    pub picture_id: Option<PictureId>,
    /// Running number of base layer frames.
    pub tl0: Option<u8>,
    /// Temporal layer; 0 if the source has none.
    pub temporal: u8,
    /// Depends on the base layer only: a receiver may climb to this temporal layer here.
    pub layer_sync: bool,
    /// Running number of key frames, 5 bit.
    pub key_index: Option<u8>,
    /// Bytes of the descriptor; the frame's bytes follow.
    pub length: u8,
    /// Width and height, where this packet starts a key frame.
    pub dimensions: Option<(u16, u16)>,
    octets: Octets,
}

/// A picture id in the width its source uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bit.
    Short(u8),
    /// 15 bit.
    Long(u16),
}

/// The numbers an outgoing descriptor carries; `None` where the source has no such field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    /// Picture id, always 15 bit.
    pub picture: Option<u16>,
    /// TL0PICIDX.
    pub tl0: Option<u8>,
    /// KEYIDX, 5 bit.
    pub key_index: Option<u8>,
}

/// The octets that are copied as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Octets {
    first: u8,
    extension: u8,
    layering: u8,
}

impl Descriptor {
    /// Reads the descriptor at the start of a payload; `None` if it is cut short or no frame bytes
    /// follow it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut frame = payload;
        let mut octet = || {
            let (&octet, rest) = frame.split_first()?;
            frame = rest;
            Some(octet)
        };
        let first = octet()?;
        let extension = if first & EXTENDED != 0 { octet()? } else { 0 };
        let mut picture_id = None;
        if extension & HAS_PICTURE != 0 {
            let high = octet()?;
            picture_id = Some(match high & LONG_PICTURE {
                0 => PictureId::Short(high),
                _ => PictureId::Long(u16::from_be_bytes([high & !LONG_PICTURE, octet()?])),
            });
        }
        let tl0 = if extension & HAS_TL0 != 0 {
            Some(octet()?)
        } else {
            None
        };
        let layering = if extension & HAS_LAYERING != 0 {
            octet()?
        } else {
            0
        };
        let has_temporal = extension & HAS_TEMPORAL != 0;
        let start_of_frame = first & START_OF_PARTITION != 0 && first & PARTITION == 0;
        // Lowest bit of the payload header (RFC 7741 section 4.3), the inverse key frame flag.
        let key_frame = start_of_frame && frame.first()? & 0x01 == 0;
        frame.first()?;
        Some(Self {
            start_of_frame,
            key_frame,
            picture_id,
            tl0,
            temporal: if has_temporal { layering >> 6 } else { 0 },
            layer_sync: has_temporal && layering & LAYER_SYNC != 0,
            key_index: (extension & HAS_KEY_INDEX != 0).then_some(layering & KEY_INDEX),
            length: (payload.len() - frame.len()) as u8,
            dimensions: if key_frame { dimensions(frame) } else { None },
            octets: Octets {
                first,
                extension,
                layering,
            },
        })
    }

    /// Appends this descriptor with other numbers. A picture id is always written in its 15-bit
    /// form, so that a receiver sees one form even if the sources behind it differ. A number that
    /// the source has not is not added; one that `ids` has not stays as the source gave it.
    pub fn write(&self, ids: Ids, out: &mut Vec<u8>) {
        let Octets {
            first,
            extension,
            layering,
        } = self.octets;
        out.push(first);
        if first & EXTENDED != 0 {
            out.push(extension);
        }
        if let Some(source) = self.picture_id {
            let picture = ids.picture.unwrap_or(source.value()) & PICTURE;
            let [high, low] = picture.to_be_bytes();
            out.extend_from_slice(&[high | LONG_PICTURE, low]);
        }
        if let Some(source) = self.tl0 {
            out.push(ids.tl0.unwrap_or(source));
        }
        if extension & HAS_LAYERING != 0 {
            out.push(match (self.key_index, ids.key_index) {
                (Some(_), Some(index)) => layering & !KEY_INDEX | index & KEY_INDEX,
                _ => layering,
            });
        }
    }
}

impl From<&Descriptor> for Frame {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            start: descriptor.start_of_frame,
            end: false,
            key: descriptor.key_frame,
            climbs: descriptor.layer_sync,
            independent: descriptor.key_frame,
            spatial: 0,
            temporal: descriptor.temporal,
        }
    }
}

impl PictureId {
    /// The number itself.
    pub fn value(self) -> u16 {
        match self {
            Self::Short(value) => value.into(),
            Self::Long(value) => value,
        }
    }

    /// The 15-bit number that is nearest to `near` among those this one can stand for.
    fn lift(self, near: u16) -> u16 {
        match self {
            Self::Long(value) => value,
            Self::Short(value) => {
                // Shifted to the top of its type, a 7-bit difference takes its sign.
                let ahead = ((value.wrapping_sub(near as u8) << 1) as i8) >> 1;
                near.wrapping_add_signed(ahead.into()) & PICTURE
            }
        }
    }
}

/// Width and height after the start code of a key frame (RFC 6386 section 9.1).
fn dimensions(frame: &[u8]) -> Option<(u16, u16)> {
    let [_, _, _, 0x9d, 0x01, 0x2a, size @ ..] = frame else {
        return None;
    };
    let [w0, w1, h0, h1, ..] = *size else {
        return None;
    };
    // The upper two bits of each are an upscaling hint.
    Some((
        u16::from_le_bytes([w0, w1]) & 0x3fff,
        u16::from_le_bytes([h0, h1]) & 0x3fff,
    ))
}

/// Keeps the numbers of one outgoing stream continuous while its sources change and frames are
/// left out.
///
/// A source's numbers differ from the outgoing ones by [`Offsets`]. A new source sets them so that
/// its first frame is the next one; each frame left out moves the picture ids by one. TL0PICIDX
/// needs no such step, since base layer frames are never left out.
#[derive(Debug, Default)]
pub struct Numbering {
    offsets: Offsets,
    /// Newest picture id of the source, left-out frames included.
    source: Option<u16>,
    /// Newest numbers that were sent.
    used: Ids,
    /// The source's newest frame is being left out and its number closed; its end was not seen.
    closed: bool,
}

/// Source numbers minus outgoing numbers at some place of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offsets {
    picture: u16,
    tl0: u8,
    key_index: u8,
}

impl Numbering {
    /// A new source starts with this packet, right after what was sent so far.
    pub fn start(&mut self, first: &Descriptor) -> Ids {
        let picture = first.picture_id.map(PictureId::value);
        self.source = picture;
        self.closed = false;
        self.offsets = Offsets {
            picture: offset(picture, self.used.picture, u16::wrapping_sub),
            tl0: offset(first.tl0, self.used.tl0, u8::wrapping_sub),
            key_index: offset(first.key_index, self.used.key_index, u8::wrapping_sub),
        };
        self.send(first)
    }

    /// The next packet in order is sent.
    pub fn forward(&mut self, packet: &Descriptor) -> Ids {
        let Some(ahead) = self.ahead(packet) else {
            return self.send(packet);
        };
        // The first packet of a key frame always has a new id; anything else is a new numbering.
        if packet.key_frame && !(1..=PICTURE_JUMP_MAX).contains(&ahead) {
            return self.start(packet);
        }
        if ahead > 0 {
            self.advance(packet);
        }
        self.send(packet)
    }

    /// The next packet in order is left out. The first one of a frame closes its number.
    pub fn skip(&mut self, packet: &Descriptor) {
        if self.ahead(packet).is_some_and(|ahead| ahead > 0) {
            self.advance(packet);
            // Without its start in sight, parts of this frame may have been promised.
            if packet.start_of_frame {
                self.offsets.picture = self.offsets.picture.wrapping_add(1);
                self.closed = true;
            }
        }
    }

    /// The end of a frame that was left out has come: nothing of it can be missing any more.
    pub fn settle(&mut self) {
        self.closed = false;
    }

    /// Packets are missing here. Those may be the end of a frame that was left out so far, whose
    /// number must then stay free for them.
    pub fn reopen(&mut self) {
        if std::mem::take(&mut self.closed) {
            self.offsets.picture = self.offsets.picture.wrapping_sub(1);
        }
    }

    /// What holds for packets that are missing at this place.
    pub fn offsets(&self) -> Offsets {
        self.offsets
    }

    /// The numbers of a late packet, by the offsets of its place.
    pub fn late(&mut self, packet: &Descriptor, offsets: Offsets) -> Ids {
        let ids = self.apply(packet, offsets);
        // What came in order after it may have been padding or left out.
        if let (Some(late), Some(newest)) = (ids.picture, self.used.picture)
            && signed(late.wrapping_sub(newest)) > 0
        {
            self.note(ids);
        }
        ids
    }

    /// How far a packet's picture id is ahead of the newest one; `None` without such ids.
    fn ahead(&self, packet: &Descriptor) -> Option<i16> {
        let source = self.source?;
        Some(signed(packet.picture_id?.lift(source).wrapping_sub(source)))
    }

    fn advance(&mut self, packet: &Descriptor) {
        let near = self.source.unwrap_or(0);
        self.source = packet.picture_id.map(|id| id.lift(near));
        self.closed = false;
    }

    fn send(&mut self, packet: &Descriptor) -> Ids {
        let ids = self.apply(packet, self.offsets);
        self.note(ids);
        ids
    }

    fn note(&mut self, ids: Ids) {
        self.used = Ids {
            picture: ids.picture.or(self.used.picture),
            tl0: ids.tl0.or(self.used.tl0),
            key_index: ids.key_index.or(self.used.key_index),
        };
    }

    fn apply(&self, packet: &Descriptor, offsets: Offsets) -> Ids {
        let near = self.source.unwrap_or(0);
        let picture = packet.picture_id.map(|id| id.lift(near));
        Ids {
            picture: picture.map(|id| id.wrapping_sub(offsets.picture) & PICTURE),
            tl0: packet.tl0.map(|tl0| tl0.wrapping_sub(offsets.tl0)),
            key_index: packet
                .key_index
                .map(|key| key.wrapping_sub(offsets.key_index) & KEY_INDEX),
        }
    }
}

/// A difference of 15-bit numbers with its sign.
fn signed(difference: u16) -> i16 {
    ((difference << 1) as i16) >> 1
}

/// The offset that makes `first` follow `used`. With nothing used, the source's own numbers serve.
fn offset<T: From<u8> + Default>(first: Option<T>, used: Option<T>, sub: fn(T, T) -> T) -> T {
    match (first, used) {
        (Some(first), Some(used)) => sub(sub(first, used), T::from(1)),
        _ => T::default(),
    }
}

#[cfg(test)]
#[path = "../tests/vp8.rs"]
mod tests;
