//! Decides which packets of a simulcast track a subscription gets. Step 5 of the hot path.
//!
//! ```text
//!   Paused -- target --> Waiting -- key frame --> Forwarding -- key frame of a layer
//!     ^                     |                       |   ^       nearer to the target --+
//!     +------ no target ----+---- no target --------+   +------------------------------+
//! ```
//!
//! Streams are separate encodings: only a key frame leads from one to another, and until it comes
//! the old one goes on; unless far too much goes out, or waits to: then it ends with its picture,
//! and the subscription waits. Layers inside a stream are left out by whole frames. A subscriber
//! must never stay without a picture because the layer it wants has stopped: what is there is
//! taken, and a key frame asked of it.
//!
//! Audio has no layers and does not come here. Numbers are for
//! [`Rewrite`](super::rewrite::Rewrite), which target is right for the allocator, and asking for
//! key frames for the feedback broker.

use std::time::{Duration, Instant};

use super::codec::Cut;
use super::codec::dependency::LeftOut;
use super::order::{Order, Place};
use super::packet::{Layer, Packet};

/// A layer not heard of for this long has stopped. A screen that does not change is sent once per
/// second by browsers, so this must be longer.
pub const SILENCE: Duration = Duration::from_millis(1500);

/// So many frames of a smaller layer without a packet of one: 270 ms of a camera. A screen that
/// doesn't change is silent in all layers, and its smaller ones may have fewer frames.
pub const OUTLIVED: u8 = 8;

/// The layer choice of one subscription.
#[derive(Debug)]
pub struct Layers {
    state: State,
    pressure: Pressure,
    heard: [Option<Heard>; Layer::COUNT_MAX],
    /// When the spatial layers inside a stream were last heard of.
    inner: [Option<Instant>; Layer::COUNT_MAX],
}

/// What a subscription should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The stream.
    pub stream: Layer,
    /// Its highest layers.
    pub cut: Cut,
}

/// How much waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// No more than usual.
    None,
    /// So much that frames are left out that can be.
    Long,
    /// Too much: nothing more, until there is room for a key frame.
    Full,
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is not part of what this subscription sees.
    Ignore,
    /// It is part of it, but left out: the numbers must close over it.
    Skip,
    /// Forward it. A late one only if its number was promised, which the rewrite knows.
    Forward,
    /// Forward it as the first packet of a new source.
    Switch,
}

#[derive(Debug)]
enum State {
    Paused,
    Waiting {
        target: Target,
        since: Option<Instant>,
    },
    Forwarding {
        current: Current,
        target: Target,
    },
}

#[derive(Debug)]
struct Current {
    layer: Layer,
    /// What is forwarded of it; moves towards the limit where a frame allows.
    cut: Cut,
    /// What was wanted when the newest picture began.
    limit: Cut,
    /// Timestamp and spatial layer of the newest frame, and what is done with all its packets.
    frame: (u32, u8),
    fate: Decision,
    left_out: LeftOut,
    /// It ends with the next picture.
    ends: bool,
    /// Its key frame has left, so that what waits is what came after it.
    settled: bool,
    /// Frames of each smaller layer since a packet of this one.
    without: [u8; Layer::COUNT_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    order: Order,
    arrival: Instant,
}

impl Layers {
    /// Nothing is forwarded until a target is set.
    pub fn new() -> Self {
        Self {
            state: State::Paused,
            pressure: Pressure::None,
            heard: [None; Layer::COUNT_MAX],
            inner: [None; Layer::COUNT_MAX],
        }
    }

    /// Sets what is wanted; `None` pauses at once. A new target takes effect at the next key frame
    /// of its layer, a new temporal limit at the next frame that allows it.
    pub fn set_target(&mut self, wanted: Option<Target>) {
        let Some(wanted) = wanted else {
            self.state = State::Paused;
            return;
        };
        match &mut self.state {
            State::Paused => {
                self.state = State::Waiting {
                    target: wanted,
                    since: None,
                }
            }
            State::Waiting { target, .. } | State::Forwarding { target, .. } => *target = wanted,
        }
    }

    /// What goes out now is more than the link carries: a smaller target doesn't wait for its key
    /// frame, but ends that with the next frame.
    pub fn cut_short(&mut self) {
        if let State::Forwarding { current, target } = &mut self.state {
            current.ends |= target.stream < current.layer;
        }
    }

