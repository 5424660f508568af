//! The SDP of a simulated client: offers as a browser writes them, as far as the shard reads
//! them, and what a browser takes from an answer.

use std::fmt::Write as _;

use crate::media::message::Kind;

/// One media section of the client.
#[derive(Debug)]
pub struct Section {
    /// Its mid; that is its number.
    pub mid: String,
    /// Audio or video.
    pub kind: Kind,
    /// What it is offered for.
    pub usage: Usage,
}

/// What a section is offered for.
#[derive(Debug, PartialEq, Eq)]
pub enum Usage {
    /// Receiving.
    Receive,
    /// Sending.
    Send {
        /// The client's id of the track.
        cid: String,
        /// RIDs of its layers; none without simulcast.
        rids: &'static [&'static str],
        /// The SSRCs of media and retransmissions, told without simulcast.
        ssrcs: (u32, u32),
    },
    /// Nothing any more.
    Idle,
}

/// Payload types and extension ids that every offer has.
pub mod ids {
    /// Opus.
    pub const OPUS: u8 = 111;
    /// Opus with redundancy.
    pub const RED: u8 = 63;
    /// VP8.
    pub const VP8: u8 = 96;
    /// Retransmissions of VP8.
    pub const RTX: u8 = 97;
    /// Loudness of sound (RFC 6464).
    pub const LEVEL: u8 = 1;
    /// Transport-wide sequence number.
    pub const TWCC: u8 = 3;
    /// The mid.
    pub const MID: u8 = 4;
    /// How long pictures wait before they are shown.
    pub const PLAYOUT: u8 = 5;
    /// The RID.
    pub const RID: u8 = 10;
    /// The RID whose packets are repeated.
    pub const REPAIRED_RID: u8 = 11;
}

/// The user name fragment of every simulated client.
pub const UFRAG: &str = "simu";

const HEAD: &str = "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";

/// What every section says of the transport. No certificate is shown, so none has to fit.
const TRANSPORT: &str = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:simu\r\n\
    a=ice-pwd:simulated-client-password\r\na=ice-options:trickle\r\n\
    a=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:\
    00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\na=setup:actpass\r\n";

/// How an offer names transport-wide numbers.
const TWCC: &str =
    "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";

/// The same offer of a client that doesn't know transport-wide numbers.
pub fn without_twcc(offer: &str) -> String {
    offer.replace(TWCC, "")
}

/// Extensions of every section.
pub const EXTENSIONS: &str = "\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

/// The extension of sound, beside those.
const LEVEL: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";

/// Extensions of pictures, beside those.
pub const VIDEO_EXTENSIONS: &str = "\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
    a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n";

/// Sound.
pub const OPUS: &str = "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
    a=fmtp:111 minptime=10;useinbandfec=1\r\n";

/// Sound with redundancy.
const RED: &str = "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";

/// Pictures, and their retransmissions.
pub const VP8: &str = "\
    a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\n\
    a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";

/// The offer of these sections.
pub fn offer(sections: &[Section]) -> String {
    let mut text = String::from(HEAD);
    text.push_str("a=group:BUNDLE");
    for section in sections {
        let _ = write!(text, " {}", section.mid);
    }
    text.push_str("\r\n");
    for section in sections {
        let (media, codecs) = match section.kind {
            Kind::Audio => ("audio 9 UDP/TLS/RTP/SAVPF 111 63", OPUS),
            Kind::Video => ("video 9 UDP/TLS/RTP/SAVPF 96 97", VP8),
        };
        let _ = write!(
            text,
            "m={media}\r\n{TRANSPORT}a=mid:{}\r\n{EXTENSIONS}",
            section.mid
        );
        text.push_str(match section.kind {
            Kind::Audio => LEVEL,
            Kind::Video => VIDEO_EXTENSIONS,
        });
        text.push_str(match section.usage {
            Usage::Receive => "a=recvonly\r\n",
            Usage::Send { .. } => "a=sendonly\r\n",
            Usage::Idle => "a=inactive\r\n",
        });
        let _ = write!(text, "a=rtcp-mux\r\na=rtcp-rsize\r\n{codecs}");
        if section.kind == Kind::Audio {
            text.push_str(RED);
        }
        if let Usage::Send { cid, rids, ssrcs } = &section.usage {
            write_sending(&mut text, section.kind, cid, rids, *ssrcs);
        }
    }
    text
}

fn write_sending(out: &mut String, kind: Kind, cid: &str, rids: &[&str], ssrcs: (u32, u32)) {
    let _ = write!(out, "a=msid:- {cid}\r\n");
    for rid in rids {
        let _ = write!(out, "a=rid:{rid} send\r\n");
    }
    if !rids.is_empty() {
        let _ = write!(out, "a=simulcast:send {}\r\n", rids.join(";"));
        return;
    }
    let (media, rtx) = ssrcs;
    if kind == Kind::Video {
        let _ = write!(
            out,
            "a=ssrc-group:FID {media} {rtx}\r\na=ssrc:{rtx} cname:sim\r\n"
        );
    }
    let _ = write!(out, "a=ssrc:{media} cname:sim\r\n");
}

/// What a client reads of an answer.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    /// The shard's user name fragment.
    pub ufrag: &'a str,
    /// And its password.
    pub password: &'a str,
    /// Sections, in the order of the offer.
    pub sections: Vec<Answered<'a>>,
}

/// One section of an answer.
#[derive(Debug, Default)]
pub struct Answered<'a> {
    /// Its mid.
    pub mid: &'a str,
    /// The shard sends.
    pub sends: bool,
    /// The track part of `a=msid`.
    pub track: Option<&'a str>,
    /// The SSRCs of the media and of retransmissions.
    pub ssrcs: (Option<u32>, Option<u32>),
}

impl<'a> Answer<'a> {
    /// Reads `text`.
    pub fn parse(text: &'a str) -> Self {
        let mut answer = Self::default();
        for line in text.lines() {
            if line.starts_with("m=") {
                answer.sections.push(Answered::default());
            } else if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                answer.ufrag = ufrag;
            } else if let Some(password) = line.strip_prefix("a=ice-pwd:") {
                answer.password = password;
            } else if let Some(section) = answer.sections.last_mut() {
                section.read(line);
            }
        }
        answer
    }
}

impl<'a> Answered<'a> {
    fn read(&mut self, line: &'a str) {
        if let Some(mid) = line.strip_prefix("a=mid:") {
            self.mid = mid;
        } else if line == "a=sendonly" || line == "a=sendrecv" {
            self.sends = true;
        } else if let Some(msid) = line.strip_prefix("a=msid:") {
            self.track = msid.split(' ').next_back();
        } else if let Some(group) = line.strip_prefix("a=ssrc-group:FID ") {
            let mut ssrcs = group.split(' ').map(|ssrc| ssrc.parse().ok());
            self.ssrcs = (ssrcs.next().flatten(), ssrcs.next().flatten());
        } else if let Some(ssrc) = line.strip_prefix("a=ssrc:")
            && self.ssrcs.0.is_none()
        {
            self.ssrcs.0 = ssrc.split(' ').next().and_then(|ssrc| ssrc.parse().ok());
        }
    }
}
