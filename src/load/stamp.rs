//! What each payload says of itself, so that whoever receives it can tell how long it took and
//! what was left out before it. It stands where the picture or the sound would be: behind all that
//! a server may look at, and before any padding.

use std::time::Duration;

/// The bytes in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, since 1970.
    pub sent: Duration,
    /// Extended sequence number of the sender's own stream.
    pub seq: u64,
    /// Number of the participant that sent it.
    pub publisher: u32,
    /// The layer, 0 the smallest; 0 for audio.
    pub layer: u8,
}

/// Bytes of a written stamp.
pub const BYTES: usize = MARK.len() + 8 + 8 + 4 + 1;

/// So that other bytes aren't taken for a stamp.
const MARK: &[u8; 4] = b"\xf5ld1";

impl Stamp {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MARK);
        out.extend_from_slice(&(self.sent.as_nanos() as u64).to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.publisher.to_be_bytes());
        out.push(self.layer);
    }

    /// Reads the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MARK)?;
        let (sent, rest) = rest.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (publisher, rest) = rest.split_first_chunk()?;
        Some(Self {
            sent: Duration::from_nanos(u64::from_be_bytes(*sent)),
            seq: u64::from_be_bytes(*seq),
            publisher: u32::from_be_bytes(*publisher),
            layer: *rest.first()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_other_bytes_are_none() {
        let stamp = Stamp {
            sent: Duration::from_nanos(1_790_000_000_123_456_789),
            seq: 1 << 33,
            publisher: 70_000,
            layer: 2,
        };
        let mut bytes = Vec::new();
        stamp.write(&mut bytes);
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(Stamp::read(&bytes[..BYTES - 1]), None);
        bytes.extend([9; 40]);
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        bytes[0] ^= 1;
        assert_eq!(Stamp::read(&bytes), None);
    }
}
