//! What the fuzz targets run and `tests/corpus.rs` replays: bytes from the network go in, and
//! nothing may panic, hang, or leave its bounds.
#![expect(
    clippy::disallowed_methods,
    reason = "a run starts its virtual time somewhere"
)]

use std::time::{Duration, Instant};

use crate::media::estimator::{Bounds, Estimator};
use crate::media::ntp::{Ntp, SenderClock, TimestampMap};
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
