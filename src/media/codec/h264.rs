//! H.264 payloads (RFC 6184): where a key frame starts, and the forms a client can offer.
//!
//! Payloads are never changed: there are no numbers in them, and layers are separate streams. Under
//! end-to-end encryption the headers of the NAL units stay readable, so key frames can be told in
//! encrypted calls too.

use super::Frame;

/// What a payload type of H.264 stands for (RFC 6184 section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// Which tools the encoder may use.
    pub profile: Profile,
    /// Whether NAL units may be joined and split: packetization mode 1. In mode 0 each has a packet
    /// of its own.
    pub fragments: bool,
}

/// The profiles that are negotiated. The higher ones are not: a publisher that used them would shut
/// out every subscriber whose decoder lacks them, which browsers don't make up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `42e0..`.
    ConstrainedBaseline,
    /// `4200..`.
    Baseline,
}

const NAL_TYPE: u8 = 0x1f;
const SEQUENCE_PARAMETERS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const FU_START: u8 = 0x80;

impl Format {
    /// Every form, the ones a publisher should use first.
    pub const ALL: [Self; 4] = [
        Self::new(Profile::ConstrainedBaseline, true),
        Self::new(Profile::Baseline, true),
        Self::new(Profile::ConstrainedBaseline, false),
        Self::new(Profile::Baseline, false),
    ];

    const fn new(profile: Profile, fragments: bool) -> Self {
        Self { profile, fragments }
    }

    /// `profile-level-id`, with level 3.1, which every client offers and none is held to.
    pub fn profile_level_id(self) -> u32 {
        match self.profile {
            Profile::ConstrainedBaseline => 0x42e01f,
            Profile::Baseline => 0x42001f,
        }
    }

    /// Reads the value of an `a=fmtp` line; `None` for a profile that isn't forwarded.
    pub fn from_fmtp(parameters: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut pairs = parameters.split(';').filter_map(|it| it.split_once('='));
            pairs.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
        };
        // Without the parameter it is Baseline at its lowest level (RFC 6184 section 8.1).
        let id = value("profile-level-id").unwrap_or("42000a");
        let id = u32::from_str_radix(id, 16).ok()?;
        let profile = match (id >> 16, id >> 8 & 0x40) {
            (0x42, 0) => Profile::Baseline,
            (0x42, _) => Profile::ConstrainedBaseline,
            _ => return None,
        };
        Some(Self::new(profile, value("packetization-mode") == Some("1")))
    }

    /// Forms whose receiver can read a stream of this one, the best first. Mode 1 includes mode 0,
    /// and decoders don't tell the two profiles apart.
    pub fn readers(self) -> impl Iterator<Item = Self> {
        let other = match self.profile {
            Profile::ConstrainedBaseline => Profile::Baseline,
            Profile::Baseline => Profile::ConstrainedBaseline,
        };
        let modes = [self.fragments, true];
        let readers = modes.map(|mode| [Self::new(self.profile, mode), Self::new(other, mode)]);
        readers.into_iter().flatten()
    }
}

/// Reads a payload. A key frame is told by its sequence parameters: encoders for real-time use put
/// them before every one, and without them no receiver could begin there. Its later packets don't
/// say that they belong to it.
pub fn parse(payload: &[u8]) -> Frame {
    let key = starts_key_frame(payload).unwrap_or(false);
    Frame {
        start: key,
        key,
        ..Frame::default()
    }
}

fn starts_key_frame(payload: &[u8]) -> Option<bool> {
    let (&header, rest) = payload.split_first()?;
    Some(match header & NAL_TYPE {
        SEQUENCE_PARAMETERS => true,
        // Units behind each other, each after its length (RFC 6184 section 5.7.1).
        STAP_A => {
            let mut rest = rest;
            loop {
                let Some((length, units)) = rest.split_first_chunk() else {
                    break false;
                };
                let unit = units.get(..usize::from(u16::from_be_bytes(*length)))?;
                if unit.first()? & NAL_TYPE == SEQUENCE_PARAMETERS {
                    break true;
                }
                rest = &units[unit.len()..];
            }
        }
        // The first piece of a unit (RFC 6184 section 5.8).
        FU_A => {
            let indicator = *rest.first()?;
            indicator & FU_START != 0 && indicator & NAL_TYPE == SEQUENCE_PARAMETERS
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_are_told_by_their_parameters() {
        let table: &[(&[u8], bool, &str)] = &[
            (&[0x67, 0x42, 0xe0, 0x1f], true, "SPS"),
            (&[0x68, 0xce, 0x3c, 0x80], false, "PPS"),
            (&[0x65, 0x88, 0x84], false, "IDR slice"),
            (&[0x41, 0x9a, 0x24], false, "slice"),
            (
                &[0x78, 0, 3, 0x67, 0x42, 0xe0, 0, 2, 0x68, 0xce],
                true,
                "STAP-A",
            ),
            (
                &[0x78, 0, 2, 9, 0x10, 0, 2, 0x67, 0x42],
                true,
                "behind a delimiter",
            ),
            (&[0x78, 0, 2, 0x68, 0xce], false, "STAP-A of a PPS"),
            (&[0x78, 0, 9, 0x67], false, "a length that lies"),
            (&[0x78, 0, 0], false, "an empty unit"),
            (&[0x7c, 0x87, 0x42], true, "first piece of an SPS"),
            (&[0x7c, 0x07, 0x42], false, "later piece of an SPS"),
            (&[0x7c, 0x85, 0x88], false, "first piece of an IDR slice"),
            (&[0x7c], false, "cut short"),
            (&[], false, "empty"),
        ];
        for (payload, key, what) in table {
            assert_eq!(parse(payload).key, *key, "{what}");
            assert_eq!(parse(payload).start, *key, "{what}");
        }
    }

    #[test]
    fn forms_are_read_from_sdp() {
        let read = Format::from_fmtp;
        let [constrained, baseline, single, plain] = Format::ALL;
        let chromium = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(read(chromium), Some(constrained));
        assert_eq!(
            read("packetization-mode=1;profile-level-id=42001f"),
            Some(baseline)
        );
        assert_eq!(
            read("profile-level-id=42E034; packetization-mode=0"),
            Some(single)
        );
        assert_eq!(read("level-asymmetry-allowed=1"), Some(plain));
        for high in [
            "profile-level-id=640c1f",
            "profile-level-id=4d001f",
            "profile-level-id=x",
        ] {
            assert_eq!(read(high), None, "{high}");
        }
    }

    #[test]
    fn readers_are_tried_from_the_nearest_on() {
        let [constrained, baseline, single, plain] = Format::ALL;
        let first: Vec<_> = single.readers().collect();
        assert_eq!(first, [single, plain, constrained, baseline]);
        assert!(constrained.readers().all(|reader| reader.fragments));
    }
}
