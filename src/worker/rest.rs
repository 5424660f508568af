//! When a worker lets datagrams gather before it looks again.
//!
//! To wait in the kernel for every single datagram costs more than the datagram: two switches of
//! context, what the runtime keeps books on, and caches that others have filled meanwhile. So where
//! many senders' come in quick succession the worker sleeps a little and takes what has gathered in
//! one go. Where they come one by one, or few at a time as a single sender's frames, it is woken by
//! each at once: a sleep has its price too.

use std::time::{Duration, Instant};

/// From the start of one turn to that of the next, when datagrams gather: what it adds to their
/// delay at most. The kernel's timer adds some 0.05 ms.
pub(super) const REST: Duration = Duration::from_micros(200);

/// A sleep that is shorter than this isn't worth its two system calls.
const REST_MIN: Duration = Duration::from_micros(50);

/// Turns in quick succession before the first rest: more than a sender's frame makes.
const STREAK: u32 = 4;

/// Datagrams that one rest has to bring for another.
const WORTH: u64 = 2;

/// How datagrams came of late.
pub(super) struct Rest {
    /// Start of the last turn that took in any.
    last: Instant,
    /// Turns in a row with datagrams, each soon after the one before.
    streak: u32,
    rested: bool,
}

impl Rest {
    /// None came.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            streak: 0,
            rested: false,
        }
    }

    /// How long to sleep before the next look, after a turn from `start` to `end` that took in so
    /// many datagrams.
    pub(super) fn after(
        &mut self,
        start: Instant,
        end: Instant,
        datagrams: u64,
    ) -> Option<Duration> {
        if datagrams == 0 {
            return None;
        }
        let since_last = start.saturating_duration_since(self.last);
        self.last = start;
        let goes_on = match self.rested {
            true => datagrams >= WORTH,
            false => since_last < REST,
        };
        self.streak = if goes_on { self.streak + 1 } else { 0 };
        let left = REST.saturating_sub(end.saturating_duration_since(start));
        self.rested = self.streak >= STREAK && left >= REST_MIN;
        self.rested.then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Duration = Duration::from_micros(20);

    /// What follows turns that begin so many microseconds after the first and take in so many.
    fn rests(turns: &[(u64, u64)]) -> Vec<bool> {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        let after = |(at, datagrams): &(u64, u64)| {
            let at = start + Duration::from_secs(1) + Duration::from_micros(*at);
            let pause = rest.after(at, at + WORK, *datagrams);
            assert!(pause.is_none_or(|it| it == REST - WORK));
            pause.is_some()
        };
        turns.iter().map(after).collect()
    }

    #[test]
    fn what_comes_one_by_one_is_never_waited_for() {
        let turns: Vec<_> = (0..10).map(|turn| (turn * 201, 5)).collect();
        assert_eq!(rests(&turns), [false; 10]);
    }

    #[test]
    fn a_single_frame_is_not_waited_for_and_many_are() {
        let frame = [(0, 1), (50, 1), (100, 1), (150, 1), (5000, 1)];
        assert_eq!(rests(&frame), [false; 5]);
        // The fifth in a row is; a rest that brings little is the last.
        let many = [
            (0, 1),
            (50, 1),
            (100, 2),
            (150, 1),
            (190, 1),
            (440, 3),
            (690, 1),
            (740, 1),
        ];
        let rested = [false, false, false, false, true, true, false, false];
        assert_eq!(rests(&many), rested);
    }

    #[test]
    fn a_turn_for_something_else_changes_nothing() {
        let turns = [(0, 1), (50, 1), (100, 1), (120, 0), (150, 1), (200, 1)];
        assert_eq!(rests(&turns), [false, false, false, false, false, true]);
    }

    #[test]
    fn who_has_no_time_does_not_sleep() {
        let start = Instant::now();
        let mut rest = Rest::new(start);
        let pauses = (1..20).filter_map(|turn| {
            let at = start + REST * turn;
            rest.after(at, at + REST - REST_MIN / 2, 100)
        });
        assert_eq!(pauses.count(), 0);
    }
}
