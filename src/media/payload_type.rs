//! Which payload types and extension ids a client's connection uses for what.
//!
//! One numbering per connection serves both directions: the client chose the numbers in its offer,
//! str0m echoes them in its answer, and from there they are read.

use super::codec::{Codec, Format, dependency, h264, red};
use super::message::Kind;
use super::packet::Packet;
use super::playout;

/// What was negotiated; empty until a section of that kind was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codecs {
    /// One for each format that is known.
    formats: Vec<PayloadType>,
    /// Ids of header extensions.
    pub extensions: Extensions,
}

/// Ids of the header extensions that are read of what a client publishes; the first four are
/// written too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Transport-wide sequence number, of video.
    pub twcc: Option<u8>,
    /// The same of sound: not every client tells of that.
    pub twcc_audio: Option<u8>,
    /// Dependency descriptor.
    pub dependency: Option<u8>,
    /// How long pictures wait before they are shown.
    pub playout_delay: Option<u8>,
    /// Loudness (RFC 6464).
    pub audio_level: Option<u8>,
    /// Media section (RFC 8843 section 15).
    pub mid: Option<u8>,
    /// Layer (RFC 8852 section 3.1).
    pub rid: Option<u8>,
    /// Layer that is repeated (RFC 8852 section 3.2).
    pub repaired: Option<u8>,
}

/// The numbers of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PayloadType {
    format: Format,
    media: u8,
    /// Retransmissions.
    rtx: Option<u8>,
}

/// The transport-wide sequence number.
pub const TWCC_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

impl Extensions {
    /// The transport-wide sequence number of a kind of media.
    pub fn twcc_of(&self, kind: Kind) -> Option<u8> {
        match kind {
            Kind::Audio => self.twcc_audio,
            Kind::Video => self.twcc,
        }
    }

    fn note(&mut self, id: u8, uri: &str, audio: bool) {
        // Larger ids need the two-byte form, which is longer.
        let short = (1..=14).contains(&id);
        let extension = match uri.split(' ').next().unwrap_or_default() {
            TWCC_URI if short && audio => &mut self.twcc_audio,
            TWCC_URI if short => &mut self.twcc,
            dependency::URI if short => &mut self.dependency,
            playout::URI if short && !audio => &mut self.playout_delay,
            "urn:ietf:params:rtp-hdrext:ssrc-audio-level" => &mut self.audio_level,
            "urn:ietf:params:rtp-hdrext:sdes:mid" => &mut self.mid,
            "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id" => &mut self.rid,
            "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id" => &mut self.repaired,
            _ => return,
        };
        *extension = Some(id);
    }
}

impl Codecs {
    /// Reads what `answer` names and keeps what it doesn't.
    pub fn read(&mut self, answer: &str) {
        let mut parameters = [None; 256];
        for (pt, text) in answer.lines().filter_map(|it| attribute(it, "a=fmtp:")) {
            parameters[usize::from(pt)].get_or_insert(text);
        }
        let mut audio = false;
        for line in answer.lines() {
            if line.starts_with("m=") {
                audio = line.starts_with("m=audio");
            } else if let Some((pt, name)) = attribute(line, "a=rtpmap:") {
                let format = match codec_of(name) {
                    Some(Codec::H264) => {
                        let parameters = parameters[usize::from(pt)].unwrap_or_default();
                        h264::Format::from_fmtp(parameters).map(Format::H264)
                    }
                    other => other.map(Format::Plain),
                };
                if let Some(format) = format {
                    self.note(format, pt);
                }
            } else if let Some((id, uri)) = attribute(line, "a=extmap:") {
                self.extensions.note(id, uri, audio);
            }
        }
        for line in answer.lines() {
            if let Some((pt, text)) = attribute(line, "a=fmtp:")
                && let Some(of) = text
                    .strip_prefix("apt=")
                    .and_then(|it| it.parse::<u8>().ok())
                && let Some(known) = self.formats.iter_mut().find(|it| it.media == of)
            {
                known.rtx = Some(pt);
            }
        }
    }

    fn note(&mut self, format: Format, media: u8) {
        let new = PayloadType {
            format,
            media,
            rtx: None,
        };
        match self.formats.iter_mut().find(|it| it.format == format) {
            Some(known) if known.media == media => {}
            Some(known) => *known = new,
            None => self.formats.push(new),
        }
    }

    /// What an incoming packet of this payload type carries.
    pub fn format(&self, payload_type: u8) -> Option<Format> {
        let known = self.formats.iter().find(|it| it.media == payload_type)?;
        Some(known.format)
    }

    /// The payload type of the media that is repeated under this one, if it is one of
    /// retransmissions.
    pub fn repeats(&self, payload_type: u8) -> Option<u8> {
        let mut formats = self.formats.iter();
        let known = formats.find(|it| it.rtx == Some(payload_type))?;
        Some(known.media)
    }

    /// The codec a payload type belongs to, of media or of its retransmissions.
    pub fn codec(&self, payload_type: u8) -> Option<Codec> {
        let mut formats = self.formats.iter();
        let mine = |it: &&PayloadType| it.media == payload_type || it.rtx == Some(payload_type);
        formats.find(mine).map(|known| known.format.codec())
    }

