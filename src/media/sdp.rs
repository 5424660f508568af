//! The text side of negotiation: what the client offers, what str0m is shown, what we answer.
//!
//! str0m parses the offer and writes the answer, but the sections on which *we* send are hidden
//! from it: offered `recvonly`, they are shown to str0m as `inactive`, so that it makes no sending
//! stream, and in its answer they become `sendonly` with our own msid and SSRCs, or stay
//! `inactive` while free. Payload types and extension ids are read from str0m's answer, which
//! echoes the client's.
//!
//! Not here: which track goes to which section (`section.rs`).

use std::fmt::Write as _;

use super::codec::{Codec, dependency};
use super::message::Kind;
use super::payload_type::{Codecs, attribute, codec_of};
use super::playout;

/// Bytes of a mid or RID: they travel in header extensions of at most 16 bytes (RFC 8285 section
/// 4.2), and everybody in the room is told the mid. A longer mid is no offer of a WebRTC client.
const ID_BYTES_MAX: usize = 16;

/// Bytes of a track id; one that is longer belongs to no announcement.
const TRACK_ID_BYTES_MAX: usize = 256;

/// SSRCs of a section that are looked at: media and retransmissions, in three layers.
const SSRCS_MAX: usize = 6;

/// Payload types of one section: all that there are.
const PAYLOAD_TYPES_MAX: usize = 128;

/// Why an offer can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpError {
    /// More bytes or sections than the configuration allows.
    TooLarge,
    /// Not SDP, or not an offer that WebRTC clients make.
    Malformed,
}

/// Which way a section's media flows, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The client sends: `sendonly`, or `sendrecv`, of which only the sending half is used.
    Up,
    /// The client receives: `recvonly`.
    Down,
    /// Neither, or the section is rejected.
    Idle,
}

/// One media section of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedSection {
    /// Its `a=mid`.
    pub mid: String,
    /// `None` for the data channel section.
    pub kind: Option<Kind>,
    /// Which way it flows.
    pub flow: Flow,
    /// The track part of `a=msid`, or its only part.
    pub track_id: Option<String>,
    /// The RIDs the client will send, in the order of the offer.
    pub rids: Vec<String>,
    /// SSRCs that it names, of media and of retransmissions.
    pub ssrcs: Vec<u32>,
    /// Its payload types, in the order of the offer.
    payload_types: Vec<u8>,
    /// Those whose codec we know.
    named: Vec<(u8, Codec)>,
}

/// An offer, split as far as we care.
#[derive(Debug)]
pub struct Offer<'a> {
    text: &'a str,
    /// Its media sections, in order.
    pub sections: Vec<OfferedSection>,
}

impl<'a> Offer<'a> {
    /// Reads `text`. Bounds are checked before anything is parsed.
    pub fn parse(text: &'a str, bytes_max: usize, sections_max: usize) -> Result<Self, SdpError> {
        if text.len() > bytes_max {
            return Err(SdpError::TooLarge);
        }
        if !text.starts_with("v=0") {
            return Err(SdpError::Malformed);
        }
        let mut sections: Vec<OfferedSection> = Vec::new();
        for line in text.lines() {
            if let Some(media) = line.strip_prefix("m=") {
                if sections.len() == sections_max {
                    return Err(SdpError::TooLarge);
                }
                sections.push(OfferedSection::from_media_line(media)?);
            } else if let Some(section) = sections.last_mut() {
                section.read(line)?;
            }
        }
        if sections.is_empty() || sections.iter().any(|section| section.mid.is_empty()) {
            return Err(SdpError::Malformed);
        }
        let mut mids: Vec<_> = sections.iter().map(|section| &section.mid).collect();
        mids.sort_unstable();
        if mids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(SdpError::Malformed);
        }
        Ok(Self { text, sections })
    }

    /// The offer as str0m may see it: no section on which it could send.
    pub fn without_downstream(&self) -> String {
        let mut shown = String::with_capacity(self.text.len() + 16);
        for line in self.text.lines() {
            shown.push_str(match line {
                "a=recvonly" => "a=inactive",
                "a=sendrecv" => "a=sendonly",
                other => other,
            });
            shown.push_str("\r\n");
        }
        shown
    }
}

