//! What the fuzz targets run and `tests/corpus.rs` replays: bytes from the network go in, and
//! nothing may panic, hang, or leave its bounds.
#![expect(
    clippy::disallowed_methods,
    reason = "a run starts its virtual time somewhere"
)]

use std::time::{Duration, Instant};

use crate::media::codec::{Codec, Cut, Format, dependency, h264, red};
use crate::media::estimator::{Bounds, Estimator};
use crate::media::ntp::{Ntp, SenderClock, TimestampMap};
use crate::media::packet::Shown;
use crate::media::payload_type::Codecs;
use crate::media::rtcp::{self, Item};
use crate::media::sdp::Offer;
use crate::media::section::Sections;
use crate::media::srtp::{MasterKey, Opener, OwnSsrc, RtpOpener, Sealer, Stream, Suite};
use crate::media::uplink::Uplink;
use crate::media::uplink::header::Header;

/// Opened RTCP of a participant, with all that acts on it.
pub fn rtcp(data: &[u8]) {
    let start = Instant::now();
    let bounds = Bounds::default();
    let mut estimator = Estimator::new(bounds, start);
    // Some packets that a lucky guess can acknowledge, on both sides of the 16-bit rollover.
    for seq in 0xffc0..0x1_0040 {
        estimator.sent(seq, 1200, start);
    }
    let ntp = Ntp::from_unix(Duration::from_secs(1_800_000_000));
    let mut clock = SenderClock::default();
    let mut map = TimestampMap::new(90_000);
    let now = start + Duration::from_millis(700);
    for item in rtcp::read(data) {
        match item {
            Ok(Item::Sender(info)) => map.report(clock.observe(info.ntp, ntp), info.rtp_timestamp),
            Ok(Item::Report(block)) => estimator.report(ntp, &block),
            Ok(Item::Nack { lost, .. }) => assert!(lost.count() <= data.len() / 4 * 17),
            Ok(Item::Twcc(twcc)) => {
                estimator.feedback(now, &twcc);
            }
            Ok(Item::Remb(rate)) => estimator.receiver_says(now, rate),
            Ok(Item::Pli(_) | Item::Fir(_) | Item::Ignored) | Err(_) => {}
        }
    }
    estimator.tick(now, true);
    assert!((bounds.floor..=bounds.ceiling).contains(&estimator.estimate()));
    map.rtp_at(ntp);
}

/// A payload, read as each codec in turn; what is written anew keeps the frame's own bytes.
pub fn payload(data: &[u8]) {
    let mut state = dependency::State::default();
    for codec in Codec::ALL {
        let format = match codec {
            Codec::H264 => Format::H264(h264::Format::ALL[0]),
            other => Format::Plain(other),
        };
        let shown = Shown::by(format, data, None, &mut state);
        assert!(!shown.frame.key || shown.frame.start);
        if let Some(vp8) = shown.vp8 {
            let mut out = Vec::new();
            vp8.write(Default::default(), &mut out);
            assert!(usize::from(vp8.length) < data.len() && out.len() <= data.len());
        }
    }
    if let Some(newest) = red::newest(data) {
        assert!(newest.end == data.len() && newest.start > 0);
    }
}

/// Dependency descriptors of one stream, each after its length; each is written anew and read by
/// a receiver, who must see the same frame.
pub fn dependency(data: &[u8]) {
    let (mut source, mut receiver) = (dependency::State::default(), dependency::State::default());
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let (descriptor, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        if descriptor.len() + dependency::BYTES_ADDED > dependency::BYTES_MAX {
            continue;
        }
        let Some(description) = source.read(descriptor) else {
            continue;
        };
        let mut out = Vec::new();
        let cut = Cut {
            spatial: length & 3,
            temporal: length >> 2 & 3,
        };
        description.write(description.number(), cut, &mut out);
        assert!(out.len() <= descriptor.len() + dependency::BYTES_ADDED);
        let seen = receiver.read(&out).expect("what we write can be read");
        assert_eq!(seen.frame(), description.frame());
        assert!(seen.references().eq(description.references()));
    }
}

const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=sendonly\r\n\
    a=ssrc:77 cname:x\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\n\
    a=rid:q send\r\na=rid:f send\r\n";

const ANSWER: &str = "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    a=rtpmap:111 opus/48000/2\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
    a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n";

/// RTP packets of a participant, each after its length, 20 ms apart: what it is told of them is
/// RTCP that it can read, whatever it sent. A packet without a header comes unsealed.
pub fn uplink(data: &[u8]) {
    let key = |byte| {
        let key = MasterKey::new(Suite::AeadAes128Gcm, &[byte; 16], &[byte; 12]);
        key.expect("lengths of the suite")
    };
    let (ours, theirs) = (1, 2);
    let mut now = Instant::now();
    let control = Sealer::new(key(ours)).register(OwnSsrc::claim(1));
    let rtp = RtpOpener::new(&key(theirs));
    let mut uplink = Uplink::new(rtp, control.expect("the first"), now);
    let (mut client, mut said) = (Sealer::new(key(theirs)), Opener::new(key(ours)));
    let mut streams: Vec<Stream> = Vec::new();
    let (mut codecs, mut sections) = (Codecs::default(), Sections::default());
    codecs.read(ANSWER);
    sections.offered(&Offer::parse(OFFER, 10_000, 10).expect("an offer"));
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let (packet, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let mut packet = packet.to_vec();
        if let Some(header) = Header::parse(&packet.clone(), &codecs.extensions) {
            if !streams.iter().any(|it| it.ssrc().get() == header.ssrc) {
                streams.extend(client.register(OwnSsrc::claim(header.ssrc)));
            }
            let stream = streams.iter_mut().find(|it| it.ssrc().get() == header.ssrc);
            let sealed =
                stream.map(|it| it.seal_rtp(&mut packet, 0, header.len, header.seq.into()));
            if sealed.is_none_or(|it| it.is_err()) {
                continue;
            }
        }
        let length = packet.len();
        if let Ok(Some(received)) = uplink.receive(now, &packet, &codecs, &sections) {
            assert!(received.payload.len() < length);
            assert!(uplink.request_key_frame(received.ssrc));
        }
        now += Duration::from_millis(20);
        if let Some(told) = uplink.say(now) {
            let mut opened = Vec::new();
            let open = said.open_rtcp(&told.datagram, &mut opened);
            open.expect("it is sealed with our key");
            assert!(rtcp::read(&opened).all(|item| item.is_ok()));
        }
    }
}