    /// The payload type under which the client can read a format.
    pub fn media(&self, format: Format) -> Option<u8> {
        self.find(format).map(|known| known.media)
    }

    /// Under which payload type a packet can be sent to the client, and from where on its payload.
    pub fn way(&self, packet: &Packet) -> Option<(u8, usize)> {
        if let Some(media) = self.media(packet.format) {
            return Some((media, 0));
        }
        // Who can't read redundancy gets the newest frame alone.
        let opus = self.media(Format::Plain(Codec::Opus))?;
        let redundant = packet.format == Format::Plain(Codec::Red);
        let newest = redundant.then(|| red::newest(&packet.payload))??;
        Some((opus, newest.start))
    }

    /// The payload types of sound with redundancy, and of the sound in it, for who can read that.
    pub fn redundant(&self) -> Option<(u8, u8)> {
        let media = |codec| self.media(Format::Plain(codec));
        media(Codec::Red).zip(media(Codec::Opus))
    }

    /// A payload type of retransmissions, whatever of.
    pub fn any_rtx(&self) -> Option<u8> {
        self.formats.iter().find_map(|it| it.rtx)
    }

    /// The payload type of its retransmissions.
    pub fn rtx(&self, format: Format) -> Option<u8> {
        self.find(format).and_then(|known| known.rtx)
    }

    fn find(&self, format: Format) -> Option<&PayloadType> {
        let exact = |wanted: Format| self.formats.iter().find(|it| it.format == wanted);
        match format {
            Format::Plain(_) => exact(format),
            Format::H264(form) => form.readers().find_map(|it| exact(Format::H264(it))),
        }
    }

    /// Whether the client can read a codec; `None` as long as nothing of its kind was negotiated.
    pub fn reads(&self, codec: Codec) -> Option<bool> {
        let mut codecs = self.formats.iter().map(|it| it.format.codec());
        // Redundancy is taken off for those that can't read it.
        let wanted = |it: Codec| it == codec || codec == Codec::Red && it == Codec::Opus;
        let any = codecs.clone().any(|it| it.kind() == codec.kind());
        any.then(|| codecs.any(wanted))
    }
}

/// The codec of an `a=rtpmap` value.
pub fn codec_of(name: &str) -> Option<Codec> {
    match name {
        "opus/48000/2" => Some(Codec::Opus),
        "red/48000/2" => Some(Codec::Red),
        "VP8/90000" => Some(Codec::Vp8),
        "H264/90000" => Some(Codec::H264),
        "VP9/90000" => Some(Codec::Vp9),
        "AV1/90000" => Some(Codec::Av1),
        _ => None,
    }
}

/// `prefix`, a number, a blank, the rest.
pub fn attribute<'a>(line: &'a str, prefix: &str) -> Option<(u8, &'a str)> {
    let (number, rest) = line.strip_prefix(prefix)?.split_once(' ')?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROMIUM: &str = include_str!("../../tests/fixtures/chromium156-join-offer.sdp");

    #[test]
    fn every_codec_of_a_browser_has_its_numbers() {
        let mut codecs = Codecs::default();
        assert_eq!(codecs.reads(Codec::Vp8), None);
        codecs.read(CHROMIUM);
        let media = |codec| codecs.media(Format::Plain(codec));
        assert_eq!(media(Codec::Opus), Some(111));
        assert_eq!(media(Codec::Red), Some(63));
        assert_eq!(media(Codec::Vp8), Some(96));
        for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
            let format = Format::Plain(codec);
            let (pt, rtx) = (codecs.media(format).unwrap(), codecs.rtx(format).unwrap());
            assert_eq!(codecs.format(pt), Some(format));
            assert_eq!(codecs.format(rtx), None);
            assert_eq!(
                (codecs.codec(pt), codecs.codec(rtx)),
                (Some(codec), Some(codec))
            );
        }
        for form in h264::Format::ALL {
            assert!(codecs.rtx(Format::H264(form)).is_some(), "{form:?}");
        }
        assert!(
            Codec::ALL
                .iter()
                .all(|codec| codecs.reads(*codec) == Some(true))
        );
        assert_eq!(
            (codecs.extensions.twcc, codecs.extensions.dependency),
            (Some(3), Some(12))
        );
    }

    #[test]
    fn a_client_without_a_codec_is_found_out() {
        let mut codecs = Codecs::default();
        codecs.read("a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n");
        assert_eq!(codecs.reads(Codec::Vp8), Some(true));
        assert_eq!(codecs.reads(Codec::H264), Some(false));
        assert_eq!(codecs.reads(Codec::Opus), None);
        codecs.read("a=rtpmap:111 opus/48000/2\r\n");
        assert_eq!(codecs.reads(Codec::Red), Some(true));
        let constrained = h264::Format::ALL[0];
        codecs.read("a=rtpmap:102 H264/90000\r\na=fmtp:102 profile-level-id=640032\r\n");
        assert_eq!(
            codecs.reads(Codec::H264),
            Some(false),
            "High is not forwarded"
        );
        codecs.read("a=rtpmap:103 H264/90000\r\na=fmtp:103 profile-level-id=42001f\r\n");
        assert_eq!(
            codecs.media(Format::H264(constrained)),
            None,
            "it can't join units"
        );
    }
}