impl OfferedSection {
    fn from_media_line(media: &str) -> Result<Self, SdpError> {
        let kind = match media.split(' ').next() {
            Some("audio") => Some(Kind::Audio),
            Some("video") => Some(Kind::Video),
            Some("application") => None,
            _ => return Err(SdpError::Malformed),
        };
        Ok(Self {
            mid: String::new(),
            kind,
            // The default without a direction attribute is sendrecv (RFC 8866 section 6.7).
            flow: Flow::Up,
            track_id: None,
            rids: Vec::new(),
            ssrcs: Vec::new(),
            named: Vec::new(),
            payload_types: media
                .split(' ')
                .skip(3)
                .flat_map(str::parse)
                .take(PAYLOAD_TYPES_MAX)
                .collect(),
        })
    }

    fn read(&mut self, line: &str) -> Result<(), SdpError> {
        match line {
            "a=recvonly" => self.flow = Flow::Down,
            "a=inactive" => self.flow = Flow::Idle,
            "a=sendonly" | "a=sendrecv" => self.flow = Flow::Up,
            _ => {
                if let Some(mid) = line.strip_prefix("a=mid:") {
                    if mid.len() > ID_BYTES_MAX {
                        return Err(SdpError::Malformed);
                    }
                    self.mid = mid.to_owned();
                } else if let Some(msid) = line.strip_prefix("a=msid:") {
                    let id = msid.split(' ').next_back();
                    let id = id.filter(|id| id.len() <= TRACK_ID_BYTES_MAX);
                    self.track_id = id.map(str::to_owned);
                } else if let Some(rid) = line.strip_prefix("a=rid:")
                    && let Some((id, "send")) = rid
                        .split_once(' ')
                        .map(|(id, rest)| (id, rest.split([' ', ';']).next().unwrap_or_default()))
                    && self.rids.len() < super::packet::Layer::COUNT_MAX
                    && id.len() <= ID_BYTES_MAX
                {
                    self.rids.push(id.to_owned());
                } else if let Some(ssrc) = line.strip_prefix("a=ssrc:")
                    && let Some(Ok(ssrc)) = ssrc.split(' ').next().map(str::parse)
                    && self.ssrcs.len() < SSRCS_MAX
                    && self.ssrcs.last() != Some(&ssrc)
                {
                    self.ssrcs.push(ssrc);
                } else if let Some((pt, name)) = attribute(line, "a=rtpmap:")
                    && let Some(codec) = codec_of(name)
                    && self.named.len() < PAYLOAD_TYPES_MAX
                {
                    self.named.push((pt, codec));
                }
            }
        }
        Ok(())
    }

    /// Its codecs that we know, the client's first choice first.
    pub fn codecs(&self) -> Vec<Codec> {
        let named = |pt: &u8| {
            let mut named = self.named.iter();
            named.find_map(|(known, codec)| (known == pt).then_some(*codec))
        };
        let mut codecs: Vec<_> = self.payload_types.iter().filter_map(named).collect();
        let mut seen = Vec::new();
        codecs.retain(|codec| {
            !seen.contains(codec) && {
                seen.push(*codec);
                true
            }
        });
        codecs
    }
}

/// What we send in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// First part of `a=msid`: clients read who sends and what from it (LiveKit: `PA_..|TR_..`).
    pub stream_id: String,
    /// Second part of `a=msid`.
    pub track_id: String,
    /// Name that ties the streams of one publisher together for lip sync.
    pub cname: String,
    /// The SSRC of the media.
    pub ssrc: u32,
    /// The SSRC of retransmissions, for video.
    pub rtx_ssrc: Option<u32>,
}

