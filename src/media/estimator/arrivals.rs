//! What lately arrived, and what its spacing says: how much came through, whether a queue is
//! growing, and how much the narrowest link on the way passes on in one go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::units::Bitrate;

/// Packets that are remembered. A second of one large picture; of more traffic it takes less.
const ARRIVALS_MAX: usize = 256;

/// Packets sent within so long of each other left together.
const TOGETHER: u32 = 1500;

/// They came apart on their way if they took so many times longer to arrive than to be sent.
const APART: i32 = 2;

/// Bytes behind the first one of those that are enough to be told apart, at 250 us of resolution.
const TOGETHER_BYTES_MIN: u64 = 250;

/// No spacing is taken for more than this.
pub const HINT_MAX: Bitrate = Bitrate::kbps(50_000);

/// Groups of packets that are remembered for hints, and how long.
const HINTS: usize = 9;
/// See [`HINTS`].
const HINT_AGE_MAX: Duration = Duration::from_millis(2500);

/// A hint takes so many groups; a group of many packets counts as several.
const HINTS_MIN: usize = 3;

/// The newest arrivals of a leg.
#[derive(Debug)]
pub struct Arrivals {
    all: VecDeque<Arrival>,
    hints: VecDeque<(Instant, Bitrate)>,
    group: Option<Group>,
}

/// Times in microseconds, lower bits: only differences mean anything, and an honest receiver's are
/// below an hour.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    sent: u32,
    received: u32,
    bytes: u16,
}

impl Arrival {
    fn transit(self) -> u32 {
        self.received.wrapping_sub(self.sent)
    }
}

/// Packets that left together, so far.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// When the first was sent, and the last.
    began: u32,
    sent: u32,
    first: u32,
    last: u32,
    /// Behind the first.
    bytes: u64,
    packets: usize,
}

/// Some neighbouring arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes behind the first.
    pub bytes: u64,
    /// How long sending them took.
    pub sending: Duration,
    /// How long receiving them took.
    pub receiving: Duration,
    /// It is all that is remembered.
    pub is_all: bool,
}

impl Span {
    /// The rate that demonstrably came through: no more than was sent.
    pub fn rate(&self) -> Bitrate {
        Bitrate::of(self.bytes, self.sending.max(self.receiving))
    }
}

