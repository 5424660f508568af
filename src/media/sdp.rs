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

use super::message::Kind;

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
                section.read(line);
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
        })
    }

    fn read(&mut self, line: &str) {
        match line {
            "a=recvonly" => self.flow = Flow::Down,
            "a=inactive" => self.flow = Flow::Idle,
            "a=sendonly" | "a=sendrecv" => self.flow = Flow::Up,
            _ => {
                if let Some(mid) = line.strip_prefix("a=mid:") {
                    self.mid = mid.to_owned();
                } else if let Some(msid) = line.strip_prefix("a=msid:") {
                    self.track_id = msid.split(' ').next_back().map(str::to_owned);
                } else if let Some(rid) = line.strip_prefix("a=rid:")
                    && let Some((id, "send")) = rid
                        .split_once(' ')
                        .map(|(id, rest)| (id, rest.split([' ', ';']).next().unwrap_or_default()))
                    && self.rids.len() < super::packet::Layer::COUNT_MAX
                {
                    self.rids.push(id.to_owned());
                }
            }
        }
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

/// Payload types and extension ids of a session, read from an answer; all `None` until a section
/// of that kind was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codecs {
    /// Opus.
    pub opus: Option<u8>,
    /// VP8.
    pub vp8: Option<u8>,
    /// Retransmissions of VP8.
    pub vp8_rtx: Option<u8>,
    /// Id of the transport-wide sequence number extension.
    pub twcc: Option<u8>,
}

impl Codecs {
    /// Reads what `answer` names and keeps what it doesn't.
    pub fn read(&mut self, answer: &str) {
        for line in answer.lines() {
            if let Some((pt, codec)) = attribute(line, "a=rtpmap:") {
                match codec {
                    "opus/48000/2" => self.opus = Some(pt),
                    "VP8/90000" => self.vp8 = Some(pt),
                    _ => {}
                }
            } else if let Some((pt, apt)) = attribute(line, "a=fmtp:")
                && let Some(apt) = apt.strip_prefix("apt=")
                && apt.parse().ok() == self.vp8
            {
                self.vp8_rtx = Some(pt);
            } else if let Some((id, uri)) = attribute(line, "a=extmap:")
                && uri.starts_with(TWCC_URI)
                // Larger ids need the two-byte form, which we don't write.
                && (1..=14).contains(&id)
            {
                self.twcc = Some(id);
            }
        }
    }
}

const TWCC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// `prefix`, a number, a blank, the rest.
fn attribute<'a>(line: &'a str, prefix: &str) -> Option<(u8, &'a str)> {
    let (number, rest) = line.strip_prefix(prefix)?.split_once(' ')?;
    Some((number.parse().ok()?, rest))
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
            _ => {
                out.push_str(text);
                if let Role::Receive(receiving) = &role
                    && let Some((pt, _)) = attribute(text, "a=fmtp:")
                    && Some(pt) == codecs.opus
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

fn write_opus_wishes(out: &mut String, receiving: &Receiving) {
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
        assert_eq!(
            codecs,
            Codecs {
                opus: Some(111),
                vp8: Some(96),
                vp8_rtx: Some(97),
                twcc: None
            }
        );
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
}
