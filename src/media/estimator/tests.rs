use super::rtt::RTT_MAX;
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

    fn want(&mut self, kbps: u64) {
        let rate = Bitrate::kbps(kbps);
        self.estimator.want(Wants {
            next: rate,
            all: rate,
        });
    }

    fn run(&mut self, seconds: u64) -> Bitrate {
        self.run_for(Duration::from_secs(seconds))
    }

    fn run_for(&mut self, span: Duration) -> Bitrate {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            for _ in 0..self.estimator.padding(self.now) / PACKET as u64 {
                self.send();
            }
            let rate = self.demand.min(self.estimator.estimate());
            self.budget += rate.as_bps() as f64 / 8.0 * STEP.as_secs_f64();
            while self.budget >= PACKET as f64 {
                self.budget -= PACKET as f64;
                self.send();
            }
            let passed = self.now.duration_since(self.start).as_millis();
            if passed.is_multiple_of(100) {
                self.report();
                self.estimator.tick(self.now, true);
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
fn a_wide_link_is_found_as_far_as_it_is_wanted() {
    let mut story = Story::new();
    story.demand = Bitrate::kbps(300);
    story.want(2000);
    story.run(3);
    let after = kbps(story.run(7));
    assert!(after >= 2000, "{after}");
    story.want(15_000);
    let after = kbps(story.run(10));
    assert!(after > 15_000, "{after}");
}

#[test]
fn nothing_is_tried_that_nobody_wants() {
    let mut story = Story::new();
    story.demand = Bitrate::kbps(300);
    story.run(1);
    let before = story.seq;
    story.run(20);
    let sent = (story.seq - before) as usize * PACKET * 8 / 20_000;
    assert!((280..=310).contains(&sent), "{sent} kbit/s");
}

#[test]
fn a_narrow_link_is_found_within_seconds_and_its_queue_drains() {
    let mut story = Story::new();
    story.capacity = Bitrate::kbps(600);
    let soon = kbps(story.run(1));
    assert!((300..=600).contains(&soon), "{soon}");
    story.run(4);
    for second in 5..60 {
        let estimate = kbps(story.run(1));
        assert!((400..=660).contains(&estimate), "{second} s: {estimate}");
        let queue = story.queue();
        assert!(queue < Duration::from_millis(150), "{second} s: {queue:?}");
    }
}

#[test]
fn it_falls_with_the_link_and_climbs_back_in_seconds() {
    let mut story = Story::new();
    story.capacity = Bitrate::kbps(4000);
    story.demand = Bitrate::kbps(2500);
    story.want(2500);
    assert!(kbps(story.run(10)) > 2500);
    story.capacity = Bitrate::kbps(600);
    let fallen = kbps(story.run(1));
    assert!((250..=600).contains(&fallen), "{fallen}");
    story.run(9);
    story.capacity = Bitrate::kbps(4000);
    let back = kbps(story.run(10));
    assert!(back > 2500, "{back}");
}

#[test]
fn a_receiver_that_stands_still_at_times_is_not_congested() {
    for stall in [200, 400, 600] {
        let mut story = Story::new();
        story.demand = Bitrate::kbps(1000);
        story.run(3);
        story.stall = Duration::from_millis(stall);
        let mut last = Bitrate::kbps(1000);
        for second in 0..20 {
            let estimate = story.run(1);
            assert!(estimate >= last, "stall {stall} ms, {second} s");
            last = estimate;
        }
    }
}

#[test]
fn loss_for_no_reason_of_ours_changes_nothing_for_long() {
    for lose in [100, 20, 5] {
        let mut story = Story::new();
        story.demand = Bitrate::kbps(800);
        story.lose = lose;
        story.run(1);
        let before = kbps(story.run(1));
        let least = (0..16).map(|_| kbps(story.run(1))).min().unwrap_or(0);
        let after = kbps(story.estimator.estimate());
        assert!(after >= before, "1 of {lose}: {before} then {after}");
        // It is tried once whether less helps, where a lot is lost.
        assert_eq!(
            least < before,
            lose == 5,
            "1 of {lose}: {before}, least {least}"
        );
    }
}

#[test]
fn a_longer_path_is_taken_for_a_queue_for_a_moment_only() {
    let mut story = Story::new();
    story.demand = Bitrate::kbps(900);
    story.run(5);
    let before = kbps(story.estimator.estimate());
    story.delay += Duration::from_millis(150);
    let lowest = (0..40).map(|_| kbps(story.run_for(Duration::from_millis(100))));
    assert!(lowest.min() < Some(before));
    let after = kbps(story.run(1));
    assert!(after >= before, "{before}, then {after}");
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
        estimator.tick(at, true);
    }
    assert_eq!(estimator.estimate(), Bounds::default().start);
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
        estimator.tick(now, true);
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
