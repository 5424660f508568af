//! One encoding of a track: its codec, the streams it comes in, and who gets it.
//!
//! Most tracks have one. A video may have a second, the backup, for those who can't read the codec
//! that its publisher prefers. Each encoding has a media section of its own, is asked for only as
//! far as its own subscribers want it (`dynacast.rs`), and goes to them alone. The backup is
//! announced from the beginning but sent only after the publisher heard that somebody needs it: it
//! can have subscribers before it has streams.

use std::time::{Duration, Instant};

use super::TrackKey;
use super::allocator::TEMPORAL_MAX;
use super::codec::{Codec, Cut};
use super::dynacast::Dynacast;
use super::layers::Target;
use super::message::{AddTrack, CodecInfo, LayerInfo, Quality};
use super::packet::Layer;
use super::relay::Pull;
use super::room::Room;
use super::track::{Stream, Subscriber, sort_rids};
use crate::units::Bitrate;

/// The codec a publisher prefers, and a backup. Further ones are not taken.
pub const ENCODINGS_MAX: usize = 2;

/// An encoding of a track in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodingKey {
    /// Of this track.
    pub track: TrackKey,
    /// Its place in the track: 0 is the preferred one, and the track lives as long as it does.
    pub number: usize,
}

/// One encoding.
pub struct Encoding {
    /// The codec it was announced with: the name by which the publisher knows it.
    pub announced: Codec,
    /// What its packets are coded with.
    pub codec: Codec,
    /// When that last turned out to be another than was thought.
    pub codec_changed: Option<Instant>,
    /// Its spatial layers, as announced.
    pub sizes: Vec<LayerInfo>,
    /// RIDs of its layers, smallest first; empty without simulcast.
    pub rids: Vec<String>,
    /// Its streams, smallest first; none before it has a media section.
    pub streams: Vec<Stream>,
    /// To whom it goes.
    pub subscribers: Vec<Subscriber>,
    /// What other parts of the room want of it, if it is video. Bounded by the number of workers.
    pub pulls: Vec<Pull>,
    /// When it was published or last resumed: its layers need a moment to show what they cost.
    pub resumed: Instant,
    /// What its publisher was told to send.
    pub dynacast: Dynacast,
}

impl Encoding {
    /// Those of a new track, never none. The preferred one has this codec, whatever was announced.
    pub fn all(announced: &AddTrack, codec: Codec, now: Instant) -> Vec<Self> {
        let preferred = announced.codecs.first();
        let sizes = |own: Option<&CodecInfo>| {
            let own = own.filter(|info| !info.layers.is_empty());
            own.map_or(&announced.layers, |info| &info.layers).clone()
        };
        let mut first = Self::new(codec, sizes(preferred), Dynacast::default(), now);
        let named = preferred.and_then(|info| Codec::named(&info.mime));
        first.announced = named.unwrap_or(codec);
        let backups = announced.codecs.iter().skip(1).filter_map(|info| {
            let codec = Codec::named(&info.mime)?;
            Some(Self::new(codec, sizes(Some(info)), Dynacast::silent(), now))
        });
        let all = std::iter::once(first).chain(backups);
        all.take(ENCODINGS_MAX).collect()
    }

    /// One without streams yet.
    pub fn new(codec: Codec, sizes: Vec<LayerInfo>, dynacast: Dynacast, now: Instant) -> Self {
        Self {
            announced: codec,
            codec,
            codec_changed: None,
            sizes,
            rids: Vec::new(),
            streams: Vec::new(),
            subscribers: Vec::new(),
            pulls: Vec::new(),
            resumed: now,
            dynacast,
        }
    }

    /// It has a media section, with these RIDs.
    pub fn open(&mut self, mut rids: Vec<String>, now: Instant) {
        sort_rids(&mut rids);
        let streams = (0..rids.len().max(1)).map(|_| Stream::new(self.codec.kind()));
        self.streams = streams.collect();
        self.rids = rids;
        self.resumed = now;
    }

    /// Its media section is gone, and is asked for anew by whoever wants it.
    pub fn close(&mut self) {
        self.streams.clear();
        self.rids.clear();
        self.dynacast = Dynacast::silent();
    }

