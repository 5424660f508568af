//! The VP9 payload descriptor (RFC 9628 section 4.2), as far as layers can be told by it.
//!
//! Payloads are never changed. Picture ids keep their gaps where pictures are left out: receivers
//! find a picture's references by the distance of ids. Under end-to-end encryption the descriptor
//! is all that stays readable.
//!
//! ```text
//!  first octet   |I|P|L|F|B|E|V|Z|
//!  I:            |M| PictureID   |  M: eight bits more follow in a second octet
//!  L:            | TID |U| SID |D|
//!  L, not F:     | TL0PICIDX     |
//! ```

use super::Frame;

const HAS_PICTURE: u8 = 0x80;
const PREDICTED: u8 = 0x40;
const HAS_LAYERS: u8 = 0x20;
const START: u8 = 0x08;
const END: u8 = 0x04;
const LONG_PICTURE: u8 = 0x80;
const SWITCHING_UP: u8 = 0x10;

/// Reads the descriptor at the start of a payload; `None` if it is cut short.
pub fn parse(payload: &[u8]) -> Option<Frame> {
    let (&first, mut rest) = payload.split_first()?;
    let mut octet = || {
        let (&octet, after) = rest.split_first()?;
        rest = after;
        Some(octet)
    };
    if first & HAS_PICTURE != 0 && octet()? & LONG_PICTURE != 0 {
        octet()?;
    }
    let layers = if first & HAS_LAYERS != 0 { octet()? } else { 0 };
    // References in flexible mode and the scalability structure follow; nothing depends on them.
    rest.first()?;
    let start = first & START != 0;
    let independent = first & PREDICTED == 0;
    let spatial = layers >> 1 & 0x07;
    Some(Frame {
        start,
        end: first & END != 0,
        key: start && independent && spatial == 0,
        climbs: layers & SWITCHING_UP != 0,
        independent: start && independent,
        spatial,
        temporal: layers >> 5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &[u8]) -> Frame {
        parse(payload).expect("a whole descriptor")
    }

    #[test]
    fn what_a_descriptor_says_is_read() {
        // A key picture of three spatial layers, as Chromium sends it: non-flexible, 15-bit ids.
        let base = read(&[0xaa, 0x92, 0x34, 0x00, 0x07, 0x18, 1]);
        let expected = Frame {
            start: true,
            end: false,
            key: true,
            climbs: false,
            independent: true,
            spatial: 0,
            temporal: 0,
        };
        assert_eq!(base, expected);
        let middle = read(&[0xac, 0x92, 0x34, 0x03, 0x07, 1]);
        assert!(middle.independent && middle.end && middle.start && !middle.key);
        assert_eq!(middle.spatial, 1);
        // A picture later: predicted, second temporal layer, a point to climb.
        let later = read(&[0xec, 0x92, 0x35, 0x35, 0x07, 1]);
        assert!(later.start && later.end && later.climbs);
        assert!(!later.key && !later.independent);
        assert_eq!((later.spatial, later.temporal), (2, 1));
        // The middle of a frame starts nothing.
        assert!(!read(&[0xa0, 0x12, 0x00, 0x07, 1]).key);
        assert!(!read(&[0xa0, 0x12, 0x00, 0x07, 1]).independent);
        // Neither ids nor layers.
        let bare = read(&[0x0c, 1]);
        assert!(bare.key && bare.start && bare.end);
    }

    #[test]
    fn a_descriptor_that_is_cut_short_is_none() {
        let whole = [0xaa, 0x92, 0x34, 0x00, 0x07];
        for length in 0..4 {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(&[0x0c]), None, "a frame without bytes");
    }
}
