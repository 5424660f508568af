use super::*;
use crate::media::rtcp::{Item, read};

const PACKET: usize = 1200;
const STEP: Duration = Duration::from_millis(5);

/// A leg over a link with one queue, in virtual time. The sender sends what the estimate allows,
/// but not more than `demand`; the receiver reports every 100 ms.
struct Story {
    estimator: Estimator,
    start: Instant,
    now: Instant,
    seq: u64,
    /// What the application has to send.
    demand: Bitrate,
    /// What the link carries.
    capacity: Bitrate,
    /// One way without a queue; the way back takes no time.
    delay: Duration,
    /// One packet of so many is lost; 0 for none.
    lose: u64,
    /// The receiver's process stands still for this long at the start of every second.
    stall: Duration,
    budget: f64,
    /// When the link will have sent all it has.
    idle: Instant,
    /// Not yet reported: number and arrival.
    told: Vec<(u64, Option<Instant>)>,
}

impl Story {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            estimator: Estimator::new(Bounds::default(), start),
            start,
            now: start,
            seq: 0,
            demand: Bitrate::kbps(50_000),
            capacity: Bitrate::kbps(50_000),
            delay: Duration::from_millis(30),
            lose: 0,
            stall: Duration::ZERO,
            budget: 0.0,
            idle: start,
            told: vec![],
        }
    }

    fn run(&mut self, seconds: u64) -> Bitrate {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += STEP;
            let rate = self.demand.min(self.estimator.estimate());
            self.budget += rate.as_bps() as f64 / 8.0 * STEP.as_secs_f64();
            while self.budget >= PACKET as f64 {
                self.budget -= PACKET as f64;
                self.send();
            }
            let passed = self.now.duration_since(self.start).as_millis();
            if passed.is_multiple_of(100) {
                self.report();
                self.estimator.tick(self.now);
            }
        }
        self.estimator.estimate()
    }

    fn send(&mut self) {
        self.seq += 1;
        self.estimator.sent(self.seq, PACKET, self.now);
        self.idle = self.idle.max(self.now) + self.capacity.time_for(PACKET as u64);
        let mut arrival = self.idle + self.delay;
        let second = arrival.duration_since(self.start).subsec_nanos();
        arrival += self
            .stall
            .saturating_sub(Duration::from_nanos(second.into()));
        let lost = self.lose > 0 && self.seq.is_multiple_of(self.lose);
        self.told.push((self.seq, (!lost).then_some(arrival)));
    }

    fn report(&mut self) {
        let here = |at: &Option<Instant>| at.is_none_or(|at| at <= self.now);
        let ready = self.told.iter().take_while(|(_, at)| here(at)).count();
        let told: Vec<_> = self.told.drain(..ready).collect();
        feed(&mut self.estimator, self.now, self.start, &told);
    }

    fn queue(&self) -> Duration {
        self.idle.saturating_duration_since(self.now)
    }
}

/// Hands a feedback over in the form it comes: one chunk and one large delta for each packet.
fn feed(estimator: &mut Estimator, now: Instant, start: Instant, told: &[(u64, Option<Instant>)]) {
    let Some((base, _)) = told.first() else {
        return;
    };
    // 40 s into the receiver's time, so that arrivals before `start` could be told.
    let micros = |at: Instant| 40_000_000 + at.saturating_duration_since(start).as_micros() as i64;
    let first = told.iter().find_map(|(_, at)| *at).unwrap_or(start);
    let reference = micros(first) / 64_000;
    let mut time = reference * 256;
    let (mut chunks, mut deltas) = (vec![], vec![]);
    for (_, at) in told {
        chunks.extend(if at.is_some() { [0x40, 1] } else { [0, 1] });
        if let Some(at) = at {
            let ticks = micros(*at) / 250;
            deltas.extend(((ticks - time) as i16).to_be_bytes());
            time = ticks;
        }
    }
    let mut packet = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    packet.extend((*base as u16).to_be_bytes());
    packet.extend((told.len() as u16).to_be_bytes());
    packet.extend(((reference as u32) << 8).to_be_bytes());
    packet.extend(chunks);
    packet.extend(deltas);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    for item in read(&packet) {
        let Ok(Item::Twcc(twcc)) = item else {
            panic!("{item:?}");
        };
        estimator.feedback(now, &twcc);
    }
}

fn kbps(bitrate: Bitrate) -> u64 {
    bitrate.as_bps() / 1000
}

