//! A bottleneck whose rate changes with time, and that others may share.
//!
//! Datagrams leave in order at the rate of the moment; what doesn't fit the queue is dropped as it
//! comes. A [`Rival`] puts datagrams of its own into the same queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::units::Bitrate;

/// The rate of a bottleneck over time, counted from when its link began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Course {
    /// From each of these moments on, in seconds, that many kbit/s; the first is at 0.
    Steps(&'static [(u64, u64)]),
    /// As a cell of a mobile network gives it: up and down by tens of percent within seconds,
    /// in kbit/s at least `least` and around `middle`.
    Cell {
        /// Least rate in kbit/s.
        least: u64,
        /// Mean rate in kbit/s.
        middle: u64,
    },
}

impl Course {
    /// The rate after `passed`.
    pub fn at(self, passed: Duration) -> Bitrate {
        match self {
            Self::Steps(steps) => {
                let begun = steps.iter().rev().find(|(at, _)| passed.as_secs() >= *at);
                Bitrate::kbps(begun.map_or(0, |(_, kbps)| *kbps))
            }
            Self::Cell { least, middle } => {
                let t = passed.as_secs_f64();
                let waves = 0.55 * (0.37 * t).sin()
                    + 0.35 * (1.31 * t + 1.0).sin()
                    + 0.18 * (4.7 * t).sin();
                let rate = Bitrate::kbps(middle).scale(1.0 + waves);
                rate.max(Bitrate::kbps(least))
            }
        }
    }
}

/// Somebody else's traffic through the same queue, from one second to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rival {
    /// As many kbit/s all the time, whatever becomes of them.
    Constant {
        /// Its rate.
        kbps: u64,
        /// Its first and last second.
        span: (u64, u64),
    },
    /// One transfer that takes what it gets and yields to loss alone (additive increase,
    /// multiplicative decrease).
    Transfer {
        /// Its round trip without the queue.
        round_trip: Duration,
        /// Its first and last second.
        span: (u64, u64),
    },
}

/// Bytes of a rival's datagram on the wire.
const RIVAL_BYTES: u64 = 1500;

/// A bottleneck at work.
#[derive(Debug)]
pub struct Bottleneck {
    course: Course,
    queue_bytes: u64,
    start: Instant,
    /// When each datagram in the queue will have left, and its size.
    queue: VecDeque<(Instant, u64)>,
    queued: u64,
    /// When the last one will have left.
    idle: Instant,
    rival: Option<Load>,
    /// Bytes of the rival that came through.
    pub rival_bytes: u64,
}

/// A rival at work.
#[derive(Debug)]
struct Load {
    rival: Rival,
    /// Constant: when it sends next.
    next: Instant,
    /// Transfer: what it hears, and when: an acknowledgement, or that one sent then was lost.
    news: VecDeque<(Instant, Option<Instant>)>,
    window: f64,
    threshold: f64,
    in_flight: u32,
    yielded: Instant,
}

/// The rate of a course is looked at so often.
const STEP: Duration = Duration::from_millis(5);

impl Bottleneck {
    /// An empty queue.
    pub fn new(course: Course, queue_bytes: u64, rival: Option<Rival>, start: Instant) -> Self {
        let rival = rival.map(|rival| Load {
            rival,
            next: start,
            news: VecDeque::new(),
            window: 10.0,
            threshold: f64::MAX,
            in_flight: 0,
            yielded: start,
        });
        Self {
            course,
            queue_bytes,
            start,
            queue: VecDeque::new(),
            queued: 0,
            idle: start,
            rival,
            rival_bytes: 0,
        }
    }

    /// When a datagram that comes `at` leaves, if it is not dropped. Times don't fall.
    pub fn pass(&mut self, at: Instant, bytes: u64) -> Option<Instant> {
        if let Some(mut rival) = self.rival.take() {
            rival.advance(self, at);
            self.rival = Some(rival);
        }
        self.enqueue(at, bytes)
    }

    fn enqueue(&mut self, at: Instant, bytes: u64) -> Option<Instant> {
        while let Some((leaves, size)) = self.queue.front().copied()
            && leaves <= at
        {
            self.queue.pop_front();
            self.queued -= size;
        }
        if self.queued + bytes > self.queue_bytes {
            return None;
        }
        self.idle = self.serve(self.idle.max(at), bytes);
        self.queue.push_back((self.idle, bytes));
        self.queued += bytes;
        Some(self.idle)
    }

    /// When so many bytes have left if the first does so `from` then.
    fn serve(&self, from: Instant, bytes: u64) -> Instant {
        let (mut at, mut left) = (from, bytes as f64 * 8.0);
        loop {
            let passed = at.saturating_duration_since(self.start);
            let rate = self.course.at(passed).as_bps() as f64;
            let step = rate * STEP.as_secs_f64();
            if step >= left && rate > 0.0 {
                return at + Duration::from_secs_f64(left / rate);
            }
            left -= step;
            at += STEP;
        }
    }
}

