//! The text of our own offers, for clients with two connections (`downlink.rs`).
//!
//! str0m makes ICE, DTLS and the data channels, and so the head and the application section of the
//! offer; it never hears of our media sections. They are written here behind its section, in the
//! same BUNDLE, and cut off the answer before str0m sees it.

use std::fmt::Write as _;

use super::codec::{Codec, dependency};
use super::message::Kind;
use super::payload_type::TWCC_URI;
use super::playout;
use super::sdp::{Sending, write_sending};

macro_rules! h264_parameters {
    ($mode:literal, $profile:literal) => {
        concat!(
            "level-asymmetry-allowed=1;packetization-mode=",
            $mode,
            ";profile-level-id=",
            $profile
        )
    };
}

/// A codec as we offer it. The payload types are those LiveKit has as an offerer: clients copy
/// them.
struct Offered {
    codec: Codec,
    payload_type: u8,
    /// Retransmissions, for video.
    rtx: Option<u8>,
    /// Its `a=rtpmap` and, if it has any, `a=fmtp`.
    name: &'static str,
    parameters: &'static str,
}

impl Offered {
    const fn audio(codec: Codec, pt: u8, name: &'static str, parameters: &'static str) -> Self {
        Self {
            codec,
            payload_type: pt,
            rtx: None,
            name,
            parameters,
        }
    }

    const fn video(codec: Codec, pt: u8, name: &'static str, parameters: &'static str) -> Self {
        Self {
            codec,
            payload_type: pt,
            rtx: Some(pt + 1),
            name,
            parameters,
        }
    }
}

/// All of them. H.264 in the forms that are forwarded, never High.
const OFFERED: [Offered; 9] = [
    Offered::audio(
        Codec::Opus,
        111,
        "opus/48000/2",
        "minptime=10;useinbandfec=1",
    ),
    Offered::audio(Codec::Red, 63, "red/48000/2", "111/111"),
    Offered::video(Codec::Vp8, 96, "VP8/90000", ""),
    Offered::video(
        Codec::H264,
        108,
        "H264/90000",
        h264_parameters!("1", "42e01f"),
    ),
    Offered::video(
        Codec::H264,
        106,
        "H264/90000",
        h264_parameters!("0", "42e01f"),
    ),
    Offered::video(
        Codec::H264,
        104,
        "H264/90000",
        h264_parameters!("1", "42001f"),
    ),
    Offered::video(
        Codec::H264,
        102,
        "H264/90000",
        h264_parameters!("0", "42001f"),
    ),
    Offered::video(Codec::Vp9, 98, "VP9/90000", "profile-id=0"),
    Offered::video(Codec::Av1, 35, "AV1/90000", ""),
];

/// One media section of an offer of ours.
#[derive(Debug)]
pub struct Section<'a> {
    /// Its `a=mid`.
    pub mid: &'a str,
    /// Audio or video.
    pub kind: Kind,
    /// What is sent in it; nothing means `inactive`.
    pub sending: Option<Sending>,
}

/// What str0m said of the connection, taken apart.
#[derive(Debug)]
pub struct Transport {
    /// The application section, whole.
    application: String,
    /// Its `a=mid`.
    mid: String,
    /// Credentials, fingerprint and role: every section of the BUNDLE repeats them.
    shared: String,
}

impl Transport {
    /// Reads an offer of str0m that has only an application section.
    pub fn read(offer: &str) -> Self {
        let at = offer.find("m=application").unwrap_or(offer.len());
        let application = offer[at..].to_owned();
        let mut shared = String::new();
        let mut mid = String::new();
        for line in application.lines() {
            const SHARED: [&str; 5] = [
                "a=ice-ufrag:",
                "a=ice-pwd:",
                "a=ice-options:",
                "a=fingerprint:",
                "a=setup:",
            ];
            if SHARED.iter().any(|prefix| line.starts_with(prefix)) {
                let _ = write!(shared, "{line}\r\n");
            } else if let Some(name) = line.strip_prefix("a=mid:") {
                name.clone_into(&mut mid);
            }
        }
        Self {
            application,
            mid,
            shared,
        }
    }