    /// Where its RIDs stand: `layer` of `rid`, 0 without.
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
    pub fn count(&self) -> usize {
        match self.streams.len() {
            1 if self.codec.is_layered() => self.sizes.len().clamp(1, Layer::COUNT_MAX),
            streams => streams,
        }
    }

    /// Where the sizes up to `spatial` are found: in which stream, and how much of that.
    pub fn target(&self, spatial: Layer, temporal: u8) -> Target {
        let (stream, spatial) = match self.streams.len() {
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
        let highest = self.count().saturating_sub(1);
        // With two layers their names don't matter: the lower one is what LOW gets.
        Layer((quality as usize).min(highest) as u8)
    }

    /// The smallest layer that covers `width` x `height` pixels, of a picture that is `full`.
    pub fn layer_for_dimensions(&self, (width, height): (u32, u32), full: (u32, u32)) -> Layer {
        let highest = self.count().saturating_sub(1);
        let covers = |at: usize| {
            let (layer_width, layer_height) = match self.sizes.get(at) {
                Some(layer) if self.sizes.len() == self.count() => (layer.width, layer.height),
                // Not announced one by one: each is half of the next.
                _ => (full.0 >> (highest - at), full.1 >> (highest - at)),
            };
            layer_width >= width && layer_height >= height
        };
        Layer((0..highest).find(|at| covers(*at)).unwrap_or(highest) as u8)
    }

    /// What the best of these layers is called when it is asked for. The highest layer stands for
    /// everything: clients with fewer than three layers name them differently.
    pub fn quality_of(&self, layer: Layer) -> Quality {
        match layer.0 {
            at if usize::from(at) + 1 >= self.streams.len() => Quality::High,
            0 => Quality::Low,
            _ => Quality::Medium,
        }
    }

    /// It starts, anew after a pause. Whoever waits for a key frame says so again.
    pub fn resume(&mut self, now: Instant) {
        self.resumed = now;
        self.forget_key_frames();
    }

    /// A participant doesn't get it any more.
    pub fn leave(&mut self, slot: u32) -> Option<Subscriber> {
        let mut subscribers = self.subscribers.iter();
        let at = subscribers.position(|subscriber| subscriber.participant == slot)?;
        let subscriber = self.subscribers.remove(at);
        if self.subscribers.is_empty() {
            self.forget_key_frames();
        }
        Some(subscriber)
    }

    /// Nobody waits for a key frame any more.
    pub fn forget_key_frames(&mut self) {
        for stream in &mut self.streams {
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
        for (at, rate) in rates.iter_mut().enumerate().take(self.count()) {
            let (stream, inner) = self.place(at);
            let smaller = self.streams.iter().take(at);
            let ended = smaller.into_iter().any(|it| stream.is_outlived_by(it));
            if !ended {
                *rate = stream.rates(inner, now);
            }
            if new && !stream.is_live(inner, now) {
                let announced = self.sizes.get(at);
                let expected = announced.map_or(0, |layer| u64::from(layer.bitrate));
                rate[0] = Bitrate::bps(expected.clamp(1, EXPECTED_BPS_MAX));
            }
        }
        rates
    }

    /// Where the size `at` is found: its stream, and its spatial layer in that.
    pub fn place(&self, at: usize) -> (&Stream, usize) {
        match self.streams.len() {
            1 => (&self.streams[0], at),
            _ => (&self.streams[at], 0),
        }
    }

    /// The stream of `layer`.
    pub fn stream(&mut self, layer: Layer) -> Option<&mut Stream> {
        self.streams.get_mut(usize::from(layer.0))
    }
}

/// Encodings by their key.
impl std::ops::Index<EncodingKey> for Room {
    type Output = Encoding;
    fn index(&self, key: EncodingKey) -> &Encoding {
        &self[key.track].encodings[key.number]
    }
}

impl std::ops::IndexMut<EncodingKey> for Room {
    fn index_mut(&mut self, key: EncodingKey) -> &mut Encoding {
        &mut self[key.track].encodings[key.number]
    }
}

/// A codec stays at least this long. Browsers change it when an encoder fails, or by an offer.
const CODEC_STAYS: Duration = Duration::from_secs(1);

/// How long a layer of a new track may take to show itself. Chromium starts them within a second.
const SETTLING: Duration = Duration::from_secs(2);

/// No announcement counts for more than this.
const EXPECTED_BPS_MAX: u64 = 10_000_000;