impl Arrivals {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            all: VecDeque::new(),
            hints: VecDeque::new(),
            group: None,
        }
    }

    /// A packet arrived, in microseconds of two clocks. They come in the order of sending.
    pub fn add(&mut self, now: Instant, sent: i64, received: i64, bytes: u64) {
        let arrival = Arrival {
            sent: sent as u32,
            received: received as u32,
            bytes: bytes.min(u16::MAX.into()) as u16,
        };
        if self.all.len() == ARRIVALS_MAX {
            self.all.pop_front();
        }
        self.all.push_back(arrival);
        match &mut self.group {
            Some(group) if arrival.sent.wrapping_sub(group.sent) < TOGETHER => {
                group.sent = arrival.sent;
                group.last = arrival.received;
                group.bytes += bytes;
                group.packets += 1;
            }
            _ => {
                self.close_group(now);
                self.group = Some(Group {
                    began: arrival.sent,
                    sent: arrival.sent,
                    first: arrival.received,
                    last: arrival.received,
                    bytes: 0,
                    packets: 1,
                });
            }
        }
    }

    /// A feedback was read: what left together has been told of as a whole.
    pub fn close_group(&mut self, now: Instant) {
        let Some(group) = self.group.take() else {
            return;
        };
        if group.bytes < TOGETHER_BYTES_MIN {
            return;
        }
        let sending = group.sent.wrapping_sub(group.began) as i32;
        let span = group.last.wrapping_sub(group.first) as i32;
        if sending > 0 && span < sending * APART {
            // They came as they were sent.
            return;
        }
        let Ok(span @ 1..) = u64::try_from(span) else {
            return self.hint_at(now, HINT_MAX, 1);
        };
        let rate = Bitrate::of(group.bytes, Duration::from_micros(span));
        self.hint_at(
            now,
            rate.min(HINT_MAX),
            (group.packets / 3).clamp(1, HINTS_MIN),
        );
    }

    fn hint_at(&mut self, now: Instant, rate: Bitrate, weight: usize) {
        for _ in 0..weight {
            if self.hints.len() == HINTS {
                self.hints.pop_front();
            }
            self.hints.push_back((now, rate));
        }
    }

    /// What the narrowest link seems to pass on, by how it pulls packets apart that left together.
    /// No more than a hint: traffic beside ours, radio links and shapers show more than there is.
    pub fn hint(&self, now: Instant) -> Option<Bitrate> {
        self.hint_of(
            |at| now.saturating_duration_since(at) < HINT_AGE_MAX,
            HINTS_MIN,
        )
    }

    /// The same by what came after `since`, and by less of it.
    pub fn hint_since(&self, since: Instant) -> Option<Bitrate> {
        self.hint_of(|at| at >= since, HINTS_MIN - 1)
    }

    fn hint_of(&self, counts: impl Fn(Instant) -> bool, least: usize) -> Option<Bitrate> {
        let mut rates = [Bitrate::ZERO; HINTS];
        let mut count = 0;
        for (_, rate) in self.hints.iter().filter(|(at, _)| counts(*at)) {
            rates[count] = *rate;
            count += 1;
        }
        let rates = &mut rates[..count];
        rates.sort_unstable();
        (count >= least).then(|| rates[(count - 1) / 2])
    }

    /// What was received in the last `window`; `None` if that is too little to tell.
    pub fn span(&self, window: Duration) -> Option<Span> {
        let newest = self.all.back()?;
        let window = window.as_micros() as u32;
        let age = |it: &&Arrival| newest.received.wrapping_sub(it.received);
        let count = self.all.iter().rev().take_while(|it| {
            // What was overtaken has a negative age.
            (age(it) as i32) < window as i32
        });
        let count = count.count();
        let mut recent = self.all.range(self.all.len() - count..);
        let first = recent.next()?;
        let bytes = recent.map(|it| u64::from(it.bytes)).sum();
        (count >= 2).then(|| Span {
            bytes,
            sending: micros(newest.sent.wrapping_sub(first.sent)),
            receiving: micros(newest.received.wrapping_sub(first.received)),
            is_all: count == ARRIVALS_MAX,
        })
    }

    /// How the link was busy just now: nothing, if too few packets in a row waited. `base` is a
    /// transit without a queue; a queue is what is `least`, and grows if it does by more than
    /// `noise`.
    pub fn busy(&self, base: i64, least: Duration, noise: Duration) -> Option<Busy> {
        let newest = self.all.back()?;
        let queue = |it: &Arrival| it.transit().wrapping_sub(base as u32) as i32;
        let least = least.as_micros() as i32;
        let recent = self.all.iter().rev().take_while(|it| {
            let age = newest.received.wrapping_sub(it.received) as i32;
            // Before it was empty the link sent nothing, and so tells nothing.
            age < BUSY_WINDOW.as_micros() as i32 && queue(it) > least / BUSY
        });
        let packets = recent.count();
        if packets < BUSY_PACKETS {
            return None;
        }
        let busy = self.all.range(self.all.len() - packets..);
        let third = packets / 3;
        let first = busy.clone().take(third).map(queue).min()?;
        let last = busy.clone().rev().take(third).map(queue).min()?;
        let oldest = busy.clone().next()?;
        let bytes = busy.skip(1).map(|it| u64::from(it.bytes)).sum();
        let span = micros(newest.received.wrapping_sub(oldest.received));
        Some(Busy {
            carries: Bitrate::of(bytes, span),
            grows: last >= least && last.wrapping_sub(first) >= (GROWTH + noise).as_micros() as i32,
        })
    }
}

/// A link that is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// What comes through.
    pub carries: Bitrate,
    /// Its queue grows.
    pub grows: bool,
}

