//! Packets of a frame go to a subscriber together. Between steps 4 and 5 of the hot path.
//!
//! A browser spreads the packets of a frame over some tenths of a millisecond, so the worker wakes
//! several times for one. To send them on one by one would cost a call to the kernel for each of
//! them and subscriber, and a walk over all subscribers' memory each time. So a frame waits for its
//! last packet, but no longer than [`HOLD`]; sound, which comes in single packets, doesn't wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::egress::Leg;
use super::encoding::EncodingKey;
use super::message::Kind;
use super::packet::{Layer, Packet};
use super::room::Room;
use super::shard::{Core, Shard};
#[cfg(test)]
use super::tests::fault;
use super::track::Publisher;
use super::{PeerKey, RoomKey};

/// Longest wait for the end of a frame. A runtime that keeps its time in milliseconds makes it one
/// to two.
pub const HOLD: Duration = Duration::from_micros(500);

/// Most packets that wait: what one call to the kernel takes. More come along only if they were
/// received in the same turn, which is bounded.
const PACKETS_MAX: usize = 64;

/// One stream of a room's track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    /// The room.
    pub room: RoomKey,
    /// The encoding.
    pub encoding: EncodingKey,
    /// Which of its streams.
    pub layer: Layer,
}

/// What waits of one stream.
#[derive(Debug, Default)]
pub struct Burst {
    packets: Vec<Packet>,
    /// It is to leave at the end of this turn.
    ready: bool,
}

impl Burst {
    /// How many packets wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }
}

/// Which streams have something that waits.
#[derive(Debug, Default)]
pub struct Bursts {
    /// Until the end of this turn. Each once.
    ready: VecDeque<StreamKey>,
    /// Until the end of their frames, and since when, longest first. Each once.
    held: VecDeque<(Instant, StreamKey)>,
}

impl Bursts {
    /// A packet has come, on its way to all who have its stream.
    pub fn push(&mut self, key: StreamKey, burst: &mut Burst, packet: Packet, now: Instant) {
        let ends = packet.marker || packet.format.codec().kind() == Kind::Audio;
        let is_first = burst.packets.is_empty();
        burst.packets.push(packet);
        if burst.ready {
            return;
        }
        if ends || burst.packets.len() >= PACKETS_MAX {
            burst.ready = true;
            self.ready.push_back(key);
            if !is_first && let Some(at) = self.held.iter().position(|(_, held)| *held == key) {
                self.held.remove(at);
            }
        } else if is_first {
            self.held.push_back((now, key));
        }
    }

    /// Packets have come that waited for each other elsewhere.
    pub fn take(&mut self, key: StreamKey, burst: &mut Burst, packets: &mut Vec<Packet>) {
        burst.packets.append(packets);
        if !std::mem::replace(&mut burst.ready, true) {
            self.ready.push_back(key);
        }
    }

    /// When the next frame has waited for long enough.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.front().map(|(since, _)| *since + HOLD)
    }

    /// The next stream with something that has waited long enough.
    pub fn next(&mut self, now: Instant) -> Option<StreamKey> {
        if let Some(key) = self.ready.pop_front() {
            return Some(key);
        }
        self.deadline().filter(|at| *at <= now)?;
        self.held.pop_front().map(|(_, key)| key)
    }
}

/// A burst on its way through those who get it.
///
/// One after the other, and what is written for one leaves before it is the next one's turn: keys,
/// numbers and the packets themselves are still in the processor's cache when the kernel is handed
/// them.
#[derive(Debug)]
pub struct FanOut {
    key: StreamKey,
    /// Who sent it.
    publisher: Publisher,
    packets: Vec<Packet>,
    /// The subscriber whose turn it is.
    next: usize,
    /// Those it was sent to.
    copies: u64,
    now: Instant,
}

/// Legs with datagrams to send, each once.
#[derive(Default)]
pub struct Dirty {
    /// In the order they got some.
    pub legs: VecDeque<PeerKey>,
}

impl Dirty {
    /// Something was written for a leg.
    pub fn mark(&mut self, room: RoomKey, participant: u32, leg: &mut Leg) {
        if leg.mark() {
            self.legs.push_back(PeerKey { room, participant });
        }
    }
}

impl Shard {
    /// Takes what has waited for long enough one step further on its way; whether there was any.
    pub(super) fn fan_out(&mut self) -> bool {
        let now = self.core.now;
        if self.core.fan_out.is_none() {
            let Some(key) = self.core.bursts.next(now) else {
                return false;
            };
            let room = self.rooms.get_mut(key.room.0 as usize);
            let core = &mut self.core;
            core.fan_out = room.and_then(|room| room.begin_fan_out(core, key, now));
        }
        // A fault on the way ends it, and the stay of who sent it.
        if let Some(mut fan_out) = self.core.fan_out.take() {
            let (room, publisher) = (fan_out.key.room, fan_out.publisher);
            let step = |core: &mut Core, room: &mut Room| {
                if room.fan_out(core, &mut fan_out) {
                    core.fan_out = Some(fan_out);
                }
            };
            match publisher {
                Publisher::Here(participant) => {
                    self.contain(now, PeerKey { room, participant }, step);
                }
                Publisher::There(origin) => self.contain_remote(room, origin, step),
            }
        }
        true
    }
}

impl Room {
    /// What has waited of a stream begins its way; nothing if it is gone meanwhile.
    pub fn begin_fan_out(
        &mut self,
        core: &mut Core,
        key: StreamKey,
        now: Instant,
    ) -> Option<FanOut> {
        let track = self.tracks.get_mut(key.encoding.track.0 as usize)?;
        let publisher = track.publisher;
        let encoding = track.encodings.get_mut(key.encoding.number)?;
        let stream = encoding.stream(key.layer)?;
        stream.burst.ready = false;
        let packets = std::mem::take(&mut stream.burst.packets);
        self.pass_burst(core, key, &packets, now);
        Some(FanOut {
            key,
            publisher,
            packets,
            next: 0,
            copies: 0,
            now,
        })
    }

    /// It reaches the next one who gets it. Whether there was one.
    pub fn fan_out(&mut self, core: &mut Core, fan_out: &mut FanOut) -> bool {
        let FanOut {
            key,
            packets,
            next,
            copies,
            now,
            ..
        } = fan_out;
        let Self {
            tracks,
            participants,
            ..
        } = self;
        let track = &mut tracks[key.encoding.track.0 as usize];
        let encoding = &mut track.encodings[key.encoding.number];
        let Some(subscriber) = encoding.subscribers.get(*next) else {
            for packet in packets.drain(..) {
                let held = now.saturating_duration_since(packet.arrival);
                core.counters.hold_seconds.observe(held, *copies);
            }
            if let Some(stream) = encoding.stream(key.layer) {
                stream.burst.packets = std::mem::take(packets);
            }
            return false;
        };
        *next += 1;
        #[cfg(test)]
        fault::trip(
            fault::Point::Forward,
            &participants[subscriber.participant as usize].identity,
        );
        let leg = &mut participants[subscriber.participant as usize].leg;
        leg.borrow(&mut core.spare);
        leg.forward(
            subscriber.subscription,
            packets,
            &encoding.streams,
            *now,
            &mut core.counters,
        );
        let due = leg.due();
        if leg.has_output(&mut core.spare) {
            *copies += 1;
            core.dirty.mark(key.room, subscriber.participant, leg);
        }
        if due.is_some() {
            let slot = subscriber.participant;
            self.arm(core, slot);
        }
        true
    }
}
