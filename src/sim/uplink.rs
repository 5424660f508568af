//! What a simulated publisher takes its uplink to carry, and what it encodes for that: as libwebrtc
//! does it, in small.
//!
//! The rate falls to 85 % of what came through when a trend line over the delays of packet groups
//! rises, and by half of the loss above a tenth of it; else it grows by 8 % a second, to at most
//! half more than came through. Layers get their rates from the smallest up; one that can't have
//! its least is off, and begins with a key frame when it is on again.
//!
//! In place of probes, packets that left together tell by their spacing what the way carries; if
//! that is far more, the rate jumps there, as after a probe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::media::rtcp::twcc::Twcc;
use crate::units::Bitrate;

/// Sent packets remembered until they are reported.
const SENT_MAX: usize = 4096;

/// Packets sent within this are one group.
const GROUP_MICROS: i64 = 5_000;

/// Groups that the trend line goes through, and the weight of the newest in what it is drawn of.
const TREND: usize = 20;
/// See [`TREND`].
const SMOOTHING: f64 = 0.9;
/// What makes a slope comparable to the threshold, in milliseconds.
const GAIN: f64 = 4.0;

/// Threshold of the trend, in milliseconds: where it starts, and its bounds.
const THRESHOLD: f64 = 12.5;
/// See [`THRESHOLD`].
const THRESHOLD_RANGE: (f64, f64) = (6.0, 600.0);

/// What came through is measured over this.
const ACKED_MICROS: i64 = 500_000;

/// After a fall of the rate the next one waits for its effect.
const SETTLES: Duration = Duration::from_millis(200);

/// So long after a fall, and after the last one, a jump may come; of so many pairs.
const JUMP_AFTER: Duration = Duration::from_secs(2);
/// See [`JUMP_AFTER`].
const PAIRS: usize = 15;

/// What is sent again is counted over this.
const REPEATED: Duration = Duration::from_millis(500);

/// Loss is judged of so many packets.
const LOSS_PACKETS: u32 = 50;

/// Part of its rate that a layer has to get, or it is off: of the smallest, and of the others.
const LEAST: [f64; 2] = [0.2, 0.35];

/// The estimate of one publisher.
#[derive(Debug)]
pub struct Uplink {
    next: u16,
    start: Instant,
    /// Number, microseconds from the start, and bytes of each packet.
    sent: VecDeque<(u16, i64, u64)>,
    rate: Bitrate,
    ceiling: Bitrate,
    group: Option<Group>,
    before: Option<Group>,
    trend: Trend,
    /// Arrivals and bytes of late.
    acked: VecDeque<(i64, u64)>,
    /// Packets reported, and lost among them, since the last judgement.
    reported: (u32, u32),
    updated: Instant,
    fell: Instant,
    jumped: Instant,
    /// When the newest packet was sent and arrived, and what pairs say.
    newest: (i64, i64),
    pairs: VecDeque<Bitrate>,
    /// Bytes sent again of late.
    repeated: VecDeque<(Instant, usize)>,
}

/// Packets that were sent together: times in microseconds.
#[derive(Debug, Clone, Copy)]
struct Group {
    begun: i64,
    sent: i64,
    arrived: i64,
}

/// A line through delays.
#[derive(Debug)]
pub(super) struct Trend {
    /// Arrival in milliseconds, and the smoothed sum of delays.
    points: VecDeque<(f64, f64)>,
    sum: f64,
    smoothed: f64,
    slope: f64,
    threshold: f64,
    over_since: Option<f64>,
}

impl Uplink {
    /// One that has come to know its uplink, which is more than it needs. `next` is its first
    /// transport-wide number.
    pub fn new(next: u16, now: Instant) -> Self {
        let ceiling = Bitrate::kbps(5000);
        Self {
            next,
            start: now,
            sent: VecDeque::new(),
            rate: ceiling,
            ceiling,
            group: None,
            before: None,
            trend: Trend::default(),
            acked: VecDeque::new(),
            reported: (0, 0),
            updated: now,
            fell: now,
            jumped: now,
            newest: (0, 0),
            pairs: VecDeque::new(),
            repeated: VecDeque::new(),
        }
    }

