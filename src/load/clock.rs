//! One clock for all that is measured: senders stamp payloads with it, and the kernel stamps what
//! comes with the same, so a delay is the difference of two times of one host.

use std::time::{Duration, Instant, SystemTime};

/// The moment at which both clocks were read. Steps of the wall clock after it show as delays;
/// slewing doesn't, as both clocks slew.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    instant: Instant,
    unix: Duration,
}

impl Clock {
    /// Reads both clocks.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel stamps datagrams by the wall clock"
    )]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }

    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the load tester is at the edge: this is its clock"
    )]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The time since 1970 at `at`.
    pub fn unix(&self, at: Instant) -> Duration {
        self.unix + at.saturating_duration_since(self.instant)
    }

    /// The moment that was so long after 1970. Before the start it is the start.
    pub fn instant(&self, unix: Duration) -> Instant {
        self.instant + unix.saturating_sub(self.unix)
    }
}
