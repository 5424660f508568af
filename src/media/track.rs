//! A published track: what was announced of it, and the streams it really comes in.

use std::time::{Duration, Instant};

use super::allocator::TEMPORAL_MAX;
use super::burst::Burst;
use super::codec::{Frame, dependency};
use super::encoding::Encoding;
use super::keyframe::KeyFrameRequests;
use super::layers::{OUTLIVED, SILENCE};
use super::loudest::{Numbers, Voice};
use super::message::{Kind, TrackInfo};
use super::ntp::TimestampMap;
use super::packet::{Layer, Packet};
use super::payload_type::Codecs;
use super::quality::Arrivals;
use super::relay::Origin;
use super::retransmit::Ring;
use super::speakers::{Detector, Turn};
use crate::units::Bitrate;

/// A published track.
pub struct Track {
    /// As others see it.
    pub info: TrackInfo,
    /// Who publishes it.
    pub publisher: Publisher,
    /// How it is coded: in one way, or in another too for those who can't read that. Never empty.
    pub encodings: Vec<Encoding>,
    /// Everybody gets the backup, as its publisher wants.
    pub regressed: bool,
    /// Whether the publisher was told of its first subscriber.
    pub subscribed_told: bool,
    /// Whether somebody speaks on it.
    pub speech: Detector,
    /// How loud that is of late, in a large room.
    pub voice: Voice,
    /// Whether it is the turn of its publisher to speak.
    pub turn: Turn,
}

/// Who publishes a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// The participant in this slot.
    Here(u32),
    /// A participant of another part of the room.
    There(Origin),
}

impl Publisher {
    /// The slot, if it is here.
    pub fn slot(self) -> Option<u32> {
        match self {
            Self::Here(slot) => Some(slot),
            Self::There(_) => None,
        }
    }

    /// Where it comes from, if it isn't.
    pub fn origin(self) -> Option<Origin> {
        match self {
            Self::Here(_) => None,
            Self::There(origin) => Some(origin),
        }
    }
}

/// Where a track goes: a participant and the subscription in its leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber {
    /// Slot of the participant.
    pub participant: u32,
    /// Slot in its leg.
    pub subscription: u32,
}

/// One stream of an encoding: a spatial layer, or all of it.
pub struct Stream {
    /// Its SSRC, once a packet came.
    pub ssrc: Option<u32>,
    /// The last packets of a video, for retransmissions to any subscriber.
    pub ring: Option<Ring>,
    /// What each of its spatial and temporal layers costs on the wire, without those below.
    pub rates: [[RateMeter; TEMPORAL_MAX]; Layer::COUNT_MAX],
    /// When the last packet of each of its spatial layers came.
    inner: [Option<Instant>; Layer::COUNT_MAX],
    /// When its last frames ended, and where the oldest of them stands.
    ended: ([Option<Instant>; OUTLIVED as usize], usize),
    /// How its dependency descriptors are to be read.
    pub dependency: dependency::State,
    /// Key frames asked for.
    pub key_frames: KeyFrameRequests,
    /// Its RTP clock against the publisher's wall clock.
    pub clock: TimestampMap,
    /// When other parts of the room were last told of that.
    pub clock_passed: Option<Instant>,
    /// What of it arrives.
    pub arrivals: Arrivals,
    /// What of it waits for the end of its frame.
    pub burst: Burst,
    /// Its numbers, without what a large room leaves out of its sound.
    pub numbers: Numbers,
}

impl Track {
    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.info.announced.kind
    }

    /// Everybody to whom it goes, by whichever encoding.
    pub fn subscribers(&self) -> impl Iterator<Item = &Subscriber> {
        self.encodings.iter().flat_map(|it| &it.subscribers)
    }

    /// The best of its encodings that such a client can read, as far as is known.
    pub fn readable(&self, codecs: &Codecs) -> Option<usize> {
        let reads = |it: &Encoding| codecs.reads(it.codec) != Some(false);
        match self.regressed {
            false => self.encodings.iter().position(reads),
            true => self.encodings.iter().rposition(reads),
        }
    }

    /// Nobody beyond a link wants anything of it any more.
    pub fn forget_pulls(&mut self, link: u32) {
        for encoding in &mut self.encodings {
            encoding.forget_pulls(link);
        }
    }

    /// Whether anything of it has ever come.
    pub fn has_begun(&self) -> bool {
        let mut streams = self.encodings.iter().flat_map(|it| &it.streams);
        streams.any(|stream| stream.ssrc.is_some())
    }

    /// It starts, anew after a pause. Whoever waits for a key frame says so again.
    pub fn resume(&mut self, now: Instant) {
        for encoding in &mut self.encodings {
            encoding.resume(now);
        }
    }
}

