//! Wall clock times in the form RTCP speaks, and what keeps lips in sync.
//!
//! A publisher's sender reports say which RTP timestamp belongs to which moment on *its* wall
//! clock, and that clock may show anything. [`SenderClock`] carries those moments over to our own
//! clock with one offset for all streams of a participant: a common error shifts sound and picture
//! together, which nobody notices. [`TimestampMap`] then ties the timestamps of one stream to our
//! clock: for the sender reports we write, and to find the timestamp that layer A would have had
//! at the moment of a packet of layer B.

use std::collections::VecDeque;
use std::time::Duration;

/// A wall clock time in seconds since 1900, 32 bits before and 32 behind the point. It comes round
/// in 2036; only differences are taken, and those are right as long as they are below 68 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ntp(pub u64);

impl Ntp {
    /// From the time since 1970.
    pub fn from_unix(unix: Duration) -> Self {
        let seconds = unix.as_secs().wrapping_add(UNIX_EPOCH_SECONDS);
        Self((seconds << 32).wrapping_add(fraction(unix.subsec_nanos())))
    }

    /// The middle 32 bits, in which reports refer to each other: 1/65536 s.
    pub const fn middle_32(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// How far `self` is after `other`; negative when it is before.
    pub const fn since(self, other: Self) -> Offset {
        Offset(self.0.wrapping_sub(other.0) as i64)
    }

    /// The time `offset` later.
    pub const fn plus(self, offset: Offset) -> Self {
        Self(self.0.wrapping_add_signed(offset.0))
    }
}

/// A signed difference of two [`Ntp`] times, in 2^-32 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Offset(i64);

impl Offset {
    /// From a span of less than 68 years; longer ones count as that.
    pub const fn from_duration(span: Duration) -> Self {
        if span.as_secs() > i32::MAX as u64 {
            return Self(i64::MAX);
        }
        Self((span.as_secs() << 32) as i64 + fraction(span.subsec_nanos()) as i64)
    }

    /// From RTP clock ticks. `rate` is not 0.
    fn from_ticks(ticks: i32, rate: u32) -> Self {
        Self((i64::from(ticks) << 32) / i64::from(rate))
    }

    /// In RTP clock ticks, to the nearest.
    fn ticks(self, rate: u32) -> i128 {
        (i128::from(self.0) * i128::from(rate) + (1 << 31)) >> 32
    }

    /// Without the sign.
    pub const fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }

    fn clamp_to(self, most: Self) -> Self {
        Self(self.0.clamp(-most.0, most.0))
    }
}

/// Carries the wall clock of one publisher over to ours; one for all of its streams.
///
/// A report's arrival minus its own time is the difference of the clocks plus the time the report
/// travelled. The least of the last reports is the one that travelled fastest, so the minimum is
/// what we follow, and slowly, so that maps made from earlier reports stay right meanwhile.
#[derive(Debug, Clone, Default)]
pub struct SenderClock {
    /// What to add to a time of theirs, and when that was last changed.
    offset: Option<(Offset, Ntp)>,
    /// The last differences; at most [`SenderClock::SAMPLES_MAX`], the oldest goes first.
    samples: VecDeque<Offset>,
    /// A difference far off `offset` that the next report may confirm.
    suspect: Option<Offset>,
}

impl SenderClock {
    /// Reports over which the minimum is taken: some 20 s of a camera and a microphone. More would
    /// follow a drifting clock too late, fewer would see the jitter of single reports.
    pub const SAMPLES_MAX: usize = 32;

    /// The offset moves by at most one part in this many: 1 ms per second. An ear doesn't hear
    /// that, a clock doesn't drift faster, and two maps of one participant whose reports are 5 s
    /// apart differ by 5 ms at most.
    const SLEW: i64 = 1000;

    /// Takes a report in that arrived at `arrival` and gives its time on our clock.
    ///
    /// A report whose time is off by more than a second counts as made when it arrived: an
    /// absurd clock costs its own participant the exact lip sync and nobody anything else. If the
    /// next report agrees with it, the publisher's clock was set, and the offset follows.
    pub fn observe(&mut self, theirs: Ntp, arrival: Ntp) -> Ntp {
        // RFC 3550 section 6.4.1: a sender without a clock writes zero.
        if theirs.0 == 0 {
            return arrival;
        }
        let sample = arrival.since(theirs);
        let Some((offset, since)) = self.offset else {
            return self.restart(sample, theirs, arrival);
        };
        if distance(sample, offset) > IMPLAUSIBLE {
            let confirmed = self
                .suspect
                .replace(sample)
                .is_some_and(|suspect| distance(sample, suspect) <= IMPLAUSIBLE);
            if confirmed {
                return self.restart(sample, theirs, arrival);
            }
            return arrival;
        }
        self.suspect = None;
        if self.samples.len() == Self::SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        let target = self.samples.iter().min().copied().unwrap_or(sample);
        let slew = Offset(arrival.since(since).0.max(0) / Self::SLEW);
        let step = Offset(target.0.saturating_sub(offset.0)).clamp_to(slew);
        let offset = Offset(offset.0.saturating_add(step.0));
        self.offset = Some((offset, arrival));
        theirs.plus(offset)
    }

