//! How much a subscriber's link carries: a rate control of our own, on delay and loss.
//!
//! ```text
//!   every packet sent --> Register --+
//!                                    |   +--> Arrivals: what came through, whether a queue grows,
//!   feedback: what arrived, when ----+---+              what the spacing hints at
//!                                        +--> Delay:    what stands in a queue
//!                                        +--> Loss:     what a full queue lost, and what not
//!                                        +--> Rehearsals: more, tried out
//!                                                 |
//!                                              estimate
//! ```
//!
//! It falls to what demonstrably came through as soon as a queue grows or stands, or is full. It
//! rises by what a rehearsal has shown ([`rehearsal`]), and slowly where as much is sent as it
//! allows. In between it stays: what isn't tried out isn't known.
//!
//! A queue that stays although far less is sent is somebody else's, or a longer path: it is taken
//! for given then. A receiver that lies gets no more than was sent to it came through at, and the
//! ceiling.
//!
//! All is counted as it is on the wire, with the headers of IP and UDP.
//!
//! Not here: when packets leave (the pacer), and who gets what (the allocator).

mod arrivals;
mod delay;
mod falling;
mod loss;
pub mod rehearsal;
mod rtt;
mod said;
mod sent;
mod share;
mod window;

use std::time::{Duration, Instant};

use super::ntp::Ntp;
use super::rtcp::ReportBlock;
use super::rtcp::twcc::Twcc;
use crate::units::Bitrate;
use arrivals::Arrivals;
use delay::Delay;
use falling::{CUT, Cut, FAIR_CUT, LOSS_OURS, LOSS_SHARED, Rival, TRIED};
use loss::{Advice, Loss};
use rehearsal::{Link, Outcome, Rehearsals, Wants};
use rtt::Rtt;
use said::Said;
use sent::{News, Register};
pub use share::Share;

