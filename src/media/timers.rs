//! When whom to wake: one deadline per participant and per room, earliest first.
//!
//! A deadline that moves later leaves its entry in the heap, where it fires for nothing once and
//! is then dropped; only a deadline that moves earlier adds an entry. So a packet that re-arms a
//! timer costs a comparison.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

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
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, TimerKey)>>,
}

/// One owner's current deadline, kept beside what it wakes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Armed(Option<Instant>);

impl Timers {
    /// Makes sure that `key` is woken at `deadline` or before.
    pub fn arm(&mut self, key: TimerKey, armed: &mut Armed, deadline: Instant) {
        if armed.0.is_none_or(|at| deadline < at) {
            armed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, key)));
        }
    }

    /// The earliest entry.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
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
    use std::time::Duration;

    use super::super::{PeerKey, RoomKey};
    use super::*;

    #[test]
    fn an_earlier_deadline_wins_and_the_stale_entry_is_ignored() {
        let start = Instant::now();
        let key = TimerKey::Participant(PeerKey {
            room: RoomKey(0),
            participant: 0,
        });
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        timers.arm(key, &mut armed, start + Duration::from_secs(2));
        timers.arm(key, &mut armed, start + Duration::from_secs(1));
        timers.arm(key, &mut armed, start + Duration::from_secs(3));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert!(timers.due(start).is_none());
        let later = start + Duration::from_secs(5);
        let (first, _) = timers.due(later).expect("due");
        assert!(armed.fire(first));
        let (second, _) = timers.due(later).expect("due");
        assert!(!armed.fire(second));
        assert!(timers.due(later).is_none());
    }
}
