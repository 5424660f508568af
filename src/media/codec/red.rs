//! Redundant audio (RFC 2198): what is in a packet beside the repetitions, for subscribers that
//! can't read those.
//!
//! ```text
//!  of each repetition   |1|  type  |  timestamp offset (14)  |  length (10)  |
//!  of the newest frame  |0|  type  |
//! ```

use std::ops::Range;

const REPETITION: u8 = 0x80;

/// Frames in a packet; browsers send two.
const BLOCKS_MAX: usize = 32;

/// Where in the payload its newest frame lies; `None` if the headers lie.
pub fn newest(payload: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut repeated) = (0, 0);
    for _ in 0..BLOCKS_MAX {
        if payload.get(at)? & REPETITION == 0 {
            let start = at + 1 + repeated;
            return (start <= payload.len()).then_some(start..payload.len());
        }
        let [high, low] = *payload.get(at + 2..at + 4)?.first_chunk()?;
        repeated += usize::from(u16::from_be_bytes([high & 0x03, low]));
        at += 4;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_frame_is_found() {
        assert_eq!(newest(&[111, 1, 2]), Some(1..3));
        assert_eq!(
            newest(&[0x80 | 111, 0x0f, 0, 2, 111, 1, 2, 3, 4]),
            Some(7..9)
        );
        assert_eq!(newest(&[0x80 | 111, 0x0f, 0x03, 0xff, 111, 1]), None);
        assert_eq!(newest(&[0x80 | 111, 0, 0]), None);
        assert_eq!(newest(&[111]), Some(1..1));
        assert_eq!(newest(&[0xff; 4096]), None);
        assert_eq!(newest(&[]), None);
    }
}
