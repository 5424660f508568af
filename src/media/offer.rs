//! The text of our own offers, for clients with two connections (`downlink.rs`).
//!
//! str0m makes ICE, DTLS and the data channels, and so the head and the application section of the
//! offer; it never hears of our media sections. They are written here behind its section, in the
//! same BUNDLE, and cut off the answer before str0m sees it.

use std::fmt::Write as _;

use super::message::Kind;
use super::sdp::{Sending, write_sending};

/// The codecs we offer, with the payload types LiveKit has as an offerer: clients copy them.
const AUDIO: Codecs = Codecs {
    payload_types: "111",
    lines: "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n",
};

/// The same for video, each codec with its retransmissions.
const VIDEO: Codecs = Codecs {
    payload_types: "96 97",
    lines: "a=extmap:3 http://www.ietf.org/id/\
            draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
            a=rtpmap:96 VP8/90000\r\n\
            a=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\n\
            a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
            a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
};

/// What a media section says of its codecs.
struct Codecs {
    payload_types: &'static str,
    lines: &'static str,
}

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

    /// The whole offer. `session` stays the same for a connection, `version` rises.
    pub fn offer(&self, session: u64, version: u32, sections: &[Section<'_>]) -> String {
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
            self.write_section(&mut out, section);
        }
        out
    }

    fn write_section(&self, out: &mut String, section: &Section<'_>) {
        let (media, codecs) = match section.kind {
            Kind::Audio => ("audio", AUDIO),
            Kind::Video => ("video", VIDEO),
        };
        let direction = match section.sending {
            Some(_) => "sendonly",
            None => "inactive",
        };
        let _ = write!(
            out,
            "m={media} 9 UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\n{}a=mid:{}\r\n\
             a={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{}",
            codecs.payload_types, self.shared, section.mid, codecs.lines
        );
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

#[cfg(test)]
mod tests {
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
        let text = Transport::read(FROM_STR0M).offer(5, 3, &sections());
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
        let mut codecs = sdp::Codecs::default();
        codecs.read(&text);
        assert_eq!(
            (codecs.opus, codecs.vp8, codecs.vp8_rtx),
            (Some(111), Some(96), Some(97))
        );
        assert_eq!(codecs.twcc, Some(3));
    }

    #[test]
    fn str0m_sees_only_its_own_section_of_an_answer() {
        let transport = Transport::read(FROM_STR0M);
        let answer = transport
            .offer(5, 3, &sections())
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