/// How a published section is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receiving {
    /// Ask for discontinuous transmission (Opus).
    pub dtx: bool,
    /// Ask for stereo (Opus).
    pub stereo: bool,
    /// The codec to send; the others follow in the answer. Without redundancy for Opus.
    pub codec: Option<Codec>,
    /// No other is to be named: for clients that don't keep to the order.
    pub alone: bool,
}

impl Receiving {
    /// Whether the answer leaves a payload type out.
    fn omits(&self, codec: Option<Codec>) -> bool {
        let Some(wanted) = self.codec else {
            return false;
        };
        match codec {
            Some(Codec::Red) => wanted == Codec::Opus,
            Some(other) => self.alone && other != wanted,
            None => false,
        }
    }
}

/// What the answer says of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// We send.
    Send(Sending),
    /// We receive.
    Receive(Receiving),
    /// Nothing flows.
    Idle,
}

/// Turns str0m's answer into ours; `role` says what each section is for, by its mid.
pub fn answer(from_str0m: &str, codecs: &Codecs, role: impl Fn(&str) -> Role) -> String {
    let mut head = String::with_capacity(from_str0m.len() + 1024);
    let mut sections = from_str0m.split_inclusive('\n').peekable();
    while let Some(line) = sections.next_if(|line| !line.starts_with("m=")) {
        // str0m lists msids of its own there; the attribute is optional and ours differ.
        if !line.starts_with("a=msid-semantic") {
            head.push_str(line);
        }
    }
    let mut section = Vec::new();
    while let Some(line) = sections.next() {
        section.push(line);
        if sections.peek().is_none_or(|next| next.starts_with("m=")) {
            write_section(&mut head, &section, codecs, &role);
            section.clear();
        }
    }
    head
}

fn write_section(out: &mut String, lines: &[&str], codecs: &Codecs, role: &impl Fn(&str) -> Role) {
    let mid = lines
        .iter()
        .find_map(|line| line.trim_end().strip_prefix("a=mid:"))
        .unwrap_or_default();
    let application = lines
        .first()
        .is_some_and(|line| line.starts_with("m=application"));
    if application {
        out.extend(lines.iter().copied());
        return;
    }
    let role = role(mid);
    let receiving = match &role {
        Role::Receive(receiving) => *receiving,
        _ => Receiving::default(),
    };
    for line in lines {
        let text = line.trim_end();
        match text {
            "a=inactive" | "a=sendonly" | "a=recvonly" | "a=sendrecv" => out.push_str(match role {
                Role::Send(_) => "a=sendonly\r\n",
                Role::Receive(_) => "a=recvonly\r\n",
                Role::Idle => "a=inactive\r\n",
            }),
            // str0m's own msid names a stream that doesn't exist.
            _ if text.starts_with("a=msid:") || text.starts_with("a=ssrc") => {}
            _ if text.starts_with("m=") => write_media_line(out, text, codecs, receiving),
            _ if is_left_out(text, codecs, &role, receiving) => {}
            _ => {
                out.push_str(text);
                if let Some((pt, _)) = attribute(text, "a=fmtp:")
                    && codecs.codec(pt) == Some(Codec::Opus)
                {
                    write_opus_wishes(out, receiving);
                }
                out.push_str("\r\n");
            }
        }
    }
    if let Role::Send(sending) = &role {
        write_sending(out, sending);
    }
}

/// The payload types in the order they should be used.
fn write_media_line(out: &mut String, line: &str, codecs: &Codecs, receiving: Receiving) {
    let mut parts = line.split(' ');
    let head: Vec<_> = parts.by_ref().take(3).collect();
    let codec = |pt: &str| pt.parse().ok().and_then(|pt| codecs.codec(pt));
    let mut payload_types: Vec<_> = parts.filter(|pt| !receiving.omits(codec(pt))).collect();
    if receiving.codec.is_some() {
        payload_types.sort_by_key(|pt| codec(pt) != receiving.codec);
    }
    out.push_str(&head.join(" "));
    for payload_type in payload_types {
        out.push(' ');
        out.push_str(payload_type);
    }
    out.push_str("\r\n");
}

