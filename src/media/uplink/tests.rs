use super::*;
use crate::media::dtls::Keying;
use crate::media::fixed_keys::{self, MATERIAL};
use crate::media::rtcp::{self, Item};
use crate::media::sdp::Offer;
use crate::media::srtp::{Opener, OwnSsrc, Sealer};

const ANSWER: &str = "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    a=rtpmap:111 opus/48000/2\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n";

const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\n\
    a=ssrc:77 cname:x\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\n\
    a=rid:q send\r\na=rid:f send\r\n";

/// A client and what it publishes to.
struct Pair {
    now: Instant,
    client: Sealer,
    streams: Vec<srtp::Stream>,
    opener: Opener,
    uplink: Uplink,
    codecs: Codecs,
    sections: Sections,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let material = [7; MATERIAL];
        let Keying { local, remote, .. } = fixed_keys::client_keys(&material);
        let ours = fixed_keys::client_keys(&material);
        let control = Sealer::new(ours.remote).register(OwnSsrc::claim(1));
        let control = control.expect("a new SSRC");
        let mut codecs = Codecs::default();
        codecs.read(ANSWER);
        let mut sections = Sections::default();
        sections.offered(&Offer::parse(OFFER, 10_000, 10).expect("an offer"));
        Self {
            now,
            uplink: Uplink::new(RtpOpener::new(&local), control, now),
            client: Sealer::new(local),
            streams: Vec::new(),
            opener: Opener::new(remote),
            codecs,
            sections,
        }
    }

    /// A sealed packet with these extensions of the one-byte form.
    fn seal(
        &mut self,
        (ssrc, index): (u32, u64),
        pt: u8,
        extensions: &[u8],
        body: &[u8],
    ) -> Vec<u8> {
        let mut packet = vec![0x90, pt];
        packet.extend((index as u16).to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        let words = extensions.len().div_ceil(4);
        packet.extend([0xbe, 0xde, 0, words as u8]);
        packet.extend_from_slice(extensions);
        packet.resize(16 + 4 * words, 0);
        let header = packet.len();
        packet.extend_from_slice(body);
        if !self.streams.iter().any(|it| it.ssrc().get() == ssrc) {
            let stream = self.client.register(OwnSsrc::claim(ssrc));
            self.streams.push(stream.expect("a new SSRC"));
        }
        let stream = self.streams.iter_mut().find(|it| it.ssrc().get() == ssrc);
        let sealed = stream.map(|it| it.seal_rtp(&mut packet, 0, header, index));
        sealed.expect("a stream").expect("a new number");
        packet
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<Option<Received>, Dropped> {
        self.uplink
            .receive(self.now, datagram, &self.codecs, &self.sections)
    }

    /// What is said, opened.
    fn said(&mut self) -> Vec<u8> {
        let mut opened = Vec::new();
        if let Some(said) = self.uplink.say(self.now) {
            let result = self.opener.open_rtcp(&said.datagram, &mut opened);
            result.expect("it is authentic");
        }
        opened
    }
}

/// Extensions: section 1, and a layer.
const F: &[u8] = &[0x40, b'1', 0xa0, b'f'];
const REPAIRS_F: &[u8] = &[0x40, b'1', 0xb0, b'f'];

#[test]
fn a_stream_is_known_by_what_its_first_packet_says_or_the_offer() {
    let mut pair = Pair::new();
    let video = pair.seal((5, 10), 96, F, b"picture");
    let received = pair.receive(&video).expect("it opens").expect("media");
    assert_eq!((received.ssrc, received.seq), (5, 10));
    assert_eq!(&*received.payload, b"picture");
    let (mid, rid) = pair.uplink.stream(5).expect("it is known");
    assert_eq!((&*mid, rid.as_deref()), ("1", Some("f")));
    // The next says nothing of it.
    let next = pair.seal((5, 11), 96, &[], b"more");
    assert!(pair.receive(&next).is_ok_and(|it| it.is_some()));
    let voice = pair.seal((77, 1), 111, &[], b"voice");
    assert!(pair.receive(&voice).is_ok_and(|it| it.is_some()));
    assert_eq!(
        pair.uplink.stream(77).map(|(mid, _)| mid.to_string()),
        Some("0".to_owned())
    );
    let stranger = pair.seal((78, 1), 111, &[], b"voice");
    assert_eq!(pair.receive(&stranger).err(), Some(Dropped::TrackUnknown));
    assert_eq!(pair.uplink.stream(78), None);
}

#[test]
fn what_is_not_authentic_or_came_before_changes_nothing() {
    let mut pair = Pair::new();
    let video = pair.seal((5, 10), 96, F, b"picture");
    for at in 0..video.len() {
        let mut forged = video.clone();
        forged[at] ^= 1;
        assert!(pair.receive(&forged).is_err(), "{at}");
        assert!(pair.receive(&video[..at]).is_err(), "{at}");
    }
    assert_eq!(pair.uplink.stream(5), None);
    assert!(pair.receive(&video).is_ok());
    assert_eq!(pair.receive(&video).err(), Some(Dropped::RtpInvalid));
}

#[test]
fn a_gap_is_asked_for_and_a_repetition_fills_it() {
    let mut pair = Pair::new();
    for index in [10, 12] {
        let video = pair.seal((5, index), 96, F, b"picture");
        pair.receive(&video).expect("it opens");
    }
    let said = pair.said();
    let asked = rtcp::read(&said).any(|item| match item {
        Ok(Item::Nack { media, lost }) => *media == 5 && lost.eq([11]),
        _ => false,
    });
    assert!(asked);
    let repeat = pair.seal((6, 900), 97, REPAIRS_F, b"\x00\x0bpicture");
    let received = pair.receive(&repeat).expect("it opens").expect("media");
    assert_eq!(
        (received.ssrc, received.seq, received.payload_type),
        (5, 11, 96)
    );
    assert_eq!(&*received.payload, b"picture");
    // Once more, late itself, and padding on the stream of repetitions.
    let late = pair.seal((5, 11), 96, F, b"picture");
    assert_eq!(pair.receive(&late).err(), Some(Dropped::RtpInvalid));
    for (index, body) in [(901, &b"\x00\x0bpicture"[..]), (902, b""), (903, b"\x00")] {
        let again = pair.seal((6, index), 97, &[], body);
        assert!(pair.receive(&again).is_ok_and(|it| it.is_none()));
    }
    pair.now += Duration::from_millis(200);
    assert!(!rtcp::read(&pair.said()).any(|item| matches!(item, Ok(Item::Nack { .. }))));
}

#[test]
fn the_client_is_told_what_arrived_how_it_fares_and_what_is_needed() {
    let mut pair = Pair::new();
    let numbered = |number: u8| [0x31, 0, number, 0x40, b'1', 0xa0, b'f'];
    for number in [1, 2, 4] {
        let index = u64::from(number);
        let video = pair.seal((5, index), 96, &numbered(number), b"picture");
        pair.receive(&video).expect("it opens");
    }
    pair.now += Duration::from_secs(1);
    assert!(pair.uplink.request_key_frame(5) && !pair.uplink.request_key_frame(6));
    let said = pair.said();
    let (mut report, mut arrived, mut key_frames) = (None, Vec::new(), 0);
    for item in rtcp::read(&said) {
        match item.expect("well formed") {
            Item::Report(block) => report = Some(block),
            Item::Twcc(twcc) => arrived.extend(twcc.packets().map(|(seq, at)| (seq, at.is_some()))),
            Item::Pli(ssrc) => key_frames += u32::from(*ssrc == 5),
            _ => {}
        }
    }
    let report = report.expect("a report");
    assert_eq!((*report.ssrc, report.seq_max, report.lost), (5, 4, 1));
    assert_eq!(arrived, [(1, true), (2, true), (3, false), (4, true)]);
    assert_eq!(key_frames, 1);
    // Nothing new, nothing to say.
    pair.now += Duration::from_millis(60);
    let again = pair.said();
    assert!(!rtcp::read(&again).any(|item| matches!(item, Ok(Item::Twcc(_) | Item::Pli(_)))));
}

#[test]
fn what_is_missing_is_looked_for_after_a_moment_only() {
    let mut pair = Pair::new();
    let asked = |pair: &mut Pair, index| {
        let video = pair.seal((5, index), 96, F, b"picture");
        pair.receive(&video).expect("it opens");
        let said = pair.said();
        let nacks = rtcp::read(&said).filter_map(|item| match item {
            Ok(Item::Nack { lost, .. }) => Some(lost.collect::<Vec<_>>()),
            _ => None,
        });
        nacks.flatten().collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut pair, 10), [0; 0]);
    assert_eq!(asked(&mut pair, 12), [11]);
    assert_eq!(asked(&mut pair, 14), [0; 0]);
    pair.now += ASK_INTERVAL;
    assert_eq!(asked(&mut pair, 15), [13]);
}
