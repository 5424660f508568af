//! How much a subscriber's link carries: a plain rate control on delay and loss.
//!
//! Fed with every packet sent and every transport-wide feedback, it grows its estimate slowly as
//! long as nothing speaks against it, and cuts it below the rate that demonstrably arrives when
//! the link shows loss or a standing queue:
//!
//! ```text
//!             no sign of congestion, feedback fresh
//!            +-------------+
//!            v             |      loss, or queue that stands
//!        growing ----------+----------------------------------> cut to 0.85 x acknowledged
//!            ^                                                          |
//!            +------------- held 2 s, 4 s, 8 s .. 32 s <----------------+
//! ```
//!
//! A queue is measured between two minimum filters: the least one-way delay of the last half
//! second against the least of the last 25 s. A machine that is short of CPU delays many packets,
//! but hardly ever every single one for half a second; a link that is over its rate does.
//!
//! Not here: probing, pacing, and who gets what (the allocator).

mod sent;
mod window;

use std::time::{Duration, Instant};

use super::ntp::Ntp;
use super::rtcp::ReportBlock;
use super::rtcp::twcc::Twcc;
use crate::units::Bitrate;
use sent::{News, Register};
use window::{Least, Window};

/// Bounds of the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Where it starts.
    pub start: Bitrate,
    /// It never falls below; a receiver that claims to get nothing still gets this much.
    pub floor: Bitrate,
    /// It never rises above, whatever a receiver claims.
    pub ceiling: Bitrate,
}

impl Default for Bounds {
    /// 3 Mbit/s to start: the top layer of one camera (1.7), the smallest of several more, and
    /// what nearly every link carries; lower would begin each call with small pictures for
    /// half a minute, and where it is too much the queue shows it within a second. The floor is
    /// one smallest picture and audio. The ceiling is more than anybody can look at.
    fn default() -> Self {
        Self {
            start: Bitrate::kbps(3000),
            floor: Bitrate::kbps(200),
            ceiling: Bitrate::kbps(20_000),
        }
    }
}

impl Bounds {
    /// For subscribers whose video may pause: a smallest picture needs not be held up by the floor.
    pub fn pausing() -> Self {
        Self {
            floor: Bitrate::kbps(50),
            ..Self::default()
        }
    }
}

/// The rate control of one subscriber leg.
#[derive(Debug)]
pub struct Estimator {
    bounds: Bounds,
    estimate: Bitrate,
    /// What was sent and not yet told about.
    register: Register,
    /// Bytes acknowledged in the last second, on our own clock.
    acknowledged: Window<u64, 10>,
    /// Packets told about in the last second.
    told: Window<Told, 10>,
    delay: Delay,
    hold: Hold,
    rtt: Rtt,
    /// Last time the receiver told anything of use.
    heard: Option<Instant>,
    /// A limit that the path is given by hand.
    limit: Option<Bitrate>,
    /// All there is to send waits for the estimate to grow.
    starved: bool,
    ticked: Instant,
}

/// Rate by which an estimate without congestion grows: 8 % per second. It doubles in 9 s, and a
/// link that is overrun by it gets a queue of 8 ms per second, which is noticed in time.
const GROWTH: f64 = 1.08;

/// It grows by at least this per second, so that the way up from the floor takes seconds.
const GROWTH_MIN: Bitrate = Bitrate::kbps(50);

/// Of the acknowledged rate, what remains after a cut; the rest drains the queue.
const CUT: f64 = 0.85;

/// Loss above this is congestion, and loss above [`LOSS_HOLD`] keeps the estimate where it is.
const LOSS_CUT: f64 = 0.10;
const LOSS_HOLD: f64 = 0.02;

/// Loss is not judged from fewer packets in a second: one lost of five says nothing.
const LOSS_PACKETS_MIN: u32 = 20;

/// A queue that stands above this is congestion. Browsers' jitter buffers cover it; bursts of key
/// frames are longer, but not for half a second without a gap.
const QUEUE_CUT: Duration = Duration::from_millis(80);