#[test]
fn a_wide_link_lets_it_grow_to_the_ceiling_even_if_little_is_sent() {
    let mut story = Story::new();
    story.demand = Bitrate::kbps(300);
    let after_10 = kbps(story.run(10));
    assert!((6000..7000).contains(&after_10), "{after_10}");
    assert_eq!(story.run(30), Bounds::default().ceiling);
}

#[test]
fn a_narrow_link_is_found_within_seconds_and_its_queue_drains() {
    let mut story = Story::new();
    story.capacity = Bitrate::kbps(1000);
    let soon = kbps(story.run(3));
    assert!((400..1000).contains(&soon), "{soon}");
    story.run(10);
    assert!(
        story.queue() < Duration::from_millis(150),
        "{:?}",
        story.queue()
    );
    for second in 13..60 {
        let estimate = kbps(story.run(1));
        assert!((500..1250).contains(&estimate), "{second} s: {estimate}");
        assert!(
            story.queue() < Duration::from_millis(600),
            "{:?}",
            story.queue()
        );
    }
}

#[test]
fn it_falls_with_the_link_and_climbs_back() {
    let mut story = Story::new();
    story.capacity = Bitrate::kbps(4000);
    story.demand = Bitrate::kbps(2500);
    assert!(kbps(story.run(10)) > 3000);
    story.capacity = Bitrate::kbps(600);
    let fallen = kbps(story.run(8));
    assert!((250..600).contains(&fallen), "{fallen}");
    story.capacity = Bitrate::kbps(4000);
    let back = kbps(story.run(30));
    assert!(back > 2000, "{back}");
}

#[test]
fn a_receiver_that_stands_still_at_times_is_not_congested() {
    for stall in [200, 400, 600] {
        let mut story = Story::new();
        story.demand = Bitrate::kbps(1000);
        story.stall = Duration::from_millis(stall);
        let mut last = Bitrate::ZERO;
        for second in 0..20 {
            let estimate = story.run(1);
            assert!(estimate >= last, "stall {stall} ms, {second} s");
            last = estimate;
        }
    }
}

#[test]
fn heavy_loss_cuts_medium_loss_holds_light_loss_does_nothing() {
    let after = |lose| {
        let mut story = Story::new();
        story.demand = Bitrate::kbps(1000);
        story.lose = lose;
        kbps(story.run(5))
    };
    assert!(after(5) < 900, "20 %: {}", after(5));
    // Grown only until enough packets were told of.
    assert!((3000..3100).contains(&after(20)), "5 %: {}", after(20));
    assert!(after(100) > 4000, "1 %: {}", after(100));
}

#[test]
fn a_longer_path_is_not_a_queue_forever() {
    let mut story = Story::new();
    story.demand = Bitrate::kbps(500);
    story.run(5);
    story.delay += Duration::from_millis(150);
    let lowest = kbps(story.run(6));
    assert!(lowest < 500, "{lowest}");
    assert!(kbps(story.run(40)) > 1500);
}

#[test]
fn repeated_failure_holds_longer_and_success_forgets() {
    let now = Instant::now();
    let mut hold = Hold::default();
    let mut at = now;
    for seconds in [2, 4, 8, 16, 32, 32] {
        hold.failed(at);
        assert_eq!(hold.until, Some(at + Duration::from_secs(seconds)));
        hold.failed(at);
        at = hold.until.unwrap();
        assert!(!hold.may_grow(at - STEP) && hold.may_grow(at));
    }
    hold.failed(at + HOLD_FORGET);
    assert_eq!(hold.until, Some(at + HOLD_FORGET + HOLD));
}

#[test]
fn without_feedback_the_estimate_stays() {
    let now = Instant::now();
    let mut estimator = Estimator::new(Bounds::default(), now);
    for tick in 0..1000 {
        let at = now + Duration::from_millis(100) * tick;
        estimator.sent(tick.into(), PACKET, at);
        // Told of packets that were never sent: no sign of life.
        feed(&mut estimator, at, now, &[(u64::from(tick) + 5, Some(at))]);
        estimator.tick(at);
    }
    assert_eq!(estimator.estimate(), Bounds::default().start);
}

