//! Round-trip times.

use std::time::{Duration, Instant};

use super::window::{Least, Window};
use crate::media::ntp::Ntp;
use crate::media::rtcp::ReportBlock;

/// Round-trip times of a leg.
#[derive(Debug)]
pub struct Rtt {
    /// From receiver reports, smoothed.
    pub reported: Option<Duration>,
    /// From feedback: the least of the last seconds.
    pub transport: Option<Duration>,
    window: Window<Least, 5>,
}

/// Longer ones are a receiver's mistake or lie.
pub const RTT_MAX: Duration = Duration::from_secs(10);

impl Rtt {
    /// None is known.
    pub fn new(now: Instant) -> Self {
        Self {
            reported: None,
            transport: None,
            window: Window::new(Duration::from_secs(1), now),
        }
    }

    /// The best there is.
    pub fn best(&self) -> Option<Duration> {
        self.reported.or(self.transport)
    }

    /// A feedback told of a packet that was sent so long ago.
    pub fn transport(&mut self, now: Instant, rtt: Duration) {
        self.window
            .newest(now)
            .add(rtt.min(RTT_MAX).as_micros() as i64);
        let least = self.window.all(now).fold(Least::default(), Least::merge);
        self.transport = least
            .value()
            .map(|micros| Duration::from_micros(micros as u64));
    }

    /// RFC 3550 section 6.4.1: now minus the time of our report minus the time it lay there.
    pub fn report(&mut self, ntp: Ntp, block: &ReportBlock) {
        if block.last_report == 0 {
            return;
        }
        let units = ntp
            .middle_32()
            .wrapping_sub(block.last_report)
            .wrapping_sub(block.delay);
        // A delay longer than the truth wraps round to hours.
        let rtt = Duration::from_micros((u64::from(units) * 1_000_000) >> 16);
        if rtt <= RTT_MAX {
            self.reported = Some(self.reported.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
    }
}
