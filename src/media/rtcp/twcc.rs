//! Transport-wide feedback: which packets of a leg arrived, and when.
//!
//! The format is draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1: a list of chunks
//! that give each packet a status, then one arrival delta for each packet that did arrive.
//! Reading walks the chunks once and makes sure that the deltas are all there, so the walk
//! that yields them can't fail half-way.

use super::{u16_at, u32_at};

/// Most packets one feedback may speak of; a longer one is malformed. A run-length chunk gives
/// 8191 packets in two bytes, so the datagram itself bounds little. Receivers report every 50 to
/// 250 ms, so this many only come together after seconds of outage, and then the estimator loses
/// no more than one report.
pub const STATUS_MAX: u16 = 8192;

/// One feedback, checked.
#[derive(Debug, Clone)]
pub struct Twcc<'a> {
    base: u16,
    count: u16,
    reference: Arrival,
    /// Chunks, then deltas, then up to three bytes of zeros.
    chunks: &'a [u8],
    deltas: &'a [u8],
}

/// A moment on the receiver's clock, in ticks of 250 microseconds from an unknown origin. It comes
/// round after 12 days, and a receiver may claim what it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(i64);

impl Arrival {
    /// Microseconds since the origin, which may be negative.
    pub const fn micros(self) -> i64 {
        self.0 * 250
    }
}

impl<'a> Twcc<'a> {
    /// Reads the body of a feedback, from the sender's SSRC on, without padding.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        let base = u16_at(body, 8)?;
        let count = u16_at(body, 10)?;
        // 24 bits, signed, in units of 64 ms, which are 256 ticks; then a counter we don't need.
        let reference = i64::from(u32_at(body, 12)? as i32 >> 8) * 256;
        let content = body.get(16..)?;
        if count == 0 || count > STATUS_MAX {
            return None;
        }
        let (chunks, deltas) = content.split_at_checked(measure(content, count)?)?;
        Some(Self {
            base,
            count,
            reference: Arrival(reference),
            chunks,
            deltas,
        })
    }

    /// Every packet in order of its number: the number, and the arrival if it did arrive.
    pub fn packets(&self) -> Packets<'a> {
        Packets {
            seq: self.base,
            left: self.count,
            chunk: Chunk::EMPTY,
            chunks: self.chunks,
            deltas: self.deltas,
            time: self.reference,
        }
    }
}

/// The walk over one feedback; at most [`STATUS_MAX`] steps.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    seq: u16,
    left: u16,
    chunk: Chunk,
    chunks: &'a [u8],
    deltas: &'a [u8],
    time: Arrival,
}

impl Iterator for Packets<'_> {
    type Item = (u16, Option<Arrival>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if self.chunk.left == 0 {
            self.chunk = Chunk::read(self.chunks)?;
            self.chunks = self.chunks.get(2..)?;
        }
        let delta = match self.chunk.take()? {
            Status::Lost => None,
            Status::Small => Some(i64::from(*self.deltas.first()?)),
            Status::Large => Some(i64::from(u16_at(self.deltas, 0)? as i16)),
        };
        let arrival = delta.map(|ticks| {
            // At most 8192 deltas of 16 bits on a base of 32 bits: no overflow.
            self.time = Arrival(self.time.0 + ticks);
            self.time
        });
        self.deltas = self.deltas.get(self.chunk.taken.bytes()..)?;
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        Some((seq, arrival))
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Lost,
    Small,
    Large,
}

impl Status {
    /// Bytes of its delta.
    const fn bytes(self) -> usize {
        match self {
            Self::Lost => 0,
            Self::Small => 1,
            Self::Large => 2,
        }
    }
}

/// A chunk being walked: `left` symbols, the next one in the top bits of `symbols`.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    left: u16,
    symbols: u16,
    form: Form,
    taken: Status,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Run,
    OneBit,
    TwoBit,
}

impl Chunk {
    const EMPTY: Self = Self {
        left: 0,
        symbols: 0,
        form: Form::Run,
        taken: Status::Lost,
    };

    fn read(chunks: &[u8]) -> Option<Self> {
        let word = u16_at(chunks, 0)?;
        let (form, left, symbols) = match word >> 14 {
            0 | 1 => (Form::Run, word & 0x1fff, word << 1),
            2 => (Form::OneBit, 14, word << 2),
            _ => (Form::TwoBit, 7, word << 2),
        };
        // An empty run would let a chunk make no progress.
        (left > 0).then_some(Self {
            left,
            symbols,
            form,
            taken: Status::Lost,
        })
    }

    /// The next status; `None` for the reserved symbol.
    fn take(&mut self) -> Option<Status> {
        self.left = self.left.checked_sub(1)?;
        let symbol = match self.form {
            Form::Run => self.symbols >> 14,
            Form::OneBit => self.shift(1),
            Form::TwoBit => self.shift(2),
        };
        self.taken = match symbol {
            0 => Status::Lost,
            1 => Status::Small,
            2 => Status::Large,
            _ => return None,
        };
        Some(self.taken)
    }

    fn shift(&mut self, bits: u32) -> u16 {
        let symbol = self.symbols >> (16 - bits);
        self.symbols <<= bits;
        symbol
    }
}

/// Bytes of the chunks that describe `count` packets, if all of their deltas follow.
fn measure(content: &[u8], count: u16) -> Option<usize> {
    let (mut chunks, mut deltas, mut left) = (0, 0, count);
    while left > 0 {
        let mut chunk = Chunk::read(content.get(chunks..)?)?;
        chunks += 2;
        // The last chunk may say more than there are packets; that part means nothing.
        for _ in 0..chunk.left.min(left) {
            deltas += chunk.take()?.bytes();
            left -= 1;
        }
    }
    (chunks + deltas <= content.len()).then_some(chunks)
}