    /// How much waits to be sent.
    pub fn press(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    /// Decides on a packet. Feed every packet of every layer of the track, in order of arrival.
    pub fn decide(&mut self, packet: &Packet) -> Decision {
        let Some(place) = self.hear(packet) else {
            return Decision::Ignore;
        };
        let start = packet.frame.key && matches!(place, Place::Next { .. } | Place::Restart);
        if start && self.pressure < Pressure::Full && self.takes(packet) {
            return self.switch(packet);
        }
        let pressure = self.pressure;
        match &mut self.state {
            State::Paused => Decision::Ignore,
            State::Waiting { since, .. } => {
                since.get_or_insert(packet.arrival);
                Decision::Ignore
            }
            State::Forwarding { current, target } if current.layer == packet.layer => match place {
                Place::Late | Place::Stray => Decision::Forward,
                Place::Next { .. } | Place::Restart if current.ends_at(packet, pressure) => {
                    let target = *target;
                    self.state = State::Waiting {
                        target,
                        since: None,
                    };
                    Decision::Ignore
                }
                Place::Next { .. } | Place::Restart => {
                    current.without = Default::default();
                    let mut wanted = target.cut;
                    if pressure > Pressure::None {
                        wanted.temporal = 0;
                    }
                    current.decide(packet, wanted)
                }
            },
            State::Forwarding { current, .. } => {
                current.miss(packet);
                Decision::Ignore
            }
        }
    }

    /// The layer that a key frame is needed of now, if any: the target, or while that is silent the
    /// best that can be heard.
    pub fn wanted_key_frame(&self, now: Instant) -> Option<Layer> {
        let (target, current) = match &self.state {
            State::Paused => return None,
            State::Waiting { target, .. } => (target, None),
            State::Forwarding { current, target } => (target, Some(current)),
        };
        let wanted = self.best_heard(target.stream, now).unwrap_or(target.stream);
        let there = current.is_some_and(|current| {
            current.layer == wanted && current.cut.spatial >= self.best_inner(target.cut, now)
        });
        (!there).then_some(wanted)
    }

    /// Whether a key frame of this layer would be taken now: of the wanted one, or of any below it
    /// while the picture stands. A publisher who has ended one size may be about to end the next.
    pub fn wants_key_frame(&self, layer: Layer, now: Instant) -> bool {
        let wanted = self.wanted_key_frame(now);
        let stands = matches!(&self.state, State::Forwarding { current, .. } if current.stands());
        wanted == Some(layer) || stands && wanted > Some(layer) && self.lives(layer, now)
    }

    /// What is forwarded now of the stream that is.
    pub fn cut(&self) -> Cut {
        match &self.state {
            State::Forwarding { current, .. } => current.cut,
            State::Paused | State::Waiting { .. } => Cut::NONE,
        }
    }

    /// The stream that is forwarded now.
    pub fn current(&self) -> Option<Layer> {
        match &self.state {
            State::Forwarding { current, .. } => Some(current.layer),
            State::Paused | State::Waiting { .. } => None,
        }
    }

    /// Notes that a layer lives. `None` for layers that cannot be.
    fn hear(&mut self, packet: &Packet) -> Option<Place> {
        let heard = self.heard.get_mut(usize::from(packet.layer.0))?;
        if packet.frame.spatial > 0
            && let Some(inner) = self.inner.get_mut(usize::from(packet.frame.spatial))
        {
            *inner = Some(packet.arrival);
        }
        match heard {
            Some(heard) => {
                heard.arrival = heard.arrival.max(packet.arrival);
                Some(heard.order.place(packet.seq))
            }
            None => {
                let order = Order::new(packet.seq);
                *heard = Some(Heard {
                    order,
                    arrival: packet.arrival,
                });
                Some(Place::Next { missing: 0 })
            }
        }
    }

    /// Whether to change over to the layer whose key frame starts here.
    fn takes(&self, packet: &Packet) -> bool {
        let layer = packet.layer;
        match &self.state {
            State::Paused => false,
            // Anything not above the target at once; above it only if nothing else is to be had.
            State::Waiting { target, since } => {
                let patient = since.is_some_and(|since| {
                    packet.arrival.saturating_duration_since(since) >= SILENCE
                });
                let lower = (0..=target.stream.0).any(|it| self.lives(Layer(it), packet.arrival));
                layer <= target.stream || patient && !lower
            }
            State::Forwarding { current, target } => {
                let nearer = if current.layer < target.stream {
                    layer > current.layer && layer <= target.stream
                } else {
                    layer < current.layer && layer >= target.stream
                };
                let other = layer != current.layer;
                nearer
                    || other && current.stands() && layer <= target.stream
                    || other
                        && !self.lives(current.layer, packet.arrival)
                        && self.best_heard(target.stream, packet.arrival) == Some(layer)
            }
        }
    }

    fn switch(&mut self, packet: &Packet) -> Decision {
        let (State::Waiting { target, .. } | State::Forwarding { target, .. }) = self.state else {
            return Decision::Ignore;
        };
        let current = Current {
            layer: packet.layer,
            cut: target.cut,
            limit: target.cut,
            frame: (packet.timestamp, packet.frame.spatial),
            fate: Decision::Forward,
            left_out: LeftOut::default(),
            ends: false,
            settled: false,
            without: Default::default(),
        };
        self.state = State::Forwarding { current, target };
        Decision::Switch
    }

    /// The highest living layer up to the target, else the lowest above it.
    fn best_heard(&self, target: Layer, now: Instant) -> Option<Layer> {
        let above = target.0.saturating_add(1)..Layer::COUNT_MAX as u8;
        let mut layers = (0..=target.0).rev().chain(above).map(Layer);
        layers.find(|&layer| self.lives(layer, now))
    }

    /// The highest living spatial layer inside the stream that is wanted.
    fn best_inner(&self, wanted: Cut, now: Instant) -> u8 {
        let lives = |heard: &Instant| now.saturating_duration_since(*heard) < SILENCE;
        let layers = self.inner.iter().zip(0u8..);
        let living = layers.filter(|(heard, _)| heard.as_ref().is_some_and(lives));
        let spatial = living.map(|(_, spatial)| spatial);
        spatial
            .filter(|it| *it <= wanted.spatial)
            .max()
            .unwrap_or(0)
    }

    fn lives(&self, layer: Layer, now: Instant) -> bool {
        let heard = self.heard.get(usize::from(layer.0)).copied().flatten();
        let current = match &self.state {
            State::Forwarding { current, .. } if current.layer == layer => Some(current),
            _ => None,
        };
        heard.is_some_and(|heard| now.saturating_duration_since(heard.arrival) < SILENCE)
            && !current.is_some_and(Current::stands)
    }
}

impl Default for Layers {
    fn default() -> Self {
        Self::new()
    }
}

impl Current {
    /// Counts what comes of a smaller layer.
    fn miss(&mut self, packet: &Packet) {
        if packet.marker
            && packet.layer < self.layer
            && let Some(frames) = self.without.get_mut(usize::from(packet.layer.0))
        {
            *frames = frames.saturating_add(1);
        }
    }