impl Load {
    fn advance(&mut self, link: &mut Bottleneck, to: Instant) {
        let start = link.start;
        let passed = |at: Instant| at.saturating_duration_since(start).as_secs();
        match self.rival {
            Rival::Constant { kbps, span } => {
                let gap = Bitrate::kbps(kbps).time_for(RIVAL_BYTES);
                while self.next <= to {
                    let at = self.next;
                    self.next += gap;
                    if (span.0..span.1).contains(&passed(at))
                        && link.enqueue(at, RIVAL_BYTES).is_some()
                    {
                        link.rival_bytes += RIVAL_BYTES;
                    }
                }
            }
            Rival::Transfer { round_trip, span } => {
                let begin = link.start + Duration::from_secs(span.0);
                if to < begin {
                    return;
                }
                if self.next < begin {
                    self.next = begin;
                    self.fill(link, begin, round_trip);
                }
                while let Some((at, lost)) = self.news.front().copied()
                    && at <= to
                {
                    self.news.pop_front();
                    self.in_flight -= 1;
                    match lost {
                        Some(sent) if sent >= self.yielded => {
                            self.window = (self.window * 0.7).max(2.0);
                            self.threshold = self.window;
                            self.yielded = at;
                        }
                        Some(_) => {}
                        None if self.window < self.threshold => self.window += 1.0,
                        None => self.window += 1.0 / self.window,
                    }
                    if passed(at) < span.1 {
                        self.fill(link, at, round_trip);
                    }
                }
            }
        }
    }

    /// Sends what the window allows.
    fn fill(&mut self, link: &mut Bottleneck, at: Instant, round_trip: Duration) {
        while f64::from(self.in_flight) < self.window {
            self.in_flight += 1;
            match link.enqueue(at, RIVAL_BYTES) {
                Some(leaves) => {
                    link.rival_bytes += RIVAL_BYTES;
                    self.news.push_back((leaves + round_trip, None));
                }
                // The next one that comes through tells of it, a queue and a round trip later.
                None => {
                    let told = link.idle.max(at) + round_trip;
                    self.news.push_back((told, Some(at)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// One datagram of 1000 bytes each millisecond; how many came through, and the longest wait.
    fn offered(link: &mut Bottleneck, start: Instant, from: u64, to: u64) -> (u64, Duration) {
        let (mut passed, mut longest) = (0, Duration::ZERO);
        for at in from..to {
            let now = start + millis(at);
            if let Some(leaves) = link.pass(now, 1000) {
                passed += 1;
                longest = longest.max(leaves - now);
            }
        }
        (passed, longest)
    }

    #[test]
    fn the_rate_follows_its_course_and_the_queue_has_its_bound() {
        let start = Instant::now();
        let course = Course::Steps(&[(0, 4000), (1, 0), (2, 8000)]);
        let mut link = Bottleneck::new(course, 50_000, None, start);
        // Half of what comes leaves, and what waits leaves within 100 ms.
        let (passed, longest) = offered(&mut link, start, 0, 800);
        assert!((445..455).contains(&passed), "{passed}");
        assert!((millis(95)..millis(105)).contains(&longest), "{longest:?}");
        // Nothing leaves in the second second.
        let (passed, longest) = offered(&mut link, start, 1000, 1500);
        assert!((48..=50).contains(&passed), "{passed}");
        assert!(longest > millis(1000));
        let (passed, _) = offered(&mut link, start, 2100, 2600);
        assert_eq!(passed, 500);
    }

    #[test]
    fn a_rival_takes_its_part_while_it_lasts() {
        let start = Instant::now();
        let course = Course::Steps(&[(0, 2000)]);
        let rival = |rival| Bottleneck::new(course, 25_000, Some(rival), start);
        let every_10_ms = |link: &mut Bottleneck, from: u64, to: u64| {
            let all = (from..to).step_by(10);
            all.filter(|at| link.pass(start + millis(*at), 1000).is_some())
                .count()
        };
        let mut constant = rival(Rival::Constant {
            kbps: 1500,
            span: (1, 3),
        });
        assert_eq!(every_10_ms(&mut constant, 0, 1000), 100);
        // 800 of ours and 1500 of the rival's want through 2000.
        let shared = every_10_ms(&mut constant, 1000, 3000);
        assert!((100..200).contains(&shared), "{shared}");
        assert_eq!(every_10_ms(&mut constant, 3200, 4000), 80);
        let mut transfer = rival(Rival::Transfer {
            round_trip: millis(40),
            span: (1, 5),
        });
        every_10_ms(&mut transfer, 0, 6000);
        let rate = Bitrate::of(transfer.rival_bytes, Duration::from_secs(4));
        assert!(
            (Bitrate::kbps(900)..Bitrate::kbps(1500)).contains(&rate),
            "{rate:?}"
        );
    }

    #[test]
    fn a_cell_goes_up_and_down_above_its_least() {
        let course = Course::Cell {
            least: 250,
            middle: 2200,
        };
        let rates: Vec<_> = (0..600)
            .map(|tenths| course.at(millis(tenths * 100)))
            .collect();
        assert_eq!(rates.iter().min(), Some(&Bitrate::kbps(250)));
        assert!(rates.iter().max() > Some(&Bitrate::kbps(4000)));
    }
}
