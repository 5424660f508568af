//! One run of a scenario with one seed.

use std::time::{Duration, Instant};

use super::figures::{self, Figures};
use super::scenario::Scenario;
use super::stock;
use super::subject::Subject;
use crate::media::message::Kind;
use crate::sim::receiving::Incoming;
use crate::sim::record::Record;
use crate::sim::{Link, Medium, Meeting};
use crate::units::Bitrate;

/// What came of a run.
pub struct Trial {
    /// Its seed.
    pub seed: u64,
    /// What was measured.
    pub figures: Figures,
    /// How it went, every [`SAMPLE`].
    pub samples: Vec<Sample>,
    /// When pictures stood, from the viewer's entry, and for how long.
    pub freezes: Vec<(Duration, Duration)>,
}

/// A look at the viewer's leg.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the viewer entered.
    pub at: Duration,
    /// What the link carries.
    pub capacity: Bitrate,
    /// What the subject thinks it does.
    pub estimate: Bitrate,
    /// What came since the last look.
    pub received: Bitrate,
    /// The layer of the first picture that was seen last.
    pub layer: Option<u8>,
}

/// Between two looks.
pub const SAMPLE: Duration = Duration::from_millis(100);

/// Publishers are there for this long before the viewer.
const BEFORE: Duration = Duration::from_secs(4);

/// Who watches, the one whose link is looked at.
const VIEWER: &str = "viewer 0";

/// One stream as the viewer had it.
pub struct Received<'a> {
    /// Of whom, counted from 0.
    pub publisher: usize,
    /// Audio or video.
    pub kind: Kind,
    /// What came.
    pub record: &'a Record,
    /// Each change of layer.
    pub layers: &'a [(Instant, u8)],
}

impl<'a> Received<'a> {
    /// What came of this publisher's stream, if it was kept.
    pub fn of(stream: &'a Incoming, publisher: usize) -> Option<Self> {
        Some(Self {
            publisher,
            kind: stream.kind,
            record: stream.record.as_ref()?,
            layers: &stream.decoder.layers,
        })
    }
}

/// What was sent of one track.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offered {
    /// Packets and bytes of its best layer, while the viewer was there.
    pub packets: u64,
    /// See `packets`.
    pub bytes: u64,
    /// Key frames of all layers.
    pub key_frames: u32,
}

/// What a run leaves behind to be measured.
pub struct Outcome<'a> {
    /// When the viewer entered.
    pub start: Instant,
    /// When it was over.
    pub end: Instant,
    /// The looks.
    pub samples: &'a [Sample],
    /// What came.
    pub received: &'a [Received<'a>],
    /// What could have come: of each publisher, and of its microphone.
    pub offered: &'a [Offered],
    /// See `offered`.
    pub sound: Offered,
    /// Sound that was sent: the first and the last number.
    pub sound_span: (u64, u64),
    /// When the first publisher was seen to end its largest layer.
    pub ended: Option<Instant>,
}

/// Runs `scenario`.
pub fn run(scenario: &Scenario, subject: Subject, seed: u64) -> Trial {
    match subject {
        Subject::Shard => meet(scenario, seed, Meeting::enter),
        Subject::Remb => meet(scenario, seed, Meeting::enter_with_rate),
        Subject::Stock => stock::run(scenario, true, seed),
        Subject::Unpadded => stock::run(scenario, false, seed),
    }
}

fn meet(scenario: &Scenario, seed: u64, enter: fn(&mut Meeting, &str, Link)) -> Trial {
    let mut meeting = Meeting::seeded(seed);
    let names: Vec<_> = (0..scenario.publishers).map(publisher).collect();
    for (number, name) in names.iter().enumerate() {
        meeting.enter(name, scenario.uplink().unwrap_or_else(Link::broadband));
        if scenario.uplink.is_some() {
            meeting.follow_uplink(name);
        }
        meeting.publish(name, Medium::camera("camera"));
        if number == 0 {
            meeting.publish(name, Medium::microphone("microphone"));
        }
    }
    meeting.run(BEFORE);
    let start = meeting.now();
    let before = offered(&meeting, &names);
    let sound_first = sound_newest(&meeting, &names[0]);
    let viewers: Vec<_> = (0..scenario.viewers)
        .map(|number| format!("viewer {number}"))
        .collect();
    for name in &viewers {
        enter(&mut meeting, name, scenario.link());
        meeting.record(name);
    }
    let (samples, ended) = watch(&mut meeting, scenario, start);
    let end = meeting.now();
    let after = offered(&meeting, &names);
    let sound_span = (sound_first + 1, sound_newest(&meeting, &names[0]));
    let mut totals: Vec<_> = after.iter().zip(&before).map(|(a, b)| a.since(b)).collect();
    let sound = totals.pop().unwrap_or_default();
    let received = received(&meeting, &names, &viewers);
    let outcome = Outcome {
        start,
        end,
        samples: &samples,
        received: &received,
        offered: &totals,
        sound,
        sound_span,
        ended,
    };
    Trial::of(scenario, seed, &outcome)
}

