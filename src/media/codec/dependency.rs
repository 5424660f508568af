//! The dependency descriptor (the AV1 RTP payload format, appendix A): a header extension that says
//! of every frame which layers it belongs to and which frames it needs, and of every key frame how
//! its stream is built.
//!
//! ```text
//!  mandatory, 24 bit  |S|E| template (6) | frame number (16)                            |
//!  extended           |structure?|targets?|dtis?|diffs?|chains?| structure | targets | ..|
//! ```
//!
//! [`State`] reads a stream's descriptors; each becomes a [`Description`], which writes itself anew
//! for a subscriber, with a [`Cut`] of its own. Frames are told apart by their number, and refer to
//! others by the difference to theirs; so the numbers of a stream keep their gaps, and
//! [`Numbering`] only moves a new stream behind the one before.

use std::sync::Arc;

use super::{Bits, Cut, Frame};

/// The URI it is negotiated by.
pub const URI: &str = "https://aomediacodec.github.io/av1-rtp-spec/\
    #dependency-descriptor-rtp-header-extension";

/// Bytes of a descriptor: what a two-byte header extension can carry (RFC 8285 section 4.3), less
/// what rewriting may add.
pub const BYTES_MAX: usize = 200;

/// Room that rewriting may need beyond: a mask of at most 32 targets, and five flags.
pub const BYTES_ADDED: usize = 5;

const MANDATORY_BITS: usize = 24;
const FLAG_BITS: usize = 5;
const TEMPLATES_MAX: usize = 64;
/// References of one frame; AV1 has at most seven.
const REFERENCES_MAX: usize = 8;

/// What a stream has said of itself so far.
#[derive(Debug, Default)]
pub struct State {
    structure: Option<Arc<Structure>>,
    /// Decode targets that the sender makes, a bit for each.
    active: u32,
}

/// How a stream is built, from one key frame to the next.
#[derive(Debug)]
struct Structure {
    first_template: u8,
    templates: Vec<Template>,
    /// Highest spatial and temporal layer of each decode target.
    targets: Vec<(u8, u8)>,
    chains: usize,
}

#[derive(Debug)]
struct Template {
    spatial: u8,
    temporal: u8,
    references: References,
}

/// How far back the frames lie that a frame needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct References {
    differences: [u16; REFERENCES_MAX],
    count: usize,
}

/// One packet's descriptor, with all that is needed to write it anew.
#[derive(Debug)]
pub struct Description {
    structure: Arc<Structure>,
    bytes: Box<[u8]>,
    number: u16,
    active: u32,
    references: References,
    frame: Frame,
    /// Bits of the structure, if it is in there.
    structure_end: usize,
    /// Bits after the mask of targets.
    rest: std::ops::Range<usize>,
}

impl State {
    /// Reads a descriptor; `None` if it is malformed, or if no structure was seen that fits.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Description> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let mut bits = Bits::new(bytes);
        let (start, end) = (bits.flag()?, bits.flag()?);
        let template = bits.take(6)? as u8;
        let number = bits.take(16)? as u16;
        let mut flags = [false; FLAG_BITS];
        if bytes.len() * 8 > MANDATORY_BITS {
            for flag in &mut flags {
                *flag = bits.flag()?;
            }
        }
        let [new, targets, decode_targets, differences, chains] = flags;
        let structure = match new {
            true => Arc::new(Structure::read(&mut bits)?),
            false => self.structure.clone()?,
        };
        let structure_end = bits.at.max(MANDATORY_BITS);
        let mut active = if new { structure.all() } else { self.active };
        if targets {
            active = bits.take(structure.targets.len())?;
        }
        let rest = bits.at.max(MANDATORY_BITS);
        if decode_targets {
            bits.skip(2 * structure.targets.len())?;
        }
        let template = structure.template(template)?;
        let mut references = template.references;
        if differences {
            references = References::default();
            loop {
                match bits.take(2)? as usize {
                    0 => break,
                    nibbles => references.push(bits.take(4 * nibbles)? as u16 + 1)?,
                }
            }
        }
        if chains {
            bits.skip(8 * structure.chains)?;
        }
        let (spatial, temporal) = (template.spatial, template.temporal);
        let frame = Frame {
            start,
            end,
            key: start && new && references.count == 0,
            climbs: false,
            independent: false,
            spatial,
            temporal,
        };
        let description = Description {
            structure: structure.clone(),
            bytes: bytes.into(),
            number,
            active,
            references,
            frame,
            structure_end,
            rest: rest..bits.at.max(rest),
        };
        (self.structure, self.active) = (Some(structure), active);
        Some(description)
    }
}

impl Structure {
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let first_template = bits.take(6)? as u8;
        let target_count = bits.take(5)? as usize + 1;
        let mut templates = Vec::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            if templates.len() == TEMPLATES_MAX {
                return None;
            }
            templates.push(Template {
                spatial,
                temporal,
                references: References::default(),
            });
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
        }
        let mut targets = vec![(0, 0); target_count];
        for template in &templates {
            for target in &mut targets {
                // 0 says that the target does without the frame.
                if bits.take(2)? != 0 {
                    target.0 = target.0.max(template.spatial);
                    target.1 = target.1.max(template.temporal);
                }
            }
        }
        for template in &mut templates {
            while bits.flag()? {
                template.references.push(bits.take(4)? as u16 + 1)?;
            }
        }
        let chains = bits.take_below(target_count + 1)?;
        if chains > 0 {
            for _ in 0..target_count {
                bits.take_below(chains)?;
            }
            bits.skip(4 * chains * templates.len())?;
        }
        if bits.flag()? {
            bits.skip(32 * (usize::from(spatial) + 1))?;
        }
        Some(Self {
            first_template,
            templates,
            targets,
            chains,
        })
    }

    fn template(&self, id: u8) -> Option<&Template> {
        let at = id.wrapping_sub(self.first_template) & 0x3f;
        self.templates.get(usize::from(at))
    }

    /// The mask of every target.
    fn all(&self) -> u32 {
        u32::MAX >> (32 - self.targets.len())
    }

    /// The mask of the targets inside `cut`. The first target has the lowest bit.
    fn targets(&self, cut: Cut) -> u32 {
        let targets = self.targets.iter().rev();
        targets.fold(0, |mask, (spatial, temporal)| {
            mask << 1 | u32::from(cut.admits(*spatial, *temporal))
        })
    }
}