    fn restart(&mut self, sample: Offset, theirs: Ntp, arrival: Ntp) -> Ntp {
        self.samples.clear();
        self.samples.push_back(sample);
        self.suspect = None;
        self.offset = Some((sample, arrival));
        theirs.plus(sample)
    }
}

/// Ties the RTP timestamps of one source stream to our clock.
#[derive(Debug, Clone)]
pub struct TimestampMap {
    /// RTP clock ticks per second; not 0.
    rate: u32,
    /// The last packet seen.
    packet: Option<Anchor>,
    /// The last report.
    report: Option<Anchor>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    ntp: Ntp,
    rtp: u32,
}

impl TimestampMap {
    /// For a stream with this clock rate in Hz; 0 counts as 1.
    pub fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            packet: None,
            report: None,
        }
    }

    /// A packet arrived. Until the first report the map rests on this: a layer that just started
    /// has sent its key frame, but no report.
    pub fn packet(&mut self, arrival: Ntp, rtp: u32) {
        self.packet = Some(Anchor { ntp: arrival, rtp });
        // A stream that restarts its timestamps makes its last report worthless.
        if self.report.is_some_and(|report| !self.agrees(report)) {
            self.report = None;
        }
    }

    /// A report came; `ntp` is from [`SenderClock::observe`]. Ignored when it doesn't fit the
    /// packets of the stream.
    pub fn report(&mut self, ntp: Ntp, rtp: u32) {
        let report = Anchor { ntp, rtp };
        if self.agrees(report) {
            self.report = Some(report);
        }
    }

    /// The timestamp of the stream at a moment; `None` before its first packet or report.
    pub fn rtp_at(&self, ntp: Ntp) -> Option<u32> {
        self.anchor().map(|anchor| self.extend(anchor, ntp))
    }

    /// The moment of a timestamp of the stream; `None` before its first packet or report.
    pub fn ntp_of(&self, rtp: u32) -> Option<Ntp> {
        self.anchor().map(|anchor| {
            let ticks = rtp.wrapping_sub(anchor.rtp) as i32;
            anchor.ntp.plus(Offset::from_ticks(ticks, self.rate))
        })
    }

    fn anchor(&self) -> Option<Anchor> {
        self.report.or(self.packet)
    }

    fn extend(&self, anchor: Anchor, ntp: Ntp) -> u32 {
        let ticks = ntp.since(anchor.ntp).ticks(self.rate);
        anchor.rtp.wrapping_add(ticks as u32)
    }

    /// Whether a report and the last packet tell about the same time.
    fn agrees(&self, report: Anchor) -> bool {
        self.packet.is_none_or(|packet| {
            let expected = self.extend(report, packet.ntp);
            let ticks = packet.rtp.wrapping_sub(expected) as i32;
            Offset::from_ticks(ticks, self.rate).abs() <= DISAGREEMENT
        })
    }
}

/// Seconds from 1900 to 1970.
const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;

/// A report that is this far off the others is not believed at once. No report that helps lip
/// sync travels for a second.
const IMPLAUSIBLE: Offset = Offset(1 << 32);

/// A report whose timestamp is this far off that of the packets is not believed. Encoders hold
/// pictures back, a sound card may have a buffer, and the last packet may have been delayed: all
/// far below; timestamps that were made up or restarted are mostly far above.
const DISAGREEMENT: Offset = Offset(5 << 32);

/// Nanoseconds below one second in 2^-32 s.
const fn fraction(nanos: u32) -> u64 {
    ((nanos as u64) << 32) / 1_000_000_000
}

