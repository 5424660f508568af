//! Offers as livekit-client makes them, cut down to Opus and VP8, and what is read of answers.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::picture::LAYERS;
use crate::media::message::Kind;
use crate::sim::sdp::{EXTENSIONS, OPUS, VIDEO_EXTENSIONS, VP8, ids};

/// The id of the extension that tells how loud a packet is (RFC 6464).
pub const AUDIO_LEVEL: u8 = 1;

/// Receiving sections of each kind in the first offer, as livekit-client has them.
const POOL: u32 = 3;

/// Most sections of an offer; a server that asks for more doesn't get them.
const SECTIONS_MAX: usize = 1000;

/// Addresses of the server that are tried; further ones are not.
pub const CANDIDATES_MAX: usize = 16;

/// What proves who offers.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// ICE user name fragment.
    pub ufrag: String,
    /// ICE password.
    pub password: String,
    /// Of the certificate, with the name of its hash.
    pub fingerprint: String,
}

/// The sections of one client's offers.
#[derive(Debug)]
pub struct Sections {
    credentials: Credentials,
    list: Vec<Section>,
    version: u32,
}

#[derive(Debug)]
struct Section {
    kind: Kind,
    /// The client's id of the track, if it sends one.
    cid: Option<String>,
}

impl Sections {
    /// What every client offers first: places for what others publish.
    pub fn new(credentials: Credentials) -> Self {
        let mut sections = Self {
            credentials,
            list: Vec::new(),
            version: 0,
        };
        sections.require(POOL, POOL);
        sections
    }

    /// Adds places.
    pub fn require(&mut self, audios: u32, videos: u32) {
        for (kind, count) in [(Kind::Audio, audios), (Kind::Video, videos)] {
            let room = SECTIONS_MAX.saturating_sub(self.list.len());
            let more = std::iter::repeat_with(|| Section { kind, cid: None });
            self.list.extend(more.take(room.min(count as usize)));
        }
    }

    /// Adds a section to send a track with; gives its mid.
    pub fn send(&mut self, kind: Kind, cid: &str) -> String {
        self.list.push(Section {
            kind,
            cid: Some(cid.to_owned()),
        });
        (self.list.len() - 1).to_string()
    }

    /// The next offer.
    pub fn offer(&mut self) -> String {
        self.version += 1;
        let Credentials {
            ufrag,
            password,
            fingerprint,
        } = &self.credentials;
        let transport = format!(
            "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n\
             a=ice-options:trickle\r\na=fingerprint:{fingerprint}\r\na=setup:actpass\r\n"
        );
        let mut text = format!(
            "v=0\r\no=- 4611731400430051336 {} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
             a=group:BUNDLE",
            self.version
        );
        for mid in 0..self.list.len() {
            let _ = write!(text, " {mid}");
        }
        text.push_str("\r\n");
        for (mid, section) in self.list.iter().enumerate() {
            section.write(mid, &transport, &mut text);
        }
        text
    }
}

impl Section {
    fn write(&self, mid: usize, transport: &str, out: &mut String) {
        let (media, extensions, codecs) = match self.kind {
            Kind::Audio => (AUDIO, AUDIO_EXTENSIONS, OPUS),
            Kind::Video => (VIDEO, VIDEO_EXTENSIONS, VP8),
        };
        let direction = match self.cid {
            Some(_) => "sendonly",
            None => "recvonly",
        };
        let _ = write!(
            out,
            "{media}\r\n{transport}a=mid:{mid}\r\n{EXTENSIONS}{extensions}a={direction}\r\n\
             a=rtcp-mux\r\na=rtcp-rsize\r\n{codecs}"
        );
        let Some(cid) = &self.cid else { return };
        let _ = write!(out, "a=msid:- {cid}\r\n");
        if self.kind == Kind::Video {
            let rids = LAYERS.map(|layer| layer.rid);
            for rid in rids {
                let _ = write!(out, "a=rid:{rid} send\r\n");
            }
            let _ = write!(out, "a=simulcast:send {}\r\n", rids.join(";"));
        }
    }
}

const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111";
const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97";

const AUDIO_EXTENSIONS: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n";

/// What a payload type offered here stands for; nothing for repetitions, which have one of their
/// own.
pub fn kind_of(payload_type: u8) -> Option<Kind> {
    match payload_type {
        ids::OPUS => Some(Kind::Audio),
        ids::VP8 => Some(Kind::Video),
        _ => None,
    }
}

/// What is read of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The server's user name fragment.
    pub ufrag: String,
    /// And its password.
    pub password: String,
    /// Of its certificate, with the name of the hash.
    pub fingerprint: String,
    /// The server waits for our handshake.
    pub passive: bool,
    /// Addresses it can be reached at by UDP.
    pub candidates: Vec<SocketAddr>,
    /// SSRCs of its streams, and of what repeats them (RFC 5576 section 4.2).
    pub repairs: Vec<(u32, u32)>,
}

