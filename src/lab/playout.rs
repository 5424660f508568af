//! What is seen of decoded frames behind a jitter buffer, and how long it stood still.

use std::time::{Duration, Instant};

use crate::sim::record::Decoded;

/// The buffer holds at least this much, as browsers do on a quiet network.
const DELAY_MIN: Duration = Duration::from_millis(80);

/// And at most this.
const DELAY_MAX: Duration = Duration::from_millis(500);

/// What it gives back in a second in which nothing was late.
const SHRINK: f64 = 0.010;

/// Intervals that the mean is taken of.
const INTERVALS: usize = 30;

/// A picture stands if its next one comes so much after the mean interval.
const LATE: Duration = Duration::from_millis(150);

/// When pictures stood still.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Freezes {
    /// Each: since when, and for how long.
    pub all: Vec<(Instant, Duration)>,
}

impl Freezes {
    /// Together.
    pub fn total(&self) -> Duration {
        self.all.iter().map(|(_, span)| *span).sum()
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        let spans = self.all.iter().map(|(_, span)| *span);
        spans.max().unwrap_or_default()
    }
}

/// When each frame is shown. It is shown in its own time, later by what the buffer holds; one that
/// comes too late for that is shown as it comes, and the buffer holds more from then on.
pub fn shown(frames: &[Decoded]) -> Vec<Instant> {
    let transit = |frame: &Decoded| frame.at.saturating_duration_since(frame.sent);
    let base = frames.iter().map(transit).min().unwrap_or_default();
    let mut delay = DELAY_MIN;
    let mut last: Option<Instant> = None;
    let mut shown = Vec::with_capacity(frames.len());
    for frame in frames {
        let needed = transit(frame).saturating_sub(base);
        if let Some(last) = last {
            let passed = frame.at.saturating_duration_since(last).as_secs_f64();
            let less = Duration::from_secs_f64(SHRINK * passed.min(1.0));
            delay = delay.saturating_sub(less).max(DELAY_MIN);
        }
        delay = delay.max(needed.min(DELAY_MAX));
        let at = frame.at.max(frame.sent + base + delay);
        let at = last.map_or(at, |last| at.max(last));
        last = Some(at);
        shown.push(at);
    }
    shown
}

/// When pictures that are shown at these times stood still, by the definition of
/// `totalFreezesDuration` (W3C webrtc-stats): longer than three times the mean interval, or than
/// that and 150 ms. To `end` the last one is seen.
pub fn freezes(shown: &[Instant], end: Instant) -> Freezes {
    let mut freezes = Freezes::default();
    let mut intervals: Vec<Duration> = Vec::new();
    let last = shown.last().map(|last| (*last, end));
    let pairs = shown.windows(2).map(|pair| (pair[0], pair[1]));
    for (before, at) in pairs.chain(last) {
        let interval = at.saturating_duration_since(before);
        let known = &intervals[intervals.len().saturating_sub(INTERVALS)..];
        if !known.is_empty() {
            let mean = known.iter().sum::<Duration>() / known.len() as u32;
            if interval > (mean * 3).max(mean + LATE) {
                freezes.all.push((before, interval));
                continue;
            }
        }
        intervals.push(interval);
    }
    freezes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// One frame each 33 ms, 40 ms on its way, but for those named.
    fn frames(start: Instant, count: u64, late: &[(u64, u64)]) -> Vec<Decoded> {
        let frame = |number: u64| {
            let sent = start + ms(33 * number);
            let extra = late.iter().find(|(which, _)| *which == number);
            Decoded {
                at: sent + ms(40 + extra.map_or(0, |(_, extra)| *extra)),
                sent,
                layer: 0,
                temporal: 0,
            }
        };
        (0..count).map(frame).collect()
    }

    #[test]
    fn the_buffer_hides_what_it_holds_and_grows_by_what_it_does_not() {
        let start = Instant::now();
        let hidden = shown(&frames(start, 60, &[(30, 79)]));
        assert!(hidden.windows(2).all(|pair| pair[1] - pair[0] == ms(33)));
        let late = shown(&frames(start, 90, &[(30, 280)]));
        // The late one shows at once, and those after it as much later.
        assert_eq!(late[30] - start, ms(33 * 30 + 320));
        assert!(late[31] - start > ms(33 * 31 + 315));
    }

    #[test]
    fn a_picture_that_stands_is_a_freeze_and_a_short_hitch_is_none() {
        let start = Instant::now();
        let at = |millis: &[u64]| -> Vec<_> { millis.iter().map(|it| start + ms(*it)).collect() };
        let steady: Vec<u64> = (0..30).map(|number| number * 33).collect();
        let end = start + ms(29 * 33 + 100);
        assert_eq!(freezes(&at(&steady), end), Freezes::default());
        let mut stands = steady.clone();
        stands.extend((0..10).map(|number| 29 * 33 + 500 + number * 33));
        let found = freezes(&at(&stands), start + ms(29 * 33 + 900));
        assert_eq!(found.all, [(start + ms(29 * 33), ms(500))]);
        assert_eq!((found.total(), found.longest()), (ms(500), ms(500)));
        // What is last seen for long stands too.
        let open = freezes(&at(&steady), start + ms(29 * 33 + 1000));
        assert_eq!(open.longest(), ms(1000));
    }
}
