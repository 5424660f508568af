//! One stream that a client publishes: numbers, gaps, and how it arrives.

use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};

use super::gaps::Gaps;
use super::lateness::Lateness;
use crate::media::message::Kind;
use crate::media::ntp::Ntp;
use crate::media::rtcp::ReportBlock;
use crate::media::srtp::Window;
use crate::media::track::clock_rate;

/// Words of the replay window: 1024 packets, over a second of the fastest stream.
type Seen = Window<16>;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// As in its packets.
    pub ssrc: u32,
    /// Its media section.
    pub mid: Mid,
    /// Its layer, with simulcast.
    pub rid: Option<Rid>,
    /// It repeats packets of others: of the stream of that section and layer.
    pub repairs: bool,
    /// Audio or video.
    pub kind: Kind,
    /// When its last packet came.
    pub heard: Instant,
    /// Missing packets, of video.
    pub gaps: Gaps,
    newest: u64,
    seen: Seen,
    first: u64,
    received: u64,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// Arrival less timestamp of the last packet, in ticks of its clock, and how that varies, in
    /// sixteenths of them (RFC 3550 section A.8).
    transit: Option<u32>,
    jitter: u32,
    lateness: Lateness,
    /// The middle of the last sender report's time, and when it came.
    sender_report: Option<(u32, Instant)>,
}

/// A stream that nothing has come of for so long doesn't fill a queue.
const STILL: Duration = Duration::from_millis(100);

/// More than the jitter of a wireless network.
const LATE_MILLIS: u64 = 150;

impl Stream {
    /// Its first packet has been opened.
    pub fn new(
        ssrc: u32,
        mid: Mid,
        rid: Option<Rid>,
        kind: Kind,
        first: u64,
        now: Instant,
    ) -> Self {
        Self {
            ssrc,
            mid,
            rid,
            repairs: false,
            kind,
            heard: now,
            gaps: Gaps::default(),
            newest: first,
            seen: Seen::default(),
            first,
            received: 0,
            reported: (0, 0),
            transit: None,
            jitter: 0,
            lateness: Lateness::default(),
            sender_report: None,
        }
    }

    /// The extended number nearest to the newest with these lower bits (RFC 3711 section 3.3.1).
    pub fn index(&self, seq: u16) -> u64 {
        let ahead = seq.wrapping_sub(self.newest as u16) as i16;
        let index = self.newest.checked_add_signed(ahead.into());
        index.unwrap_or(seq.into())
    }

    /// Whether a packet of that number would be new.
    pub fn is_fresh(&self, index: u64) -> bool {
        self.seen.is_fresh(index)
    }

    /// A packet of that number was opened.
    pub fn note(&mut self, index: u64, timestamp: u32, since_start: Duration, now: Instant) {
        self.take(index);
        self.heard = now;
        self.received += 1;
        if index > self.newest {
            if self.kind == Kind::Video && !self.repairs {
                self.gaps.open(self.newest + 1..index, now);
            }
            self.newest = index;
        }
        let ticks = since_start.as_micros() as u64 * u64::from(clock_rate(self.kind)) / 1_000_000;
        let transit = (ticks as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let change = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A jump of the sender's clock is no jitter.
            if change < clock_rate(self.kind) {
                let decay = (self.jitter + 8) >> 4;
                self.jitter = (self.jitter + change).saturating_sub(decay);
            } else {
                self.lateness.forget();
            }
        }
        self.lateness.note(transit, now);
    }

    /// Whether so much stands in a queue on the way here that it may be full. What is missing was
    /// dropped by it then, and repetitions would keep it full.
    pub fn is_late(&self, now: Instant) -> bool {
        if now.saturating_duration_since(self.heard) > STILL {
            return false;
        }
        let late = u64::from(self.lateness.ticks()) * 1000 / u64::from(clock_rate(self.kind));
        late > LATE_MILLIS
    }

    /// A packet of that number came, by whichever way; whether it is the first time.
    pub fn take(&mut self, index: u64) -> bool {
        self.gaps.close(index);
        self.seen.take(index)
    }

    /// How arrivals vary.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs(1) * (self.jitter >> 4) / clock_rate(self.kind)
    }

    /// A report of its sender came.
    pub fn note_sender_report(&mut self, ntp: Ntp, now: Instant) {
        self.sender_report = Some(((ntp.0 >> 16) as u32, now));
    }

    /// What is to be told of it, if anything came since the last time (RFC 3550 section A.3).
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let expected = self.newest - self.first.min(self.newest) + 1;
        let (expected_before, received_before) = self.reported;
        if self.received == received_before {
            return None;
        }
        self.reported = (expected, self.received);
        let expected_now = expected.saturating_sub(expected_before);
        let lost_now = expected_now.saturating_sub(self.received - received_before);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0);
        let (last_report, delay) = self.sender_report.map_or((0, 0), |(report, at)| {
            let since = now.saturating_duration_since(at);
            (report, (since.as_secs_f64() * 65_536.0) as u32)
        });
        Some(ReportBlock {
            ssrc: self.ssrc.into(),
            fraction_lost: fraction.min(255) as u8,
            lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            seq_max: self.newest as u32,
            jitter: self.jitter >> 4,
            last_report,
            delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(first: u64, now: Instant) -> Stream {
        Stream::new(9, "0".into(), None, Kind::Video, first, now)
    }

    #[test]
    fn numbers_go_on_over_the_rollover_and_come_once() {
        let now = Instant::now();
        let mut stream = stream(65_530, now);
        let mut lost = Vec::new();
        for (seq, index) in [(65_530, 65_530), (2, 65_538), (65_535, 65_535), (0, 65_536)] {
            assert_eq!(stream.index(seq), index);
            assert!(stream.is_fresh(index));
            stream.note(index, 0, Duration::ZERO, now);
            assert!(!stream.is_fresh(index));
        }
        stream.gaps.ask(now, &mut lost);
        assert_eq!(lost, [65_531, 65_532, 65_533, 65_534, 1]);
    }

    #[test]
    fn reports_tell_what_is_lost_and_nothing_of_a_stream_that_rests() {
        let start = Instant::now();
        let mut stream = stream(10, start);
        assert_eq!(stream.report(start), None);
        for index in [10, 11, 13, 14] {
            stream.note(index, 0, Duration::ZERO, start);
        }
        stream.note_sender_report(Ntp(0x1_2345_6789 << 16), start);
        let report = stream
            .report(start + Duration::from_millis(500))
            .expect("news");
        assert_eq!((report.lost, report.fraction_lost), (1, 51));
        assert_eq!((report.seq_max, report.last_report), (14, 0x2345_6789));
        assert_eq!(report.delay, 32_768);
        assert_eq!(stream.report(start), None);
        stream.note(12, 0, Duration::ZERO, start);
        let report = stream.report(start).expect("news");
        assert_eq!((report.lost, report.fraction_lost), (0, 0));
    }

    #[test]
    fn jitter_is_that_of_arrivals() {
        let start = Instant::now();
        let mut stream = Stream::new(9, "0".into(), None, Kind::Audio, 0, start);
        for index in 0..1000 {
            // Every other packet is 5 ms late.
            let at = Duration::from_millis(20 * index + 5 * (index % 2));
            stream.note(index, 960 * index as u32, at, start);
        }
        let jitter = stream.jitter().as_secs_f64() * 1000.0;
        assert!((4.5..5.1).contains(&jitter), "{jitter}");
    }
}