impl References {
    fn push(&mut self, difference: u16) -> Option<()> {
        *self.differences.get_mut(self.count)? = difference;
        self.count += 1;
        Some(())
    }
}

impl Description {
    /// The view of it that all codecs share.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// The frame's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Numbers of the frames that this one needs.
    pub fn references(&self) -> impl Iterator<Item = u16> + '_ {
        let differences = &self.references.differences[..self.references.count];
        differences.iter().map(|it| self.number.wrapping_sub(*it))
    }

    /// Appends the descriptor, for a subscriber that gets the layers of `cut`, knowing the frame as
    /// `number`. Whoever may have to choose is told the targets with the first packet of every
    /// frame, so that a lost packet can't hide a change.
    pub fn write(&self, number: u16, cut: Cut, out: &mut Vec<u8>) {
        let [high, low] = number.to_be_bytes();
        out.extend_from_slice(&[self.bytes[0], high, low]);
        let inside = self.active & self.structure.targets(cut);
        if !self.frame.start || self.structure.targets.len() == 1 || inside == 0 {
            out.extend_from_slice(&self.bytes[MANDATORY_BITS / 8..]);
            return;
        }
        let mut written = Written { out, free: 0 };
        let flags = match self.bytes.get(MANDATORY_BITS / 8) {
            Some(octet) => octet >> 3 | 0x08,
            None => 0x08,
        };
        written.push(flags.into(), FLAG_BITS);
        written.copy(&self.bytes, MANDATORY_BITS + FLAG_BITS..self.structure_end);
        written.push(inside, self.structure.targets.len());
        written.copy(&self.bytes, self.rest.clone());
    }
}

/// Appends bits, the most significant one first.
struct Written<'a> {
    out: &'a mut Vec<u8>,
    /// Bits of the last byte that are not written yet.
    free: usize,
}

impl Written<'_> {
    /// The lowest `count` bits of `value`.
    fn push(&mut self, value: u32, count: usize) {
        for at in (0..count).rev() {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.out.last_mut() {
                *last |= (value >> at & 1) as u8 * (1 << self.free);
            }
        }
    }

    fn copy(&mut self, bytes: &[u8], range: std::ops::Range<usize>) {
        let mut bits = Bits::new(bytes);
        bits.at = range.start;
        while bits.at < range.end {
            let count = (range.end - bits.at).min(32);
            let Some(value) = bits.take(count) else {
                return;
            };
            self.push(value, count);
        }
    }
}

impl Bits<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// A number below `bound`, in the fewest bits that can tell them apart.
    fn take_below(&mut self, bound: usize) -> Option<usize> {
        let width = (usize::BITS - bound.leading_zeros()) as usize;
        let short = (1 << width) - bound;
        let value = self.take(width - 1)? as usize;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)? as usize)
    }
}

/// Moves the numbers of new sources behind those sent before.
#[derive(Debug, Default)]
pub struct Numbering {
    /// Source numbers minus outgoing numbers.
    offset: u16,
    newest: Option<u16>,
}

impl Numbering {
    /// A new source starts with this frame.
    pub fn start(&mut self, source: u16) -> u16 {
        if let Some(newest) = self.newest {
            self.offset = source.wrapping_sub(newest.wrapping_add(1));
        }
        self.forward(source)
    }

    /// The outgoing number of a frame of the current source.
    pub fn forward(&mut self, source: u16) -> u16 {
        let number = source.wrapping_sub(self.offset);
        let newer = |newest: u16| number.wrapping_sub(newest) as i16 > 0;
        if self.newest.is_none_or(newer) {
            self.newest = Some(number);
        }
        number
    }

    /// What holds for packets that are missing at this place.
    pub fn offset(&self) -> u16 {
        self.offset
    }
}

/// Frames that were left out, lately: nothing that needs one of them can be of use.
#[derive(Debug, Default)]
pub struct LeftOut {
    newest: u16,
    /// The lowest bit stands for the newest frame.
    frames: u64,
}

impl LeftOut {
    /// All frames before a key frame are forgotten.
    pub fn clear(&mut self) {
        self.frames = 0;
    }

    /// Notes a frame that is left out.
    pub fn note(&mut self, number: u16) {
        let ahead = number.wrapping_sub(self.newest) as i16;
        if self.frames == 0 {
            self.newest = number;
        } else if ahead > 0 {
            self.frames = self.frames.checked_shl(ahead as u32).unwrap_or(0);
            self.newest = number;
        }
        let behind = u32::from(self.newest.wrapping_sub(number));
        self.frames |= 1u64.checked_shl(behind).unwrap_or(0);
    }

    /// Whether a frame was left out. One from long ago counts as seen: the receiver will tell.
    pub fn contains(&self, number: u16) -> bool {
        let behind = u32::from(self.newest.wrapping_sub(number));
        self.frames.checked_shr(behind).unwrap_or(0) & 1 == 1
    }
}

#[cfg(test)]
#[path = "../tests/dependency.rs"]
mod tests;