/// Whether an attribute has no place in the answer.
fn is_left_out(line: &str, codecs: &Codecs, role: &Role, receiving: Receiving) -> bool {
    if let Some((_, uri)) = attribute(line, "a=extmap:") {
        // With it a client that turns its camera leaves the turning to the receivers.
        return uri.starts_with("urn:3gpp:video-orientation")
            // We say it, and nobody to us.
            || uri.starts_with(playout::URI) && !matches!(role, Role::Send(_))
            // Nothing is read from it but for AV1, and it costs the others bytes and work.
            || uri.starts_with(dependency::URI)
                && matches!(role, Role::Receive(_))
                && receiving.codec != Some(Codec::Av1);
    }
    let prefixes = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"];
    let mut named = prefixes.iter().filter_map(|prefix| attribute(line, prefix));
    named.any(|(pt, _)| receiving.omits(codecs.codec(pt)))
}

fn write_opus_wishes(out: &mut String, receiving: Receiving) {
    if receiving.dtx {
        out.push_str(";usedtx=1");
    }
    if receiving.stereo {
        out.push_str(";stereo=1;maxaveragebitrate=510000");
    }
}

pub(super) fn write_sending(out: &mut String, sending: &Sending) {
    let Sending {
        stream_id,
        track_id,
        cname,
        ssrc,
        rtx_ssrc,
    } = sending;
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = out.write_fmt(text);
        out.push_str("\r\n");
    };
    line(format_args!("a=msid:{stream_id} {track_id}"));
    if let Some(rtx) = rtx_ssrc {
        line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
    }
    for ssrc in std::iter::once(ssrc).chain(rtx_ssrc) {
        line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        line(format_args!("a=ssrc:{ssrc} msid:{stream_id} {track_id}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: &str = include_str!("../../tests/fixtures/chromium156-join-offer.sdp");
    const PUBLISH: &str = include_str!("../../tests/fixtures/chromium156-publish-offer.sdp");
    const PYTHON: &str = include_str!("../../tests/fixtures/python-1.2.1-join-offer.sdp");

    fn parse(text: &str) -> Result<Offer<'_>, SdpError> {
        Offer::parse(text, 64 * 1024, 64)
    }

    #[test]
    fn captured_offers_are_read() {
        for text in [JOIN, PYTHON] {
            let offer = parse(text).expect("a captured offer");
            assert_eq!(offer.sections.len(), 7);
            assert!(
                offer.sections[..6]
                    .iter()
                    .all(|section| section.flow == Flow::Down)
            );
            assert_eq!(offer.sections[6].kind, None);
        }
        let offer = parse(PUBLISH).expect("a captured offer");
        let camera = &offer.sections[8];
        assert_eq!((camera.flow, camera.kind), (Flow::Up, Some(Kind::Video)));
        assert_eq!(
            camera.track_id.as_deref(),
            Some("f26fb9ec-6b5a-4b1e-9409-279cfef4e8af")
        );
        assert_eq!(camera.rids, ["q", "h", "f"]);
    }

    #[test]
    fn str0m_is_shown_no_section_it_could_send_on() {
        let shown = parse(PUBLISH)
            .expect("a captured offer")
            .without_downstream();
        assert!(!shown.contains("recvonly") && !shown.contains("sendrecv"));
        assert!(shown.contains("a=sendonly"));
    }

    #[test]
    fn broken_offers_are_refused() {
        assert_eq!(parse("").unwrap_err(), SdpError::Malformed);
        assert_eq!(parse("v=0\r\n").unwrap_err(), SdpError::Malformed);
        assert_eq!(
            parse("v=0\r\nm=audio 9 X 0\r\n").unwrap_err(),
            SdpError::Malformed
        );
        let twice = "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\nm=audio 9 X 0\r\na=mid:0\r\n";
        assert_eq!(parse(twice).unwrap_err(), SdpError::Malformed);
        assert_eq!(Offer::parse(JOIN, 100, 64).unwrap_err(), SdpError::TooLarge);
        assert_eq!(
            Offer::parse(JOIN, 64 * 1024, 6).unwrap_err(),
            SdpError::TooLarge
        );
    }

    #[test]
    fn an_answer_gets_our_streams_in_place_of_str0ms() {
        let from_str0m = "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
            a=inactive\r\na=msid:x y\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n\
            a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
        let mut codecs = Codecs::default();
        codecs.read(from_str0m);
        let sending = Sending {
            stream_id: "PA_a|TR_b".into(),
            track_id: "TR_b".into(),
            cname: "PA_a".into(),
            ssrc: 7,
            rtx_ssrc: None,
        };
        let ours = answer(from_str0m, &codecs, |mid| match mid {
            "0" => Role::Send(sending.clone()),
            _ => Role::Receive(Receiving::default()),
        });
        assert!(ours.contains("a=sendonly\r\n"), "{ours}");
        assert!(ours.contains("a=msid:PA_a|TR_b TR_b\r\n"), "{ours}");
        assert!(!ours.contains("a=msid:x y"), "{ours}");
        assert!(ours.ends_with("a=fmtp:97 apt=96\r\n"), "{ours}");
    }

    #[test]
    fn the_codec_of_a_track_comes_first_or_alone() {
        let answer_to = |line: &str, receiving: Receiving| {
            let from_str0m = format!("v=0\r\n{line}\r\na=mid:0\r\na=recvonly\r\n{MAPS}");
            let mut codecs = Codecs::default();
            codecs.read(&from_str0m);
            answer(&from_str0m, &codecs, |_| Role::Receive(receiving))
        };
        let codec = |codec| Receiving {
            codec: Some(codec),
            ..Receiving::default()
        };
        let video = "m=video 9 X 96 97 102 103 45";
        let first = answer_to(video, codec(Codec::H264));
        assert!(
            first.contains("m=video 9 X 102 103 96 97 45\r\n"),
            "{first}"
        );
        assert!(!first.contains("dependency-descriptor"), "{first}");
        let av1 = answer_to(video, codec(Codec::Av1));
        assert!(av1.contains("dependency-descriptor"), "{av1}");
        assert!(!av1.contains("video-orientation"), "{av1}");
        let alone = Receiving {
            alone: true,
            ..codec(Codec::H264)
        };
        let only = answer_to(video, alone);
        assert!(only.contains("m=video 9 X 102 103\r\n"), "{only}");
        assert!(!only.contains(":96 ") && !only.contains(":97 "), "{only}");
        let audio = "m=audio 9 X 111 63";
        let opus = answer_to(audio, codec(Codec::Opus));
        assert!(
            opus.contains("m=audio 9 X 111\r\n") && !opus.contains(":63 "),
            "{opus}"
        );
        let red = answer_to(audio, codec(Codec::Red));
        assert!(red.contains("m=audio 9 X 63 111\r\n"), "{red}");
        assert!(red.contains("a=fmtp:63 111/111"), "{red}");
    }

    const MAPS: &str = "a=extmap:12 https://aomediacodec.github.io/av1-rtp-spec/\
        #dependency-descriptor-rtp-header-extension\r\n\
        a=extmap:13 urn:3gpp:video-orientation\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
        a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=rtpmap:45 AV1/90000\r\n\
        a=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";

    #[test]
    fn a_client_says_which_codecs_it_would_choose() {
        let offer = parse(PUBLISH).expect("a captured offer");
        assert_eq!(offer.sections[8].codecs()[0], Codec::Vp8);
        let turned = PUBLISH.replace("SAVPF 96 97 ", "SAVPF 45 96 97 ");
        let offer = parse(&turned).expect("a captured offer");
        assert_eq!(offer.sections[8].codecs()[..2], [Codec::Av1, Codec::Vp8]);
    }
}