    /// The whole offer, of these codecs. `session` stays the same for a connection, `version`
    /// rises.
    pub fn offer(
        &self,
        session: u64,
        version: u32,
        codecs: &[Codec],
        sections: &[Section<'_>],
    ) -> String {
        let mut out = String::with_capacity(self.application.len() + 1024 * (sections.len() + 1));
        let _ = write!(
            out,
            "v=0\r\no=- {session} {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
             a=group:BUNDLE {}",
            self.mid
        );
        for section in sections {
            let _ = write!(out, " {}", section.mid);
        }
        out.push_str("\r\na=extmap-allow-mixed\r\na=ice-lite\r\n");
        out.push_str(&self.application);
        for section in sections {
            self.write_section(&mut out, codecs, section);
        }
        out
    }

    fn write_section(&self, out: &mut String, codecs: &[Codec], section: &Section<'_>) {
        let media = match section.kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        // In the order of the configuration: the first is what clients prefer.
        let offered: Vec<_> = codecs
            .iter()
            .filter(|codec| codec.kind() == section.kind)
            .flat_map(|codec| OFFERED.iter().filter(move |it| it.codec == *codec))
            .collect();
        let _ = write!(out, "m={media} 9 UDP/TLS/RTP/SAVPF");
        for it in &offered {
            for pt in std::iter::once(it.payload_type).chain(it.rtx) {
                let _ = write!(out, " {pt}");
            }
        }
        let direction = match section.sending {
            Some(_) => "sendonly",
            None => "inactive",
        };
        let _ = write!(
            out,
            "\r\nc=IN IP4 0.0.0.0\r\n{}a=mid:{}\r\na={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
            self.shared, section.mid
        );
        if section.kind == Kind::Video {
            let _ = write!(
                out,
                "a=extmap:3 {TWCC_URI}\r\na=extmap:5 {}\r\n",
                playout::URI
            );
        }
        if offered.iter().any(|it| it.codec == Codec::Av1) {
            let _ = write!(out, "a=extmap:12 {}\r\n", dependency::URI);
        }
        for it in offered {
            write_codec(out, it);
        }
        if let Some(sending) = &section.sending {
            write_sending(out, sending);
        }
    }

    /// The answer as str0m may see it: head and application section.
    pub fn application_of(&self, answer: &str) -> String {
        let mut shown = String::with_capacity(1024);
        let mut inside = true;
        for line in answer.lines() {
            if line.starts_with("m=") {
                inside = line.starts_with("m=application");
            }
            if !inside {
                continue;
            }
            if line.starts_with("a=group:BUNDLE") {
                let _ = write!(shown, "a=group:BUNDLE {}\r\n", self.mid);
            } else {
                let _ = write!(shown, "{line}\r\n");
            }
        }
        shown
    }
}

fn write_codec(out: &mut String, offered: &Offered) {
    let Offered {
        payload_type: pt,
        rtx,
        name,
        parameters,
        ..
    } = offered;
    let _ = write!(out, "a=rtpmap:{pt} {name}\r\n");
    if !parameters.is_empty() {
        let _ = write!(out, "a=fmtp:{pt} {parameters}\r\n");
    }
    let Some(rtx) = rtx else { return };
    for feedback in ["transport-cc", "ccm fir", "nack", "nack pli"] {
        let _ = write!(out, "a=rtcp-fb:{pt} {feedback}\r\n");
    }
    let _ = write!(out, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Format, h264};
    use super::super::payload_type::Codecs;
    use super::super::sdp::{self, Offer};
    use super::*;

    const FROM_STR0M: &str = "v=0\r\no=str0m 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
        a=group:BUNDLE abc\r\na=ice-lite\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
        a=candidate:1 1 udp 1 192.0.2.1 7882 typ host\r\na=ice-ufrag:uuuu\r\na=ice-pwd:pppp\r\n\
        a=fingerprint:sha-256 AA\r\na=setup:actpass\r\na=mid:abc\r\na=sctp-port:5000\r\n";

    fn sections() -> [Section<'static>; 2] {
        let sending = Sending {
            stream_id: "PA_a|TR_b".into(),
            track_id: "TR_b".into(),
            cname: "PA_a".into(),
            ssrc: 7,
            rtx_ssrc: Some(8),
        };
        [
            Section {
                mid: "audio0",
                kind: Kind::Audio,
                sending: None,
            },
            Section {
                mid: "video1",
                kind: Kind::Video,
                sending: Some(sending),
            },
        ]
    }

    #[test]
    fn our_sections_follow_str0ms_in_one_bundle() {
        let text = Transport::read(FROM_STR0M).offer(5, 3, &Codec::ALL, &sections());
        assert!(text.contains("o=- 5 3 "), "{text}");
        assert!(
            text.contains("a=group:BUNDLE abc audio0 video1\r\n"),
            "{text}"
        );
        let offer = Offer::parse(&text, 10_000, 10).expect("an offer");
        let flows: Vec<_> = offer.sections.iter().map(|section| section.flow).collect();
        assert_eq!(flows, [sdp::Flow::Up, sdp::Flow::Idle, sdp::Flow::Up]);
        assert_eq!(text.matches("a=ice-ufrag:uuuu\r\n").count(), 3);
        assert_eq!(text.matches("a=candidate:").count(), 1);
        assert!(
            text.contains("a=msid:PA_a|TR_b TR_b\r\na=ssrc-group:FID 7 8\r\n"),
            "{text}"
        );
        let mut codecs = Codecs::default();
        codecs.read(&text);
        let plain = [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::Av1];
        let media = plain.map(|codec| codecs.media(Format::Plain(codec)));
        assert_eq!(media, [111, 63, 96, 98, 35].map(Some));
        for form in h264::Format::ALL {
            assert!(codecs.rtx(Format::H264(form)).is_some(), "{form:?}");
        }
        assert_eq!(codecs.extensions.dependency, Some(12));
        assert_eq!(codecs.extensions.twcc, Some(3));
    }

    #[test]
    fn str0m_sees_only_its_own_section_of_an_answer() {
        let transport = Transport::read(FROM_STR0M);
        let answer = transport
            .offer(5, 3, &Codec::ALL, &sections())
            .replace("a=sendonly", "a=recvonly");
        let shown = transport.application_of(&answer);
        assert!(shown.contains("a=group:BUNDLE abc\r\n"), "{shown}");
        assert!(shown.contains("a=sctp-port:5000\r\n"), "{shown}");
        assert!(
            !shown.contains("m=audio") && !shown.contains("recvonly"),
            "{shown}"
        );
    }
}
