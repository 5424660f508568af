//! AV1 payloads (the RTP payload format of the Alliance for Open Media, section 4.4): their first
//! octet alone. It tells where a receiver may begin; layers are told by the
//! [dependency descriptor](super::dependency), which not every client sends.
//!
//! ```text
//!  |Z|Y| W |N|-|-|-|   Z: goes on with an OBU begun before; N: a new coded video sequence
//! ```

use super::Frame;

const CONTINUES: u8 = 0x80;
const NEW_SEQUENCE: u8 = 0x08;

/// Reads a payload that came without a dependency descriptor.
pub fn parse(payload: &[u8]) -> Option<Frame> {
    let first = *payload.first()?;
    let key = first & NEW_SEQUENCE != 0 && first & CONTINUES == 0;
    Some(Frame {
        start: key,
        key,
        ..Frame::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sequence_is_a_key_frame() {
        for (first, key) in [(0x18, true), (0x58, true), (0x10, false), (0x98, false)] {
            assert_eq!(parse(&[first, 1]).map(|frame| frame.key), Some(key));
        }
        assert_eq!(parse(&[]), None);
    }
}
