//! What simulated media says of itself. The last bytes of every payload tell who sent it, in which
//! track and layer, under which number and as part of which frame, so whoever receives it can tell
//! whether it is what it should be. Nothing on the way may change them.

/// The bytes at the end of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Number of the client.
    pub sender: u16,
    /// Number of the track among those of the client.
    pub track: u16,
    /// Spatial layer, 0 the smallest.
    pub layer: u8,
    /// Extended sequence number of the layer's own stream.
    pub seq: u64,
    /// Number of the frame in its layer.
    pub frame: u32,
    /// When it was sent, in microseconds from the start of the meeting.
    pub sent: u64,
}

/// Bytes of a written stamp.
pub const STAMP: usize = 4 + 2 + 2 + 1 + 8 + 4 + 8;

/// So that other bytes aren't taken for a stamp.
const MARK: &[u8; 4] = b"\xf5sim";

impl Stamp {
    /// Appends it to a payload.
    pub fn write(&self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(MARK);
        payload.extend_from_slice(&self.sender.to_be_bytes());
        payload.extend_from_slice(&self.track.to_be_bytes());
        payload.push(self.layer);
        payload.extend_from_slice(&self.seq.to_be_bytes());
        payload.extend_from_slice(&self.frame.to_be_bytes());
        payload.extend_from_slice(&self.sent.to_be_bytes());
    }

    /// Reads the end of a payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.last_chunk::<STAMP>()?;
        let (mark, rest) = bytes.split_first_chunk::<4>()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (track, rest) = rest.split_first_chunk()?;
        let (layer, rest) = rest.split_first()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (frame, rest) = rest.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        (mark == MARK).then_some(Self {
            sender: u16::from_be_bytes(*sender),
            track: u16::from_be_bytes(*track),
            layer: *layer,
            seq: u64::from_be_bytes(*seq),
            frame: u32::from_be_bytes(*frame),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_other_bytes_are_none() {
        let stamp = Stamp {
            sender: 3,
            track: 700,
            layer: 2,
            seq: 1 << 40,
            frame: 9,
            sent: 1 << 33,
        };
        let mut payload = vec![1, 2, 3];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        let (last, mark) = (payload.len() - 1, payload.len() - STAMP);
        assert_eq!(Stamp::read(&payload[..last]), None);
        payload[mark] ^= 1;
        assert_eq!(Stamp::read(&payload), None);
    }
}
