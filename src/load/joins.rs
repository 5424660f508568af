//! How far everybody has come, and how long that took.

use std::collections::BTreeMap;
use std::time::Instant;

use super::histogram::Histogram;
use super::participant::Step;
use super::plan::Part;

/// Different reasons that are kept; participants that fail for others are only counted.
const REASONS_MAX: usize = 8;

/// All joins.
#[derive(Debug, Default)]
pub struct Joins {
    /// Who is in each place.
    each: Vec<Join>,
    /// All that were ever requested.
    requests: usize,
    /// How many have not come as far as they can.
    open: usize,
    /// From the request to connected media.
    pub connected: Histogram,
    /// From the request to the first packet.
    pub heard: Histogram,
    /// From the request to the first picture that could be shown.
    pub shown: Histogram,
    /// Who failed, at the beginning or later.
    pub failures: usize,
    /// Why, and how many.
    pub reasons: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Join {
    part: Part,
    requested: Instant,
    open: bool,
    failed: bool,
}

impl Joins {
    /// Somebody begins to join, in a place of its own or in that of somebody who has left. Places
    /// are taken in the order of their numbers.
    pub fn request(&mut self, part: Part, now: Instant) {
        let join = Join {
            part,
            requested: now,
            open: true,
            failed: false,
        };
        match self.each.get_mut(part.number) {
            Some(place) => {
                self.open -= usize::from(place.open);
                *place = join;
            }
            None => self.each.push(join),
        }
        self.requests += 1;
        self.open += 1;
    }

    /// How many have been requested.
    pub fn count(&self) -> usize {
        self.requests
    }

    /// How many are in: hear what they can hear, or are connected if there is nothing.
    pub fn joined(&self) -> usize {
        let in_place = self.each.iter().filter(|join| !join.open && !join.failed);
        in_place.count()
    }

    /// Whether nobody is on the way.
    pub fn are_settled(&self) -> bool {
        self.open == 0
    }

    /// Somebody has come so far.
    pub fn note(&mut self, part: Part, step: Step, at: Instant) {
        let join = self.each.get_mut(part.number);
        let Some(join) = join.filter(|join| join.part.turn == part.turn) else {
            return;
        };
        let histogram = match step {
            Step::Connected => &mut self.connected,
            Step::Heard => &mut self.heard,
            Step::Shown => &mut self.shown,
        };
        histogram.add(at.saturating_duration_since(join.requested));
        let all = match step {
            Step::Connected => join.part.hears == 0,
            Step::Heard => true,
            Step::Shown => false,
        };
        if all && std::mem::take(&mut join.open) {
            self.open -= 1;
        }
    }

    /// Somebody has failed; only the first reason counts.
    pub fn fail(&mut self, part: Part, reason: &str) {
        let join = self.each.get_mut(part.number);
        let Some(join) = join.filter(|join| join.part.turn == part.turn) else {
            return;
        };
        if std::mem::replace(&mut join.failed, true) {
            return;
        }
        self.failures += 1;
        if std::mem::take(&mut join.open) {
            self.open -= 1;
        }
        if let Some(count) = self.reasons.get_mut(reason) {
            *count += 1;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason.to_owned(), 1);
        }
    }

    /// Whoever is still on the way, and was at `before`, has failed.
    pub fn give_up(&mut self, before: Instant, reason: &str) {
        for number in 0..self.each.len() {
            let Join {
                part,
                open,
                requested,
                ..
            } = self.each[number];
            if open && requested <= before {
                self.fail(part, reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_hears_nobody_is_in_when_connected() {
        let now = Instant::now();
        let mut joins = Joins::default();
        let part = |number| Part {
            number,
            turn: 0,
            room: 0,
            publishes: number == 0,
            hears: usize::from(number > 0),
            network: 0,
        };
        (0..4).for_each(|number| joins.request(part(number), now));
        let at = now + Duration::from_millis(80);
        for number in 0..3 {
            joins.note(part(number), Step::Connected, at);
        }
        assert_eq!((joins.joined(), joins.are_settled()), (1, false));
        joins.note(part(1), Step::Heard, at);
        joins.note(part(1), Step::Shown, at);
        joins.fail(part(3), "refused");
        joins.fail(part(3), "once more");
        assert_eq!((joins.joined(), joins.failures), (2, 1));
        joins.give_up(now - Duration::from_millis(1), "too early");
        joins.give_up(now, "silence");
        assert_eq!(
            (joins.joined(), joins.failures, joins.are_settled()),
            (2, 2, true)
        );
        assert_eq!(
            joins.reasons.keys().collect::<Vec<_>>(),
            ["refused", "silence"]
        );
        // Who breaks later fails too.
        joins.fail(part(1), "broke");
        assert_eq!((joins.joined(), joins.failures), (1, 3));
        assert_eq!((joins.connected.count(), joins.heard.count()), (3, 1));
        // Another in the place of somebody.
        let next = part(0).successor();
        joins.request(next, at);
        joins.note(part(0), Step::Connected, at);
        assert_eq!((joins.joined(), joins.count()), (0, 5));
        joins.note(next, Step::Connected, at);
        assert_eq!((joins.joined(), joins.count()), (1, 5));
    }
}
