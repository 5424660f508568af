//! Key frames asked of a publisher: wishes of all subscribers merged, and throttled.
//!
//! A key frame costs the publisher several times a normal frame, so however many ask, the
//! publisher hears of it once per [`KeyFrameRequests::INTERVAL`]; and it hears of it again until
//! one came, because a PLI may get lost.

use std::time::{Duration, Instant};

/// The requests for one stream.
#[derive(Debug, Default)]
pub struct KeyFrameRequests {
    /// When the publisher was last asked.
    asked: Option<Instant>,
    /// Since when someone waits.
    wanted: Option<Instant>,
}

impl KeyFrameRequests {
    /// Shortest time between two requests for one stream. Less helps nobody: a browser needs
    /// about this long from request to picture on a usual path.
    pub const INTERVAL: Duration = Duration::from_millis(500);

    /// A want that isn't renewed is dropped after this: who had it may be gone.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Someone needs a key frame.
    pub fn want(&mut self, now: Instant) {
        self.wanted = Some(now);
    }

    /// A key frame came, or nobody waits any more.
    pub fn forget(&mut self) {
        self.wanted = None;
    }

    /// Whether to ask the publisher now; if so, counts as asked.
    pub fn take(&mut self, now: Instant) -> bool {
        let wanted = self
            .wanted
            .is_some_and(|at| now.saturating_duration_since(at) < Self::PATIENCE);
        let throttled = self
            .asked
            .is_some_and(|at| now.saturating_duration_since(at) < Self::INTERVAL);
        if !wanted || throttled {
            return false;
        }
        self.asked = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wishes_are_one_request_per_interval_until_a_key_frame_comes() {
        let start = Instant::now();
        let mut requests = KeyFrameRequests::default();
        assert!(!requests.take(start));
        let mut asked = 0;
        for millis in 0..2000 {
            requests.want(start + Duration::from_millis(millis));
            asked += u32::from(requests.take(start + Duration::from_millis(millis)));
        }
        assert_eq!(asked, 4);
        let later = start + Duration::from_secs(30);
        assert!(!requests.take(later), "nobody has asked for long");
        requests.want(later);
        requests.forget();
        assert!(!requests.take(start + Duration::from_secs(9)));
    }
}