fn distance(a: Offset, b: Offset) -> Offset {
    Offset(a.0.wrapping_sub(b.0)).abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Offset {
        Offset::from_duration(Duration::from_millis(millis))
    }

    /// Our clock, this long after some start.
    fn at(millis: u64) -> Ntp {
        Ntp::from_unix(Duration::from_secs(1_800_000_000)).plus(ms(millis))
    }

    /// A publisher's clock that is 7 h 13 s behind ours.
    fn theirs(millis: u64) -> Ntp {
        at(millis).plus(Offset(-(25_213 << 32)))
    }

    fn near(a: Ntp, b: Ntp, millis: u64) {
        let off = a.since(b).abs();
        assert!(
            off <= ms(millis),
            "off by {} ms",
            off.0 as f64 / 4_294_967.296
        );
    }

    #[test]
    fn ntp_counts_from_1900_and_wraps_in_2036() {
        assert_eq!(Ntp::from_unix(Duration::ZERO).0, 2_208_988_800 << 32);
        let half = Ntp::from_unix(Duration::from_millis(500));
        assert_eq!(half.0 & 0xffff_ffff, 1 << 31);
        assert_eq!(half.middle_32(), (2_208_988_800u64 << 16) as u32 | 0x8000);
        let before = Ntp::from_unix(Duration::from_secs((1 << 32) - 2_208_988_800 - 1));
        let after = Ntp::from_unix(Duration::from_secs((1 << 32) - 2_208_988_800 + 1));
        assert_eq!(after.since(before), ms(2000));
        assert_eq!(Offset::from_duration(Duration::MAX), Offset(i64::MAX));
    }

    #[test]
    fn the_fastest_report_sets_the_offset_and_streams_share_it() {
        let mut clock = SenderClock::default();
        // The first report travelled 80 ms, later ones 20 to 100 ms.
        near(clock.observe(theirs(0), at(80)), at(80), 0);
        let mut last = 0;
        for second in 1..200u64 {
            let travel = 20 + second * 37 % 80;
            let ours = clock.observe(theirs(second * 1000), at(second * 1000 + travel));
            let error = ours.since(at(second * 1000)).0;
            assert!(second == 1 || (error - last).abs() <= ms(3).0, "jumped");
            last = error;
        }
        assert!(
            (0..=ms(25).0).contains(&last),
            "settles at the least travel time"
        );
    }

    #[test]
    fn an_absurd_clock_counts_as_arrival() {
        let mut clock = SenderClock::default();
        clock.observe(theirs(0), at(20));
        for absurd in [0, 1, 1 << 62, 1 << 63] {
            assert_eq!(clock.observe(Ntp(absurd), at(500)), at(500));
        }
        // This one travelled 100 ms longer than the first: the offset stayed what it was.
        near(clock.observe(theirs(1000), at(1120)), at(1020), 1);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_from_the_second_report_on() {
        let mut clock = SenderClock::default();
        clock.observe(theirs(0), at(20));
        let set = |millis| theirs(millis).plus(ms(3_600_000));
        assert_eq!(clock.observe(set(1000), at(1020)), at(1020));
        near(clock.observe(set(2000), at(2030)), at(2030), 0);
        near(clock.observe(set(3000), at(3030)), at(3030), 1);
    }

    #[test]
    fn timestamps_and_moments_are_inverse_across_wraparound() {
        let mut map = TimestampMap::new(90_000);
        assert_eq!(map.rtp_at(at(0)), None);
        map.report(at(0), u32::MAX - 44_999);
        assert_eq!(map.rtp_at(at(500)), Some(0));
        assert_eq!(map.rtp_at(at(1000)), Some(45_000));
        near(map.ntp_of(45_000).unwrap(), at(1000), 0);
        assert_eq!(
            map.rtp_at(at(0).plus(Offset(-(1 << 32)))),
            Some(u32::MAX - 134_999)
        );
    }

    #[test]
    fn a_layer_switch_finds_the_timestamp_of_the_other_layer() {
        let (mut low, mut high) = (TimestampMap::new(90_000), TimestampMap::new(90_000));
        low.report(at(0), 1000);
        high.report(at(700), 4_000_000_000);
        let moment = high.ntp_of(4_000_000_000 + 27_000).unwrap();
        assert!(low.rtp_at(moment).unwrap().abs_diff(1000 + 90_000) <= 1);
    }

    #[test]
    fn packets_carry_the_map_until_a_report_comes_and_absurd_reports_are_ignored() {
        let mut map = TimestampMap::new(48_000);
        map.packet(at(0), 5000);
        assert_eq!(map.rtp_at(at(1000)), Some(53_000));
        map.report(at(1000), 3_000_000_000);
        assert_eq!(map.rtp_at(at(1000)), Some(53_000));
        map.report(at(1000), 53_480);
        assert_eq!(map.rtp_at(at(1000)), Some(53_480));
        map.packet(at(1020), 3_000_000_000);
        assert_eq!(
            map.rtp_at(at(1020)),
            Some(3_000_000_000),
            "restarted stream"
        );
    }

    #[test]
    fn absurd_input_never_panics() {
        let mut clock = SenderClock::default();
        let mut map = TimestampMap::new(0);
        let mut word = 1u64;
        for _ in 0..10_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let ours = clock.observe(Ntp(word), Ntp(word.rotate_left(17)));
            map.report(ours, word as u32);
            map.packet(Ntp(word.rotate_left(33)), (word >> 32) as u32);
            map.rtp_at(Ntp(!word));
            map.ntp_of((word >> 16) as u32);
            assert!(clock.samples.len() <= SenderClock::SAMPLES_MAX);
        }
    }
}
