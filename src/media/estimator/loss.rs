//! Packets that don't arrive, and why: because a queue was full, or for no reason of ours.
//!
//! A full queue shows in how late its neighbours are. What gets lost beside packets that are not
//! late is the network's own loss, which sending less would not mend: it counts only when there is
//! a lot of it, and then it is tried whether less helps.

use std::time::{Duration, Instant};

use super::window::Window;

/// What was told within the last second.
#[derive(Debug)]
pub struct Loss {
    told: Window<Told, 10>,
    /// Lost since the last one that arrived.
    open: u32,
    /// Since when there is a lot.
    much: Option<Instant>,
    trial: Trial,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    arrived: u32,
    /// Of them, those that were late.
    arrived_late: u32,
    /// Lost beside packets that were late.
    late: u32,
    /// Lost beside packets that weren't.
    other: u32,
    /// Arrived, but told lost before.
    recovered: u32,
}

impl Told {
    fn merge(self, other: Self) -> Self {
        Self {
            arrived: self.arrived.saturating_add(other.arrived),
            arrived_late: self.arrived_late.saturating_add(other.arrived_late),
            late: self.late.saturating_add(other.late),
            other: self.other.saturating_add(other.other),
            recovered: self.recovered.saturating_add(other.recovered),
        }
    }
}

/// Whether sending less mends loss that no queue explains.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trial {
    /// There was no need to know.
    None,
    /// Less is sent since then, at this share of loss.
    Running(Instant, f64),
    /// It doesn't: up to this share is the network's own, for as long.
    Futile(Instant, f64),
}

/// Shares of loss in the last second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shares {
    /// All of it, 0 to 1.
    pub all: f64,
    /// Where a queue was full.
    pub queue: f64,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Go,
    /// Less is to be sent.
    Cut,
    /// Less is to be sent for a while, to see whether that helps.
    Try,
    /// Less was of use, and stays.
    Helped,
    /// Less was of no use: what was sent before may be sent again.
    Restore,
}

/// Loss is not judged from fewer packets in a second: one lost of five says nothing.
const PACKETS_MIN: u32 = 20;

/// Late packets have to be lost twice as often as others, and so much more, to show a full queue.
const LATE_MORE: f64 = 0.05;

/// More than this lost for no reason calls for a trial: a link that drops what is above its rate,
/// without a queue, looks so.
const OTHER_MAX: f64 = 0.08;

/// It has to last: losses come in bursts, too.
const LASTS: Duration = Duration::from_secs(2);

/// How long less is sent, before it is looked whether that helps.
const TRIAL: Duration = Duration::from_millis(1500);

/// How long it is remembered that it doesn't.
const FUTILE: Duration = Duration::from_secs(30);

impl Loss {
    /// Nothing was told.
    pub fn new(now: Instant) -> Self {
        Self {
            told: Window::new(Duration::from_millis(100), now),
            open: 0,
            much: None,
            trial: Trial::None,
        }
    }

