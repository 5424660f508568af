//! When whom to wake: one deadline per participant and per room, earliest first.
//!
//! A deadline that moves later leaves its entry in the heap, where it fires for nothing once and
//! is then dropped; only a deadline that moves earlier adds an entry. So a packet that re-arms a
//! timer costs a comparison.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What a timer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// A participant: its peer, its leg, its timeouts.
    Participant(super::PeerKey),
    /// A room that is empty and waits for its end, or that has news for everybody in it.
    Room(super::RoomKey),
}

/// The heap of deadlines. Bounded by the number of participants times the deadlines that moved
/// earlier within the longest deadline; each entry goes when its time comes.
#[derive(Debug)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, TimerKey)>>,
    start: Instant,
}

/// Timers wake together that are due within so long of each other. To wake an idle processor costs
/// 20 us and more, and a room of publishers has a thousand timers in a second.
const STEP: Duration = Duration::from_millis(5);

/// One owner's current deadline, kept beside what it wakes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Armed(Option<Instant>);

impl Timers {
    /// None yet.
    pub fn new(start: Instant) -> Self {
        Self {
            heap: BinaryHeap::new(),
            start,
        }
    }

    /// Makes sure that `key` is woken at `deadline` or before.
    pub fn arm(&mut self, key: TimerKey, armed: &mut Armed, deadline: Instant) {
        if armed.0.is_none_or(|at| deadline < at) {
            armed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, key)));
        }
    }

    /// When to wake for the earliest entry: together with those that are due up to [`STEP`] later.
    /// What is due already doesn't wait.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let Reverse((at, _)) = self.heap.peek()?;
        let since = at.saturating_duration_since(self.start).as_nanos();
        let over = (since % STEP.as_nanos()) as u64;
        Some(match over {
            over if over > 0 && *at > now => *at + STEP - Duration::from_nanos(over),
            _ => *at,
        })
    }

    /// Takes an entry that is due.
    pub fn due(&mut self, now: Instant) -> Option<(Instant, TimerKey)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Armed {
    /// Whether the entry that fired at `at` is the current one; disarms if so.
    pub fn fire(&mut self, at: Instant) -> bool {
        let current = self.0 == Some(at);
        if current {
            self.0 = None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PeerKey, RoomKey};
    use super::*;

    #[test]
    fn what_is_due_soon_wakes_together() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut timers = Timers::new(start);
        assert_eq!(timers.wake(start), None);
        for (number, millis) in [13, 11, 15, 16].into_iter().enumerate() {
            let key = TimerKey::Room(RoomKey(number as u32));
            timers.arm(key, &mut Armed::default(), at(millis));
        }
        assert_eq!(timers.wake(start), Some(at(15)));
        assert_eq!(timers.wake(at(12)), Some(at(11)), "it is due");
        while timers.due(at(15)).is_some() {}
        assert_eq!(timers.wake(at(15)), Some(at(20)));
    }

    #[test]
    fn an_earlier_deadline_wins_and_the_stale_entry_is_ignored() {
        let start = Instant::now();
        let key = TimerKey::Participant(PeerKey {
            room: RoomKey(0),
            participant: 0,
        });
        let (mut timers, mut armed) = (Timers::new(start), Armed::default());
        timers.arm(key, &mut armed, start + Duration::from_secs(2));
        timers.arm(key, &mut armed, start + Duration::from_secs(1));
        timers.arm(key, &mut armed, start + Duration::from_secs(3));
        assert_eq!(timers.wake(start), Some(start + Duration::from_secs(1)));
        assert!(timers.due(start).is_none());
        let later = start + Duration::from_secs(5);
        let (first, _) = timers.due(later).expect("due");
        assert!(armed.fire(first));
        let (second, _) = timers.due(later).expect("due");
        assert!(!armed.fire(second));
        assert!(timers.due(later).is_none());
    }
}