/// Headers of IPv4 and UDP.
pub const IP_UDP_BYTES: usize = 28;

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
    /// 1 Mbit/s to start, until the first hint: a picture of the middle size. The floor is one
    /// smallest picture and audio. The ceiling is more than anybody can look at.
    fn default() -> Self {
        Self {
            start: Bitrate::kbps(1000),
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
    arrivals: Arrivals,
    delay: Delay,
    loss: Loss,
    rehearsals: Rehearsals,
    wants: Wants,
    cut: Option<Cut>,
    rival: Option<Rival>,
    rtt: Rtt,
    /// When it was first told of something.
    since: Option<Instant>,
    /// A first hint was given.
    begun: bool,
    /// Last time the receiver told anything of use.
    heard: Option<Instant>,
    /// The receiver doesn't tell what arrives; what it says instead of how much does, if it does.
    blind: bool,
    said: Said,
    /// A limit that the path is given by hand.
    limit: Option<Bitrate>,
    grown: Instant,
}

/// Rate by which an estimate that is used up grows, per second.
const GROWTH: f64 = 1.08;

/// It is used up if this part of it came through.
const USED: f64 = 0.8;

/// It doesn't grow beyond so many times what came through.
const GROWTH_MAX: f64 = 1.2;

/// With nothing heard for this long the estimate stays. Feedback comes every 50 to 250 ms.
const FRESH: Duration = Duration::from_secs(1);

/// Nothing is tried so soon after a cut.
const CALM: Duration = Duration::from_millis(500);

/// A queue below this, and jitter, is calm.
const QUEUE_CALM: Duration = Duration::from_millis(25);

/// What came through is measured over this.
const MEASURE: Duration = Duration::from_millis(500);

/// The first hint of a new leg is trusted up to this, and to this part.
const FIRST_MAX: Bitrate = Bitrate::kbps(6000);
/// See [`FIRST_MAX`].
const FIRST: f64 = 0.85;

impl Estimator {
    /// For a new leg.
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            estimate: bounds.start.clamp(bounds.floor, bounds.ceiling),
            register: Register::new(now),
            arrivals: Arrivals::new(),
            delay: Delay::new(now),
            loss: Loss::new(now),
            rehearsals: Rehearsals::new(now),
            wants: Wants::default(),
            cut: None,
            rival: None,
            rtt: Rtt::new(now),
            since: None,
            begun: false,
            heard: None,
            blind: false,
            said: Said::new(),
            limit: None,
            grown: now,
        }
    }

    /// A packet left, `bytes` long. `seq` is its transport-wide sequence number before it was cut
    /// to 16 bits; each is higher than the one before.
    pub fn sent(&mut self, seq: u64, bytes: usize, now: Instant) {
        let bytes = bytes + IP_UDP_BYTES;
        self.register.push(seq, bytes, now);
        self.rehearsals.sent(seq, bytes as u64, now);
    }

    /// The receiver told what arrived. What was never sent, or was told before, is ignored. Whether
    /// the estimate is another now by more than a little.
    pub fn feedback(&mut self, now: Instant, twcc: &Twcc<'_>) -> bool {
        let before = self.estimate;
        let mut newest_sent = None;
        self.delay.slide(now);
        let base = self.delay.base(now);
        let late = i64::try_from((QUEUE_CALM + self.delay.noise() * 2).as_micros());
        let late = base.zip(late.ok()).map(|(base, late)| base + late);
        for (seq, arrival) in twcc.packets() {
            match self.register.tell(seq, arrival.is_some()) {
                News::None => {}
                News::Lost => self.loss.lost(),
                News::Arrived {
                    sent,
                    bytes,
                    late: recovered,
                } => {
                    newest_sent = newest_sent.max(Some(sent));
                    let Some(arrival) = arrival else { continue };
                    let (sent, received) = (self.register.micros(sent), arrival.micros());
                    if self.delay.add(now, received - sent) {
                        self.arrivals = Arrivals::new();
                    }
                    self.arrivals.add(now, sent, received, bytes);
                    self.rehearsals.arrived(seq, bytes, (sent, received));
                    let waited = late.is_some_and(|late| received - sent > late);
                    self.loss.arrived(now, waited, recovered);
                }
            }
        }
        self.arrivals.close_group(now);
        let Some(sent) = newest_sent else {
            return false;
        };
        self.heard = Some(now);
        self.rtt.transport(now, now.saturating_duration_since(sent));
        self.judge(now);
        self.begin(now);
        self.estimate.as_bps().abs_diff(before.as_bps()) * 50 > before.as_bps()
    }

    /// A receiver reports this part of one of our streams as lost, 0 to 1.
    pub fn stream_lost(&mut self, now: Instant, part: f64) {
        self.said.lost(now, part);
    }

    /// A report on one of our streams came; `ntp` is now on our clock.
    pub fn report(&mut self, ntp: Ntp, block: &ReportBlock) {
        self.rtt.report(ntp, block);
    }

    /// The first hint that a new leg's link gives is as good as any guess.
    fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        if !self.begun
            && let Some(hint) = self.arrivals.hint(now)
        {
            self.begun = true;
            let first = hint.scale(FIRST).min(FIRST_MAX);
            self.estimate = self.bounded(first);
        }
    }

    /// Looks what the news means.
    fn judge(&mut self, now: Instant) {
        let noise = self.delay.noise();
        let base = self.delay.base(now).unwrap_or_default();
        let busy = self.arrivals.busy(base, QUEUE_CALM + noise * 2, noise);
        let growing = busy.filter(|busy| busy.grows);
        let hint = self.arrivals.hint(now);
        let seen = hint.unwrap_or(self.estimate);
        if let Some(busy) = growing {
            self.rehearsals.congested(now, seen);
            self.loss.abandon();
            self.fall(now, busy.carries);
        } else if self
            .delay
            .queue(now)
            .is_some_and(|queue| queue < QUEUE_CALM + noise)
        {
            self.delay.learn(now);
        }
        self.watch_rival(now, hint);
        self.judge_standing(now, busy, seen);
        let is_new = self.is_new(now);
        let most = if self.rival.is_some() {
            LOSS_SHARED
        } else {
            LOSS_OURS
        };
        match self.loss.judge(now, most, is_new) {
            Advice::Cut => {
                if let Some(rival) = &mut self.rival {
                    rival.part *= FAIR_CUT;
                }
                self.rehearsals.congested(now, seen);
                let carries = busy.map_or(self.came(), |busy| busy.carries);
                self.fall(now, carries);
            }
            // What was sent before was too much: it is not to be tried again soon.
            Advice::Helped => self.rehearsals.fail(now, seen),
            Advice::Try => {
                let less = self.came().scale(TRIED);
                self.fall(now, less);
            }
            Advice::Restore => {
                if let Some(cut) = self.cut.take() {
                    self.estimate = self.estimate.max(cut.before);
                }
            }
            Advice::Go => {}
        }
        let calm = growing.is_none() && self.is_calm(now);
        let rtt = self.rtt.transport.unwrap_or_default();
        match self.rehearsals.judge(now, calm, rtt, seen) {
            Some(Outcome::Held { rate, against }) => {
                let most = hint.filter(|_| !against);
                let most = most.map_or(rate, |hint| self.rehearsals.outdone(hint));
                self.estimate = self.bounded(self.estimate.max(rate.min(most)));
                if self.estimate < self.wants.next {
                    // It didn't help, and wouldn't at once again.
                    self.rehearsals.fail(now, seen);
                }
            }
            Some(Outcome::Failed(came)) if calm => {
                self.estimate = self.bounded(self.estimate.max(came.scale(CUT)));
            }
            Some(Outcome::Failed(_)) | None => {}
        }
    }

    /// What came through lately.
    fn came(&self) -> Bitrate {
        let span = self.arrivals.span(MEASURE);
        let long = span.filter(|span| span.sending >= MEASURE / 2 || span.is_all);
        long.map_or(self.estimate, |span| span.rate())
    }

    fn bounded(&self, rate: Bitrate) -> Bitrate {
        rate.clamp(self.bounds.floor, self.bounds.ceiling)
    }

    fn is_calm(&mut self, now: Instant) -> bool {
        let calm = QUEUE_CALM + self.delay.noise();
        let cut = |cut: Cut| now.saturating_duration_since(cut.at) < CALM;
        !self.cut.is_some_and(cut) && self.delay.queue(now).is_some_and(|queue| queue < calm)
    }

    /// Lets time pass: slow growth, and rehearsals, if the leg `can_pad`. Due about every 100 ms.
    pub fn tick(&mut self, now: Instant, can_pad: bool) {
        if self.blind {
            self.said.consider(now, self.wants.next);
        }
        let rtt = self.rtt.transport.unwrap_or_default();
        self.rehearsals.expire(now, rtt, self.estimate);
        let passed = now.saturating_duration_since(self.grown).min(FRESH);
        self.grown = now;
        let fresh = |heard: Instant| now.saturating_duration_since(heard) < FRESH;
        if !self.heard.is_some_and(fresh) || !self.is_calm(now) {
            return;
        }
        let came = self.came();
        // Without padding nothing can be tried out but by sending more.
        if came >= self.estimate.scale(USED) || !can_pad {
            let grown = self.estimate.scale(GROWTH.powf(passed.as_secs_f64()));
            let hint = self.arrivals.hint(now).unwrap_or(Bitrate::MAX);
            let used = if can_pad {
                came.scale(GROWTH_MAX)
            } else {
                Bitrate::MAX
            };
            let most = used.min(self.rehearsals.outdone(hint));
            self.estimate = self.bounded(grown.min(most).max(self.estimate));
        }
        self.rehearsals.forget(now);
        let limited = self.limit.is_some_and(|limit| limit < self.estimate);
        if !can_pad || limited || self.estimate >= self.bounds.ceiling {
            return;
        }
        let link = Link {
            estimate: self.estimate,
            hint: self.arrivals.hint(now),
            ceiling: self.bounds.ceiling,
            loss: self.loss.shares(now).all,
            is_new: self.is_new(now),
        };
        self.rehearsals.consider(now, self.wants, &link);
    }

    fn is_new(&self, now: Instant) -> bool {
        let new = |since: Instant| now.saturating_duration_since(since) < rehearsal::NEW;
        self.since.is_none_or(new)
    }

    /// What would be sent if it could.
    pub fn want(&mut self, wants: Wants) {
        self.wants = wants;
    }

    /// Whether nothing hints at what the link carries, although more is wanted.
    pub fn lacks_hint(&self, now: Instant) -> bool {
        let more = self.wants.next > self.estimate();
        !self.blind && (!self.begun || more) && self.arrivals.hint(now).is_none()
    }

    /// Whether nothing was heard that an estimate could begin with.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// When padding is due next, after some at `last`; none if none is.
    pub fn next_padding(&self, last: Option<Instant>) -> Option<Instant> {
        self.rehearsals.next_padding(last)
    }

    /// Bytes of padding that are due.
    pub fn padding(&self, now: Instant) -> u64 {
        self.rehearsals.padding(now)
    }

    /// What the link is thought to carry, everything included that has a transport-wide number.
    pub fn estimate(&self) -> Bitrate {
        let limit = self.limit.unwrap_or(Bitrate::MAX);
        self.pace().min(limit)
    }

    /// What packets are paced by: the same without a limit by hand.
    pub fn pace(&self) -> Bitrate {
        match self.blind {
            true => self.said.carries().min(self.bounds.ceiling),
            false => self.estimate,
        }
    }

    /// Whether the receiver can't tell what arrives: its client doesn't know how.
    pub fn set_blind(&mut self, blind: bool) {
        self.blind = blind;
    }

    /// A receiver that can't tell what arrives says how much may be sent (REMB).
    pub fn receiver_says(&mut self, now: Instant, rate: Bitrate) {
        self.said.say(now, self.bounded(rate));
    }

    /// Shows no more than this, whatever the path carries.
    pub fn limit(&mut self, limit: Option<Bitrate>) {
        self.limit = limit;
    }

    /// Round-trip time: from receiver reports, else from feedback, which adds the time until the
    /// receiver sent it; `None` before the first.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt.best()
    }
}

#[cfg(test)]
mod tests;
