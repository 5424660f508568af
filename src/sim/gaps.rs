//! What is missing of a stream that is received, and when to ask for it: at once, then again and
//! again, until it comes or is given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A missing packet is asked for again after this; above a usual round trip.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// And given up after this, as in browsers.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Missing packets that are asked for, as in libwebrtc. With more nothing is asked for but a key
/// frame.
const MISSING_MAX: usize = 1000;

/// The gaps of one stream.
#[derive(Debug, Default)]
pub struct Gaps {
    missing: BTreeMap<u64, Missing>,
    given_up: u64,
    /// There were too many.
    overrun: bool,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: Option<Instant>,
}

impl Gaps {
    /// A packet with this extended number came when `newest` was the highest.
    pub fn note(&mut self, now: Instant, newest: u64, seq: u64) {
        self.missing.remove(&seq);
        if seq <= newest + 1 {
            return;
        }
        let lost = seq - newest - 1;
        let room = MISSING_MAX - self.missing.len();
        if lost > room as u64 {
            self.given_up += lost + self.missing.len() as u64;
            self.missing.clear();
            self.overrun = true;
            return;
        }
        let missing = Missing {
            since: now,
            asked: None,
        };
        self.missing
            .extend((newest + 1..seq).map(|seq| (seq, missing)));
    }

    /// A missing packet came after all. Whether it was waited for.
    pub fn fill(&mut self, seq: u64) -> bool {
        self.missing.remove(&seq).is_some()
    }

    /// The numbers to ask for now.
    pub fn due(&mut self, now: Instant) -> Vec<u16> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let before = self.missing.len();
        self.missing
            .retain(|_, missing| age(missing.since) < GIVE_UP);
        self.given_up += (before - self.missing.len()) as u64;
        let mut due = Vec::new();
        for (seq, missing) in &mut self.missing {
            if missing.asked.is_none_or(|at| age(at) >= ASK_AGAIN) {
                missing.asked = Some(now);
                due.push(*seq as u16);
            }
        }
        due
    }

    /// Whether a key frame has to be asked for, as too many were missing; says so once.
    pub fn overrun(&mut self) -> bool {
        std::mem::take(&mut self.overrun)
    }

    /// Packets that nobody waits for any more.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes_or_is_given_up() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gaps = Gaps::default();
        gaps.note(at(0), 65_534, 65_538);
        assert_eq!(gaps.due(at(1)), [65_535, 0, 1]);
        assert!(gaps.due(at(50)).is_empty(), "it may be on its way");
        assert!(gaps.fill(65_536));
        assert!(!gaps.fill(65_536), "once");
        assert_eq!(gaps.due(at(101)), [65_535, 1]);
        // Late, but here by itself.
        gaps.note(at(102), 65_538, 65_537);
        assert_eq!(gaps.due(at(999)), [65_535]);
        assert!(gaps.due(at(1000)).is_empty());
        assert_eq!(gaps.given_up(), 1);
    }

    #[test]
    fn memory_has_a_bound() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        let most = MISSING_MAX as u64;
        gaps.note(start, 0, most + 1);
        assert_eq!((gaps.missing.len(), gaps.given_up()), (MISSING_MAX, 0));
        assert!(!gaps.overrun());
        // One more is too many, and all are given up for a key frame.
        gaps.note(start, most + 1, most + 3);
        assert_eq!((gaps.missing.len(), gaps.given_up()), (0, most + 1));
        assert!(gaps.overrun() && !gaps.overrun());
    }
}
