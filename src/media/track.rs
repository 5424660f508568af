//! A published track: what was announced of it, and the streams it really comes in.

use std::time::{Duration, Instant};

use super::allocator::TEMPORAL_MAX;
use super::codec::{Codec, Cut, Frame, dependency};
use super::dynacast::Dynacast;
use super::keyframe::KeyFrameRequests;
use super::layers::{SILENCE, Target};
use super::message::{Kind, Quality, TrackInfo};
use super::ntp::TimestampMap;
use super::packet::{Layer, Packet};
use super::quality::Arrivals;
use super::retransmit::Ring;
use super::speakers::Detector;
use crate::units::Bitrate;

/// A published track.
pub struct Track {
    /// As others see it.
    pub info: TrackInfo,
    /// The slot of who publishes it.
    pub publisher: u32,
    /// What its packets are coded with.
    pub codec: Codec,
    /// When that last turned out to be another than was thought.
    pub codec_changed: Option<Instant>,
    /// RIDs of its layers, smallest first; empty without simulcast.
    pub rids: Vec<String>,
    /// Its streams, smallest first.
    pub layers: Vec<Stream>,
    /// To whom it goes.
    pub subscribers: Vec<Subscriber>,
    /// When it was published or last unmuted: its layers need a moment to show what they cost.
    pub resumed: Instant,
    /// Whether the publisher was told of its first subscriber.
    pub subscribed_told: bool,
    /// Whether somebody speaks on it.
    pub speech: Detector,
    /// What its publisher was told to send.
    pub dynacast: Dynacast,
}

/// Where a track goes: a participant and the subscription in its leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber {
    /// Slot of the participant.
    pub participant: u32,
    /// Slot in its leg.
    pub subscription: u32,
}

/// One stream of a track: a spatial layer, or all of it.
pub struct Stream {
    /// Its SSRC, once a packet came.
    pub ssrc: Option<u32>,
    /// The last packets of a video, for retransmissions to any subscriber.
    pub ring: Option<Ring>,
    /// What each of its spatial and temporal layers costs, without those below.
    pub rates: [[RateMeter; TEMPORAL_MAX]; Layer::COUNT_MAX],
    /// When the last packet of each of its spatial layers came.
    inner: [Option<Instant>; Layer::COUNT_MAX],
    /// How its dependency descriptors are to be read.
    pub dependency: dependency::State,
    /// Key frames asked for.
    pub key_frames: KeyFrameRequests,
    /// Its RTP clock against the publisher's wall clock.
    pub clock: TimestampMap,
    /// What of it arrives.
    pub arrivals: Arrivals,
}