    /// Whether a smaller layer has gone on for some frames without it: it has ended.
    fn stands(&self) -> bool {
        self.without.iter().any(|frames| *frames >= OUTLIVED)
    }

    /// Whether it ends, and a new picture begins here.
    fn ends_at(&mut self, packet: &Packet, pressure: Pressure) -> bool {
        self.settled |= pressure < Pressure::Full;
        let ends = self.ends || self.settled && pressure == Pressure::Full;
        ends && packet.frame.start && packet.timestamp != self.frame.0
    }

    /// Decides on a packet in order. All packets of a frame share one fate: half a frame is of no
    /// use, and holds the receiver up.
    fn decide(&mut self, packet: &Packet, wanted: Cut) -> Decision {
        if packet.payload.is_empty() {
            return Decision::Skip;
        }
        let frame = (packet.timestamp, packet.frame.spatial);
        if frame != self.frame {
            let passes = self.judge(packet, wanted);
            self.frame = frame;
            // Numbers before a frame whose start is missing were promised to it: it must go whole.
            self.fate = if passes || !packet.frame.start {
                Decision::Forward
            } else {
                Decision::Skip
            };
        }
        self.fate
    }

    /// Whether a frame that starts with this packet goes out.
    fn judge(&mut self, packet: &Packet, wanted: Cut) -> bool {
        let frame = packet.frame;
        if packet.timestamp != self.frame.0 {
            // Less is possible with every picture, but not in the midst of one.
            self.limit = wanted;
            self.cut.spatial = self.cut.spatial.min(wanted.spatial);
            self.cut.temporal = self.cut.temporal.min(wanted.temporal);
        }
        if frame.key {
            self.cut = self.limit;
            self.left_out.clear();
        }
        match &packet.dependency {
            // It names what it needs: if all that went out, so may this.
            Some(description) => {
                let whole = !description
                    .references()
                    .any(|it| self.left_out.contains(it));
                let passes = whole && self.limit.admits(frame.spatial, frame.temporal);
                if passes {
                    self.cut.spatial = self.cut.spatial.max(frame.spatial);
                    self.cut.temporal = self.cut.temporal.max(frame.temporal);
                } else {
                    self.left_out.note(description.number());
                }
                passes
            }
            None => {
                // Only one temporal layer at a time: a frame of the next one may still refer to
                // frames that were left out.
                let next = self.cut.temporal.saturating_add(1);
                if frame.climbs && frame.temporal == next && next <= self.limit.temporal {
                    self.cut.temporal = next;
                }
                if frame.independent && frame.spatial <= self.limit.spatial {
                    self.cut.spatial = self.cut.spatial.max(frame.spatial);
                }
                self.cut.admits(frame.spatial, frame.temporal)
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/layers.rs"]
mod tests;