    /// The transport-wide number of a packet that leaves now.
    pub fn number(&mut self, now: Instant, bytes: usize) -> u16 {
        self.next = self.next.wrapping_add(1);
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        let micros = now.saturating_duration_since(self.start).as_micros() as i64;
        self.sent.push_back((self.next, micros, bytes as u64));
        self.next
    }

    /// Whether a packet may be sent again now: within half a second no more than the rate.
    pub fn may_repeat(&mut self, now: Instant, bytes: usize) -> bool {
        let more = Bitrate::of(bytes as u64, REPEATED);
        let may = self.repeating(now) + more <= self.rate;
        if may {
            self.repeated.push_back((now, bytes));
        }
        may
    }

    /// What is sent again.
    fn repeating(&mut self, now: Instant) -> Bitrate {
        let old = |at: &Instant| now.saturating_duration_since(*at) > REPEATED;
        while self.repeated.front().is_some_and(|(at, _)| old(at)) {
            self.repeated.pop_front();
        }
        let bytes = self.repeated.iter().map(|(_, bytes)| bytes).sum::<usize>();
        Bitrate::of(bytes as u64, REPEATED)
    }

    /// What it takes its uplink to carry.
    pub fn rate(&self) -> Bitrate {
        self.rate
    }

    /// The shard tells what has arrived.
    pub fn feedback(&mut self, now: Instant, feedback: &Twcc<'_>) {
        let mut over = false;
        for (number, arrival) in feedback.packets() {
            let Some(at) = self.sent.iter().position(|(sent, ..)| *sent == number) else {
                continue;
            };
            let (_, sent, bytes) = self.sent[at];
            self.sent.drain(..=at);
            self.reported.0 += 1;
            match arrival {
                Some(arrival) => over |= self.arrived(sent, arrival.micros(), bytes),
                None => self.reported.1 += 1,
            }
        }
        self.follow(over, now);
    }

    /// Whether the delay grows.
    fn arrived(&mut self, sent: i64, arrived: i64, bytes: u64) -> bool {
        self.acked.push_back((arrived, bytes));
        while (self.acked.front()).is_some_and(|(at, _)| arrived - at > ACKED_MICROS) {
            self.acked.pop_front();
        }
        let (sent_before, arrived_before) = std::mem::replace(&mut self.newest, (sent, arrived));
        if sent == sent_before {
            if self.pairs.len() == PAIRS {
                self.pairs.pop_front();
            }
            // Feedback knows quarters of a millisecond.
            let span = Duration::from_micros((arrived - arrived_before).max(250) as u64);
            self.pairs.push_back(Bitrate::of(bytes, span));
        }
        match &mut self.group {
            Some(group) if sent - group.begun <= GROUP_MICROS => {
                group.sent = sent;
                group.arrived = group.arrived.max(arrived);
                return false;
            }
            _ => {}
        }
        let begun = Group {
            begun: sent,
            sent,
            arrived,
        };
        let Some(ended) = self.group.replace(begun) else {
            return false;
        };
        let before = self.before.replace(ended);
        before.is_some_and(|before| {
            let delay = (ended.arrived - before.arrived) - (ended.sent - before.sent);
            let millis = |micros: i64| micros as f64 / 1000.0;
            self.trend.add(millis(ended.arrived), millis(delay))
        })
    }

    fn follow(&mut self, over: bool, now: Instant) {
        let passed = now.saturating_duration_since(self.updated);
        self.updated = now;
        let acked: u64 = self.acked.iter().map(|(_, bytes)| bytes).sum();
        let acked = Bitrate::of(acked, Duration::from_micros(ACKED_MICROS as u64));
        let settled = now.saturating_duration_since(self.fell) >= SETTLES;
        let (reported, lost) = self.reported;
        let loss = f64::from(lost) / f64::from(reported.max(1));
        if over && settled {
            self.rate = self.rate.min(acked.scale(0.85));
            self.fell = now;
        } else if !over && settled {
            let grown = self.rate.scale(1.08f64.powf(passed.as_secs_f64()));
            let most = acked.scale(1.5) + Bitrate::kbps(10);
            self.rate = grown.min(most).max(self.rate).min(self.ceiling);
            self.jump(now);
        }
        if reported >= LOSS_PACKETS {
            self.reported = (0, 0);
            if loss > 0.1 && settled {
                self.rate = self.rate.scale(1.0 - 0.5 * loss);
                self.fell = now;
            }
        }
        self.rate = self.rate.max(Bitrate::kbps(30));
    }

