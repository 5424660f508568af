//! Key frames asked of a publisher: wishes of all subscribers merged, and throttled.
//!
//! A key frame costs the publisher several times a normal frame, so however many ask, the
//! publisher hears of it once per [`KeyFrameRequests::INTERVAL`]; and it hears of it again until
//! one came, because a PLI may get lost.
//!
//! Every subscriber pays for it too. Where there are several, those who lose their picture again
//! and again get one on their account six times, then once in ten seconds; each of them alone
//! twice, then once in twenty. Who has just come, or changes to another layer, doesn't wait.

use std::time::{Duration, Instant};

/// The requests for one stream.
#[derive(Debug, Default)]
pub struct KeyFrameRequests {
    /// When the publisher was last asked.
    asked: Option<Instant>,
    /// When someone last waited for a picture of another size, or the first.
    wanted: Option<Instant>,
    /// When someone last said to have lost the picture.
    lost: Option<Instant>,
    /// What is asked for on account of those, and whether this loss has its share already: a
    /// request that is repeated costs nothing more.
    ration: Ration<6, 10>,
    paid: bool,
}

/// How often something may be asked for: so many times at once, then once in so many seconds.
#[derive(Debug)]
pub struct Ration<const MOST: u8, const SECONDS: u64> {
    left: u8,
    since: Option<Instant>,
}

impl<const MOST: u8, const SECONDS: u64> Default for Ration<MOST, SECONDS> {
    fn default() -> Self {
        Self {
            left: MOST,
            since: None,
        }
    }
}

impl<const MOST: u8, const SECONDS: u64> Ration<MOST, SECONDS> {
    /// Whether it may be asked for now; if so, counts as asked.
    pub fn spend(&mut self, now: Instant) -> bool {
        let since = self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(*since).as_secs() / SECONDS;
        *since += Duration::from_secs(earned * SECONDS);
        let left = (u64::from(self.left) + earned).min(MOST.into()) as u8;
        self.left = left.saturating_sub(1);
        left > 0
    }
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

    /// Someone has lost the picture.
    pub fn lose(&mut self, now: Instant) {
        self.lost = Some(now);
    }

    /// Whether somebody waits.
    pub fn is_awaited(&self) -> bool {
        self.wanted.or(self.lost).is_some()
    }

    /// Whether someone waits who has lost the picture.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// A key frame came, or nobody waits any more.
    pub fn forget(&mut self) {
        (self.wanted, self.lost, self.paid) = (None, None, false);
    }

    /// Whether to ask the publisher now; if so, counts as asked. The stream is `shared` if it goes
    /// to several.
    pub fn take(&mut self, now: Instant, shared: bool) -> bool {
        let within = |at: Option<Instant>, span| {
            at.is_some_and(|at| now.saturating_duration_since(at) < span)
        };
        if within(self.asked, Self::INTERVAL) {
            return false;
        }
        let lost = within(self.lost, Self::PATIENCE);
        let paid = |requests: &mut Self| requests.paid || requests.ration.spend(now);
        let due = within(self.wanted, Self::PATIENCE) || lost && (!shared || paid(self));
        if due {
            self.asked = Some(now);
            self.paid |= lost;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_wishes_are_one_request_per_interval_until_a_key_frame_comes() {
        let start = Instant::now();
        let mut requests = KeyFrameRequests::default();
        assert!(!requests.take(start, true));
        let mut asked = 0;
        for millis in 0..2000 {
            requests.want(start + Duration::from_millis(millis));
            asked += u32::from(requests.take(start + Duration::from_millis(millis), true));
        }
        assert_eq!(asked, 4);
        let later = start + Duration::from_secs(30);
        assert!(!requests.take(later, true), "nobody has asked for long");
        requests.want(later);
        requests.forget();
        assert!(!requests.take(start + Duration::from_secs(39), true));
    }

    #[test]
    fn who_loses_the_picture_all_the_time_costs_others_six_key_frames_a_minute() {
        let asked = |shared: bool| {
            let start = Instant::now();
            let mut requests = KeyFrameRequests::default();
            let mut asked = Vec::new();
            for tenth in 0..3000u64 {
                let now = start + Duration::from_millis(tenth * 100);
                requests.lose(now);
                if requests.take(now, shared) {
                    asked.push(tenth / 10);
                    requests.forget();
                }
            }
            asked
        };
        let shared = asked(true);
        assert_eq!(
            shared.iter().filter(|at| **at >= 60).count(),
            24,
            "{shared:?}"
        );
        assert!(shared.len() <= 36, "{shared:?}");
        assert_eq!(asked(false).len(), 600, "nobody else pays for it");
    }

    #[test]
    fn who_comes_does_not_wait_for_those_who_lose() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut requests = KeyFrameRequests::default();
        for second in 0..15 {
            requests.lose(at(second));
            if requests.take(at(second), true) {
                requests.forget();
            }
        }
        requests.lose(at(16));
        assert!(!requests.take(at(16), true));
        requests.want(at(17));
        assert!(requests.take(at(17), true));
    }
}
