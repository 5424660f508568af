//! How much later packets of a stream come than they might: what stands in queues on their way.

use std::time::{Duration, Instant};

/// The least is taken of the last ten to twenty seconds: clocks drift by no more than a
/// millisecond or two in that.
const WINDOW: Duration = Duration::from_secs(10);

/// The transit times of one stream, in ticks of its clock from an unknown origin.
#[derive(Debug, Default)]
pub struct Lateness {
    newest: u32,
    /// The least of this window, and of the one before.
    least: Option<[u32; 2]>,
    since: Option<Instant>,
    heard: Option<Instant>,
}

impl Lateness {
    /// A packet came with this transit time.
    pub fn note(&mut self, transit: u32, now: Instant) {
        self.newest = transit;
        let rested = self.heard.replace(now);
        if rested.is_some_and(|at| now.saturating_duration_since(at) >= WINDOW) {
            (self.least, self.since) = (None, None);
        }
        let since = *self.since.get_or_insert(now);
        let [least, before] = self.least.get_or_insert([transit; 2]);
        if now.saturating_duration_since(since) >= WINDOW {
            (*least, *before) = (transit, *least);
            self.since = Some(now);
        } else if is_less(transit, *least) {
            *least = transit;
        }
    }

    /// The sender's clock has jumped.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How late the newest packet came, in ticks.
    pub fn ticks(&self) -> u32 {
        let Some([a, b]) = self.least else { return 0 };
        let least = if is_less(a, b) { a } else { b };
        self.newest.wrapping_sub(least)
    }
}

fn is_less(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_counted_from_the_least_of_late() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut lateness = Lateness::default();
        assert_eq!(lateness.ticks(), 0);
        lateness.note(u32::MAX - 9, at(0));
        lateness.note(90, at(1));
        assert_eq!(lateness.ticks(), 100);
        lateness.note(u32::MAX - 19, at(2));
        assert_eq!(lateness.ticks(), 0);
        lateness.note(90, at(9));
        assert_eq!(lateness.ticks(), 110);
        // A longer way that stays is taken for given after a while.
        lateness.note(90, at(12));
        assert_eq!(lateness.ticks(), 110);
        lateness.note(90, at(18));
        lateness.note(90, at(23));
        assert_eq!(lateness.ticks(), 0);
        // Of before a long pause nothing is known.
        lateness.note(500, at(33));
        assert_eq!(lateness.ticks(), 0);
        lateness.forget();
        assert_eq!(lateness.ticks(), 0);
    }
}