    /// A packet is missing. They are told in the order of sending.
    pub fn lost(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// One arrived, `late` or not, told lost before or not.
    pub fn arrived(&mut self, now: Instant, late: bool, recovered: bool) {
        let open = std::mem::take(&mut self.open);
        let told = self.told.newest(now);
        told.arrived += 1;
        told.arrived_late += u32::from(late);
        told.recovered += u32::from(recovered);
        match late {
            true => told.late = told.late.saturating_add(open),
            false => told.other = told.other.saturating_add(open),
        }
    }

    /// Loss of the last second; none when too little is known.
    pub fn shares(&mut self, now: Instant) -> Shares {
        let sum = self.told.all(now).fold(Told::default(), Told::merge);
        let lost = sum.late.saturating_add(sum.other);
        let total = sum.arrived.saturating_add(lost) - sum.recovered.min(sum.arrived);
        if total < PACKETS_MIN {
            return Shares::default();
        }
        let share = |count: u32| f64::from(count.saturating_sub(sum.recovered)) / f64::from(total);
        let of = |lost: u32, arrived: u32| f64::from(lost) / f64::from((lost + arrived).max(1));
        let late = of(sum.late, sum.arrived_late);
        let other = of(sum.other, sum.arrived - sum.arrived_late);
        let queue = if late > other * 2.0 + LATE_MORE {
            share(sum.late)
        } else {
            0.0
        };
        Shares {
            all: share(lost),
            queue,
        }
    }

    /// Less is sent for another reason: nothing comes of a trial.
    pub fn abandon(&mut self) {
        if let Trial::Running(..) = self.trial {
            self.trial = Trial::None;
        }
    }

    /// What loss calls for: less, if a full queue loses more than `most`. On a leg that is new
    /// nothing is tried.
    pub fn judge(&mut self, now: Instant, most: f64, is_new: bool) -> Advice {
        let shares = self.shares(now);
        if shares.queue > most {
            self.told.clear(now);
            self.abandon();
            return Advice::Cut;
        }
        let passed = |at: Instant| now.saturating_duration_since(at);
        if shares.all <= OTHER_MAX {
            self.much = None;
        } else if self.much.is_none() {
            self.much = Some(now);
        }
        let lasts = self.much.is_some_and(|since| passed(since) >= LASTS);
        match self.trial {
            Trial::Running(since, before) if passed(since) >= TRIAL => {
                if shares.all > before * 0.6 {
                    self.trial = Trial::Futile(now, before.max(shares.all));
                    return Advice::Restore;
                }
                self.trial = Trial::None;
                Advice::Helped
            }
            Trial::Running(..) => Advice::Go,
            Trial::Futile(since, known) if passed(since) < FUTILE && shares.all < known * 1.5 => {
                Advice::Go
            }
            _ if lasts && !is_new => {
                self.trial = Trial::Running(now, shares.all);
                Advice::Try
            }
            _ => Advice::Go,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred packets in a second, of which so many in ten are lost.
    fn second(loss: &mut Loss, at: Instant, lost: u64, late: bool) -> Vec<Advice> {
        let mut advice = Vec::new();
        for packet in 0..100 {
            let now = at + Duration::from_millis(packet * 10);
            match packet % 10 < lost {
                true => loss.lost(),
                false => loss.arrived(now, late, false),
            }
            if packet % 10 == 9 {
                advice.push(loss.judge(now, 0.05, false));
            }
        }
        advice.retain(|it| *it != Advice::Go);
        advice
    }

    #[test]
    fn a_full_queue_calls_for_less_and_the_networks_own_loss_does_not() {
        let start = Instant::now();
        let secs = |at| start + Duration::from_secs(at);
        let mut loss = Loss::new(start);
        assert!(second(&mut loss, secs(0), 0, true).is_empty());
        assert!(second(&mut loss, secs(1), 1, true).contains(&Advice::Cut));
        let mut loss = Loss::new(start);
        let mut advice = Vec::new();
        for at in 0..20 {
            advice.extend(second(&mut loss, secs(at), 2, false));
        }
        assert_eq!(advice, [Advice::Try, Advice::Restore], "tried once");
    }

    #[test]
    fn loss_that_less_mends_stays_cut() {
        let start = Instant::now();
        let secs = |at| start + Duration::from_secs(at);
        let mut loss = Loss::new(start);
        for at in 0..2 {
            assert!(second(&mut loss, secs(at), 3, false).is_empty());
        }
        assert_eq!(second(&mut loss, secs(2), 3, false), [Advice::Try]);
        let after: Vec<_> = (3..7)
            .flat_map(|at| second(&mut loss, secs(at), 0, false))
            .collect();
        assert_eq!(after, [Advice::Helped]);
    }

    #[test]
    fn what_comes_late_was_not_lost() {
        let now = Instant::now();
        let mut loss = Loss::new(now);
        for _ in 0..30 {
            loss.lost();
            loss.arrived(now, false, false);
        }
        assert_eq!(loss.shares(now).all, 0.5);
        (0..30).for_each(|_| loss.arrived(now, false, true));
        assert_eq!(loss.shares(now).all, 0.0);
    }
}
