//! How long packets wait on their way. Clocks of sender and receiver have nothing in common, so
//! only differences mean anything: a queue is what a transit takes beyond the least of the last
//! seconds.

use std::time::{Duration, Instant};

use super::window::{Least, Window};

/// One-way delays of a leg.
#[derive(Debug)]
pub struct Delay {
    /// What came in each twentieth of a second.
    recent: Window<Spread, 6>,
    /// The least of each second.
    base: Window<Least, 25>,
    last: Option<i64>,
    /// By how much delays differ within a moment, without a queue: jitter, and the bursts in which
    /// frames leave. In microseconds.
    noise: f64,
    judged: Instant,
    /// What stood when that was last looked at.
    stood: Option<(Instant, i64)>,
}

/// The least and the most.
#[derive(Debug, Clone, Copy, Default)]
struct Spread {
    least: Least,
    most: i64,
}

/// A delay that differs this much from the one before is a receiver whose clock was set, or lies:
/// all is measured anew. In microseconds.
const CLOCK_JUMP: i64 = 10_000_000;

/// Width of a moment.
const MOMENT: Duration = Duration::from_millis(50);

/// How fast what is known of jitter follows, for each moment: a false alarm costs more than a late
/// one.
const NOISE_RISES: f64 = 0.25;
/// See [`NOISE_RISES`].
const NOISE_FALLS: f64 = 0.05;

/// No network is worse; a receiver may claim more. In microseconds.
const NOISE_MAX: f64 = 500_000.0;

/// A queue that fell by a tenth within this drains.
const DRAINS: Duration = Duration::from_millis(250);

impl Delay {
    /// Nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            recent: Window::new(MOMENT, now),
            base: Window::new(Duration::from_secs(1), now),
            last: None,
            noise: 0.0,
            judged: now,
            stood: None,
        }
    }

    /// It is `now`, for what is added next.
    pub fn slide(&mut self, now: Instant) {
        self.recent.newest(now);
        self.base.newest(now);
    }

    /// A packet took this long; whether all has to be measured anew.
    pub fn add(&mut self, now: Instant, micros: i64) -> bool {
        let jumps = (self.last).is_some_and(|last| last.abs_diff(micros) > CLOCK_JUMP as u64);
        if jumps {
            *self = Self::new(now);
        }
        self.last = Some(micros);
        let recent = self.recent.current();
        recent.most = match recent.least.count {
            0 => micros,
            _ => recent.most.max(micros),
        };
        recent.least.add(micros);
        self.base.current().add(micros);
        jumps
    }

    /// The transit without a queue.
    pub fn base(&mut self, now: Instant) -> Option<i64> {
        let all = self.base.all(now);
        all.fold(Least::default(), Least::merge).value()
    }

    /// How long what came last was waiting: the least of the last moments that had any.
    pub fn queue(&mut self, now: Instant) -> Option<Duration> {
        let base = self.base(now)?;
        let all = self.recent.all(now).map(|it| it.least);
        let least = all.fold(Least::default(), Least::merge).value()?;
        Some(micros(least - base))
    }

    /// The queue that no packet of the last moments escaped, if it is one: above jitter, and in
    /// more than one report.
    pub fn standing(&mut self, now: Instant) -> Option<Duration> {
        let filled = self.recent.all(now).filter(|it| it.least.count > 0);
        let queue = (filled.count() >= 2).then(|| self.queue(now))??;
        (queue > QUEUE + self.noise()).then_some(queue)
    }

    /// Whether a queue that stands is on its way down.
    pub fn drains(&mut self, now: Instant, queue: Duration) -> bool {
        let queue = queue.as_micros() as i64;
        match self.stood {
            Some((at, before)) if now.saturating_duration_since(at) < DRAINS => queue < before,
            Some((at, before)) if now.saturating_duration_since(at) < DRAINS * 2 => {
                self.stood = Some((now, queue));
                queue * 10 < before * 9
            }
            _ => {
                self.stood = Some((now, queue));
                // It is seen for the first time.
                true
            }
        }
    }

    /// By how much packets of one moment differ.
    pub fn noise(&self) -> Duration {
        Duration::from_micros(self.noise as u64)
    }

    /// Takes in how the last moment was, unless a queue was growing in it.
    pub fn learn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.judged) < MOMENT {
            return;
        }
        self.judged = now;
        let spreads = self.recent.all(now).filter(|it| it.least.count > 2);
        let spread = spreads.filter_map(|it| Some(it.most - it.least.value()?));
        if let Some(spread) = spread.max() {
            let more = spread as f64 / 2.0 - self.noise;
            self.noise = self.noise.min(NOISE_MAX);
            self.noise += more.min(NOISE_MAX) * if more > 0.0 { NOISE_RISES } else { NOISE_FALLS };
        }
    }

    /// The path is longer now than it was: what there is is no queue.
    pub fn rebase(&mut self, now: Instant) {
        let noise = self.noise;
        *self = Self::new(now);
        self.noise = noise;
    }
}

/// What waits for less is no queue that stands.
const QUEUE: Duration = Duration::from_millis(40);

fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(delay: &mut Delay, at: Instant, millis: i64) {
        delay.slide(at);
        delay.add(at, millis * 1000);
    }

    #[test]
    fn one_late_report_is_a_moment_and_only_several_are_a_queue() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut delay = Delay::new(start);
        told(&mut delay, at(0), 0);
        (0..50).for_each(|_| told(&mut delay, at(700), 200));
        assert_eq!(delay.standing(at(700)), None);
        told(&mut delay, at(800), 190);
        assert_eq!(delay.standing(at(800)), Some(Duration::from_millis(190)));
        told(&mut delay, at(800), 10);
        assert_eq!(delay.standing(at(800)), None, "one packet escaped it");
    }

    #[test]
    fn a_queue_that_falls_drains_and_one_that_stays_does_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let ms = Duration::from_millis;
        let mut delay = Delay::new(start);
        assert!(delay.drains(at(0), ms(300)), "it was never seen before");
        assert!(!delay.drains(at(100), ms(300)));
        assert!(delay.drains(at(200), ms(250)));
        assert!(delay.drains(at(300), ms(200)));
        assert!(!delay.drains(at(600), ms(195)));
    }

    #[test]
    fn jitter_is_learnt_and_a_clock_that_jumps_begins_anew() {
        let start = Instant::now();
        let mut delay = Delay::new(start);
        for step in 0..100u64 {
            let at = start + Duration::from_millis(step * 50);
            for millis in [0, 20, 60, 40] {
                told(&mut delay, at, millis);
            }
            delay.learn(at);
        }
        let noise = delay.noise().as_millis();
        assert!((25..=30).contains(&noise), "{noise}");
        let now = start + Duration::from_secs(6);
        delay.slide(now);
        assert!(delay.add(now, 90_000_000));
        assert_eq!(delay.queue(now), Some(Duration::ZERO));
    }
}
