//! What is measured of a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::playout;
use super::scenario::{Figure, Scenario};
use super::trial::{Outcome, Received, SAMPLE};
use crate::media::message::Kind;
use crate::sim::record::Arrived;
use crate::units::Bitrate;

/// The figures of a run; those that mean nothing for its scenario are missing.
pub type Figures = BTreeMap<Figure, f64>;

/// When pictures stood, from the viewer's entry, and for how long.
pub type Stood = Vec<(Duration, Duration)>;

/// What a packet takes on the wire beside its payload: IPv4 and UDP, RTP header with a
/// transport-wide number, authentication tag.
const OVERHEAD: u64 = 28 + 12 + 8 + 16;

/// Bytes of a packet on the wire.
pub fn wire_bytes(packet: &Arrived) -> u64 {
    packet.bytes as u64 + OVERHEAD
}

/// Steps of the ladder: payload rates of a camera's layers, by spatial and temporal layer, in
/// kbit/s, and packets in a second. A larger picture at a quarter of its frames is none.
const LADDER: [(u64, u64); 7] = [
    (60, 8),
    (90, 15),
    (150, 30),
    (300, 15),
    (500, 60),
    (1020, 60),
    (1700, 210),
];

/// How close a recovery has to come, and over how long a mean.
const RECOVERED: f64 = 0.9;
/// See [`RECOVERED`].
const MEAN: usize = 10;

/// Packets on their way when a run ends don't count as lost.
const UNDER_WAY: u64 = 50;

/// Measures a run.
pub fn of(scenario: &Scenario, outcome: &Outcome<'_>) -> (Figures, Stood) {
    let mut figures = Figures::new();
    let mut note = |figure, value: Option<f64>| figures.extend(value.map(|value| (figure, value)));
    let minutes = scenario.seconds as f64 / 60.0;
    let pictures = || outcome.received.iter().filter(|it| it.kind == Kind::Video);
    note(Figure::Use, Some(part_used(outcome)));
    if scenario.publishers == 1 {
        note(Figure::LadderUse, Some(part_of_ladder(outcome)));
    }
    note(
        Figure::Start,
        pictures()
            .filter_map(|it| started(it, outcome.start))
            .reduce(f64::max),
    );
    note(Figure::Delay, delay_95(outcome));
    let switches: usize = pictures().map(|it| it.layers.len().saturating_sub(1)).sum();
    note(
        Figure::Switches,
        Some(switches as f64 / minutes / scenario.pictures() as f64),
    );
    let key_frames: u32 = outcome.offered.iter().map(|it| it.key_frames).sum();
    note(
        Figure::KeyFrames,
        Some(f64::from(key_frames) / minutes / scenario.publishers as f64),
    );
    if let Some(trouble) = scenario.trouble {
        note(Figure::Recovery, recovery(outcome, trouble));
        note(Figure::Fall, fall(outcome, trouble.0));
        if scenario.rival.is_some() {
            note(Figure::Share, Some(share(outcome, trouble)));
        }
    }
    note(Figure::Lower, lower(outcome));
    let (lost, gap) = sound(outcome);
    note(Figure::SoundLost, Some(lost * 100.0));
    note(Figure::SoundGap, Some(gap.as_secs_f64() * 1000.0));
    let (mut stood, mut moving) = (Vec::new(), 0);
    for picture in pictures() {
        let shown = playout::shown(&picture.record.frames);
        let freezes = playout::freezes(&shown, outcome.end);
        let since =
            |(at, span): (Instant, Duration)| (at.saturating_duration_since(outcome.start), span);
        stood.extend(freezes.all.into_iter().map(since));
        let layer = picture.layers.last().map_or(0, |(_, layer)| *layer);
        moving += usize::from(moves(&shown, layer, outcome.end));
    }
    let total: Duration = stood.iter().map(|(_, span)| *span).sum();
    let of_all = total.as_secs_f64() / scenario.seconds as f64 / scenario.pictures() as f64;
    note(Figure::Freeze, Some(of_all * 100.0));
    let longest = stood
        .iter()
        .map(|(_, span)| *span)
        .max()
        .unwrap_or_default();
    note(Figure::FreezeLongest, Some(longest.as_secs_f64()));
    note(
        Figure::Moving,
        Some(moving as f64 / scenario.pictures() as f64),
    );
    (figures, stood)
}

/// What was sent in the best layers, and the sound, as a rate on the wire.
fn ideal(outcome: &Outcome<'_>) -> Bitrate {
    let all = outcome.offered.iter().chain([&outcome.sound]);
    let bytes = all.map(|it| it.bytes + it.packets * OVERHEAD).sum();
    Bitrate::of(bytes, outcome.end.saturating_duration_since(outcome.start))
}

fn part_used(outcome: &Outcome<'_>) -> f64 {
    let ideal = ideal(outcome);
    let could: Bitrate = outcome
        .samples
        .iter()
        .map(|it| it.capacity.min(ideal))
        .sum();
    let came: Bitrate = outcome.samples.iter().map(|it| it.received).sum();
    came.as_bps() as f64 / could.as_bps().max(1) as f64
}