#[test]
fn who_starves_grows_without_feedback_but_not_before_the_hold_is_over() {
    let mut now = Instant::now();
    let mut estimator = Estimator::new(Bounds::default(), now);
    let mut after = |estimator: &mut Estimator, seconds: u64| {
        for _ in 0..seconds * 10 {
            now += Duration::from_millis(100);
            estimator.tick(now);
        }
        estimator.estimate()
    };
    let start = after(&mut estimator, 5);
    estimator.hold.failed(estimator.ticked);
    estimator.starve(true);
    assert_eq!(after(&mut estimator, 1), start);
    let grown = after(&mut estimator, 3);
    assert!(grown >= start.scale(GROWTH * GROWTH), "{grown:?}");
    estimator.starve(false);
    assert_eq!(after(&mut estimator, 5), grown);
}

#[test]
fn whatever_a_receiver_claims_the_estimate_keeps_its_bounds() {
    let start = Instant::now();
    let bounds = Bounds::default();
    let mut estimator = Estimator::new(bounds, start);
    let mut word = 7u64;
    for step in 0..20_000u64 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let now = start + Duration::from_millis(step * 10);
        estimator.sent(step, (word >> 40) as usize, now);
        let mut told: Vec<_> = (step.saturating_sub(word >> 60)..step + 3)
            .map(|seq| (seq, (seq & 3 > word & 3).then_some(now)))
            .collect();
        if word >> 32 & 7 == 0 {
            told.iter_mut()
                .for_each(|(seq, _)| *seq = seq.wrapping_add(word));
        }
        let claimed = start + Duration::from_micros(word >> 33);
        let shift = if word >> 20 & 1 == 0 { start } else { claimed };
        feed(&mut estimator, now, shift, &told);
        let block = ReportBlock {
            ssrc: 1.into(),
            fraction_lost: 255,
            lost: -1,
            seq_max: 0,
            jitter: 0,
            last_report: word as u32,
            delay: (word >> 32) as u32,
        };
        estimator.report(Ntp(word), &block);
        estimator.tick(now);
        assert!(estimator.estimate() >= bounds.floor && estimator.estimate() <= bounds.ceiling);
        assert!(estimator.rtt().is_none_or(|rtt| rtt <= RTT_MAX));
    }
}

#[test]
fn round_trip_from_reports_goes_before_that_from_feedback() {
    let mut story = Story::new();
    story.run(2);
    let rtt = story.estimator.rtt().unwrap();
    assert!(
        rtt >= story.delay && rtt < Duration::from_millis(50),
        "{rtt:?}"
    );
    let ours = Ntp::from_unix(Duration::from_secs(1_800_000_000));
    let mut block = ReportBlock {
        ssrc: 1.into(),
        fraction_lost: 0,
        lost: 0,
        seq_max: 0,
        jitter: 0,
        last_report: ours.middle_32().wrapping_sub(65_536 * 3),
        delay: 65_536 * 2,
    };
    story.estimator.report(ours, &block);
    assert_eq!(story.estimator.rtt(), Some(Duration::from_secs(1)));
    block.delay = 65_536 * 4;
    story.estimator.report(ours, &block);
    block.last_report = 0;
    story.estimator.report(ours, &block);
    assert_eq!(
        story.estimator.rtt(),
        Some(Duration::from_secs(1)),
        "lies are ignored"
    );
}

fn told(delay: &mut Delay, at: Instant, micros: i64) {
    delay.slide(at);
    delay.add(at, micros);
}

#[test]
fn one_late_feedback_is_a_moment_and_only_several_are_a_queue() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut delay = Delay::new(start);
    told(&mut delay, at(0), 0);
    (0..50).for_each(|_| told(&mut delay, at(700), 200_000));
    assert!(!delay.congested(at(700)));
    told(&mut delay, at(800), 190_000);
    assert!(delay.congested(at(800)));
    told(&mut delay, at(800), 10_000);
    assert!(!delay.congested(at(800)), "one packet escaped it");
}

#[test]
fn a_queue_that_drains_is_left_alone_and_one_that_stays_is_cut_again() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    for (after, again) in [(250_000, false), (295_000, true)] {
        let mut delay = Delay::new(start);
        told(&mut delay, at(0), 0);
        (600..1000)
            .step_by(10)
            .for_each(|time| told(&mut delay, at(time), 300_000));
        assert!(delay.congested(at(1000)));
        delay.cut(at(1000));
        (1500..2000)
            .step_by(10)
            .for_each(|time| told(&mut delay, at(time), after));
        assert!(!delay.congested(at(1999)), "judged only after a second");
        assert_eq!(delay.congested(at(2000)), again);
    }
}
