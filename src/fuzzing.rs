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
use crate::media::rtcp::{self, Item};

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
            Ok(Item::Twcc(twcc)) => estimator.feedback(now, &twcc),
            Ok(Item::Pli(_) | Item::Fir(_) | Item::Ignored) | Err(_) => {}
        }
    }
    estimator.tick(now);
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