/// A link is busy by what came within this, in no fewer packets than that.
const BUSY_WINDOW: Duration = Duration::from_millis(250);
/// See [`BUSY_WINDOW`].
const BUSY_PACKETS: usize = 5;
/// A queue that grew by less may be a burst that drains again.
const GROWTH: Duration = Duration::from_millis(15);
/// A link is busy while packets wait for this part of what a queue is.
const BUSY: i32 = 8;

/// Reordering makes a span negative; then it is none.
fn micros(difference: u32) -> Duration {
    Duration::from_micros(u64::try_from(difference as i32).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1000 bytes, sent at these times and received at those, in milliseconds.
    fn arrivals(start: Instant, times: &[(i64, i64)]) -> Arrivals {
        let mut arrivals = Arrivals::new();
        for (sent, received) in times {
            arrivals.add(start, sent * 1000, received * 1000, 1000);
        }
        arrivals.close_group(start);
        arrivals
    }

    #[test]
    fn what_came_through_is_no_more_than_was_sent() {
        let start = Instant::now();
        let even: Vec<_> = (0..50).map(|at| (at * 10, at * 10 + 30)).collect();
        let rate = |times: &[(i64, i64)]| {
            let span = arrivals(start, times).span(Duration::from_millis(300));
            span.map(|span| span.rate().as_bps() / 1000)
        };
        assert_eq!(rate(&even), Some(800));
        // All at once after a stall, over a link that never was so fast.
        let stalled: Vec<_> = (0..50).map(|at| (at * 10, 600 + at / 10)).collect();
        assert_eq!(rate(&stalled), Some(800));
        let slow: Vec<_> = (0..50).map(|at| (at * 10, at * 20 + 30)).collect();
        assert_eq!(rate(&slow), Some(400));
        assert_eq!(rate(&even[..1]), None);
    }

    #[test]
    fn a_queue_that_grows_is_seen_with_what_the_link_carries() {
        let start = Instant::now();
        let overrun = |times: &[(i64, i64)]| {
            let arrivals = arrivals(start, times);
            let busy = arrivals.busy(30_000, Duration::from_millis(40), Duration::ZERO);
            let growing = busy.filter(|busy| busy.grows);
            growing.map(|busy| busy.carries.as_bps() / 1000)
        };
        let growing: Vec<_> = (0..20).map(|at| (at * 10, at * 40 + 30)).collect();
        assert_eq!(overrun(&growing), Some(200));
        let even: Vec<_> = (0..20).map(|at| (at * 10, at * 10 + 130)).collect();
        assert_eq!(overrun(&even), None, "a longer path is no queue that grows");
        let draining: Vec<_> = (0..20).map(|at| (at * 10, at * 4 + 230)).collect();
        assert_eq!(overrun(&draining), None);
        assert_eq!(overrun(&growing[..4]), None, "too few");
    }

    #[test]
    fn packets_that_left_together_hint_at_the_link_as_they_come_apart() {
        let start = Instant::now();
        let groups = |gap: i64, count: i64| -> Vec<_> {
            let group = |at: i64| (0..4).map(move |number| (at * 33, at * 33 + 20 + number * gap));
            (0..count).flat_map(group).collect()
        };
        let hint = |times: &[(i64, i64)]| {
            let hint = arrivals(start, times).hint(start);
            hint.map(|rate| rate.as_bps() / 1000)
        };
        assert_eq!(hint(&groups(8, 3)), Some(1000));
        assert_eq!(hint(&groups(8, 2)), None, "too few");
        assert_eq!(hint(&groups(0, 3)), Some(50_000));
        let old = arrivals(start, &groups(8, 3)).hint(start + HINT_AGE_MAX);
        assert_eq!(old, None);
        let many: Vec<_> = (0..12).map(|number| (0, 20 + number * 4)).collect();
        assert_eq!(hint(&many), Some(2000), "one large group is enough");
    }

    #[test]
    fn memory_has_a_bound() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new();
        for at in 0..10_000 {
            arrivals.add(start, at * 10_000, at * 10_000, 1000);
        }
        assert_eq!(arrivals.all.len(), ARRIVALS_MAX);
        assert!(arrivals.hints.len() <= HINTS);
    }
}