impl Track {
    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.info.announced.kind
    }

    /// Where its RIDs stand: `layer` of `rid`, 0 for a track without.
    pub fn layer_of(&self, rid: Option<&str>) -> Option<Layer> {
        match rid {
            None => Some(Layer(0)),
            Some(rid) => self
                .rids
                .iter()
                .position(|known| known == rid)
                .map(|at| Layer(at as u8)),
        }
    }

    /// Whether the publisher may go over to another codec now: everybody is told, so not too often.
    pub fn may_change_codec(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < CODEC_STAYS;
        let may = !self.codec_changed.is_some_and(recently);
        if may {
            self.codec_changed = Some(now);
        }
        may
    }

    /// How many sizes of the picture there are, each in its own stream or all in one.
    pub fn sizes(&self) -> usize {
        match self.layers.len() {
            1 if self.codec.is_layered() => {
                let announced = self.info.announced.layers.len();
                announced.clamp(1, Layer::COUNT_MAX)
            }
            streams => streams,
        }
    }

    /// Where the sizes up to `spatial` are found: in which stream, and how much of that.
    pub fn target(&self, spatial: Layer, temporal: u8) -> Target {
        let (stream, spatial) = match self.layers.len() {
            1 => (Layer(0), spatial.0),
            _ => (spatial, u8::MAX),
        };
        Target {
            stream,
            cut: Cut { spatial, temporal },
        }
    }

    /// The layer to send at most to someone who wants `quality`.
    pub fn layer_for_quality(&self, quality: Quality) -> Layer {
        let highest = self.sizes().saturating_sub(1);
        // With two layers their names don't matter: the lower one is what LOW gets.
        Layer((quality as usize).min(highest) as u8)
    }

    /// The smallest layer that covers `width` x `height` pixels.
    pub fn layer_for_dimensions(&self, width: u32, height: u32) -> Layer {
        let highest = self.sizes().saturating_sub(1);
        let announced = &self.info.announced;
        let covers = |at: usize| {
            let (full_width, full_height) = announced.dimensions;
            let (layer_width, layer_height) = match announced.layers.get(at) {
                Some(layer) if announced.layers.len() == self.sizes() => {
                    (layer.width, layer.height)
                }
                // Not announced one by one: each is half of the next.
                _ => (full_width >> (highest - at), full_height >> (highest - at)),
            };
            layer_width >= width && layer_height >= height
        };
        Layer((0..highest).find(|at| covers(*at)).unwrap_or(highest) as u8)
    }

    /// Whether anything of it has ever come.
    pub fn has_begun(&self) -> bool {
        self.layers.iter().any(|stream| stream.ssrc.is_some())
    }

    /// It starts, anew after a pause. Whoever waits for a key frame says so again.
    pub fn resume(&mut self, now: Instant) {
        self.resumed = now;
        self.forget_key_frames();
    }

    /// Nobody waits for a key frame any more.
    pub fn forget_key_frames(&mut self) {
        for stream in &mut self.layers {
            stream.key_frames.forget();
        }
    }

    /// What each layer costs up to each temporal layer; zero for those that don't come.
    ///
    /// A layer not heard of yet counts with the rate that was announced for it as long as the
    /// track is new: otherwise everybody would start with the smallest picture, although the key
    /// frames of all layers have just come.
    pub fn rates(&self, now: Instant) -> [[Bitrate; TEMPORAL_MAX]; Layer::COUNT_MAX] {
        let mut rates = [[Bitrate::ZERO; TEMPORAL_MAX]; Layer::COUNT_MAX];
        let new = now.saturating_duration_since(self.resumed) < SETTLING;
        for (at, rate) in rates.iter_mut().enumerate().take(self.sizes()) {
            let (stream, inner) = self.place(at);
            *rate = stream.rates(inner, now);
            if new && !stream.is_live(inner, now) {
                let announced = self.info.announced.layers.get(at);
                let expected = announced.map_or(0, |layer| u64::from(layer.bitrate));
                rate[0] = Bitrate::bps(expected.clamp(1, EXPECTED_BPS_MAX));
            }
        }
        rates
    }

    /// Where the size `at` is found: its stream, and its spatial layer in that.
    pub fn place(&self, at: usize) -> (&Stream, usize) {
        match self.layers.len() {
            1 => (&self.layers[0], at),
            _ => (&self.layers[at], 0),
        }
    }

    /// The stream of `layer`.
    pub fn stream(&mut self, layer: Layer) -> Option<&mut Stream> {
        self.layers.get_mut(usize::from(layer.0))
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
            dependency: dependency::State::default(),
            key_frames: KeyFrameRequests::default(),
            clock: TimestampMap::new(clock_rate(kind)),
            arrivals: Arrivals::default(),
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
        let spatial = usize::from(spatial).min(Layer::COUNT_MAX - 1);
        let temporal = usize::from(temporal).min(TEMPORAL_MAX - 1);
        self.inner[spatial] = Some(packet.arrival);
        self.rates[spatial][temporal].add(packet.arrival, packet.payload.len());
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
    fn is_live(&self, spatial: usize, now: Instant) -> bool {
        self.inner[spatial].is_some_and(|at| now.saturating_duration_since(at) < SILENCE)
    }
}

/// A codec stays at least this long. Browsers change it when an encoder fails, or by an offer.
const CODEC_STAYS: Duration = Duration::from_secs(1);

/// How long a layer of a new track may take to show itself. Chromium starts them within a second.
const SETTLING: Duration = Duration::from_secs(2);

/// No announcement counts for more than this.
const EXPECTED_BPS_MAX: u64 = 10_000_000;

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
