//! The header of an RTP packet that a client publishes, with the extensions that are read of it.

use crate::media::payload_type::Extensions;

/// What a header says. Nothing of it is authenticated before the packet is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header<'a> {
    /// Bytes of all of it.
    pub len: usize,
    /// Padding ends the payload.
    pub padded: bool,
    /// The marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Lower bits of the sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The stream.
    pub ssrc: u32,
    /// Transport-wide sequence number.
    pub twcc: Option<u16>,
    /// Loudness in -dBov (RFC 6464).
    pub audio_level: Option<u8>,
    /// The media section.
    pub mid: Option<&'a str>,
    /// The layer.
    pub rid: Option<&'a str>,
    /// The layer that a stream of retransmissions repeats.
    pub repaired: Option<&'a str>,
    /// The dependency descriptor.
    pub dependency: Option<&'a [u8]>,
}

/// The fixed part (RFC 3550 section 5.1).
const FIXED: usize = 12;

/// The one-byte form of header extensions (RFC 8285 section 4.2).
const ONE_BYTE: u16 = 0xbede;

/// The two-byte form (RFC 8285 section 4.3); the lower four bits are the application's.
const TWO_BYTE: u16 = 0x1000;

impl<'a> Header<'a> {
    /// Reads the start of a datagram; nothing if it is no whole header.
    pub fn parse(datagram: &'a [u8], ids: &Extensions) -> Option<Self> {
        let (fixed, rest) = datagram.split_first_chunk::<FIXED>()?;
        let [first, second, s0, s1, t0, t1, t2, t3, n0, n1, n2, n3] = *fixed;
        if first >> 6 != 2 {
            return None;
        }
        let sources = 4 * usize::from(first & 0xf);
        let mut header = Self {
            len: FIXED + sources,
            padded: first & 0x20 != 0,
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([n0, n1, n2, n3]),
            ..Self::default()
        };
        let rest = rest.get(sources..)?;
        if first & 0x10 != 0 {
            let (&[p0, p1, w0, w1], rest) = rest.split_first_chunk::<4>()?;
            let bytes = 4 * usize::from(u16::from_be_bytes([w0, w1]));
            header.len += 4 + bytes;
            header.read(u16::from_be_bytes([p0, p1]), rest.get(..bytes)?, ids);
        }
        Some(header)
    }

    /// Reads extensions up to the first that is broken; what follows it is not there.
    fn read(&mut self, profile: u16, mut rest: &'a [u8], ids: &Extensions) {
        let short = profile == ONE_BYTE;
        if !short && profile & 0xfff0 != TWO_BYTE {
            return;
        }
        while let [head, after @ ..] = rest {
            if *head == 0 {
                rest = after;
                continue;
            }
            let (id, length, after) = match (short, after) {
                // Ends the list (RFC 8285 section 4.2).
                (true, _) if head >> 4 == 15 => return,
                (true, _) => (head >> 4, usize::from(head & 0xf) + 1, after),
                (false, [length, after @ ..]) => (*head, usize::from(*length), after),
                (false, []) => return,
            };
            let Some((value, after)) = after.split_at_checked(length) else {
                return;
            };
            self.note(id, value, ids);
            rest = after;
        }
    }

    fn note(&mut self, id: u8, value: &'a [u8], ids: &Extensions) {
        let text = || std::str::from_utf8(value).ok();
        match Some(id) {
            id if id == ids.twcc || id == ids.twcc_audio => {
                self.twcc = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            }
            id if id == ids.audio_level => {
                self.audio_level = value.first().map(|level| level & 0x7f);
            }
            id if id == ids.mid => self.mid = text(),
            id if id == ids.rid => self.rid = text(),
            id if id == ids.repaired => self.repaired = text(),
            id if id == ids.dependency => self.dependency = Some(value),
            _ => {}
        }
    }
}

/// What an opened packet carries behind its header of `header` bytes, without padding (RFC 3550
/// section 5.1). Padding that doesn't fit leaves nothing.
pub fn payload(opened: &[u8], header: usize, padded: bool) -> &[u8] {
    let body = opened.get(header..).unwrap_or_default();
    let padding = body.last().filter(|_| padded).copied().unwrap_or(0);
    let end = body.len().checked_sub(padding.into());
    end.map_or(&[], |end| &body[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Extensions = Extensions {
        twcc: Some(3),
        twcc_audio: Some(3),
        audio_level: Some(1),
        mid: Some(4),
        rid: Some(10),
        repaired: Some(11),
        dependency: Some(12),
        playout_delay: None,
    };

    fn packet(profile: u16, extensions: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xb1, 0x80 | 96, 1, 2, 0, 0, 0, 7, 0, 0, 0, 9, 5, 5, 5, 5];
        packet.extend(profile.to_be_bytes());
        let words = extensions.len().div_ceil(4) as u16;
        packet.extend(words.to_be_bytes());
        packet.extend_from_slice(extensions);
        packet.resize(20 + 4 * usize::from(words), 0);
        packet
    }

    #[test]
    fn both_forms_of_extensions_are_read() {
        let short = [
            0x31,
            1,
            4,
            0x10,
            0x80 | 30,
            0,
            0x41,
            b'a',
            b'b',
            0xa0,
            b'f',
            0xb0,
            b'h',
            0xc1,
            7,
            8,
        ];
        let long = [
            3,
            2,
            1,
            4,
            1,
            1,
            0x80 | 30,
            4,
            2,
            b'a',
            b'b',
            10,
            1,
            b'f',
            0,
            11,
            1,
            b'h',
            12,
            2,
            7,
            8,
        ];
        for (profile, extensions) in [(0xbede, &short[..]), (0x1005, &long[..])] {
            let datagram = packet(profile, extensions);
            let header = Header::parse(&datagram, &IDS).expect("a header");
            assert_eq!((header.len, header.seq), (datagram.len(), 0x102));
            assert_eq!((header.timestamp, header.ssrc), (7, 9));
            assert_eq!((header.payload_type, header.marker), (96, true));
            assert!(header.padded);
            assert_eq!((header.twcc, header.audio_level), (Some(0x104), Some(30)));
            assert_eq!((header.mid, header.rid), (Some("ab"), Some("f")));
            assert_eq!(header.repaired, Some("h"));
            assert_eq!(header.dependency, Some(&[7, 8][..]));
        }
    }

    #[test]
    fn what_is_broken_is_left_out_or_no_header() {
        let datagram = packet(0xbede, &[0x31, 1, 4, 0x4f, b'a']);
        let header = Header::parse(&datagram, &IDS).expect("a header");
        assert_eq!((header.twcc, header.mid), (Some(0x104), None));
        for end in 0..datagram.len() {
            assert_eq!(Header::parse(&datagram[..end], &IDS), None, "{end}");
        }
        let unknown = packet(0x1234, &[0x31, 1, 4]);
        let header = Header::parse(&unknown, &IDS).expect("a header");
        assert_eq!(header.twcc, None);
        let ended = packet(0xbede, &[0xf0, 0x31, 1, 4]);
        let header = Header::parse(&ended, &IDS).expect("a header");
        assert_eq!(header.twcc, None);
    }

    #[test]
    fn padding_is_taken_off() {
        assert_eq!(payload(&[0, 1, 2, 3, 0, 2], 1, true), [1, 2, 3]);
        assert_eq!(payload(&[0, 1, 2], 1, false), [1, 2]);
        assert_eq!(payload(&[0, 1, 9], 1, true), [0; 0]);
        assert_eq!(payload(&[0], 1, true), [0; 0]);
    }
}
