//! What a client without transport-wide feedback takes its downlink to carry, and says (REMB): as
//! libwebrtc does it at receivers, in small.
//!
//! For each stream a trend line goes through the delays of its frames, by their timestamps. When
//! one rises the rate is 85 % of what comes; else it grows by 8 % a second, to at most half more
//! than comes. It is said each second, and at once when it falls.
//!
//! Format: draft-alvestrand-rmcat-remb-03 section 2.2.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::uplink::Trend;
use crate::units::Bitrate;

/// What comes is measured over this.
const WINDOW: Duration = Duration::from_millis(500);

/// After a fall the next one waits for its effect.
const SETTLES: Duration = Duration::from_millis(200);

/// How often the rate is said.
const INTERVAL: Duration = Duration::from_secs(1);

/// The estimate of one receiver.
#[derive(Debug)]
pub struct Remb {
    start: Instant,
    streams: BTreeMap<u32, Frames>,
    came: VecDeque<(Instant, usize)>,
    rate: Bitrate,
    over: bool,
    updated: Instant,
    fell: Instant,
    said: Option<Instant>,
}

/// The frames of a stream.
#[derive(Debug, Default)]
struct Frames {
    /// Timestamp of the newest, and when its last packet came.
    newest: Option<(u32, Instant)>,
    before: Option<(u32, Instant)>,
    trend: Trend,
}

impl Remb {
    /// Nothing has come yet.
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            streams: BTreeMap::new(),
            came: VecDeque::new(),
            rate: Bitrate::kbps(300),
            over: false,
            updated: now,
            fell: now,
            said: None,
        }
    }

    /// A packet came.
    pub fn note(&mut self, now: Instant, ssrc: u32, timestamp: u32, bytes: usize) {
        self.came.push_back((now, bytes));
        let frames = self.streams.entry(ssrc).or_default();
        let Some((newest, last)) = &mut frames.newest else {
            frames.newest = Some((timestamp, now));
            return;
        };
        let ahead = timestamp.wrapping_sub(*newest) as i32;
        if ahead <= 0 {
            if ahead == 0 {
                *last = now;
            }
            return;
        }
        let ended = (*newest, *last);
        (*newest, *last) = (timestamp, now);
        if let Some((earlier, at)) = frames.before.replace(ended) {
            let millis = |span: Duration| span.as_secs_f64() * 1000.0;
            let sending = f64::from(ended.0.wrapping_sub(earlier)) / 90.0;
            let delay = millis(ended.1.saturating_duration_since(at)) - sending;
            let arrived = millis(ended.1.saturating_duration_since(self.start));
            self.over |= frames.trend.add(arrived, delay);
        }
    }

    /// The message that is due, if one is.
    pub fn say(&mut self, now: Instant, sender: u32) -> Option<[u8; 20]> {
        let since = |at| now.saturating_duration_since(at);
        while self.came.front().is_some_and(|(at, _)| since(*at) > WINDOW) {
            self.came.pop_front();
        }
        let bytes: usize = self.came.iter().map(|(_, bytes)| bytes).sum();
        let comes = Bitrate::of(bytes as u64, WINDOW);
        let settled = since(self.fell) >= SETTLES;
        let passed = since(self.updated);
        self.updated = now;
        let fell = std::mem::take(&mut self.over) && settled;
        if fell {
            self.rate = self.rate.min(comes.scale(0.85));
            self.fell = now;
        } else if settled {
            let grown = self.rate.scale(1.08f64.powf(passed.as_secs_f64()));
            let most = comes.scale(1.5) + Bitrate::kbps(10);
            self.rate = grown.min(most).max(self.rate);
        }
        if !fell && self.said.is_some_and(|at| since(at) < INTERVAL) {
            return None;
        }
        self.said = Some(now);
        Some(message(sender, self.rate))
    }
}

fn message(sender: u32, rate: Bitrate) -> [u8; 20] {
    // 18 bits of mantissa, 6 of exponent.
    let exponent = (u64::BITS - rate.as_bps().leading_zeros()).saturating_sub(18);
    let mantissa = (rate.as_bps() >> exponent) as u32;
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&[0x8f, 206, 0, 4]);
    bytes[4..8].copy_from_slice(&sender.to_be_bytes());
    bytes[12..16].copy_from_slice(b"REMB");
    bytes[16..].copy_from_slice(&(exponent << 18 | mantissa).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtcp::{self, Item};

    #[test]
    fn a_rate_is_said_as_it_is_read() {
        for kbps in [30, 262, 1700, 20_000] {
            let bytes = message(7, Bitrate::kbps(kbps));
            let item = rtcp::read(&bytes)
                .next()
                .expect("one")
                .expect("well formed");
            let Item::Remb(rate) = item else {
                panic!("{item:?}");
            };
            assert!(
                rate.as_bps().abs_diff(kbps * 1000) * 1000 < kbps * 1000,
                "{kbps}"
            );
        }
    }
}