impl Trial {
    /// Measures a run.
    pub fn of(scenario: &Scenario, seed: u64, outcome: &Outcome<'_>) -> Self {
        let (figures, freezes) = figures::of(scenario, outcome);
        Self {
            seed,
            figures,
            samples: outcome.samples.to_vec(),
            freezes,
        }
    }
}

/// Lets the time of the scenario pass.
fn watch(
    meeting: &mut Meeting,
    scenario: &Scenario,
    start: Instant,
) -> (Vec<Sample>, Option<Instant>) {
    let mut watch = Watch::new(scenario.publishers + 1);
    let mut ended = None;
    for _ in 0..scenario.seconds * 1000 / SAMPLE.as_millis() as u64 {
        meeting.run(SAMPLE);
        let at = meeting.now().saturating_duration_since(start);
        let estimate = estimate(meeting);
        let streams = meeting.client(VIEWER).incoming.values();
        watch.look(scenario, at, estimate, streams);
        if ended.is_none() && has_ended(meeting) {
            // Since the last look.
            ended = Some(meeting.now() - SAMPLE);
        }
    }
    (watch.samples, ended)
}

/// Whether the first publisher has ended its largest layer.
fn has_ended(meeting: &Meeting) -> bool {
    let published = &meeting.client(&publisher(0)).published;
    let videos = published.iter().filter(|it| it.medium.kind == Kind::Video);
    let mut largest = videos.filter_map(|track| track.streams.last());
    largest.any(|stream| stream.encoder.rests())
}

fn publisher(number: usize) -> String {
    format!("publisher {number}")
}

/// Whoever looks at what comes, again and again.
pub struct Watch {
    /// The looks so far.
    pub samples: Vec<Sample>,
    /// Packets of each stream seen by the last one.
    seen: Vec<usize>,
}

impl Watch {
    /// Nothing has been seen of so many streams.
    pub fn new(streams: usize) -> Self {
        Self {
            samples: Vec::new(),
            seen: vec![0; streams],
        }
    }

    /// A look, one [`SAMPLE`] after the last one.
    pub fn look<'a>(
        &mut self,
        scenario: &Scenario,
        at: Duration,
        estimate: Bitrate,
        streams: impl Iterator<Item = &'a Incoming>,
    ) {
        let mut bytes = 0;
        let mut layer = None;
        for (stream, seen) in streams.zip(&mut self.seen) {
            let Some(record) = &stream.record else {
                continue;
            };
            let new = record.packets.get(*seen..).unwrap_or_default();
            bytes += new.iter().map(figures::wire_bytes).sum::<u64>();
            *seen = record.packets.len();
            layer = layer.or(stream.decoder.shown.map(|(_, layer)| layer));
        }
        self.samples.push(Sample {
            at,
            capacity: scenario.capacity(at.saturating_sub(SAMPLE)),
            estimate,
            received: Bitrate::of(bytes, SAMPLE),
            layer,
        });
    }
}

/// What the shard thinks the viewer's link carries.
fn estimate(meeting: &mut Meeting) -> Bitrate {
    let facts = meeting.measure();
    let legs = facts.iter().flat_map(|facts| &facts.legs);
    let mut own = legs.filter(|leg| leg.participant.as_str() == VIEWER);
    own.next().map_or(Bitrate::ZERO, |leg| leg.estimate)
}

impl Offered {
    fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            key_frames: self.key_frames - before.key_frames,
        }
    }
}

/// What each publisher has sent of its camera so far, and the first of its microphone.
fn offered(meeting: &Meeting, names: &[String]) -> Vec<Offered> {
    let of = |name: &String, kind: Kind| {
        let mut published = meeting.client(name).published.iter();
        let track = published.find(|track| track.medium.kind == kind);
        let streams = track.map_or(&[][..], |track| &track.streams);
        let (packets, bytes) = streams.last().map_or((0, 0), |best| best.sent());
        Offered {
            packets: packets.into(),
            bytes: bytes.into(),
            key_frames: streams.iter().map(|it| it.encoder.key_frames).sum(),
        }
    };
    let videos = names.iter().map(|name| of(name, Kind::Video));
    let sound = names.first().map(|name| of(name, Kind::Audio));
    videos.chain(sound).collect()
}

/// The number of the newest packet of somebody's microphone.
fn sound_newest(meeting: &Meeting, name: &str) -> u64 {
    let published = meeting.client(name).published.iter();
    let sound = published.filter(|track| track.medium.kind == Kind::Audio);
    let streams = sound.flat_map(|track| &track.streams);
    streams.map(|it| it.encoder.newest()).max().unwrap_or(0)
}

fn received<'a>(meeting: &'a Meeting, names: &[String], viewers: &[String]) -> Vec<Received<'a>> {
    let number = |name: &String| meeting.client(name).number;
    let numbers: Vec<_> = names.iter().map(number).collect();
    let viewers = viewers.iter().map(|name| meeting.client(name));
    let streams = viewers.flat_map(|viewer| viewer.incoming.values());
    let streams = streams.filter_map(|stream| {
        let publisher = numbers.iter().position(|it| *it == stream.source.0)?;
        Received::of(stream, publisher)
    });
    streams.collect()
}