/// The rate on the wire of a step of the ladder.
fn step_rate((kbps, packets): (u64, u64)) -> Bitrate {
    Bitrate::kbps(kbps) + Bitrate::bps(packets * OVERHEAD * 8)
}

fn part_of_ladder(outcome: &Outcome<'_>) -> f64 {
    let span = outcome.end.saturating_duration_since(outcome.start);
    let sound = Bitrate::of(outcome.sound.bytes + outcome.sound.packets * OVERHEAD, span);
    let best = |capacity: Bitrate| {
        let room = capacity.scale(0.9).saturating_sub(sound);
        let fitting = LADDER.iter().rev().map(|step| step_rate(*step));
        let mut fitting = fitting.filter(|rate| *rate <= room);
        fitting.next().unwrap_or(step_rate(LADDER[0]))
    };
    let could: Bitrate = outcome.samples.iter().map(|it| best(it.capacity)).sum();
    let videos = outcome.received.iter().filter(|it| it.kind == Kind::Video);
    let packets = videos.flat_map(|it| &it.record.packets);
    let came = Bitrate::of(packets.map(wire_bytes).sum(), SAMPLE);
    came.as_bps() as f64 / could.as_bps().max(1) as f64
}

/// When the first packet of the layer came that was seen at the end.
fn started(picture: &Received<'_>, start: Instant) -> Option<f64> {
    let (_, last) = picture.layers.last()?;
    let mut layers = picture.layers.iter();
    let (at, _) = layers.find(|(_, layer)| layer == last)?;
    Some(at.saturating_duration_since(start).as_secs_f64())
}

fn delay_95(outcome: &Outcome<'_>) -> Option<f64> {
    let packets = outcome.received.iter().flat_map(|it| &it.record.packets);
    let first = packets.filter(|packet| !packet.repaired);
    let mut delays: Vec<_> = first
        .map(|packet| packet.at.saturating_duration_since(packet.sent))
        .collect();
    delays.sort_unstable();
    let base = delays.first()?;
    let at = delays.get(delays.len() * 95 / 100)?;
    Some((*at - *base).as_secs_f64() * 1000.0)
}

fn rate_between(outcome: &Outcome<'_>, from: u64, to: u64) -> Bitrate {
    let span = Duration::from_secs(from)..Duration::from_secs(to);
    let inside = outcome
        .samples
        .iter()
        .filter(|it| it.at > span.start && it.at <= span.end);
    let (sum, count) = inside.fold((Bitrate::ZERO, 0), |(sum, count), it| {
        (sum + it.received, count + 1)
    });
    sum.scale(1.0 / f64::from(count.max(1)))
}

/// A rate that never came back counts as the time that was left.
fn recovery(outcome: &Outcome<'_>, (from, to): (u64, u64)) -> Option<f64> {
    let wanted = rate_between(outcome, from.saturating_sub(10), from).scale(RECOVERED);
    let end = Duration::from_secs(to);
    let mut windows = outcome.samples.windows(MEAN);
    let back = windows.find(|window| {
        let mean = window.iter().map(|it| it.received).sum::<Bitrate>();
        let begins = window[0].at.saturating_sub(SAMPLE);
        begins + Duration::from_millis(1) >= end && mean.scale(1.0 / MEAN as f64) >= wanted
    });
    let last = outcome.samples.last()?.at;
    let at = back
        .and_then(|window| window.last())
        .map_or(last, |it| it.at);
    Some(at.saturating_sub(end).as_secs_f64())
}

fn fall(outcome: &Outcome<'_>, from: u64) -> Option<f64> {
    let begin = Duration::from_secs(from);
    let mut later = outcome.samples.iter().filter(|it| it.at > begin);
    let last = outcome.samples.last()?.at;
    let low = later.find(|it| it.estimate <= it.capacity.scale(1.1));
    Some(
        low.map_or(last, |it| it.at)
            .saturating_sub(begin)
            .as_secs_f64(),
    )
}

/// From when the largest layer ended until the last viewer saw another.
fn lower(outcome: &Outcome<'_>) -> Option<f64> {
    let ended = outcome.ended?;
    let pictures = outcome.received.iter().filter(|it| it.kind == Kind::Video);
    let each = pictures.map(|picture| {
        let mut later = picture.layers.iter().filter(|(at, _)| *at >= ended);
        later.next().map_or(outcome.end, |(at, _)| *at)
    });
    let last = each.max()?;
    Some(last.saturating_duration_since(ended).as_secs_f64())
}

fn share(outcome: &Outcome<'_>, (from, to): (u64, u64)) -> f64 {
    let span = Duration::from_secs(from)..Duration::from_secs(to);
    let inside = outcome
        .samples
        .iter()
        .filter(|it| it.at > span.start && it.at <= span.end);
    let (came, could) = inside.fold((0, 0), |(came, could), it| {
        (came + it.received.as_bps(), could + it.capacity.as_bps())
    });
    came as f64 / could.max(1) as f64
}