/// A queue is not judged from fewer packets in half a second.
const QUEUE_PACKETS_MIN: u32 = 10;

/// With nothing heard for this long the estimate stays. Feedback comes every 50 to 250 ms.
const FRESH: Duration = Duration::from_secs(1);

/// First hold after a cut; doubles with each cut that follows soon after growth was resumed.
const HOLD: Duration = Duration::from_secs(2);
const HOLD_MAX: Duration = Duration::from_secs(32);

/// Growth that went well for this long ends the doubling.
const HOLD_FORGET: Duration = Duration::from_secs(30);

impl Estimator {
    /// For a new leg.
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            estimate: bounds.start.clamp(bounds.floor, bounds.ceiling),
            register: Register::new(now),
            acknowledged: Window::new(Duration::from_millis(100), now),
            told: Window::new(Duration::from_millis(100), now),
            delay: Delay::new(now),
            hold: Hold::default(),
            rtt: Rtt::new(now),
            heard: None,
            limit: None,
            starved: false,
            ticked: now,
        }
    }

    /// A packet left, `bytes` long. `seq` is its transport-wide sequence number before it was cut
    /// to 16 bits; each is higher than the one before.
    pub fn sent(&mut self, seq: u64, bytes: usize, now: Instant) {
        self.register.push(seq, bytes, now);
    }

    /// The receiver told what arrived. What was never sent, or was told before, is ignored.
    pub fn feedback(&mut self, now: Instant, twcc: &Twcc<'_>) {
        let mut newest_sent = None;
        // These are all of one moment.
        let told = self.told.newest(now);
        let acknowledged = self.acknowledged.newest(now);
        self.delay.slide(now);
        for (seq, arrival) in twcc.packets() {
            match self.register.tell(seq, arrival.is_some()) {
                News::None => {}
                News::Lost => told.lost += 1,
                News::Arrived { sent, bytes, late } => {
                    told.arrived += 1;
                    // It was counted as lost before; that may be in another bucket by now.
                    told.recovered += u32::from(late);
                    *acknowledged += bytes;
                    newest_sent = newest_sent.max(Some(sent));
                    if let Some(arrival) = arrival {
                        self.delay
                            .add(now, arrival.micros() - self.register.micros(sent));
                    }
                }
            }
        }
        if let Some(sent) = newest_sent {
            self.heard = Some(now);
            self.rtt.transport(now, now.saturating_duration_since(sent));
        }
    }

    /// A report on one of our streams came; `ntp` is now on our clock.
    pub fn report(&mut self, ntp: Ntp, block: &ReportBlock) {
        self.rtt.report(ntp, block);
    }

    /// Lets the estimate follow what was told. Due about every 100 ms.
    pub fn tick(&mut self, now: Instant) {
        // An outage or a stalled worker is not time in which the link proved itself.
        let passed = now.saturating_duration_since(self.ticked).min(FRESH);
        self.ticked = now;
        let fresh = self
            .heard
            .is_some_and(|heard| now.saturating_duration_since(heard) < FRESH);
        // Nothing sent is nothing told. Whoever waits for more has to be let in to try it, and
        // does less often with each failure, as the hold grows.
        if !fresh && !self.starved {
            return;
        }
        let loss = self.loss(now);
        if self.delay.congested(now) {
            self.delay.cut(now);
            self.cut(now);
        } else if loss > LOSS_CUT {
            self.cut(now);
        } else if loss <= LOSS_HOLD && !self.delay.rising(now) && self.hold.may_grow(now) {
            // Also when less is sent than the estimate allows: nothing probes yet, so waiting
            // for the link to be used before growing would leave a small picture small forever.
            // The price is a cut later where the link doesn't carry it.
            let factor = GROWTH.powf(passed.as_secs_f64());
            let least = GROWTH_MIN.scale(passed.as_secs_f64());
            let grown = self.estimate.scale(factor).max(self.estimate + least);
            self.estimate = grown.min(self.bounds.ceiling);
        }
    }

    /// Whether all that is wanted waits for more, so that nothing is sent which the receiver could
    /// tell about.
    pub fn starve(&mut self, starved: bool) {
        self.starved = starved;
    }

    /// What the link is thought to carry, everything included that has a transport-wide number.
    pub fn estimate(&self) -> Bitrate {
        let limit = self.limit.unwrap_or(Bitrate::MAX);
        self.estimate.min(limit)
    }

    /// Shows no more than this, whatever the path carries.
    pub fn limit(&mut self, limit: Option<Bitrate>) {
        self.limit = limit;
    }

    /// Round-trip time: from receiver reports, else from feedback, which adds the time until the
    /// receiver sent it; `None` before the first.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.reported.or(self.rtt.transport)
    }

    /// Loss of the last second, 0 to 1; 0 when too little is known.
    fn loss(&mut self, now: Instant) -> f64 {
        let sum = self.told.all(now).fold(Told::default(), Told::merge);
        let total = sum.arrived.saturating_add(sum.lost) - sum.recovered.min(sum.arrived);
        if total < LOSS_PACKETS_MIN {
            return 0.0;
        }
        f64::from(sum.lost.saturating_sub(sum.recovered)) / f64::from(total)
    }

    fn cut(&mut self, now: Instant) {
        let bytes = self.acknowledged.all(now).sum();
        // The window spans 0.9 to 1 s; taking it for 1 s errs on the side of the cut.
        let arrives = Bitrate::of(bytes, Duration::from_secs(1));
        self.estimate = arrives.scale(CUT).min(self.estimate).max(self.bounds.floor);
        self.hold.failed(now);
        // The same losses must not cut twice.
        self.told.clear(now);
    }
}

