//! One run of a scenario with one seed.

use std::time::{Duration, Instant};

use super::figures::{self, Figures};
use super::scenario::Scenario;
use crate::media::message::Kind;
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
    /// What the shard thinks it does.
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
pub fn run(scenario: &Scenario, seed: u64) -> Trial {
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
        meeting.enter(name, scenario.link());
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
    let (figures, freezes) = figures::of(scenario, &outcome);
    Trial {
        seed,
        figures,
        samples,
        freezes,
    }
}

/// Lets the time of the scenario pass.
fn watch(
    meeting: &mut Meeting,
    scenario: &Scenario,
    start: Instant,
) -> (Vec<Sample>, Option<Instant>) {
    let mut samples = Vec::new();
    let mut ended = None;
    let mut seen = vec![0; scenario.publishers + 1];
    for _ in 0..scenario.seconds * 1000 / SAMPLE.as_millis() as u64 {
        meeting.run(SAMPLE);
        let mut bytes = 0;
        let mut layer = None;
        let streams = meeting.client(VIEWER).incoming.values();
        for (stream, seen) in streams.zip(&mut seen) {
            let Some(record) = &stream.record else {
                continue;
            };
            let new = record.packets.get(*seen..).unwrap_or_default();
            bytes += new.iter().map(figures::wire_bytes).sum::<u64>();
            *seen = record.packets.len();
            layer = layer.or(stream.decoder.shown.map(|(_, layer)| layer));
        }
        if ended.is_none() && has_ended(meeting) {
            // Since the last look.
            ended = Some(meeting.now() - SAMPLE);
        }
        let at = meeting.now().saturating_duration_since(start);
        samples.push(Sample {
            at,
            capacity: scenario.capacity(at.saturating_sub(SAMPLE)),
            estimate: estimate(meeting),
            received: Bitrate::of(bytes, SAMPLE),
            layer,
        });
    }
    (samples, ended)
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
        Some(Received {
            publisher: numbers.iter().position(|it| *it == stream.source.0)?,
            kind: stream.kind,
            record: stream.record.as_ref()?,
            layers: &stream.decoder.layers,
        })
    });
    streams.collect()
}
