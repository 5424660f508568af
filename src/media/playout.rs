//! How long a client's pictures wait before they are shown, where packets are lost on their way.
//!
//! A repair takes a round trip and more. Browsers learn from what they send themselves how long
//! that is; one that only watches doesn't, shows pictures 15 to 35 ms after they came, and lets
//! each repair come too late: with a tenth of all packets lost Chromium 148 stood for 6 to 9 % of
//! the time, and for 1 % where it waited. So it is told, by the header extension for that
//! (<https://webrtc.googlesource.com/src/+/main/docs/native-code/rtp-hdrext/playout-delay>).

use std::time::{Duration, Instant};

/// The extension.
pub const URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

/// Loss from which on pictures wait, 0 to 1: with less, few are late.
const LOSSY: f64 = 0.02;

/// What a repair takes beside two round trips: until it is missed, and in queues.
const REPAIR: Duration = Duration::from_millis(80);

/// Bounds of the wait. Longer is felt by those who speak with each other.
const LEAST: Duration = Duration::from_millis(100);
/// See [`LEAST`].
const MOST: Duration = Duration::from_millis(400);

/// Changes of less aren't worth a change.
const STEP: u16 = 3;

/// It ends after so long without loss, and the end is said for so long.
const CALM: Duration = Duration::from_secs(30);
/// See [`CALM`].
const ENDING: Duration = Duration::from_secs(5);

/// What may be waited at most, as written: as long as browsers do anyway.
const UPPER: u16 = 1000;

/// The unit of what is written.
const UNIT_MILLIS: u128 = 10;

/// The wait of one client.
#[derive(Debug, Default)]
pub struct Playout {
    /// What is said now, in units.
    least: Option<u16>,
    /// When packets were last lost.
    lossy: Option<Instant>,
}

impl Playout {
    /// This part of what is sent gets lost on a path of this round trip.
    pub fn follow(&mut self, now: Instant, loss: f64, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip.filter(|_| loss >= LOSSY) {
            self.lossy = Some(now);
            let wait = (round_trip * 2 + REPAIR).clamp(LEAST, MOST);
            let wait = (wait.as_millis() / UNIT_MILLIS) as u16;
            if self.least.is_none_or(|least| wait >= least + STEP) {
                self.least = Some(wait);
            }
        }
        let calm = self.lossy.map(|at| now.saturating_duration_since(at));
        match calm {
            Some(calm) if calm >= CALM + ENDING => *self = Self::default(),
            Some(calm) if calm >= CALM => self.least = Some(0),
            _ => {}
        }
    }

    /// What is to be written into packets, if anything: the least and the most, 12 bits each.
    pub fn extension(&self) -> Option<[u8; 3]> {
        let least = self.least?;
        let [_, a, b, c] = (u32::from(least) << 12 | u32::from(UPPER)).to_be_bytes();
        Some([a, b, c])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_wait_for_two_round_trips_while_packets_are_lost() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let rtt = |millis| Some(Duration::from_millis(millis));
        let mut playout = Playout::default();
        let mut follow = |secs, loss, rtt| {
            playout.follow(at(secs), loss, rtt);
            let bytes = playout.extension();
            bytes.map(|[a, b, c]| {
                let both = u32::from_be_bytes([0, a, b, c]);
                assert_eq!(both & 0xfff, u32::from(UPPER));
                both >> 12
            })
        };
        assert_eq!(follow(0, 0.01, rtt(40)), None, "too little to wait for");
        assert_eq!(follow(1, 0.1, None), None, "for how long isn't known");
        assert_eq!(follow(2, 0.1, rtt(40)), Some(16));
        assert_eq!(follow(3, 0.1, rtt(50)), Some(16), "not worth a change");
        assert_eq!(follow(4, 0.1, rtt(20)), Some(16), "nor is less");
        assert_eq!(follow(5, 0.1, rtt(100)), Some(28));
        assert_eq!(follow(6, 0.1, rtt(1000)), Some(40));
        assert_eq!(follow(35, 0.0, rtt(40)), Some(40));
        assert_eq!(follow(36, 0.0, rtt(40)), Some(0));
        assert_eq!(follow(41, 0.0, rtt(40)), None);
    }
}