/// Packets told about in one bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    arrived: u32,
    lost: u32,
    /// Arrived, but told lost before.
    recovered: u32,
}

impl Told {
    fn merge(self, other: Self) -> Self {
        Self {
            arrived: self.arrived.saturating_add(other.arrived),
            lost: self.lost.saturating_add(other.lost),
            recovered: self.recovered.saturating_add(other.recovered),
        }
    }
}

/// One-way delays, of which only differences mean anything: the clocks have nothing in common.
#[derive(Debug)]
struct Delay {
    recent: Window<Least, 5>,
    base: Window<Least, 25>,
    last: Option<i64>,
    /// Not judged before this.
    judged: Instant,
    /// The queue at the last cut, as long as it still has to drain.
    cut: Option<i64>,
    /// Cuts in a row that did nothing to the queue.
    futile: u32,
}

/// A delay that differs this much from the one before is a receiver whose clock was set, or lies:
/// all is measured anew. In microseconds.
const CLOCK_JUMP: i64 = 10_000_000;

/// Cuts without effect after which the delay is taken for a longer path, not a queue.
const FUTILE_MAX: u32 = 3;

/// A queue has to fall to this part within [`DRAIN`], else the cut was not enough. At 0.85 of the
/// link's rate it falls by 150 ms per second.
const DRAINED: f64 = 0.9;
const DRAIN: Duration = Duration::from_secs(1);

/// What is called a standing queue has stood this long: the span of [`Delay::recent`].
const STANDING: Duration = Duration::from_millis(500);

impl Delay {
    fn new(now: Instant) -> Self {
        Self {
            recent: Window::new(Duration::from_millis(100), now),
            base: Window::new(Duration::from_secs(1), now),
            last: None,
            judged: now + STANDING,
            cut: None,
            futile: 0,
        }
    }

    /// It is `now`, for what is added next.
    fn slide(&mut self, now: Instant) {
        self.recent.newest(now);
        self.base.newest(now);
    }

    fn add(&mut self, now: Instant, micros: i64) {
        if self
            .last
            .is_some_and(|last| last.abs_diff(micros) > CLOCK_JUMP as u64)
        {
            *self = Self::new(now);
        }
        self.last = Some(micros);
        self.recent.current().add(micros);
        self.base.current().add(micros);
    }