    /// Takes what pairs say, if that is far more.
    fn jump(&mut self, now: Instant) {
        let since = |at| now.saturating_duration_since(at) >= JUMP_AFTER;
        if self.pairs.len() < PAIRS || !since(self.fell) || !since(self.jumped) {
            return;
        }
        let mut pairs: Vec<_> = self.pairs.iter().copied().collect();
        pairs.sort_unstable();
        let hint = pairs[PAIRS / 2].scale(0.85);
        if hint > self.rate.scale(2.0) {
            self.rate = hint.min(self.ceiling);
            self.jumped = now;
            self.pairs.clear();
        }
    }

    /// What each layer of a camera gets that would have these rates, beside sound and what is sent
    /// again; `None` for one that is off.
    pub fn shares(
        &mut self,
        sound: Bitrate,
        rates: &[Bitrate],
        now: Instant,
    ) -> Vec<Option<Bitrate>> {
        let mut left = self.rate.saturating_sub(sound + self.repeating(now));
        let mut shares = vec![None; rates.len()];
        for (at, (share, full)) in shares.iter_mut().zip(rates).enumerate() {
            let given = left.min(*full);
            if given < full.scale(LEAST[at.min(1)]) && at > 0 {
                break;
            }
            *share = Some(given.max(rates[0].scale(LEAST[0])));
            left = left.saturating_sub(given);
        }
        shares
    }
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            points: VecDeque::new(),
            sum: 0.0,
            smoothed: 0.0,
            slope: 0.0,
            threshold: THRESHOLD,
            over_since: None,
        }
    }
}

impl Trend {
    /// One more group: when it arrived and how much later than the one before. Whether the queue
    /// grows.
    pub(super) fn add(&mut self, arrived: f64, delay: f64) -> bool {
        self.sum += delay;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.sum;
        if self.points.len() == TREND {
            self.points.pop_front();
        }
        let passed = self.points.back().map_or(0.0, |(at, _)| arrived - at);
        self.points.push_back((arrived, self.smoothed));
        if self.points.len() < TREND {
            return false;
        }
        let count = self.points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|it| it.0), mean(|it| it.1));
        let products = self.points.iter().map(|it| (it.0 - x) * (it.1 - y));
        let squares = self.points.iter().map(|it| (it.0 - x) * (it.0 - x));
        let squares: f64 = squares.sum();
        let slope = if squares > 0.0 {
            products.sum::<f64>() / squares
        } else {
            0.0
        };
        let rising = slope >= self.slope;
        self.slope = slope;
        let weight = slope * count * GAIN;
        let over = weight > self.threshold;
        // The threshold follows slowly, so that a transfer beside it doesn't starve it.
        if weight.abs() < self.threshold + 15.0 {
            let quick = if weight.abs() < self.threshold {
                0.039
            } else {
                0.0087
            };
            let moved = quick * (weight.abs() - self.threshold) * passed.min(100.0);
            let (least, most) = THRESHOLD_RANGE;
            self.threshold = (self.threshold + moved).clamp(least, most);
        }
        if !over {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(arrived);
        arrived - since >= 10.0 && rising
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_get_their_rates_from_the_smallest_up() {
        let now = Instant::now();
        let mut uplink = Uplink::new(0, now);
        let rates = [150, 500, 1700].map(Bitrate::kbps);
        let mut shares = |kbps| {
            uplink.rate = Bitrate::kbps(kbps);
            let shares = uplink.shares(Bitrate::kbps(50), &rates, now);
            shares
                .into_iter()
                .map(|it| it.map_or(0, |rate| rate.as_bps() / 1000))
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(5000), [150, 500, 1700]);
        assert_eq!(shares(1500), [150, 500, 800]);
        assert_eq!(shares(900), [150, 500, 0]);
        assert_eq!(shares(450), [150, 250, 0]);
        assert_eq!(shares(300), [150, 0, 0]);
        assert_eq!(shares(60), [30, 0, 0]);
    }
}