impl Answer {
    /// Reads `text`; nothing if it can't be connected to.
    pub fn parse(text: &str) -> Option<Self> {
        let mut answer = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.strip_prefix("a=").and_then(|it| it.split_once(':'))
            else {
                continue;
            };
            match name {
                "ice-ufrag" => value.clone_into(&mut answer.ufrag),
                "ice-pwd" => value.clone_into(&mut answer.password),
                "fingerprint" => value.clone_into(&mut answer.fingerprint),
                "setup" => answer.passive = value == "passive",
                "ssrc-group" if answer.repairs.len() < SECTIONS_MAX => {
                    answer.repairs.extend(repair(value));
                }
                "candidate" => {
                    let address = candidate(value);
                    let new = address.filter(|it| !answer.candidates.contains(it));
                    answer.candidates.extend(new);
                }
                _ => {}
            }
        }
        answer.candidates.truncate(CANDIDATES_MAX);
        let parts = [&answer.ufrag, &answer.password, &answer.fingerprint];
        parts.iter().all(|part| !part.is_empty()).then_some(answer)
    }
}

/// The two in a group of media and repetitions.
fn repair(text: &str) -> Option<(u32, u32)> {
    let (media, repair) = text.strip_prefix("FID ")?.split_once(' ')?;
    Some((media.parse().ok()?, repair.trim_end().parse().ok()?))
}

/// The address in a candidate, if it is one for UDP.
pub fn candidate(text: &str) -> Option<SocketAddr> {
    let mut words = text.split(' ').skip(2);
    let udp = words.next()?.eq_ignore_ascii_case("udp");
    let mut words = words.skip(1);
    let ip: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    udp.then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Sections {
        Sections::new(Credentials {
            ufrag: "frag".to_owned(),
            password: "secret".to_owned(),
            fingerprint: "sha-256 AA:BB".to_owned(),
        })
    }

    #[test]
    fn an_offer_has_places_and_what_is_sent() {
        let mut sections = sections();
        let microphone = sections.send(Kind::Audio, "sound");
        let camera = sections.send(Kind::Video, "picture");
        assert_eq!((microphone.as_str(), camera.as_str()), ("6", "7"));
        sections.require(1, 0);
        let text = sections.offer();
        assert!(text.contains("a=group:BUNDLE 0 1 2 3 4 5 6 7 8\r\n"));
        let count = |what: &str| text.matches(what).count();
        assert_eq!((count("m=audio"), count("m=video")), (5, 4));
        assert_eq!((count("a=recvonly"), count("a=sendonly")), (7, 2));
        assert_eq!(count("a=simulcast:send q;h;f\r\n"), 1);
        assert_eq!(count("a=msid:- picture\r\n"), 1);
        assert_eq!(count("a=ice-ufrag:frag\r\n"), 9);
        for (id, what) in [(ids::TWCC, "transport-wide"), (ids::MID, "sdes:mid")] {
            let line = text.lines().find(|line| line.contains(what));
            assert!(line.is_some_and(|line| line.starts_with(&format!("a=extmap:{id} "))));
        }
        assert!(sections.offer().contains("o=- 4611731400430051336 2 "));
        sections.require(u32::MAX, 0);
        assert_eq!(sections.list.len(), SECTIONS_MAX);
    }

    #[test]
    fn an_answer_is_read() {
        let text = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
            a=fingerprint:sha-256 00:01\r\na=setup:passive\r\n\
            a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\n\
            a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\n\
            a=candidate:2 1 tcp 1 192.0.2.1 7881 typ host tcptype passive\r\n\
            a=candidate:3 1 udp 2130706431 2001:db8::5 7882 typ host\r\n\
            a=ssrc-group:FID 7 4294967295\r\na=ssrc-group:SIM 1 2 3\r\n\
            a=ssrc-group:FID 8\r\n";
        let answer = Answer::parse(text).expect("an answer");
        assert_eq!(answer.repairs, [(7, u32::MAX)]);
        assert_eq!(
            (answer.ufrag.as_str(), answer.password.as_str()),
            ("u", "p")
        );
        assert_eq!(answer.fingerprint, "sha-256 00:01");
        assert!(answer.passive);
        let addresses: Vec<_> = answer.candidates.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1:7882", "[2001:db8::5]:7882"]);
        assert_eq!(Answer::parse(&text.replace("ice-pwd", "other")), None);
        assert_eq!(candidate("1 1 udp 1 name.local 7881 typ host"), None);
        assert_eq!(candidate(""), None);
    }
}