    /// The queue no packet of the last half second escaped, in microseconds.
    fn standing(&mut self, now: Instant) -> Option<i64> {
        let buckets = self.recent.all(now).filter(|bucket| bucket.count > 0);
        let (filled, recent) = buckets.fold((0, Least::default()), |(filled, sum), bucket| {
            (filled + 1, sum.merge(bucket))
        });
        // A single late feedback tells of one moment, not of a queue that stands.
        if filled < 2 || recent.count < QUEUE_PACKETS_MIN {
            return None;
        }
        let base = self.base.all(now).fold(Least::default(), Least::merge);
        Some(recent.value()?.saturating_sub(base.value()?))
    }

    /// Whether there is a queue that calls for a cut. One that drains since the last cut doesn't.
    fn congested(&mut self, now: Instant) -> bool {
        if now < self.judged {
            return false;
        }
        let Some(queue) = self.standing(now) else {
            return false;
        };
        if queue <= QUEUE_CUT.as_micros() as i64 {
            self.cut = None;
            self.futile = 0;
            return false;
        }
        match self.cut {
            Some(cut) if (queue as f64) < cut as f64 * DRAINED => {
                self.cut = Some(queue);
                self.futile = 0;
                self.judged = now + DRAIN;
                false
            }
            _ => true,
        }
    }

    /// Whether there is a queue that speaks against growing.
    fn rising(&mut self, now: Instant) -> bool {
        let limit = QUEUE_CUT.as_micros() as i64 / 2;
        self.standing(now).is_some_and(|queue| queue > limit)
    }

    /// The estimate was cut: the queue gets time to drain before it is judged again.
    fn cut(&mut self, now: Instant) {
        self.futile = match self.cut {
            Some(_) => self.futile + 1,
            None => 0,
        };
        self.cut = self.standing(now);
        if self.futile >= FUTILE_MAX {
            // Whatever we send, the delay stays: the path is longer now than it was.
            *self = Self::new(now);
        }
        self.judged = now + DRAIN;
    }
}

/// Keeps the estimate from growing back into the congestion it was just cut for.
#[derive(Debug, Default)]
struct Hold {
    until: Option<Instant>,
    /// Cuts in a row, each soon after the hold of the one before.
    failures: u32,
}

impl Hold {
    fn may_grow(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    fn failed(&mut self, now: Instant) {
        self.failures = match self.until {
            // Still the same congestion: it has not grown in between.
            Some(until) if now < until => self.failures,
            Some(until) if now < until + HOLD_FORGET => self.failures.saturating_add(1),
            _ => 0,
        };
        let span = HOLD.saturating_mul(1 << self.failures.min(8)).min(HOLD_MAX);
        self.until = Some(now + span);
    }
}

/// Round-trip times.
#[derive(Debug)]
struct Rtt {
    /// From receiver reports, smoothed.
    reported: Option<Duration>,
    /// From feedback: the least of the last seconds.
    transport: Option<Duration>,
    window: Window<Least, 5>,
}

/// Longer ones are a receiver's mistake or lie.
const RTT_MAX: Duration = Duration::from_secs(10);

impl Rtt {
    fn new(now: Instant) -> Self {
        Self {
            reported: None,
            transport: None,
            window: Window::new(Duration::from_secs(1), now),
        }
    }

    fn transport(&mut self, now: Instant, rtt: Duration) {
        self.window
            .newest(now)
            .add(rtt.min(RTT_MAX).as_micros() as i64);
        let least = self.window.all(now).fold(Least::default(), Least::merge);
        self.transport = least
            .value()
            .map(|micros| Duration::from_micros(micros as u64));
    }

    /// RFC 3550 section 6.4.1: now minus the time of our report minus the time it lay there.
    fn report(&mut self, ntp: Ntp, block: &ReportBlock) {
        if block.last_report == 0 {
            return;
        }
        let units = ntp
            .middle_32()
            .wrapping_sub(block.last_report)
            .wrapping_sub(block.delay);
        // A delay longer than the truth wraps round to hours.
        let rtt = Duration::from_micros((u64::from(units) * 1_000_000) >> 16);
        if rtt <= RTT_MAX {
            self.reported = Some(self.reported.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
    }
}

#[cfg(test)]
mod tests;