impl Stream {
    /// A stream nothing is known of yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            ssrc: None,
            // Lost audio is concealed by Opus; a repair would come too late to be heard.
            ring: (kind == Kind::Video).then(Ring::video),
            rates: Default::default(),
            inner: Default::default(),
            ended: Default::default(),
            dependency: dependency::State::default(),
            key_frames: KeyFrameRequests::default(),
            clock: TimestampMap::new(clock_rate(kind)),
            clock_passed: None,
            arrivals: Arrivals::default(),
            burst: Burst::default(),
            numbers: Numbers::default(),
        }
    }

    /// Notes a packet that just came.
    pub fn note(&mut self, packet: &Packet) {
        self.arrivals.count(packet.seq);
        let Frame {
            key,
            spatial,
            temporal,
            ..
        } = packet.frame;
        if packet.marker {
            let (ended, oldest) = &mut self.ended;
            ended[*oldest] = Some(packet.arrival);
            *oldest = (*oldest + 1) % ended.len();
        }
        let spatial = usize::from(spatial).min(Layer::COUNT_MAX - 1);
        let temporal = usize::from(temporal).min(TEMPORAL_MAX - 1);
        self.inner[spatial] = Some(packet.arrival);
        let bytes = packet.payload.len() + WIRE_BYTES;
        self.rates[spatial][temporal].add(packet.arrival, bytes);
        if key {
            self.key_frames.forget();
        }
    }

    /// Lets go of packets that are too old to be sent again; pushing does it too, but a muted
    /// camera pushes nothing.
    pub fn expire(&mut self, now: Instant) {
        if let Some(ring) = &mut self.ring {
            ring.expire(now);
        }
    }

    /// What it costs up to a spatial and each temporal layer; zero for those that don't come.
    pub fn rates(&self, spatial: usize, now: Instant) -> [Bitrate; TEMPORAL_MAX] {
        let mut total = Bitrate::ZERO;
        std::array::from_fn(|temporal| {
            let own = self.rates[spatial][temporal].rate(now);
            if own == Bitrate::ZERO || !self.is_live(spatial, now) {
                return Bitrate::ZERO;
            }
            let with_those_below = self.rates[..=spatial].iter().zip(0..);
            let live = with_those_below.filter(|(_, below)| self.is_live(*below, now));
            total = total + live.map(|(rates, _)| rates[temporal].rate(now)).sum();
            total
        })
    }

    /// Whether packets of a spatial layer come.
    pub fn is_live(&self, spatial: usize, now: Instant) -> bool {
        self.inner[spatial].is_some_and(|at| now.saturating_duration_since(at) < SILENCE)
    }

    /// Whether `other` has gone on for some frames since this one was last heard: a publisher who
    /// can't send all sizes any more ends the largest. A screen that doesn't change is silent in
    /// all sizes.
    pub fn is_outlived_by(&self, other: &Self) -> bool {
        let (ended, oldest) = &other.ended;
        let last = self.inner.iter().flatten().max();
        last.zip(ended[*oldest].as_ref())
            .is_some_and(|(last, ended)| ended > last)
    }
}

/// What a packet takes on the wire beside its payload: headers of IPv4 and UDP, RTP's with a
/// transport-wide number, authentication tag.
pub const WIRE_BYTES: usize = 28 + 12 + 8 + 16;

/// RTP clock rate of the codecs we carry: Opus and all video.
pub fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => 48_000,
        Kind::Video => 90_000,
    }
}

/// The rate over the last full window, or over what there is of the first.
#[derive(Debug, Default)]
pub struct RateMeter {
    since: Option<Instant>,
    bytes: u64,
    rate: Option<Bitrate>,
}

impl RateMeter {
    /// Long enough for a key frame not to double the figure.
    const WINDOW: Duration = Duration::from_secs(1);

    /// Counts `bytes`.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.close_window(now);
        self.bytes += bytes as u64;
    }

    fn close_window(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let span = now.saturating_duration_since(since);
        if span >= 2 * Self::WINDOW {
            // A pause lies between: what came before says nothing of what comes now.
            *self = Self {
                since: Some(now),
                ..Self::default()
            };
        } else if span >= Self::WINDOW {
            self.rate = Some(Bitrate::of(self.bytes, span));
            self.since = Some(now);
            self.bytes = 0;
        }
    }

    /// The rate; zero before anything was counted.
    pub fn rate(&self, now: Instant) -> Bitrate {
        let span = self
            .since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // A first key frame says little of the rate to come: it counts as half a second's worth.
        self.rate
            .unwrap_or_else(|| Bitrate::of(self.bytes, span.max(Self::WINDOW / 2)))
    }
}

/// Sorts RIDs so that the smallest picture comes first: LiveKit's `q`, `h`, `f`, and `2`, `1`,
/// `0`, where 2 is the smallest. Others keep the order of the offer.
pub fn sort_rids(rids: &mut [String]) {
    rids.sort_by_key(|rid| match rid.as_str() {
        "q" | "2" => 0,
        "h" | "1" => 1,
        "f" | "0" => 2,
        _ => 3,
    });
}