/// The part of the sound that never came, and its longest gap in the time of the sound; of the
/// viewer who misses most.
fn sound(outcome: &Outcome<'_>) -> (f64, Duration) {
    let heard = outcome.received.iter().filter(|it| it.kind == Kind::Audio);
    let heard = heard.map(|it| sound_of(outcome.sound_span, it));
    let nothing = (1.0, outcome.end - outcome.start);
    heard.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or(nothing)
}

fn sound_of((first, last): (u64, u64), heard: &Received<'_>) -> (f64, Duration) {
    let last = last.saturating_sub(UNDER_WAY);
    let came = heard.record.packets.iter().map(|it| it.seq);
    let mut numbers: Vec<_> = came.chain(heard.record.recovered.iter().copied()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    // Before its first packet there is no sound to be missed.
    let first = numbers.first().copied().unwrap_or(first);
    let inside: Vec<_> = numbers.iter().filter(|it| **it <= last).copied().collect();
    let expected = (last + 1).saturating_sub(first).max(1);
    let lost = 1.0 - (inside.len() as f64 / expected as f64).min(1.0);
    let gaps = inside.windows(2).map(|pair| pair[1] - pair[0] - 1);
    let tail = last.saturating_sub(inside.last().copied().unwrap_or(last));
    let longest = gaps.chain([tail]).max().unwrap_or(0);
    (lost, Duration::from_millis(20) * longest as u32)
}

/// Whether a picture moved in the last ten seconds.
fn moves(shown: &[Instant], layer: u8, end: Instant) -> bool {
    let span = Duration::from_secs(10);
    let recent = shown
        .iter()
        .filter(|at| end.saturating_duration_since(**at) < span);
    // 30 in a second, or 15 of a larger one; a tenth may be missing.
    recent.count() >= if layer > 0 { 135 } else { 270 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::trial::{Offered, Sample};
    use crate::sim::record::Record;

    /// A look each tenth of a second: what the link carries and what came, in kbit/s.
    fn samples(rates: &[(u64, u64)]) -> Vec<Sample> {
        let sample = |(number, (capacity, received)): (u32, &(u64, u64))| Sample {
            at: SAMPLE * number,
            capacity: Bitrate::kbps(*capacity),
            estimate: Bitrate::kbps(*received),
            received: Bitrate::kbps(*received),
            layer: None,
        };
        (1..).zip(rates).map(sample).collect()
    }

    fn outcome<'a>(samples: &'a [Sample], received: &'a [Received<'a>]) -> Outcome<'a> {
        let start = Instant::now();
        Outcome {
            start,
            end: start + SAMPLE * samples.len() as u32,
            samples,
            received,
            offered: &[],
            sound: Offered::default(),
            sound_span: (1, 1000),
            ended: None,
        }
    }

    #[test]
    fn a_recovery_is_over_when_a_second_of_it_was_as_good_as_before() {
        // 2 s well, 2 s badly, 1 s on the way, then well.
        let mut rates = vec![(3000, 2000); 20];
        rates.extend([(300, 200); 20]);
        rates.extend([(3000, 1000); 10]);
        rates.extend([(3000, 2000); 20]);
        let samples = samples(&rates);
        let outcome = outcome(&samples, &[]);
        let recovered = recovery(&outcome, (2, 4)).expect("a figure");
        assert!((recovered - 1.8).abs() < 0.001, "{recovered}");
        assert_eq!(fall(&outcome, 2), Some(0.1));
        let never = recovery(&outcome, (2, 7)).expect("a figure");
        assert_eq!(never, 0.0, "nothing is left");
    }

    #[test]
    fn sound_counts_as_lost_if_it_came_in_no_way() {
        let at = Instant::now();
        let packet = |seq| Arrived {
            at,
            sent: at,
            seq,
            bytes: 80,
            repaired: false,
        };
        let mut record = Record::default();
        let lost = 500..=509;
        let came = (11..=1000).filter(|seq| !lost.contains(seq) && *seq != 700);
        record.packets.extend(came.map(packet));
        // One of them came along with later sound.
        record.recovered.push(505);
        let received = [Received {
            publisher: 0,
            kind: Kind::Audio,
            record: &record,
            layers: &[],
        }];
        let (lost, gap) = sound(&outcome(&[], &received));
        // Ten of 940: the last fifty may be on their way.
        assert!((lost - 10.0 / 940.0).abs() < 1e-9, "{lost}");
        assert_eq!(gap, Duration::from_millis(100));
    }

    #[test]
    fn what_a_link_could_carry_is_no_more_than_was_sent() {
        let samples = samples(&[(1000, 500), (1000, 1000), (100, 50)]);
        let mut outcome = outcome(&samples, &[]);
        let offered = [Offered {
            packets: 0,
            bytes: 18_750,
            key_frames: 0,
        }];
        outcome.offered = &offered;
        // 500 kbit/s on average: 500, 500 and 100 could come.
        assert!((part_used(&outcome) - 1550.0 / 1100.0).abs() < 1e-6);
    }
}
